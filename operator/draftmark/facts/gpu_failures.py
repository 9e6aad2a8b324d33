"""Failures of a GPU, recognised in what a pod's status tells: the end of a log, the kubelet's words, a device's health.

A GPU that fails (NVIDIA's driver logs it as an Xid) shows in three places of a pod:
- The engine ends, and the end of its log has the driver's text for the error.
- The device plugin calls the device unhealthy. Where the kubelet tells it (`allocatedResourcesStatus`), the container has it.
- No healthy device is left when the pod comes to the node: the kubelet rejects the pod, or the runtime cannot start it.

What looks alike needs different hands, so the texts are in groups: a defect of the hardware, a fault that hardware or
engine may have made, memory that ran out, a driver that does not fit, and a GPU that the container does not see.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuFailure:
    """What happened to the GPU."""

    code: str
    #: What is, without the text that told it.
    what: str
    way_out: str
    #: The line that told it.
    line: str


_CORDON: Final = (
    "Keep pods away from the node (kubectl cordon{node}), look for Xid messages in its kernel log, reset or replace the GPU, "
    "and delete the pod: another node takes it."
)

#: Code, what happened and the way out, with texts that tell it in small letters; the first that is found counts.
#: Sources: cudaGetErrorString of the CUDA runtime, which HIP has as well; nvmlErrorString; PyTorch, vLLM and llama.cpp for
#: their own sentences; the kubelet's device manager (pkg/kubelet/cm/devicemanager); NVIDIA's container runtime hook.
_FAILURES: Final[tuple[tuple[str, str, str, tuple[str, ...]], ...]] = (
    (
        "GpuFailed",
        "A GPU of the node{at} has failed",
        _CORDON,
        (
            "uncorrectable ecc error",
            "uncorrectable nvlink error",
            "hardware stack error",
            "gpu is lost",
            "fallen off the bus",
            "gpu requires reset",
            "no healthy devices present",
            "cannot allocate unhealthy devices",
            "nvidia-container-cli: device error",
        ),
    ),
    (
        "GpuDriverMismatch",
        "The GPU driver of the node{at} does not fit the engine's image, or was updated while the node ran",
        "Update the driver and restart the node, choose nodes with a newer one (podTemplate.nodeSelector), or set "
        "engine.version or engine.image to one for an older CUDA.",
        (
            "cuda driver version is insufficient",
            "driver on your system is too old",
            "unsupported display driver / cuda driver combination",
            "unsatisfied condition: cuda",
            "driver/library version mismatch",
        ),
    ),
    (
        "GpuOutOfMemory",
        "The GPU's memory does not suffice",
        "Lower model.maxContextLength or workload.concurrency, set model.quantization or a larger parallelism.tensor, or take "
        "an accelerator with more memory. Where the log says that memory is not free, something else uses the GPU: another "
        "pod, or one that has not ended yet.",
        (
            "cuda out of memory",
            "cuda error: out of memory",
            "hip out of memory",
            "cudamalloc failed: out of memory",
            "hipmalloc failed: out of memory",
            "torch.outofmemoryerror",
            "less than desired gpu memory utilization",
            "no available memory for the cache blocks",
            "larger than the available kv cache memory",
        ),
    ),
    (
        "GpuNotSeen",
        "The container on the node{at} sees no GPU",
        "Look at the device plugin and at the container runtime of the node; where it is not the default, name NVIDIA's with "
        "podTemplate.runtimeClassName. engine.image must be one for this accelerator.",
        (
            "no cuda-capable device is detected",
            "found no nvidia driver",
            "no nvidia gpu detected",
            "failed to infer device type",
            "no hip gpus are available",
            "no cuda gpus are available",
        ),
    ),
    (
        "GpuFaulted",
        "A GPU of the node{at} reported a fault, which a defect or the engine's own code can have caused",
        "If it comes back on this node only, it is the GPU: keep pods away from the node (kubectl cordon{node}), look for Xid "
        "messages in its kernel log, and delete the pod. If it comes back on others, change engine.version or engine.options.",
        (
            "illegal memory access",
            "unspecified launch failure",
            "illegal instruction was encountered",
            "misaligned address",
            "launch timed out and was terminated",
            "device(s) is/are busy or unavailable",
            "unable to determine the device handle",
            "memory access fault by gpu",
            "unhandled cuda error",
        ),
    ),
)  # fmt: skip


def gpu_failure(text: object, *, node: str | None = None) -> GpuFailure | None:
    """The failure of a GPU that a text tells of, or None.

    Args:
        text: The end of a log, or a message of the kubelet.
        node: Name of the pod's node, for the way out.
    """
    lines = [line.strip() for line in str(text or "").splitlines()]
    for code, what, way_out, signs in _FAILURES:
        # The last one: an engine that goes on after one error tells the one that ended it later.
        for line in reversed(lines):
            if any(sign in line.lower() for sign in signs):
                return _failure(code, what, way_out, node, line)
    return None


def unhealthy_device(container: Mapping[str, Any], *, node: str | None = None) -> GpuFailure | None:
    """The failure of a device that a container holds, where the kubelet tells of it (feature gate ResourceHealthStatus)."""
    code, what, way_out, _ = _FAILURES[0]
    for resource, device in _devices(container):
        if device.get("health") == "Unhealthy":
            told = f"{resource} {device.get('resourceID', '')}".strip()
            message = f": {device['message']}" if device.get("message") else ""
            return _failure(code, what, way_out, node, f"{told} is Unhealthy{message}")
    return None


def _devices(container: Mapping[str, Any]) -> Iterable[tuple[str, Mapping[str, Any]]]:
    for status in container.get("allocatedResourcesStatus") or ():
        for device in status.get("resources") or ():
            yield str(status.get("name", "")), device


def _failure(code: str, what: str, way_out: str, node: str | None, line: str) -> GpuFailure:
    return GpuFailure(
        code=code,
        what=what.format(at=f" '{node}'" if node else ""),
        way_out=way_out.format(node=f" {node}" if node else ""),
        line=line,
    )
