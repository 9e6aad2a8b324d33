"""Whole runs of a Benchmark: from what happens to where it ends, and what is written on the way."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from draftmark.api import names
from draftmark.api.conditions import Obstacle as Refused
from draftmark.api.defaults import BenchmarkDefaults, Defaults
from draftmark.api.times import write_time
from draftmark.benchmark.decide import PHASES_AT_THE_END, decide_benchmark
from draftmark.benchmark.observation import BenchmarkObservation
from draftmark.benchmark.status import make_benchmark_status
from draftmark.measure.result import Refusal
from draftmark.observation import Observation
from tests import specs
from tests.benchmark.world import World, benchmark, difference, result_of, row, serving, winner
from tests.specs import MINUTE, T0, Object

RUN = ("ServiceAccount", "Role", "RoleBinding", "ConfigMap", "ConfigMap", "Job")
SATURATED = Refusal(code="ClientSaturated", message="The client had too little CPU.", is_failure=False)
BROKEN = Refusal(code="TooManyErrors", message="5 of 10 requests failed.", is_failure=True)
COMPARED: Any = {"compare": {"target": {"service": specs.NAME, "allowUserTraffic": True}}}


# From the start to the end


def test_a_run_from_the_start_to_its_result() -> None:
    world = World().settle()
    assert (world.phase, world.reason) == ("Running", "Starting")
    assert world.jobs() == [world.attempt(0)]
    assert {kind: count for kind, count in world.writes.items() if kind.startswith("create")} == {
        "create ServiceAccount": 1, "create Role": 1, "create RoleBinding": 1, "create ConfigMap": 2, "create Job": 1
    }  # fmt: skip
    world.run_pods().settle()
    assert world.reason == "Measuring"
    world.progress(40).settle()
    assert world.status["progress"] == {
        "stage": "Measuring", "workload": "chat", "load": "concurrency 1", "percent": 40, "secondsLeft": 60
    }  # fmt: skip
    world.result().settle()
    assert (world.phase, world.reason) == ("Succeeded", "Succeeded")
    assert [r["load"] for r in world.status["results"]] == [f"concurrency {n}" for n in (1, 4, 8, 16)]
    assert world.status["results"][0]["ttft"] == {"p50": 101.2, "p90": 202.5, "p99": 303.7}
    assert world.status["report"]["configMap"] == "first-result"
    assert world.condition("Complete")["status"] == "True"
    assert world.condition("Failed")["status"] == ""
    assert world.condition("Stalled")["status"] == world.condition("Reconciling")["status"] == "False"
    # The right to write into the result is gone, and the result is not.
    assert {kind: sorted(items) for kind, items in world.children.items() if items} == {
        "ConfigMap": ["first-result"], "Job": [world.job]
    }  # fmt: skip


def test_a_finished_one_never_changes_and_writes_nothing() -> None:
    world = World().started().result().settle()
    before, written = world.status, world.writes.copy()
    world.tell("result", "{}").restart_target().settle()
    world.target = None
    world.end_job().settle()
    world.delete_job().wait(days=300).restart_operator().settle()
    world.children["ConfigMap"] = {}
    world.settle()
    assert world.status == before
    assert world.writes == written


def test_writes_are_bounded_by_the_percents() -> None:
    world = World().started()
    before = world.writes["status"]
    for second in range(1000):
        world.wait(seconds=5).progress(second // 10).settle()
    assert world.writes["status"] - before == 100
    assert set(world.writes) == {"status", *(f"create {kind}" for kind in RUN)}


def test_a_restart_of_the_operator_writes_nothing() -> None:
    world = World().started().progress(5).settle()
    written = world.writes.copy()
    world.restart_operator().wait(minutes=5).settle()
    assert world.writes == written


# Waiting


def unready() -> World:
    target = serving()
    (pod,) = target.pods
    waiting = {**pod, "status": {**pod["status"], "conditions": []}}
    return World(target=replace(target, pods=(waiting,)))


def two_revisions(**revision: Any) -> World:
    """A service with a second revision that takes all requests."""
    target = serving(weight=0)
    status: Any = target.status
    other = {"hash": "ffffffff", "phase": "Candidate", "weight": 100, "replicas": 1, "readyReplicas": 1}
    both = {**status, "revisions": [*status["revisions"], other]}
    item = benchmark(target={"service": specs.NAME, **revision})
    return World(item=item, target=replace(target, service={**target.service, "status": both}))


def take_traffic(target: Observation | None) -> Observation:
    """Of two revisions the first takes half of the requests."""
    assert target is not None
    status: Any = target.status
    revisions = [{**revision, "weight": 50} for revision in status["revisions"]]
    return replace(target, service={**target.service, "status": {**status, "revisions": revisions}})


WAITING: dict[str, Callable[[], World]] = {
    "TargetNotFound": lambda: World(target=None),
    "TargetNotReady": unready,
    "RevisionNotFound": lambda: World(
        item=benchmark(target={"service": specs.NAME, "revision": "00000000", "allowUserTraffic": True})
    ),
    "ServesUsers": lambda: World(item=benchmark(target={"service": specs.NAME})),
    "Held": lambda: World(is_known=False),
}


@pytest.mark.parametrize("reason", WAITING)
def test_what_is_in_the_way_is_said_and_waited_for(reason: str) -> None:
    world = WAITING[reason]().settle()
    assert (world.phase, world.reason) == ("Pending", reason)
    assert world.condition("Complete")["message"]
    assert world.condition("Accepted")["status"] == "True"
    written = world.writes.copy()
    world.wait(days=30).settle()
    assert world.writes == written == {"status": 1}


def test_what_was_waited_for_is_measured_when_it_comes() -> None:
    world = unready().settle()
    since = world.status["waitingSince"]
    world.target = serving()
    world.wait(minutes=9).settle()
    assert (world.phase, world.status["waitingSince"]) == ("Running", since)


def test_a_pod_that_waits_is_told_with_its_problem() -> None:
    target = serving()
    [revision] = {p["metadata"]["labels"][names.LABEL_REVISION] for p in target.pods}
    pods = (*target.pods, specs.unschedulable_pod(revision, "0/1 nodes are available", name="other"))
    world = World(target=replace(target, pods=pods)).settle()
    assert "1 of 2 pods" in world.condition("Complete")["message"]
    assert "0/1 nodes" in world.condition("Complete")["message"]


def test_a_revision_without_traffic_is_measured_without_being_asked() -> None:
    assert two_revisions().settle().phase == "Running"


def test_the_only_revision_serves_although_it_has_no_weight_yet() -> None:
    world = World(item=benchmark(target={"service": specs.NAME}), target=serving(weight=0)).settle()
    assert world.reason == "ServesUsers"
    # A service of its own has one revision as well.
    assert "a service of its own with target.allowUserTraffic: true" in world.condition("Complete")["message"]
    world = World(item=benchmark(target={"service": specs.NAME}), target=serving(weight=None)).settle()
    assert world.reason == "ServesUsers"


# One at a time

#: What happens to one of two Benchmarks. What touches the target, both would see.
TOGETHER: dict[str, Callable[[World], object]] = {
    "reconcile": lambda w: w.settle(),
    "dies at once": lambda w: w.reconcile(dies_after=1),
    "dies later": lambda w: w.reconcile(dies_after=5),
    "pods run": lambda w: w.run_pods(),
    "job fails": lambda w: w.end_job("Failed", "BackoffLimitExceeded"),
    "job deleted": lambda w: w.delete_job(),
    "time": lambda w: w.wait(minutes=11),
    "status lost": lambda w: w.lose_status() if w.phase not in PHASES_AT_THE_END else None,
    "result": lambda w: w.result() if w.job in w.children.get("ConfigMap", {}) else None,
}


def other(name: str, at: str, **fields: Any) -> BenchmarkObservation:
    world = World(item=benchmark(name, uid=f"uid-{name}", at=at, **fields.pop("spec", {})), **fields)
    return world.observe()


def test_the_oldest_goes_first() -> None:
    old = other("old", "2026-01-01T10:00:00Z")
    world = World(others=(old,)).settle()
    assert (world.phase, world.reason) == ("Pending", "TargetBusy")
    assert "'old'" in world.condition("Complete")["message"]
    assert World(item=dict(old.benchmark), others=(World().observe(),)).settle().phase == "Running"


def test_an_older_one_that_cannot_begin_is_not_waited_for() -> None:
    spec = {"target": {"service": specs.NAME}}  # it may not load a service with users
    assert World(others=(other("old", "2026-01-01T10:00:00Z", spec=spec),)).settle().phase == "Running"


def test_one_that_runs_is_waited_for_although_it_is_younger() -> None:
    running = World(item=benchmark("young", uid="uid-young", at="2026-01-01T11:30:00Z")).started()
    world = World(others=(running.observe(),)).settle()
    assert world.reason == "TargetBusy"
    # Its status is lost; its Job is not.
    world = World(others=(running.lose_status().observe(),)).settle()
    assert world.reason == "TargetBusy"
    running.settle().result().settle()
    world.others = ()
    assert world.settle().phase == "Running"


@pytest.mark.parametrize("at", ["2026-01-01T10:00:00Z", "2026-01-01T11:30:00Z"], ids=["older", "younger"])
def test_one_whose_job_cannot_be_written_is_not_waited_for(at: str) -> None:
    stuck = World(item=benchmark("stuck", uid="uid-stuck", at=at))
    refused = [Refused(code="QuotaExceeded", message="exceeded quota", needs_human=True)]
    decision = decide_benchmark(stuck.observe(), T0)
    stuck.item["status"] = make_benchmark_status(stuck.observe(), decision, T0, obstacles=refused)
    assert (stuck.phase, stuck.reason) == ("Running", "QuotaExceeded")
    world = World(others=(stuck.observe(),)).settle()
    assert (world.phase, world.jobs()) == ("Running", [world.attempt(0)])
    # When its Job could be written, it waits for the one that measures.
    stuck.others = (world.observe(),)
    assert (stuck.settle().reason, stuck.jobs()) == ("TargetBusy", [])
    stuck.others = ()
    assert stuck.settle().jobs() == [stuck.attempt(0)]


def test_a_job_that_a_deleted_one_left_is_waited_for() -> None:
    world = World()
    observe = world.observe
    world.observe = lambda: replace(observe(), leftover="gone-bench-00000000")  # type: ignore[method-assign]
    assert (world.settle().phase, world.reason) == ("Pending", "TargetBusy")
    assert "kubectl delete job gone-bench-00000000" in world.condition("Complete")["message"]
    world.observe = observe  # type: ignore[method-assign]
    assert world.settle().phase == "Running"


def test_one_that_waits_between_two_tries_is_not_waited_for_by_an_older_one() -> None:
    young = World(item=benchmark("young", uid="uid-young", at="2026-01-01T11:30:00Z")).started().delete_job()
    ready, young.target = young.target, unready().target
    assert (young.settle().phase, young.jobs()) == ("Running", [])
    world = World(others=(young.observe(),)).settle()
    assert world.jobs() == [world.attempt(0)]
    young.target, young.others = ready, (world.observe(),)
    assert (young.settle().reason, young.jobs()) == ("TargetBusy", [])
    assert young.status["attempts"] == 1


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.tuples(st.integers(0, 1), st.sampled_from(sorted(TOGETHER))), max_size=30))
def test_two_of_one_target_never_have_a_job_at_once(steps: list[tuple[int, str]]) -> None:
    """What is decided is carried out before the next one decides, as the reconciler does it with Jobs."""
    two = [World(item=benchmark(f"b{n}", uid=f"uid-{n}", at=f"2026-01-01T11:0{n}:00Z")) for n in range(2)]
    for which, event in steps:
        world, beside = two[which], two[1 - which]
        world.others = (beside.observe(),) if beside.phase not in PHASES_AT_THE_END else ()
        TOGETHER[event](world)
        running = [w for w in two if w.phase not in PHASES_AT_THE_END and w.live_jobs()]
        assert len(running) <= 1, event


# What a result says


ENDS: dict[str, tuple[dict[str, Any], str, int]] = {
    "Succeeded": ({}, "Succeeded", 4),
    "ClientSaturated": ({"refusal": SATURATED, "rows": (row(refusal=SATURATED),)}, "Inconclusive", 0),
    "TooManyErrors": ({"refusal": BROKEN, "rows": ()}, "Failed", 0),
    "NoRows": ({"rows": ()}, "Failed", 0),
}


@pytest.mark.parametrize("reason", ENDS)
def test_what_a_result_says_as_a_whole(reason: str) -> None:
    changes, phase, numbers = ENDS[reason]
    world = World().started().result(**changes).settle()
    assert (world.phase, world.reason) == (phase, reason)
    assert sum("ttft" in r for r in world.status.get("results") or ()) == numbers
    failed = world.condition("Failed")
    assert failed["status"] == ("" if phase == "Succeeded" else "True")
    assert world.condition("Stalled")["status"] == ("False" if phase == "Succeeded" else "True")
    assert world.condition("Reconciling")["status"] == "False"


def test_rows_with_numbers_stay_beside_those_without() -> None:
    world = World().started().result(rows=(row(), row(load="concurrency 4", refusal=BROKEN))).settle()
    assert (world.phase, world.reason) == ("Inconclusive", "TooManyErrors")
    assert world.condition("Complete")["message"].startswith("1 of 2 rows have no numbers.")
    first, second = world.status["results"]
    assert "ttft" in first
    assert second == {
        "workload": "chat", "load": "concurrency 4", "target": "target", "samples": 10, "errorPercent": 0,
        "reason": "TooManyErrors", "message": "5 of 10 requests failed.",
    }  # fmt: skip
    rows = (row(refusal=SATURATED), row(load="concurrency 4", refusal=BROKEN))
    world = World().started().result(rows=rows).settle()
    assert (world.phase, world.reason) == ("Failed", "TooManyErrors")


def test_what_was_not_checked_stands_with_the_numbers() -> None:
    said = "Not checked of target: other load."
    world = World().started().result(unchecked=(said,)).settle()
    assert world.condition("Complete")["message"] == f"4 rows measured. {said}"
    some = (row(), row(load="concurrency 4", refusal=BROKEN))
    world = World().started().result(unchecked=(said,), rows=some).settle()
    assert world.condition("Complete")["message"].endswith(f"requests failed. {said}")
    world = World().started().result(unchecked=(said,), rows=some[1:]).settle()
    assert said not in world.condition("Complete")["message"]


@pytest.mark.parametrize(
    ("verdicts", "phase", "reason"),
    [
        (("Inconclusive", "Inconclusive"), "Inconclusive", "NoDifferenceShown"),
        (("Inconclusive", "Better"), "Succeeded", "Succeeded"),
        (("Equal",), "Succeeded", "Succeeded"),
        ((), "Inconclusive", "NoDifferenceShown"),
    ],
)
def test_what_a_comparison_says_as_a_whole(verdicts: tuple[str, ...], phase: str, reason: str) -> None:
    world = World(item=benchmark(**COMPARED)).started()
    assert [t.label for t in world.order().targets] == ["target", "compared"]
    differences = tuple(difference(verdict) for verdict in verdicts)
    world.result(differences=differences, winners=(winner(),)).settle()
    assert (world.phase, world.reason) == (phase, reason)
    assert len(world.status["results"]) == 8
    assert [d["verdict"] for d in world.status.get("differences") or ()] == sorted(verdicts, key=lambda v: v == "Equal")
    assert world.status["winners"] == [{"workload": "chat", "winner": "compared", "message": "It is faster."}]


# What is not believed


def test_a_result_of_somebody_else_is_not_taken() -> None:
    world = World().started()
    for changes in ({"uid": "another"}, {"job": "first-bench-00000000"}, {"benchmark": "second"}):
        text = result_of(world.order(), **changes).model_dump_json(by_alias=True)
        assert world.tell("result", text).settle().phase == "Running", changes
    assert world.progress(99, job="first-bench-00000000").settle().status["progress"]["percent"] == 0
    assert world.tell("progress", "{").settle().status["progress"]["percent"] == 0


def test_a_result_that_cannot_be_read_is_a_clear_failure() -> None:
    world = World().started().tell("result", '{"schemaVersion": 2}').settle()
    assert world.phase == "Running"
    world.end_job().wait(seconds=16).settle()
    assert (world.phase, world.reason) == ("Failed", "UnreadableResult")


def test_what_changed_meanwhile_gives_no_numbers() -> None:
    world = World().started().progress(50).settle().restart_target().result().settle()
    assert (world.phase, world.reason) == ("Failed", "TargetChanged")
    assert world.live_jobs() == []
    assert_no_numbers(world)


def assert_no_numbers(world: World) -> None:
    """Neither in the status nor in an object that it is said of where the numbers are."""
    assert "results" not in world.status
    assert "report" not in world.status
    assert not world.children.get("ConfigMap")
    assert world.status["progress"]["percent"] == 50


def test_a_result_that_does_not_count_goes_although_the_operator_dies() -> None:
    for writes in range(1, 6):
        world = World().started().progress(50).settle().restart_target().result().reconcile(dies_after=writes)
        assert world.phase == "Failed"
        assert_no_numbers(world.restart_operator().settle())


def test_a_target_that_went_after_the_result_was_told_leaves_no_numbers() -> None:
    world = World().started().progress(50).settle().result()
    world.target = None
    assert world.settle().reason == "TargetGone"
    assert_no_numbers(world)


@pytest.mark.parametrize("has_result", [False, True])
def test_users_that_come_to_a_measured_revision_end_the_run(has_result: bool) -> None:
    world = two_revisions().started().progress(50)
    if has_result:
        world.result()
    world.target = take_traffic(world.target)
    world.settle()
    assert (world.phase, world.reason, world.live_jobs()) == ("Failed", "TargetChanged", [])
    assert "a service of its own with target.allowUserTraffic: true" in world.condition("Failed")["message"]
    assert "results" not in world.status


def test_users_that_come_to_a_revision_are_no_change_where_they_are_allowed() -> None:
    world = two_revisions(allowUserTraffic=True).started()
    world.target = take_traffic(world.target)
    assert world.settle().phase == "Running"
    assert world.result().settle().phase == "Succeeded"


def test_a_target_that_is_deleted_ends_the_run() -> None:
    world = World().started()
    world.target = None
    world.settle()
    assert (world.phase, world.reason, world.live_jobs()) == ("Failed", "TargetGone", [])


def test_what_is_not_known_ends_nothing() -> None:
    world = World().started()
    world.is_known = False
    assert world.settle().phase == "Running"
    world.result().end_job().settle()
    assert (world.phase, world.reason, "results" in world.status) == ("Running", "Held", False)
    world.wait(hours=1).settle()
    assert (world.phase, world.reason, world.jobs()) == ("Running", "Held", [world.attempt(0)])
    world.is_known = True
    assert world.settle().phase == "Succeeded"


def test_what_changed_while_nothing_was_known_gives_no_numbers() -> None:
    world = World().started()
    world.is_known = False
    world.result().settle().restart_target()
    world.is_known = True
    assert world.settle().reason == "TargetChanged"


def test_another_revision_takes_over_and_the_measured_one_is_still_measured() -> None:
    world = World().started()
    assert world.target is not None
    status: Any = world.target.status
    (old,) = status["revisions"]
    revisions = [{**old, "phase": "Retiring", "weight": 0}, {**old, "hash": "ffffffff"}]
    service = {**world.target.service, "status": {**status, "revisions": revisions}}
    world.target = replace(world.target, service=service)
    assert world.result().settle().phase == "Succeeded"


# Jobs that come to nothing


def test_a_job_without_a_result_is_started_again_twice() -> None:
    world = World().started()
    names_seen = []
    for _ in range(3):
        names_seen += world.live_jobs()
        world.end_job("Failed", "BackoffLimitExceeded").settle()
        assert world.phase == "Running"  # the result may still be on its way
        world.wait(seconds=16).settle().run_pods().settle()
    assert (world.phase, world.reason) == ("Failed", "NoResult")
    assert names_seen == [world.attempt(n) for n in range(3)]
    assert world.status["attempts"] == 2
    assert world.writes["create Job"] == 3


def test_the_second_try_may_succeed_and_the_words_of_the_first_do_not_count() -> None:
    world = World().started().progress(80).end_job("Failed").wait(seconds=16).settle()
    assert world.status["progress"] == {"stage": "Waiting", "percent": 0}
    assert "try 2 of 3" in world.condition("Complete")["message"]
    assert world.run_pods().settle().result().settle().phase == "Succeeded"


def test_a_job_that_is_deleted_is_started_again_under_another_name() -> None:
    world = World().started().delete_job().settle()
    assert world.jobs() == [world.attempt(1)]


def test_a_retry_waits_for_its_target_and_is_counted() -> None:
    world = World().started().delete_job()
    ready = world.target
    world.target = unready().target
    world.settle()
    assert (world.phase, world.reason, world.status["attempts"]) == ("Running", "TargetNotReady", 1)
    world.target = ready
    world.settle()
    assert world.jobs() == [world.attempt(1)]


def test_a_job_that_is_silent_is_ended_and_started_again() -> None:
    world = World().started().progress(1).settle()
    world.wait(minutes=9).settle()
    assert world.jobs() == [world.attempt(0)]
    world.wait(minutes=1).settle()
    assert world.jobs() == [world.attempt(1)]


@pytest.mark.parametrize("waited", [1, 15, 29])
@pytest.mark.parametrize("ahead", [0, 1], ids=["", "the node's clock is ahead"])
def test_silence_counts_from_where_the_program_began(waited: int, ahead: int) -> None:
    """A node to come, or a Secret that is made later, takes nothing from the time of the program."""
    world = World().settle().run_pods("waiting", reason="ContainerCreating").settle()
    world.wait(minutes=waited).settle()
    world.run_pods("running", startedAt=write_time(world.now + ahead * MINUTE)).settle()
    assert (world.reason, world.jobs()) == ("Measuring", [world.attempt(0)])
    world.wait(minutes=9).settle()
    assert world.jobs() == [world.attempt(0)]
    if waited == 29:
        # It speaks, and is silent from there.
        world.progress(1).settle().wait(minutes=9).settle()
        assert world.jobs() == [world.attempt(0)]
    world.wait(minutes=1 + ahead).settle()
    assert world.jobs() == [world.attempt(1)]


def test_a_job_that_took_too_long_is_not_repeated() -> None:
    world = World().started().end_job("Failed", "DeadlineExceeded").settle()
    assert (world.phase, world.reason, world.writes["create Job"]) == ("Failed", "DeadlineExceeded", 1)


@pytest.mark.parametrize(
    ("waiting", "reason"),
    [
        ({"reason": "ImagePullBackOff", "message": "not found"}, "ImagePullFailed"),
        ({"reason": "CreateContainerConfigError", "message": "no secret"}, "ContainerConfigFailed"),
        ({"reason": "ContainerCreating"}, "NotStarted"),
    ],
)
def test_a_program_that_does_not_start_is_told_and_given_up(waiting: Object, reason: str) -> None:
    world = World().settle().run_pods("waiting", **waiting).settle()
    assert world.reason == ("Starting" if reason == "NotStarted" else reason)
    world.wait(minutes=29).settle()
    assert world.phase == "Running"
    world.wait(minutes=1).settle()
    assert (world.phase, world.reason, world.live_jobs()) == ("Failed", reason, [])
    assert world.writes["create Job"] == 1


@pytest.mark.parametrize(
    ("said", "reason", "told"),
    [
        (
            '0/2 nodes are available: persistentvolumeclaim "prompts" not found. preemption: 0/2 nodes are available.',
            "ContainerConfigFailed",
            "PersistentVolumeClaim 'prompts', which is not there. Create the Secret, ConfigMap or claim",
        ),
        ("0/2 nodes are available: 2 Insufficient cpu.", "Unschedulable", "2 Insufficient cpu. Add or free nodes"),
    ],
)
def test_what_keeps_its_pod_from_a_node_is_told(said: str, reason: str, told: str) -> None:
    world = World().settle()
    pod = specs.unschedulable_pod("", said, name="waits", since=T0)
    world.pods = ({**pod, "metadata": {**pod["metadata"], "labels": {names.LABEL_JOB: world.job}}},)
    world.settle()
    assert (world.phase, world.reason) == ("Running", reason)
    assert told in world.condition("Complete")["message"]
    assert world.condition("Stalled")["status"] == str(reason == "ContainerConfigFailed")


def test_the_words_of_a_program_that_broke_off_are_told() -> None:
    world = World().started()
    for _ in range(3):
        world.run_pods("terminated", exitCode=1, message="Traceback\nValueError: no tokenizer").end_job("Failed")
        world.wait(seconds=16).settle()
    assert "ValueError: no tokenizer" in world.condition("Failed")["message"]


# Deaths


@pytest.mark.parametrize("writes", range(7))
def test_the_operator_dies_while_it_begins(writes: int) -> None:
    world = World().reconcile(dies_after=writes).restart_operator().settle()
    assert (world.phase, world.jobs()) == ("Running", [world.attempt(0)])
    assert world.writes["create Job"] == 1
    assert world.started().result().settle().phase == "Succeeded"


@pytest.mark.parametrize("writes", range(6))
def test_the_operator_dies_while_it_ends(writes: int) -> None:
    world = World().started().result().reconcile(dies_after=writes).restart_operator().settle()
    assert (world.phase, len(world.status["results"])) == ("Succeeded", 4)
    assert sorted(world.children["ConfigMap"]) == ["first-result"]


def test_the_job_ends_before_its_beginning_was_told() -> None:
    usual = World().settle()
    job = usual.job
    world = World().reconcile(dies_after=6)  # the Job is there, and no status
    assert world.status == {}
    text = result_of(world.order(job)).model_dump_json(by_alias=True)
    world.tell("result", text).end_job().settle()
    assert (world.phase, world.status["targetDigest"]) == ("Succeeded", usual.status["targetDigest"])


def test_a_lost_status_adopts_what_runs() -> None:
    world = World().started().progress(30).settle().lose_status().settle()
    assert (world.phase, world.job) == ("Running", world.attempt(0))
    assert world.status["progress"]["percent"] == 30
    assert world.lose_status().restart_target().settle().reason == "TargetChanged"


def test_a_lost_status_and_job_begin_with_another_name() -> None:
    world = World().started().progress(30).result().lose_status().delete_job().settle()
    assert (world.phase, world.jobs()) == ("Running", [world.attempt(1)])


def test_two_of_one_name_in_a_row_have_nothing_in_common() -> None:
    world = World().started()
    told = result_of(world.order()).model_dump_json(by_alias=True)
    second = World(item=benchmark(uid="uid-2")).started()
    assert second.job != world.job
    assert second.tell("result", told).settle().phase == "Running"


# Age


def test_an_old_one_goes() -> None:
    world = World(item=benchmark(ttlAfterFinished="1h")).started().result().settle()
    assert world.last.requeue_after is not None
    world.wait(minutes=59).settle()
    assert not world.is_deleted
    assert world.wait(minutes=1).reconcile().is_deleted


def test_the_administrator_says_how_long_and_how_many_are_kept() -> None:
    by_time = (
        World(defaults=Defaults(benchmarks=BenchmarkDefaults(ttl_after_finished="1h"))).started().result().settle()
    )
    assert by_time.wait(hours=1).reconcile().is_deleted
    by_count = World(defaults=Defaults(benchmarks=BenchmarkDefaults(history_limit=2))).started().result().settle()
    by_count.newer_finished = 1
    assert not by_count.reconcile().is_deleted
    by_count.newer_finished = 2
    assert by_count.reconcile().is_deleted


def test_without_a_limit_nothing_goes() -> None:
    world = World(newer_finished=1000).started().result().settle().wait(days=3000)
    assert not world.reconcile().is_deleted
    assert world.last.requeue_after is None


# Whatever happens


EVENTS: dict[str, Callable[[World], object]] = {
    "time": lambda w: w.wait(minutes=4),
    "pods run": lambda w: w.run_pods(),
    "progress": lambda w: w.progress(50) if w.children.get("ConfigMap") and w.phase == "Running" else None,
    "result": lambda w: w.result() if w.job in w.children.get("ConfigMap", {}) else None,
    "job ends": lambda w: w.end_job(),
    "job fails": lambda w: w.end_job("Failed", "BackoffLimitExceeded"),
    "job deleted": lambda w: w.delete_job(),
    "status lost": lambda w: w.lose_status() if w.phase not in PHASES_AT_THE_END else None,
    "restart": lambda w: w.restart_operator(),
    "target restarts": lambda w: w.restart_target(),
    "not known": lambda w: setattr(w, "is_known", False),
    "known": lambda w: setattr(w, "is_known", True),
    "reconcile": lambda w: w.settle(),
    "dies at once": lambda w: w.reconcile(dies_after=1),
    "dies later": lambda w: w.reconcile(dies_after=4),
}


@settings(max_examples=60, deadline=None)
@given(events=st.lists(st.sampled_from(sorted(EVENTS)), max_size=25))
def test_any_order_of_events_ends_in_one_result_or_a_clear_failure(events: list[str]) -> None:
    world = World()
    at_the_end: Object | None = None
    for event in events:
        EVENTS[event](world)
        assert len(world.live_jobs()) <= 1 or event.startswith("dies"), event
        if at_the_end is not None:
            assert world.status == at_the_end, event
        elif world.phase in PHASES_AT_THE_END:
            at_the_end = dict(world.status)
    world.is_known = True
    for _ in range(30):
        if world.phase in PHASES_AT_THE_END:
            break
        world.settle().run_pods().settle().end_job().wait(minutes=31).settle()
    assert world.phase in PHASES_AT_THE_END
    # A Job that was deleted before anything was written down of it has never been, as far as anybody knows.
    assert world.writes["create Job"] <= 3 * (1 + events.count("status lost")) + events.count("job deleted")
    has_numbers = any("ttft" in r for r in world.status.get("results") or ())
    assert has_numbers == (world.phase == "Succeeded")
    assert world.condition("Complete")["message"]
    world.settle()
    kept = [name for name, item in world.children.get("ConfigMap", {}).items() if "result" in item.get("data", {})]
    assert kept == (["first-result"] if has_numbers else [])
    # One that has told its result ends by itself.
    assert world.settle().live_jobs() in ([], [world.job] if has_numbers else [])
