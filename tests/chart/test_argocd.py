"""What Argo CD shows of our kinds: its health checks, run by a real Lua over statuses that the operator writes."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from draftmark.api import names
from draftmark.api.crd import inference_service_crd, model_gateway_crd
from draftmark.cluster.kinds import RIGHTS
from tests.chart.argocd_health import (
    ARGOCD,
    DEGRADED,
    HEALTHY,
    PROGRESSING,
    RECORDED,
    SUSPENDED,
    health,
    is_recorded,
    recorded,
    script_of,
)
from tests.chart.test_chart import CHART, render
from tests.cli import benchmarks
from tests.golden_model_gateway import service as model_service
from tests.model_gateway.test_decide import pod
from tests.model_gateway.test_decide import seen as seen_gateway
from tests.model_gateway.test_status import SERVED
from tests.model_gateway.test_status import status as gateway_status
from tests.test_status import SITUATIONS, Situation, conditions, status_of
from tests.upgrade.test_upgrade import CASES, read

Object = dict[str, Any]


def service_in(situation: Situation) -> Object:
    """The InferenceService as the API server would have it in a situation."""
    item = deepcopy(dict(situation.seen.service))
    item["metadata"]["generation"] = situation.seen.generation
    return {**item, "status": status_of(situation)}


def named(name: str) -> Object:
    return service_in(next(s for s in SITUATIONS if s.name == name))


@pytest.mark.parametrize(
    ("situation", "expected", "parts"),
    [
        ("just applied", PROGRESSING, ("Starting: ", "0 of 1 replicas")),
        ("starting", PROGRESSING, ("Starting: ", "0 of 1 replicas")),
        ("unschedulable", PROGRESSING, ("Unschedulable: ", "0/3 nodes are available")),
        ("ready, not proven", PROGRESSING, ("AwaitingFirstAnswer: ",)),
        ("request failed", PROGRESSING, ("RequestFailed: ", "503")),
        ("proven", HEALTHY, ("1 of 1 replicas serve revision",)),
        ("rolling out", PROGRESSING, ("RollingOut: ", "0 of 1 replicas")),
        ("retiring the old revision", PROGRESSING, ("RollingOut: ",)),
        ("proven, and one old pod may go", HEALTHY, ("1 of 2 replicas serve revision",)),
        ("crashed and withdrawn", DEGRADED, ("CandidateCrashed: ", "kubectl draftmark retry tiny")),
        ("never ready and withdrawn", DEGRADED, ("ProgressDeadlineExceeded: ", "rollout.progressDeadline")),
        ("no room and withdrawn", DEGRADED, ("NoCapacity: ", "3 Insufficient cpu")),
        ("crash loop", DEGRADED, ("EngineCrashed: ", "error: unknown model")),
        ("out of memory", DEGRADED, ("OutOfMemory: ", "engine.resources.limits.memory")),
        ("image pull", DEGRADED, ("ImagePullFailed: ", "manifest unknown")),
        ("missing claim", DEGRADED, ("ClaimNotFound: ", "'weights'")),
        ("quota", DEGRADED, ("QuotaExceeded: ", "Raise the quota")),
        ("refused at first", DEGRADED, ("UnreadableModelUri: ", "pvc://CLAIM/PATH/FILE.gguf")),
        ("refused while serving", DEGRADED, ("UnreadableModelUri: ",)),
        ("two writers", DEGRADED, ("TwoWriters: ", "Stop one of the two")),
        ("pins cannot be read", DEGRADED, ("Held: ", "right to list")),
        ("paused", SUSPENDED, ("spec.paused is true",)),
        ("scaled to zero", SUSPENDED, ("--replicas=1",)),
        ("the API server is slow", PROGRESSING, ("Unavailable: ", "10 s")),
    ],
)
def test_health_of_a_service(situation: str, expected: str, parts: tuple[str, ...]) -> None:
    status, message = health(names.KIND, named(situation))
    assert status == expected
    assert [part for part in parts if part not in message] == []


def test_health_of_what_a_cluster_told_is_there_for_each() -> None:
    assert is_recorded() == set(RECORDED)


@pytest.mark.parametrize("name", RECORDED)
def test_health_of_what_a_cluster_told(name: str) -> None:
    """Recorded by tests/e2e/test_argocd.py, which compares it with what its cluster tells."""
    item = recorded(name)
    status, message = health(item["kind"], item)
    assert status == RECORDED[name]
    told = {condition["type"]: condition for condition in item["status"]["conditions"]}
    assert message in {text for c in told.values() for text in (c["message"], f"{c['reason']}: {c['message']}")} | {
        "spec.paused is true: nothing is changed. Set it to false to go on."
    }
    item["metadata"]["generation"] += 1
    assert health(item["kind"], item)[0] == PROGRESSING


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.name)
def test_health_follows_the_conditions(situation: Situation) -> None:
    """Also of situations that nobody has put in the table above."""
    item = service_in(situation)
    told = conditions(item["status"])
    status, message = health(names.KIND, item)
    if told["Stalled"]["status"] == "True":
        assert (status, message) == (DEGRADED, f"{told['Stalled']['reason']}: {told['Stalled']['message']}")
    elif item["spec"].get("paused"):
        assert status == SUSPENDED
    elif told["Ready"]["status"] == "True":
        assert (status, message) == (HEALTHY, told["Ready"]["message"])
    else:
        # Progressing must end by itself, so something must be under way.
        assert status == (PROGRESSING if told["Reconciling"]["status"] == "True" else SUSPENDED)


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.name)
def test_a_status_of_an_earlier_spec_does_not_count(situation: Situation) -> None:
    item = service_in(situation)
    item["metadata"]["generation"] += 1
    assert health(names.KIND, item) == (PROGRESSING, "The operator has not acted on this spec yet.")


@pytest.mark.parametrize("status", [None, {"observedGeneration": -1}, {}], ids=str)
def test_what_the_operator_has_not_seen_is_progressing(status: Object | None) -> None:
    item = {**named("proven"), "status": status}
    assert health(names.KIND, item) == (PROGRESSING, "The operator has not acted on this spec yet.")


@pytest.mark.parametrize("case", CASES[:1], ids=lambda case: case.name)
def test_a_service_as_users_write_it_is_progressing(case: Path) -> None:
    service, _ = read(case)
    assert health(names.KIND, service)[0] == PROGRESSING


def test_a_status_without_conditions_is_progressing() -> None:
    item = named("proven")
    item["status"].pop("conditions")
    assert health(names.KIND, item)[0] == PROGRESSING


def test_a_service_that_crashes_while_it_is_paused_is_degraded() -> None:
    item = named("crash loop")
    item["spec"]["paused"] = True
    assert health(names.KIND, item)[0] == DEGRADED


@pytest.mark.parametrize("kind", [names.KIND, names.MODEL_GATEWAY_KIND])
def test_what_is_being_deleted_is_progressing(kind: str) -> None:
    item = named("crash loop") if kind == names.KIND else gateway(SERVED)
    item["metadata"]["deletionTimestamp"] = "2026-01-01T12:00:00Z"
    status, message = health(kind, item)
    assert (status, message) == (PROGRESSING, f"The {kind} is being deleted.")


def gateway(observation: Any) -> Object:
    """A ModelGateway as the API server would have it."""
    item = deepcopy(dict(observation.gateway))
    item["metadata"]["generation"] = observation.generation
    return {**item, "status": gateway_status(observation)}


TWICE = replace(seen_gateway(model_service("a", model="m"), model_service("b", model="m")), pods=(pod("p"), pod("q")))


@pytest.mark.parametrize(
    ("observation", "expected", "parts"),
    [
        (SERVED, HEALTHY, ("2 models behind all.",)),
        (replace(SERVED, pods=()), PROGRESSING, ("Starting: ", "'all-gateway'")),
        (replace(SERVED, pods=(pod("p"),)), HEALTHY, ("2 models",)),
        (replace(SERVED, addresses={}), PROGRESSING, ("NoModels: ", "Create one")),
        (TWICE, HEALTHY, ("NameTaken: ", "'a'", "'b'", "spec.model.name")),
        (replace(SERVED, services=None), DEGRADED, ("Held: ",)),
        (replace(seen_gateway(model_service("a"), replicas=0), pods=(pod("p"),)), DEGRADED, ("InvalidSpec: ",)),
    ],
    ids=["ready", "starting", "one of two pods", "no models", "a name twice", "held", "invalid"],
)
def test_health_of_a_model_gateway(observation: Any, expected: str, parts: tuple[str, ...]) -> None:
    status, message = health(names.MODEL_GATEWAY_KIND, gateway(observation))
    assert status == expected
    assert [part for part in parts if part not in message] == []


def test_a_model_gateways_status_of_an_earlier_spec_does_not_count() -> None:
    item = gateway(SERVED)
    item["metadata"]["generation"] += 1
    assert health(names.MODEL_GATEWAY_KIND, item)[0] == PROGRESSING
    item.pop("status")
    assert health(names.MODEL_GATEWAY_KIND, item)[0] == PROGRESSING


@pytest.mark.parametrize(
    ("item", "expected", "message"),
    [
        (benchmarks.benchmark(None), PROGRESSING, "The operator has not acted on this spec yet."),
        (benchmarks.benchmark("Pending"), PROGRESSING, "Pending: The Benchmark is Pending."),
        (benchmarks.benchmark("Running"), PROGRESSING, "Running: The Benchmark is Running."),
        (benchmarks.running(), PROGRESSING, "chat, concurrency 4: Measuring 42 %"),
        (
            benchmarks.benchmark("Running", progress={"stage": "Tokenizer", "percent": 0}),
            PROGRESSING,
            "Tokenizer 0 %",
        ),
        (benchmarks.succeeded(), HEALTHY, "Succeeded: The Benchmark is Succeeded."),
        (benchmarks.compared(winner="none"), HEALTHY, "Succeeded: The Benchmark is Succeeded."),
        (
            benchmarks.inconclusive(),
            DEGRADED,
            "ClientSaturated: chat, concurrency 16: the load generator had too little CPU.",
        ),
        (benchmarks.benchmark("Failed"), DEGRADED, "Failed: The Benchmark is Failed."),
        (benchmarks.benchmark("Failed", conditions=[]), DEGRADED, "Failed, and the operator has not said why."),
    ],
    ids=["new", "pending", "running", "with progress", "with a stage", "succeeded", "no difference", "inconclusive", "failed", "bare"],
)  # fmt: skip
def test_health_of_a_benchmark(item: Object, expected: str, message: str) -> None:
    assert health(names.BENCHMARK_KIND, item) == (expected, message)


def test_a_benchmarks_status_of_an_earlier_one_does_not_count() -> None:
    item = benchmarks.succeeded()
    item["status"]["observedGeneration"] = -1
    assert health(names.BENCHMARK_KIND, item)[0] == PROGRESSING
    item["metadata"]["deletionTimestamp"] = "2026-01-01T12:00:00Z"
    assert health(names.BENCHMARK_KIND, item) == (PROGRESSING, "The Benchmark is being deleted.")


def test_every_kind_of_ours_has_a_health_check_and_the_snippet_has_them_all() -> None:
    kinds = {crd["spec"]["names"]["kind"] for crd in (inference_service_crd(), model_gateway_crd())}
    kinds.add(names.BENCHMARK_KIND)
    assert {path.parent.name for path in ARGOCD.glob(f"{names.GROUP}/*/health.lua")} == kinds
    snippet = yaml.safe_load((ARGOCD / "argocd-cm.yaml").read_text("utf-8"))
    # To the last byte: a difference means that the script was changed and the snippet was not.
    assert snippet["data"] == {
        f"resource.customizations.health.{names.GROUP}_{kind}": script_of(kind).read_text("utf-8") for kind in kinds
    }


def test_the_example_installs_the_chart_that_is_here() -> None:
    application = yaml.safe_load((ARGOCD / "operator.yaml").read_text("utf-8"))
    source = application["spec"]["source"]
    assert CHART.samefile(CHART.parents[1] / source["path"])
    image = source["helm"]["valuesObject"]["image"]
    objects = render(*(f"--set=image.{key}={value}" for key, value in image.items()))
    (deployment,) = (item for item in objects if item["kind"] == "Deployment")
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == f"{image['repository']}:{image['tag']}"


def test_the_chart_renders_the_same_each_time() -> None:
    """Whatever differs by chance, or by what is in the cluster, would be out of sync for ever."""
    assert render() == render()
    assert not [path for path in (CHART / "templates").iterdir() if "lookup " in path.read_text("utf-8")]


@pytest.mark.parametrize("crd", [inference_service_crd(), model_gateway_crd()], ids=lambda crd: crd["metadata"]["name"])
def test_nothing_in_a_spec_is_changed_by_the_server_or_by_the_operator(crd: Object) -> None:
    """So what is in git is what is in the cluster, with no ignoreDifferences. The one default is of a field that, left
    out, belongs to whoever scales."""
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    assert set(defaults_in(spec)) <= {"spec.replicas"}
    writes = {
        verb
        for right in RIGHTS
        if right.kind.plural == crd["spec"]["names"]["plural"] and not right.subresource
        for verb in right.verbs
    }
    assert writes == {"get", "list", "watch"}


def defaults_in(schema: Object, path: str = "spec") -> Any:
    if "default" in schema:
        yield path
    for name, child in schema.get("properties", {}).items():
        yield from defaults_in(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from defaults_in(schema[key], f"{path}[]")
