"""The pod of vLLM: GPUs, caches, shared memory, probes and its end."""

from typing import Any

import pytest

from draftmark.engines.start_budget import START_MAX_S, START_UNKNOWN_S
from draftmark.engines.vllm import START_BASE_S
from tests.engines.vllm.ask import GPU, args, env, pod, refused, value_of

# --- GPUs ---


def test_a_pod_has_as_many_gpus_as_tensor_says() -> None:
    four = ("parallelism.tensor", 4)
    spec = pod(four, base=GPU)
    assert spec["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": "4"}
    argv = spec["containers"][0]["args"]
    assert value_of(argv, "--tensor-parallel-size") == "4"
    assert value_of(argv, "--distributed-executor-backend") == "mp"
    assert value_of(argv, "--gpu-memory-utilization") == "0.92"
    assert value_of(args(base=GPU), "--distributed-executor-backend") is None
    assert spec["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-L4"}


def test_experts_are_spread_over_the_gpus_of_tensor() -> None:
    argv = args(("parallelism", {"tensor": 4, "expert": True}), base=GPU)
    assert [word for word in argv if word not in args(("parallelism.tensor", 4), base=GPU)] == [
        "--enable-expert-parallel"
    ]
    assert "--enable-expert-parallel" not in args(("parallelism", {"tensor": 4, "expert": False}), base=GPU)


@pytest.mark.parametrize(
    ("base", "told"), [(GPU, "parallelism.tensor is 1"), (None, "the service has no GPUs")], ids=["one GPU", "CPU"]
)
def test_experts_need_two_gpus_to_be_spread(base: Any, told: str) -> None:
    answer = refused(("parallelism.expert", True), base=base)
    assert (answer.code, told in answer.message) == ("NoLayout", True), answer


def test_on_cpu_the_kv_cache_follows_the_container_and_not_the_node() -> None:
    assert value_of(args(), "--gpu-memory-utilization") is None
    assert env(("engine.resources", {"limits": {"memory": "16Gi"}}))["VLLM_CPU_KVCACHE_SPACE"] == "4"
    assert env(("engine.resources", {"limits": {"memory": "2Gi"}}))["VLLM_CPU_KVCACHE_SPACE"] == "1"
    assert "VLLM_CPU_KVCACHE_SPACE" not in env()
    assert "VLLM_CPU_KVCACHE_SPACE" not in env(("engine.resources", {"limits": {"memory": "16Gi"}}), base=GPU)


# --- the pod ---


def test_everything_that_is_written_has_a_place() -> None:
    spec = pod()
    container = spec["containers"][0]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    scratch = {v["name"] for v in spec["volumes"] if "emptyDir" in v}
    writable = {m["mountPath"] for m in container["volumeMounts"] if m["name"] in scratch}
    assert writable == {"/cache", "/dev/shm", "/tmp"}
    paths = [value for name, value in env().items() if name.endswith(("HOME", "_ROOT", "_DIR"))]
    assert len(paths) == 7
    assert all(path == "/cache" or path.startswith("/cache/") for path in paths)
    assert env()["USER"]


@pytest.mark.parametrize(
    ("offload", "size"), [(None, "10Gi"), ("16Gi", "42Gi"), ("100Mi", "10440Mi"), ("2G", "14055Mi")]
)
def test_shared_memory_has_room_for_what_leaves_the_gpu(offload: str | None, size: str) -> None:
    changes = [("engine.options.kvOffload", offload)] if offload else []
    [shm] = [v for v in pod(*changes, base=GPU)["volumes"] if v["name"] == "draftmark-shm"]
    assert shm["emptyDir"] == {"medium": "Memory", "sizeLimit": size}


@pytest.mark.parametrize("path", ["/cache", "/dev/shm", "/cache/", "/tmp"])
def test_a_volume_of_the_users_takes_the_place_of_scratch_space(path: str) -> None:
    own = {"name": "own", "mountPath": path, "persistentVolumeClaim": {"claimName": "caches"}}
    spec = pod(("podTemplate.volumes", [own]))
    paths = [m["mountPath"].rstrip("/") for m in spec["containers"][0]["volumeMounts"]]
    assert sorted(paths) == sorted(set(paths))
    assert len(spec["volumes"]) == len(paths)


@pytest.mark.parametrize("timeout", ["1s", "10m", "24h"])
def test_the_engine_drains_as_long_as_a_request_may_take_and_is_killed_later(timeout: str) -> None:
    spec = pod(("traffic.requestTimeout", timeout))
    drain = int(value_of(spec["containers"][0]["args"], "--shutdown-timeout") or 0)
    forget = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert drain == {"1s": 1, "10m": 600, "24h": 86_400}[timeout]
    assert spec["terminationGracePeriodSeconds"] >= forget + drain + 10


@pytest.mark.parametrize(
    ("changes", "budget"),
    [
        ([], START_UNKNOWN_S),
        ([("engine.resources", {"limits": {"memory": "5G"}})], START_BASE_S + 100),
        ([("model.uri", "hf://o/r"), ("engine.resources", {"limits": {"memory": "5G"}})], START_BASE_S + 500),
        ([("engine.resources", {"limits": {"memory": "8E"}})], START_MAX_S),
        ([("accelerator", {"product": "a"}), ("engine.resources", {"limits": {"memory": "5G"}})], START_UNKNOWN_S),
    ],
)
def test_the_engine_gives_up_before_the_kubelet_does(changes: list[tuple[str, Any]], budget: int) -> None:
    """The engine's own message says why; a kill says nothing."""
    spec = pod(*changes)
    probe = spec["containers"][0]["startupProbe"]
    limit = int(env(*changes)["VLLM_ENGINE_READY_TIMEOUT_S"])
    assert limit == budget
    assert limit + 60 <= probe["periodSeconds"] * probe["failureThreshold"] <= limit + 300


def test_probes_ask_the_server_itself() -> None:
    """The port is bound before the model is loaded, so a TCP probe would say yes too soon."""
    container = pod()["containers"][0]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": "/health", "port": "http", "scheme": "HTTP"}


def test_the_command_does_not_depend_on_the_images_entry_point() -> None:
    container = pod()["containers"][0]
    assert container["command"] == ["vllm", "serve"]
    assert container["args"][0] == "/models/llama"


def test_a_busy_engine_is_neither_restarted_nor_taken_out_at_once() -> None:
    """Compilation for a new shape of requests holds the answers up for a while."""
    container = pod()["containers"][0]
    allowed = {
        probe: (container[probe]["timeoutSeconds"], container[probe]["periodSeconds"] * container[probe]["failureThreshold"])
        for probe in ("readinessProbe", "livenessProbe")
    }  # fmt: skip
    assert allowed["livenessProbe"] >= (10, 60)
    assert allowed["readinessProbe"] >= (5, 30)
    assert allowed["readinessProbe"][1] < allowed["livenessProbe"][1], "it is taken out before it is killed"


def test_nothing_is_told_to_others() -> None:
    assert {name: env()[name] for name in ("VLLM_NO_USAGE_STATS", "DO_NOT_TRACK")} == {
        "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1",
    }  # fmt: skip


def test_no_service_puts_its_address_into_the_environment() -> None:
    assert pod()["enableServiceLinks"] is False
