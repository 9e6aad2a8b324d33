"""Everything that is known of the cluster, kept up to date, and cut to what concerns one service.

Our own kind comes through kopf (`take_service`), the rest through informers. Nothing here decides.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from sys import intern
from typing import Any, Final, Protocol

from draftmark.api import names
from draftmark.api.conditions import ACCEPTED
from draftmark.api.defaults import Defaults
from draftmark.cluster.caches import Caches
from draftmark.cluster.client import ApiClient
from draftmark.cluster.informer import Informer
from draftmark.cluster.kinds import NODES, PERSISTENT_VOLUME_CLAIMS, PODS, RESOURCE_SLICES, Kind, child_kinds
from draftmark.facts.devices import DeviceFacts
from draftmark.facts.nodes import ClusterFacts, NodeFacts, read_node, trim_node
from draftmark.facts.pods import restarts
from draftmark.facts.resource_slices import is_of_gpus, read_resource_slices, trim_resource_slice, with_slices
from draftmark.observation import GatewayState, Json, Observation, Proof

#: Annotations of pods that something is done with.
_ANNOTATIONS: Final = (names.ANNOTATION_CONFIG,)

#: (namespace, name) of an InferenceService.
Key = tuple[str, str]

_OURS: Final = f"{names.LABEL_MANAGED_BY}={names.MANAGED_BY}"


class Listener(Protocol):
    """Somebody else to whom a child or a pod may belong. Must be quick."""

    def on_child(self, old: Json | None, new: Json | None) -> None: ...

    def on_pod(self, old: Json | None, new: Json | None) -> None: ...


@dataclass(slots=True)
class World:
    """The caches, and who has to be looked at when one of them changes.

    Args:
        wake: Called with a service's key when something of it changed. Must be quick.
        namespaces: Where services are looked after; none: everywhere. With some, nodes and ResourceSlices are not looked
            at: they belong to the whole cluster.
    """

    client: ApiClient
    defaults: Defaults
    wake: Callable[[Key], None]
    namespaces: Sequence[str] = ()
    server_version: str | None = None
    services: dict[Key, Json] = field(default_factory=dict)
    proofs: dict[Key, tuple[str, Proof]] = field(default_factory=dict)
    #: What gateway pods told last, by the pod's name.
    gateways: dict[Key, dict[str, GatewayState]] = field(default_factory=dict)
    #: Gateway pods that are asked and have not answered for a while, by name.
    silent: dict[Key, frozenset[str]] = field(default_factory=dict)
    children: dict[Kind, Caches[dict[str, Any]]] = field(default_factory=dict)
    pods: Caches[Json] = field(init=False)
    claims: Caches[Json] = field(init=False)
    nodes: Informer[Json] | None = field(init=False)
    #: GPUs that drivers of Dynamic Resource Allocation publish; the kind may be missing.
    slices: Informer[Json] | None = field(init=False)
    #: Told of every child and every pod as well.
    listeners: list[Listener] = field(default_factory=list)
    #: The finished Benchmarks that measured a service; None: not known yet.
    benchmarks_of: Callable[[Key], tuple[Json, ...] | None] = lambda _: ()
    #: Told of every InferenceService that came, changed or went.
    followers: list[Callable[[Key], None]] = field(default_factory=list)
    #: Role and restarts of each pod, by name.
    _pods_of: dict[Key, dict[str, tuple[str, int]]] = field(default_factory=dict)
    _claims_in: dict[str, dict[str, str]] = field(default_factory=dict)
    _nodes: dict[str, NodeFacts] = field(default_factory=dict)
    #: GPUs of each node by its ResourceSlices; None: one of them has changed.
    _claimed: dict[str, tuple[DeviceFacts, ...]] | None = None
    #: Both by name; None: one of them has changed. Every look at a service needs it, and nodes seldom change.
    _nodes_in_order: tuple[NodeFacts, ...] | None = None

    def __post_init__(self) -> None:
        def watch(
            kind: Kind,
            on_change: Callable[[Json | None, Json | None], None],
            project: Callable[[Mapping[str, Any]], Any] | None,
            label_selector: str | None = None,
        ) -> Caches[Any]:
            def make(namespace: str | None) -> Informer[Any]:
                return Informer(
                    self.client,
                    kind,
                    on_change=on_change,
                    namespace=namespace,
                    label_selector=label_selector,
                    project=project,
                )

            return Caches(kind, make, self.namespaces)

        for kind in child_kinds():
            self.children[kind] = watch(kind, self._on_child, None, _OURS)
        self.pods = watch(PODS, self._on_pod, slim_pod, _OURS)
        self.claims = watch(PERSISTENT_VOLUME_CLAIMS, self._on_claim, _slim_claim)
        self.nodes = (
            Informer(self.client, NODES, on_change=self._on_node, project=trim_node) if not self.namespaces else None
        )
        self.slices = (
            Informer(
                self.client, RESOURCE_SLICES, on_change=self._on_slice, project=trim_resource_slice, is_optional=True
            )
            if not self.namespaces
            else None
        )

    def informers(self) -> tuple[Informer[Any], ...]:
        """All informers; each is run as a task."""
        caches: tuple[Caches[Any], ...] = (*self.children.values(), self.pods, self.claims)
        of_the_cluster = (informer for informer in (self.nodes, self.slices) if informer is not None)
        return (*(part for each in caches for part in each.parts), *of_the_cluster)

    async def wait_until_read(self, timeout_s: float) -> tuple[str, ...]:
        """Wait for the first complete list of every kind; return the kinds that are still missing after the time."""
        waiting = {asyncio.create_task(i.synced.wait()): i.kind.kind for i in self.informers()}
        try:
            _, pending = await asyncio.wait(waiting, timeout=timeout_s)
            return tuple(sorted(waiting[task] for task in pending))
        finally:
            for task in waiting:
                task.cancel()

    def take_service(self, service: Json) -> bool:
        """Keep an InferenceService unless a newer one is known; says whether anything changed."""
        key = key_of(service)
        before = self.services.get(key)
        if before is not None and before["metadata"].get("uid") == service["metadata"].get("uid"):
            if version_of(before) >= version_of(service):
                return False
        else:
            # A successor of the same name has nothing of the one before.
            self._forget(key)
        self.services[key] = without_managed_fields(service)
        self._tell_followers(key)
        return True

    def drop_service(self, key: Key, uid: str | None) -> None:
        """Forget an InferenceService, unless one of the same name has taken its place."""
        known = self.services.get(key)
        if known is not None and (uid is None or known["metadata"].get("uid") == uid):
            del self.services[key]
            self._forget(key)
            self._tell_followers(key)

    def _tell_followers(self, key: Key) -> None:
        for follower in self.followers:
            follower(key)

    def _forget(self, key: Key) -> None:
        self.proofs.pop(key, None)
        self.gateways.pop(key, None)
        self.silent.pop(key, None)

    def knows(self, key: Key) -> bool:
        """Whether there is an InferenceService of this name."""
        return key in self.services

    def observe(self, key: Key) -> Observation | None:
        """What is known of one service, or None when there is none of that name."""
        service = self.services.get(key)
        if service is None:
            return None
        uid = str(service["metadata"].get("uid", ""))
        proven = self.proofs.get(key)
        return Observation(
            service=service,
            **children_of(self.children, key[0], uid),
            pods=self.pods_of(key, names.ROLE_ENGINE),
            router_pods=self.pods_of(key, names.ROLE_ROUTER),
            gateway_pods=self.pods_of(key, names.ROLE_GATEWAY),
            model_facts_pods=self.pods_of(key, names.ROLE_MODEL_FACTS),
            benchmarks=self.benchmarks_of(key),
            can_ask=True,
            gateways=self.gateways.get(key, {}),
            silent_gateways=self.silent.get(key, frozenset()),
            claims=self._claims_in.get(key[0], {}) if not unread(self.claims.of(key[0])) else None,
            cluster=self.cluster_facts(),
            defaults=self.defaults,
            proof=proven[1] if proven is not None and proven[0] == uid else None,
        )

    def pods_of(self, key: Key, role: str) -> tuple[Json, ...]:
        """The pods of one role of a service, by name."""
        of_role = sorted(name for name, (its, _) in self._pods_of.get(key, {}).items() if its == role)
        return tuple(pod for name in of_role if (pod := self.pods.get(key[0], name)) is not None)

    def engine_restarts(self, key: Key) -> int:
        """Restarts of the engine pods that there are. Reads no pod, so it may be called from another thread."""
        pods = tuple(self._pods_of.get(key, {}).values())
        return sum(count for role, count in pods if role == names.ROLE_ENGINE)

    def cluster_facts(self) -> ClusterFacts:
        """What the nodes and the API server can do."""
        if self.nodes is None or unread(self.nodes):
            return ClusterFacts(server_version=self.server_version)
        if self._nodes_in_order is None:
            if self._claimed is None:
                self._claimed = read_resource_slices(self.slices.values()) if self.slices is not None else {}
            self._nodes_in_order = with_slices((node for _, node in sorted(self._nodes.items())), self._claimed)
        return ClusterFacts(nodes=self._nodes_in_order, server_version=self.server_version)

    def _on_child(self, old: Json | None, new: Json | None) -> None:
        is_seen = old is None or new is None or _what_matters(old) != _what_matters(new)
        for item in (old, new):
            if is_seen and item is not None and (name := owner_name(item)) is not None:
                self.wake((str(item["metadata"].get("namespace", "")), name))
        for listener in self.listeners:
            listener.on_child(old, new)

    def _on_pod(self, old: Json | None, new: Json | None) -> None:
        for listener in self.listeners:
            listener.on_pod(old, new)
        for item, is_there in ((old, False), (new, True)):
            if item is None or (service := item["metadata"].get("labels", {}).get(names.LABEL_SERVICE)) is None:
                continue
            metadata = item["metadata"]
            key = (str(metadata.get("namespace", "")), str(service))
            pods = self._pods_of.setdefault(key, {})
            if is_there:
                pods[metadata["name"]] = (role_of(item), restarts(item))
            else:
                pods.pop(metadata["name"], None)
                if new is None:  # what a pod told outlives its changes: our own annotation is one
                    self.gateways.get(key, {}).pop(metadata["name"], None)
            if not pods:
                del self._pods_of[key]
            if old != new:
                self.wake(key)

    def _on_claim(self, old: Json | None, new: Json | None) -> None:
        if old == new:
            return
        item = new or old
        assert item is not None, "an informer tells of one object at least"
        namespace, name = str(item["metadata"].get("namespace", "")), str(item["metadata"]["name"])
        claims = self._claims_in.setdefault(namespace, {})
        if new is not None:
            claims[name] = str(new["status"]["phase"])
        else:
            claims.pop(name, None)
        for key in [k for k in self.services if k[0] == namespace]:
            if f"pvc://{name}/" in str(self.services[key].get("spec", {}).get("model", {}).get("uri", "")):
                self.wake(key)

    def _on_node(self, old: Json | None, new: Json | None) -> None:
        # A kubelet rewrites its node's status every few minutes, and the lists come again: mostly with nothing new.
        if old == new:
            return
        before = self._nodes.get(str((new or old or {})["metadata"]["name"]))
        after = read_node(new) if new is not None else None
        if after is not None:
            self._nodes[after.name] = after
        elif before is not None:
            del self._nodes[before.name]
        self._nodes_in_order = None
        if before == after:
            return
        # What runs is pinned. So a node can help those that wait for one, and whether images can be mounted is said of all
        # that need it. Better plans for others are found when they are looked at next.
        is_mounting = _mounting(before) != _mounting(after)
        for key, service in list(self.services.items()):
            needs_images = str(service.get("spec", {}).get("model", {}).get("uri", "")).startswith("oci://")
            if (is_mounting and needs_images) or _is_refused(service):
                self.wake(key)

    def _on_slice(self, old: Json | None, new: Json | None) -> None:
        if old == new or not any(item is not None and is_of_gpus(item) for item in (old, new)):
            return
        self._claimed = self._nodes_in_order = None
        for key, service in list(self.services.items()):
            if _is_refused(service):
                self.wake(key)


def _mounting(node: NodeFacts | None) -> str | None:
    """What a node says to whether images can be mounted; None: nothing."""
    return node.container_runtime if node is not None and not node.is_cordoned else None


def _is_refused(service: Json) -> bool:
    conditions = (service.get("status") or {}).get("conditions") or ()
    return any(c.get("type") == ACCEPTED and c.get("status") == "False" for c in conditions)


def key_of(service: Json) -> Key:
    """The key of an InferenceService."""
    return str(service["metadata"].get("namespace", "")), str(service["metadata"]["name"])


def without_managed_fields(item: Mapping[str, Any]) -> dict[str, Any]:
    """An object without the bookkeeping of server-side apply, its largest part."""
    return {**item, "metadata": {k: v for k, v in item["metadata"].items() if k != "managedFields"}}


def version_of(item: Json) -> int:
    """The resourceVersion as a number; of two versions of an object the larger is the newer."""
    text = str(item["metadata"].get("resourceVersion", "0"))
    return int(text) if text.isdecimal() else 0


def unread(informer: Informer[Any]) -> str | None:
    """Why the objects of a kind are not known; None: they are."""
    if informer.denied or informer.absent:
        return informer.denied or informer.absent
    return None if informer.synced.is_set() else "not listed yet"


def children_of(children: Mapping[Kind, Caches[dict[str, Any]]], namespace: str, uid: str) -> dict[str, Any]:
    """What an observation has of an owner's children: those that are known, and why others are not."""
    caches = {kind.kind: cache.of(namespace) for kind, cache in children.items()}
    return {
        "children": {kind: tuple(informer.owned_by(uid)) for kind, informer in caches.items()},
        "unread": {kind: why for kind, informer in caches.items() if (why := unread(informer))},
    }


