"""Benchmarks: what is known of them, and one of them, once: observe, decide, apply, say so.

Like ModelGateways they come through an informer: their definition may be installed later, or never. What they measure is
known already, for the InferenceServices' own sake; whether a service is really not there the API server is asked, because
what is not known yet after a restart must not end a measurement.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from random import Random
from typing import Any, Final

from draftmark.api import names
from draftmark.api.defaults import BenchmarkDefaults
from draftmark.benchmark.decide import PROGRESS, decide_benchmark, is_finished, is_stuck, loads_of
from draftmark.benchmark.observation import BenchmarkDecision, BenchmarkObservation
from draftmark.benchmark.status import make_benchmark_status
from draftmark.benchmark.targets import hosts_of, keys_of, services_of
from draftmark.cluster import kinds
from draftmark.cluster.apply import Applier
from draftmark.cluster.caches import Caches
from draftmark.cluster.client import ApiClient
from draftmark.cluster.informer import Informer
from draftmark.cluster.outcomes import Contended, Foreign, ObjectRef, Outcome, Refused, Terminating
from draftmark.controller.observe import (
    Key,
    World,
    children_of,
    key_of,
    owner_name,
    unread,
    without_managed_fields,
)
from draftmark.controller.queue import Priority, TryAgain
from draftmark.controller.reconcile import asked_to_wait_s, tell_outcomes, with_kinds
from draftmark.controller.writing import StatusWriter, brings_back
from draftmark.observation import Json, Observation

#: Seconds until the next look, while the first list of Benchmarks is not complete.
_LIST_AGAIN_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class BenchmarkKey:
    """A Benchmark in the work queue."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class _Load:
    """A Job that has not ended: whose it is, and what it loads."""

    owner: str
    owner_uid: str
    keys: frozenset[str]


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True)
class BenchmarkWorld:
    """What is known of the Benchmarks, and who has to be looked at when something changes.

    Args:
        world: Has the caches of services, children and pods.
        add: Called with a key when something of it changed, and how urgent that is. Must be quick.
    """

    world: World
    client: ApiClient
    add: Callable[[BenchmarkKey, Priority], None]
    now: Callable[[], datetime] = _now
    objects: Caches[Json] = field(init=False)
    #: When a Benchmark's Job last told something new.
    _heard: dict[Key, datetime] = field(default_factory=dict)
    _pods_of: dict[Key, dict[str, Json]] = field(default_factory=dict)
    #: Jobs of Benchmarks that have not ended.
    _loading: dict[Key, _Load] = field(default_factory=dict)
    #: Benchmarks that are not finished, by the service that they name.
    _followers_of: dict[Key, set[Key]] = field(default_factory=dict)
    #: Benchmarks that are finished, the same way.
    _finished_of: dict[Key, dict[Key, Json]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        def objects(namespace: str | None) -> Informer[Json]:
            return Informer(
                self.client,
                kinds.BENCHMARKS,
                on_change=self._on_object,
                namespace=namespace,
                project=without_managed_fields,
            )

        self.objects = Caches(kinds.BENCHMARKS, objects, self.world.namespaces)
        self.world.listeners.append(self)
        self.world.followers.append(self._on_service)
        self.world.benchmarks_of = self.finished_of

    def informers(self) -> tuple[Informer[Any], ...]:
        return self.objects.parts

    async def run(self, resync_s: float, random: Random) -> None:
        """Watch, and look at each now and then although nothing was heard, until cancelled."""
        await asyncio.gather(*(part.run() for part in self.objects.parts), self._resync(resync_s, random))

    async def _resync(self, resync_s: float, random: Random) -> None:
        while True:
            await asyncio.sleep(resync_s * random.uniform(0.8, 1.2))
            for item in self.objects.values():
                self.add(BenchmarkKey(*key_of(item)), Priority.RESYNC)

    # What there is

    def is_listing(self, namespace: str) -> bool:
        """Whether the first list of Benchmarks is under way: until it is complete, another one may be measuring already."""
        objects = self.objects.of(namespace)
        return not objects.is_synced and not (objects.denied or objects.absent)

    def observe(self, key: BenchmarkKey) -> BenchmarkObservation | None:
        """What is known of one Benchmark, or None when there is none of that name."""
        benchmark = self.objects.get(key.namespace, key.name)
        if benchmark is None:
            return None
        if is_finished(benchmark):
            return self._observe(benchmark, (), self._newer_finished(benchmark))
        wanted = set(keys_of(benchmark))
        others = [
            self._observe(other)
            for other in self._in_namespace(key.namespace)
            if other["metadata"]["uid"] != benchmark["metadata"]["uid"]
            and not is_finished(other)
            and wanted.intersection(keys_of(other))
        ]
        known = {benchmark["metadata"]["uid"], *(other.uid for other in others)}
        return replace(self._observe(benchmark, others), leftover=self._leftover(key.namespace, known, wanted))

    def _observe(
        self, benchmark: Json, others: Sequence[BenchmarkObservation] = (), newer_finished: int = 0
    ) -> BenchmarkObservation:
        metadata = benchmark["metadata"]
        key = key_of(benchmark)
        return BenchmarkObservation(
            benchmark=benchmark,
            targets={} if is_finished(benchmark) else self._targets(benchmark),
            our_services=self._our_services(benchmark),
            **children_of(self.world.children, key[0], str(metadata["uid"])),
            pods=tuple(pod for _, pod in sorted(self._pods_of.get(key, {}).items())),
            heard_at=self._heard.get(key),
            others=tuple(others),
            newer_finished=newer_finished,
            defaults=self.world.defaults,
        )

    def _leftover(self, namespace: str, known: set[Any], wanted: set[str]) -> str | None:
        """A Job that loads one of these targets for a Benchmark that is not known, or that is finished."""
        for (its, name), load in sorted(self._loading.items()):
            if its != namespace or load.owner_uid in known or not wanted & load.keys:
                continue
            owner = self.objects.get(namespace, load.owner)
            is_there = owner is not None and owner["metadata"]["uid"] == load.owner_uid
            # One that has told its result loads nothing more. Its pod may stay, for a service mesh's container beside it.
            if not (owner is not None and is_there and "report" in (owner.get("status") or {})):
                return name
        return None

    def _targets(self, benchmark: Json) -> dict[str, Observation | None]:
        namespace = str(benchmark["metadata"]["namespace"])
        if unread(self.world.pods.of(namespace)) is not None:
            # A pod that is not known yet is no pod that went.
            return {}
        return {name: self.world.observe((namespace, name)) for name in services_of(benchmark)}

    def _our_services(self, benchmark: Json) -> frozenset[str]:
        """Of the Services that a Benchmark names, those that are the operator's own."""
        namespace = str(benchmark["metadata"]["namespace"])
        services = self.world.children[kinds.SERVICES]
        return frozenset(h for h in hosts_of(benchmark) if h and services.get(namespace, h) is not None)

    def finished_of(self, service: Key) -> tuple[Json, ...] | None:
        """The finished Benchmarks that measured a service, by name; None: not known yet."""
        if self.is_listing(service[0]):
            return None
        return tuple(item for _, item in sorted(self._finished_of.get(service, {}).items()))

    def _newer_finished(self, benchmark: Json) -> int:
        configured = self.world.defaults.benchmarks or BenchmarkDefaults()
        if configured.history_limit is None:
            return 0
        first = keys_of(benchmark)[:1]
        return sum(
            _finished(other) > _finished(benchmark)
            for other in self._in_namespace(str(benchmark["metadata"]["namespace"]))
            if is_finished(other) and keys_of(other)[:1] == first
        )

    def _in_namespace(self, namespace: str) -> list[Json]:
        return [item for item in self.objects.of(namespace).values() if item["metadata"]["namespace"] == namespace]

    # What changes

    def _on_object(self, old: Json | None, new: Json | None) -> None:
        item = new or old
        assert item is not None, "an informer tells of one object at least"
        key = key_of(item)
        if new is None or (old is not None and old["metadata"]["uid"] != new["metadata"]["uid"]):
            self._heard.pop(key, None)
        for one, follows in ((old, False), (new, True)):
            for service in services_of(one) if one is not None else ():
                followers = self._followers_of.setdefault((key[0], service), set())
                followers.discard(key)
                if follows and not is_finished(item):
                    followers.add(key)
                if not followers:
                    del self._followers_of[key[0], service]
        self._remember_finished(key, old, new)
        self.add(BenchmarkKey(*key), Priority.DELETION if new is None else Priority.CHANGE)
        was, now = ((is_finished(one), is_stuck(one)) if one is not None else (False, False) for one in (old, new))
        if new is None or was != now:
            self._wake_others(key, is_finished(item))

    def _remember_finished(self, key: Key, old: Json | None, new: Json | None) -> None:
        """What a service's status concludes from follows from what is finished."""
        item = new or old or {}
        for service in services_of(item):
            measured = (key[0], service)
            found = self._finished_of.setdefault(measured, {})
            before = found.pop(key, None)
            if new is not None and is_finished(new):
                found[key] = new
            if not found:
                del self._finished_of[measured]
            if (before or {}).get("status") != (found.get(key) or {}).get("status"):
                self.world.wake(measured)

    def _wake_others(self, key: Key, is_over: bool) -> None:
        """Who waits for a Benchmark, and who is older than the history may be."""
        has_limit = self.world.defaults.benchmarks is not None
        for other in self._in_namespace(key[0]):
            if key_of(other) != key and (not is_finished(other) or (is_over and has_limit)):
                self.add(BenchmarkKey(*key_of(other)), Priority.CHANGE)

    def _on_service(self, service: Key) -> None:
        for key in self._followers_of.get(service, ()):
            self.add(BenchmarkKey(*key), Priority.CHANGE)

    def _remember_job(self, old: Json | None, new: Json | None) -> None:
        """When a Job ends, or goes, others may begin: also those that waited for one whose Benchmark is gone."""
        item = new or old or {}
        if item.get("kind") != kinds.JOBS.kind or (owner := owner_name(item, names.BENCHMARK_KIND)) is None:
            return
        key, keys = key_of(item), loads_of(new) if new is not None else frozenset()
        before = self._loading.pop(key, None)
        if keys:
            uids = (str(o.get("uid", "")) for o in item["metadata"]["ownerReferences"] if o.get("controller"))
            self._loading[key] = _Load(owner, next(uids, ""), keys)
        elif before is not None:
            self._wake_others((key[0], owner), is_over=False)

    def on_child(self, old: Json | None, new: Json | None) -> None:
        self._remember_job(old, new)
        for item in (old, new):
            if item is not None and (name := owner_name(item, names.BENCHMARK_KIND)) is not None:
                key = (str(item["metadata"].get("namespace", "")), name)
                if new is not None and _progress(old) != _progress(new):
                    self._heard[key] = self.now()
                self.add(BenchmarkKey(*key), Priority.CHANGE)

    def on_pod(self, old: Json | None, new: Json | None) -> None:
        for item, is_there in ((old, False), (new, True)):
            metadata: Json = item["metadata"] if item is not None else {}
            labels = metadata.get("labels") or {}
            namespace = str(metadata.get("namespace", ""))
            if item is not None and (service := labels.get(names.LABEL_SERVICE)) is not None and old != new:
                self._on_service((namespace, str(service)))
            if item is None or (name := labels.get(names.LABEL_BENCHMARK)) is None:
                continue
            key = (namespace, str(name))
            pods = self._pods_of.setdefault(key, {})
            if is_there:
                pods[metadata["name"]] = item
            else:
                pods.pop(metadata["name"], None)
            if not pods:
                del self._pods_of[key]
            if old != new:
                self.add(BenchmarkKey(*key), Priority.CHANGE)


def _finished(benchmark: Json) -> tuple[str, str]:
    """The latest is the largest. Times of the API are of one length, and sort as text."""
    return str(benchmark["status"].get("finishedAt", "")), str(benchmark["metadata"]["name"])


def _progress(item: Json | None) -> object:
    return ((item or {}).get("data") or {}).get(PROGRESS)


@dataclass(slots=True)
class BenchmarkReconciler:
    """Carries out decisions about Benchmarks.

    Args:
        wake_after: Called with a key and seconds when it should be looked at again.
    """

    world: BenchmarkWorld
    client: ApiClient
    applier: Applier
    wake_after: Callable[[BenchmarkKey, float], None]
    now: Callable[[], datetime] = _now
    _statuses: StatusWriter[BenchmarkKey] = field(init=False)
    #: Of two that could begin on one target at the same moment, the second must see the first one's Job.
    _beginning: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self._statuses = StatusWriter(self.client, kinds.BENCHMARKS, self.wake_after)

    async def reconcile(self, key: BenchmarkKey) -> None:
        """Take one Benchmark a step further, and write its status.

        Raises:
            TryAgain: Something could not be done; it is in the status.
            ApiError: The status could not be written.
        """
        if self.world.is_listing(key.namespace):
            self.wake_after(key, _LIST_AGAIN_S)
            return
        seen, decision = await self._decide(key)
        if decision.job is None:
            await self._carry_out(key, seen, decision)
            return
        async with self._beginning:
            seen, decision = await self._decide(key)
            await self._carry_out(key, seen, decision)

    async def _decide(self, key: BenchmarkKey) -> tuple[BenchmarkObservation | None, BenchmarkDecision]:
        seen = self.world.observe(key)
        if seen is not None and (missing := [name for name, target in seen.targets.items() if target is None]):
            for name in missing:
                live = await self.client.get(kinds.INFERENCE_SERVICES, key.namespace, name)
                if live is not None and self.world.world.take_service(dict(live)):
                    # Its own watch will tell nothing new of it.
                    self.world.world.wake((key.namespace, name))
            seen = self.world.observe(key)
        if seen is None:
            return None, BenchmarkDecision(is_deleted=True)
        return seen, decide_benchmark(seen, self.now())

    async def _carry_out(
        self, key: BenchmarkKey, seen: BenchmarkObservation | None, decision: BenchmarkDecision
    ) -> None:
        if seen is None or decision.is_deleted or await self._is_gone(seen, decision):
            self._statuses.forget(key)
            return
        if decision.is_outdated:
            await self.client.delete(kinds.BENCHMARKS, seen.namespace, seen.name, uid=seen.uid or "")
            return
        now = self.now()
        if decision.status_first and not await self._write(key, seen, make_benchmark_status(seen, decision, now), now):
            return
        outcomes = await self._apply(seen, decision)
        obstacles, contended = tell_outcomes(outcomes)
        if not decision.status_first:
            status = make_benchmark_status(seen, decision, now, obstacles=obstacles, contended=contended)
            await self._write(key, seen, status, now)
        waits = [o.retry_after_s for o in outcomes if isinstance(o, Contended)]
        waits += [decision.requeue_after.total_seconds()] if decision.requeue_after is not None else []
        if waits:
            self.wake_after(key, min(waits))
        if obstacles:
            raise TryAgain(obstacles[0].message, asked_to_wait_s(outcomes))

    async def _apply(self, seen: BenchmarkObservation, decision: BenchmarkDecision) -> list[Outcome]:
        owner = ObjectRef(kinds.BENCHMARKS, seen.namespace, seen.name, seen.uid or "")
        outcomes = await self.applier.apply(owner, decision.needed, with_kinds(decision.prune))
        is_hindered = any(isinstance(o, Refused | Foreign | Terminating) for o in outcomes)
        if decision.job is not None and not is_hindered:
            # A Job that could not write its result would measure for nothing.
            outcomes += await self.applier.apply(owner, [decision.job])
        return outcomes

    async def _write(
        self, key: BenchmarkKey, seen: BenchmarkObservation, status: dict[str, Any], now: datetime
    ) -> bool:
        """False: it is gone."""
        written = await self._statuses.write(key, seen.benchmark, status, now)
        if written is not None and written is not seen.benchmark:
            self.world.objects.absorb(dict(written))
        return written is not None

    async def _is_gone(self, seen: BenchmarkObservation, decision: BenchmarkDecision) -> bool:
        """Whether children are missing because the object was deleted."""
        wanted = [*decision.needed, *([decision.job] if decision.job is not None else [])]
        if not brings_back(seen.benchmark, seen.children, wanted):
            return False
        live = await self.client.get(kinds.BENCHMARKS, seen.namespace, seen.name)
        is_same = live is not None and live["metadata"].get("uid") == seen.uid
        return live is None or not is_same or live["metadata"].get("deletionTimestamp") is not None
