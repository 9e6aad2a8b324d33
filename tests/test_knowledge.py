"""What is known of a model, where it is from, and what a service does while it is not known."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from draftmark.api import conditions as c
from draftmark.api import names
from draftmark.api.defaults import Defaults
from draftmark.api.times import write_time
from draftmark.decide import decide
from draftmark.decision import Decision
from draftmark.facts.model_answer import ModelAnswer, ModelProblem, write_answer
from draftmark.facts.model_json import facts_to_json
from draftmark.facts.models import ModelFacts
from draftmark.facts.nodes import ClusterFacts, read_nodes
from draftmark.knowledge import ANSWER_LAG, BOUND_WITHIN, unasked
from draftmark.machines.model_facts import ANSWER_WITHIN, PAUSES
from draftmark.observation import Observation
from draftmark.planner.needs_facts import needs_facts
from draftmark.status import make_status
from tests.facts.model_rows import a_llama
from tests.planner.plan_cases import L4_THEN_H100
from tests.specs import (
    ARCHITECTURE,
    CLAIM_URI,
    MINUTE,
    NAME,
    T0,
    Object,
    crashed_pod,
    deployments,
    node,
    observation,
    parse,
    spec,
    stored,
    waiting_pod,
    with_field,
)

GPU = {"product": "NVIDIA-L4"}
#: Its context and its degree are left open.
OPEN = spec(model={"uri": CLAIM_URI}, accelerator=GPU)
GIVEN = spec(model={"uri": CLAIM_URI, "maxContextLength": 8192}, accelerator=GPU, parallelism={"tensor": 1})
WELL_KNOWN = spec(model={"uri": "hf://Qwen/Qwen3-8B"}, engine={"name": "vllm"}, accelerator=GPU)
FACTS = replace(a_llama(), source="a Job")


@pytest.mark.parametrize(
    ("wanted", "is_needed"),
    [
        (OPEN, True),
        (with_field(OPEN, "model.maxContextLength", 8192), True),
        (with_field(OPEN, "parallelism.tensor", 1), True),
        (with_field(OPEN, "accelerator.count", 1), True),
        (GIVEN, False),
        (with_field(with_field(OPEN, "accelerator.count", 2), "model.maxContextLength", 8192), False),
        (with_field(OPEN, "model.architecture", ARCHITECTURE), False),
        # Nothing is summed without GPUs.
        (spec(), False),
        (spec(accelerator={"count": 0}), False),
        (spec(model={"uri": "hf://org/repo"}, engine={"name": "vllm"}), False),
    ],
)
def test_facts_are_needed_where_a_plan_follows_from_them(wanted: Object, is_needed: bool) -> None:
    assert needs_facts(parse(wanted), ClusterFacts(), Defaults()) is is_needed


# --- a small world ---


@dataclass(slots=True)
class World:
    """A service in a cluster that runs no pod but those of Jobs, and only when it is told to."""

    wanted: Object
    now: datetime = T0
    generation: int = 1
    status: Object = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    children: dict[tuple[str, str], Object] = field(default_factory=dict)
    pods: list[Object] = field(default_factory=list)
    fields: dict[str, Any] = field(default_factory=dict)
    #: Jobs that were ever made, by name.
    made: list[str] = field(default_factory=list)

    def see(self) -> Observation:
        seen = observation(self.wanted, status=self.status, can_ask=True, **self.fields)
        metadata = {**seen.service["metadata"], "generation": self.generation, "annotations": self.annotations}
        kinds = {kind for kind, _ in self.children}
        return replace(
            seen,
            service={**seen.service, "metadata": metadata},
            children={kind: tuple(o for (k, _), o in self.children.items() if k == kind) for kind in kinds},
            model_facts_pods=tuple(self.pods),
        )

    def look(self, after: timedelta = timedelta(0), *, writes_status: bool = True, applies: bool = True) -> Decision:
        """The operator looks once; it may be stopped before it applies, or before it writes the status."""
        self.now += after
        seen = self.see()
        decision = decide(seen, self.now)
        if decision.status_first and not writes_status:
            return decision
        if applies:
            for manifest in (*decision.pins, *decision.desired):
                key = (manifest["kind"], manifest["metadata"]["name"])
                if key[0] == "Job" and key not in self.children:
                    self.made.append(key[1])
                self.children[key] = stored(manifest, self.children.get(key))
            for ref in decision.prune:
                self.children.pop((ref.kind, ref.name), None)
        if writes_status:
            self.status = make_status(seen, decision, self.now)
        return decision

    @property
    def job(self) -> Object:
        [found] = [o for (kind, _), o in self.children.items() if kind == "Job"]
        return found

    @property
    def jobs(self) -> int:
        return sum(kind == "Job" for kind, _ in self.children)

    def pod_tells(self, message: str, *, exit_code: int = 0, reason: str = "Completed") -> None:
        """The Job's pod ends."""
        ended = {"terminated": {"exitCode": exit_code, "reason": reason, "message": message}}
        self.pods.append(self.of_job(crashed_pod("", name="reader"), state=ended))

    def of_job(self, pod: Object, **container: Any) -> Object:
        labels = self.job["spec"]["template"]["metadata"]["labels"]
        [status] = pod["status"]["containerStatuses"]
        status = {**status, "name": "reader", "lastState": {}, "restartCount": 0, **container}
        return {**pod, "metadata": {**pod["metadata"], "labels": labels}, "status": {"containerStatuses": [status]}}

    def job_ends(self, how: str, message: str = "") -> None:
        at = write_time(self.now)
        self.job["status"] = {
            "conditions": [{"type": how, "status": "True", "message": message, "lastTransitionTime": at}]
        }

    def condition(self, type_: str) -> tuple[str, str, str]:
        found: Mapping[str, Any] = next((x for x in self.status["conditions"] if x["type"] == type_), {})
        return str(found.get("status", "")), str(found.get("reason", "")), str(found.get("message", ""))


