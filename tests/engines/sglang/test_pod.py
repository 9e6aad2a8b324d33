"""The pod of SGLang: GPUs, caches, shared memory, probes and its end."""

from typing import Any

import pytest

from draftmark.engines.sglang import START_BASE_S
from draftmark.engines.start_budget import START_MAX_S, START_UNKNOWN_S
from tests.engines.sglang.ask import CPU, SMALLEST, args, env, pod, value_of


def test_a_pod_has_as_many_gpus_as_tensor_says() -> None:
    spec = pod(("parallelism.tensor", 4))
    assert spec["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": "4"}
    assert value_of(spec["containers"][0]["args"], "--tp-size") == "4"
    assert spec["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-L4"}


def test_experts_are_spread_over_the_gpus_of_tensor() -> None:
    """Each of them on one GPU: fewer parts than GPUs would divide an expert among some of them."""
    split = {"tensor": 4, "pipeline": 2, "expert": True}
    argv = args(("parallelism", split))
    assert value_of(argv, "--ep-size") == value_of(argv, "--tp-size") == "4"
    assert "--ep-size" not in args(("parallelism", {**split, "expert": False}))


def test_the_share_of_the_gpu_is_sglangs_own() -> None:
    """It means weights and KV cache of all memory, and follows from the tokens of a step: no number fits every GPU."""
    assert "--mem-fraction-static" not in args()
    assert value_of(args(("engine.args", ["--mem-fraction-static", "0.7"])), "--mem-fraction-static") == "0.7"


def test_on_cpu_the_kv_cache_has_room_for_all_requests_and_no_more() -> None:
    argv = args(("workload.concurrency", 8), ("model.maxContextLength", 2048), base=CPU)
    assert value_of(argv, "--device") == "cpu"
    assert value_of(argv, "--max-total-tokens") == "16384"
    assert env(base=CPU)["SGLANG_USE_CPU_ENGINE"] == "1"
    assert "--device" not in args()
    assert "SGLANG_USE_CPU_ENGINE" not in env()


def test_everything_that_is_written_has_a_place() -> None:
    spec = pod()
    container = spec["containers"][0]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    scratch = {v["name"] for v in spec["volumes"] if "emptyDir" in v}
    writable = {m["mountPath"] for m in container["volumeMounts"] if m["name"] in scratch}
    assert writable == {"/cache", "/dev/shm", "/tmp"}
    paths = [value for name, value in env().items() if name.endswith(("HOME", "_DIR"))]
    assert len(paths) == 5
    assert all(path == "/cache" or path.startswith("/cache/") for path in paths)
    assert env()["USER"]
    # Else SGLang makes the folder of its metrics below it, new for each start.
    assert "PROMETHEUS_MULTIPROC_DIR" not in env()


def test_shared_memory_has_room_for_what_processes_of_several_gpus_tell_each_other() -> None:
    for changes in ([], [("engine.options.kvOffload", "64Gi")]):  # which is memory that the GPU reads, and no file
        [shm] = [v for v in pod(*changes)["volumes"] if v["name"] == "draftmark-shm"]
        assert shm["emptyDir"] == {"medium": "Memory", "sizeLimit": "10Gi"}


@pytest.mark.parametrize("timeout", ["1s", "10m", "24h"])
def test_the_engine_drains_as_long_as_a_request_may_take_and_is_killed_later(timeout: str) -> None:
    """It waits for its requests without an end, sees SIGTERM and the last one within 5 s each, and stops within 15 s."""
    spec = pod(("traffic.requestTimeout", timeout))
    drain = {"1s": 1, "10m": 600, "24h": 86_400}[timeout]
    forget = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert forget >= 5
    assert drain + forget + 5 + 5 + 15 < spec["terminationGracePeriodSeconds"] <= drain + forget + 60


@pytest.mark.parametrize(
    ("changes", "budget"),
    [
        ([], START_UNKNOWN_S),
        ([("accelerator", {"count": 0}), ("engine.resources", {"limits": {"memory": "5G"}})], START_BASE_S + 100),
        ([("accelerator", {"count": 0}), ("engine.resources", {"limits": {"memory": "8E"}})], START_MAX_S),
        ([("engine.resources", {"limits": {"memory": "5G"}})], START_UNKNOWN_S),
    ],
)
def test_the_request_that_warms_up_has_as_long_as_the_probe_waits(changes: list[tuple[str, Any]], budget: int) -> None:
    """SGLang ends itself otherwise after 600 s, whatever is compiled then."""
    spec = pod(*changes)
    probe = spec["containers"][0]["startupProbe"]
    limit = int(env(*changes)["SGLANG_WARMUP_TIMEOUT"])
    assert limit == budget
    assert limit + 60 <= probe["periodSeconds"] * probe["failureThreshold"] <= limit + 300


def test_only_liveness_asks_for_a_token_and_waits_for_it() -> None:
    """`/health` is made a plain question; `/health_generate` waits for 20 s, and a second at least."""
    container = pod()["containers"][0]
    assert env()["SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION"] == "false"
    paths = {p: container[p]["httpGet"]["path"] for p in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert paths == {"startupProbe": "/health", "readinessProbe": "/health", "livenessProbe": "/health_generate"}
    assert container["livenessProbe"]["timeoutSeconds"] > int(env()["SGLANG_HEALTH_CHECK_TIMEOUT"]) >= 20


def test_a_busy_engine_is_neither_restarted_nor_taken_out_at_once() -> None:
    """A long prompt holds the answers to all others up."""
    container = pod()["containers"][0]
    allowed = {
        probe: container[probe]["periodSeconds"] * container[probe]["failureThreshold"]
        for probe in ("readinessProbe", "livenessProbe")
    }
    assert container["readinessProbe"]["timeoutSeconds"] >= 5
    assert allowed["readinessProbe"] >= 30
    assert allowed["livenessProbe"] >= 150
    assert allowed["readinessProbe"] < allowed["livenessProbe"], "it is taken out before it is killed"


def test_metrics_are_on() -> None:
    spec = pod()
    assert spec["containers"][0]["args"].count("--enable-metrics") == 1


def test_no_service_puts_its_address_into_the_environment() -> None:
    assert pod(base=SMALLEST)["enableServiceLinks"] is False
