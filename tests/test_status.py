"""What a service's status says in every situation."""

import itertools
import json
import re
from copy import deepcopy
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftmark.api import conditions as c
from draftmark.api import names
from draftmark.api.conditions import Condition, Obstacle, shorten, write_conditions
from draftmark.api.crd import structural
from draftmark.api.defaults import Defaults, PriceDefaults
from draftmark.api.inference_service_status import InferenceServiceStatus
from draftmark.api.model_architecture import ArchitectureSpec
from draftmark.api.times import write_time
from draftmark.decide import decide
from draftmark.decision import RevisionReport, Suggestion
from draftmark.facts.model_answer import MAX_FACTS_BYTES, ModelProblem
from draftmark.facts.model_json import facts_to_json
from draftmark.facts.models import ModelFacts, Quantization
from draftmark.facts.pods import is_ready
from draftmark.knowledge import write_state
from draftmark.machines.model_facts import Failed, Known, State
from draftmark.observation import Observation, Proof
from draftmark.plan import Layout, Memory, Plan, Reason, Rejected, Unplannable
from draftmark.planner.explain import explain_data
from draftmark.running import pods_of
from draftmark.status import Transition, differs, make_status, transitions
from tests.simulation import CRASHES, HANGS, Edit, Reconcile, Rest, Time, empty_world, simulate
from tests.specs import (
    ARCHITECTURE,
    MINUTE,
    T0,
    Object,
    crashed_pod,
    current,
    observation,
    ready_pod,
    role_of,
    running,
    spec,
    unschedulable_pod,
    waiting_pod,
    with_field,
)

OTHER = spec(model={"uri": "pvc://weights/tiny.gguf", "name": "other"})
BROKEN = spec(model={"uri": "pvc://weights/tiny.gguf", "name": HANGS}, rollout={"progressDeadline": "1m"})
CRASHING = spec(model={"uri": "pvc://weights/tiny.gguf", "name": CRASHES})
QUOTA = 'pods "x" is forbidden: exceeded quota: gpus, requested: cpu=4, used: cpu=8, limited: cpu=10'


def conditions(status: Object) -> dict[str, Object]:
    return {item["type"]: item for item in status["conditions"]}


def with_pods(
    *pods: Object, ready: int = 0, claims: dict[str, str] | None = None, wanted: Object | None = None
) -> Observation:
    return replace(running(wanted, ready=ready), pods=pods, claims=claims)


def revision() -> str:
    return current(decide(running(), T0))


def refused_pods(message: str) -> Observation:
    seen = running(ready=0)
    failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message}
    deployments = tuple(
        {**d, "status": {**d["status"], "conditions": [failure]}} if role_of(d) == "engine" else d
        for d in seen.children["Deployment"]
    )
    return replace(seen, children={**seen.children, "Deployment": deployments})


def proven() -> Observation:
    return simulate(empty_world(spec()), Rest()).observe()


def failed_proof() -> Observation:
    seen = with_pods(ready_pod(revision()), ready=1)
    return replace(
        seen, proof=Proof(revision=revision(), problem="The Service answered 503. Look at the log.", at=T0, failures=2)
    )


def withdrawn(wanted: Object) -> Observation:
    """After the edit of a service that serves."""
    return simulate(empty_world(spec()), Rest(), Edit(wanted), Rest()).observe()


def withdrawn_a_moment_ago() -> Observation:
    """The pod that crashed is not gone yet."""
    seen = withdrawn(CRASHING)
    [failed] = [r for r in seen.status["revisions"] if "failedAt" in r]
    return replace(seen, pods=(*seen.pods, crashed_pod(failed["hash"])))


def with_pods_that_wait(*, since: datetime) -> Observation:
    """Nodes come by themselves, and none has come yet."""
    pending = unschedulable_pod(revision(), "0/3 nodes are available: 3 Insufficient cpu", since=since)
    autoscaling = Defaults.model_validate({"nodeAutoscaling": {"enabled": True}})
    return replace(with_pods(pending), defaults=autoscaling)


def without_room() -> Observation:
    """The candidate's pod finds no node, and its time is over."""
    seen = simulate(empty_world(spec()), Rest(), Edit(BROKEN), Reconcile(), Time(), Reconcile()).observe()
    status = deepcopy(dict(seen.status))
    [candidate] = [r for r in status["revisions"] if r["phase"] == "Candidate"]
    candidate["progressedAt"] = "2026-01-01T00:00:00Z"
    pending = unschedulable_pod(candidate["hash"], "0/3 nodes are available: 3 Insufficient cpu")
    pods = (*(p for p in seen.pods if is_ready(p)), pending)
    return replace(seen, pods=pods, service={**seen.service, "status": status})


