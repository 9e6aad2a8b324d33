"""How `vllm serve` is started."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftmark.api.defaults import Defaults
from draftmark.api.inference_service import InferenceServiceSpec
from draftmark.engines.flag_table import FlagTable, check_args
from draftmark.engines.start_budget import START_MAX_S, START_UNKNOWN_S
from draftmark.engines.vllm import (
    LORA_RANKS,
    OVERRIDABLE,
    REFUSED_ENV,
    RESERVED,
    START_BASE_S,
    Vllm,
)
from draftmark.facts.nodes import ClusterFacts
from draftmark.plan import Plan, Unplannable
from draftmark.planner.planner import make_plan
from draftmark.render.pod import render_pod_template
from tests.facts import test_gpu_failures
from tests.monitoring import test_prometheus
from tests.specs import Object, parse, with_field

ENGINE = Vllm()


def load_table() -> FlagTable:
    table = ENGINE.flag_table(ENGINE.default_version)
    assert table is not None
    return table


TABLE = load_table()

CLAIM = "pvc://weights/llama"
SMALLEST: Object = {"model": {"uri": CLAIM}, "engine": {"name": "vllm"}}
GPU: Object = {**SMALLEST, "accelerator": {"product": "NVIDIA-L4"}}
NO_DEFAULTS = Defaults()


def asked(*changes: tuple[str, Any], base: Object = SMALLEST) -> InferenceServiceSpec:
    for path, value in changes:
        base = with_field(base, path, value)
    return parse(base)


def planned(spec: InferenceServiceSpec, keep: Plan | None = None) -> Plan | Unplannable:
    return make_plan(spec, name="tiny", cluster=ClusterFacts(), defaults=NO_DEFAULTS, keep=keep)


def pod(*changes: tuple[str, Any], base: Object = SMALLEST) -> Any:
    """The pod's spec, from the service's own."""
    spec = asked(*changes, base=base)
    plan = planned(spec)
    assert isinstance(plan, Plan), plan
    return render_pod_template("tiny", spec, plan, NO_DEFAULTS)["spec"]


def args(*changes: tuple[str, Any], base: Object = SMALLEST) -> list[str]:
    found: list[str] = pod(*changes, base=base)["containers"][0]["args"]
    return found


def env(*changes: tuple[str, Any], base: Object = SMALLEST) -> dict[str, Any]:
    return {e["name"]: e.get("value") or e["valueFrom"] for e in pod(*changes, base=base)["containers"][0]["env"]}


def value_of(argv: list[str], flag: str) -> str | None:
    """The word after a flag; the flag stands there once at most."""
    assert argv.count(flag) <= 1
    return argv[argv.index(flag) + 1] if flag in argv else None


def refused(*changes: tuple[str, Any], base: Object = SMALLEST) -> Unplannable:
    answer = planned(asked(*changes, base=base))
    assert isinstance(answer, Unplannable), answer
    assert answer.message.endswith(".")
    return answer


# --- where the model comes from ---

SOURCES = {
    "hf://org/repo": ("org/repo", None),
    "pvc://weights/llama/3": ("/models/llama/3", {"persistentVolumeClaim": {"claimName": "weights", "readOnly": True}}),
    "oci://host/a:1": ("/models", {"image": {"reference": "host/a:1", "pullPolicy": "IfNotPresent"}}),
    "oci://host/a:1#m/x": ("/models/m/x", {"image": {"reference": "host/a:1", "pullPolicy": "IfNotPresent"}}),
}


@pytest.mark.parametrize("uri", SOURCES)
def test_the_model_is_the_first_argument_and_its_volume_is_read_only(uri: str) -> None:
    path, volume = SOURCES[uri]
    spec = pod(("model.uri", uri))
    assert spec["containers"][0]["args"][0] == path
    mounts = [m for m in spec["containers"][0]["volumeMounts"] if m["name"] == "draftmark-model"]
    assert mounts == ([{"name": "draftmark-model", "mountPath": "/models", "readOnly": True}] if volume else [])
    assert [v for v in spec["volumes"] if v["name"] == "draftmark-model"] == (
        [{"name": "draftmark-model", **volume}] if volume else []
    )


@pytest.mark.parametrize("uri", SOURCES)
def test_nothing_asks_the_hub_where_the_model_is_at_hand(uri: str) -> None:
    assert env(("model.uri", uri)).get("HF_HUB_OFFLINE") == (None if uri.startswith("hf://") else "1")


@pytest.mark.parametrize(
    "more",
    [
        ("model.adapters", [{"name": "a", "uri": "hf://org/lora"}]),
        ("engine.options.speculative", {"method": "eagle", "tokens": 2, "uri": "hf://org/draft"}),
    ],
)
def test_a_part_from_the_hub_needs_the_hub(more: tuple[str, Any]) -> None:
    assert "HF_HUB_OFFLINE" not in env(more)


def test_a_commit_is_that_of_weights_and_tokenizer() -> None:
    argv = args(("model", {"uri": "hf://org/repo", "revision": "abc"}))
    assert (value_of(argv, "--revision"), value_of(argv, "--tokenizer-revision")) == ("abc", "abc")


def test_the_token_is_an_environment_variable_from_its_secret_and_never_an_argument() -> None:
    token = ("model", {"uri": "hf://org/repo", "authSecretRef": {"name": "hub", "key": "token"}})
    assert env(token)["HF_TOKEN"] == {"secretKeyRef": {"name": "hub", "key": "token"}}
    assert not any("token" in word for word in args(token) if not word.startswith("--"))


@pytest.mark.parametrize(
    ("uri", "way_out"),
    [
        ("https://host/m.gguf", "pvc://CLAIM/FOLDER"),
        ("hf://org/repo:Q4_K_M", "llama-cpp"),
        ("hf://org/repo/m.gguf", "llama-cpp"),
        ("pvc://claim/m.gguf", "llama-cpp"),
        ("oci://image#m.gguf", "llama-cpp"),
        ("pvc://claim/dir/model.safetensors", "Name the folder"),
    ],
)
def test_what_vllm_cannot_read_is_refused_with_the_way_out(uri: str, way_out: str) -> None:
    answers = [refused(("model.uri", uri))]
    if not uri.startswith("https"):  # the schema knows that nothing else may be behind a URL
        answers.append(refused(("model.adapters", [{"name": "a", "uri": uri}])))
        answers.append(refused(("engine.options.speculative", _eagle(uri))))
    for answer in answers:
        assert answer.code == "UnsupportedModelFormat"
        assert way_out in answer.message
        assert uri in answer.message


def _eagle(uri: str) -> Object:
    return {"method": "eagle", "tokens": 2, "uri": uri}


@pytest.mark.parametrize("uri", ["hf://repo", "pvc://claim", "oci://#a"])
def test_unreadable_parts_are_named(uri: str) -> None:
    adapter = refused(("model.adapters", [{"name": "sql", "uri": uri}]))
    assert (adapter.code, "model.adapters['sql'].uri" in adapter.message) == ("UnreadableModelUri", True)
    draft = refused(("engine.options.speculative", _eagle(uri)))
    assert (draft.code, "engine.options.speculative.uri" in draft.message) == ("UnreadableModelUri", True)


# --- what is always written ---


def test_the_command_line_of_the_smallest_service() -> None:
    assert args() == [
        "/models/llama", "--host", "0.0.0.0", "--port", "8000", "--served-model-name", "tiny", "--max-model-len", "4096",
        "--max-num-seqs", "128", "--tensor-parallel-size", "1", "--api-server-count", "1", "--shutdown-timeout", "600",
        "--max-num-batched-tokens", "2048", "--disable-access-log-for-endpoints", "/health,/metrics",
    ]  # fmt: skip


def test_the_users_arguments_come_last() -> None:
    assert args(("engine.args", ["--seed", "7"]))[-2:] == ["--seed", "7"]


@pytest.mark.parametrize("flag", OVERRIDABLE)
@pytest.mark.parametrize("joined", [False, True])
def test_what_no_field_sets_stands_once_when_the_user_writes_it(flag: str, joined: bool) -> None:
    words = [f"{flag}=1"] if joined else [flag, "1"]
    argv = args(
        ("engine.args", words), ("model.adapters", [{"name": "a", "uri": "hf://o/a"}]), base=GPU,
    )  # fmt: skip
    assert sum(word.partition("=")[0] == flag for word in argv) == 1
    assert argv[-len(words) :] == words


def test_tokens_of_a_step_are_the_users_when_they_write_them() -> None:
    argv = args(("engine.args", ["--max-num-batched-tokens", "4k"]))
    assert value_of(argv, "--max-num-batched-tokens") == "4k"
    plan = planned(asked(("engine.args", ["--max-num-batched-tokens=4k"])))
    assert isinstance(plan, Plan)
    assert plan.max_batched_tokens is None
    assert "BatchedTokens" not in {r.code for r in plan.reasons}


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ([], "generate"), (["--seed", "1"], "generate"), (["--runner", "generate"], "generate"),
        (["--runner", "pooling"], "embed"), (["--runner=pooling"], "embed"), (["--convert", "embed"], "embed"),
        (["--runner", "pooling", "--convert=classify"], "rerank"), (["--runner"], "generate"),
    ],
)  # fmt: skip
def test_the_arguments_tell_what_the_model_does(words: list[str], kind: str) -> None:
    assert ENGINE.model_kind(words) == kind


@pytest.mark.parametrize(
    ("resource", "image"),
    [
        (None, "vllm/vllm-openai-cpu:v1"), ("nvidia.com/gpu", "vllm/vllm-openai:v1"),
        ("amd.com/gpu", "vllm/vllm-openai-rocm:v1"), ("nvidia.com/mig-1g.5gb", None),
    ],
)  # fmt: skip
def test_every_hardware_has_its_image(resource: str | None, image: str | None) -> None:
    assert ENGINE.default_image("1", resource) == image


# --- batch sizes ---


@pytest.mark.parametrize(
    ("kind", "on_gpu", "on_cpu"),
    [
        (None, ("256", "8192"), ("128", "2048")), ("chat", ("256", "8192"), ("128", "2048")),
        ("batch", ("512", "16384"), ("128", "2048")), ("interactive", ("64", "2048"), ("64", "2048")),
    ],
)  # fmt: skip
def test_batch_sizes_follow_the_kind_of_workload_with_a_reason(
    kind: str | None, on_gpu: tuple[str, str], on_cpu: tuple[str, str]
) -> None:
    change = [("workload.kind", kind)] if kind else []
    for base, sizes in ((GPU, on_gpu), (SMALLEST, on_cpu)):
        argv = args(*change, base=base)
        assert (value_of(argv, "--max-num-seqs"), value_of(argv, "--max-num-batched-tokens")) == sizes
        plan = planned(asked(*change, base=base))
        assert isinstance(plan, Plan)
        told = {r.code: r.message for r in plan.reasons}
        for code, size in zip(("Concurrency", "BatchedTokens"), sizes, strict=True):
            assert told[code].startswith(f"{size} ")
            assert (f"workload.kind {kind}" if kind else "workload.kind is not set") in told[code]
        assert ("--enable-chunked-prefill" in argv) == (kind is not None)


def test_a_written_number_of_requests_needs_no_reason_and_fits_in_a_step() -> None:
    plan = planned(asked(("workload.concurrency", 7), base=GPU))
    assert isinstance(plan, Plan)
    assert (plan.concurrency, [r.code for r in plan.reasons if r.code == "Concurrency"]) == (7, [])


def test_a_prompt_that_may_not_be_read_in_parts_fits_in_a_step() -> None:
    """vLLM does not start with a context that is longer than a step, unless it reads prompts in parts."""
    whole = [("model.maxContextLength", 32768), ("engine.options.chunkedPrefill", False)]
    argv = args(*whole, base=GPU)
    assert value_of(argv, "--max-num-batched-tokens") == "32768"
    assert "--no-enable-chunked-prefill" in argv
    assert value_of(args(whole[0], base=GPU), "--max-num-batched-tokens") == "8192"


def test_a_model_that_embeds_reads_a_prompt_in_one_step() -> None:
    pooling = ("engine.args", ["--runner=pooling"])
    assert value_of(args(pooling), "--max-num-batched-tokens") == "4096"
    assert value_of(args(pooling, ("workload.kind", "batch"), base=GPU), "--max-num-batched-tokens") == "16384"
    assert "--enable-chunked-prefill" not in args(pooling, ("workload.kind", "batch"), base=GPU)


@given(
    kind=st.sampled_from([None, "chat", "batch", "interactive"]),
    concurrency=st.none() | st.integers(1, 1024),
    context=st.none() | st.integers(16, 2**24),
    chunked=st.none() | st.booleans(),
    gpu=st.booleans(),
)
def test_a_step_takes_a_token_of_every_request_and_a_prompt_where_it_must(
    kind: str | None, concurrency: int | None, context: int | None, chunked: bool | None, gpu: bool
) -> None:
    changes = {
        "workload.kind": kind, "workload.concurrency": concurrency, "model.maxContextLength": context,
        "engine.options.chunkedPrefill": chunked,
    }  # fmt: skip
    plan = planned(asked(*((p, v) for p, v in changes.items() if v is not None), base=GPU if gpu else SMALLEST))
    assert isinstance(plan, Plan)
    assert plan.max_batched_tokens is not None
    assert plan.max_batched_tokens >= plan.concurrency
    assert chunked is not False or plan.max_batched_tokens >= plan.max_context_length


# --- options ---


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prefixCaching": True}, ["--enable-prefix-caching"]),
        ({"prefixCaching": False}, ["--no-enable-prefix-caching"]),
        ({"chunkedPrefill": True}, ["--enable-chunked-prefill"]),
        ({"kvCacheDType": "fp8_e4m3"}, ["--kv-cache-dtype", "fp8_e4m3"]),
        ({"kvOffload": "1536Mi"}, ["--kv-offloading-size", "1.5", "--kv-offloading-backend", "native"]),
        ({"structuredOutput": True}, ["--structured-outputs-config", '{"backend":"auto"}']),
        ({"speculative": {"method": "ngram", "tokens": 3}},
         ["--speculative-config", '{"method":"ngram","num_speculative_tokens":3,"prompt_lookup_max":5,"prompt_lookup_min":5}']),
        ({"speculative": {"method": "mtp", "tokens": 1}}, ["--speculative-config", '{"method":"mtp","num_speculative_tokens":1}']),
        ({"speculative": {"method": "draftModel", "tokens": 4, "uri": "hf://o/d", "revision": "v1"}},
         ["--speculative-config", '{"method":"draft_model","model":"o/d","num_speculative_tokens":4,"revision":"v1"}']),
        ({"speculative": {"method": "eagle3", "tokens": 4, "uri": "pvc://weights/draft"}},
         ["--speculative-config", '{"method":"eagle3","model":"/models/draft","num_speculative_tokens":4}']),
        ({"speculative": {"method": "eagle", "tokens": 4, "uri": "pvc://drafts/a"}},
         ["--speculative-config", '{"method":"eagle","model":"/draft/a","num_speculative_tokens":4}']),
        ({}, []),
    ],
)  # fmt: skip
def test_options_are_spelled_the_engines_way(options: Object, words: list[str]) -> None:
    plain, launched = args(base=GPU), args(("engine.options", options), base=GPU)
    assert [word for word in launched if word not in plain] == words


def test_several_api_servers() -> None:
    assert value_of(args(("engine.options.apiServerCount", 4)), "--api-server-count") == "4"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ([("engine.options.kvOffload", "1Gi")], "accelerator is not set"),
        ([("accelerator", {"product": "a"}), ("engine.options", {"kvOffload": "1Gi", "prefixCaching": False})], "prefixCaching: false"),
        ([("accelerator", {"product": "a"}), ("engine.options", {"kvOffload": "64Gi"}),
          ("engine.resources", {"limits": {"memory": "32Gi"}})], "whose limit is 32Gi"),
        ([("accelerator", {"product": "a"}), ("engine.options", {"kvOffload": "16"})], "at least 1Mi"),
        ([("accelerator", {"product": "a"}), ("engine.options", {"kvOffload": "-1Gi"})], "at least 1Mi"),
        ([("engine.options.kvCacheDType", "q8_0")], "fp8_e4m3"),
        ([("model.quantization", "gguf")], "compressed-tensors"),
        ([("engine.options.structuredOutput", False)], "Remove it"),
        ([("accelerator", {"product": "a", "count": 4})], "Set parallelism.tensor: 4"),
        ([("model.adapters", [{"name": "tiny", "uri": "hf://o/a"}])], "has the name of the model itself"),
    ],
)  # fmt: skip
def test_an_option_that_cannot_be_had_is_refused_with_the_way_out(changes: list[tuple[str, Any]], told: str) -> None:
    answer = refused(*changes)
    assert answer.code == "UnsupportedOption"
    assert told in answer.message


def test_a_version_without_a_table_is_believed() -> None:
    changes = [("engine.version", "9.9.9"), ("model.quantization", "new-one"), ("engine.args", ["--new-flag", "1"])]
    plan = planned(asked(*changes))
    assert isinstance(plan, Plan)
    assert plan.args_unchecked is not None


# --- adapters ---


def test_adapters_are_loaded_at_the_start_under_their_names() -> None:
    adapters = [
        {"name": "sql", "uri": "hf://org/sql"}, {"name": "law", "uri": "pvc://adapters/law"},
        {"name": "med", "uri": "pvc://adapters/med"}, {"name": "own", "uri": "pvc://weights/own"},
        {"name": "pic", "uri": "oci://image:1#a"},
    ]  # fmt: skip
    spec = pod(("model.adapters", adapters))
    argv = spec["containers"][0]["args"]
    start = argv.index("--lora-modules") + 1
    modules = [json.loads(word) for word in argv[start : start + 5]]
    assert [(m["name"], m["path"]) for m in modules] == [
        ("sql", "org/sql"), ("law", "/adapters/1/law"), ("med", "/adapters/1/med"), ("own", "/models/own"),
        ("pic", "/adapters/4/a"),
    ]  # fmt: skip
    assert {m["base_model_name"] for m in modules} == {"tiny"}
    assert "--enable-lora" in argv
    assert (value_of(argv, "--max-loras"), value_of(argv, "--max-cpu-loras")) == ("5", "5")
    # A claim that is mounted by two volumes of one pod would be one volume too many.
    claims = [v["persistentVolumeClaim"]["claimName"] for v in spec["volumes"] if "persistentVolumeClaim" in v]
    assert claims == ["weights", "adapters"]


@given(ranks=st.lists(st.none() | st.integers(1, 512), min_size=1, max_size=16))
def test_the_largest_rank_fits(ranks: list[int | None]) -> None:
    adapters = [
        {"name": f"a{i}", "uri": "hf://o/a", **({"rank": rank} if rank is not None else {})}
        for i, rank in enumerate(ranks)
    ]
    written = int(value_of(args(("model.adapters", adapters)), "--max-lora-rank") or 0)
    needed = max(rank or 16 for rank in ranks)
    assert written >= needed
    assert not [rank for rank in LORA_RANKS if needed <= rank < written]


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


# --- what is refused ---


@pytest.mark.parametrize("words", [["--tool-call-parser", "deepseek-r1"], ["--reasoning-parser=gpt-oss"]])
def test_parsers_of_other_engines_are_refused(words: list[str]) -> None:
    answer = refused(("engine.args", words))
    assert answer.code == "InvalidArgs"
    assert "takes one of" in answer.message


@pytest.mark.parametrize("version", ["0.33.0", "9.9.9"])
def test_a_choice_of_tools_without_a_parser_is_refused(version: str) -> None:
    """vLLM looks at it after the parser, and ends."""
    words, parser = ["--enable-auto-tool-choice"], ["--tool-call-parser", "hermes"]
    answer = refused(("engine.version", version), ("engine.args", words))
    assert answer.code == "InvalidArgs"
    assert "--tool-call-parser" in answer.message
    assert isinstance(planned(asked(("engine.version", version), ("engine.args", [*words, *parser]))), Plan)


@pytest.mark.parametrize(
    ("words", "way_out"),
    [
        (["--swap-space", "4"], "engine.options.kvOffload"), (["--task=embed"], "--runner"), (["--device", "cpu"], "accelerator"),
        (["--guided-decoding-backend", "xgrammar"], "engine.options.structuredOutput"),
    ],
)  # fmt: skip
def test_removed_flags_are_refused_with_what_replaces_them(words: list[str], way_out: str) -> None:
    assert way_out in refused(("engine.args", words)).message


def test_a_flag_is_checked_against_the_version_that_runs() -> None:
    words = ("engine.args", ["--disable-log-requests"])
    assert "--no-enable-log-requests" in refused(("engine.version", "0.32.0"), words).message
    assert isinstance(planned(asked(("engine.version", "0.33.0"), words)), Plan)


@pytest.mark.parametrize("version", ["0.32.0", "0.33.0"])
def test_names_are_refused_whether_or_not_plugins_may_add_some(version: str) -> None:
    """The flag for the KV cache's type takes no other names in one version, and is open in none of them for users."""
    for path in ("engine.options.kvCacheDType", "model.quantization"):
        assert "Use one of" in refused(("engine.version", version), (path, "q8_0")).message
        assert isinstance(planned(asked(("engine.version", version), (path, "fp8"))), Plan)


