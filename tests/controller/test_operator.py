"""The whole operator, in one process with a fake API server: end states and the writes that lead there."""

import asyncio
import time
from collections import Counter
from copy import deepcopy
from datetime import datetime
from typing import Any

import pytest

from draftmark.api import names
from draftmark.api.defaults import Defaults
from draftmark.cluster.client import ApiClient
from draftmark.cluster.credentials import Credentials
from draftmark.cluster.kinds import (
    CONTROLLER_REVISIONS,
    DEPLOYMENTS,
    EVENTS,
    INFERENCE_SERVICES,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    RESOURCE_SLICES,
    SERVICES,
    Kind,
    child_kinds,
)
from draftmark.controller import main, reconcile
from draftmark.controller.main import Operator
from draftmark.controller.observe import World
from draftmark.controller.queue import WorkQueue
from draftmark.decide import decide
from draftmark.decision import Decision
from draftmark.observation import Observation
from draftmark.settings import Settings
from tests.controller.conftest import Rig, service


async def serve(rig: Rig, name: str = "llama", **spec: object) -> None:
    rig.api.add(INFERENCE_SERVICES, service(name, **spec))
    await rig.start()
    await rig.until(lambda: rig.is_ready(name))
    await rig.quiet()


async def test_an_applied_service_becomes_ready_with_one_write_per_child(rig: Rig) -> None:
    """One step after the other, so that no two of them can fall together and hide a write."""
    rig.waiting = {names.ROLE_ENGINE, names.ROLE_ROUTER, names.ROLE_GATEWAY}
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "status": {"phase": "Bound"}}
    rig.api.add(PERSISTENT_VOLUME_CLAIMS, {**claim, "metadata": {"name": "models", "namespace": "default"}})
    rig.api.add(INFERENCE_SERVICES, service("llama"))
    await rig.start()
    await rig.until(lambda: rig.condition("Ready")["reason"] == "Starting")
    await rig.quiet()
    created = Counter(rig.writes())
    assert created == {
        "create ControllerRevision": 1,
        "create ServiceAccount": 2,
        "create RoleBinding": 1,
        "create Deployment": 3,
        "create Service": 2,
        "create ConfigMap": 1,
        "create NetworkPolicy": 3,
        # The router has got its address; the first change also hands over what the POST wrote.
        "patch ConfigMap": 2,
        "patch InferenceService/status": 1,
        "create Event": 1,
    }

    async def comes(role: str) -> Counter[str]:
        before = len(rig.writes())
        rig.waiting.discard(role)
        await rig.quiet()
        return Counter(rig.writes()[before:])

    status, event = "patch InferenceService/status", "create Event"
    assert await comes(names.ROLE_ROUTER) == {}
    assert (await comes(names.ROLE_GATEWAY)) == {}
    # The pod is there, the Deployment counts it, it is asked, it has answered: each status is written at most once. Then
    # the revision gets its weight, which the gateway's pod is told.
    before = len(rig.writes())
    written = await comes(names.ROLE_ENGINE)
    assert rig.condition("Ready")["reason"] == "Serving"
    assert written[status] in range(1, 4)
    assert written.keys() == {status, event, "patch ConfigMap", "patch Pod"}
    assert (written["patch ConfigMap"], written["patch Pod"]) == (1, 1)
    # The answer is known to whoever comes after this process before anything is done because of it.
    assert rig.writes()[before:][-3:] == [status, "patch ConfigMap", "patch Pod"]
    assert len(rig.proofs) == 1


async def test_a_restart_writes_nothing(rig: Rig) -> None:
    await serve(rig)
    before = rig.writes()
    await rig.restart()
    await rig.quiet()
    assert rig.writes()[len(before) :] == []


async def test_a_cluster_without_resource_slices_is_no_hindrance(rig: Rig) -> None:
    """The first lists are waited for, a minute at most; a kind that is not there is no list."""
    rig.api.storage.remove_kind(RESOURCE_SLICES)
    rig.api.add(INFERENCE_SERVICES, service())
    started = time.monotonic()
    await rig.start()
    await rig.until(rig.is_ready)
    assert time.monotonic() - started < main._FIRST_LISTS_S / 2