ANSWER = write_answer(ModelAnswer(facts=FACTS, commit="0123abc"))
PROBLEM = write_answer(ModelProblem(code="NotAuthorized", message="Set model.authSecretRef."))


def asked(wanted: Object = OPEN, **fields: Any) -> World:
    world = World(wanted, fields=fields)
    world.look()
    return world


# --- whole runs ---


def test_a_service_waits_for_the_facts_and_nothing_else_is_made() -> None:
    world = World(OPEN)
    decision = world.look()
    assert [m["kind"] for m in decision.desired] == ["Job"]
    assert (decision.pins, decision.plan, decision.requeue_after) == ((), None, ANSWER_WITHIN)
    name = world.job["metadata"]["name"]
    for type_, status in ((c.PROGRESSING, "True"), (c.READY, "False"), (c.RECONCILING, "True")):
        assert world.condition(type_)[:2] == (status, "ReadingModelFacts")
    assert f"facts of {CLAIM_URI}, which Job '{name}' reads" in world.condition(c.READY)[2]
    assert world.condition(c.ACCEPTED)[0] == "True"
    assert world.condition(c.STALLED)[0] == "False"
    assert world.status["modelFacts"]["state"] == "Asked"


def test_with_the_answer_the_revision_is_made_and_the_job_goes_when_it_is_written_down() -> None:
    world = asked()
    world.pod_tells(ANSWER)
    decision = world.look()
    assert decision.model == FACTS
    assert deployments(decision.desired)
    assert world.jobs == 1
    assert world.status["modelFacts"] == {
        "state": "Known", "question": world.status["modelFacts"]["question"], "at": "2026-01-01T12:00:00Z",
        "commit": "0123abc", "facts": json.loads(facts_to_json(FACTS)),
    }  # fmt: skip
    assert world.look().model == FACTS
    assert (world.jobs, len(world.made)) == (0, 1)
    before = world.status
    assert world.look(MINUTE).requeue_after is None
    assert world.status == before
    assert world.condition(c.MODEL_FACTS_UNKNOWN)[0] == ""


def test_a_problem_stops_no_service_and_is_told_with_the_way_out() -> None:
    world = asked()
    world.pod_tells(PROBLEM)
    decision = world.look()
    assert decision.model is None
    assert deployments(decision.desired)
    world.look(MINUTE)
    assert world.jobs == 0
    status, reason, message = world.condition(c.MODEL_FACTS_UNKNOWN)
    assert (status, reason) == ("True", "NotAuthorized")
    assert "Set model.authSecretRef." in message
    assert "Write model.architecture" in message
    assert world.condition(c.PROGRESSING)[1] == "Starting"
    before = world.status
    world.look(100 * MINUTE)
    assert (world.status, world.jobs) == (before, 0)


