"""The memory sum on CPU."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftmark.api.defaults import Defaults
from draftmark.api.inference_service import InferenceServiceSpec
from draftmark.engines.llama_cpp import CPU_PROCESS_BYTES
from draftmark.facts.model_catalogue import catalogue_facts
from draftmark.facts.models import ModelFacts
from draftmark.facts.nodes import ClusterFacts
from draftmark.machines.revisions import plan_data, read_plan
from draftmark.plan import Memory, Plan, Unplannable
from draftmark.planner.planner import make_plan
from draftmark.render.pod import render_pod_template
from tests.planner.plan_cases import GGUF_8B, GGUF_URI, LLAMA_8B, Json, limited

GIB = 2**30


def spec_of(uri: str, engine: Json, **parts: Any) -> InferenceServiceSpec:
    model = {"uri": uri, **parts.pop("of_model", {})}
    return InferenceServiceSpec.model_validate({"model": model, "engine": engine, **parts})


def plan_of(spec: InferenceServiceSpec, facts: ModelFacts | None = None) -> Plan | Unplannable:
    return make_plan(
        spec,
        name="it",
        cluster=ClusterFacts(),
        defaults=Defaults(),
        keep=None,
        model=facts or catalogue_facts(spec.model.uri),
    )


def planned(spec: InferenceServiceSpec, facts: ModelFacts | None = None) -> Plan:
    plan = plan_of(spec, facts)
    assert isinstance(plan, Plan), plan
    return plan


def gguf(memory: str | None, *args: str, **parts: Any) -> InferenceServiceSpec:
    engine: Json = {"name": "llama-cpp", **({"args": args} if args else {})}
    return spec_of(GGUF_URI, limited(memory, **engine) if memory else engine, **parts)


def summed(spec: InferenceServiceSpec, facts: ModelFacts | None = None) -> Memory:
    memory = planned(spec, facts).memory
    assert memory is not None
    return memory


def why(plan: Plan) -> str:
    return next((r.message for r in plan.reasons if r.code == "CpuMemory"), "")


def pod_of(spec: InferenceServiceSpec, plan: Plan) -> Json:
    [container] = render_pod_template("it", spec, plan, Defaults())["spec"]["containers"]
    assert isinstance(container, dict)
    return container


def test_weights_and_the_cache_of_every_slot_count_against_the_limit() -> None:
    wanted = gguf("8Gi", workload={"concurrency": 2}, of_model={"maxContextLength": 8192})
    memory = summed(wanted, GGUF_8B)
    assert (memory.gpu_bytes, memory.weight_bytes) == (8 * GIB, GGUF_8B.weight_bytes)
    # Two slots of 8,192 tokens, of 32 layers with 8 key-value heads of 128, keys and values of 16 bit.
    assert memory.kv_needed_bytes == 2 * 8192 * 32 * 8 * 128 * 2 * 2
    eight_bit = gguf("8Gi", workload={"concurrency": 2}, of_model={"maxContextLength": 8192}).model_copy(
        update={"engine": spec_of(GGUF_URI, limited("8Gi", name="llama-cpp", options={"kvCacheDType": "q8_0"})).engine}
    )
    assert summed(eight_bit, GGUF_8B).kv_needed_bytes == memory.kv_needed_bytes * 34 // 64


def test_without_a_limit_the_sum_is_told_and_nothing_is_refused() -> None:
    plan = planned(gguf(None, of_model={"maxContextLength": 131_072}), GGUF_8B)
    assert plan.memory is None
    assert "needs about 68.92 GiB" in why(plan)
    assert "engine.resources.limits.memory is not set" in why(plan)
    assert "--cache-ram" not in pod_of(gguf(None), plan)["args"]


def test_every_way_out_that_names_a_number_helps() -> None:
    wanted = gguf("8Gi", of_model={"maxContextLength": 16_384})
    answer = plan_of(wanted, GGUF_8B)
    assert isinstance(answer, Unplannable)
    assert answer.code == "DoesNotFit"
    [limit] = re.findall(r"limits.memory: (\w+);", answer.message)
    [context] = re.findall(r"maxContextLength: (\d+)", answer.message)
    [requests] = re.findall(r"concurrency: (\d+)", answer.message)
    planned(gguf(limit, of_model={"maxContextLength": 16_384}), GGUF_8B)
    planned(gguf("8Gi", of_model={"maxContextLength": int(context)}), GGUF_8B)
    planned(gguf("8Gi", of_model={"maxContextLength": 16_384}, workload={"concurrency": int(requests)}), GGUF_8B)
    larger = gguf("8Gi", of_model={"maxContextLength": int(context) + 256})
    assert isinstance(plan_of(larger, GGUF_8B), Unplannable)


@given(memory=st.integers(1, 40), context=st.integers(16, 65_536), requests=st.integers(1, 16))
def test_an_accepted_sum_is_within_the_limit_and_a_refused_one_is_not(memory: int, context: int, requests: int) -> None:
    parts: Json = {"of_model": {"maxContextLength": context}, "workload": {"concurrency": requests}}
    for spec, facts in (
        (gguf(f"{memory}Gi", **parts), GGUF_8B),
        (
            spec_of(
                LLAMA_8B,
                limited(f"{memory}Gi", name="vllm"),
                of_model=dict(parts["of_model"]),
                workload=parts["workload"],
            ),
            None,
        ),
    ):
        answer = plan_of(spec, facts)
        if isinstance(answer, Unplannable):
            assert answer.code == "DoesNotFit"
            assert "are missing" in answer.message
        else:
            assert answer.memory is not None
            assert answer.memory.needed_bytes <= answer.memory.usable_bytes <= memory * GIB


# --- llama.cpp ---


def test_prompts_of_earlier_requests_get_what_is_left_and_no_more() -> None:
    wanted = gguf("8Gi")
    plan = planned(wanted, GGUF_8B)
    args = pod_of(wanted, plan)["args"]
    memory = plan.memory
    assert memory is not None
    spare = memory.usable_bytes - memory.needed_bytes
    assert (
        args[args.index("--cache-ram") + 1]
        == str(spare // 2**20)
        == re.findall(r"(\d+) MiB \(--cache-ram\)", why(plan))[0]
    )
    large = gguf("64Gi")
    args = pod_of(large, planned(large, GGUF_8B))["args"]
    assert args[args.index("--cache-ram") + 1] == "8192", "llama-server's own"


@pytest.mark.parametrize("args", [("--cache-ram", "512"), ("-cram", "512")])
def test_what_the_user_sets_aside_for_prompts_counts(args: tuple[str, ...]) -> None:
    wanted = gguf("8Gi", *args)
    plan = planned(wanted, GGUF_8B)
    assert plan.memory is not None
    assert plan.memory.further_bytes == 512 * 2**20
    written = pod_of(wanted, plan)["args"]
    assert written[-len(args) :] == list(args)
    assert "--cache-ram" not in written[: -len(args)]


def test_nothing_is_written_where_nothing_was_summed_up() -> None:
    wanted = spec_of("pvc://c/m.gguf", limited("8Gi", name="llama-cpp"))
    plan = planned(wanted)
    assert plan.memory is None
    assert why(plan) == ""
    assert "--cache-ram" not in pod_of(wanted, plan)["args"]


def test_buffers_are_no_smaller_than_llama_cpp_prints_for_llama_3_8b() -> None:
    """Source: "CPU compute buffer size =   258.50 MiB" with n_ubatch = 512, in logs of public repositories (2026-11-27)."""
    buffers = (summed(gguf("16Gi"), GGUF_8B).overhead_bytes - CPU_PROCESS_BYTES) / 2**20
    assert 258.50 <= buffers <= 1.1 * 258.50


def test_larger_steps_need_larger_buffers() -> None:
    usual, large = (summed(gguf("16Gi", *args), GGUF_8B) for args in ((), ("--ubatch-size", "2048")))
    assert large.overhead_bytes - usual.overhead_bytes == 1536 * 4 * (128_256 + 4 * 4096)


# --- vLLM ---


def vllm(memory: str, env: str | None = None, **parts: Any) -> InferenceServiceSpec:
    variable = {"env": [{"name": "VLLM_CPU_KVCACHE_SPACE", "value": env}]} if env is not None else {}
    return spec_of(LLAMA_8B, limited(memory, name="vllm", **variable), **parts)


def space_of(spec: InferenceServiceSpec) -> str:
    [value] = [v["value"] for v in pod_of(spec, planned(spec))["env"] if v["name"] == "VLLM_CPU_KVCACHE_SPACE"]
    return str(value)


@pytest.mark.parametrize(
    ("memory", "context", "space"),
    [
        ("64Gi", 2048, "16"),  # a quarter, as where nothing is known of the model
        ("24Gi", 2048, "6"),
        ("24Gi", 16_384, "6"),  # as much is needed
        ("32Gi", 65_536, "12"),  # more than a quarter is
    ],
)
def test_vllm_sets_aside_a_quarter_or_what_is_needed_in_whole_gib(memory: str, context: int, space: str) -> None:
    wanted = vllm(memory, of_model={"maxContextLength": context})
    assert space_of(wanted) == space
    memory_of = summed(wanted)
    assert memory_of.kv_bytes == int(space) * GIB
    assert memory_of.kv_tokens == memory_of.kv_bytes // 131_072


def test_the_users_own_size_of_the_cache_counts() -> None:
    assert summed(vllm("64Gi", "8", of_model={"maxContextLength": 2048})).kv_bytes == 8 * GIB
    too_small = plan_of(vllm("64Gi", "2", of_model={"maxContextLength": 2048}))
    assert isinstance(too_small, Unplannable)
    assert "(1) remove what engine.env says of the size of the cache" in too_small.message
    too_large = plan_of(vllm("24Gi", "16", of_model={"maxContextLength": 2048}))
    assert isinstance(too_large, Unplannable)
    assert "engine.resources.limits.memory: 34Gi" in too_large.message


def test_without_a_limit_vllms_own_share_of_the_node_is_told() -> None:
    assert "half of the node's memory" in why(planned(spec_of(LLAMA_8B, {"name": "vllm"})))


# --- other engines, and what becomes of it ---


def test_an_engine_whose_use_of_memory_on_cpu_is_not_known_has_no_sum() -> None:
    plan = planned(spec_of(LLAMA_8B, limited("4Gi", name="sglang")))
    assert plan.memory is None
    assert why(plan) == ""


def test_a_context_that_is_left_open_is_no_larger_than_the_models() -> None:
    plan = planned(spec_of("hf://meta-llama/Llama-3.1-8B", {"name": "vllm"}))
    assert plan.max_context_length == 4096
    assert "the model has 131072" in next(r.message for r in plan.reasons if r.code == "MaxContextLength")


def test_the_sum_is_pinned_with_the_plan() -> None:
    plan = planned(gguf("8Gi"), GGUF_8B)
    assert read_plan(plan_data(plan)) == plan
