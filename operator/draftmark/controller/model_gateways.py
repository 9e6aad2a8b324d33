"""ModelGateways: what is known of them, and one of them, once: observe, decide, apply, say so.

Their kind is watched by an informer and not through kopf, which looks once, at its start, which kinds there are: a
definition that is installed later, or never, is no reason to start again. InferenceServices are watched a second time, cut
to what a gateway needs, because only a list that is known to be complete may take a model off the gateway; as long as
there is no ModelGateway, they are not.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import Any, Final

from draftmark.api import names
from draftmark.cluster import kinds
from draftmark.cluster.apply import Applier
from draftmark.cluster.caches import Caches
from draftmark.cluster.client import ApiClient
from draftmark.cluster.informer import Informer
from draftmark.cluster.outcomes import Contended, ObjectRef
from draftmark.controller.gateways import Gateways
from draftmark.controller.observe import (
    Key,
    World,
    children_of,
    key_of,
    owner_name,
    role_of,
    unread,
    without_managed_fields,
)
from draftmark.controller.queue import Priority, TryAgain
from draftmark.controller.reconcile import asked_to_wait_s, tell_outcomes, with_kinds
from draftmark.controller.writing import StatusWriter, brings_back
from draftmark.facts.addresses import cluster_ip
from draftmark.model_gateway.decide import decide_model_gateway
from draftmark.model_gateway.observation import ModelGatewayDecision, ModelGatewayObservation
from draftmark.model_gateway.status import make_model_gateway_status
from draftmark.observation import GatewayState, Json

logger = logging.getLogger(__name__)

#: Seconds until the next look, while the first list of InferenceServices is not complete.
_LIST_AGAIN_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class ModelGatewayKey:
    """A ModelGateway in the work queue."""

    namespace: str
    name: str


@dataclass(slots=True)
class ModelGatewayWorld:
    """What is known of the ModelGateways, and who has to be looked at when something changes.

    Args:
        world: Has the caches of children and pods.
        add: Called with a key when something of it changed, and how urgent that is. Must be quick.
    """

    world: World
    client: ApiClient
    add: Callable[[ModelGatewayKey, Priority], None]
    #: What gateway pods told last, by the pod's name.
    gateways: dict[Key, dict[str, GatewayState]] = field(default_factory=dict)
    #: Pods that are asked and have not answered for a while, by name.
    silent: dict[Key, frozenset[str]] = field(default_factory=dict)
    objects: Caches[Json] = field(init=False)
    services: Caches[Json] = field(init=False)
    _pods_of: dict[Key, dict[str, Json]] = field(default_factory=dict)
    _there_is_one: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        def objects(namespace: str | None) -> Informer[Json]:
            return Informer(
                self.client,
                kinds.MODEL_GATEWAYS,
                on_change=self._on_object,
                namespace=namespace,
                project=without_managed_fields,
            )

        def services(namespace: str | None) -> Informer[Json]:
            return Informer(
                self.client,
                kinds.INFERENCE_SERVICES,
                on_change=self._on_service,
                namespace=namespace,
                project=_slim_service,
            )

        self.objects = Caches(kinds.MODEL_GATEWAYS, objects, self.world.namespaces)
        self.services = Caches(kinds.INFERENCE_SERVICES, services, self.world.namespaces)
        self.world.listeners.append(self)

    def informers(self) -> tuple[Informer[Any], ...]:
        return (*self.objects.parts, *self.services.parts)

    async def run(self, resync_s: float, random: Random) -> None:
        """Watch, and look at each now and then although nothing was heard, until cancelled."""
        await asyncio.gather(
            *(part.run() for part in self.objects.parts), self._watch_services(), self._resync(resync_s, random)
        )

    async def _watch_services(self) -> None:
        await self._there_is_one.wait()
        await asyncio.gather(*(part.run() for part in self.services.parts))

    async def _resync(self, resync_s: float, random: Random) -> None:
        while True:
            await asyncio.sleep(resync_s * random.uniform(0.8, 1.2))
            for item in self.objects.values():
                self.add(ModelGatewayKey(*key_of(item)), Priority.RESYNC)

    # What `Gateways` asks for

    def knows(self, key: Key) -> bool:
        """Whether there is a ModelGateway of this name."""
        return self.objects.get(*key) is not None

    def pods_of(self, key: Key, role: str) -> tuple[Json, ...]:
        """The pods of a ModelGateway, by name."""
        return tuple(pod for _, pod in sorted(self._pods_of.get(key, {}).items()) if role_of(pod) == role)

    def wake(self, key: Key) -> None:
        """Have a ModelGateway looked at."""
        self.add(ModelGatewayKey(*key), Priority.CHANGE)

    # What there is

    def is_listing(self, namespace: str) -> bool:
        """Whether the first list of InferenceServices is under way: until it is complete, nothing follows from it."""
        services = self.services.of(namespace)
        return not services.is_synced and not (services.denied or services.absent)

    def observe(self, key: ModelGatewayKey) -> ModelGatewayObservation | None:
        """What is known of one ModelGateway, or None when there is none of that name."""
        gateway = self.objects.get(key.namespace, key.name)
        if gateway is None:
            return None
        known = self.services.of(key.namespace)
        services = [s for s in known.values() if s["metadata"]["namespace"] == key.namespace]
        uid = str(gateway["metadata"]["uid"])
        plain = (key.namespace, key.name)
        return ModelGatewayObservation(
            gateway=gateway,
            services=tuple(services) if unread(known) is None else None,
            addresses={str(s["metadata"]["name"]): ip for s in services if (ip := self._address(s)) is not None},
            **children_of(self.world.children, key.namespace, uid),
            pods=self.pods_of(plain, names.ROLE_GATEWAY),
            states=self.gateways.get(plain, {}),
            silent=self.silent.get(plain, frozenset()),
            defaults=self.world.defaults,
        )

    def _address(self, service: Json) -> str | None:
        """The cluster IP of an InferenceService's own Service; None before it has one."""
        metadata = service["metadata"]
        found = self.world.children[kinds.SERVICES].get(metadata["namespace"], metadata["name"])
        owners = (found or {}).get("metadata", {}).get("ownerReferences") or ()
        if found is None or not any(o.get("controller") and o.get("uid") == metadata["uid"] for o in owners):
            return None
        return cluster_ip(found)

    # What changes

    def _on_object(self, old: Json | None, new: Json | None) -> None:
        item = new or old
        assert item is not None, "an informer tells of one object at least"
        self._there_is_one.set()
        key = key_of(item)
        if new is None or (old is not None and old["metadata"]["uid"] != new["metadata"]["uid"]):
            self.gateways.pop(key, None)
            self.silent.pop(key, None)
        self.add(ModelGatewayKey(*key), Priority.DELETION if new is None else Priority.CHANGE)

    def _on_service(self, old: Json | None, new: Json | None) -> None:
        if old != new:
            self._wake_all((new or old or {})["metadata"]["namespace"])

    def on_child(self, old: Json | None, new: Json | None) -> None:
        for item in (old, new):
            if item is not None and (name := owner_name(item, names.MODEL_GATEWAY_KIND)) is not None:
                self.wake((str(item["metadata"].get("namespace", "")), name))
        item = new or old
        assert item is not None, "an informer tells of one object at least"
        is_front = item.get("kind") == kinds.SERVICES.kind and owner_name(item) == item["metadata"]["name"]
        if is_front and cluster_ip(old) != cluster_ip(new):
            self._wake_all(str(item["metadata"].get("namespace", "")))

    def on_pod(self, old: Json | None, new: Json | None) -> None:
        for item, is_there in ((old, False), (new, True)):
            metadata: Json = item["metadata"] if item is not None else {}
            if item is None or (name := metadata.get("labels", {}).get(names.LABEL_MODEL_GATEWAY)) is None:
                continue
            key = (str(metadata.get("namespace", "")), str(name))
            pods = self._pods_of.setdefault(key, {})
            if is_there:
                pods[metadata["name"]] = item
            else:
                pods.pop(metadata["name"], None)
                if new is None:
                    self.gateways.get(key, {}).pop(metadata["name"], None)
            if not pods:
                del self._pods_of[key]
            if old != new:
                self.wake(key)

    def _wake_all(self, namespace: str) -> None:
        for item in self.objects.values():
            if item["metadata"]["namespace"] == namespace:
                self.wake(key_of(item))


