"""GPUs that a driver for Dynamic Resource Allocation publishes, read from ResourceSlices into the facts of their nodes.

A slice has devices with attributes (`productName`, `cudaComputeCapability`) and capacities (`memory`); a pool of devices
may span several slices, of which only those of the newest generation count, and only when all of them are there. Versions
v1 and v1beta2 have attributes in the device, v1beta1 one level deeper, in `basic`; v1beta1's forerunner had a capacity's
value without a map around it. Sources: Kubernetes API reference, ResourceSlice v1, v1beta2, v1beta1; NVIDIA
k8s-dra-driver-gpu, cmd/gpu-kubelet-plugin/deviceinfo.go; ROCm k8s-gpu-dra-driver.

A node may have both a device plugin and such a driver. The GPUs are the same ones then, and pods that ask for a number of
a resource get them from the plugin: its facts stay, and a slice only adds what no label told.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

from draftmark.facts.accelerators import accelerator
from draftmark.facts.devices import DeviceFacts
from draftmark.facts.nodes import NodeFacts
from draftmark.facts.quantity import parse_quantity

__all__ = ["DRIVERS", "is_of_gpus", "read_resource_slices", "trim_resource_slice", "with_slices"]

#: Drivers whose devices are GPUs, and the domain of the resource names under which a device plugin offers the same ones.
DRIVERS: Final = {"gpu.nvidia.com": "nvidia.com", "gpu.amd.com": "amd.com"}
#: A GPU that is passed through to a virtual machine. Source: NVIDIA k8s-dra-driver-gpu, VfioDeviceType.
_VFIO: Final = "vfio"
#: Devices that are a part of a GPU. Sources: NVIDIA k8s-dra-driver-gpu, MigDeviceType; ROCm/k8s-gpu-dra-driver#21.
_PARTS: Final = frozenset({"mig", "amdgpu-partition"})
#: Attributes that are read.
_ATTRIBUTES: Final = frozenset({"cudaComputeCapability", "parentUUID", "productName", "type", "uuid"})
_FORBIDDING: Final = ("NoSchedule", "NoExecute")
#: More memory than that has no GPU.
_MAX_MEMORY: Final = 16 * 1024**4


@dataclass(frozen=True, slots=True, kw_only=True)
class _Device:
    node: str
    driver: str
    type: str
    uuid: str
    parent: str
    #: One of several ways to cut a GPU, of which none is there until a claim asks for it.
    is_possible_only: bool
    facts: DeviceFacts


def read_resource_slices(objects: Iterable[Mapping[str, Any]]) -> dict[str, tuple[DeviceFacts, ...]]:
    """The GPUs of each node, by its name; `allocatable` is their number. Reads any objects; what it does not know is left
    out."""
    devices: dict[tuple[str, str], dict[str, _Device]] = {}
    for spec in _newest(objects):
        for device in filter(None, (_read(item, spec) for item in _maps(spec.get("devices")))):
            # A device that stands in two pools is one.
            devices.setdefault((device.node, device.driver), {})[device.uuid] = device
    found: dict[str, list[DeviceFacts]] = {}
    for (node, _), known in sorted(devices.items()):
        # Where GPUs are cut into parts, the driver was seen to publish the whole ones as well
        # (kubernetes-sigs/dra-driver-nvidia-gpu#719); they cannot be had any more.
        cut = {device.parent for device in known.values() if device.parent and not device.is_possible_only}
        usable = Counter(
            device.facts
            for device in known.values()
            if not device.is_possible_only and not (device.uuid in cut and device.type not in _PARTS)
        )
        found.setdefault(node, []).extend(replace(facts, allocatable=count) for facts, count in usable.items())
    return {
        node: tuple(sorted(all_of, key=lambda d: (d.resource, d.is_slice, d.product or "", d.memory_bytes or 0)))
        for node, all_of in found.items()
    }


def is_of_gpus(item: Mapping[str, Any]) -> bool:
    """Whether a slice, trimmed or whole, is one that is read here."""
    spec = item.get("spec")
    return isinstance(spec, Mapping) and spec.get("driver") in DRIVERS


def trim_resource_slice(item: Mapping[str, Any]) -> dict[str, Any]:
    """What `read_resource_slices` reads of a slice, for a cache: a slice has up to 128 devices with some twenty attributes
    each. Of slices of other drivers nothing is kept."""
    name = _map(item.get("metadata")).get("name", "")
    if not is_of_gpus(item):
        return {"metadata": {"name": name}, "spec": {}}
    spec = item["spec"]
    kept = {key: spec[key] for key in ("driver", "nodeName", "pool") if key in spec}
    devices = [_trim_device(device, str(spec["driver"])) for device in _maps(spec.get("devices"))]
    return {"metadata": {"name": name}, "spec": {**kept, "devices": devices}}


def _trim_device(device: Mapping[str, Any], driver: str) -> dict[str, Any]:
    body = _map(device.get("basic")) or device
    attributes = {k: v for k, v in _map(body.get("attributes")).items() if _own(k, driver) in _ATTRIBUTES}
    capacity = {k: v for k, v in _map(body.get("capacity")).items() if _own(k, driver) == "memory"}
    kept: dict[str, Any] = {"name": device.get("name", ""), "attributes": attributes, "capacity": capacity}
    if node := _node_of(device, body):
        kept["nodeName"] = node
    if taints := [{"effect": taint.get("effect")} for taint in _maps(body.get("taints"))]:
        kept["taints"] = taints
    if body.get("consumesCounters"):
        kept["consumesCounters"] = True
    return kept


def with_slices(nodes: Iterable[NodeFacts], slices: Mapping[str, tuple[DeviceFacts, ...]]) -> tuple[NodeFacts, ...]:
    """The nodes with what their ResourceSlices tell, each GPU counted once."""
    return tuple(_merge(node, slices.get(node.name, ())) for node in nodes)


def _merge(node: NodeFacts, claimed: tuple[DeviceFacts, ...]) -> NodeFacts:
    if not claimed:
        return node
    offered = {devices.resource.partition("/")[0] for devices in node.devices}
    more = tuple(devices for devices in claimed if DRIVERS[devices.resource] not in offered)
    return replace(node, devices=(*(_complete(devices, claimed) for devices in node.devices), *more))


def _complete(devices: DeviceFacts, claimed: tuple[DeviceFacts, ...]) -> DeviceFacts:
    """Whole GPUs of a device plugin, with what the slices tell of whole GPUs if those are all alike."""
    domain = devices.resource.partition("/")[0]
    same = [c for c in claimed if DRIVERS[c.resource] == domain and not c.is_slice]
    if devices.is_slice or len(same) != 1:
        return devices
    [told] = same
    from_slice = told.memory_bytes if devices.memory_from != "label" else None
    return replace(
        devices,
        memory_bytes=from_slice or devices.memory_bytes,
        memory_from=told.memory_from if from_slice else devices.memory_from,
        architecture=devices.architecture or told.architecture,
        link_domain=devices.link_domain if devices.link_domain is not None else told.link_domain,
    )


def _newest(objects: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Specs of the slices that count: of our drivers, of each pool's newest generation, and of complete pools only, because
    a pool that is being published anew has devices twice or not yet. Source: Kubernetes API, ResourcePool."""
    pools: dict[tuple[str, str], list[tuple[int, int, Mapping[str, Any]]]] = {}
    for item in objects:
        spec = item.get("spec")
        if not isinstance(spec, Mapping) or spec.get("driver") not in DRIVERS:
            continue
        pool = spec.get("pool")
        pool = pool if isinstance(pool, Mapping) else {}
        key = (str(spec["driver"]), str(pool.get("name", "")))
        pools.setdefault(key, []).append((_int(pool.get("generation")), _int(pool.get("resourceSliceCount")), spec))
    found: list[Mapping[str, Any]] = []
    for slices in pools.values():
        newest = max(generation for generation, _, _ in slices)
        current = [(count, spec) for generation, count, spec in slices if generation == newest]
        if len(current) >= max(count for count, _ in current):
            found += [spec for _, spec in current]
    return found