def owner_name(item: Json, kind: str = names.KIND) -> str | None:
    """The object of a kind of ours that controls this one; None: another one does, or none."""
    for owner in item["metadata"].get("ownerReferences") or ():
        if owner.get("controller") and owner.get("kind") == kind and owner.get("apiVersion") == names.API_VERSION:
            return str(owner["name"])
    return None


def _what_matters(child: Json) -> Json:
    """A child without what its controllers count and note on their way: nothing is decided by that."""
    rest = {key: value for key, value in child.items() if key not in ("metadata", "status")}
    metadata = {k: v for k, v in child["metadata"].items() if k not in ("resourceVersion", "generation")}
    status = child.get("status") or {}
    refused = [
        (c.get("status"), c.get("message")) for c in status.get("conditions") or () if c.get("type") == "ReplicaFailure"
    ]
    ended = [
        (c["type"], c.get("status"), c.get("reason"))
        for c in status.get("conditions") or ()
        if child.get("kind") == "Job" and c.get("type") in ("Complete", "Failed")
    ]
    told = (status.get("replicas"), status.get("readyReplicas"), refused, ended)
    return {**rest, "metadata": metadata, "status": told}


def _pick(item: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    return {key: item[key] for key in keys if key in item}


def slim_pod(pod: Mapping[str, Any]) -> Json:
    """What a decision or a condition needs of a pod: thousands are kept."""
    return {
        "metadata": {
            **_pick(pod["metadata"], ("name", "namespace", "uid", "labels", "creationTimestamp", "deletionTimestamp")),
            "annotations": _pick(pod["metadata"].get("annotations") or {}, _ANNOTATIONS),
        },
        "spec": {
            **_pick(pod.get("spec", {}), ("nodeName",)),
            "volumes": [v for v in pod.get("spec", {}).get("volumes") or () if "persistentVolumeClaim" in v],
        },
        "status": _pick(
            pod.get("status", {}),
            ("phase", "reason", "message", "podIP", "conditions", "containerStatuses", "initContainerStatuses"),
        ),
    }


def role_of(pod: Json) -> str:
    """What a pod of ours is for."""
    return intern(str(pod["metadata"].get("labels", {}).get(names.LABEL_ROLE, names.ROLE_ENGINE)))


def _slim_claim(claim: Mapping[str, Any]) -> Json:
    return {
        "metadata": _pick(claim["metadata"], ("name", "namespace")),
        "status": {"phase": claim.get("status", {}).get("phase", "Pending")},
    }