@pytest.mark.parametrize("word", ["--disable-prefix-caching", "--no-enable-prefix-caching"])
def test_both_spellings_that_switch_off_belong_to_the_field(word: str) -> None:
    """vLLM takes the first since 0.33."""
    answer = refused(("engine.version", "0.33.0"), ("engine.args", [word]))
    assert "engine.options.prefixCaching" in answer.message


@pytest.mark.parametrize("flag", RESERVED)
def test_a_reserved_flag_is_refused_with_the_field_to_use(flag: str) -> None:
    known = TABLE.find(flag)
    assert known is not None, "a reserved flag that the engine does not have protects nothing"
    answer = refused(("engine.args", [flag, *["1"] * known.values]))
    assert answer.code == "InvalidArgs"
    assert RESERVED[flag] in answer.message


@pytest.mark.parametrize(
    "words",
    [
        ["--trust-remote-code"], ["--trust_remote_code"], ["--no-trust-remote-code"], ["--trust-remote"], ["--middlewar", "x"],
        ["--middleware=x"], ["-tp", "2"], ["-tp=2"], ["-dp", "2"], ["--speculative-config.method=ngram"], ["--model", "x"],
        ["--kv-transfer-config.kv_connector", "x"], ["--api-key", "secret"], ["--conf", "x"], ["--"],
    ],
)  # fmt: skip
def test_reserved_flags_are_refused_for_a_version_without_a_table_too(words: list[str]) -> None:
    answer = refused(("engine.version", "9.9.9"), ("engine.args", words))
    assert answer.code == "InvalidArgs"
    assert "cannot be given in engine.args" in answer.message
    assert "secret" not in answer.message