def _read(item: Mapping[str, Any], spec: Mapping[str, Any]) -> _Device | None:
    """A device; None: it is on no node that we could name, pods may not have it, or it is for virtual machines."""
    body = _map(item.get("basic")) or item
    driver = str(spec["driver"])
    node = _node_of(item, body, spec)
    attributes = {_own(key, driver): value for key, value in _map(body.get("attributes")).items()}
    capacity = {_own(key, driver): value for key, value in _map(body.get("capacity")).items()}
    kind = _value(attributes.get("type"))
    tainted = any(taint.get("effect") in _FORBIDDING for taint in _maps(body.get("taints")))
    if not node or kind.startswith(_VFIO) or tainted:
        return None
    memory = capacity.get("memory")
    text = memory.get("value") if isinstance(memory, Mapping) else memory
    return _Device(
        node=node,
        driver=driver,
        type=kind,
        uuid=_value(attributes.get("uuid")) or str(item.get("name", "")),
        parent=_value(attributes.get("parentUUID")),
        is_possible_only=kind in _PARTS and bool(body.get("consumesCounters")),
        facts=_facts_of(
            driver,
            _value(attributes.get("productName")),
            text if isinstance(text, str) else "",
            _value(attributes.get("cudaComputeCapability")),
            is_slice=kind in _PARTS,
        ),
    )


def _node_of(*parts: Mapping[str, Any]) -> str:
    """The node that the first of these names: a device, or else its slice; empty: none does."""
    names = (part.get("nodeName") for part in parts)
    return next((name for name in names if isinstance(name, str) and name), "")


@lru_cache(maxsize=1024)  # thousands of devices are a handful of products
def _facts_of(driver: str, name: str, memory_text: str, capability: str, *, is_slice: bool) -> DeviceFacts:
    product = re.sub(r"\s+", "-", name.strip()) or None
    known = accelerator(product)
    memory = _bytes(memory_text)
    from_catalogue = known.memory_bytes if known is not None and not is_slice else None
    return DeviceFacts(
        resource=driver,
        allocatable=1,
        product=product,
        memory_bytes=memory or from_catalogue,
        memory_from="slice" if memory else "catalogue" if from_catalogue else None,
        architecture=_capability(capability) or (known.architecture if known is not None else None),
        link_domain=1 if is_slice else known.link_domain if known is not None else None,
        is_slice=is_slice,
        is_claimed=True,
    )


def _own(name: Any, driver: str) -> str:
    """An attribute's name without its domain, if that is the driver's, which is the same as none. Source: Kubernetes API,
    QualifiedName."""
    return str(name).removeprefix(f"{driver}/")


def _value(attribute: Any) -> str:
    """The text of an attribute, whatever its type."""
    if not isinstance(attribute, Mapping):
        return ""
    return next((str(attribute[key]) for key in ("string", "version", "int", "bool") if key in attribute), "")


def _capability(version: str) -> str | None:
    """A compute capability such as 9.0; the driver writes it as a semantic version, 9.0.0."""
    match = re.match(r"([0-9]{1,3}\.[0-9]{1,2})(?:\.|$)", version)
    return match[1] if match else None


def _bytes(text: str) -> int | None:
    number = parse_quantity(text)
    return int(number) if number is not None and 0 < number <= _MAX_MEMORY else None


def _int(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _map(value: Any) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {}


def _maps(value: Any) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list | tuple) else []
