"""What each engine does with a GPU's memory, and how its models can be split."""

from dataclasses import replace

import pytest

from draftmark.engines.engine import MemoryUse, Step
from draftmark.engines.registry import ENGINES
from draftmark.facts.model_catalogue import catalogue_facts
from draftmark.facts.models import ModelFacts
from draftmark.plan import Plan
from tests.planner.plan_cases import LLAMA_8B, PlanCase, many

MIB, GIB = 2**20, 2**30
H100, L4 = 81_559 * MIB, 23_034 * MIB
STEP = Step(requests=256, tokens=8192, tensor=1, pipeline=1)


def facts_of(repository: str) -> ModelFacts:
    facts = catalogue_facts(f"hf://{repository}")
    assert facts is not None
    return facts


LLAMA = facts_of("meta-llama/Llama-3.1-8B")


def test_vllm_takes_its_share_of_the_whole_gpu() -> None:
    use = ENGINES["vllm"].memory_use(H100, LLAMA, STEP, ())
    assert use.usable_bytes == int(H100 * 0.92)
    # 1 GiB, 8,192 tokens of 4 · 4,096 + 3 · 14,336 numbers of 16 bit, and two copies of 256 · 128,256 logits of 32.
    assert use.overhead_bytes == GIB + 8192 * (4 * 4096 + 3 * 14_336) * 2 + 256 * 128_256 * 8
    assert ENGINES["vllm"].memory_use(H100, LLAMA, STEP, ("--gpu-memory-utilization=0.5",)).usable_bytes == H100 // 2


def test_the_share_that_is_summed_up_is_the_one_that_is_written() -> None:
    plan = PlanCase(
        "x", LLAMA_8B, many("H100", 1), {"name": "vllm", "args": ["--gpu-memory-utilization", "0.8"]}
    ).plan()
    assert isinstance(plan, Plan)
    assert plan.memory is not None
    assert plan.memory.usable_bytes == int(H100 * 0.8)


@pytest.mark.parametrize(
    ("gpu", "tensor", "tokens", "reserve_mib"),
    [
        (L4, 1, None, 512 + 3072 + 128 + 512),
        (L4, 4, None, 512 + 3072 + 512 + 512),
        (L4, 1, 4096, 512 + 6144 + 128 + 512),
        # At least 10 GiB on large GPUs.
        (H100, 1, 2048, 10_240),
        (H100, 8, None, 512 + 12_288 + 1024 + 512),
    ],
)
def test_sglang_sets_aside_what_its_own_rule_says(gpu: int, tensor: int, tokens: int | None, reserve_mib: int) -> None:
    step = Step(requests=256, tokens=tokens, tensor=tensor, pipeline=1)
    expected = MemoryUse(usable_bytes=gpu - reserve_mib * MIB, overhead_bytes=0)
    assert ENGINES["sglang"].memory_use(gpu, LLAMA, step, ()) == expected


