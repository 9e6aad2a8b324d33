"""What gateways tell, put together for the rollout: a pod may be stopped upon it, so doubt is nothing told."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from draftmark.choice import known_revisions
from draftmark.decide import decide
from draftmark.machines.rollout import GatewaysSeen
from draftmark.observation import GatewayState, Observation, RevisionTraffic
from draftmark.running import see_gateways, see_revision
from draftmark.status import make_status
from tests.specs import T0, observation, pod, ready_pod, running

QUEUE_TIMEOUT = timedelta(seconds=30)
OLD, NEW = "0123abcd", "abcd0123"


def state(
    *, old: tuple[int, int] | None = (0, 0), new: int | None = 1, age_s: float = 0, config_age_s: float = 60
) -> GatewayState:
    """A gateway's word: weight and waiting requests of the old revision, weight of the new one; None: not known to it."""
    revisions = {}
    if old is not None:
        revisions[OLD] = RevisionTraffic(running=3, waiting=old[1], weight=old[0])
    if new is not None:
        revisions[NEW] = RevisionTraffic(running=0, waiting=0, weight=new)
    at = T0 - timedelta(seconds=age_s)
    return GatewayState(
        config="c", runtime="r", revisions=revisions, at=at, config_since=T0 - timedelta(seconds=config_age_s)
    )


def seen(*states: GatewayState | None, **more: Any) -> Observation:
    """Gateway pods that are ready, and what each has told."""
    pods = tuple(ready_pod("", f"gateway-{i}", role="gateway") for i in range(len(states)))
    told = {f"gateway-{i}": s for i, s in enumerate(states) if s is not None}
    return replace(observation(), gateway_pods=pods, gateways=told, **more)


NOTHING = GatewaysSeen()
CLOSED = GatewaysSeen(closed=frozenset({OLD}))


def closed(settles_in_s: float) -> GatewaysSeen:
    return replace(CLOSED, settles_in=timedelta(seconds=settles_in_s))


SETTLED = GatewaysSeen(closed=frozenset({OLD}), settles_in=timedelta(0))
EMPTY = GatewaysSeen(closed=frozenset({OLD}), empty=frozenset({OLD}), settles_in=timedelta(0))
OPEN = GatewaysSeen(settles_in=timedelta(0))

CASES = {
    "nobody": (seen(), NOTHING),
    "one, and it is done": (seen(state()), EMPTY),
    "both are done": (seen(state(), state()), EMPTY),
    "one of two still sends": (seen(state(), state(old=(1, 0))), OPEN),
    "something waits": (seen(state(old=(0, 1))), SETTLED),
    "something waits in one of two": (seen(state(), state(old=(0, 1))), SETTLED),
    "one of two did not answer": (seen(state(), None), NOTHING),
    "one of two answered long ago": (seen(state(), state(age_s=11)), NOTHING),
    "the clock was set back since one answered": (seen(state(), state(age_s=-600)), NOTHING),
    "just reloaded": (seen(state(config_age_s=29)), closed(1)),
    "one of two just reloaded": (seen(state(), state(config_age_s=1)), closed(29)),
    "reloaded long enough ago": (seen(state(config_age_s=30)), EMPTY),
    "forgot the old one": (seen(state(old=None), state()), CLOSED),
    "a reload is still to come": (seen(state(new=None)), CLOSED),
    "one that is not ready does not count": (
        replace(seen(state()), gateway_pods=(ready_pod("", "gateway-0", role="gateway"), pod("", name="other", role="gateway"))),
        EMPTY,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_gateways_are_believed_when_all_of_them_say_the_same_and_lately(case: str) -> None:
    what, expected = CASES[case]
    found = see_gateways(what, [OLD, NEW], QUEUE_TIMEOUT, T0)
    assert replace(found, closed=found.closed - {NEW}, empty=found.empty - {NEW}) == expected


def test_a_pod_that_was_evicted_is_no_pod_of_its_revision() -> None:
    """It stays until it is collected as garbage: a rollout that waits for the end of its pods would wait as long."""
    serving = running()
    [revision] = known_revisions(serving)
    evicted = pod(revision.hash, name="pod-evicted", phase="Failed", reason="Evicted")
    for pods, count in (((*serving.pods, evicted), 1), ((evicted,), 0)):
        seen = replace(serving, pods=pods)
        assert see_revision(seen, revision, None, is_current=False).pods == count
        assert make_status(seen, decide(seen, T0), T0)["replicas"] == count
