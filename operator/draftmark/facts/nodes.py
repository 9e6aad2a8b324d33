"""What the nodes and the API server can do, read from Node objects and a version.

`read_node` keeps what a decision can depend on, and nothing that a kubelet rewrites with each heartbeat. Free capacity is
not a part of it: allocatable is a fact of the node, while what pods hold of it changes all the time and is the
scheduler's to know. A plan says where replicas may run, not that there is room today.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from sys import intern
from typing import Any, Final

from draftmark.facts.devices import MAX_DEVICE_RESOURCES, DeviceFacts, is_device_resource, read_devices, whole
from draftmark.facts.quantity import parse_quantity

__all__ = [
    "ClusterFacts",
    "ImageVolumes",
    "NodeFacts",
    "Taint",
    "mounts_images",
    "read_node",
    "read_nodes",
    "trim_node",
]

#: First containerd that mounts image volumes. Source: containerd 2.1 release notes; 2.4.2 was seen to do it, and 1.6
#: was seen to leave the pod in CreateContainerError with a message that says nothing of image volumes.
MIN_CONTAINERD: Final = (2, 1)
#: First CRI-O with image volumes. Source: CRI-O documentation; not tried.
MIN_CRIO: Final = (1, 31)
#: First Kubernetes minor version that has image volumes without a feature gate being set. 1.35.4 was tried.
MIN_KUBERNETES_MINOR: Final = 35

#: Labels of one node that are kept. Node Feature Discovery writes some 100; a node has its pools, zones and products in
#: some 50 others. Above it, those of CPU and kernel features go first. A guess, so that no node can fill the memory.
MAX_LABELS: Final = 256
#: Taints of one node that are kept. A guess: nodes have up to five.
MAX_TAINTS: Final = 64
#: Longest label value. Source: Kubernetes docs, "Labels and Selectors". What is longer is from no API server.
_MAX_VALUE: Final = 63
#: Longest label key: a DNS name of 253, a slash, and 63. Source: the same.
_MAX_KEY: Final = 317
#: Labels that tell when they were written, and nothing of the node. Sources: NVIDIA GPU Feature Discovery README; Gaudi
#: Feature Discovery, collector.
_CLOCKS: Final = frozenset({"nvidia.com/gfd.timestamp", "habana.ai/hfd.timestamp"})
#: Labels that are given up first.
_LEAST: Final = ("feature.node.kubernetes.io/cpu-", "feature.node.kubernetes.io/kernel-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Taint:
    """What keeps pods off a node."""

    key: str
    value: str = ""
    effect: str

    def __str__(self) -> str:
        return f"{self.key}={self.value}:{self.effect}" if self.value else f"{self.key}:{self.effect}"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """One node, as far as a decision depends on it."""

    name: str
    #: Such as containerd://2.4.2.
    container_runtime: str
    is_cordoned: bool = False
    #: Whether the kubelet says that it is Ready. A node that says nothing of it, as in a file made by hand, is.
    is_ready: bool = True
    taints: tuple[Taint, ...] = ()
    #: All but those that are clocks, `MAX_LABELS` at most: any of them can be selected by.
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    devices: tuple[DeviceFacts, ...] = ()
    #: Of the node's CPU: amd64, arm64; empty: not known.
    host_architecture: str = ""
    #: Allocatable; None: not known.
    cpu_millicores: int | None = None
    memory_bytes: int | None = None

    def devices_of(self, resource: str) -> DeviceFacts | None:
        """The devices that a resource name asks for; None: this node has none."""
        return next((devices for devices in self.devices if devices.resource == resource), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterFacts:
    """What is known about the cluster. `None` is unknown (offline, or not readable), which is not the same as none."""

    #: All nodes, the cordoned ones and those that are not ready as well.
    nodes: tuple[NodeFacts, ...] | None = None
    #: Such as v1.35.4.
    server_version: str | None = None

    @property
    def open_nodes(self) -> tuple[NodeFacts, ...] | None:
        """The nodes that are not cordoned."""
        return None if self.nodes is None else tuple(node for node in self.nodes if not node.is_cordoned)

    def image_volumes(self) -> "ImageVolumes":
        """Whether an OCI image can be mounted as a volume here."""
        minor = _minor(self.server_version) if self.server_version else None
        if minor is not None and minor < MIN_KUBERNETES_MINOR:
            return ImageVolumes(
                supported=False, why=f"the API server is {self.server_version}, 1.{MIN_KUBERNETES_MINOR} is needed"
            )
        nodes = self.open_nodes
        if nodes is None:
            return ImageVolumes(supported=None, why="the nodes are not known")
        able = [n for n in nodes if mounts_images(n.container_runtime)]
        if able or not nodes:
            return ImageVolumes(
                supported=True if able else None, why=f"{len(able)} of {len(nodes)} nodes mount image volumes"
            )
        runtimes = ", ".join(sorted({n.container_runtime for n in nodes})[:3])
        return ImageVolumes(
            supported=False,
            why=f"none of the {len(nodes)} nodes mounts image volumes (they run {runtimes}; containerd 2.1 or "
            "CRI-O 1.31 is needed)",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageVolumes:
    """Support for image volumes; `supported` is None when it cannot be known."""

    supported: bool | None
    why: str


def read_nodes(objects: Iterable[Mapping[str, Any]]) -> tuple[NodeFacts, ...]:
    """Facts of the nodes, ordered by name."""
    return tuple(sorted(map(read_node, objects), key=lambda n: n.name))


def read_node(node: Mapping[str, Any]) -> NodeFacts:
    """Facts of one node. Reads any object: `--nodes` is given any file, and what it does not know is left out."""
    trimmed = trim_node(node)
    spec, status = trimmed["spec"], trimmed["status"]
    labels = {intern(key): intern(value) for key, value in trimmed["metadata"]["labels"].items()}
    allocatable = status["allocatable"]
    return NodeFacts(
        name=intern(trimmed["metadata"]["name"]),
        container_runtime=intern(status["nodeInfo"]["containerRuntimeVersion"]),
        is_cordoned=spec["unschedulable"],
        is_ready=status["ready"],
        taints=tuple(Taint(key=intern(t["key"]), value=intern(t["value"]), effect=t["effect"]) for t in spec["taints"]),
        labels=labels,
        devices=read_devices(allocatable, labels),
        host_architecture=intern(status["nodeInfo"]["architecture"]),
        cpu_millicores=_scaled(allocatable.get("cpu"), 1000),
        memory_bytes=_scaled(allocatable.get("memory"), 1),
    )


def trim_node(node: Mapping[str, Any]) -> dict[str, Any]:
    """What `read_node` reads of a node, for a cache of thousands: some hundred bytes when packed, where a node has tens of
    thousands (images, volumes, addresses, conditions with the time of every heartbeat). Of a node that it was made of, it
    makes the same again."""
    metadata, spec, status = _part(node, "metadata"), _part(node, "spec"), _part(node, "status")
    info, allocatable = _part(status, "nodeInfo"), _part(status, "allocatable")
    kept = {"cpu", "memory"} | set(
        sorted(n for n in allocatable if isinstance(n, str) and is_device_resource(n) and whole(allocatable[n]))[
            :MAX_DEVICE_RESOURCES
        ]
    )
    ready = status.get("ready")
    return {
        "metadata": {"name": _text(metadata.get("name")), "labels": _labels(_part(metadata, "labels"))},
        "spec": {"unschedulable": bool(spec.get("unschedulable")), "taints": _taints(spec.get("taints"))},
        "status": {
            "allocatable": {
                name: str(value)
                for name, value in sorted(allocatable.items(), key=lambda item: str(item[0]))
                if name in kept and isinstance(value, str | int | float) and not isinstance(value, bool)
            },
            "nodeInfo": {key: _text(info.get(key)) for key in ("architecture", "containerRuntimeVersion")},
            "ready": ready if isinstance(ready, bool) else _is_ready(status.get("conditions")),
        },
    }


def _labels(labels: Mapping[Any, Any]) -> dict[str, str]:
    kept = {
        key: value
        for key, value in labels.items()
        if isinstance(key, str)
        and isinstance(value, str)
        and len(key) <= _MAX_KEY
        and len(value) <= _MAX_VALUE
        and key not in _CLOCKS
    }
    return dict(sorted(sorted(kept.items(), key=lambda item: (item[0].startswith(_LEAST), item[0]))[:MAX_LABELS]))


def _taints(taints: Any) -> list[dict[str, str]]:
    found = (t for t in taints if isinstance(t, Mapping)) if isinstance(taints, list | tuple) else ()
    texts = ({key: _text(taint.get(key)) for key in ("key", "value", "effect")} for taint in found)
    return [taint for taint in texts if taint["key"] and taint["effect"]][:MAX_TAINTS]


def _is_ready(conditions: Any) -> bool:
    """Unknown, which the control plane writes when a kubelet fell silent, is not ready."""
    found = (c for c in conditions if isinstance(c, Mapping)) if isinstance(conditions, list | tuple) else ()
    return all(condition.get("status") == "True" for condition in found if condition.get("type") == "Ready")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _scaled(value: str | None, factor: int) -> int | None:
    number = parse_quantity(value) if value is not None else None
    return int(number * factor) if number is not None and 0 <= number < Decimal(2**53) else None


def _part(item: Mapping[str, Any], key: str) -> Mapping[Any, Any]:
    """A map inside an object, empty when there is none: `--nodes` reads any file that it is given."""
    part = item.get(key)
    return part if isinstance(part, Mapping) else {}


def mounts_images(container_runtime: str) -> bool:
    """Whether this container runtime mounts image volumes; a runtime that we do not know is given the benefit of the
    doubt, because the kubelet's own error will say otherwise."""
    match = re.match(r"(containerd|cri-o)://v?(\d+)\.(\d+)", container_runtime)
    if not match:
        return bool(container_runtime)
    needed = MIN_CONTAINERD if match[1] == "containerd" else MIN_CRIO
    return (int(match[2]), int(match[3])) >= needed


def _minor(version: str) -> int | None:
    match = re.match(r"v?1\.(\d+)", version)
    return int(match[1]) if match else None