async def test_changed_defaults_restart_nothing_and_become_a_suggestion(rig: Rig) -> None:
    await serve(rig)
    pinned = rig.deployments()[0]["spec"]["template"]
    rig.defaults = Defaults.model_validate(
        {"engines": {"llama-cpp": {"images": {"cpu": "registry.example/llama:{version}"}}}}
    )
    await rig.restart()
    await rig.until(lambda: rig.see()["status"]["plan"].get("suggestion"))
    await rig.quiet()
    assert [d["spec"]["template"] for d in rig.deployments()] == [pinned]
    assert len(rig.all(CONTROLLER_REVISIONS)) == 1

    accept = rig.see()["status"]["plan"]["suggestion"]["id"]
    rig.api.edit(INFERENCE_SERVICES, "llama", lambda s: s["spec"].update(rollout={"accept": accept}))
    await rig.until(lambda: rig.is_ready() and len(rig.deployments()) == 1)
    await rig.quiet()
    container = rig.deployments()[0]["spec"]["template"]["spec"]["containers"][0]
    assert container["image"].startswith("registry.example/llama:")
    assert "suggestion" not in rig.see()["status"]["plan"]


async def test_an_edit_makes_a_new_revision_and_keeps_the_old_one_until_it_is_complete(rig: Rig) -> None:
    await serve(rig)
    old = rig.deployments()[0]["metadata"]["name"]
    rig.api.edit(INFERENCE_SERVICES, "llama", lambda s: s["spec"].update(workload={"concurrency": 8}))
    deleted_with_ready: list[int] = []

    def watch() -> bool:
        now = {d["metadata"]["name"]: d for d in rig.deployments()}
        if old not in now and not deleted_with_ready:
            (new,) = now.values()
            deleted_with_ready.append(new.get("status", {}).get("readyReplicas", 0))
        return bool(deleted_with_ready) and rig.is_ready()

    await rig.until(watch)
    assert deleted_with_ready == [1]
    await rig.quiet()
    assert len(rig.all(CONTROLLER_REVISIONS)) == 2
    assert len(rig.proofs) == 2


async def test_a_change_of_weights_is_one_write_and_one_for_each_gateway_pod(rig: Rig) -> None:
    await serve(rig, replicas=2)
    for replicas in (3, 4):
        before = len(rig.writes())
        rig.api.edit(INFERENCE_SERVICES, "llama", lambda s, n=replicas: s["spec"].update(replicas=n))  # type: ignore[misc]
        await rig.until(lambda n=replicas: rig.see()["status"].get("readyReplicas") == n)  # type: ignore[misc]
        await rig.quiet()
    written = Counter(rig.writes()[before:])
    assert written["patch ConfigMap"] == 1
    assert written["patch Pod"] == len([p for p in rig.all(PODS) if p["metadata"]["name"].startswith("llama-gateway")])
    assert written["patch Deployment"] == 1
    assert set(written) == {
        "patch ConfigMap",
        "patch Pod",
        "patch Deployment",
        "patch InferenceService/status",
        "create Event",
    }


async def test_gateways_are_not_asked_at_rest(rig: Rig) -> None:
    rig.resync_s = 0.5
    await serve(rig, replicas=2)
    listed, asked = rig.api.count("list", INFERENCE_SERVICES), len(rig.gateways.asked)
    await rig.until(lambda: rig.api.count("list", INFERENCE_SERVICES) >= listed + 3)
    assert len(rig.gateways.asked) == asked


async def test_a_gateway_that_comes_back_with_the_right_configuration_costs_no_write(rig: Rig) -> None:
    await serve(rig)
    before, asked = rig.writes(), len(rig.gateways.asked)
    rig.api.remove(PODS, "llama-gateway-0")
    await rig.until(lambda: len(rig.gateways.asked) > asked)
    await rig.quiet()
    assert [w for w in rig.writes()[len(before) :] if w in ("patch Pod", "patch ConfigMap")] == []


async def test_an_old_revision_is_stopped_only_when_its_gateway_says_so(rig: Rig) -> None:
    await serve(rig)
    [old] = rig.deployments()
    rig.api.edit(INFERENCE_SERVICES, "llama", lambda s: s["spec"].update(workload={"concurrency": 8}))
    await rig.until(lambda: len(rig.deployments()) == 2)
    # From now on the gateway takes nothing over.
    rig.brought.update({p["metadata"]["uid"]: "?" for p in rig.all(PODS)})
    stuck = {address: dict(state) for address, state in rig.gateways.working_with.items()}

    def hold() -> None:
        rig.gateways.working_with = {
            address: stuck.get(address, state) for address, state in rig.gateways.working_with.items()
        }

    end = asyncio.get_running_loop().time() + 3
    while asyncio.get_running_loop().time() < end:
        rig.run_deployments()
        hold()
        await asyncio.sleep(0.02)
    assert old["metadata"]["name"] in {d["metadata"]["name"] for d in rig.deployments()}
    await rig.until(lambda: len(rig.deployments()) == 1, within_s=25)
    assert old["metadata"]["name"] not in {d["metadata"]["name"] for d in rig.deployments()}


