"""What users do, each from a cluster at rest to a cluster at rest, and what the same costs and leads to without a fault.

A case runs a scenario with a fault and is compared with the run without: the same objects in the end, each created and
deleted as often, no more writes than the fault explains, in bounded time.
"""

import asyncio
import json
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from draftmark.api import names
from draftmark.cluster.kinds import BENCHMARKS, DEPLOYMENTS, EVENTS, INFERENCE_SERVICES, JOBS, MODEL_GATEWAYS, ROLES
from tests.fake_api import Done
from tests.faults.cluster import Cluster, Snapshot, service, text_of

T = TypeVar("T")

_LIFE: Final = re.compile(r"uid-[a-z0-9.-]+-\d+")
_DIGEST: Final = re.compile(rf'(?<="{names.ANNOTATION_APPLIED}": ")[0-9a-f]+')

#: Cases that run at the same time. Most of a case is waiting.
AT_ONCE: Final = 8
#: Seconds from the fault to the end state. Without a fault a scenario takes one to two, and a new process half of one; the
#: rest is for a busy machine, on which the processes of these tests give way to those of the cluster's node.
WITHIN_S: Final = 90.0


@dataclass(frozen=True)
class Scenario:
    """One change by a user.

    Args:
        before: What the user has had applied before: name and arguments of a service.
        change: What the user does now.
        holds: What is true in the end, beside that the operator is at rest.
    """

    name: str
    before: Mapping[str, Any] | None
    change: Callable[[Cluster], object]
    holds: Callable[[Cluster], object]


def _edit(**spec: Any) -> Callable[[Cluster], object]:
    return lambda c: c.api.edit(INFERENCE_SERVICES, "llama", lambda s: s["spec"].update(spec))


def _model_gateway() -> dict[str, Any]:
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.MODEL_GATEWAY_KIND,
        "metadata": {"name": "models", "namespace": "default"},
        "spec": {},
    }


def _gateway_is_ready(cluster: Cluster) -> bool:
    found = cluster.api.see(MODEL_GATEWAYS, "models") or {}
    conditions = found.get("status", {}).get("conditions") or []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _benchmark() -> dict[str, Any]:
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.BENCHMARK_KIND,
        "metadata": {"name": "first", "namespace": "default"},
        "spec": {"target": {"service": "llama", "allowUserTraffic": True}, "concurrency": [1]},
    }


def _has_measured(cluster: Cluster) -> bool:
    found = cluster.api.see(BENCHMARKS, "first") or {}
    return found.get("status", {}).get("phase") == "Succeeded" and not cluster.all(ROLES)


def _is_gone(cluster: Cluster) -> bool:
    return not cluster.end_state()


def _is_rolled_over(cluster: Cluster) -> bool:
    """Ready, and the router of the revision before is gone: that waits for events, which may be late."""
    routers = [d for d in cluster.all(DEPLOYMENTS) if d["metadata"]["labels"][names.LABEL_ROLE] == names.ROLE_ROUTER]
    return bool(cluster.is_ready()) and len(routers) == 1


CREATE: Final = Scenario(
    "create", None, lambda c: c.api.add(INFERENCE_SERVICES, service(replicas=2)), lambda c: c.is_ready()
)
#: Another revision, and the one before stops first.
UPDATE: Final = Scenario(
    "update",
    {"replicas": 1},
    _edit(workload={"concurrency": 8}, rollout={"strategy": "recreate"}),
    lambda c: c.is_ready(),
)
SCALE_UP: Final = Scenario("scale up", {"replicas": 2}, _edit(replicas=4), lambda c: c.is_ready())
SCALE_DOWN: Final = Scenario("scale down", {"replicas": 3}, _edit(replicas=1), lambda c: c.is_ready())
#: Another revision, pod by pod.
ROLL: Final = Scenario("roll", {"replicas": 2}, _edit(workload={"concurrency": 8}), _is_rolled_over)
#: The same two, with an eye on the clock.
UPDATE_IN_TIME: Final = Scenario(
    "update in time",
    {"replicas": 1},
    _edit(workload={"concurrency": 8}, rollout={"strategy": "recreate", "progressDeadline": "5m"}),
    lambda c: c.is_ready(),
)
ROLL_IN_TIME: Final = Scenario(
    "roll in time",
    {"replicas": 2},
    _edit(workload={"concurrency": 8}, rollout={"progressDeadline": "5m"}),
    _is_rolled_over,
)
DELETE: Final = Scenario("delete", {"replicas": 2}, lambda c: c.api.remove(INFERENCE_SERVICES, "llama"), _is_gone)
GATEWAY: Final = Scenario(
    "model gateway", {"replicas": 1}, lambda c: c.api.add(MODEL_GATEWAYS, _model_gateway()), _gateway_is_ready
)

