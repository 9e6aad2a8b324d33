"""Rollouts: from the revisions that run to the one that is asked for, a step at a time.

    candidate starts → answers once through the gateway → takes its share → the others shrink → they are drained → gone

Every step is computed from what is there: the Deployments hold the replicas, the gateways tell what they work with, and
the few times that must be remembered are in the status. So a restart, a lost status or an edit in the middle goes on
from what runs. Missing information never stops a pod.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from math import ceil, floor
from typing import Final, Literal

#: Restarts of a candidate's container after which it is withdrawn: the third comes about half a minute after the first.
CRASHES: Final = 3
#: From one look at what gateways tell to the next, while it is not known when that will decide anything.
_LOOK_AGAIN: Final = timedelta(seconds=1)

Strategy = Literal["rolling", "recreate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How a service wants its changes."""

    replicas: int
    strategy: Strategy
    #: Pods beyond `replicas`, and pods that may be missing from it.
    surge: int
    unavailable: int
    in_place: bool
    deadline: timedelta
    queue_timeout: timedelta
    #: How long a pod may wait for a node; None: nodes do not come by themselves, and the deadline is all.
    node_timeout: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RevisionSeen:
    """One revision, as it runs and as the status remembers it."""

    hash: str
    #: Counts up; the current revision has the largest.
    number: int
    #: Of its Deployment; None: there is none.
    desired: int | None = None
    #: Pods that are ready, and pods that are there at all, those on their way out included.
    ready: int = 0
    pods: int = 0
    #: Whether a request through the gateway was answered by it.
    is_proven: bool = False
    #: Restarts of the pod of it that is not ready and crashed most often.
    crashes: int = 0
    is_unschedulable: bool = False
    #: Since when the pod of it that waits longest for a node does so; None: none does, or it is not told.
    unschedulable_since: datetime | None = None
    #: What keeps its pods from serving, in words; for the message of a withdrawal.
    problem: str | None = None
    #: When it last came further, and what it had reached then.
    progressed_at: datetime | None = None
    progress: int = 0
    #: Since when every gateway sends it nothing; None: not yet, or not known.
    drained_since: datetime | None = None
    #: Whether the gateways are told already to send it nothing.
    is_closing: bool = False
    failed_at: datetime | None = None
    failure: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaysSeen:
    """What the gateways of the service tell about each revision. Empty where one of them did not answer."""

    #: Revisions that none of them sends new requests to.
    closed: frozenset[str] = frozenset()
    #: Revisions for which nothing waits in any of them, nor in a process from before a reload.
    empty: frozenset[str] = frozenset()
    #: Time until no process from before a reload can hold a waiting request any more; None: it is not known, because one
    #: of them has to reload first or did not answer.
    settles_in: timedelta | None = None

    @property
    def are_settled(self) -> bool:
        return self.settles_in == timedelta(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class RevisionStep:
    """What one revision should be like now."""

    hash: str
    phase: Literal["Current", "Candidate", "Retiring", "Failed"]
    #: None: its Deployment goes.
    replicas: int | None
    #: Share of new requests, in ready replicas.
    weight: int
    progressed_at: datetime | None = None
    progress: int = 0
    drained_since: datetime | None = None
    failed_at: datetime | None = None
    failure: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The next step of a rollout."""

    revisions: tuple[RevisionStep, ...]
    #: Look again after this time, though nothing may have happened.
    after: timedelta | None = None

    def of(self, hash_: str) -> RevisionStep | None:
        return next((r for r in self.revisions if r.hash == hash_), None)


def pods_of(count: str | None, replicas: int, default: int, *, round_up: bool) -> int:
    """A number of pods from `2` or `25%`."""
    if count is None:
        return default
    if count.endswith("%"):
        share = replicas * int(count[:-1]) / 100
        return ceil(share) if round_up else floor(share)
    return int(count)


def step(
    policy: Policy, current: RevisionSeen, others: Sequence[RevisionSeen], gateways: GatewaysSeen, now: datetime
) -> Step:
    """The next step towards the current revision.

    Args:
        policy: What the user wants.
        current: The revision that is asked for.
        others: Revisions of which a Deployment or a pod is left.
        gateways: What they tell.
        now: Aware, UTC.
    """
    others = sorted(others, key=lambda r: -r.number)
    if policy.replicas == 0:
        mine = RevisionStep(hash=current.hash, phase="Current", replicas=0, weight=0)
        return Step(revisions=(mine, *(_gone(r) for r in others)))
    fallback = next((r for r in others if r.is_proven and r.desired is not None), None)
    if fallback is None:
        return Step(revisions=(_settled(policy, current), *(_gone(r) for r in others)))
    current = _with_progress(current, now)
    failure = current.failure if current.failed_at is not None else _why_failed(policy, current, now)
    if failure is not None:
        failed = replace(current, failed_at=current.failed_at or now, failure=failure)
        return _go_back(policy, failed, fallback, others, gateways, now)
    if policy.strategy == "recreate":
        return _recreate(policy, current, others, gateways, now)
    return _roll(policy, current, others, gateways, now)


def _settled(policy: Policy, current: RevisionSeen) -> RevisionStep:
    weight = min(current.ready, policy.replicas) if current.is_proven else 0
    return RevisionStep(hash=current.hash, phase="Current", replicas=policy.replicas, weight=weight)


def _gone(revision: RevisionSeen) -> RevisionStep:
    return RevisionStep(hash=revision.hash, phase="Retiring", replicas=None, weight=0)


def _serving(revision: RevisionSeen) -> int:
    """Pods that may take requests of users."""
    return min(revision.ready, revision.desired or 0) if revision.is_proven else 0


def _with_progress(current: RevisionSeen, now: datetime) -> RevisionSeen:
    """The time since the candidate's pods have not come further; none while all that were started serve."""
    if (current.desired or 0) <= _serving(current):
        return replace(current, progressed_at=None, progress=0)
    reached = current.ready + int(current.is_proven)
    # A process whose clock was ahead of ours may have written it.
    is_known = current.progressed_at is not None and current.progressed_at <= now
    if not is_known or reached > current.progress:
        return replace(current, progressed_at=now, progress=max(reached, current.progress))
    return current


def _why_failed(policy: Policy, current: RevisionSeen, now: datetime) -> tuple[str, str] | None:
    told = f" {current.problem}" if current.problem else ""
    if current.crashes >= CRASHES:
        return "CandidateCrashed", f"A pod of it ended {current.crashes} times.{told}"
    since, most = current.unschedulable_since, policy.node_timeout
    if since is not None and most is not None and now - since >= most:
        waited = int(most.total_seconds())
        bound = "the administrator's defaults.nodeAutoscaling.timeout"
        return "NoCapacity", f"No node came for a pod of it within {waited} s ({bound}).{told}"
    if current.progressed_at is None or now - current.progressed_at < policy.deadline:
        return None
    code = "NoCapacity" if current.is_unschedulable else "ProgressDeadlineExceeded"
    waited = int(policy.deadline.total_seconds())
    return code, f"No further pod of it served within {waited} s (rollout.progressDeadline).{told}"


def _candidate(policy: Policy, current: RevisionSeen, replicas: int) -> RevisionStep:
    return RevisionStep(
        hash=current.hash,
        phase="Candidate",
        replicas=replicas,
        weight=min(_serving(current), policy.replicas),
        progressed_at=current.progressed_at,
        progress=current.progress,
    )


def _soonest(policy: Policy, current: RevisionSeen, wait: timedelta | None, now: datetime) -> timedelta | None:
    waits = [wait] if wait is not None else []
    if current.progressed_at is not None:
        waits.append(max(current.progressed_at + policy.deadline - now, timedelta(seconds=1)))
    return min(waits, default=None)


def _roll(
    policy: Policy,
    current: RevisionSeen,
    others: Sequence[RevisionSeen],
    gateways: GatewaysSeen,
    now: datetime,
) -> Step:
    wanted, unavailable = policy.replicas, policy.unavailable
    if policy.in_place and current.is_unschedulable:
        unavailable = max(unavailable, 1)
    have, serving = current.desired or 0, _serving(current)
    mine = min(wanted, max(have, wanted + policy.surge - _taken(policy, others)))

    fewest = wanted - unavailable
    # Old pods that may go: those that do not serve as long as enough are left at all, the others while enough serve.
    unused = sum(r.desired or 0 for r in others) + serving - fewest
    spare = sum(map(_serving, others)) + serving - fewest
    left = {}
    for r in sorted(others, key=lambda r: (r.is_proven, -r.number)):
        useful, idle = _serving(r), (r.desired or 0) - _serving(r)
        idle_going = max(0, min(idle, unused)) if r.is_proven else idle
        unused -= idle_going
        useful_going = max(0, min(useful, spare, unused))
        unused -= useful_going
        spare -= useful_going
        left[r.hash] = (r.desired or 0) - idle_going - useful_going

    is_complete = serving >= wanted and have == wanted
    goes_on = serving > 0 or any(left[r.hash] for r in others if r.is_proven)
    steps, wait = _shrink(policy, others, left, gateways, now, forget=is_complete, others_serve=goes_on)
    if is_complete and all(s.replicas is None for s in steps):
        return Step(revisions=(_settled(policy, current), *steps))
    candidate = _candidate(policy, current, mine)
    return Step(revisions=(candidate, *steps), after=_soonest(policy, current, wait, now))


def _shrink(
    policy: Policy,
    revisions: Sequence[RevisionSeen],
    left: Mapping[str, int],
    gateways: GatewaysSeen,
    now: datetime,
    *,
    forget: bool,
    others_serve: bool,
) -> tuple[list[RevisionStep], timedelta | None]:
    """Revisions with fewer pods. The last one of a revision goes when no gateway holds a request for it any more.

    Args:
        left: Pods that each revision keeps.
        others_serve: Whether any other revision takes requests meanwhile. Where none does, requests wait from the moment
            that the last one gets none, so that moment comes as late as can be. Once it has come it is not taken back: a
            new process of ours has heard of no gateway yet, and they would seem to have just reloaded.
        forget: Whether the Deployment of an empty revision goes, too. While the candidate may fail it stays.
    """
    steps: list[RevisionStep] = []
    waits: list[timedelta] = []
    for r in revisions:
        if left[r.hash] > 0:
            weight = min(left[r.hash], _serving(r))
            steps.append(RevisionStep(hash=r.hash, phase="Retiring", replicas=left[r.hash], weight=weight))
            continue
        empty = RevisionStep(hash=r.hash, phase="Retiring", replicas=None if forget or not r.is_proven else 0, weight=0)
        if not r.is_proven or not r.desired:
            steps.append(empty)  # users' requests never reached it, or it is empty already
            continue
        is_closing = r.is_closing or r.drained_since is not None
        if not others_serve and not is_closing and not gateways.are_settled:
            steps.append(RevisionStep(hash=r.hash, phase="Retiring", replicas=r.desired, weight=_serving(r)))
            waits.append(_until(gateways.settles_in))
            continue
        is_closed = r.hash in gateways.closed
        # Whoever wrote it may have had a clock that is ahead of ours.
        since = min(r.drained_since, now) if r.drained_since is not None else now if is_closed else None
        if since is not None and is_closed and (r.hash in gateways.empty or now - since >= policy.queue_timeout):
            steps.append(empty)
            continue
        # HAProxy ends what waits longer than this, so nothing can be left then. Before they are settled a look is of no
        # use; what the gateways tell by then is asked for by that look, and decided upon a second later.
        until = since + policy.queue_timeout - now if since is not None and is_closed else None
        waits.append(min(_until(until), _until(None if gateways.are_settled else gateways.settles_in)))
        steps.append(RevisionStep(hash=r.hash, phase="Retiring", replicas=r.desired, weight=0, drained_since=since))
    return steps, min(waits, default=None)


def _until(wait: timedelta | None) -> timedelta:
    """When to look again at what ends by then; every second where that is not known."""
    return _LOOK_AGAIN if wait is None else max(wait, timedelta(seconds=0.5))


def _recreate(
    policy: Policy,
    current: RevisionSeen,
    others: Sequence[RevisionSeen],
    gateways: GatewaysSeen,
    now: datetime,
) -> Step:
    """The others stop before the current one starts. Their Deployments stay, to go back to, until it serves."""
    if _serving(current) >= policy.replicas and current.desired == policy.replicas:
        return Step(revisions=(_settled(policy, current), *(_gone(r) for r in others)))
    nothing = dict.fromkeys((r.hash for r in others), 0)
    stopped, wait = _shrink(policy, others, nothing, gateways, now, forget=False, others_serve=bool(_serving(current)))
    room = policy.replicas if _are_gone(others, stopped) else current.desired or 0
    candidate = _candidate(policy, current, min(room, policy.replicas))
    return Step(revisions=(candidate, *stopped), after=_soonest(policy, current, wait, now))


def _are_gone(revisions: Sequence[RevisionSeen], steps: Sequence[RevisionStep]) -> bool:
    return all(r.pods == 0 for r in revisions) and not any(s.replicas for s in steps)


def _go_back(
    policy: Policy,
    failed: RevisionSeen,
    fallback: RevisionSeen,
    others: Sequence[RevisionSeen],
    gateways: GatewaysSeen,
    now: datetime,
) -> Step:
    """The candidate is withdrawn, and the revision before goes on with all replicas, within the same bounds."""
    going = [failed, *(r for r in others if r is not fallback)]
    have, serving = fallback.desired or 0, _serving(fallback)
    is_recreated = policy.strategy == "recreate"
    # What else serves is needed until the one that goes on can carry all; the failed one goes first.
    missing, left = 0 if is_recreated else policy.replicas - policy.unavailable - serving, {}
    for r in (*going[1:], failed):
        left[r.hash] = max(0, min(_serving(r), missing))
        missing -= left[r.hash]
    goes_on = serving > 0 or any(left.values())
    steps, wait = _shrink(policy, going, left, gateways, now, forget=True, others_serve=goes_on)
    if is_recreated:
        room = policy.replicas if _are_gone(going, steps) else have
    else:
        room = max(have, policy.replicas + policy.surge - _taken(policy, going))
    mine = replace(steps[0], phase="Failed", failed_at=failed.failed_at, failure=failed.failure)
    weight = min(serving, policy.replicas)
    back = RevisionStep(hash=fallback.hash, phase="Current", replicas=min(room, policy.replicas), weight=weight)
    return Step(revisions=(mine, back, *steps[1:]), after=wait)


def _taken(policy: Policy, revisions: Sequence[RevisionSeen]) -> int:
    """Places that these revisions take. Where no pod beyond `replicas` is allowed, one that is still going keeps its
    place."""
    return sum(r.desired or 0 if policy.surge else max(r.desired or 0, r.pods) for r in revisions)
