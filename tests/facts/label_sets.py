"""Nodes with labels as they were seen or documented, each with its source, and what they mean."""

from dataclasses import dataclass
from typing import Any

from tests.specs import Object

MIB = 1024**2
GIB = 1024**3


def gpu_node(
    name: str,
    *,
    labels: dict[str, str] | None = None,
    allocatable: dict[str, Any] | None = None,
    taints: list[Object] | None = None,
    cordoned: bool = False,
    ready: bool = True,
) -> Object:
    """A Node as the API server has it, with all that a kubelet writes and nobody decides by."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels or {}, "annotations": {"node.alpha.kubernetes.io/ttl": "0"}},
        "spec": {
            **({"unschedulable": True} if cordoned else {}),
            **({"taints": taints} if taints is not None else {}),
        },
        "status": {
            "allocatable": allocatable or {},
            "capacity": allocatable or {},
            "addresses": [{"type": "InternalIP", "address": "10.0.0.7"}],
            "conditions": [
                {"type": "MemoryPressure", "status": "False", "lastHeartbeatTime": "2026-01-01T12:00:00Z"},
                {
                    "type": "Ready",
                    "status": "True" if ready else "False",
                    "lastHeartbeatTime": "2026-01-01T12:00:00Z",
                    "reason": "KubeletReady",
                },
            ],
            "images": [{"names": ["example/image:1"], "sizeBytes": 12345}],
            "nodeInfo": {"architecture": "amd64", "containerRuntimeVersion": "containerd://2.4.2", "bootID": "x"},
        },
    }


@dataclass(frozen=True, kw_only=True)
class LabelSet:
    """One node, and what is read of one of its resources."""

    name: str
    source: str
    labels: dict[str, str]
    allocatable: dict[str, str]
    resource: str
    expected: dict[str, Any]

    @property
    def node(self) -> Object:
        return gpu_node("node-0", labels=self.labels, allocatable={"cpu": "8", "memory": "64Gi", **self.allocatable})


LABEL_SETS = [
    LabelSet(
        name="a100, from the README",
        source="NVIDIA/k8s-device-plugin, docs/gpu-feature-discovery/README.md",
        labels={
            "nvidia.com/cuda.driver.major": "455",
            "nvidia.com/gpu.compute.major": "8",
            "nvidia.com/gpu.compute.minor": "0",
            "nvidia.com/gfd.timestamp": "1594644571",
            "nvidia.com/gpu.count": "1",
            "nvidia.com/gpu.family": "ampere",
            "nvidia.com/gpu.machine": "NVIDIA DGX-2H",
            "nvidia.com/gpu.memory": "39538",
            "nvidia.com/gpu.product": "A100-SXM4-40GB",
        },
        allocatable={"nvidia.com/gpu": "1"},
        resource="nvidia.com/gpu",
        expected={
            "product": "A100-SXM4-40GB", "memory_bytes": 39538 * MIB, "memory_from": "label", "architecture": "8.0",
            "link_domain": 8, "gpus": 1, "is_shared": False, "is_slice": False,
        },
    ),
    LabelSet(
        name="h100, eight",
        source="NVIDIA/k8s-device-plugin#1501",
        labels={
            "nvidia.com/gpu.count": "8",
            "nvidia.com/gpu.family": "hopper",
            "nvidia.com/gpu.machine": "PowerEdge-XE9680",
            "nvidia.com/gpu.memory": "81559",
            "nvidia.com/gpu.mode": "compute",
            "nvidia.com/gpu.present": "true",
            "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3",
            "nvidia.com/gpu.replicas": "1",
            "nvidia.com/mig.capable": "true",
        },
        allocatable={"nvidia.com/gpu": "8"},
        resource="nvidia.com/gpu",
        expected={
            "memory_bytes": 81559 * MIB, "memory_from": "label", "architecture": "9.0", "link_domain": 8, "gpus": 8,
            "is_shared": False,
        },
    ),
    LabelSet(
        name="a10 without the memory label",
        source="oracle-devrel/technology-engineering, less its nvidia.com/gpu.memory",
        labels={"nvidia.com/gpu.family": "ampere", "nvidia.com/gpu.product": "NVIDIA-A10", "nvidia.com/gpu.replicas": "1"},
        allocatable={"nvidia.com/gpu": "1"},
        resource="nvidia.com/gpu",
        expected={"memory_bytes": 23028 * MIB, "memory_from": "catalogue", "link_domain": 1, "gpus": 1},
    ),
    LabelSet(
        name="a30, sharing never configured",
        source="NVIDIA/gpu-operator#442",
        labels={
            "nvidia.com/gpu.family": "ampere",
            "nvidia.com/gpu.machine": "OpenStack-Nova",
            "nvidia.com/gpu.memory": "24576",
            "nvidia.com/gpu.product": "NVIDIA-A30",
            "nvidia.com/gpu.replicas": "0",
            "nvidia.com/mig.capable": "true",
        },
        allocatable={"nvidia.com/gpu": "2"},
        resource="nvidia.com/gpu",
        expected={"memory_bytes": 24576 * MIB, "architecture": "8.0", "gpus": 2, "is_shared": False},
    ),
    LabelSet(
        name="mig, single strategy",
        source="NVIDIA/k8s-device-plugin, docs/gpu-feature-discovery/README.md, MIG 'single' strategy; memory from NVIDIA/gpu-operator#981",
        labels={
            "nvidia.com/mig.strategy": "single",
            "nvidia.com/gpu.product": "A100-SXM4-40GB-MIG-1g.5gb",
            "nvidia.com/gpu.count": "56",
            "nvidia.com/gpu.memory": "4864",
            "nvidia.com/gpu.multiprocessors": "14",
            "nvidia.com/gpu.slices.gi": "1",
        },
        allocatable={"nvidia.com/gpu": "56"},
        resource="nvidia.com/gpu",
        expected={
            "memory_bytes": 4864 * MIB, "memory_from": "label", "is_slice": True, "link_domain": 1, "gpus": 56,
            "architecture": "8.0",
        },
    ),
    LabelSet(
        name="mig, mixed strategy",
        source="Mellanox/network-operator#211",
        labels={
            "nvidia.com/gpu.family": "ampere",
            "nvidia.com/gpu.memory": "40536",
            "nvidia.com/gpu.product": "A100-PCIE-40GB",
            "nvidia.com/mig-1g.5gb.count": "4",
            "nvidia.com/mig-1g.5gb.memory": "4864",
            "nvidia.com/mig-1g.5gb.multiprocessors": "14",
            "nvidia.com/mig-2g.10gb.count": "2",
        },
        allocatable={"nvidia.com/gpu": "1", "nvidia.com/mig-1g.5gb": "4", "nvidia.com/mig-2g.10gb": "2"},
        resource="nvidia.com/mig-1g.5gb",
        expected={
            "product": None, "memory_bytes": 4864 * MIB, "is_slice": True, "link_domain": 1, "gpus": 4,
            "architecture": "8.0",
        },
    ),
    LabelSet(
        name="mig, mixed strategy, a profile without labels",
        source="Mellanox/network-operator#211, less the labels of mig-2g.10gb",
        labels={"nvidia.com/gpu.memory": "40536", "nvidia.com/gpu.product": "A100-PCIE-40GB"},
        allocatable={"nvidia.com/mig-2g.10gb": "2"},
        resource="nvidia.com/mig-2g.10gb",
        # Not the memory of the whole GPU, and not the ten of its name: a slice has less than it is named for.
        expected={"memory_bytes": None, "memory_from": None, "is_slice": True, "gpus": 2},
    ),
    LabelSet(
        name="mig, mixed strategy, with product",
        source="premAI-io/prem-operator#39",
        labels={
            "nvidia.com/mig-7g.40gb.count": "4",
            "nvidia.com/mig-7g.40gb.memory": "40192",
            "nvidia.com/mig-7g.40gb.product": "NVIDIA-A100-SXM4-40GB-MIG-7g.40gb",
            "nvidia.com/mig-7g.40gb.replicas": "1",
        },
        allocatable={"nvidia.com/mig-7g.40gb": "4"},
        resource="nvidia.com/mig-7g.40gb",
        expected={
            "product": "NVIDIA-A100-SXM4-40GB-MIG-7g.40gb", "memory_bytes": 40192 * MIB, "is_slice": True,
            "architecture": "8.0", "is_shared": False,
        },
    ),
    LabelSet(
        name="time-sliced",
        source="NVIDIA/gpu-operator#684 (12 replicas of one GPU); labels by the resource labeler of GPU Feature Discovery",
        labels={"nvidia.com/gpu.product": "Tesla-T4-SHARED", "nvidia.com/gpu.replicas": "12", "nvidia.com/gpu.memory": "15360"},
        allocatable={"nvidia.com/gpu": "12"},
        resource="nvidia.com/gpu",
        expected={
            "product": "Tesla-T4-SHARED", "memory_bytes": 15360 * MIB, "is_shared": True, "replicas": 12, "gpus": 1,
            "allocatable": 12,
        },
    ),
    LabelSet(
        name="time-sliced under a name of its own",
        source="NVIDIA/k8s-device-plugin README, sharing.timeSlicing.renameByDefault",
        labels={"nvidia.com/gpu.product": "Tesla-T4", "nvidia.com/gpu.replicas": "4", "nvidia.com/gpu.memory": "15360"},
        allocatable={"nvidia.com/gpu": "0", "nvidia.com/gpu.shared": "8"},
        resource="nvidia.com/gpu.shared",
        expected={"is_shared": True, "replicas": 4, "gpus": 2, "memory_bytes": 15360 * MIB},
    ),
    LabelSet(
        name="slices that are shared",
        source="by the resource labeler of GPU Feature Discovery: labels keep the name of the resource before sharing",
        labels={
            "nvidia.com/gpu.product": "NVIDIA-A100-SXM4-40GB",
            "nvidia.com/gpu.memory": "40960",
            "nvidia.com/mig-1g.5gb.memory": "4864",
            "nvidia.com/mig-1g.5gb.replicas": "2",
        },
        allocatable={"nvidia.com/mig-1g.5gb.shared": "14"},
        resource="nvidia.com/mig-1g.5gb.shared",
        expected={"memory_bytes": 4864 * MIB, "is_slice": True, "replicas": 2, "gpus": 7, "allocatable": 14},
    ),
    LabelSet(
        name="shared among an unknown number",
        source="by the resource labeler of GPU Feature Discovery, less nvidia.com/gpu.replicas",
        labels={"nvidia.com/gpu.product": "Tesla-T4-SHARED"},
        allocatable={"nvidia.com/gpu": "8"},
        resource="nvidia.com/gpu",
        expected={"is_shared": True, "replicas": None, "gpus": 1, "memory_bytes": 15360 * MIB, "memory_from": "catalogue"},
    ),
    LabelSet(
        name="a product that is in no catalogue",
        source="NVIDIA/k8s-device-plugin, docs/gpu-feature-discovery/README.md, the table's examples",
        labels={"nvidia.com/gpu.product": "GeForce-GT-710", "nvidia.com/gpu.compute.major": "3", "nvidia.com/gpu.compute.minor": "3"},
        allocatable={"nvidia.com/gpu": "2"},
        resource="nvidia.com/gpu",
        expected={"memory_bytes": None, "memory_from": None, "architecture": "3.3", "link_domain": None},
    ),
    LabelSet(
        name="memory in bytes, as some versions wrote it",
        source="Project-HAMi/HAMi#1925, of units that changed",
        labels={"nvidia.com/gpu.product": "NVIDIA-L4", "nvidia.com/gpu.memory": str(23034 * MIB)},
        allocatable={"nvidia.com/gpu": "1"},
        resource="nvidia.com/gpu",
        expected={"memory_bytes": 23034 * MIB, "memory_from": "catalogue"},
    ),
    LabelSet(
        name="mi300x, eight",
        source="ROCm documentation of the device plugin, example labels of an MI300X",
        labels={
            "amd.com/gpu.cu-count": "304",
            "amd.com/gpu.device-id": "74a1",
            "amd.com/gpu.family": "AI",
            "amd.com/gpu.product-name": "AMD_Instinct_MI300X_OAM",
            "amd.com/gpu.simd-count": "1216",
            "amd.com/gpu.vram": "192G",
        },
        allocatable={"amd.com/gpu": "8"},
        resource="amd.com/gpu",
        # The label is rounded up by 16 MiB.
        expected={
            "product": "AMD_Instinct_MI300X_OAM", "memory_bytes": 196592 * MIB, "memory_from": "label",
            "architecture": "gfx942", "link_domain": 8, "gpus": 8, "is_slice": False,
        },
    ),
    LabelSet(
        name="mi300x in a virtual machine, without product",
        source="ROCm/gpu-operator#266",
        labels={
            "amd.com/gpu.cu-count": "304",
            "amd.com/gpu.device-id": "74b5",
            "amd.com/gpu.driver-version": "6.12.12",
            "amd.com/gpu.family": "AI",
        },
        allocatable={"amd.com/gpu": "8"},
        resource="amd.com/gpu",
        expected={"product": None, "memory_bytes": 196592 * MIB, "memory_from": "catalogue", "architecture": "gfx942"},
    ),
    LabelSet(
        name="mi355x, cut in two",
        source="ROCm/gpu-operator#555",
        labels={"amd.com/gpu.device-id": "75a3", "amd.com/gpu.vram": "144G"},
        allocatable={"amd.com/gpu": "16"},
        resource="amd.com/gpu",
        expected={"memory_bytes": 144 * GIB, "memory_from": "label", "is_slice": True, "link_domain": None, "gpus": 16},
    ),
    LabelSet(
        name="more than the catalogue knows of",
        source="made up: the node's own label is believed first",
        labels={"amd.com/gpu.product-name": "AMD_Instinct_MI210", "amd.com/gpu.vram": "128G"},
        allocatable={"amd.com/gpu": "1"},
        resource="amd.com/gpu",
        expected={"memory_bytes": 128 * GIB, "memory_from": "label", "is_slice": False},
    ),
    LabelSet(
        name="vega, by the older labels",
        source="ROCm/k8s-device-plugin, cmd/k8s-node-labeller/README.md",
        labels={
            "beta.amd.com/gpu.cu-count.64": "1",
            "beta.amd.com/gpu.device-id.6860": "1",
            "beta.amd.com/gpu.family.AI": "1",
            "beta.amd.com/gpu.simd-count.256": "1",
            "beta.amd.com/gpu.vram.16G": "1",
        },
        allocatable={"amd.com/gpu": "1"},
        resource="amd.com/gpu",
        expected={"product": None, "memory_bytes": 16 * GIB, "memory_from": "label", "architecture": None, "gpus": 1},
    ),
    LabelSet(
        name="two kinds of AMD GPUs",
        source="ROCm/k8s-device-plugin, cmd/k8s-node-labeller/README.md, Limitations",
        labels={"beta.amd.com/gpu.vram.16G": "1", "beta.amd.com/gpu.vram.4G": "1"},
        allocatable={"amd.com/gpu": "2"},
        resource="amd.com/gpu",
        expected={"memory_bytes": None, "memory_from": None},
    ),
    LabelSet(
        name="intel max",
        source="intel/intel-device-plugins-for-kubernetes, cmd/gpu_plugin/labels.md; memory: a sum over the GPUs",
        labels={
            "gpu.intel.com/device.count": "2",
            "gpu.intel.com/family": "Max_Series",
            "gpu.intel.com/product": "Max_1550",
            "gpu.intel.com/memory.max": str(2 * 48 * GIB),
            "gpu.intel.com/gpu-numbers": "0.1",
        },
        allocatable={"gpu.intel.com/i915": "2", "gpu.intel.com/i915_monitoring": "1"},
        resource="gpu.intel.com/i915",
        expected={"product": "Max_1550", "memory_bytes": 48 * GIB, "memory_from": "label", "gpus": 2, "is_shared": False},
    ),
    LabelSet(
        name="intel flex, each for ten pods",
        source="intel/intel-device-plugins-for-kubernetes, cmd/gpu_plugin: -shared-dev-num",
        labels={"gpu.intel.com/device.count": "1", "gpu.intel.com/product": "Flex_170"},
        allocatable={"gpu.intel.com/xe": "10"},
        resource="gpu.intel.com/xe",
        expected={"memory_bytes": None, "gpus": 1, "replicas": 10, "is_shared": True},
    ),
    LabelSet(
        name="gaudi",
        source="HabanaAI/gaudi-feature-discovery, collector/collector.go",
        labels={"habana.ai/device.family": "gaudi", "habana.ai/device.count": "8", "habana.ai/device.type": "GAUDI2"},
        allocatable={"habana.ai/gaudi": "8"},
        resource="habana.ai/gaudi",
        expected={"product": "GAUDI2", "memory_bytes": 96 * 10**9, "memory_from": "catalogue", "link_domain": None, "gpus": 8},
    ),
    LabelSet(
        name="a device of somebody else",
        source="Kubernetes documentation, Extended Resources",
        labels={},
        allocatable={"example.com/dongle": "4", "ephemeral-storage": "10Gi", "hugepages-2Mi": "0", "node.kubernetes.io/x": "1"},
        resource="example.com/dongle",
        expected={"allocatable": 4, "gpus": 4, "product": None, "memory_bytes": None},
    ),
]  # fmt: skip