#: A service whose plan waits for the facts of its model: a Job comes, tells them and goes.
LEARN: Final = Scenario(
    "learn",
    None,
    lambda c: c.api.add(INFERENCE_SERVICES, service(accelerator={"product": "NVIDIA-L4"})),
    lambda c: c.is_ready() and not c.all(JOBS),
)

#: A Benchmark of a service at rest: a Job comes, writes its result, and what it needed goes.
BENCHMARK: Final = Scenario("benchmark", {"replicas": 1}, lambda c: c.api.add(BENCHMARKS, _benchmark()), _has_measured)

WRITING: Final = (CREATE, UPDATE, SCALE_UP, SCALE_DOWN, ROLL, GATEWAY, LEARN)


@dataclass(frozen=True)
class Run:
    """What came of a scenario."""

    end_state: Mapping[str, Any]
    writes: tuple[Done, ...]
    events: Counter[str]
    proofs: Counter[str]

    @classmethod
    def of(cls, cluster: Cluster, since: int = 0, *, events: Counter[str] | None = None, proofs: int = 0) -> "Run":
        """What there is now, and what came about since.

        Args:
            since: Writes that were done before.
            events: Events that were told before.
            proofs: Revisions that were proven before.
        """
        return cls(
            end_state=cluster.end_state(),
            writes=tuple(cluster.writes(since)),
            events=cluster.events() - (events or Counter()),
            proofs=Counter(cluster.gateways.proofs[proofs:]),
        )

    def costs_more_than(self, writes: int) -> list[str]:
        """All writes, if they are more."""
        return [f"{len(self.writes)} writes: {[text_of(w) for w in self.writes]}"] if len(self.writes) > writes else []

    def is_alike(self, usual: "Run") -> list[str]:
        """Where the end states differ beside which object of a name it is: children were made anew."""
        mine, others = _without_lives(self.end_state), _without_lives(usual.end_state)
        return [
            f"{name} is {mine.get(name)}, not {others.get(name)}"
            for name in sorted({*mine, *others})
            if mine.get(name) != others.get(name)
        ]

    @property
    def created(self) -> Counter[str]:
        """Children that were made, by kind and name."""
        return Counter(text_of(w) for w in self.writes if w.verb == "create" and w.kind != EVENTS)

    @property
    def deleted(self) -> Counter[str]:
        return Counter(text_of(w) for w in self.writes if w.verb == "delete")

    def differs_from(self, usual: "Run", *, writes: int) -> list[str]:
        """Why this run is not as good as the usual one; empty when it is.

        Args:
            writes: How many writes the fault explains, beyond those of the usual run.
        """
        found = []
        for name in sorted({*self.end_state, *usual.end_state}):
            if self.end_state.get(name) != usual.end_state.get(name):
                found.append(f"{name} is {self.end_state.get(name)}, not {usual.end_state.get(name)}")
        if self.created != usual.created:
            found.append(f"created {_beyond(self.created, usual.created)}, not {_beyond(usual.created, self.created)}")
        if self.deleted != usual.deleted:
            found.append(f"deleted {_beyond(self.deleted, usual.deleted)}, not {_beyond(usual.deleted, self.deleted)}")
        if len(self.writes) > len(usual.writes) + writes:
            found.append(f"{len(self.writes)} writes, not {len(usual.writes)}: {[text_of(w) for w in self.writes]}")
        for reason, count in self.events.items():
            if count > max(usual.events[reason], 1):
                found.append(f"told {count} times: {reason}")
        return found