def test_whoever_asks_to_try_again_gets_another_job_and_keeps_what_runs() -> None:
    world = asked()
    world.pod_tells(PROBLEM)
    world.look()
    runs = deployments(world.look().desired)
    world.annotations[names.ANNOTATION_RETRY] = write_time(world.now + MINUTE)
    decision = world.look(2 * MINUTE)
    assert world.jobs == 1
    assert len(set(world.made)) == 2
    assert decision.reading is None
    assert deployments(decision.desired) == runs
    world.pod_tells(ANSWER)
    assert world.look().model == FACTS
    world.look()
    assert world.condition(c.MODEL_FACTS_UNKNOWN)[0] == ""


@pytest.mark.parametrize(
    "wanted", [GIVEN, spec(), with_field(OPEN, "model.architecture", json.loads(facts_to_json(FACTS)))]
)
def test_nothing_is_asked_where_nothing_would_be_decided(wanted: Object) -> None:
    world = World(wanted)
    decision = world.look()
    assert deployments(decision.desired)
    assert (world.jobs, "modelFacts" in world.status) == (0, False)


def test_nobody_is_asked_about_a_spec_that_is_refused() -> None:
    world = asked(with_field(OPEN, "engine.args", ["--no-such-flag"]))
    assert (world.jobs, world.condition(c.ACCEPTED)[0]) == (0, "False")


def test_what_runs_goes_on_while_a_change_waits() -> None:
    world = World(GIVEN)
    before = deployments(world.look().desired)
    world.wanted, world.generation = OPEN, 2
    decision = world.look()
    assert world.jobs == 1
    assert deployments(decision.desired) == before
    assert world.condition(c.READY)[:2] == ("False", "ReadingModelFacts")
    world.pod_tells(ANSWER)
    assert deployments(world.look().desired).keys() != before.keys()


def test_an_edit_is_planned_with_what_is_known_already() -> None:
    world = asked()
    world.pod_tells(ANSWER)
    world.look()
    world.look()
    world.wanted, world.generation = with_field(OPEN, "engine.env", [{"name": "A", "value": "1"}]), 2
    before = world.status["revisions"][0]["hash"]
    decision = world.look()
    assert before not in deployments(decision.desired)
    assert (decision.model, world.jobs) == (FACTS, 0)


def test_an_edit_after_the_facts_were_lost_asks_again_for_its_layout_follows_from_them() -> None:
    world = asked()
    world.pod_tells(ANSWER)
    world.look()
    world.look()
    world.status.pop("modelFacts")
    world.pods.clear()
    before = deployments(world.look().desired)
    assert world.jobs == 0  # what runs needs nothing
    world.wanted, world.generation = with_field(OPEN, "engine.env", [{"name": "A", "value": "1"}]), 2
    assert deployments(world.look().desired) == before
    assert world.jobs == 1


def a_cluster_with_gpus() -> ClusterFacts:
    labels = {"nvidia.com/gpu.product": "NVIDIA-L4", "nvidia.com/gpu.memory": "23034", "nvidia.com/gpu.count": "1"}
    item = node()
    item["metadata"]["labels"] = labels
    item["status"] |= {"allocatable": {"nvidia.com/gpu": "1"}}
    return ClusterFacts(nodes=read_nodes([item]))


def test_where_the_accelerator_is_chosen_facts_are_needed_and_asked_for_again_and_again() -> None:
    wanted = spec(model={"uri": "pvc://weights/llama"}, engine={"name": "vllm"})
    assert needs_facts(parse(wanted), a_cluster_with_gpus(), Defaults())
    assert not needs_facts(parse(wanted), ClusterFacts(nodes=()), Defaults())
    assert needs_facts(parse(wanted), ClusterFacts(nodes=()), Defaults.model_validate(L4_THEN_H100))
    world = asked(wanted, cluster=a_cluster_with_gpus())
    assert world.jobs == 1
    world.pod_tells(PROBLEM)
    decision = world.look()
    assert decision.refused is not None
    assert decision.refused.code == "ModelUnknown"
    assert world.condition(c.MODEL_FACTS_UNKNOWN)[1] == "NotAuthorized"
    assert decision.requeue_after == PAUSES[0]
    world.look(PAUSES[0] / 2)
    assert world.jobs == 0
    world.look(PAUSES[0] / 2)
    assert world.jobs == 1
    world.pods.clear()
    world.pod_tells(ANSWER)
    decision = world.look()
    assert decision.refused is None
    assert decision.plan is not None
    assert decision.plan.layout.gpus == 1