@pytest.mark.parametrize("words", [["--max-num-batched-tokens", "1"], ["--seed=1"], ["--new"], ["x"], ["-"], ["-1"]])
def test_other_flags_pass_for_a_version_without_a_table(words: list[str]) -> None:
    assert isinstance(planned(asked(("engine.version", "9.9.9"), ("engine.args", words))), Plan)


@pytest.mark.parametrize("name", REFUSED_ENV)
def test_variables_that_pass_the_check_of_arguments_are_refused(name: str) -> None:
    answer = refused(("engine.env", [{"name": "HF_ENDPOINT", "value": "x"}, {"name": name, "value": "x"}]))
    assert answer.code == "InvalidEnv"
    assert f"{name} is set by {REFUSED_ENV[name]}" in answer.message


def test_other_variables_are_the_users() -> None:
    own = [
        {"name": n, "value": "9"} for n in ("HF_ENDPOINT", "VLLM_LOGGING_LEVEL", "NCCL_DEBUG", "VLLM_CPU_KVCACHE_SPACE")
    ]
    changes = [("engine.env", own), ("engine.resources", {"limits": {"memory": "16Gi"}})]
    assert env(*changes)["VLLM_CPU_KVCACHE_SPACE"] == "9"


# --- always ---

URIS = st.sampled_from(["hf://org/repo", "pvc://weights/llama", "oci://host/a:1", "oci://host/a:1#m"])
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "prefixCaching": st.just(True),
        "chunkedPrefill": st.booleans(),
        "structuredOutput": st.just(True),
        "kvCacheDType": st.sampled_from(["auto", "fp8", "nvfp4"]),
        "kvOffload": st.sampled_from(["1Mi", "1.5Gi", "64Gi", "3G", "1e12"]),
        "apiServerCount": st.integers(1, 16),
        "speculative": st.one_of(
            st.builds(lambda m, t: {"method": m, "tokens": t}, st.sampled_from(["ngram", "mtp"]), st.integers(1, 32)),
            st.builds(
                lambda m, t, u: {"method": m, "tokens": t, "uri": u},
                st.sampled_from(["draftModel", "eagle", "eagle3"]), st.integers(1, 32), URIS,
            ),
        ),
    },
)  # fmt: skip
NAMES = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._:/-]{0,20}\Z")
SPECS = st.builds(
    lambda uri, name, options, adapters, quantization, kind, concurrency, tensor: {
        "model": {
            "uri": uri, "name": name, "adapters": [{"name": f"lora-{i}", "uri": u} for i, u in enumerate(adapters)],
            **({"quantization": quantization} if quantization else {}),
        },
        "engine": {"name": "vllm", "options": options},
        "accelerator": {"product": "a"},
        "parallelism": {"tensor": tensor},
        "workload": {**({"kind": kind} if kind else {}), **({"concurrency": concurrency} if concurrency else {})},
    },
    uri=URIS, name=NAMES, options=OPTIONS, adapters=st.lists(URIS, max_size=3),
    quantization=st.sampled_from([None, "fp8", "compressed-tensors"]),
    kind=st.sampled_from([None, "chat", "batch", "interactive"]), concurrency=st.none() | st.integers(1, 1024),
    tensor=st.integers(1, 16),
)  # fmt: skip


