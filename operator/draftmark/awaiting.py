"""Pods that wait for a node, where nodes come by themselves: a state with a bound, and no fault before it.

Two settings can end the wait, and the earlier one speaks: the administrator's `nodeAutoscaling.timeout`, from when the
scheduler first found no node for a pod; and, of a revision that is to take over from another one, `rollout.progressDeadline`,
from when the revision last came further. All of it is read from the pods, so that nothing has to be remembered.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from draftmark.api.times import write_time
from draftmark.decision import AwaitedNodes
from draftmark.facts.accelerators import product_label
from draftmark.facts.pods import PodProblem, sentence, unscheduled
from draftmark.observation import Json
from draftmark.plan import Layout

__all__ = ["awaited_nodes", "tell_awaited"]

NODE_TIMEOUT = "the administrator's defaults.nodeAutoscaling.timeout"
PROGRESS_DEADLINE = "rollout.progressDeadline"


def awaited_nodes(
    pods: Sequence[Json], *, layout: Layout, timeout: timedelta | None, ends_at: datetime | None, now: datetime
) -> AwaitedNodes | None:
    """What the pods of a revision wait for; None: none waits for a node, or nodes do not come by themselves.

    Args:
        pods: Those of the revision.
        layout: What each of them asks for.
        timeout: How long a pod may wait for a node; None: nodes do not come by themselves.
        ends_at: When the revision is withdrawn unless it comes further; None: never.
        now: Aware, UTC.
    """
    waiting = unscheduled(pods)
    if timeout is None or not waiting:
        return None
    first = waiting[0]
    until, bound = first.since + timeout, NODE_TIMEOUT
    if ends_at is not None and ends_at < until:
        until, bound = ends_at, PROGRESS_DEADLINE
    return AwaitedNodes(
        layout=layout,
        pods=len(waiting),
        of=len(pods),
        pod=first.pod,
        scheduler=first.message,
        since=first.since,
        until=until,
        bound=bound,
        is_over=now >= until,
    )


def tell_awaited(awaited: AwaitedNodes) -> PodProblem:
    """The state in the words of a condition, the same as long as it lasts."""
    what = f"a node with {awaited.layout}" if awaited.layout.gpus else "a node with room for them"
    pods = f"{awaited.pods} of {awaited.of} pods" if awaited.of > 1 else "the pod"
    times = f"since {write_time(awaited.since)}, until {write_time(awaited.until)} ({awaited.bound})"
    told = f"The scheduler says: {sentence(awaited.scheduler)}"
    if not awaited.is_over:
        verb = "wait" if awaited.pods > 1 else "waits"
        return PodProblem(
            code="AwaitingNodes",
            message=f"Node autoscaling is on, and {pods} {verb} for {what} {times}. {told}",
            needs_human=False,
            weight=1,
        )
    return PodProblem(
        code="NoNodeCame",
        message=f"No node came for {pods}: waiting for {what} {times}. {told} Ways out: (1) read what the autoscaler says, "
        f"`kubectl describe pod {awaited.pod}`: its quota, the largest size of the node group{_label(awaited.layout)}; "
        "(2) name another accelerator.product, or fewer GPUs; (3) have defaults.nodeAutoscaling.timeout raised. The pods go "
        "on waiting.",
        needs_human=True,
        weight=1,
    )


def _label(layout: Layout) -> str:
    label = product_label(layout.resource_name) if layout.resource_name is not None and layout.product else None
    return f", the label {label}={layout.product} of its template, which the pods select by" if label else ""