def test_an_operator_that_is_upgraded_asks_nothing_about_what_runs() -> None:
    world = World(OPEN, fields={})
    for manifest in (*(first := decide(observation(OPEN), T0)).pins, *first.desired):
        world.children[manifest["kind"], manifest["metadata"]["name"]] = stored(manifest)
    world.look()
    assert (world.jobs, world.status.get("modelFacts")) == (0, None)


def test_offline_nothing_is_asked_and_nothing_waits() -> None:
    decision = decide(observation(OPEN), T0)
    assert "Job" not in {m["kind"] for m in decision.desired}
    assert deployments(decision.desired)


@pytest.mark.parametrize(
    ("wanted", "is_told"),
    [
        (OPEN, True),
        (GIVEN, False),
        (spec(), False),
        (with_field(OPEN, "model.architecture", ARCHITECTURE), False),
        (WELL_KNOWN, False),
        # That nobody is asked is told elsewhere, and true in a cluster as well.
        (with_field(OPEN, "model.uri", "https://host/m.gguf"), False),
    ],
)
def test_offline_it_is_told_what_a_cluster_would_ask(wanted: Object, is_told: bool) -> None:
    problem = unasked(observation(wanted), parse(wanted))
    assert (problem is not None) is is_told
    assert problem is None or f"a Job reads it from {CLAIM_URI}" in problem.message
    assert unasked(observation(wanted, can_ask=True), parse(wanted)) is None


# --- where facts are from ---


def test_the_spec_comes_before_the_catalogue_and_the_catalogue_is_the_last_resort() -> None:
    written = with_field(WELL_KNOWN, "model.architecture", ARCHITECTURE)
    by_spec = decide(observation(written), T0).model
    assert by_spec is not None
    assert by_spec.source == "a test"
    offline = decide(observation(WELL_KNOWN), T0).model
    assert offline is not None
    assert offline.source.startswith("catalogue")


def test_a_job_comes_before_the_catalogue_which_makes_up_for_a_job_that_failed() -> None:
    world = asked(WELL_KNOWN)
    assert world.jobs == 1
    world.pod_tells(ANSWER)
    assert world.look().model == FACTS

    world = asked(WELL_KNOWN)
    world.pod_tells(PROBLEM)
    model = world.look().model
    assert isinstance(model, ModelFacts)
    assert model.source.startswith("catalogue")
    assert world.condition(c.MODEL_FACTS_UNKNOWN)[0] == ""


def test_an_architecture_that_cannot_be_is_refused_with_the_field_and_what_runs_goes_on() -> None:
    world = World(GIVEN)
    runs = deployments(world.look().desired)
    world.wanted = with_field(GIVEN, "model.architecture", {**ARCHITECTURE, "hiddenSise": 1})
    decision = world.look()
    assert decision.refused is not None
    assert decision.refused.code == "InvalidArchitecture"
    assert "'hiddenSise' is no field" in decision.refused.message
    assert deployments(decision.desired) == runs


def test_a_model_behind_a_url_is_not_asked_about_and_that_is_told() -> None:
    world = asked(with_field(OPEN, "model.uri", "https://host/m.gguf"))
    assert world.jobs == 0
    status, reason, message = world.condition(c.MODEL_FACTS_UNKNOWN)
    assert (status, reason) == ("True", "NotAsked")
    assert "Write model.architecture" in message
    assert "retry" not in message


# --- faults ---


@pytest.mark.parametrize("stops", [{"applies": False, "writes_status": False}, {"writes_status": False}])
@pytest.mark.parametrize("step", range(4))
def test_an_operator_that_is_killed_at_any_step_ends_with_one_result(step: int, stops: dict[str, bool]) -> None:
    world, whole = World(OPEN), {"applies": True, "writes_status": True}
    for number in range(8):
        if number == 4:
            world.pod_tells(ANSWER)
        does = {**whole, **stops} if number in (step, step + 4) else whole
        world.look(applies=does["applies"], writes_status=does["writes_status"])
    assert world.status["modelFacts"]["state"] == "Known"
    assert (world.jobs, len(set(world.made))) == (0, 1)
    assert len([1 for kind, _ in world.children if kind == "ControllerRevision"]) == 1


def test_a_job_that_is_deleted_by_hand_is_made_again() -> None:
    world = asked()
    [name] = world.made
    world.children.clear()
    world.look(timedelta(seconds=1))
    assert world.made == [name, name]


