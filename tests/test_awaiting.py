"""Pods that wait for a node, where nodes come by themselves: until when, by which setting, and what happens then."""

from copy import deepcopy
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from draftmark.api.defaults import Defaults
from draftmark.awaiting import awaited_nodes, tell_awaited
from draftmark.decide import decide
from draftmark.decision import AwaitedNodes, Decision
from draftmark.facts.pods import is_ready, unscheduled
from draftmark.observation import Observation
from draftmark.plan import Layout
from draftmark.status import make_status
from tests.simulation import HANGS, Edit, Reconcile, Rest, Time, empty_world, simulate
from tests.specs import CLAIM_URI, MINUTE, T0, Object, current, ready_pod, running, spec, unschedulable_pod

H100 = Layout(gpus=8, resource_name="nvidia.com/gpu", product="NVIDIA-H100-80GB-HBM3")
AUTOSCALING = Defaults.model_validate({"nodeAutoscaling": {"enabled": True}})
NO_GPU = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu"


def waiting(since: datetime | None, name: str = "pod-0", reason: str = "Unschedulable") -> Object:
    return unschedulable_pod("r", NO_GPU, name=name, since=since, reason=reason)


def awaited(*pods: Object, minutes: int | None = 15, ends_at: datetime | None = None) -> AwaitedNodes | None:
    timeout = minutes * MINUTE if minutes is not None else None
    return awaited_nodes(pods, layout=H100, timeout=timeout, ends_at=ends_at, now=T0)


def test_the_pod_that_waits_longest_is_what_counts() -> None:
    found = awaited(
        waiting(T0 - MINUTE, "b"), waiting(T0 - 5 * MINUTE, "a"), ready_pod("r", "c"), waiting(T0 - 9 * MINUTE, "d")
    )
    assert found is not None
    assert (found.pod, found.pods, found.of) == ("d", 3, 4)
    assert (found.since, found.until, found.is_over) == (T0 - 9 * MINUTE, T0 + 6 * MINUTE, False)
    message = tell_awaited(found).message
    assert "3 of 4 pods wait for a node with 8x NVIDIA-H100-80GB-HBM3 since 2026-01-01T11:51:00Z" in message
    assert NO_GPU in message


def test_nothing_is_awaited_where_nodes_do_not_come_or_the_scheduler_was_not_asked() -> None:
    assert awaited(waiting(T0), minutes=None) is None
    assert awaited(waiting(T0, reason="SchedulingGated")) is None
    assert awaited(waiting(None)) is None
    assert awaited(ready_pod("r")) is None
    going = waiting(T0)
    going["metadata"]["deletionTimestamp"] = "2026-01-01T12:00:00Z"
    assert awaited(going) is None


def test_a_pod_whose_condition_has_no_time_waits_since_it_was_made() -> None:
    item = waiting(None)
    item["metadata"]["creationTimestamp"] = "2026-01-01T11:50:00Z"
    assert [one.since for one in unscheduled([item])] == [T0 - 10 * MINUTE]


@pytest.mark.parametrize(
    ("ends_at", "until", "bound"),
    [
        (None, T0 + 14 * MINUTE, "nodeAutoscaling.timeout"),
        (T0 + MINUTE, T0 + MINUTE, "rollout.progressDeadline"),
        (T0 + 20 * MINUTE, T0 + 14 * MINUTE, "nodeAutoscaling.timeout"),
    ],
)
def test_the_earlier_bound_speaks(ends_at: datetime | None, until: datetime, bound: str) -> None:
    found = awaited(waiting(T0 - MINUTE), ends_at=ends_at)
    assert found is not None
    assert found.until == until
    assert found.bound.endswith(bound)


def test_after_the_bound_the_ways_out_are_told() -> None:
    found = awaited(waiting(T0 - 15 * MINUTE))
    assert found is not None
    assert found.is_over
    problem = tell_awaited(found)
    assert problem.needs_human
    for told in ("kubectl describe pod pod-0", "nvidia.com/gpu.product=NVIDIA-H100-80GB-HBM3", "accelerator.product"):
        assert told in problem.message


# --- decided ---


def first(since: datetime) -> Observation:
    """A new service whose only pod waits."""
    seen = running(ready=0)
    revision = current(decide(seen, T0))
    return replace(seen, pods=(unschedulable_pod(revision, NO_GPU, since=since),), defaults=AUTOSCALING)


