"""A cluster for the rollout machine, as small as can be: replicas, pods, places for them, and gateways that draw.

A second passes with each tick: pods that are told to go go, one pod of each revision starts if there is a place for it,
the gateways take over the weights, and a candidate that is ready answers its first request. What the machine shall
remember is kept as the status keeps it: for revisions that are told.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from draftmark.machines.rollout import GatewaysSeen, Policy, RevisionSeen, RevisionStep, Step, step
from tests.specs import T0

SECOND = timedelta(seconds=1)
QUEUE_TIMEOUT = timedelta(seconds=3)
DEADLINE = timedelta(seconds=20)

#: What is remembered of a revision from its step, by the names that both have.
_REMEMBERED = ("progressed_at", "progress", "drained_since", "failed_at", "failure")


def policy(replicas: int = 3, *, surge: int = 1, unavailable: int = 0, **fields: object) -> Policy:
    """As in the spec; other fields of the machine's policy by their names."""
    whole = Policy(
        replicas=replicas, strategy="rolling", surge=surge, unavailable=unavailable, in_place=False, deadline=DEADLINE,
        queue_timeout=QUEUE_TIMEOUT,
    )  # fmt: skip
    return replace(whole, **fields)  # type: ignore[arg-type]


@dataclass(slots=True)
class Gateway:
    """One gateway pod."""

    weights: dict[str, int] = field(default_factory=dict)
    #: Requests that wait for a revision; they stay until a test takes them away.
    waiting: dict[str, int] = field(default_factory=dict)
    #: False: it does not answer, and takes nothing over.
    answers: bool = True
    #: When this process of the operator first heard of its configuration; it changes when a revision comes or goes.
    since: datetime = T0