def test_sglang_takes_the_fraction_that_the_user_writes() -> None:
    use = ENGINES["sglang"].memory_use(H100, LLAMA, STEP, ("--mem-fraction-static", "0.5"))
    assert use == MemoryUse(usable_bytes=H100 // 2, overhead_bytes=0)


def test_llama_cpp_keeps_its_margin_and_sets_aside_each_whole_context() -> None:
    engine = ENGINES["llama-cpp"]
    assert engine.memory_use(L4, LLAMA, STEP, ()) == MemoryUse(usable_bytes=L4 - GIB, overhead_bytes=GIB)
    assert [ENGINES[name].whole_contexts(4) for name in ("llama-cpp", "sglang", "vllm")] == [4, 1, 1]


@pytest.mark.parametrize(
    ("engine", "option", "dtype"),
    [
        ("vllm", None, "bfloat16"), ("vllm", "auto", "bfloat16"), ("vllm", "fp8_e4m3", "fp8_e4m3"), ("vllm", "turbo", None),
        ("sglang", None, "bfloat16"), ("sglang", "fp8_e5m2", "fp8_e5m2"), ("sglang", "nvfp4", None),
        ("llama-cpp", None, "f16"), ("llama-cpp", "q8_0", "q8_0"), ("llama-cpp", "q2", None),
    ],
)  # fmt: skip
def test_the_number_format_of_the_cache(engine: str, option: str | None, dtype: str | None) -> None:
    assert ENGINES[engine].kv_dtype(LLAMA, option) == dtype


@pytest.mark.parametrize(
    ("engine", "model", "tensor", "pipeline", "why"),
    [
        ("vllm", "meta-llama/Llama-3.1-8B", 8, 2, None),
        ("vllm", "Qwen/Qwen2.5-7B-Instruct", 8, 1, "28 attention heads are not divisible by tensor 8"),
        # 4 key-value heads: they are repeated for 28 GPUs, and not divided by 7.
        ("sglang", "Qwen/Qwen2.5-7B-Instruct", 7, 1, "4 key-value heads neither divide tensor 7 nor are divided by it"),
        ("sglang", "Qwen/Qwen2.5-7B-Instruct", 28, 1, None),
        ("vllm", "mistralai/Mixtral-8x7B-v0.1", 16, 1, "tensor 16 is more than the 8 experts of a layer"),
        # Its cache has no heads.
        ("vllm", "deepseek-ai/DeepSeek-V3", 16, 1, None),
        ("vllm", "meta-llama/Llama-3.1-8B", 1, 33, "32 layers are fewer than 33 stages"),
        ("llama-cpp", "meta-llama/Llama-3.1-8B", 2, 1, "llama.cpp gives each GPU whole layers, so that tensor is 1"),
        ("llama-cpp", "meta-llama/Llama-3.1-8B", 1, 4, None),
    ],
)
def test_how_a_model_can_be_split(engine: str, model: str, tensor: int, pipeline: int, why: str | None) -> None:
    assert ENGINES[engine].refuse_split(facts_of(model), tensor=tensor, pipeline=pipeline) == why


@pytest.mark.parametrize(
    ("engine", "model", "tensor", "why"),
    [
        ("vllm", "deepseek-ai/DeepSeek-V3", 8, None),
        ("sglang", "deepseek-ai/DeepSeek-V3", 8, None),
        ("vllm", "deepseek-ai/DeepSeek-V3", 1, "experts are spread over the GPUs of tensor, and there is one"),
        ("sglang", "meta-llama/Llama-3.1-8B", 8, "there are no experts to spread"),
        # Blocks of 128: 1,536 by 4 are three of them, by 8 one and a half.
        ("vllm", "MiniMaxAI/MiniMax-M2.5", 8, None),
        # What divides the heads is refused before.
        ("vllm", "deepseek-ai/DeepSeek-V3", 3, "128 attention heads are not divisible by tensor 3"),
        ("llama-cpp", "deepseek-ai/DeepSeek-V3", 1, "llama.cpp gives each GPU whole layers, with all of their experts"),
    ],
)
def test_how_experts_can_be_spread(engine: str, model: str, tensor: int, why: str | None) -> None:
    assert ENGINES[engine].refuse_split(facts_of(model), tensor=tensor, pipeline=1, expert=True) == why


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_experts_in_blocks_are_not_cut_through(engine: str) -> None:
    facts = facts_of("MiniMaxAI/MiniMax-M2.5")
    said = [ENGINES[engine].refuse_split(facts, tensor=tensor, pipeline=1) for tensor in (1, 4, 8)]
    assert said == [None, None, "experts of 1536 cannot be divided by tensor 8 into whole blocks of 128 weights of fp8"]
    plain = replace(facts, quantization_config=None)
    assert ENGINES[engine].refuse_split(plain, tensor=8, pipeline=1) is None


def test_experts_must_divide_for_sglang_only() -> None:
    """A shape that is made up: seven GPUs divide 28 heads, and not 64 experts."""
    mixtral = facts_of("mistralai/Mixtral-8x7B-v0.1")
    facts = replace(mixtral, num_attention_heads=28, num_key_value_heads=28, n_routed_experts=64)
    said = {name: ENGINES[name].refuse_split(facts, tensor=7, pipeline=1, expert=True) for name in ("vllm", "sglang")}
    assert said == {"vllm": None, "sglang": "64 experts of a layer are not divisible by tensor 7"}