def _slim_service(service: Mapping[str, Any]) -> Json:
    """What a gateway needs of an InferenceService: thousands are kept, and their status changes often."""
    metadata, spec = service["metadata"], service.get("spec") or {}
    kept = ("name", "namespace", "uid", "creationTimestamp", "deletionTimestamp")
    return {
        "metadata": {key: metadata[key] for key in kept if key in metadata},
        "spec": {"model": {"name": (spec.get("model") or {}).get("name")}, "traffic": spec.get("traffic")},
        "status": {"model": (service.get("status") or {}).get("model")},
    }


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True)
class ModelGatewayReconciler:
    """Carries out decisions about ModelGateways.

    Args:
        wake_after: Called with a key and seconds when it should be looked at again.
    """

    world: ModelGatewayWorld
    client: ApiClient
    applier: Applier
    gateways: Gateways
    wake_after: Callable[[ModelGatewayKey, float], None]
    now: Callable[[], datetime] = _now
    _statuses: StatusWriter[ModelGatewayKey] = field(init=False)

    def __post_init__(self) -> None:
        self._statuses = StatusWriter(self.client, kinds.MODEL_GATEWAYS, self.wake_after)

    async def reconcile(self, key: ModelGatewayKey) -> None:
        """Bring one ModelGateway to what its spec and its namespace say, and write its status.

        Raises:
            TryAgain: Something could not be done; it is in the status.
            ApiError: The status could not be written.
        """
        if self.world.is_listing(key.namespace):
            self.wake_after(key, _LIST_AGAIN_S)
            return
        plain = (key.namespace, key.name)
        seen = self.world.observe(key)
        decision = decide_model_gateway(seen) if seen is not None else ModelGatewayDecision(is_deleted=True)
        if seen is None or decision.is_deleted or await self._is_gone(seen, decision):
            self.gateways.leave(plain)
            self._statuses.forget(key)
            return
        now = self.now()
        owner = ObjectRef(kinds.MODEL_GATEWAYS, seen.namespace, seen.name, seen.uid or "")
        outcomes = await self.applier.apply(owner, decision.desired, with_kinds(decision.prune))
        if decision.target is not None:
            self.gateways.follow(plain, decision.target)
        obstacles, contended = tell_outcomes(outcomes)
        status = make_model_gateway_status(seen, decision, now, obstacles=obstacles, contended=contended)
        written = await self._statuses.write(key, seen.gateway, status, now)
        if written is not None and written is not seen.gateway:
            self.world.objects.absorb(dict(written))
        if waits := [o.retry_after_s for o in outcomes if isinstance(o, Contended)]:
            self.wake_after(key, min(waits))
        if obstacles:
            raise TryAgain(obstacles[0].message, asked_to_wait_s(outcomes))

    async def _is_gone(self, seen: ModelGatewayObservation, decision: ModelGatewayDecision) -> bool:
        """Whether children are missing because the object was deleted."""
        if not brings_back(seen.gateway, seen.children, decision.desired):
            return False
        live = await self.client.get(kinds.MODEL_GATEWAYS, seen.namespace, seen.name)
        is_same = live is not None and live["metadata"].get("uid") == seen.uid
        return live is None or not is_same or live["metadata"].get("deletionTimestamp") is not None

    async def stop(self) -> None:
        """Ask no pod any more."""
        await self.gateways.stop()