async def test_scaling_changes_the_deployment_and_no_revision(rig: Rig) -> None:
    await serve(rig)
    rig.api.edit(INFERENCE_SERVICES, "llama", lambda s: s["spec"].update(replicas=3))
    await rig.until(lambda: rig.see()["status"].get("readyReplicas") == 3)
    await rig.quiet()
    assert [d["spec"]["replicas"] for d in rig.deployments()] == [3]
    assert len(rig.all(CONTROLLER_REVISIONS)) == 1


@pytest.mark.parametrize("kind", child_kinds(), ids=lambda kind: kind.kind)
async def test_a_child_that_somebody_deletes_comes_back(rig: Rig, kind: Kind) -> None:
    await serve(rig)

    def uids() -> dict[str, str]:
        return {child["metadata"]["name"]: child["metadata"]["uid"] for child in rig.all(kind)}

    before = uids()
    for name in before:
        rig.api.remove(kind, name)
    await rig.until(lambda: uids().keys() == before.keys() and not set(uids().values()) & set(before.values()))
    await rig.until(rig.is_ready)
    await rig.quiet()
    assert len(rig.deployments()) == 1
    assert len(rig.all(CONTROLLER_REVISIONS)) == 1


async def test_an_owned_field_comes_back_and_a_foreign_one_stays(rig: Rig) -> None:
    await serve(rig)
    name = "llama"

    def edit(child: dict[str, object]) -> None:
        child["spec"]["selector"] = {"app": "other"}  # type: ignore[index]
        child["metadata"].setdefault("annotations", {})["team"] = "blue"  # type: ignore[attr-defined]

    rig.api.edit(SERVICES, name, edit)
    await rig.until(
        lambda: (rig.api.see(SERVICES, name) or {})["spec"]["selector"].get("draftmark.dev/role") == "gateway"
    )
    assert (rig.api.see(SERVICES, name) or {})["metadata"]["annotations"]["team"] == "blue"


async def test_a_foreign_service_of_our_name_is_left_alone_and_named(rig: Rig) -> None:
    foreign = rig.api.add(
        SERVICES,
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "llama", "namespace": "default"},
            "spec": {"ports": [{"port": 1}]},
        },
    )
    rig.api.add(INFERENCE_SERVICES, service())
    await rig.start()
    await rig.until(lambda: rig.condition("Stalled")["status"] == "True")
    assert rig.condition("Stalled")["reason"] == "NameConflict"
    assert 'Service "llama"' in rig.condition("Stalled")["message"]
    assert rig.api.see(SERVICES, "llama") == foreign


async def test_one_forbidden_kind_is_named_and_the_others_go_on(rig: Rig) -> None:
    rig.api.fault(verb="create", kind=SERVICES, times=None, status=403, reason="Forbidden", message="no")
    rig.api.add(INFERENCE_SERVICES, service())
    await rig.start()
    await rig.until(lambda: rig.condition("Stalled")["reason"] == "Forbidden")
    assert "services" in rig.condition("Stalled")["message"]
    assert len(rig.deployments()) == 1


async def test_a_lost_answer_makes_nothing_twice(rig: Rig) -> None:
    for kind in (CONTROLLER_REVISIONS, DEPLOYMENTS, SERVICES):
        rig.api.fault(verb="create", kind=kind, lost_answer=True)
    await serve(rig)
    assert len(rig.deployments()) == len(rig.all(CONTROLLER_REVISIONS)) == 1
    assert len(rig.all(SERVICES)) == 2


async def test_a_paused_service_is_told_about_and_not_touched(rig: Rig) -> None:
    await serve(rig)
    before = deepcopy(rig.deployments())
    rig.api.edit(INFERENCE_SERVICES, "llama", lambda s: s["spec"].update(paused=True, workload={"concurrency": 2}))
    await rig.until(lambda: rig.condition("Progressing")["reason"] == "Paused")
    await rig.quiet()
    assert [d["metadata"]["name"] for d in rig.deployments()] == [d["metadata"]["name"] for d in before]
    rig.api.edit(INFERENCE_SERVICES, "llama", lambda s: s["spec"].update(paused=False))
    await rig.until(lambda: rig.is_ready() and len(rig.all(CONTROLLER_REVISIONS)) == 2)