def broken(role: str, *, seen: Observation | None = None) -> Observation:
    """The pods of one role cannot be started."""
    pods = (waiting_pod("" if role == "gateway" else revision(), "ErrImagePull", "manifest unknown", role=role),)
    seen = seen or with_pods(ready_pod(revision()), ready=1)
    return replace(seen, router_pods=pods) if role == "router" else replace(seen, gateway_pods=pods, gateways={})


def without_a_router() -> Observation:
    """In the middle of a rollout the new revision's router is lost; the old one's takes requests."""
    wanted = {**OTHER, "replicas": 2}
    seen = simulate(empty_world(spec(replicas=2)), Rest(), Edit(wanted), Reconcile(), Time(), Reconcile()).observe()
    return replace(seen, router_pods=tuple(pods_of(seen.router_pods, revision())))


#: Of the observations here.
GATEWAYS = frozenset(p["metadata"]["name"] for p in running().gateway_pods)


def of_0_1_0(**fields: Any) -> Observation:
    """A service whose Service selects the engines, as 0.1.0 made it; it has answered then."""
    seen = proven()
    services = deepcopy(seen.children["Service"])
    [front] = [s for s in services if s["metadata"]["name"] == seen.name]
    front["spec"]["selector"] = names.selector_labels(seen.name)
    return replace(seen, children={**seen.children, "Service": services}, proof=None, **fields)