@dataclass(slots=True)
class Cluster:
    """A service that runs revision A, with all replicas; `asked` is what its spec asks for."""

    policy: Policy
    asked: str = "A"
    now: datetime = T0
    seen: dict[str, RevisionSeen] = field(default_factory=dict)
    gateways: list[Gateway] = field(default_factory=lambda: [Gateway(), Gateway()])
    #: Pods that fit into the cluster; None: any number.
    places: int | None = None
    #: Revisions whose pods never become ready, those whose engine ends at once, and those that answer nobody.
    hanging: frozenset[str] = frozenset()
    crashing: frozenset[str] = frozenset()
    mute: frozenset[str] = frozenset()
    last: Step = field(default_factory=lambda: Step(revisions=()))
    #: What was so after each step, in short.
    told: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        n = self.policy.replicas
        self.seen["A"] = RevisionSeen(hash="A", number=1, desired=n, ready=n, pods=n, is_proven=True)
        for gateway in self.gateways:
            gateway.weights, gateway.since = {"A": n}, self.now - timedelta(days=1)

    # What users do

    def ask(self, revision: str) -> None:
        """An edit of the spec. The newest revision has the largest number."""
        self.asked = revision
        known = self.seen.get(revision, RevisionSeen(hash=revision, number=0))
        newest = max(r.number for r in self.seen.values())
        self.seen[revision] = replace(known, number=known.number if known.number == newest else newest + 1)

    def scale(self, replicas: int) -> None:
        self.policy = replace(self.policy, replicas=replicas)

    def retry(self) -> None:
        self.seen[self.asked] = replace(self.seen[self.asked], failed_at=None, failure=None)

    # What happens

    def lose_status(self) -> None:
        """Nothing is remembered; what serves and is not asked for was proven once."""
        for name, r in self.seen.items():
            bare = replace(r, progressed_at=None, progress=0, drained_since=None, failed_at=None, failure=None)
            self.seen[name] = replace(bare, is_proven=name != self.asked and r.ready > 0)

    def restart(self) -> None:
        """The operator starts anew, and hears of its gateways for the first time."""
        for gateway in self.gateways:
            gateway.since = self.now

    def fail_pod(self, revision: str) -> None:
        """One of its pods is ready no longer, if it has one."""
        if (r := self.seen.get(revision)) is not None:
            self.seen[revision] = replace(r, ready=max(0, r.ready - 1))

    def meanwhile(self, first: Callable[[], object], then: Callable[[], object]) -> None:
        """Two things happen with a second between them."""
        first()
        self.reconcile()
        self.tick()
        then()

    def look(self) -> GatewaysSeen:
        """What the gateways tell, as `running.see_gateways` puts it together."""
        if not all(g.answers for g in self.gateways):
            return GatewaysSeen()
        closed = {r for r in self.seen if all(not g.weights.get(r) for g in self.gateways)}
        known = {name for name, r in self.seen.items() if name == self.asked or r.desired is not None}
        waits = [g.since + self.policy.queue_timeout - self.now for g in self.gateways]
        know_all = all(g.weights.keys() >= known for g in self.gateways)
        settles_in = max(*waits, timedelta(0)) if know_all else None
        empty = (
            {r for r in closed if all(not g.waiting.get(r) for g in self.gateways)}
            if settles_in == timedelta(0)
            else set()
        )
        return GatewaysSeen(closed=frozenset(closed), empty=frozenset(empty), settles_in=settles_in)

    def reconcile(self) -> Step:
        others = [r for name, r in self.seen.items() if name != self.asked and (r.desired is not None or r.pods)]
        closing = {s.hash for s in self.last.revisions if not s.weight}
        others = [replace(r, is_closing=r.hash in closing) for r in others]
        self.last = step(self.policy, self.seen[self.asked], others, self.look(), self.now)
        for s in self.last.revisions:
            r = self.seen[s.hash]
            memory = {name: getattr(s, name) for name in _REMEMBERED}
            is_told = s.hash == self.asked or s.replicas is not None or r.pods > 0
            self.seen[s.hash] = replace(r, desired=s.replicas, is_proven=r.is_proven and is_told, **memory)
        for name in [n for n, r in self.seen.items() if n != self.asked and r.desired is None and not r.pods]:
            del self.seen[name]
        self.told.append(tell(self.last, self.seen))
        return self.last

    def tick(self) -> None:
        self.now += SECOND
        weights = {s.hash: s.weight for s in self.last.revisions if s.replicas is not None or self.pods_of(s.hash)}
        for gateway in self.gateways:
            if gateway.answers and self.last.revisions:
                gateway.since = gateway.since if gateway.weights.keys() == weights.keys() else self.now
                gateway.weights = dict(weights)
        for name, r in self.seen.items():
            staying = min(r.pods, r.desired or 0)
            self.seen[name] = replace(r, pods=staying, ready=min(r.ready, staying), is_unschedulable=False)
        for name in sorted(self.seen):
            self._start(name)

    def _start(self, name: str) -> None:
        r = self.seen[name]
        pods = r.pods
        if pods < (r.desired or 0):
            if self.places is not None and sum(o.pods for o in self.seen.values()) >= self.places:
                self.seen[name] = r = replace(r, is_unschedulable=True, problem="Insufficient places.")
            else:
                pods += 1
        r = replace(r, pods=pods)
        if name in self.crashing and pods:
            r = replace(r, crashes=min(r.crashes + 1, 9))
        elif name not in self.hanging:
            r = replace(r, ready=pods, crashes=0)
        is_answering = r.ready > 0 and name not in self.mute and all(g.answers for g in self.gateways)
        is_proven = r.is_proven or (is_answering and name == self.asked and (r.desired or 0) > 0)
        self.seen[name] = replace(r, is_proven=is_proven, crashes=r.crashes if pods else 0)

    def pods_of(self, revision: str) -> int:
        return self.seen[revision].pods if revision in self.seen else 0

    def run(self, *, most: int = 200) -> "Cluster":
        """Reconciles and ticks alternate until nothing moves any more."""
        still = 0
        for _ in range(most):
            before = (self.seen, self.last)
            self.seen = dict(self.seen)
            self.reconcile()
            self.tick()
            still = still + 1 if (self.seen, self.last) == before else 0
            if still > 2 * DEADLINE / SECOND:
                return self
        raise AssertionError(f"nothing came to rest in {most} steps: {self.told[-10:]}")

    @property
    def story(self) -> list[str]:
        """What was told, without repetitions."""
        return [line for i, line in enumerate(self.told) if i == 0 or line != self.told[i - 1]]


def tell(made: Step, seen: dict[str, RevisionSeen]) -> str:
    """A step in short, oldest revision first: `A 3/3 w3` has three replicas, three ready pods and a weight of 3."""
    order: Sequence[RevisionStep] = sorted(made.revisions, key=lambda s: s.hash)
    return ", ".join(
        f"{s.hash} {'-' if s.replicas is None else s.replicas}/{seen[s.hash].ready if s.hash in seen else 0} w{s.weight}"
        + (f" {s.failure[0]}" if s.failure is not None else "")
        for s in order
    )
