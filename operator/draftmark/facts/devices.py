"""The devices of a node, read from what the node offers (`status.allocatable`) and from the labels that the vendors'
discovery wrote. The device plugin says how many, the labels say of what.

NVIDIA's labels begin with the resource's name (`nvidia.com/gpu.memory`, `nvidia.com/mig-1g.10gb.memory`), so that each
resource of a node has its own. AMD's are once per property, and once per property and value (`beta.amd.com/gpu.vram.16G: 1`),
with the number of GPUs that have it. Intel's give sums over all GPUs. Sources: NVIDIA GPU Feature Discovery, resource
labeler; ROCm k8s-device-plugin, node labeller; Intel device plugins, gpu_plugin/labels.md; Gaudi Feature Discovery,
collector.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, Literal

from draftmark.facts.accelerators import AMD_DEVICE_IDS, accelerator, parse_product
from draftmark.facts.quantity import parse_quantity

__all__ = ["MAX_DEVICE_RESOURCES", "DeviceFacts", "is_device_resource", "read_devices", "whole"]

#: Device resources of one node that are kept, first by name. A guess: a node with every MIG profile of a GPU has some ten.
MAX_DEVICE_RESOURCES: Final = 32

_MIB: Final = 1024**2
_GIB: Final = 1024**3
#: More memory than that has no GPU; a label that says so has the wrong unit, and tells nothing.
_MAX_MEMORY: Final = 16 * 1024**4
#: More devices has no node. A guess.
_MAX_COUNT: Final = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFacts:
    """The devices of one resource on one node; they are taken to be alike, as the labels have one value for all."""

    #: As pods ask for it (nvidia.com/gpu, nvidia.com/mig-1g.10gb, amd.com/gpu); for devices that are known from
    #: ResourceSlices only, the driver (gpu.nvidia.com).
    resource: str
    #: What the scheduler counts. What running pods hold of it is not taken off.
    allocatable: int
    #: The product label, with all its suffixes: what a node selector has to say.
    product: str | None = None
    #: Of one device: of the slice, where devices are slices; of the whole GPU where it is shared. None: not known.
    memory_bytes: int | None = None
    memory_from: Literal["label", "catalogue", "slice"] | None = None
    #: CUDA compute capability ("9.0") or LLVM target ("gfx942").
    architecture: str | None = None
    #: Most devices that NVLink or xGMI connects on this node, as far as the product tells; None: not known.
    link_domain: int | None = None
    #: How often each GPU is counted; more than 1: pods share it. None: it is shared, and no label tells among how many.
    replicas: int | None = 1
    #: Devices are parts of a GPU (MIG, partitions): each has its own memory, and no link to another one.
    is_slice: bool = False
    #: Pods get these by ResourceClaim, and cannot ask for a number of a resource.
    is_claimed: bool = False

    @property
    def is_shared(self) -> bool:
        """Whether a pod has its GPU together with others."""
        return self.replicas != 1

    @property
    def gpus(self) -> int:
        """GPUs (or slices) that there are, whatever the number of pods on each. Shared among an unknown number: 1, since
        the plugin shares no GPU that is not there."""
        if self.replicas is None:
            return min(self.allocatable, 1)
        return self.allocatable // self.replicas


def is_device_resource(name: str) -> bool:
    """Whether a resource name is one of devices: extended resources have a domain of their own. Source: Kubernetes,
    "Extended resources"; kubernetes.io is the domain of Kubernetes itself."""
    domain, slash, _ = name.partition("/")
    return bool(slash) and not (domain == "kubernetes.io" or domain.endswith(".kubernetes.io"))


def read_devices(allocatable: Mapping[str, Any], labels: Mapping[str, str]) -> tuple[DeviceFacts, ...]:
    """The devices of a node, by resource name. Resources of other kinds, and those of which there is none, are left out."""
    found: list[DeviceFacts] = []
    for resource in sorted(name for name in allocatable if isinstance(name, str) and is_device_resource(name)):
        count = whole(allocatable[resource])
        if count and len(found) < MAX_DEVICE_RESOURCES:
            found.append(_read(resource, count, labels))
    return tuple(found)


def whole(value: Any) -> int | None:
    """A quantity of things, rounded down; None: it is none. JSON has it as text, a file that somebody wrote as a number."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    number = parse_quantity(value) if isinstance(value, str) else Decimal(value)
    return int(number) if number is not None and 0 <= number < 2**63 else None


def _read(resource: str, allocatable: int, labels: Mapping[str, str]) -> DeviceFacts:
    allocatable = min(allocatable, _MAX_COUNT)
    match resource.partition("/")[0]:
        case "nvidia.com":
            return _read_nvidia(resource, allocatable, labels)
        case "amd.com":
            return _read_amd(resource, allocatable, labels)
        case "gpu.intel.com":
            return _read_intel(resource, allocatable, labels)
        case "habana.ai":
            return _from_catalogue(resource, allocatable, labels.get("habana.ai/device.type"))
        case _:
            return DeviceFacts(resource=resource, allocatable=allocatable)