BLOCKED = Obstacle(
    code="ForeignObject", message="Service 'tiny' belongs to somebody else. Rename one.", needs_human=True
)
SLOW = Obstacle(
    code="Unavailable", message="The API server did not answer in 10 s. It is tried again.", needs_human=False
)
FIGHT = Obstacle(
    code="TwoWriters", message="'helm' keeps changing spec.replicas. Stop one of the two.", needs_human=True
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What is seen, and what the conditions say: status and reason by type."""

    name: str
    seen: Observation
    accepted: str = "True Accepted"
    available: str = "False NoPodReady"
    progressing: str
    ready: str
    #: Reconciling, Stalled or neither.
    kstatus: str
    #: Parts of the message of Ready.
    told: tuple[str, ...] = ()
    obstacles: tuple[Obstacle, ...] = ()
    contended: tuple[Obstacle, ...] = ()
    more: tuple[str, ...] = ()


SITUATIONS = [
    Situation(name="just applied", seen=observation(), progressing="True Starting", ready="False Starting",
              kstatus="Reconciling", told=("0 of 1 replicas",)),
    Situation(name="starting", seen=with_pods(waiting_pod(revision(), "ContainerCreating")), progressing="True Starting",
              ready="False Starting", kstatus="Reconciling", told=("0 of 1 replicas",)),
    Situation(name="ready, not proven", seen=with_pods(ready_pod(revision()), ready=1), available="True PodsReady",
              progressing="False Complete", ready="False AwaitingFirstAnswer", kstatus="Reconciling"),
    Situation(name="request failed", seen=failed_proof(), available="True PodsReady", progressing="False Complete",
              ready="False RequestFailed", kstatus="Reconciling", told=("503",)),
    Situation(name="proven", seen=proven(), available="True PodsReady", progressing="False Complete", ready="True Serving",
              kstatus="", told=("1 of 1 replicas", revision())),
    Situation(name="rolling out", seen=simulate(empty_world(spec()), Rest(), Edit(OTHER), Reconcile()).observe(),
              available="True PodsReady", progressing="True RollingOut", ready="False RollingOut",
              kstatus="Reconciling", told=("0 of 1 replicas",)),
    Situation(name="retiring the old revision",
              seen=simulate(empty_world(spec(replicas=2)), Rest(), Edit({**OTHER, "replicas": 2}), Reconcile(), Time()).observe(),
              available="True PodsReady", progressing="True RollingOut", ready="False RollingOut", kstatus="Reconciling"),
    Situation(name="proven, and one old pod may go",
              seen=simulate(empty_world(spec(replicas=2)), Rest(), Edit({**OTHER, "replicas": 2}), Reconcile(), Time(), Reconcile()).observe(),
              available="True PodsReady", progressing="True RollingOut", ready="True Serving", kstatus="Reconciling",
              told=("1 of 2 replicas",)),
    Situation(name="crashed and withdrawn", seen=withdrawn(CRASHING), available="True PodsReady", progressing="False CandidateCrashed",
              ready="False CandidateCrashed", kstatus="Stalled", told=("withdrawn", "Revision ea525689 goes on", "kubectl draftmark retry tiny")),
    Situation(name="withdrawn a moment ago", seen=withdrawn_a_moment_ago(), available="True PodsReady",
              progressing="False CandidateCrashed", ready="False CandidateCrashed", kstatus="Stalled"),
    Situation(name="never ready and withdrawn", seen=withdrawn(BROKEN), available="True PodsReady", progressing="False ProgressDeadlineExceeded",
              ready="False ProgressDeadlineExceeded", kstatus="Stalled", told=("within 60 s", "rollout.progressDeadline", "Revision ea525689 goes on")),
    Situation(name="no room and withdrawn", seen=without_room(), available="True PodsReady", progressing="False NoCapacity",
              ready="False NoCapacity", kstatus="Stalled", told=("0/3 nodes are available", "Revision ea525689 goes on")),
    Situation(name="no gateway yet", seen=replace(with_pods(ready_pod(revision()), ready=1), gateway_pods=(), gateways={}),
              available="False GatewayNotReady", progressing="False Complete", ready="False GatewayNotReady", kstatus="Reconciling",
              told=("'tiny-gateway'",)),
    Situation(name="the gateway's image is missing", seen=broken("gateway"), available="False GatewayNotReady",
              progressing="False Complete", ready="False GatewayNotReady", kstatus="Stalled", told=("'tiny-gateway'", "manifest unknown")),
    Situation(name="the gateway is gone", seen=broken("gateway", seen=proven()), available="False GatewayNotReady",
              progressing="False Complete", ready="False GatewayNotReady", kstatus="Stalled", told=("'tiny-gateway'",)),
    Situation(name="the router's image is missing", seen=broken("router"), available="True PodsReady",
              progressing="False Complete", ready="False RouterNotReady", kstatus="Stalled",
              told=("'tiny-router-ea525689'", "manifest unknown")),
    Situation(name="the only router is gone", seen=replace(proven(), router_pods=()), available="False RouterNotReady",
              progressing="False Complete", ready="False RouterNotReady", kstatus="Reconciling", told=("'tiny-router-ea525689'",)),
    Situation(name="the only router's image is missing", seen=broken("router", seen=proven()), available="False RouterNotReady",
              progressing="False Complete", ready="False RouterNotReady", kstatus="Stalled", told=("manifest unknown",)),
    Situation(name="one of two routers that take requests is gone", seen=without_a_router(), available="True PodsReady",
              progressing="True RollingOut", ready="True Serving", kstatus="Reconciling"),
    Situation(name="the gateway tells nothing, unproven", seen=replace(with_pods(ready_pod(revision()), ready=1), gateways={}, silent_gateways=GATEWAYS),
              available="True PodsReady", progressing="True GatewayUnreachable", ready="False GatewayUnreachable", kstatus="Reconciling",
              told=("1 of 1 gateway pods", "port 8081", "network policies")),
    Situation(name="the gateway tells nothing, and it serves", seen=replace(proven(), gateways={}, silent_gateways=GATEWAYS),
              available="True PodsReady", progressing="True GatewayUnreachable", ready="True Serving", kstatus="Reconciling"),
    Situation(name="a gateway that has gone was silent", seen=replace(proven(), silent_gateways=frozenset({"another"})),
              available="True PodsReady", progressing="False Complete", ready="True Serving", kstatus=""),
    Situation(name="of 0.1.0, and its gateway has not answered", seen=of_0_1_0(), available="True PodsReady",
              progressing="True MovingToGateway", ready="True Serving", kstatus="Reconciling"),
    Situation(name="of 0.1.0, and its gateway's image is missing", available="True PodsReady",
              seen=of_0_1_0(gateway_pods=(waiting_pod("", "ErrImagePull", "manifest unknown", role="gateway"),), gateways={}),
              progressing="True MovingToGateway", ready="True Serving", kstatus="Reconciling"),
    Situation(name="image pull", seen=with_pods(waiting_pod(revision(), "ImagePullBackOff", "manifest unknown")),
              progressing="False ImagePullFailed", ready="False ImagePullFailed", kstatus="Stalled",
              told=("example/engine:1", "manifest unknown", "engine.image")),
    Situation(name="crash loop", seen=with_pods(crashed_pod(revision(), log="loading\nerror: unknown model\n\n", restarts=3)),
              progressing="False EngineCrashed", ready="False EngineCrashed", kstatus="Stalled",
              told=("exit code 1", "restarted 3 times", "error: unknown model", "engine.args")),
    Situation(name="out of memory", seen=with_pods(crashed_pod(revision(), reason="OOMKilled", exit_code=137)),
              progressing="False OutOfMemory", ready="False OutOfMemory", kstatus="Stalled",
              told=("engine.resources.limits.memory", "model.maxContextLength")),
    Situation(name="a GPU has failed",
              seen=with_pods(crashed_pod(revision(), log="CUDA error: uncorrectable ECC error encountered\n")),
              progressing="False GpuFailed", ready="False GpuFailed", kstatus="Stalled",
              told=("uncorrectable ECC error encountered", "kubectl cordon", "delete the pod")),
    Situation(name="a Secret is missing",
              seen=with_pods(waiting_pod(revision(), "CreateContainerConfigError", 'secret "hub" not found')),
              progressing="False ContainerConfigFailed", ready="False ContainerConfigFailed", kstatus="Stalled",
              told=('secret "hub" not found',)),
    Situation(name="quota", seen=refused_pods(QUOTA), progressing="False QuotaExceeded", ready="False QuotaExceeded",
              kstatus="Stalled", told=("used: cpu=8, limited: cpu=10", "Raise the quota")),
    Situation(name="pod security", seen=refused_pods('violates PodSecurity "restricted:latest"'),
              progressing="False PodsRefused", ready="False PodsRefused", kstatus="Stalled", told=("PodSecurity",)),
    Situation(name="missing claim", seen=with_pods(unschedulable_pod(revision(), "no claim"), claims={"wieghts": "Bound", "a": "Bound"}),
              progressing="False ClaimNotFound", ready="False ClaimNotFound", kstatus="Stalled",
              told=("'weights'", "a, wieghts", "model.uri")),
    Situation(name="missing claim, before there is a pod", seen=with_pods(claims={}),
              progressing="False ClaimNotFound", ready="False ClaimNotFound", kstatus="Stalled", told=("it has: none",)),
    Situation(name="lost claim", seen=with_pods(claims={"weights": "Lost"}), progressing="False ClaimLost",
              ready="False ClaimLost", kstatus="Stalled"),
    Situation(name="unbound claim", seen=with_pods(claims={"weights": "Pending"}), progressing="True Starting",
              ready="False Starting", kstatus="Reconciling"),
    Situation(name="unschedulable", seen=with_pods(unschedulable_pod(revision(), "0/3 nodes are available: 3 Insufficient cpu")),
              progressing="True Unschedulable", ready="False Unschedulable", kstatus="Reconciling",
              told=("0/3 nodes are available", "nodeSelector")),
    Situation(name="awaiting a node", seen=with_pods_that_wait(since=T0 - 2 * MINUTE), progressing="True AwaitingNodes",
              ready="False AwaitingNodes", kstatus="Reconciling",
              told=("since 2026-01-01T11:58:00Z, until 2026-01-01T12:13:00Z", "nodeAutoscaling.timeout", "3 Insufficient cpu")),
    Situation(name="no node came", seen=with_pods_that_wait(since=T0 - 15 * MINUTE), progressing="False NoNodeCame",
              ready="False NoNodeCame", kstatus="Stalled",
              told=("until 2026-01-01T12:00:00Z", "kubectl describe pod pod-0", "3 Insufficient cpu", "go on waiting")),
    Situation(name="refused at first", seen=observation(spec(model={"uri": "pvc://x"})), accepted="False UnreadableModelUri",
              progressing="False NothingRuns", ready="False UnreadableModelUri", kstatus="Stalled",
              told=("'pvc://x'", "pvc://CLAIM/PATH/FILE.gguf")),
    Situation(name="refused while serving", accepted="False UnreadableModelUri", available="True PodsReady",
              seen=simulate(empty_world(spec()), Rest(), Edit(spec(model={"uri": "pvc://x"}))).observe(),
              progressing="False Complete", ready="False UnreadableModelUri", kstatus="Stalled"),
    Situation(name="paused", seen=simulate(empty_world(spec()), Rest(), Edit(spec(paused=True))).observe(),
              available="True PodsReady", progressing="False Paused", ready="True Serving", kstatus=""),
    Situation(name="scaled to zero", seen=simulate(empty_world(spec()), Rest(), Edit(spec(replicas=0)), Rest()).observe(),
              progressing="False Complete", ready="False ScaledToZero", kstatus="", told=("--replicas=1",)),
    Situation(name="arguments unchecked", seen=observation(spec(engine={"name": "llama-cpp", "version": "b1"})),
              progressing="True Starting", ready="False Starting", kstatus="Reconciling", more=("True NoFlagTable",)),
    Situation(name="an object of ours is somebody else's", seen=observation(), obstacles=(BLOCKED,),
              progressing="False ForeignObject", ready="False ForeignObject", kstatus="Stalled", told=("Rename one",)),
    Situation(name="somebody else's Service, and ready pods", seen=with_pods(ready_pod(revision()), ready=1),
              obstacles=(BLOCKED,), available="True PodsReady", progressing="False ForeignObject",
              ready="False ForeignObject", kstatus="Stalled", told=("Rename one",)),
    Situation(name="the API server is slow", seen=observation(), obstacles=(SLOW,), progressing="False Unavailable",
              ready="False Unavailable", kstatus="Reconciling", told=("10 s",)),
    Situation(name="two writers", seen=proven(), contended=(FIGHT,), available="True PodsReady",
              progressing="False Complete", ready="True Serving", kstatus="Stalled", more=("True TwoWriters",)),
    Situation(name="pins cannot be read", seen=replace(observation(), unread={"ControllerRevision": "forbidden"}),
              progressing="False Held", ready="False Held", kstatus="Stalled", told=("forbidden", "right to list")),
]  # fmt: skip


def status_of(situation: Situation) -> Object:
    seen = situation.seen
    return make_status(seen, decide(seen, T0), T0, obstacles=situation.obstacles, contended=situation.contended)


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.name)
def test_conditions_say_what_is(situation: Situation) -> None:
    found = {name: f"{item['status']} {item['reason']}" for name, item in conditions(status_of(situation)).items()}
    fixed = {
        c.ACCEPTED: situation.accepted,
        c.AVAILABLE: situation.available,
        c.PROGRESSING: situation.progressing,
        c.READY: situation.ready,
    }
    assert {name: found.pop(name) for name in fixed} == fixed
    assert found.pop(c.RECONCILING).startswith("True") is (situation.kstatus == "Reconciling")
    assert found.pop(c.STALLED).startswith("True") is (situation.kstatus == "Stalled")
    assert tuple(found.values()) == situation.more


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.name)
def test_the_message_has_what_one_needs(situation: Situation) -> None:
    message = conditions(status_of(situation))[c.READY]["message"]
    assert [part for part in situation.told if part not in message] == []
    assert message.endswith((".", "!", "?")) or "End of its log: " in message


def test_a_service_that_has_not_moved_tells_what_it_waits_for() -> None:
    seen = of_0_1_0(gateway_pods=(waiting_pod("", "ErrImagePull", "manifest unknown", role="gateway"),), gateways={})
    found = conditions(make_status(seen, decide(seen, T0), T0))
    for condition in (found[c.PROGRESSING], found[c.RECONCILING]):
        assert (condition["status"], condition["reason"]) == ("True", "MovingToGateway")
        assert "Clients reach the engine pods directly, as before the upgrade" in condition["message"]
        assert "manifest unknown" in condition["message"]


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.name)
def test_status_is_what_the_schema_says(situation: Situation) -> None:
    status = status_of(situation)
    read = InferenceServiceStatus.model_validate(status, extra="forbid")
    assert read.model_dump(mode="json", by_alias=True, exclude_none=True) == status


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.name)
def test_the_same_again_is_no_write_and_no_event(situation: Situation) -> None:
    before = status_of(situation)
    seen = replace(situation.seen, service={**situation.seen.service, "status": before})
    after = make_status(
        seen, decide(seen, T0), T0 + 5 * MINUTE, obstacles=situation.obstacles, contended=situation.contended
    )
    assert not differs(before, after)
    assert transitions(before, after) == ()


#: What says that all is well, that something is not so, or what the tests have made up.
UNDOCUMENTED = {
    "Serving", "Complete", "PodsReady", "NoPodReady", "NothingRuns", "Settled", "NotStalled", "NoFlagTable",
    "ForeignObject", "Unavailable", "TwoWriters",
}  # fmt: skip


def test_every_reason_is_in_the_documentation() -> None:
    told = {item["reason"] for situation in SITUATIONS for item in status_of(situation)["conditions"]}
    text = (Path(__file__).parents[1] / "docs" / "conditions.md").read_text("utf-8")
    assert {reason for reason in told if f"`{reason}`" not in text} == UNDOCUMENTED


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.name)
def test_each_thing_is_told_once(situation: Situation) -> None:
    told = [t.reason for t in transitions({}, status_of(situation))]
    assert len(set(told)) == len(told)


def test_what_needs_a_human_is_told_as_a_warning() -> None:
    situation = next(s for s in SITUATIONS if s.name == "image pull")
    assert [(t.type, t.reason) for t in transitions({}, status_of(situation))] == [("Warning", "ImagePullFailed")]


def test_a_suggestion_is_told_when_it_is_new() -> None:
    before, after = ({"plan": {"suggestion": {"id": i, "message": f"Take {i}."}}} for i in ("1", "2"))
    told = Transition(type="Normal", reason="Suggestion", message="Take 2.", subject="2")
    assert transitions({}, after) == (told,)
    assert len(transitions(before, after)) == 1
    assert transitions(after, after) == ()


def test_a_condition_keeps_its_time_while_its_status_stays() -> None:
    def at(status: Any, reason: str, before: list[Object], minutes: int) -> list[Object]:
        condition = Condition(type=c.READY, status=status, reason=reason)
        return write_conditions([condition], before=before, generation=1, now=T0 + minutes * MINUTE)

    first = at("False", "A", [], 0)
    other_reason = at("False", "B", first, 1)
    other_status = at("True", "C", other_reason, 2)
    times = [item["lastTransitionTime"] for [item] in (first, other_reason, other_status)]
    assert times == ["2026-01-01T12:00:00Z", "2026-01-01T12:00:00Z", "2026-01-01T12:02:00Z"]


def test_a_withdrawn_revision_is_stalled_for_the_reason_of_its_withdrawal() -> None:
    seen = withdrawn_a_moment_ago()
    found = conditions(make_status(seen, decide(seen, T0), T0, obstacles=(), contended=()))
    assert found[c.STALLED]["reason"] == found[c.READY]["reason"] == "CandidateCrashed"


def test_status_speaks_of_the_generation_that_was_seen() -> None:
    seen = observation(
        service={**observation().service, "metadata": {**observation().service["metadata"], "generation": 7}}
    )
    status = make_status(seen, decide(seen, T0), T0)
    assert status["observedGeneration"] == 7
    assert {item["observedGeneration"] for item in status["conditions"]} == {7}


def test_url_and_selector_are_there_from_the_beginning() -> None:
    status = make_status(observation(), decide(observation(), T0), T0)
    assert status["url"] == "http://tiny.models.svc"
    assert status["selector"] == "draftmark.dev/service=tiny,draftmark.dev/role=engine"
    assert (status["replicas"], status["readyReplicas"]) == (0, 0)


def largest_facts() -> ModelFacts:
    """Every field at its longest, with names that are short enough for the whole to be kept."""
    schema = structural(ArchitectureSpec)["properties"]
    written = {
        **ARCHITECTURE,
        **{name: node["maximum"] for name, node in schema.items() if "maximum" in node},
        **{name: "x" * node["maxLength"] for name, node in schema.items() if "maxLength" in node},
        "uncounted": [],
        "source": "",
        "architecture": "a",
    }
    fields = {re.sub("[A-Z]", lambda m: f"_{m[0].lower()}", name): value for name, value in written.items()}
    quantization = Quantization(quant_method="q", bits=32, group_size=2**20)
    facts = ModelFacts(**{**fields, "uncounted": (), "quantization_config": quantization})
    for count in range(1, 9):
        longer = replace(facts, source="s" * 25 * count, uncounted=("u" * 96,) * count)
        if len(facts_to_json(longer)) > MAX_FACTS_BYTES:
            break
        facts = longer
    assert MAX_FACTS_BYTES - 130 < len(facts_to_json(facts)) <= MAX_FACTS_BYTES
    return facts


def largest_benchmark(service: str) -> Object:
    rows = [
        {
            "workload": f"{n:063}", "load": "concurrency 1024", "target": "target", "samples": 10**6,
            "holdsObjectives": True, "requestsPerSecond": 1234.56, "outputTokensPerSecond": 123456.7,
            "promptTokens": 123456.7,
        }
        for n in range(8)
    ]  # fmt: skip
    target = {"service": service, "replicas": 1, "revision": "0" * 8, "hardware": "p" * 63, "images": ["i" * 300] * 3}
    status = {"phase": "Succeeded", "finishedAt": "2026-01-01T12:00:00Z", "target": target, "results": rows}
    return {"metadata": {"name": "b" * 40}, "status": status}


def test_the_plan_of_the_status_is_the_one_of_explain() -> None:
    wanted = spec(
        model={"uri": "hf://deepseek-ai/DeepSeek-V3", "maxContextLength": 8192},
        engine={"name": "vllm"},
        accelerator={"product": "NVIDIA-H200"},
        parallelism={"tensor": 8, "expert": True},
    )
    decision = decide(observation(wanted), T0)
    assert decision.plan is not None
    told, explained = make_status(observation(wanted), decision, T0)["plan"], explain_data(decision.plan)
    assert told["parallelism"] == {
        "tensor": 8, "pipeline": 1, "data": 1, "expert": True, "nodes": 1, "gpusPerReplica": 8,
    }  # fmt: skip
    assert told["parallelism"].items() <= explained["layout"].items()
    assert told["memory"].keys() == {"weightBytes", "kvBytesPerToken", "kvTokens", "perGpuBytes", "gpuBytes"}
    assert told["memory"].items() <= explained["memory"].items()
    assert told["parameters"] == explained["parameters"] == 671_026_419_200
    assert [r["code"] for r in told["reasons"]] == [r["code"] for r in explained["reasons"]]
    # Every degree was given, so nothing else was looked at.
    assert explained["rejected"] == []
    InferenceServiceStatus.model_validate(make_status(observation(wanted), decision, T0), extra="forbid")


def test_status_stays_small_with_every_list_full() -> None:
    long = '😀 words "quoted" \n\x1b[31m' * 1000
    seen = observation(status={"conditions": []})
    decision = replace(
        decide(seen, T0),
        plan=Plan(
            engine="e" * 64, version="v" * 64, image="i" * 512, layout=Layout(gpus=16, product="p" * 63),
            served_name="n" * 253, max_context_length=16_777_216, concurrency=1024,
            reasons=tuple(Reason(code="C" * 64, message=long) for _ in range(40)), args_unchecked=long,
            parameters=10**14, memory=Memory(**{f.name: 2**50 for f in fields(Memory)}),  # type: ignore[arg-type]
            rejected=tuple(Rejected(option=long, code="C" * 64, message=long) for _ in range(40)),
        ),
        refused=None,
        suggestion=Suggestion(id="0" * 8, message=long),
        revisions=tuple(
            RevisionReport(
                hash=f"{i:08}", is_current=i == 0, phase="Candidate", wanted=1000, replicas=1000, ready=0, weight=100,
                proven_at="2026-01-01T12:00:00Z", progressed_at=T0, progress=1001, drained_since=T0, failed_at=T0,
                failure=("C" * 64, long),
            )
            for i in range(40)
        ),
    )  # fmt: skip
    seen = replace(
        seen,
        benchmarks=(largest_benchmark(seen.name),),
        defaults=Defaults(prices=PriceDefaults(currency="EUR", per_hour={"p" * 63: 12.3456})),
    )
    obstacles = [Obstacle(code="C" * 64, message=long, needs_human=True)] * 9
    problem = ModelProblem(code="C" * 64, message=long)
    known = Known(question="q" * 8, at=T0, facts=largest_facts(), commit="c" * 64)
    failed = Failed(question="q" * 8, at=T0, problem=problem, attempt=10**6, failures=10**6, generation=10**6)
    # What is known is not unknown.
    states: tuple[tuple[State, ModelProblem | None], ...] = ((known, None), (failed, None), (failed, problem))
    for refused, (state, unknown) in itertools.product((None, Unplannable(code="C" * 64, message=long)), states):
        told = replace(decision, refused=refused, model_memory=write_state(state), model_unknown=unknown)
        status = make_status(seen, told, T0, obstacles=obstacles, contended=obstacles)
        InferenceServiceStatus.model_validate(status, extra="forbid")
        assert status["headroom"]["state"] == "Measured"
        assert len(status["headroom"]["rows"]) == 8
        assert 0 < len(status["plan"]["rejected"]) <= 8  # the others are for `draftmark explain`
        # A refused spec has no layout to have a price.
        assert ("cost" in status) == (told.plan is not None)
        assert len(json.dumps(status, ensure_ascii=False).encode()) <= 24 * 1024


def measured_while(*phases: tuple[str, str, bool], benchmark: str = "0" * 8, made: str | None = None) -> Object:
    """Status of a service with revisions (hash, phase, whether the spec asks for it), one of which was measured."""
    revisions = tuple(
        RevisionReport(hash=hash_, is_current=asked, phase=phase, wanted=1, replicas=1, ready=1)
        for hash_, phase, asked in phases
    )
    seen = observation(gpu_spec())
    measured = largest_benchmark(seen.name)
    target = {**measured["status"]["target"], "revision": benchmark, "hardware": "NVIDIA-L4"}
    item = {**measured, "status": {**measured["status"], "target": target}}
    metadata = {**seen.service["metadata"], **({"creationTimestamp": made} if made is not None else {})}
    seen = replace(
        seen,
        service={**seen.service, "metadata": metadata},
        benchmarks=(item,),
        defaults=Defaults(prices=PriceDefaults(currency="EUR", per_hour={"NVIDIA-L4": 1.0})),
    )
    return make_status(seen, replace(decide(seen, T0), revisions=revisions), T0)


def test_headroom_is_of_the_revision_that_serves_and_the_cost_of_the_one_that_is_planned() -> None:
    rolled_out = measured_while(("0" * 8, "Current", True))
    assert (rolled_out["headroom"]["state"], "cost" in rolled_out) == ("Measured", True)
    # Of a withdrawn rollout the revision before goes on, as of one that is under way.
    for phase in ("Failed", "Candidate"):
        status = measured_while(("1" * 8, phase, True), ("0" * 8, "Current", False))
        assert (status["headroom"]["state"], "cost" in status) == ("Measured", False), phase
    first = measured_while(("0" * 8, "Candidate", True))
    assert first["headroom"]["state"] == "Measured"
    assert measured_while(("1" * 8, "Current", True), ("0" * 8, "Retiring", False))["headroom"]["state"] == "Stale"


def test_what_was_measured_before_a_service_was_made_anew_is_not_of_it() -> None:
    current = ("0" * 8, "Current", True)
    assert measured_while(current, made="2026-01-01T11:00:00Z")["headroom"]["state"] == "Measured"
    anew = measured_while(current, made="2026-01-01T12:00:01Z")
    assert (anew["headroom"], "cost" in anew) == ({"state": "Unmeasured"}, False)


def gpu_spec() -> Object:
    return spec(
        model={"uri": "hf://org/repo", "maxContextLength": 4096},
        engine={"name": "vllm"},
        accelerator={"product": "NVIDIA-L4", "count": 1},
    )


@given(text=st.text(st.characters(exclude_categories=())), limit=st.integers(16, 64))
def test_a_shortened_message_is_short_printable_and_says_beginning_and_end(text: str, limit: int) -> None:
    short = shorten(text, limit)
    assert len(short.encode()) <= limit
    assert short.isprintable()
    if text.isascii() and text.isprintable():
        assert short == text if len(text) <= limit else (short[:4], short[-4:]) == (text[:4], text[-4:])


def test_pods_of_another_revision_do_not_explain_this_one() -> None:
    seen = with_pods(crashed_pod("00000000"))
    assert conditions(make_status(seen, decide(seen, T0), T0))[c.READY]["reason"] == "Starting"


def test_unreadable_specs_of_any_size_fit_into_a_condition() -> None:
    seen = observation(with_field(spec(), "engine.args", [["x" * 10_000]] * 200))
    status = make_status(seen, decide(seen, T0), T0)
    assert "engine.args" in conditions(status)[c.ACCEPTED]["message"]
    assert len(json.dumps(status)) < 8 * 1024


def timed_pod(revision: str, *, name: str, ready_s: int, restarts: int = 0) -> Object:
    """A pod that was ready so many seconds after noon; scheduled at once, its image there after 4 s."""

    def at(seconds: int) -> str:
        return write_time(T0 + timedelta(seconds=seconds))

    pod = ready_pod(revision, name)
    pod["metadata"]["creationTimestamp"] = at(0)
    pod["status"]["conditions"] = [
        {"type": "PodScheduled", "status": "True", "lastTransitionTime": at(1)},
        {"type": "Ready", "status": "True", "lastTransitionTime": at(ready_s)},
    ]
    pod["status"]["containerStatuses"] = [
        {"name": "engine", "ready": True, "restartCount": restarts, "state": {"running": {"startedAt": at(5)}}}
    ]
    return pod


def startup(*pods: Object, before: Object | None = None) -> Object | None:
    seen = replace(with_pods(*pods, ready=len(pods)), service=running().service)
    seen = replace(seen, service={**seen.service, "status": {"startup": before} if before else {}})
    found: Object | None = make_status(seen, decide(seen, T0), T0).get("startup")
    return found


def test_the_start_of_the_first_pod_is_measured_by_stage() -> None:
    slow, fast = (timed_pod(revision(), name=f"p{s}", ready_s=s) for s in (99, 75))
    measured = {"scheduleSeconds": 1, "imageSeconds": 4, "loadSeconds": 70, "totalSeconds": 75}
    assert startup(slow, fast) == {"revision": revision(), **measured}


def test_a_start_is_measured_once_for_each_revision() -> None:
    pod = timed_pod(revision(), name="p", ready_s=75)
    before = {"revision": revision(), "totalSeconds": 5}
    assert startup(pod, before=before) == before
    assert (startup(pod, before={**before, "revision": "00000000"}) or {})["totalSeconds"] == 75
    assert startup(before={**before, "revision": "00000000"}) is None


@pytest.mark.parametrize("pod", [ready_pod("ea525689"), timed_pod("ea525689", name="p", ready_s=9, restarts=1),
                                 timed_pod("00000000", name="p", ready_s=9)])  # fmt: skip
def test_a_start_that_cannot_be_told_is_not_told(pod: Object) -> None:
    """Times are missing, the container was started again, or it is another revision's."""
    assert startup(pod) is None


def test_one_failed_proof_is_not_told() -> None:
    # A pod is ready a moment before every node's proxy sends requests to it.
    seen = running()
    decision = decide(seen, T0)
    proof = Proof(
        revision=next(r.hash for r in decision.revisions if r.is_current), problem="refused", at=T0, failures=1
    )
    status = make_status(replace(seen, proof=proof, pods=(ready_pod(proof.revision),)), decision, T0)
    (ready,) = [c for c in status["conditions"] if c["type"] == "Ready"]
    assert ready["reason"] == "AwaitingFirstAnswer"