def reason(seen: Observation, decision: Decision, type_: str = "Ready", now: datetime = T0) -> str:
    conditions = make_status(seen, decision, now)["conditions"]
    return str(next(c["reason"] for c in conditions if c["type"] == type_))


def test_it_is_looked_at_again_when_the_time_is_over_and_goes_on_when_a_node_comes() -> None:
    seen = first(T0 - 10 * MINUTE)
    decision = decide(seen, T0)
    assert decision.requeue_after == 5 * MINUTE
    assert reason(seen, decision) == "AwaitingNodes"
    later = decide(seen, T0 + 5 * MINUTE)
    assert (later.requeue_after, reason(seen, later, now=T0 + 5 * MINUTE)) == (None, "NoNodeCame")
    assert reason(seen, later, "Accepted", now=T0 + 5 * MINUTE) == "Accepted"
    # What is deployed is the same: a node that comes late is taken.
    assert later.desired == decision.desired
    came = replace(seen, pods=(ready_pod(current(decision)),))
    assert decide(came, T0 + 6 * MINUTE).awaited is None


def test_without_the_setting_pods_are_unschedulable_without_a_bound() -> None:
    seen = replace(first(T0 - 10 * MINUTE), defaults=Defaults())
    decision = decide(seen, T0 + timedelta(hours=5))
    assert decision.requeue_after is None
    assert reason(seen, decision, now=T0 + timedelta(hours=5)) == "Unschedulable"


def candidate(rollout: Object | None, waited: timedelta, progressed: timedelta) -> tuple[Observation, datetime]:
    """A new revision beside one that serves; its pod waits for a node, and it came further before that."""
    wanted = spec(model={"uri": CLAIM_URI, "name": HANGS}, **({"rollout": rollout} if rollout else {}))
    world = simulate(empty_world(spec()), Rest(), Edit(wanted), Reconcile(), Time(), Reconcile())
    seen, now = world.observe(), world.now
    status = deepcopy(dict(seen.status))
    [told] = [r for r in status["revisions"] if r["phase"] == "Candidate"]
    told["progressedAt"] = (now - progressed).strftime("%Y-%m-%dT%H:%M:%SZ")
    pending = unschedulable_pod(told["hash"], NO_GPU, since=now - waited)
    pods = (*(p for p in seen.pods if is_ready(p)), pending)
    return replace(seen, pods=pods, defaults=AUTOSCALING, service={**seen.service, "status": status}), now


def failure(decision: Decision) -> tuple[str, str] | None:
    return next(r.failure for r in decision.revisions if r.is_current)


def test_a_new_revision_waits_for_a_node_and_says_until_when() -> None:
    seen, now = candidate(None, 10 * MINUTE, 11 * MINUTE)
    decision = decide(seen, now)
    assert failure(decision) is None
    assert decision.awaited is not None
    assert decision.awaited.bound.endswith("nodeAutoscaling.timeout")
    assert decision.requeue_after is not None
    assert decision.requeue_after <= 5 * MINUTE
    assert reason(seen, decision, "Progressing", now) == "AwaitingNodes"


def test_a_new_revision_that_no_node_came_for_is_withdrawn_at_the_administrators_bound() -> None:
    seen, now = candidate({"progressDeadline": "2h"}, 15 * MINUTE, 16 * MINUTE)
    decision = decide(seen, now)
    found = failure(decision)
    assert found is not None
    assert found[0] == "NoCapacity"
    assert "within 900 s (the administrator's defaults.nodeAutoscaling.timeout)" in found[1]
    assert decision.awaited is None


def test_a_new_revision_is_withdrawn_at_its_own_deadline_where_that_is_earlier() -> None:
    seen, now = candidate({"progressDeadline": "5m"}, 4 * MINUTE, 5 * MINUTE)
    found = failure(decide(seen, now))
    assert found is not None
    assert found[0] == "NoCapacity"
    assert "within 300 s (rollout.progressDeadline)" in found[1]


def test_a_deadline_that_is_not_set_leaves_time_for_the_node() -> None:
    """Where nodes do not come by themselves, the same revision has failed by then."""
    seen, now = candidate(None, MINUTE, timedelta(seconds=3600 + 600 + 60))
    assert failure(decide(seen, now)) is None
    assert failure(decide(replace(seen, defaults=Defaults()), now)) is not None