async def test_a_service_that_breaks_the_operator_delays_no_other(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks_for_bad(seen: Observation, now: datetime) -> Decision:
        if seen.name == "bad":
            raise RuntimeError("a bug")
        return decide(seen, now)

    monkeypatch.setattr(reconcile, "decide", breaks_for_bad)
    rig.api.add(INFERENCE_SERVICES, service("bad"))
    await serve(rig, "good")
    assert "status" not in rig.see("bad") or not rig.see("bad")["status"].get("conditions")


async def test_a_deleted_service_is_not_brought_back(rig: Rig) -> None:
    await serve(rig)
    rig.api.remove(INFERENCE_SERVICES, "llama")
    await rig.until(lambda: not rig.deployments())
    await rig.quiet()
    assert not rig.all(SERVICES)
    assert not rig.all(CONTROLLER_REVISIONS)


async def test_the_same_name_again_is_another_service(rig: Rig) -> None:
    await serve(rig)
    rig.api.remove(INFERENCE_SERVICES, "llama")
    rig.api.add(INFERENCE_SERVICES, service(workload={"concurrency": 3}))
    await rig.until(lambda: rig.is_ready())
    await rig.quiet()
    assert len(rig.deployments()) == 1
    assert len(rig.proofs) == 2


async def test_a_failing_proof_is_told_and_tried_again(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["no route yet", "HTTP 500 from the engine", None])

    async def prove(request: object) -> str | None:
        return next(answers)

    monkeypatch.setattr(reconcile, "prove", prove)
    rig.api.add(INFERENCE_SERVICES, service())
    await rig.start()
    await rig.until(lambda: rig.condition("Ready")["reason"] == "RequestFailed")
    assert rig.condition("Ready")["message"] == "HTTP 500 from the engine"
    await rig.until(lambda: rig.is_ready())


async def test_transitions_are_told_once(rig: Rig) -> None:
    await serve(rig)
    reasons = Counter(e["reason"] for e in rig.all(EVENTS))
    assert reasons["Serving"] == 1
    assert max(reasons.values()) == 1


async def test_a_stop_is_orderly(rig: Rig) -> None:
    await serve(rig)
    assert await rig.stop() == 0


async def test_a_watch_that_is_dead_ends_the_process(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    # kopf has no sign of life of its own; the periodic list is what finds out.
    monkeypatch.setattr(main, "_WATCH_GRACE_S", 0.3)
    rig.resync_s = 1.0
    await serve(rig)
    rig.api.mute_watches(INFERENCE_SERVICES)
    rig.api.edit(INFERENCE_SERVICES, "llama", lambda s: s["spec"].update(replicas=2))
    assert await rig.ended() == 1


async def test_a_resync_alone_writes_nothing(rig: Rig) -> None:
    rig.resync_s = 0.5
    await serve(rig)
    before = rig.writes()
    listed = rig.api.count("list", INFERENCE_SERVICES)
    await rig.until(lambda: rig.api.count("list", INFERENCE_SERVICES) >= listed + 3)
    assert rig.writes()[len(before) :] == []


async def test_a_stop_does_not_wait_for_a_list_that_never_comes(rig: Rig) -> None:
    rig.api.fault(verb="list", kind=PODS, times=None, stall=True)
    await rig.start()
    await rig.until(lambda: rig.api.count("list", PODS))
    started = time.monotonic()
    assert await rig.stop() == 0
    # The first lists may take a minute, the pod's grace period is half of one.
    assert time.monotonic() - started < 25


async def test_a_service_that_is_deleted_after_a_list_showed_it_does_not_make_the_watch_look_dead() -> None:
    operator = Operator(Settings(defaults=Defaults(), namespace="default", identity="test"))
    operator.queue = WorkQueue()
    world = World(client=ApiClient(Credentials.plain("http://127.0.0.1")), defaults=Defaults(), wake=operator.queue.add)

    def at(version: int) -> dict[str, Any]:
        item = service()
        return {**item, "metadata": {**item["metadata"], "uid": "u", "resourceVersion": str(version)}}

    shown = {("default", "llama"): 5}
    operator.hear(world, None, at(3))
    assert operator.untold(shown)
    operator.hear(world, "DELETED", at(7))
    assert not operator.untold(shown)
