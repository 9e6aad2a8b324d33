"""Failures of a GPU in what a pod tells."""

import pytest

from draftmark.facts.gpu_failures import gpu_failure, unhealthy_device
from draftmark.facts.pods import pod_problem, worst_problem
from tests.specs import Object, crashed_pod, pod, ready_pod, waiting_pod

R = "00000000"

LOST = "nvml: error creating nvml.Device 3: nvml: GPU is lost"
REJECTED = (
    "Pod was rejected: Allocate failed due to no healthy devices present; cannot allocate unhealthy devices "
    "nvidia.com/gpu, which is unexpected"
)

LOGS = [
    ("torch.AcceleratorError: CUDA error: uncorrectable ECC error encountered", "GpuFailed", "kubectl cordon gpu-7"),
    ("CUDA error: uncorrectable NVLink error detected during the execution", "GpuFailed", "reset or replace the GPU"),
    (LOST, "GpuFailed", "kubectl cordon gpu-7"),
    ("torch.AcceleratorError: CUDA error: an illegal memory access was encountered", "GpuFaulted", "engine.version"),
    ("RuntimeError: HIP error: unspecified launch failure", "GpuFaulted", "kubectl cordon gpu-7"),
    ("ggml_cuda_compute_forward: CUDA error: misaligned address", "GpuFaulted", "Xid"),
    ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", "GpuOutOfMemory", "parallelism.tensor"),
    (
        "ggml_backend_cuda_buffer_type_alloc_buffer: cudaMalloc failed: out of memory",
        "GpuOutOfMemory",
        "maxContextLength",
    ),
    (
        "ValueError: Free memory on device cuda:0 (3.1/79.1 GiB) on startup is less than desired GPU memory utilization",
        "GpuOutOfMemory",
        "something else uses the GPU",
    ),
    (
        "RuntimeError: The NVIDIA driver on your system is too old (found version 12040).",
        "GpuDriverMismatch",
        "engine.image",
    ),
    ("Failed to initialize NVML: Driver/library version mismatch", "GpuDriverMismatch", "restart the node"),
    ("RuntimeError: No CUDA GPUs are available", "GpuNotSeen", "podTemplate.runtimeClassName"),
]


@pytest.mark.parametrize(("line", "code", "way_out"), LOGS)
def test_a_gpu_failure_is_told_with_its_line_and_the_way_out(line: str, code: str, way_out: str) -> None:
    # As engines end: something before it, and after it that they end.
    log = f"INFO loading weights\n\x1b[31m{line}\x1b[0m\nRuntimeError: Engine core initialization failed.\n"
    item = crashed_pod(R, log=log)
    item["spec"]["nodeName"] = "gpu-7"
    problem = pod_problem(item)
    assert problem is not None
    assert (problem.code, problem.needs_human) == (code, True)
    assert line.rstrip(".") in problem.message
    assert way_out in problem.message
    assert "\x1b" not in problem.message


@pytest.mark.parametrize("log", ["", "error: unknown model", "out of memory", "CUDA graphs captured", "Xid", None])
def test_other_ends_are_no_failure_of_a_gpu(log: str | None) -> None:
    assert gpu_failure(log) is None
    problem = pod_problem(crashed_pod(R, log=log or ""))
    assert problem is not None
    assert problem.code == "EngineCrashed"


def test_memory_of_the_container_counts_before_what_the_log_says() -> None:
    problem = pod_problem(crashed_pod(R, reason="OOMKilled", exit_code=137, log=LOGS[0][0]))
    assert problem is not None
    assert problem.code == "OutOfMemory"


def test_a_node_that_is_not_known_is_not_named() -> None:
    problem = pod_problem(crashed_pod(R, log=LOGS[0][0]))
    assert problem is not None
    assert "(kubectl cordon)" in problem.message
    assert "A GPU of the node has failed" in problem.message


def device(health: str, **fields: str) -> Object:
    found = {"resourceID": "GPU-1a2b", "health": health, **fields}
    return {"allocatedResourcesStatus": [{"name": "nvidia.com/gpu", "resources": [found]}]}


def test_a_device_that_the_kubelet_calls_unhealthy_counts_before_the_log() -> None:
    item = crashed_pod(R, log=LOGS[3][0])
    item["status"]["containerStatuses"][0] |= device("Unhealthy", message="Xid 79")
    problem = pod_problem(item)
    assert problem is not None
    assert problem.code == "GpuFailed"
    assert "nvidia.com/gpu GPU-1a2b is Unhealthy: Xid 79" in problem.message


@pytest.mark.parametrize("container", [{}, device("Healthy"), device("Unknown"), {"allocatedResourcesStatus": None}])
def test_other_devices_are_no_failure(container: Object) -> None:
    assert unhealthy_device(container) is None


def test_a_ready_engine_is_believed_rather_than_the_device() -> None:
    item = ready_pod(R)
    item["status"]["containerStatuses"][0] |= device("Unhealthy")
    assert pod_problem(item) is None


def test_a_pod_that_the_kubelet_rejects_for_its_gpu_is_told_and_another_one_may_do_better() -> None:
    item = pod(R, phase="Failed", reason="UnexpectedAdmissionError", message=REJECTED)
    item["spec"]["nodeName"] = "gpu-7"
    problem = pod_problem(item)
    assert problem is not None
    assert (problem.code, problem.needs_human) == ("GpuFailed", False)
    assert "no healthy devices present" in problem.message
    assert "kubectl cordon gpu-7" in problem.message
    # The one that takes its place is told before the one that was rejected.
    later = worst_problem([item, waiting_pod(R, "ErrImagePull", "not found")])
    assert later is not None
    assert later.code == "ImagePullFailed"


def test_a_container_that_cannot_be_made_for_its_gpu_is_told_as_that() -> None:
    item = waiting_pod(R, "RunContainerError", "nvidia-container-cli: device error: GPU-1a2b: unknown device: unknown")
    problem = pod_problem(item)
    assert problem is not None
    assert (problem.code, problem.needs_human) == ("GpuFailed", True)


def test_memory_that_a_container_of_our_own_needs_is_not_the_engines() -> None:
    crashed = crashed_pod("r", reason="OOMKilled", exit_code=137)
    crashed["status"]["containerStatuses"][0]["name"] = "reloader"
    problem = pod_problem(crashed)
    assert problem is not None
    assert problem.code == "ReloaderCrashed"
    assert "The container reloader was killed for memory" in problem.message
    assert "engine.resources" not in problem.message