def test_a_job_whose_answer_is_lost_is_asked_again_under_another_name() -> None:
    world = asked()
    world.job_ends("Complete")
    after = world.look().requeue_after
    assert len(world.made) == 1  # the pod may be told of later than the Job
    assert after == ANSWER_LAG
    world.look(2 * after)
    assert len(set(world.made)) == 2
    world.look()
    assert world.jobs == 1


def test_a_lost_status_is_answered_by_the_same_job_at_once() -> None:
    world = asked()
    world.pod_tells(ANSWER)
    world.status = {}
    assert world.look().model == FACTS
    assert world.status["modelFacts"]["state"] == "Known"
    assert len(set(world.made)) == 1


def test_an_answer_is_written_down_before_it_is_acted_upon() -> None:
    """What is planned is pinned, and then nobody asks any more."""
    for told in (ANSWER, PROBLEM):
        world = asked()
        world.pod_tells(told)
        assert world.look(applies=False).status_first
        world.pods.clear()
        decision = world.look()
        assert not decision.status_first
        assert (decision.model == FACTS) is (told == ANSWER)
        assert deployments(decision.desired)


def test_what_was_planned_with_more_knowledge_gets_no_suggestion_from_less() -> None:
    world = asked()
    world.pod_tells(ANSWER)
    assert world.look().plan
    world.look()
    world.status.pop("modelFacts")
    world.pods.clear()
    decision = world.look()
    assert decision.model is None
    assert decision.plan is not None
    assert decision.plan.memory is not None
    assert decision.suggestion is None


def test_a_program_that_broke_off_is_waited_for_until_its_job_fails() -> None:
    world = asked()
    world.pod_tells("Traceback\nValueError: a bug", exit_code=1, reason="Error")
    assert world.look().reading is not None
    world.job_ends("Failed", "Job has reached the specified backoff limit")
    world.look()
    assert world.condition(c.MODEL_FACTS_UNKNOWN)[1] == "NoAnswer"
    assert "ValueError: a bug" in world.condition(c.MODEL_FACTS_UNKNOWN)[2]


def test_a_program_that_was_killed_for_memory_is_told() -> None:
    world = asked()
    world.pod_tells("", exit_code=137, reason="OOMKilled")
    world.job_ends("Failed")
    world.look()
    assert world.condition(c.MODEL_FACTS_UNKNOWN)[1] == "OutOfMemory"


def test_an_evicted_pod_is_no_answer() -> None:
    world = asked()
    evicted = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory."}
    labels = world.job["spec"]["template"]["metadata"]["labels"]
    world.pods = [{"metadata": {"name": "a", "labels": labels}, "spec": {}, "status": evicted}]
    assert world.look().reading is not None
    assert "low on memory" in world.condition(c.PROGRESSING)[2]
    world.pod_tells(ANSWER)
    assert world.look().model == FACTS


def test_what_keeps_the_pod_from_starting_is_told_at_once_and_after_its_time() -> None:
    world = asked()
    message = 'secret "hub" not found'
    world.pods = [world.of_job(waiting_pod("", "CreateContainerConfigError", message))]
    world.look()
    assert message in world.condition(c.PROGRESSING)[2]
    world.look(ANSWER_WITHIN)
    assert world.condition(c.MODEL_FACTS_UNKNOWN)[1] == "ContainerConfigFailed"
    assert message in world.condition(c.MODEL_FACTS_UNKNOWN)[2]


@pytest.mark.parametrize(
    ("claims", "code", "told"),
    [
        ({}, "ClaimNotFound", "PersistentVolumeClaim 'weights' does not exist"),
        ({"weights": "Pending"}, "ClaimNotBound", "PersistentVolumeClaim 'weights' is not bound (Pending)"),
        ({"weights": "Lost"}, "ClaimNotBound", "is not bound (Lost)"),
    ],
)
def test_a_claim_that_is_not_bound_is_mounted_by_no_job_and_waited_for_a_while(
    claims: Mapping[str, str], code: str, told: str
) -> None:
    """One that is provisioned for its first pod must be so for the engine's."""
    world = asked(claims=claims)
    assert (world.jobs, world.status["modelFacts"]["state"]) == (0, "Asked")
    assert world.condition(c.READY)[:2] == ("False", "ReadingModelFacts")
    assert told in world.condition(c.PROGRESSING)[2]
    assert "within 60 s" in world.condition(c.PROGRESSING)[2]
    assert world.look(BOUND_WITHIN / 2).requeue_after == BOUND_WITHIN / 2
    decision = world.look(BOUND_WITHIN / 2)
    assert deployments(decision.desired)
    assert (world.jobs, world.condition(c.MODEL_FACTS_UNKNOWN)[1]) == (0, code)
    assert told in world.condition(c.MODEL_FACTS_UNKNOWN)[2]


