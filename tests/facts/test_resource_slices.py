"""GPUs that drivers of Dynamic Resource Allocation publish."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from draftmark.facts.nodes import read_node
from draftmark.facts.resource_slices import (
    is_of_gpus,
    read_resource_slices,
    trim_resource_slice,
    with_slices,
)
from tests.facts.label_sets import MIB, gpu_node
from tests.specs import Object

NVIDIA = "gpu.nvidia.com"


def gpu(index: int, product: str = "NVIDIA A100 80GB PCIe", memory: str = "80Gi", **fields: Any) -> Object:
    """A whole GPU, as NVIDIA's driver publishes it. Source: kubernetes-sigs/dra-driver-nvidia-gpu#719."""
    return {
        "name": f"gpu-{index}",
        "attributes": {
            "architecture": {"string": "Ampere"},
            "brand": {"string": "Nvidia"},
            "cudaComputeCapability": {"version": "8.0.0"},
            "cudaDriverVersion": {"version": "13.0.0"},
            "productName": {"string": product},
            "type": {"string": "gpu"},
            "uuid": {"string": f"GPU-{index}"},
        },
        "capacity": {"memory": {"value": memory}},
        **fields,
    }


def mig(index: int, parent: int, **fields: Any) -> Object:
    """A part of a GPU. Source: NVIDIA/k8s-dra-driver-gpu, cmd/gpu-kubelet-plugin/deviceinfo.go."""
    whole = gpu(index, memory="9728Mi")
    part = {
        "type": {"string": "mig"},
        "uuid": {"string": f"MIG-{index}"},
        "parentUUID": {"string": f"GPU-{parent}"},
        "profile": {"string": "1g.10gb"},
    }
    return {**whole, "name": f"gpu-{parent}-mig-{index}", "attributes": {**whole["attributes"], **part}, **fields}


def resource_slice(*devices: Object, driver: str = NVIDIA, node: str = "n", version: str = "v1", **pool: Any) -> Object:
    spec = {
        "driver": driver,
        "nodeName": node,
        "pool": {"name": node, "generation": 1, "resourceSliceCount": 1, **pool},
        "devices": list(devices),
    }
    return {
        "apiVersion": f"resource.k8s.io/{version}",
        "kind": "ResourceSlice",
        "metadata": {"name": "x"},
        "spec": spec,
    }


def basic(device: Object) -> Object:
    """A device as v1beta1 has it."""
    return {"name": device["name"], "basic": {key: value for key, value in device.items() if key != "name"}}


def seen(*slices: Object, node: str = "n") -> list[tuple[Any, ...]]:
    return [
        (d.product, d.gpus, d.memory_bytes, d.architecture, d.is_slice)
        for d in read_resource_slices(slices).get(node, ())
    ]


A100 = ("NVIDIA-A100-80GB-PCIe", 2, 80 * 1024**3, "8.0", False)


@pytest.mark.parametrize("version", ["v1", "v1beta2", "v1beta1"])
def test_whole_gpus_in_every_version(version: str) -> None:
    devices = [gpu(0), gpu(1)]
    if version == "v1beta1":
        devices = [basic(device) for device in devices]
    assert seen(resource_slice(*devices, version=version)) == [A100]
    [found] = read_resource_slices([resource_slice(*devices, version=version)])["n"]
    assert (found.resource, found.is_claimed, found.memory_from, found.link_domain) == (NVIDIA, True, "slice", 1)


def test_names_with_the_drivers_domain_are_the_same_names() -> None:
    device = gpu(0)
    device["attributes"] = {f"{NVIDIA}/{key}": value for key, value in device["attributes"].items()}
    device["capacity"] = {f"{NVIDIA}/memory": device["capacity"]["memory"]}
    assert seen(resource_slice(device, gpu(1))) == [A100]


def test_a_capacity_without_a_map_and_one_that_is_missing() -> None:
    assert seen(resource_slice({**gpu(0), "capacity": {"memory": "80Gi"}}, gpu(1))) == [A100]
    [found] = read_resource_slices([resource_slice({**gpu(0), "capacity": {}})])["n"]
    assert (found.memory_bytes, found.memory_from) == (81920 * MIB, "catalogue")


def test_a_gpu_that_is_cut_counts_by_its_parts_only() -> None:
    part = ("NVIDIA-A100-80GB-PCIe", 2, 9728 * MIB, "8.0", True)
    whole = ("NVIDIA-A100-80GB-PCIe", 1, 80 * 1024**3, "8.0", False)
    assert seen(resource_slice(gpu(0), gpu(1), mig(1, parent=0), mig(2, parent=0))) == [whole, part]


def test_ways_in_which_a_gpu_could_be_cut_are_not_there_yet() -> None:
    counters = [{"counterSet": "gpu-0", "counters": {}}]
    possible = [mig(i, parent=0, consumesCounters=counters) for i in range(7)]
    assert seen(resource_slice(gpu(0, consumesCounters=counters), gpu(1), *possible)) == [A100]


def test_devices_that_no_pod_gets_are_left_out() -> None:
    virtual = gpu(2)
    virtual["attributes"]["type"] = {"string": "vfio"}
    sick = gpu(3, taints=[{"key": "gpu.nvidia.com/unhealthy", "effect": "NoExecute"}])
    noted = gpu(1, taints=[{"key": "x", "effect": "None"}])
    elsewhere = {
        **resource_slice(gpu(4)),
        "spec": {**resource_slice(gpu(4))["spec"], "nodeName": None, "allNodes": True},
    }
    elsewhere["spec"]["pool"] = {"name": "fabric"}
    assert seen(resource_slice(gpu(0), noted, virtual, sick), elsewhere) == [A100]
    assert seen(resource_slice(gpu(0), driver="compute-domain.nvidia.com")) == []