@given(wanted=SPECS)
def test_every_command_line_that_is_rendered_passes_the_flag_table_and_is_ours(wanted: Object) -> None:
    argv = args(base=wanted)
    model, flags = argv[0], argv[1:]
    assert not model.startswith("-")
    assert check_args(TABLE, flags, {}) == ()
    written = [flag for word in flags if word.startswith("--") and (flag := TABLE.find(word))]
    assert len({flag.name for flag in written}) == len(written), "a flag twice: the last one wins, with a warning"
    owned = {flag.name for name in RESERVED if (flag := TABLE.find(name))}
    # Otherwise a flag of the user's would win over ours without a word.
    assert {flag.name for flag in written} - owned <= {*OVERRIDABLE, "--max-num-batched-tokens"}


@given(wanted=SPECS)
def test_every_pod_has_its_volumes_once_and_mounts_what_it_has(wanted: Object) -> None:
    spec = pod(base=wanted)
    volumes = [v["name"] for v in spec["volumes"]]
    mounts = [m["name"] for m in spec["containers"][0]["volumeMounts"]]
    paths = [m["mountPath"] for m in spec["containers"][0]["volumeMounts"]]
    assert sorted(volumes) == sorted(mounts) == sorted(set(volumes))
    assert len(set(paths)) == len(paths)