def test_a_claim_that_is_bound_in_time_is_read() -> None:
    world = asked(claims={"weights": "Pending"})
    world.fields["claims"] = {"weights": "Bound"}
    decision = world.look(BOUND_WITHIN / 2)
    assert (world.jobs, decision.requeue_after) == (1, ANSWER_WITHIN - BOUND_WITHIN / 2)
    world.pod_tells(ANSWER)
    assert world.look().model == FACTS


@pytest.mark.parametrize("stamp", ["2099-01-01T00:00:00Z", "2099-01-01T00:00:00.5+01:00", "9999-12-31T23:59:59-12:00"])
def test_a_wish_to_try_again_in_years_asks_once_and_not_for_years(stamp: str) -> None:
    world = asked()
    world.pod_tells(PROBLEM)
    world.look()
    world.look()
    world.annotations[names.ANNOTATION_RETRY] = stamp
    for _ in range(8):
        world.look(MINUTE)
        if world.jobs and world.status["modelFacts"]["state"] == "Asked":
            world.pod_tells(PROBLEM)
    assert len(set(world.made)) <= 2
    assert (world.jobs, world.status["modelFacts"]["state"]) == (0, "Failed")


def test_a_job_that_cannot_be_made_holds_nobody_up_for_ever() -> None:
    world = World(OPEN)
    world.look(applies=False)
    assert world.look(ANSWER_WITHIN - MINUTE, applies=False).reading is not None
    decision = world.look(MINUTE)
    assert deployments(decision.desired)
    assert world.condition(c.MODEL_FACTS_UNKNOWN)[1] == "NoJob"


def test_a_paused_service_asks_nothing_and_remembers() -> None:
    world = World({**OPEN, "paused": True})
    world.look()
    assert world.jobs == 0
    world = asked()
    world.pod_tells(ANSWER)
    world.look()
    before = world.status["modelFacts"]
    world.wanted = {**OPEN, "paused": True}
    assert world.look().model == FACTS
    assert world.status["modelFacts"] == before


def test_while_it_is_not_known_what_runs_nothing_is_asked() -> None:
    world = World(OPEN, fields={"unread": {"Deployment": "not listed yet"}})
    decision = world.look()
    assert (world.jobs, decision.held is not None) == (0, True)


def test_a_spec_that_cannot_be_read_forgets_nothing() -> None:
    world = asked()
    world.pod_tells(ANSWER)
    world.look()
    before = world.status["modelFacts"]
    world.wanted = with_field(OPEN, "model.maxContextLength", "many")
    world.look()
    assert world.status["modelFacts"] == before


def test_a_container_beside_it_neither_answers_nor_holds_up_the_answer() -> None:
    world = asked()
    world.pod_tells(PROBLEM)
    [container] = world.pods[0]["status"]["containerStatuses"]
    container["name"] = "proxy"
    assert world.look().reading is not None
    ended = {"terminated": {"exitCode": 0, "message": ANSWER}}
    proxy = {"name": "proxy", "state": {"running": {}}}
    world.pods[0]["status"]["containerStatuses"] = [proxy, {"name": "reader", "state": ended}]
    assert world.look().model == FACTS


def test_a_foreign_pod_with_our_labels_answers_for_nobody_else() -> None:
    world = asked()
    world.pod_tells(ANSWER)
    [pod] = world.pods
    labels = {**pod["metadata"]["labels"], names.LABEL_JOB: f"{NAME}-facts-00000000"}
    world.pods = [{**pod, "metadata": {**pod["metadata"], "labels": labels}}]
    assert world.look().reading is not None


@pytest.mark.parametrize("said", ["x" * 3000, '{"facts": {"a": 1}}', "\x1b[31m\n\0", "{}"])
def test_an_answer_of_a_stranger_is_no_answer(said: str) -> None:
    world = asked()
    world.pod_tells(said)
    decision = world.look()
    assert decision.model is None
    assert world.status["modelFacts"]["state"] == "Failed"
    assert world.condition(c.MODEL_FACTS_UNKNOWN)[2].isprintable()