def test_a_slice_may_name_the_node_of_each_device() -> None:
    item = resource_slice({**gpu(0), "nodeName": "m"}, {**gpu(1), "nodeName": "m"})
    del item["spec"]["nodeName"]
    assert seen(item, node="m") == [A100]


def test_of_a_pool_the_newest_generation_counts_and_all_of_it() -> None:
    old = resource_slice(gpu(0), gpu(1), gpu(2), generation=1)
    halves = [resource_slice(gpu(i), generation=2, resourceSliceCount=2) for i in (0, 1)]
    assert seen(old, *halves) == [A100]
    assert seen(old, halves[0]) == [], "half of a pool says nothing about the other half"
    assert seen(resource_slice(gpu(0), gpu(1)), resource_slice(gpu(0), name="again")) == [A100]


def test_partitions_of_amd() -> None:
    """Source: ROCm/k8s-gpu-dra-driver#21."""
    device = {
        "name": "gpu-32-160",
        "basic": {
            "attributes": {
                "family": {"string": "AI"},
                "parentDeviceID": {"string": "7066866330502360227"},
                "partitionProfile": {"string": "dpx_nps1"},
                "productName": {"string": "AMD_Instinct_MI300X_OAM"},
                "resource.kubernetes.io/pcieRoot": {"string": "pci0003:00"},
                "type": {"string": "amdgpu-partition"},
            },
            "capacity": {"computeUnits": {"value": "152"}, "memory": {"value": "98296Mi"}},
        },
    }
    item = resource_slice(device, {**device, "name": "gpu-40-168"}, driver="gpu.amd.com", version="v1beta1")
    assert seen(item) == [("AMD_Instinct_MI300X_OAM", 2, 98296 * MIB, "gfx942", True)]


LABELS = {"nvidia.com/gpu.product": "NVIDIA-A100-80GB-PCIe", "nvidia.com/gpu.memory": "81920"}


def test_a_node_with_both_has_each_gpu_once() -> None:
    slices = read_resource_slices([resource_slice(gpu(0), gpu(1)), resource_slice(gpu(0), node="m")])
    both = read_node(gpu_node("n", labels=LABELS, allocatable={"nvidia.com/gpu": "2"}))
    only_claims = read_node(gpu_node("m", allocatable={"amd.com/gpu": "1"}))
    neither = read_node(gpu_node("o"))
    merged = with_slices([both, only_claims, neither], slices)
    assert merged[0] == both
    assert [(d.resource, d.gpus, d.is_claimed) for d in merged[1].devices] == [
        ("amd.com/gpu", 1, False),
        (NVIDIA, 1, True),
    ]
    assert merged[2] == neither


def test_slices_tell_what_no_label_told() -> None:
    slices = read_resource_slices([resource_slice(gpu(0, product="NVIDIA Unheard Of", memory="64Gi"))])
    [node] = with_slices(
        [read_node(gpu_node("n", allocatable={"nvidia.com/gpu": "1", "nvidia.com/mig-1g.5gb": "1"}))], slices
    )
    whole, part = node.devices
    assert (whole.memory_bytes, whole.memory_from, whole.architecture) == (64 * 1024**3, "slice", "8.0")
    assert (part.memory_bytes, part.is_slice) == (None, True)


def test_what_is_kept_of_a_slice_tells_the_same_and_is_small() -> None:
    device = gpu(0)
    device["attributes"] = {f"{NVIDIA}/{key}": value for key, value in device["attributes"].items()}
    tainted = gpu(3, taints=[{"key": "gpu.nvidia.com/unhealthy", "effect": "NoExecute", "timeAdded": "x"}])
    possible = mig(1, parent=0, consumesCounters=[{"counterSet": "gpu-0", "counters": {"memory": {"value": "1Gi"}}}])
    items = [resource_slice(device, gpu(1), tainted, possible), resource_slice(*map(basic, [gpu(4)]), node="m")]
    trimmed = [trim_resource_slice(item) for item in items]
    assert read_resource_slices(trimmed) == read_resource_slices(items) != {}
    assert [trim_resource_slice(item) for item in trimmed] == trimmed
    assert "cudaDriverVersion" not in str(trimmed)


def test_nothing_is_kept_of_slices_of_other_drivers() -> None:
    other = resource_slice(gpu(0), driver="dra.example.com")
    assert trim_resource_slice(other) == {"metadata": {"name": "x"}, "spec": {}}
    assert [is_of_gpus(item) for item in (other, trim_resource_slice(other), resource_slice(gpu(0)))] == [
        False, False, True,
    ]  # fmt: skip


anything: Any = st.recursive(
    st.none() | st.text(max_size=5) | st.integers() | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
fields = ("attributes", "capacity", "basic", "taints", "name", "nodeName", "consumesCounters")


@given(
    spec=anything,
    pool=anything,
    devices=anything | st.lists(st.dictionaries(st.sampled_from(fields), anything, max_size=3), max_size=3),
    node=anything,
)
@example(spec=None, pool=None, devices=[{"name": "a"}, {"name": "b", "nodeName": 1}], node="0")
def test_no_slice_is_an_error(spec: Any, pool: Any, devices: Any, node: Any) -> None:
    objects = [{"spec": spec}, {}, {"spec": {"driver": NVIDIA, "pool": pool, "devices": devices, "nodeName": node}}]
    assert read_resource_slices(map(trim_resource_slice, objects)) == read_resource_slices(objects)