# --- an edit ---


def _planned(base: Object, keep: Plan | None = None) -> Plan:
    plan = planned(parse(base), keep)
    assert isinstance(plan, Plan)
    return plan


def test_what_was_chosen_stays_when_something_else_is_edited() -> None:
    before = replace(_planned(GPU), concurrency=99, max_batched_tokens=777)
    after = _planned(with_field(GPU, "engine.options.prefixCaching", True), keep=before)
    assert (after.concurrency, after.max_batched_tokens) == (99, 777)


def test_a_step_grows_with_an_edit_that_needs_it() -> None:
    edited = with_field(GPU, "workload.concurrency", 900)
    after = _planned(edited, keep=replace(_planned(GPU), max_batched_tokens=777))
    assert after.max_batched_tokens == 8192


# --- the traps of this engine, by where they are covered ---

#: What a renderer does that knows vLLM by its README only, and the tests that fail when ours does it.
TRAPS: dict[str, tuple[Callable[..., None], ...]] = {
    "relies on the default bind address": (test_the_command_line_of_the_smallest_service,),
    "puts `vllm serve` behind an entry point that is `vllm serve`": (
        test_the_command_does_not_depend_on_the_images_entry_point,
    ),
    "lets a Service called vllm set VLLM_PORT": (
        test_no_service_puts_its_address_into_the_environment,
        test_variables_that_pass_the_check_of_arguments_are_refused,
    ),
    "leaves the default shutdown, which aborts every stream": (
        test_the_engine_drains_as_long_as_a_request_may_take_and_is_killed_later,
    ),
    "gives as much grace as the drain takes": (
        test_the_engine_drains_as_long_as_a_request_may_take_and_is_killed_later,
    ),
    "has a liveness probe and no start-up probe": (test_probes_ask_the_server_itself,),
    "asks the port, which is bound before the model is loaded": (test_probes_ask_the_server_itself,),
    "kills or takes out an engine that is busy for a while": (
        test_a_busy_engine_is_neither_restarted_nor_taken_out_at_once,
    ),
    "waits an hour for an engine that gives up after ten minutes": (test_the_engine_gives_up_before_the_kubelet_does,),
    "keeps a server whose engine has ended": (test_variables_that_pass_the_check_of_arguments_are_refused,),
    "passes one memory fraction to every engine": (
        test_a_pod_has_as_many_gpus_as_tensor_says,
        test_on_cpu_the_kv_cache_follows_the_container_and_not_the_node,
    ),
    "does not understand an engine that finds the GPU's memory taken": (
        test_gpu_failures.test_a_gpu_failure_is_told_with_its_line_and_the_way_out,
    ),
    "leaves the context at the model's largest": (test_the_command_line_of_the_smallest_service,),
    "leaves batch sizes to the GPU's memory": (test_batch_sizes_follow_the_kind_of_workload_with_a_reason,),
    "has a context that is longer than a step, with chunked prefill off": (
        test_a_prompt_that_may_not_be_read_in_parts_fits_in_a_step,
        test_a_step_takes_a_token_of_every_request_and_a_prompt_where_it_must,
    ),
    "passes parser names of another engine": (test_parsers_of_other_engines_are_refused,),
    "lets the model choose tools, and names no parser": (test_a_choice_of_tools_without_a_parser_is_refused,),
    "asks for metrics by the names of one version": (test_prometheus.test_rules_make_and_tell_what_they_should,),
    "switches the metrics off": (test_a_reserved_flag_is_refused_with_the_field_to_use,),
    "gives the engine a key, which leaves half of its paths open": (
        test_a_reserved_flag_is_refused_with_the_field_to_use,
        test_variables_that_pass_the_check_of_arguments_are_refused,
    ),
    "loads adapters at run time, on one replica": (
        test_adapters_are_loaded_at_the_start_under_their_names,
        test_variables_that_pass_the_check_of_arguments_are_refused,
    ),
    "gives adapters a larger rank than the engine makes room for": (test_the_largest_rank_fits,),
    "assumes that Ray is chosen, or is not": (test_a_pod_has_as_many_gpus_as_tensor_says,),
    "passes flags that were removed": (test_removed_flags_are_refused_with_what_replaces_them,),
    "passes one version's flags to another": (test_a_flag_is_checked_against_the_version_that_runs,),
    "writes the beginning of a flag": (
        test_every_command_line_that_is_rendered_passes_the_flag_table_and_is_ours,
        test_reserved_flags_are_refused_for_a_version_without_a_table_too,
    ),
    "overlooks the dotted keys and the negations of flags": (
        test_reserved_flags_are_refused_for_a_version_without_a_table_too,
    ),
    "uses the image tag `latest`, whose CUDA the driver may not have": (
        test_every_hardware_has_its_image,
        test_gpu_failures.test_a_gpu_failure_is_told_with_its_line_and_the_way_out,
    ),
    "runs as a user whom the image does not know": (test_everything_that_is_written_has_a_place,),
    "writes to a root file system that is read-only": (test_everything_that_is_written_has_a_place,),
    "has 64 MB of shared memory": (test_shared_memory_has_room_for_what_leaves_the_gpu,),
    "has shared memory that the container's limit does not allow": (
        test_an_option_that_cannot_be_had_is_refused_with_the_way_out,
    ),
    "mounts the model's claim for writing, so that a second pod waits": (
        test_the_model_is_the_first_argument_and_its_volume_is_read_only,
    ),
    "shares a cache among pods": (test_everything_that_is_written_has_a_place,),
    "keeps the metrics of several processes in a folder with old files": (
        test_variables_that_pass_the_check_of_arguments_are_refused,
    ),
    "lets the engine call the model by its path, where no hub is": (
        test_the_command_line_of_the_smallest_service,
        test_nothing_asks_the_hub_where_the_model_is_at_hand,
    ),
    "passes the hub's token as an argument": (
        test_the_token_is_an_environment_variable_from_its_secret_and_never_an_argument,
    ),
    "sends statistics to the engine's makers": (test_nothing_is_told_to_others,),
    "serves GGUF": (test_what_vllm_cannot_read_is_refused_with_the_way_out,),
}

