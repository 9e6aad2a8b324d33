"""What the nodes and the API server can do, read from a NodeList and a version."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

#: First containerd that mounts image volumes. Source: containerd 2.1 release notes; 2.4.2 was seen to do it, and 1.6
#: was seen to leave the pod in CreateContainerError with a message that says nothing of image volumes.
MIN_CONTAINERD: Final = (2, 1)
#: First CRI-O with image volumes. Source: CRI-O documentation; not tried.
MIN_CRIO: Final = (1, 31)
#: First Kubernetes minor version that has image volumes without a feature gate being set. 1.35.4 was tried.
MIN_KUBERNETES_MINOR: Final = 35


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """One node, as far as a decision depends on it."""

    name: str
    #: Such as containerd://2.4.2.
    container_runtime: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterFacts:
    """What is known about the cluster. `None` is unknown (offline, or not readable), which is not the same as none."""

    nodes: tuple[NodeFacts, ...] | None = None
    #: Such as v1.35.4.
    server_version: str | None = None

    def image_volumes(self) -> "ImageVolumes":
        """Whether an OCI image can be mounted as a volume here."""
        minor = _minor(self.server_version) if self.server_version else None
        if minor is not None and minor < MIN_KUBERNETES_MINOR:
            return ImageVolumes(
                supported=False, why=f"the API server is {self.server_version}, 1.{MIN_KUBERNETES_MINOR} is needed"
            )
        if self.nodes is None:
            return ImageVolumes(supported=None, why="the nodes are not known")
        able = [n for n in self.nodes if mounts_images(n.container_runtime)]
        if able or not self.nodes:
            return ImageVolumes(
                supported=True if able else None, why=f"{len(able)} of {len(self.nodes)} nodes mount image volumes"
            )
        runtimes = ", ".join(sorted({n.container_runtime for n in self.nodes})[:3])
        return ImageVolumes(
            supported=False,
            why=f"none of the {len(self.nodes)} nodes mounts image volumes (they run {runtimes}; containerd 2.1 or "
            "CRI-O 1.31 is needed)",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageVolumes:
    """Support for image volumes; `supported` is None when it cannot be known."""

    supported: bool | None
    why: str


def read_nodes(objects: Iterable[Mapping[str, Any]]) -> tuple[NodeFacts, ...]:
    """Facts of the nodes that may get pods; cordoned nodes are left out. Ordered by name."""
    facts = (
        NodeFacts(
            name=str(_part(node, "metadata").get("name", "")),
            container_runtime=str(_part(_part(node, "status"), "nodeInfo").get("containerRuntimeVersion", "")),
        )
        for node in objects
        if not _part(node, "spec").get("unschedulable")
    )
    return tuple(sorted(facts, key=lambda n: n.name))


def _part(item: Mapping[str, Any], key: str) -> Mapping[str, Any]:
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
