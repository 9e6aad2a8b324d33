"""Rollouts: whole runs in a small cluster, and what holds whatever happens."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from draftmark.machines.rollout import CRASHES, GatewaysSeen, Policy, RevisionSeen, Step, pods_of, step
from tests.machines.rollouts import DEADLINE, QUEUE_TIMEOUT, SECOND, Cluster, Gateway, policy
from tests.specs import T0


@pytest.mark.parametrize(
    ("count", "replicas", "surge", "unavailable"),
    [(None, 4, 1, 0), ("2", 4, 2, 2), ("25%", 4, 1, 1), ("25%", 3, 1, 0), ("100%", 3, 3, 3), ("1%", 1, 1, 0), ("0%", 9, 0, 0)],
)  # fmt: skip
def test_a_share_is_rounded_up_for_pods_beyond_and_down_for_pods_missing(
    count: str | None, replicas: int, surge: int, unavailable: int
) -> None:
    assert pods_of(count, replicas, 1, round_up=True) == surge
    assert pods_of(count, replicas, 0, round_up=False) == unavailable


# --- whole runs ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """An edit from A to B, and every state on the way: replicas that are wanted, ready pods, and weight."""

    name: str
    policy: Policy
    cluster: dict[str, Any] = field(default_factory=dict)
    story: list[str]


RUNS = [
    Run(name="one replica", policy=policy(1), story=[
        "A 1/1 w1, B 1/0 w0",
        "A 1/1 w0, B 1/1 w1",  # told to the gateways first
        "A -/1 w0, B 1/1 w1",
        "B 1/1 w1",
    ]),
    Run(name="three replicas", policy=policy(3), story=[
        "A 3/3 w3, B 1/0 w0",
        "A 2/3 w2, B 1/1 w1",
        "A 2/2 w2, B 2/1 w1",
        "A 1/2 w1, B 2/2 w2",
        "A 1/1 w1, B 3/2 w2",
        "A 1/1 w0, B 3/3 w3",
        "A -/1 w0, B 3/3 w3",
        "B 3/3 w3",
    ]),
    Run(name="two beyond", policy=policy(3, surge=2), story=[
        "A 3/3 w3, B 2/0 w0",
        "A 2/3 w2, B 2/1 w1",
        "A 1/2 w1, B 3/2 w2",
        "A 1/1 w0, B 3/3 w3",
        "A -/1 w0, B 3/3 w3",
        "B 3/3 w3",
    ]),
    Run(name="no pod beyond, one missing", policy=policy(3, surge=0, unavailable=1), story=[
        "A 2/3 w2, B 0/0 w0",
        "A 2/2 w2, B 1/0 w0",
        "A 1/2 w1, B 1/1 w1",
        "A 1/1 w1, B 2/1 w1",
        "A 1/1 w0, B 2/2 w2",
        "A 0/1 w0, B 2/2 w2",
        "A 0/0 w0, B 3/2 w2",  # A stays, to go back to
        "A -/0 w0, B 3/3 w3",
        "B 3/3 w3",
    ]),
    Run(name="one beyond, one missing", policy=policy(3, unavailable=1), story=[
        "A 2/3 w2, B 1/0 w0",
        "A 1/2 w1, B 2/1 w1",
        "A 1/1 w0, B 3/2 w2",
        "A 1/1 w0, B 3/3 w3",
        "A -/1 w0, B 3/3 w3",
        "B 3/3 w3",
    ]),
    Run(name="recreate", policy=policy(2, strategy="recreate"), story=[
        "A 2/2 w2, B 0/0 w0",  # until the gateways know B for as long as a request may wait
        "A 2/2 w0, B 0/0 w0",
        "A 0/2 w0, B 0/0 w0",
        "A 0/0 w0, B 2/0 w0",
        "A 0/0 w0, B 2/1 w1",
        "A -/0 w0, B 2/2 w2",
        "B 2/2 w2",
    ]),
    Run(name="no place, hold", policy=policy(2), cluster={"places": 2}, story=[
        "A 2/2 w2, B 1/0 w0",
        "A 2/2 w2, B -/0 w0 NoCapacity",
    ]),
    Run(name="no place, in place", policy=policy(2, in_place=True), cluster={"places": 2}, story=[
        "A 2/2 w2, B 1/0 w0",
        "A 1/2 w1, B 1/0 w0",
        "A 1/1 w1, B 2/1 w1",
        "A 1/1 w0, B 2/1 w1",
        "A 0/1 w0, B 2/1 w1",
        "A -/0 w0, B 2/2 w2",
        "B 2/2 w2",
    ]),
    Run(name="in place, but there is room", policy=policy(1, in_place=True), cluster={"places": 2}, story=[
        "A 1/1 w1, B 1/0 w0",
        "A 1/1 w0, B 1/1 w1",
        "A -/1 w0, B 1/1 w1",
        "B 1/1 w1",
    ]),
    Run(name="crashes", policy=policy(2), cluster={"crashing": {"B"}}, story=[
        "A 2/2 w2, B 1/0 w0",
        "A 2/2 w2, B -/0 w0 CandidateCrashed",
    ]),
    Run(name="never ready", policy=policy(2), cluster={"hanging": {"B"}}, story=[
        "A 2/2 w2, B 1/0 w0",
        "A 2/2 w2, B -/0 w0 ProgressDeadlineExceeded",
    ]),
    Run(name="ready, and answers nothing", policy=policy(2), cluster={"mute": {"B"}}, story=[
        "A 2/2 w2, B 1/0 w0",
        "A 2/2 w2, B 1/1 w0",
        "A 2/2 w2, B -/1 w0 ProgressDeadlineExceeded",
        "A 2/2 w2, B -/0 w0 ProgressDeadlineExceeded",
    ]),
    Run(name="crashes where no pod beyond is allowed", policy=policy(2, surge=0, unavailable=1), cluster={"crashing": {"B"}}, story=[
        "A 1/2 w1, B 0/0 w0",
        "A 1/1 w1, B 1/0 w0",
        "A 1/1 w1, B -/0 w0 CandidateCrashed",
        "A 2/1 w1, B -/0 w0 CandidateCrashed",
        "A 2/2 w2, B -/0 w0 CandidateCrashed",
    ]),
    Run(name="crashes, in place", policy=policy(1, in_place=True), cluster={"places": 1, "crashing": {"B"}}, story=[
        "A 1/1 w1, B 1/0 w0",
        "A 1/1 w0, B 1/0 w0",
        "A 0/1 w0, B 1/0 w0",
        "A 0/0 w0, B 1/0 w0",
        "A 1/0 w0, B -/0 w0 CandidateCrashed",
        "A 1/1 w1, B -/0 w0 CandidateCrashed",
    ]),
    Run(name="recreate, and it crashes", policy=policy(2, strategy="recreate"), cluster={"crashing": {"B"}}, story=[
        "A 2/2 w2, B 0/0 w0",
        "A 2/2 w0, B 0/0 w0",
        "A 0/2 w0, B 0/0 w0",
        "A 0/0 w0, B 2/0 w0",
        "A 0/0 w0, B -/0 w0 CandidateCrashed",  # never both at once
        "A 2/0 w0, B -/0 w0 CandidateCrashed",
        "A 2/1 w1, B -/0 w0 CandidateCrashed",
        "A 2/2 w2, B -/0 w0 CandidateCrashed",
    ]),
]  # fmt: skip


def from_a_to_b(run: Run) -> Cluster:
    sets: dict[str, Any] = {k: frozenset(v) if isinstance(v, set) else v for k, v in run.cluster.items()}
    cluster = Cluster(run.policy, **sets)
    cluster.ask("B")
    return cluster


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_a_rollout_goes_this_way(run: Run) -> None:
    assert from_a_to_b(run).run().story == run.story


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_restarts_of_the_operator_all_the_time_change_no_step(run: Run) -> None:
    cluster = from_a_to_b(run)
    for second in range(200):
        if second % 5 == 0:
            cluster.restart()
        cluster.reconcile()
        cluster.tick()
    assert [line for i, line in enumerate(cluster.story) if line not in cluster.story[:i]] == run.story


# --- in the middle of a rollout ---


def middle(wanted: Policy | None = None, *, seconds: int = 2, **fields: Any) -> Cluster:
    """A rollout from A to B, two seconds after the edit: B has a ready pod, and answered a request."""
    cluster = Cluster(wanted or policy(3), **fields)
    cluster.ask("B")
    for _ in range(seconds):
        cluster.reconcile()
        cluster.tick()
    return cluster


Change = Callable[[Cluster], object]

CHANGES: dict[str, tuple[Change, str]] = {
    "another edit": (lambda c: c.ask("C"), "C 3/3 w3"),
    "back to A": (lambda c: c.ask("A"), "A 3/3 w3"),
    "C, and back to B": (lambda c: c.meanwhile(lambda: c.ask("C"), lambda: c.ask("B")), "B 3/3 w3"),
    "more replicas": (lambda c: c.scale(5), "B 5/5 w5"),
    "fewer replicas": (lambda c: c.scale(1), "B 1/1 w1"),
    "no replicas": (lambda c: c.scale(0), "B 0/0 w0"),
    "no replicas for a while": (lambda c: c.meanwhile(lambda: c.scale(0), lambda: c.scale(2)), "B 2/2 w2"),
    "a lost status": (lambda c: c.lose_status(), "B 3/3 w3"),
    "a restart": (lambda c: c.restart(), "B 3/3 w3"),
    "an old pod fails": (lambda c: c.fail_pod("A"), "B 3/3 w3"),
    "a new pod fails": (lambda c: c.fail_pod("B"), "B 3/3 w3"),
}


@pytest.mark.parametrize("seconds", range(9))
@pytest.mark.parametrize("change", CHANGES)
def test_what_happens_in_the_middle_goes_on_from_what_runs(change: str, seconds: int) -> None:
    happen, end = CHANGES[change]
    cluster = middle(seconds=seconds)
    happen(cluster)
    assert cluster.run().story[-1] == end


def test_an_edit_in_the_middle_starts_over_from_what_runs() -> None:
    cluster = middle()
    assert cluster.told == ["A 3/3 w3, B 1/0 w0", "A 2/3 w2, B 1/1 w1"]
    cluster.ask("C")
    cluster.told.clear()
    assert cluster.run().story == [
        "A 2/2 w2, B 1/1 w1, C 1/0 w0",
        "A 2/2 w2, B 1/1 w0, C 1/1 w1",  # what was there in between goes first
        "A 2/2 w2, B 0/1 w0, C 1/1 w1",
        "A 2/2 w2, B 0/0 w0, C 2/1 w1",
        "A 1/2 w1, B 0/0 w0, C 2/2 w2",
        "A 1/1 w1, B 0/0 w0, C 3/2 w2",
        "A 1/1 w0, B -/0 w0, C 3/3 w3",
        "A 1/1 w0, C 3/3 w3",
        "A -/1 w0, C 3/3 w3",
        "C 3/3 w3",
    ]


def test_going_back_before_the_candidate_answered_stops_only_the_candidate() -> None:
    cluster = middle(hanging=frozenset("B"))
    cluster.ask("A")
    cluster.told.clear()
    assert cluster.run().story == ["A 3/3 w3, B -/0 w0", "A 3/3 w3"]


def test_a_first_revision_is_never_withdrawn() -> None:
    seen = RevisionSeen(hash="A", number=1, desired=3, pods=3, crashes=99, progressed_at=T0 - timedelta(days=1))
    [only] = step(policy(3), seen, [], GatewaysSeen(), T0).revisions
    assert (only.phase, only.replicas, only.failure) == ("Current", 3, None)


def test_a_revision_that_never_served_anybody_is_nothing_to_go_back_to() -> None:
    """A broken first revision, and its correction: the correction does not wait for it, nor go back to it."""
    cluster = Cluster(policy(2), crashing=frozenset("AB"))
    cluster.seen["A"] = replace(cluster.seen["A"], ready=0, is_proven=False)
    cluster.ask("B")
    assert cluster.run().story == ["A -/0 w0, B 2/0 w0", "B 2/0 w0"]


# --- withdrawal ---


def withdrawn(**fields: Any) -> Cluster:
    cluster = Cluster(policy(2), crashing=frozenset("B"), **fields)
    cluster.ask("B")
    return cluster.run()


def test_three_crashes_withdraw_and_two_do_not() -> None:
    old = RevisionSeen(hash="A", number=1, desired=2, ready=2, pods=2, is_proven=True)

    def phase(crashes: int) -> str:
        new = RevisionSeen(hash="B", number=2, desired=1, pods=1, crashes=crashes, problem="It says why.")
        [mine, *_] = step(policy(2), new, [old], GatewaysSeen(), T0).revisions
        assert mine.failure is None or "It says why." in mine.failure[1]
        return mine.phase

    assert [phase(n) for n in (CRASHES - 1, CRASHES)] == ["Candidate", "Failed"]


def test_the_deadline_begins_anew_with_every_step_forward() -> None:
    cluster = Cluster(policy(3), hanging=frozenset("B"))
    cluster.ask("B")
    cluster.reconcile()
    started = cluster.reconcile().revisions[0].progressed_at
    for _ in range(int(DEADLINE / SECOND) - 1):
        cluster.tick()
        assert cluster.reconcile().revisions[0].phase == "Candidate"
    cluster.seen["B"] = replace(cluster.seen["B"], ready=1)
    step_forward = cluster.reconcile().revisions[0]
    assert started is not None
    assert step_forward.progressed_at == started + DEADLINE - SECOND
    cluster.seen["B"] = replace(cluster.seen["B"], ready=0)
    for _ in range(int(DEADLINE / SECOND)):
        assert cluster.reconcile().revisions[0].phase == "Candidate"
        cluster.tick()
    assert cluster.reconcile().revisions[0].phase == "Failed"


def test_a_withdrawn_candidate_stays_away_whatever_its_pods_do() -> None:
    cluster = withdrawn()
    failed_at = cluster.seen["B"].failed_at
    cluster.crashing = frozenset()
    for _ in range(50):
        cluster.reconcile()
        cluster.tick()
    assert cluster.told[-1] == "A 2/2 w2, B -/0 w0 CandidateCrashed"
    assert cluster.seen["B"].failed_at == failed_at


def test_a_lost_status_tries_a_withdrawn_candidate_again_and_costs_no_pod_of_the_old_one() -> None:
    cluster = withdrawn()
    cluster.lose_status()
    cluster.told.clear()
    assert cluster.run().story == ["A 2/2 w2, B 1/0 w0", "A 2/2 w2, B -/0 w0 CandidateCrashed"]


def test_a_retry_tries_again() -> None:
    cluster = withdrawn()
    cluster.crashing = frozenset()
    cluster.retry()
    assert cluster.run().story[-1] == "B 2/2 w2"


def test_the_way_out_of_a_withdrawal_is_an_edit() -> None:
    cluster = withdrawn()
    cluster.ask("C")
    assert cluster.run().story[-1] == "C 2/2 w2"
    cluster = withdrawn()
    cluster.ask("A")
    assert cluster.run().story[-1] == "A 2/2 w2"


def test_scaling_reaches_the_revision_that_goes_on() -> None:
    cluster = withdrawn()
    cluster.scale(4)
    assert cluster.run().story[-1] == "A 4/4 w4, B -/0 w0 CandidateCrashed"
    cluster.scale(1)
    assert cluster.run().story[-1] == "A 1/1 w1, B -/0 w0 CandidateCrashed"


def test_a_candidate_that_fails_half_way_serves_until_the_old_one_carries_all_and_takes_no_place_too_many() -> None:
    cluster = middle(seconds=4, places=4)
    assert cluster.told[-1] == "A 1/2 w1, B 2/2 w2"
    cluster.seen["B"] = replace(cluster.seen["B"], ready=1, crashes=CRASHES)
    cluster.hanging = frozenset("B")
    cluster.told.clear()
    assert cluster.run().story == [
        "A 2/1 w1, B 1/1 w1 CandidateCrashed",
        "A 3/2 w2, B 1/1 w1 CandidateCrashed",
        "A 3/3 w3, B 1/1 w0 CandidateCrashed",
        "A 3/3 w3, B -/1 w0 CandidateCrashed",
        "A 3/3 w3, B -/0 w0 CandidateCrashed",
    ]


def test_of_several_that_go_the_failed_one_goes_first() -> None:
    def seen(name: str, number: int, ready: int) -> RevisionSeen:
        return RevisionSeen(hash=name, number=number, desired=ready, ready=ready, pods=ready, is_proven=True)

    failed = replace(seen("C", 3, 1), crashes=CRASHES)
    made = step(policy(3), failed, [seen("B", 2, 1), seen("A", 1, 2)], GatewaysSeen(), T0)
    # B goes on, and needs the two of A until it has all of its own; nothing of C is needed.
    assert {s.hash: s.weight for s in made.revisions} == {"A": 2, "B": 1, "C": 0}


# --- gateways ---


def draining() -> Cluster:
    """B serves completely, and the gateways are told to send nothing to A."""
    cluster = Cluster(policy(1))
    cluster.ask("B")
    cluster.reconcile()
    cluster.tick()
    cluster.reconcile()
    assert cluster.told[-1] == "A 1/1 w0, B 1/1 w1"
    return cluster


def test_the_last_pods_stay_until_every_gateway_has_closed_the_revision() -> None:
    cluster = draining()
    cluster.gateways.append(Gateway(weights={"A": 1, "B": 0}))
    late = cluster.gateways[-1]
    late.answers = True
    for _ in range(5):
        cluster.tick()
        late.weights = {"A": 1, "B": 1}
        cluster.reconcile()
        assert cluster.told[-1] == "A 1/1 w0, B 1/1 w1"
    cluster.tick()
    cluster.reconcile()
    assert cluster.told[-1] == "A -/1 w0, B 1/1 w1"


def test_the_last_pods_stay_while_a_request_waits_for_them_but_no_longer_than_one_may_wait() -> None:
    cluster = draining()
    cluster.gateways[1].waiting = {"A": 1}
    cluster.tick()
    closed_at = cluster.now
    settled_at = max(g.since for g in cluster.gateways) + QUEUE_TIMEOUT
    cluster.reconcile()
    while cluster.now < closed_at + QUEUE_TIMEOUT:
        assert cluster.told[-1] == "A 1/1 w0, B 1/1 w1"
        assert cluster.last.after is not None, "nothing else would wake the operator"
        # Before the gateways can tell that nothing waits, a look is of no use; then it is worth one every second.
        looks_at = max(settled_at, cluster.now + SECOND)
        assert cluster.last.after == min(looks_at, closed_at + QUEUE_TIMEOUT) - cluster.now
        cluster.tick()
        cluster.reconcile()
    assert cluster.told[-1] == "A -/1 w0, B 1/1 w1"


def test_a_lost_status_waits_anew_and_not_for_ever() -> None:
    cluster = draining()
    cluster.gateways[1].waiting = {"A": 1}
    for _ in range(2):
        cluster.tick()
        cluster.reconcile()
    cluster.lose_status()
    cluster.seen["B"] = replace(cluster.seen["B"], is_proven=True)  # is answered again at once
    lost_at = cluster.now
    while cluster.reconcile().of("A").replicas is not None:  # type: ignore[union-attr]
        cluster.tick()
    assert cluster.now - lost_at == QUEUE_TIMEOUT


def test_what_is_closed_is_not_opened_again_by_a_restart() -> None:
    """One process after the other would close it, end, and leave it to be opened by the next."""
    cluster = Cluster(policy(1, strategy="recreate"))
    cluster.ask("B")
    while cluster.reconcile().of("A").weight:  # type: ignore[union-attr]
        cluster.tick()
    cluster.restart()
    assert "A" not in cluster.look().closed, "they have not followed yet"
    cluster.reconcile()
    assert cluster.told[-1] == "A 1/1 w0, B 0/0 w0"
    assert cluster.run().story[-1] == "B 1/1 w1"


def test_what_was_written_by_a_clock_that_is_ahead_counts_from_now() -> None:
    cluster = draining()
    cluster.gateways[1].waiting = {"A": 1}
    cluster.tick()
    cluster.reconcile()
    ahead = cluster.now + timedelta(hours=1)
    cluster.seen["A"] = replace(cluster.seen["A"], drained_since=ahead)
    looked_at = cluster.now
    while cluster.reconcile().of("A").replicas is not None:  # type: ignore[union-attr]
        cluster.tick()
    assert cluster.now - looked_at == QUEUE_TIMEOUT

    stuck = Cluster(policy(1), hanging=frozenset({"B"}))
    stuck.ask("B")
    stuck.reconcile()
    stuck.seen["B"] = replace(stuck.seen["B"], progressed_at=ahead)
    looked_at = stuck.now
    while stuck.reconcile().revisions[0].phase == "Candidate":
        stuck.tick()
    assert stuck.now - looked_at == DEADLINE


def test_the_process_from_before_a_reload_is_waited_for() -> None:
    """It may hold what came before the reload, and does not tell."""
    cluster = draining()
    cluster.tick()
    reloaded_at = cluster.now
    for gateway in cluster.gateways:
        gateway.since = reloaded_at
    while cluster.reconcile().of("A").replicas is not None:  # type: ignore[union-attr]
        cluster.tick()
    assert cluster.now - reloaded_at == QUEUE_TIMEOUT


@pytest.mark.parametrize("silent", [(0,), (0, 1)], ids=["one of two", "all"])
def test_gateways_that_do_not_answer_stop_no_last_pod(silent: Sequence[int]) -> None:
    cluster = draining()
    for i in silent:
        cluster.gateways[i].answers = False
    for _ in range(100):
        cluster.tick()
        cluster.reconcile()
    assert cluster.told[-1] == "A 1/1 w0, B 1/1 w1"
    for i in silent:
        cluster.gateways[i].answers = True
    assert cluster.run().story[-1] == "B 1/1 w1"


def test_without_gateways_no_candidate_takes_over() -> None:
    cluster = Cluster(policy(2), gateways=[Gateway(answers=False)])
    cluster.ask("B")
    assert cluster.run().story[-2:] == [
        "A 2/2 w2, B -/1 w0 ProgressDeadlineExceeded",
        "A 2/2 w2, B -/0 w0 ProgressDeadlineExceeded",
    ]


# --- what always holds ---

policies = st.builds(
    lambda replicas, surge, unavailable, **more: policy(
        replicas, surge=max(surge, int(unavailable == 0)), unavailable=min(unavailable, replicas), **more
    ),
    st.integers(0, 5), st.integers(0, 3), st.integers(0, 3),
    strategy=st.sampled_from(["rolling", "rolling", "recreate"]), in_place=st.booleans(),
)  # fmt: skip


@st.composite
def revisions(draw: st.DrawFn, name: str, number: int) -> RevisionSeen:
    """A revision in any state, possible or not."""
    pods = draw(st.integers(0, 6))
    failed_at = draw(st.none() | st.just(T0 - SECOND))
    return RevisionSeen(
        hash=name, number=number, desired=draw(st.none() | st.integers(0, 5)), ready=draw(st.integers(0, pods)), pods=pods,
        is_proven=draw(st.booleans()), crashes=draw(st.sampled_from([0, 0, 1, 3])), is_unschedulable=draw(st.booleans()),
        progressed_at=draw(st.none() | st.sampled_from([T0, T0 - DEADLINE / 2, T0 - DEADLINE])), progress=draw(st.integers(0, 6)),
        drained_since=draw(st.none() | st.sampled_from([T0, T0 - QUEUE_TIMEOUT])),
        failed_at=failed_at, failure=("CandidateCrashed", "Why.") if failed_at else None,
    )  # fmt: skip


@st.composite
def situations(draw: st.DrawFn) -> tuple[Policy, RevisionSeen, list[RevisionSeen], GatewaysSeen]:
    count = draw(st.integers(0, 3))
    others = [draw(revisions(name, number)) for number, name in enumerate("ABC"[:count], start=1)]
    closed = draw(st.frozensets(st.sampled_from("ABCX")))
    empty = frozenset(name for name in closed if draw(st.booleans()))
    waits = st.sampled_from((None, timedelta(0), timedelta(seconds=7)))
    settles_in = timedelta(0) if empty else draw(waits)
    gateways = GatewaysSeen(closed=closed, empty=empty, settles_in=settles_in)
    return draw(policies), draw(revisions("X", 9)), others, gateways


def serving(seen: Sequence[RevisionSeen]) -> int:
    return sum(min(r.ready, r.desired or 0) for r in seen if r.is_proven)


def after(seen: Sequence[RevisionSeen], made: Step) -> list[RevisionSeen]:
    return [replace(r, desired=s.replicas) for r in seen for s in made.revisions if s.hash == r.hash]


@settings(max_examples=400 if "HYPOTHESIS_PROFILE" not in os.environ else 2000)
@given(situation=situations())
def test_whatever_is_seen_a_step_keeps_its_promises(
    situation: tuple[Policy, RevisionSeen, list[RevisionSeen], GatewaysSeen],
) -> None:
    wanted, current, others, gateways = situation
    seen = [current, *others]
    made = step(wanted, current, others, gateways, T0)
    by_hash = {r.hash: r for r in seen}

    assert made.revisions[0].hash == "X", "what is asked for stands first"
    assert sorted(s.hash for s in made.revisions) == sorted(by_hash), "each revision has one step"
    for s in made.revisions:
        r = by_hash[s.hash]
        assert s.weight == 0 or r.is_proven, "no user's request goes where none was answered yet"
        assert 0 <= s.weight <= r.ready
        assert (s.phase == "Failed") is (s.failure is not None)
        assert s.phase != "Failed" or s.hash == "X"

    more = sum(s.replicas or 0 for s in made.revisions)
    assert more <= max(sum(r.desired or 0 for r in seen), wanted.replicas + wanted.surge)

    if wanted.strategy == "rolling" and wanted.replicas:
        missing = max(wanted.unavailable, int(wanted.in_place))
        assert serving(after(seen, made)) >= min(serving(seen), wanted.replicas - missing)
        for s in made.revisions:
            r = by_hash[s.hash]
            is_stopped = r.is_proven and bool(r.desired) and not s.replicas
            assert not is_stopped or s.hash in gateways.closed, "its last pods go when no gateway sends it anything"
            is_late = r.drained_since is not None and T0 - r.drained_since >= wanted.queue_timeout
            assert not is_stopped or s.hash in gateways.empty or is_late

    assert made == step(wanted, current, others[::-1], gateways, T0), "the order of what is seen does not matter"


@dataclass(frozen=True, slots=True)
class Happens:
    """Something that happens to a cluster; its name is what a failing example shows."""

    name: str
    to: Callable[[Cluster], object]


def _set_waiting(cluster: Cluster, count: int) -> None:
    cluster.gateways[0].waiting = dict.fromkeys("ABC", count)


def _answer(cluster: Cluster, does: bool) -> None:
    cluster.gateways[0].answers = does


def _break(cluster: Cluster, how: str) -> None:
    cluster.hanging = frozenset("B") if how == "hanging" else frozenset()
    cluster.crashing = frozenset("B") if how == "crashing" else frozenset()


def _reconcile_and_tick(cluster: Cluster) -> None:
    cluster.reconcile()
    cluster.tick()


#: What neither takes pods away nor changes what is wanted.
HARMLESS = [
    Happens("reconcile", Cluster.reconcile),
    Happens("second", _reconcile_and_tick),
    Happens("second", _reconcile_and_tick),
    Happens("tick", Cluster.tick),
    Happens("restart", Cluster.restart),
    *(Happens(f"ask {r}", lambda c, r=r: c.ask(r)) for r in "ABC"),  # type: ignore[misc]
    *(Happens(f"waiting {n}", lambda c, n=n: _set_waiting(c, n)) for n in (0, 1)),  # type: ignore[misc]
    *(Happens(f"gateway {does}", lambda c, does=does: _answer(c, does)) for does in (True, False)),  # type: ignore[misc]
    *(Happens(f"B {how}", lambda c, how=how: _break(c, how)) for how in ("hanging", "crashing", "well")),  # type: ignore[misc]
    *(Happens(f"places {n}", lambda c, n=n: setattr(c, "places", n)) for n in (None, 3, 4)),  # type: ignore[misc]
]
HARMFUL = [
    Happens("lost status", Cluster.lose_status),
    *(Happens(f"scale {n}", lambda c, n=n: c.scale(n)) for n in (0, 1, 2, 4)),  # type: ignore[misc]
    *(Happens(f"fail {r}", lambda c, r=r: c.fail_pod(r)) for r in "AB"),  # type: ignore[misc]
]
BOUNDS = [(3, 1, 0), (3, 2, 0), (3, 0, 1), (3, 1, 1), (1, 1, 0), (2, 0, 2)]


@given(bounds=st.sampled_from(BOUNDS), in_place=st.booleans(), events=st.lists(st.sampled_from(HARMLESS), max_size=40))
def test_what_serves_goes_on_serving(bounds: tuple[int, int, int], in_place: bool, events: list[Happens]) -> None:
    replicas, surge, unavailable = bounds
    cluster = Cluster(policy(replicas, surge=surge, unavailable=unavailable, in_place=in_place))
    fewest = replicas - max(unavailable, int(in_place))
    for event in events:
        event.to(cluster)
        seen = list(cluster.seen.values())
        assert serving(seen) >= fewest
        assert sum(r.desired or 0 for r in seen) <= replicas + surge
        for gateway in cluster.gateways:
            # A request goes to a revision with a ready pod, or waits; none goes to a revision without any.
            drawn = [r for r, weight in gateway.weights.items() if weight]
            assert all(cluster.seen[r].ready for r in drawn), (gateway, cluster.told[-3:])


@given(
    bounds=st.sampled_from(BOUNDS),
    strategy=st.sampled_from(["rolling", "recreate"]),
    events=st.lists(st.sampled_from(HARMLESS + HARMFUL), max_size=40),
    last=st.sampled_from("ABC"),
)
def test_in_the_end_what_was_asked_for_last_serves_alone(
    bounds: tuple[int, int, int], strategy: Any, events: list[Happens], last: str
) -> None:
    replicas, surge, unavailable = bounds
    cluster = Cluster(policy(replicas, surge=surge, unavailable=unavailable, strategy=strategy))
    for event in events:
        event.to(cluster)
    for name in ("gateway True", "B well", "places None", "waiting 0"):
        next(e for e in HARMLESS if e.name == name).to(cluster)
    cluster.scale(replicas)
    cluster.ask(last)
    if cluster.seen[last].failed_at is not None:
        cluster.retry()
    cluster.run()
    assert cluster.told[-1] == f"{last} {replicas}/{replicas} w{replicas}"