def _read_nvidia(resource: str, allocatable: int, labels: Mapping[str, str]) -> DeviceFacts:
    # A time-sliced resource may have a name of its own, by default the old one and ".shared"; its labels keep the old one.
    base = resource.removesuffix(".shared")
    if not base.startswith("nvidia.com/mig-"):
        base = "nvidia.com/gpu"
    label = labels.get(f"{base}.product")
    product = parse_product(label or "")
    is_slice = product.mig_profile is not None or base != "nvidia.com/gpu"
    is_shared = product.is_shared or resource.endswith(".shared")
    known = accelerator(label or (labels.get("nvidia.com/gpu.product") if is_slice else None))
    memory = _memory(labels.get(f"{base}.memory"), _MIB)
    from_catalogue = known.memory_bytes if known is not None and not is_slice else None
    major, minor = (_count(labels.get(f"nvidia.com/gpu.compute.{part}")) for part in ("major", "minor"))
    replicas = _count(labels.get(f"{base}.replicas")) or 0
    return DeviceFacts(
        resource=resource,
        allocatable=allocatable,
        product=label,
        memory_bytes=memory or from_catalogue,
        memory_from="label" if memory else "catalogue" if from_catalogue else None,
        architecture=f"{major}.{minor}" if major and minor is not None else known.architecture if known else None,
        # `nvidia-smi mig -lgip` says "P2P No" for every profile (NVIDIA/mig-parted#166).
        link_domain=1 if is_slice else known.link_domain if known is not None else None,
        replicas=1 if not is_shared else replicas if replicas > 1 else None,
        is_slice=is_slice,
    )


def _read_amd(resource: str, allocatable: int, labels: Mapping[str, str]) -> DeviceFacts:
    label = labels.get("amd.com/gpu.product-name")
    device_id = _amd_property(labels, "device-id")
    known = accelerator(label or AMD_DEVICE_IDS.get(device_id or ""))
    vram = _amd_property(labels, "vram")
    rounded = _memory(vram.removesuffix("G"), _GIB) if vram is not None else None
    exact = known.memory_bytes if known is not None else None
    nominal = round(exact / _GIB) * _GIB if exact else None
    # A label below the catalogue's number is of a part of the GPU (ROCm/gpu-operator#555: 144G of 288 in mode DPX).
    is_slice = resource != "amd.com/gpu" or bool(rounded and nominal and rounded < nominal)
    # The label is rounded to GiB, up as well: where both mean the same, the catalogue is the exact one.
    memory = exact if exact and not is_slice and rounded in (None, nominal) else rounded
    return DeviceFacts(
        resource=resource,
        allocatable=allocatable,
        product=label,
        memory_bytes=memory,
        memory_from=None if not memory else "label" if rounded else "catalogue",
        architecture=known.architecture if known is not None else None,
        link_domain=known.link_domain if known is not None and not is_slice else None,
        is_slice=is_slice,
    )


def _amd_property(labels: Mapping[str, str], name: str) -> str | None:
    """A property that all GPUs of the node have; None: not labelled, or they differ."""
    for prefix in ("amd.com/gpu.", "beta.amd.com/gpu."):
        if value := labels.get(prefix + name):
            return value
    start = f"beta.amd.com/gpu.{name}."
    values = [key[len(start) :] for key in labels if key.startswith(start)]
    return values[0] if len(values) == 1 else None


def _read_intel(resource: str, allocatable: int, labels: Mapping[str, str]) -> DeviceFacts:
    if resource not in (
        "gpu.intel.com/i915",
        "gpu.intel.com/xe",
    ):  # others are shares of the same GPUs, or for monitoring
        return DeviceFacts(resource=resource, allocatable=allocatable)
    numbers = labels.get("gpu.intel.com/gpu-numbers")
    gpus = len(numbers.split(".")) if numbers else _count(labels.get("gpu.intel.com/device.count")) or 0
    total = _memory(labels.get("gpu.intel.com/memory.max"), 1, most=_MAX_MEMORY * max(gpus, 1))
    memory = total // gpus if total and gpus else None
    return DeviceFacts(
        resource=resource,
        allocatable=allocatable,
        product=labels.get("gpu.intel.com/product"),
        memory_bytes=memory,
        memory_from="label" if memory else None,
        # The plugin's -shared-dev-num counts each GPU several times, and has no label.
        replicas=allocatable // gpus if gpus and allocatable > gpus else 1,
    )


def _from_catalogue(resource: str, allocatable: int, product: str | None) -> DeviceFacts:
    known = accelerator(product)
    return DeviceFacts(
        resource=resource,
        allocatable=allocatable,
        product=product,
        memory_bytes=known.memory_bytes if known is not None else None,
        memory_from="catalogue" if known is not None and known.memory_bytes else None,
        architecture=known.architecture if known is not None else None,
        link_domain=known.link_domain if known is not None else None,
    )


def _count(text: str | None) -> int | None:
    """A label's number; None: it is none."""
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) < 20 else None


def _memory(text: str | None, unit: int, most: int = _MAX_MEMORY) -> int | None:
    """A label's memory in bytes; None: it tells none, or one that cannot be."""
    number = _count(text)
    return number * unit if number and number * unit <= most else None
