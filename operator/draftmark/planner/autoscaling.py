"""Present nodes first, then those that an autoscaler can bring.

    the model fits on present nodes  → there
    else the first kind of the administrator's list that it fits on  → there, and its pods wait for a node
    else refused, with what all of them together are short of

With `engine.name: auto` that holds across engines: one that suits less is taken where only it fits on present nodes (`planner`).

Whether there is room on a present node now is the scheduler's to know: where there is none, pods wait on it the same way.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from draftmark.plan import Layout, Reason, Rejected, Unplannable
from draftmark.planner.fit import MEMORY_UNKNOWN, Fitted
from draftmark.planner.hardware import Found
from draftmark.planner.layout import Hardware
from draftmark.planner.selection import MAX_REJECTED

#: That the plan is for nodes that are not there yet.
AUTOSCALED: Final = "NodeAutoscaling"


def fit_now_or_later(
    found: Found, fit: Callable[[Found], Fitted | Unplannable], keep: Layout | None, timeout_s: int
) -> Fitted | Unplannable:
    """What `fit` finds on the present nodes, or on the first kind of obtainable ones that it finds anything on.

    Args:
        found: Present and obtainable kinds, of either none or some.
        keep: The layout of the revision before: its kind is looked at first.
        timeout_s: How long pods may wait for a node.
    """
    rejected: tuple[Rejected, ...] = ()
    if found.hardware:
        now = fit(replace(found, obtainable=()))
        if not found.obtainable or _is_final(now):
            return now
        rejected = now.rejected
    kept = (keep.resource_name, keep.product) if keep is not None else None
    for one in sorted(found.obtainable, key=lambda one: (one.resource_name, one.product) != kept):
        later = fit(Found(hardware=(one,)))
        if isinstance(later, Fitted) and _is_final(later):
            reason = Reason(code=AUTOSCALED, message=_why(found, one, timeout_s))
            # What lost last says more: it is of the kind that was chosen.
            return replace(
                later,
                reasons=(later.reasons[0], reason, *later.reasons[1:]),
                rejected=(*later.rejected, *rejected)[:MAX_REJECTED],
            )
        if _is_final(later):
            return later
    return fit(replace(found, hardware=(*found.hardware, *found.obtainable), obtainable=()))


def _is_final(answer: Fitted | Unplannable) -> bool:
    """Whether other hardware would change nothing for the better."""
    if isinstance(answer, Unplannable):
        return answer.code == MEMORY_UNKNOWN
    return answer.layout.nodes == 1


def _why(found: Found, one: Hardware, timeout_s: int) -> str:
    if found.hardware:
        lacking = f"no present node suffices{f' ({found.left_out})' if found.left_out else ''}"
    else:
        lacking = f"no present node offers what is needed{f' ({found.left_out})' if found.left_out else ''}"
    most = f", at most {one.nodes} of them" if one.nodes is not None else ""
    place = 1 + found.obtainable.index(one)
    of = f"choice {place} of {len(found.obtainable)} in" if len(found.obtainable) > 1 else "by"
    return (
        f"{lacking}; node autoscaling can bring nodes with {one.gpus_per_node} {one}{most} ({of} the administrator's "
        f"defaults.nodeAutoscaling), and pods wait for one for up to {told_s(timeout_s)}"
    )


def told_s(seconds: int) -> str:
    """Seconds for people: 15 min, 90 s."""
    return f"{seconds // 60} min" if seconds % 60 == 0 else f"{seconds} s"
