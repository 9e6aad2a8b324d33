"""What the nodes can do."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftmark.facts.nodes import (
    MAX_LABELS,
    ClusterFacts,
    NodeFacts,
    Taint,
    mounts_images,
    read_node,
    read_nodes,
    trim_node,
)
from tests.facts.label_sets import LABEL_SETS, gpu_node
from tests.specs import Object, node


@pytest.mark.parametrize(
    ("runtime", "able"),
    [
        ("containerd://2.4.2", True), ("containerd://v2.1.0-rc.1", True), ("containerd://2.0.9", False), ("containerd://1.7.30", False),
        ("cri-o://1.31.0", True), ("cri-o://1.30.5", False), ("docker://28.0.0", True), ("something-new://1", True), ("", False),
    ],
)  # fmt: skip
def test_runtimes_that_mount_image_volumes(runtime: str, able: bool) -> None:
    assert mounts_images(runtime) is able


@pytest.mark.parametrize(
    ("nodes", "version", "supported", "why"),
    [
        (None, None, None, "not known"),
        ([], None, None, "0 of 0 nodes"),
        ([node("containerd://2.4.2")], "v1.35.4", True, "1 of 1 nodes"),
        ([node("containerd://2.4.2"), node("containerd://1.6.0", name="b")], None, True, "1 of 2 nodes"),
        ([node("containerd://1.6.0")], None, False, "containerd://1.6.0"),
        ([node("containerd://2.4.2")], "v1.34.1", False, "v1.34.1, 1.35 is needed"),
        ([node("containerd://2.4.2")], "v1.36+cloud", True, "1 of 1 nodes"),
        ([node("containerd://2.4.2")], "unreadable", True, "1 of 1 nodes"),
    ],
)
def test_image_volumes(nodes: list[Object] | None, version: str | None, supported: bool | None, why: str) -> None:
    facts = ClusterFacts(nodes=None if nodes is None else read_nodes(nodes), server_version=version)
    assert facts.image_volumes().supported is supported
    assert why in facts.image_volumes().why


def test_cordoned_nodes_are_kept_and_mount_nothing() -> None:
    nodes = read_nodes([node(name="b"), node(name="c", spec={"unschedulable": True}), node(name="a")])
    assert [facts.name for facts in nodes] == ["a", "b", "c"]
    assert ClusterFacts(nodes=nodes).open_nodes == nodes[:2]
    assert "2 of 2 nodes" in ClusterFacts(nodes=nodes).image_volumes().why


def test_what_a_node_says_of_itself() -> None:
    facts = read_node(
        gpu_node(
            "gpu-0",
            labels={"pool": "a", "nvidia.com/gfd.timestamp": "1594644571"},
            allocatable={"cpu": "7910m", "memory": "31696348Ki", "pods": "29", "hugepages-2Mi": "0"},
            taints=[{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule", "timeAdded": "2026-01-01"}],
        )
    )
    assert facts == NodeFacts(
        name="gpu-0",
        container_runtime="containerd://2.4.2",
        taints=(Taint(key="nvidia.com/gpu", value="present", effect="NoSchedule"),),
        labels={"pool": "a"},
        host_architecture="amd64",
        cpu_millicores=7910,
        memory_bytes=31696348 * 1024,
    )
    assert str(facts.taints[0]) == "nvidia.com/gpu=present:NoSchedule"


@pytest.mark.parametrize(
    ("conditions", "ready"),
    [
        ([{"type": "Ready", "status": "True"}], True),
        ([{"type": "Ready", "status": "False"}], False),
        ([{"type": "Ready", "status": "Unknown"}], False),
        ([{"type": "MemoryPressure", "status": "False"}], True),
        ([], True),
        (None, True),
    ],
)
def test_a_node_is_ready_unless_it_says_otherwise(conditions: Any, ready: bool) -> None:
    assert read_node({"metadata": {"name": "a"}, "status": {"conditions": conditions}}).is_ready is ready


def test_labels_are_bounded_and_those_of_the_processor_go_first() -> None:
    features = {f"feature.node.kubernetes.io/cpu-cpuid.X{i}": "true" for i in range(MAX_LABELS)}
    kept = read_node(gpu_node("a", labels={**features, "zone": "b", "long": "x" * 64})).labels
    assert len(kept) == MAX_LABELS
    assert kept["zone"] == "b"
    assert "long" not in kept


AWAY = gpu_node("away", cordoned=True, ready=False, taints=[{"key": "a", "effect": "NoExecute"}])


@pytest.mark.parametrize(
    "item", [*(case.node for case in LABEL_SETS), AWAY], ids=[*(case.name for case in LABEL_SETS), "away"]
)
def test_what_is_kept_of_a_node_tells_the_same(item: Object) -> None:
    assert read_node(trim_node(item)) == read_node(item)
    assert trim_node(trim_node(item)) == trim_node(item)


anything: Any = st.recursive(
    st.none() | st.text(max_size=5) | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


@given(metadata=anything, status=anything, spec=anything)
def test_no_node_is_an_error(metadata: Any, status: Any, spec: Any) -> None:
    item = {"kind": "Node", "metadata": metadata, "status": status, "spec": spec}
    assert read_node(trim_node(item)) == read_node(item)
    read_nodes([{"kind": "Node", "status": {"nodeInfo": status, "allocatable": spec, "conditions": metadata}}])


@given(
    labels=st.dictionaries(
        st.sampled_from(
            [f"{base}.{part}" for base in ("nvidia.com/gpu", "nvidia.com/mig-1g.5gb") for part in ("product", "memory", "replicas")]
            + ["nvidia.com/gpu.compute.major", "amd.com/gpu.vram", "beta.amd.com/gpu.vram.16G", "amd.com/gpu.product-name"]
            + ["gpu.intel.com/gpu-numbers", "gpu.intel.com/memory.max", "habana.ai/device.type"]
        ),
        st.sampled_from(["NVIDIA-L4", "NVIDIA-L4-SHARED", "MI300X", "0", "4", "-1", "1e99", "192G", "9" * 40, "٣", "", ".", "-MIG-"])
        | st.text(max_size=6),
    ),
    resources=st.dictionaries(
        st.sampled_from(["nvidia.com/gpu", "nvidia.com/gpu.shared", "nvidia.com/mig-1g.5gb", "amd.com/gpu", "gpu.intel.com/xe", "habana.ai/gaudi", "a/b"]),
        st.sampled_from(["0", "1", "8", "-1", "1e30", "x", "1500m"]) | st.integers() | st.none() | st.floats(),
    ),
)  # fmt: skip
def test_devices_make_sense_whatever_the_labels(labels: dict[str, str], resources: dict[str, Any]) -> None:
    item = gpu_node("a", labels=labels, allocatable=resources)
    assert read_node(trim_node(item)) == read_node(item)
    for devices in read_node(item).devices:
        assert 0 <= devices.gpus <= devices.allocatable
        assert devices.allocatable > 0
        assert devices.memory_bytes is None or 0 < devices.memory_bytes <= 16 * 1024**4
        assert (devices.memory_bytes is None) == (devices.memory_from is None)
