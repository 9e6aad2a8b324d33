"""A Benchmark at a real API server: its Job appears, the Job's account writes the result, and no other account may."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from draftmark.api import names
from draftmark.benchmark.decide import decide_benchmark
from draftmark.cluster import kinds
from draftmark.cluster.client import ApiClient
from draftmark.cluster.compare import differences
from draftmark.cluster.credentials import Credentials
from draftmark.cluster.errors import ApiError, Forbidden
from draftmark.measure.order import Order
from draftmark.measure.result import Refusal
from draftmark.render.benchmark import CONTAINER, ORDER_FILE, render_benchmark_keeping
from draftmark.render.metadata import Place
from tests.api.test_benchmark import benchmark
from tests.benchmark.test_status import full
from tests.benchmark.world import difference, result_of, row, winner
from tests.golden_benchmark import CASES
from tests.integration.conftest import Rig, service
from tests.specs import T0

Json = dict[str, Any]

TARGET = {"service": "llama", "allowUserTraffic": True}


async def status(rig: Rig, name: str = "first") -> Json:
    found: Json = (await rig.get(kinds.BENCHMARKS, name)).get("status", {})
    return found


async def reason(rig: Rig, name: str = "first") -> str:
    conditions = (await status(rig, name)).get("conditions") or ()
    return next((str(c["reason"]) for c in conditions if c["type"] == "Complete"), "")


async def create(rig: Rig, **spec: Any) -> Json:
    item = benchmark(target=TARGET, concurrency=[1, 2], **spec)
    item["metadata"]["namespace"] = rig.namespace
    return dict(await rig.api.create(kinds.BENCHMARKS, rig.namespace, item, field_manager="kubectl"))


async def order(rig: Rig, name: str = "first") -> Order:
    config = await rig.get(kinds.CONFIG_MAPS, str((await status(rig, name))["job"]))
    return Order.model_validate_json(config["data"][ORDER_FILE])


@asynccontextmanager
async def account(rig: Rig, name: str, folder: Path) -> AsyncIterator[ApiClient]:
    """A client that logs in as a ServiceAccount of the namespace, as its pod does."""
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 600}}
    kind, path = kinds.SERVICE_ACCOUNTS, f"{kinds.SERVICE_ACCOUNTS.path(rig.namespace, name)}/token"
    answer = await rig.api._write("create", kind, "POST", path, {}, body, "application/json", rig.namespace, name)
    file = _kubeconfig(Path(rig.kubeconfig), answer["status"]["token"], folder / f"{name}.yaml")
    async with ApiClient(Credentials.from_environment(file)) as client:
        yield client


def _kubeconfig(admin: Path, token: str, file: Path) -> str:
    """The same server, another user."""
    config = yaml.safe_load(admin.read_text("utf-8"))
    config["users"] = [{**user, "user": {"token": token}} for user in config["users"]]
    file.write_text(yaml.safe_dump(config), "utf-8")
    return str(file)


async def write(client: ApiClient, rig: Rig, text: str, config_map: str = "first-result") -> None:
    """As the Job writes its result."""
    operation = {"op": "add", "path": "/data", "value": {"result": text}}
    await client.json_patch(kinds.CONFIG_MAPS, rig.namespace, config_map, [operation], field_manager="benchmark")


async def begin(rig: Rig, **spec: Any) -> None:
    await rig.apply(service())
    await rig.start()
    await rig.until(rig.is_ready)
    await create(rig, **spec)

    async def is_asked() -> bool:
        return await reason(rig) == "Starting" and bool(await rig.all(kinds.JOBS))

    await rig.until(is_asked)


async def test_the_jobs_account_writes_the_result_and_no_other_account_may(rig: Rig, tmp_path: Path) -> None:
    await begin(rig)
    asked = await order(rig)
    text = result_of(asked).model_dump_json(by_alias=True)
    async with account(rig, "default", tmp_path) as other:
        with pytest.raises(Forbidden):
            await write(other, rig, text)
    async with account(rig, "first-benchmark", tmp_path) as job:
        for forbidden in (
            write(job, rig, text, asked.job),
            job.get(kinds.CONFIG_MAPS, rig.namespace, asked.job),
            job.get(kinds.PODS, rig.namespace, "any"),
            job.delete(kinds.CONFIG_MAPS, rig.namespace, "first-result", uid="any"),
        ):
            with pytest.raises(Forbidden):
                await forbidden
        assert await job.get(kinds.CONFIG_MAPS, rig.namespace, "first-result") is not None
        await write(job, rig, text)

        async def is_over() -> bool:
            return (await status(rig)).get("phase") == "Succeeded" and not await rig.all(kinds.ROLES)

        await rig.until(is_over)

        async def is_refused() -> bool:
            try:
                await write(job, rig, text)
            except ApiError:
                return True
            return False

        # The right went with the run, as soon as the API server's authorizer has heard of it: nobody changes a result afterwards.
        await rig.until(is_refused)
    told = await status(rig)
    assert [row["load"] for row in told["results"]] == ["concurrency 1", "concurrency 2"]
    assert told["target"]["service"] == "llama"
    await rig.quiet()
    before = len(rig.writes())
    await rig.quiet()
    assert rig.writes()[before:] == []
    config = await rig.get(kinds.CONFIG_MAPS, "first-result")
    assert config["data"] == {"result": text}


async def test_the_operators_own_rights_suffice_to_give_that_right(rig: Rig, tmp_path: Path) -> None:
    """RBAC lets nobody give what they do not have: with the rules of the chart, in one namespace only."""
    api, namespace = rig.api, rig.namespace
    rbac = {"apiGroup": "rbac.authorization.k8s.io"}
    subject = {"kind": "ServiceAccount", "name": "operator", "namespace": namespace}
    for kind, more in (
        (kinds.SERVICE_ACCOUNTS, {}),
        (kinds.ROLES, {"rules": kinds.namespace_rules()}),
        (kinds.ROLE_BINDINGS, {"roleRef": {**rbac, "kind": "Role", "name": "operator"}, "subjects": [subject]}),
    ):
        metadata = {"name": "operator", "namespace": namespace}
        body = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, **more}
        await api.create(kind, namespace, body, field_manager="test")
    async with account(rig, "operator", tmp_path) as operator:
        for manifest in render_benchmark_keeping(Place(service="first", namespace=namespace, uid=None)):
            kind = next(k for k in kinds.child_kinds() if k.kind == manifest["kind"])
            await operator.create(kind, namespace, manifest, field_manager="test")
        wider = await api.get(kinds.ROLES, namespace, "first-benchmark")
        assert wider is not None
        secrets = [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]
        with pytest.raises(ApiError, match="not currently held"):
            await operator.json_patch(
                kinds.ROLES,
                namespace,
                "first-benchmark",
                [{"op": "replace", "path": "/rules", "value": secrets}],
                field_manager="test",
            )


async def test_a_job_that_fails_is_followed_by_another(rig: Rig) -> None:
    """With the real controller of Jobs: its pod fails, so it does."""
    await begin(rig)
    (job,) = await rig.all(kinds.JOBS)
    pods = [p for p in await rig.all(kinds.PODS) if names.LABEL_BENCHMARK in p["metadata"]["labels"]]
    ended = {"exitCode": 1, "reason": "Error", "message": "no tokenizer"}
    container = {"name": CONTAINER, "image": "i", "imageID": "", "ready": False, "restartCount": 0}
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": pods[0]["metadata"]["name"]},
        "status": {"phase": "Failed", "containerStatuses": [{**container, "state": {"terminated": ended}}]},
    }
    await rig.api.apply_status(kinds.PODS, rig.namespace, pods[0]["metadata"]["name"], body, field_manager="kubelet")

    async def is_second() -> bool:
        # The Job is there before the status tells it.
        return len(await rig.all(kinds.JOBS)) == 2 and "attempts" in await status(rig)

    await rig.until(is_second, within_s=40)
    told = await status(rig)
    assert (told["phase"], told["attempts"]) == ("Running", 1)
    assert told["job"] != job["metadata"]["name"]


@asynccontextmanager
async def draftmark(rig: Rig, *words: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The command line as a user runs it, beside what the block does."""
    command = [sys.executable, "-m", "draftmark.cli", *words, f"--namespace={rig.namespace}"]
    process = await asyncio.create_subprocess_exec(
        *command,
        f"--kubeconfig={rig.kubeconfig}",
        env={**os.environ, "NO_COLOR": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def ended(process: asyncio.subprocess.Process) -> tuple[int | None, str]:
    output, said = await asyncio.wait_for(process.communicate(), 40)
    return process.returncode, output.decode() + said.decode()


async def test_the_command_line_follows_to_the_end_and_says_how_it_ended(rig: Rig, tmp_path: Path) -> None:
    for name in ("llama", "other"):
        await rig.apply(service(name))
    await rig.start()

    async def are_ready() -> bool:
        return await rig.is_ready() and await rig.is_ready("other")

    await rig.until(are_ready, within_s=40)
    other = {"service": "other", "allowUserTraffic": True}

    async def asked(name: str, process: asyncio.subprocess.Process) -> Order:
        """The order of the Benchmark that the command made."""

        async def is_asked() -> bool:
            assert process.returncode is None, await ended(process)
            if (
                await rig.api.get(kinds.BENCHMARKS, rig.namespace, name) is None
                or await reason(rig, name) != "Starting"
            ):
                return False
            job = str((await status(rig, name))["job"])
            return await rig.api.get(kinds.JOBS, rig.namespace, job) is not None

        await rig.until(is_asked, within_s=40)
        return await order(rig, name)

    async def followed(words: list[str], name: str, spec: Json, **result: Any) -> tuple[int | None, str]:
        """How the command ends, and what it prints, when its Job tells this."""
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump(benchmark(name, concurrency=[1], **spec)), "utf-8")
        async with draftmark(rig, *words, f"--filename={file}") as process:
            told = result_of(await asked(name, process), **result)
            if name == "good":
                async with draftmark(rig, "bench", name) as look:
                    code, text = await ended(look)
                assert (code, f"{rig.namespace}/{name}  Running" in text) == (3, True), text
            await write(rig.api, rig, told.model_dump_json(by_alias=True), f"{name}-result")
            return await ended(process)

    refusal = Refusal(code="ClientSaturated", message="It had too little CPU.", is_failure=False)
    (code, text), (refused_code, refused) = await asyncio.gather(
        followed(["bench", "--watch"], "good", {"target": TARGET}),
        followed(["bench", "--watch"], "refused", {"target": other}, refusal=refusal, rows=(row(refusal=refusal),)),
    )
    assert code == 0, text
    assert text.startswith(f"{rig.namespace}/good applied.\n")
    assert f"{rig.namespace}/good  Succeeded" in text
    assert "concurrency 1" in text.partition("SAMPLES")[2]
    assert refused_code == 1, refused
    assert f"{rig.namespace}/refused  Inconclusive" in refused
    assert "REFUSED  chat, concurrency 1: ClientSaturated: It had too little CPU." in refused

    spec = {"target": TARGET, "compare": {"target": other}}
    code, text = await followed(["compare"], "both", spec, differences=(difference(),), winners=(winner(),))
    assert code == 0, text
    assert "chat: other wins: It is faster." in text


@pytest.mark.parametrize("case", CASES)
async def test_the_api_server_takes_the_objects_as_they_are(api: ApiClient, namespace: str, case: str) -> None:
    decision = decide_benchmark(CASES[case], T0)
    by_kind = {(kind.api_version, kind.kind): kind for kind in kinds.child_kinds()}
    for manifest in (*decision.needed, decision.job):
        assert manifest is not None
        metadata = {key: value for key, value in manifest["metadata"].items() if key != "ownerReferences"}
        sent = {**manifest, "metadata": {**metadata, "namespace": namespace}}
        if manifest["kind"] == "RoleBinding":
            sent["subjects"] = [{**subject, "namespace": namespace} for subject in manifest["subjects"]]
        made = await api.create(by_kind[sent["apiVersion"], sent["kind"]], namespace, sent, field_manager="test")
        # What the API server adds must be no difference: it would be repaired for ever.
        assert differences(sent, made) == ()


async def test_the_api_server_takes_the_fullest_status(api: ApiClient, namespace: str) -> None:
    item = benchmark()
    item["metadata"]["namespace"] = namespace
    stored = await api.create(kinds.BENCHMARKS, namespace, item, field_manager="test")
    for refused in (False, True):
        body = {
            "apiVersion": stored["apiVersion"],
            "kind": stored["kind"],
            "metadata": {"name": "first", "namespace": namespace, "uid": stored["metadata"]["uid"]},
            "status": full(refused=refused),
        }
        written = await api.apply_status(kinds.BENCHMARKS, namespace, "first", body, field_manager="test")
        # What came back otherwise would be written again for ever.
        assert written["status"] == body["status"]