#: Traps of what needs more than one pod, or another engine's pod to talk to. As long as a replica is one pod each is
#: refused by the flags that begin it, and the same test shows that they are.
TRAPS_OF_SEVERAL_PODS: dict[str, tuple[str, ...]] = {
    "probes every rank, of which one has a server": ("--headless", "--node-rank"),
    "sends requests to every pod of a group": ("--headless", "--nnodes"),
    "restarts one worker of a group": ("--nnodes", "--master-addr"),
    "asks for data parallelism of a dense model behind a balancer": (
        "--data-parallel-size", "--data-parallel-external-lb", "--data-parallel-hybrid-lb",
    ),
    "copies JSON of an older KV connector": ("--kv-transfer-config",),
    "lets decode look for prefill at localhost": ("--kv-transfer-config",),
    "rolls prefill before decode, with another version": ("--kv-transfer-config",),
    "puts one Service before prefill and decode": ("--kv-transfer-config", "--ec-transfer-config"),
}  # fmt: skip


def test_every_trap_is_covered_by_a_test() -> None:
    """A test that is renamed or removed is missed when this file is read; one that pytest would not run is missed here."""
    for tests in TRAPS.values():
        assert tests
        for test in tests:
            assert getattr(sys.modules[test.__module__], test.__name__) is test
            assert test.__name__.startswith("test_")


@pytest.mark.parametrize("trap", TRAPS_OF_SEVERAL_PODS)
def test_a_trap_of_several_pods_is_refused(trap: str) -> None:
    for flag in TRAPS_OF_SEVERAL_PODS[trap]:
        assert TABLE.find(flag) is not None
        answer = refused(("engine.args", [f"{flag}=1"]))
        assert answer.code == "InvalidArgs"
        assert RESERVED[flag] in answer.message