def _without_lives(state: Mapping[str, Any]) -> dict[str, str]:
    """The uids of the router's account and of pods are part of what is digested and of names."""
    text = {name: json.dumps(obj, sort_keys=True) for name, obj in state.items() if not name.startswith("Pod ")}
    return {name: _DIGEST.sub("(digest)", _LIFE.sub("(uid)", obj)) for name, obj in text.items()}


def _beyond(mine: Counter[str], others: Counter[str]) -> dict[str, int]:
    return dict(mine - others)


@dataclass
class Scenarios:
    """Runs scenarios, and remembers how each goes without a fault."""

    folder: Path
    _at_rest: dict[str, asyncio.Task[Snapshot]] = field(default_factory=dict)
    _usual: dict[str, asyncio.Task[Run]] = field(default_factory=dict)

    async def usual(self, scenario: Scenario) -> Run:
        """The run without a fault."""
        if scenario.name not in self._usual:
            self._usual[scenario.name] = asyncio.create_task(self._run_undisturbed(scenario))
        return await self._usual[scenario.name]

    async def _run_undisturbed(self, scenario: Scenario) -> Run:
        async with self.cluster(scenario.name) as cluster:
            return await self.run(cluster, scenario)

    def cluster(self, label: str, **settings: Any) -> Cluster:
        return Cluster(self.folder, label.replace(" ", "-"), **settings)

    async def at_rest(self, scenario: Scenario) -> Snapshot | None:
        """The cluster before the change."""
        if scenario.before is None:
            return None
        key = repr(scenario.before)
        if key not in self._at_rest:
            self._at_rest[key] = asyncio.create_task(self._serve(f"before-{scenario.name}", scenario.before))
        return await self._at_rest[key]

    async def _serve(self, label: str, spec: Mapping[str, Any]) -> Snapshot:
        async with self.cluster(label) as cluster:
            cluster.api.add(INFERENCE_SERVICES, service(**spec))
            cluster.start()
            await cluster.settled(holds=cluster.is_ready)
            return cluster.snapshot()

    async def run(
        self,
        cluster: Cluster,
        scenario: Scenario,
        meanwhile: Callable[[], Awaitable[object]] | None = None,
        *,
        arm: Callable[[], object] = lambda: None,
        at_rest: bool = True,
        within_s: float = WITHIN_S,
    ) -> Run:
        """Run a scenario in a cluster without an operator, until nothing moves any more.

        Args:
            meanwhile: Awaited after the change, before the end is waited for.
            arm: Called when the cluster is at rest and an operator leads, right before the change.
            at_rest: False: the operator starts right after the change, which saves a second.
        """
        snapshot = await self.at_rest(scenario)
        if snapshot is not None:
            cluster.restore(snapshot)
        if at_rest:
            if not cluster.processes:
                cluster.start()
            await cluster.settled()
        begun, events, proofs = len(cluster.api.done), cluster.events(), len(cluster.gateways.proofs)
        arm()
        scenario.change(cluster)
        if not at_rest:
            cluster.start()
        if meanwhile is not None:
            await meanwhile()
        await cluster.settled(within_s, holds=lambda: scenario.holds(cluster))
        return Run.of(cluster, begun, events=events, proofs=proofs)


async def each(points: Iterable[T], case: Callable[[T], Awaitable[list[str]]], *, at_once: int = AT_ONCE) -> list[str]:
    """Run a case at each point, side by side; everything that is wrong, with its point."""
    turns = asyncio.Semaphore(at_once)

    async def one(point: T) -> list[str]:
        async with turns:
            try:
                return [f"{point}: {problem}" for problem in await case(point)]
            except AssertionError as error:
                return [f"{point}: {error}"]

    found = await asyncio.gather(*(one(point) for point in points))
    return [problem for problems in found for problem in problems]
