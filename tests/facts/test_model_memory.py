"""Weights and cache in bytes, whole and per GPU."""

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftmark.facts.model_memory import (
    UnknownWeights,
    WeightBytes,
    bytes_per_weight,
    expert_bytes,
    kv_bytes_per_request,
    kv_bytes_per_token,
    weight_bytes,
    weight_bytes_per_gpu,
)
from draftmark.facts.models import ModelFacts, Quantization, weighed
from tests.facts.model_rows import a_llama, facts_of, rows

LLAMA_8B, LLAMA_70B, DEEPSEEK = "meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-70B", "deepseek-ai/DeepSeek-V3"


def known(facts: ModelFacts, quantization: str | None = None) -> WeightBytes:
    weights = weight_bytes(facts, quantization)
    assert isinstance(weights, WeightBytes), weights.reason
    return weights


@pytest.mark.parametrize(
    ("model", "dtype", "tensor", "per_token"),
    [
        (LLAMA_8B, "bf16", 1, 131_072),
        (LLAMA_8B, "fp8", 1, 65_536),
        (LLAMA_8B, "bf16", 2, 65_536),
        (LLAMA_8B, "bf16", 8, 16_384),
        (LLAMA_8B, "bf16", 16, 16_384),  # 8 key-value heads: 16 GPUs repeat them
        (LLAMA_70B, "bf16", 1, 327_680),
        (LLAMA_70B, "fp8", 1, 163_840),
        (LLAMA_70B, "bf16", 4, 81_920),
        (LLAMA_70B, "bf16", 8, 40_960),
        (LLAMA_70B, "bf16", 16, 40_960),
        (DEEPSEEK, "bf16", 1, 70_272),
        (DEEPSEEK, "fp8", 1, 35_136),
        (DEEPSEEK, "bf16", 8, 70_272),  # latent attention: every GPU has all of it
        ("deepseek-ai/DeepSeek-V3.2", "bf16", 8, 61 * (576 * 2 + 132)),  # and 132 bytes of the indexer
        ("openai/gpt-oss-20b", "bf16", 1, 12 * 2 * 8 * 64 * 2),  # 12 of 24 layers slide
        ("Qwen/Qwen3-Next-80B-A3B-Thinking", "bf16", 1, 12 * 2 * 2 * 256 * 2),  # 12 of 48 layers keep tokens
        (LLAMA_8B, "q8_0", 1, 131_072 // 2 * 34 // 32),
    ],
)
def test_cache_of_a_token(model: str, dtype: str, tensor: int, per_token: int) -> None:
    assert kv_bytes_per_token(facts_of(model), dtype, tensor=tensor) == per_token


def test_pipeline_stages_divide_the_cache_and_the_longest_counts() -> None:
    assert kv_bytes_per_token(facts_of(LLAMA_8B), "bf16", pipeline=2) == 65_536
    # 126 layers on 4 stages: 32 on the longest.
    assert kv_bytes_per_token(facts_of("meta-llama/Llama-3.1-405B"), "bf16", pipeline=4) == 32 * 4096


def test_a_request_without_windows_is_its_tokens() -> None:
    assert kv_bytes_per_request(facts_of(LLAMA_8B), 131_072, "bf16") == 16 * 2**30


def test_a_window_is_a_cap_on_its_layers() -> None:
    facts = facts_of("google/gemma-2-9b")
    each = 2 * 8 * 256 * 2
    assert kv_bytes_per_request(facts, 4096, "bf16") == 42 * each * 4096
    assert kv_bytes_per_request(facts, 8192, "bf16") == 21 * each * 8192 + 21 * each * 4096


def test_sliding_layers_have_their_own_heads() -> None:
    # Gemma 4: 25 sliding layers of 8 heads of 256, 5 full ones of 2 heads of 512. MiMo: keys of 192 and values of 128.
    assert kv_bytes_per_request(facts_of("google/gemma-4-26B-A4B"), 1000, "bf16") == 1000 * 2 * (
        25 * 2 * 8 * 256 + 5 * 2 * 2 * 512
    )
    assert kv_bytes_per_request(facts_of("XiaomiMiMo/MiMo-V2-Flash"), 100, "bf16") == 100 * 2 * (9 * 4 + 39 * 8) * 320


def test_a_linear_layer_is_one_state_whatever_the_tokens() -> None:
    facts = facts_of("Qwen/Qwen3-Next-80B-A3B-Thinking")
    state = 36 * (3 * (2 * 2048 + 4096) * 2 + 32 * 128 * 128 * 2)
    assert kv_bytes_per_request(facts, 0, "bf16") == state
    assert kv_bytes_per_request(facts, 1000, "bf16") == state + 1000 * 24_576
    # Nemotron-H keeps the recurrence at 32 bit.
    nemotron = facts_of("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16")
    assert kv_bytes_per_request(nemotron, 0, "bf16") == 23 * (3 * (2 * 1024 + 4096) * 2 + 64 * 64 * 128 * 4)


@pytest.mark.parametrize(
    ("model", "bytes_on_disk"),
    [
        # Sums of the safetensors files on the hub, in bytes or GB of 10^9; checkpoints without prediction layers.
        ("meta-llama/Llama-3.1-8B", 16.06e9),
        ("meta-llama/Llama-3.1-70B", 141.1e9),
        ("openai/gpt-oss-20b", 13.8e9),
        ("openai/gpt-oss-120b", 65.2e9),
        ("moonshotai/Kimi-K2-Instruct", 1029.2e9),
        ("moonshotai/Kimi-K2.5", 594_205_904_896),
        ("MiniMaxAI/MiniMax-M2.5", 230.1e9),
        ("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", 63.2e9),
        ("Qwen/Qwen3-30B-A3B", 61.1e9),
    ],
)
def test_estimated_weights_are_the_published_files(model: str, bytes_on_disk: float) -> None:
    weights = known(facts_of(model))
    assert not weights.is_measured
    assert weights.total == pytest.approx(bytes_on_disk, rel=0.005)


def test_only_what_the_checkpoint_quantizes_is_small() -> None:
    # Kimi K2.5: int4 experts in groups of 32; 507,343,011,840 bytes of weights and 63,417,876,480 of scales.
    assert known(facts_of("moonshotai/Kimi-K2.5")).experts == 507_343_011_840 + 63_417_876_480
    fp8 = known(facts_of(LLAMA_70B), "fp8")
    assert fp8.embedding == fp8.lm_head == 128_256 * 8192 * 2
    assert fp8.total == pytest.approx(70.55e9 + 2.1e9, rel=0.01)


@pytest.mark.parametrize(
    ("quantization", "each"),
    [
        (Quantization(quant_method="awq", bits=4, group_size=128), Fraction(133, 256)),
        (Quantization(quant_method="gptq", bits=4, group_size=32), Fraction(37, 64)),
        (Quantization(quant_method="nvfp4", bits=4, group_size=16), Fraction(9, 16)),
        (Quantization(quant_method="mxfp4", bits=4, group_size=32), Fraction(17, 32)),
        (Quantization(quant_method="int8", bits=8), Fraction(1)),
        (Quantization(quant_method="fp8", bits=8, group_size=128), 1 + Fraction(4, 16384)),
        (Quantization(quant_method="mixed", bits=0), None),
    ],
)
def test_bytes_of_a_quantized_weight(quantization: Quantization, each: Fraction | None) -> None:
    assert bytes_per_weight(quantization) == each


def test_measured_bytes_come_before_estimates() -> None:
    facts = weighed(facts_of("mistralai/Mixtral-8x7B-v0.1"), weight_bytes=93_405_585_408)
    weights = known(facts)
    assert weights.is_measured
    assert weights.total == 93_405_585_408
    assert weights.experts == pytest.approx(2 * 45_097_156_608, rel=1e-6)
    # Another format than the files have is estimated again.
    assert not known(facts, "fp8").is_measured


def test_measured_experts_are_kept() -> None:
    facts = weighed(facts_of("openai/gpt-oss-20b"), weight_bytes=14_000_000_000, expert_weight_bytes=10_000_000_000)
    assert known(facts).experts == expert_bytes(facts) == 10_000_000_000
    assert known(facts).dense == 4_000_000_000


def test_a_32_bit_checkpoint_is_loaded_at_16_bit() -> None:
    facts = facts_of("google/gemma-2-9b")
    assert facts.dtype == "float32"
    assert known(facts).total == 2 * 9_241_705_984
    assert known(weighed(facts, weight_bytes=4 * 9_241_705_984)).total == 2 * 9_241_705_984


def test_two_formats_at_once_have_no_sum() -> None:
    answer = weight_bytes(facts_of(DEEPSEEK), "awq")
    assert isinstance(answer, UnknownWeights)
    assert answer.reason == (
        "the checkpoint is fp8 and awq is asked for. Leave quantization out, or take a checkpoint that is not quantized."
    )
    assert isinstance(weight_bytes(facts_of(LLAMA_8B), "q3"), UnknownWeights)
    assert isinstance(expert_bytes(facts_of(LLAMA_8B), "q3"), UnknownWeights)
    mixed = a_llama(quantization_config={"quant_algo": "MIXED_PRECISION"})
    assert isinstance(weight_bytes(mixed), UnknownWeights)
    assert known(weighed(mixed, weight_bytes=12345)).total == 12345


def test_weights_of_a_gpu() -> None:
    facts = facts_of(LLAMA_70B)
    weights = known(facts)
    assert weight_bytes_per_gpu(facts, weights) == weights.total
    # Norms and the like have copies; all else is a quarter.
    assert weight_bytes_per_gpu(facts, weights, tensor=4) == pytest.approx(weights.total / 4, rel=1e-4)
    # The embedding is on the first stage, the head on the last: one of them beside half of the layers.
    half = weight_bytes_per_gpu(facts, weights, pipeline=2)
    assert half == pytest.approx(
        (weights.total - weights.lm_head - weights.embedding) / 2 + weights.embedding, rel=1e-4
    )


def test_an_expert_degree_divides_only_the_experts() -> None:
    facts = facts_of(DEEPSEEK)
    weights = known(facts)
    spread = weight_bytes_per_gpu(facts, weights, tensor=8, expert=64)
    whole = weight_bytes_per_gpu(facts, weights, tensor=8)
    assert whole - spread == pytest.approx(weights.experts / 8 - weights.experts / 64, abs=1)
    attention_parallel = weight_bytes_per_gpu(facts, weights, tensor=1, expert=64)
    assert attention_parallel == pytest.approx(weights.dense + weights.experts / 64, abs=1)


def test_experts_stay_whole() -> None:
    """Eight experts on three GPUs are 3, 3 and 2."""
    facts = facts_of("mistralai/Mixtral-8x7B-v0.1")
    weights = known(facts)
    without = replace(weights, experts=0)
    of_experts = weight_bytes_per_gpu(facts, weights, expert=3) - weight_bytes_per_gpu(facts, without, expert=3)
    assert of_experts == pytest.approx(weights.experts * 3 / 8, abs=1)
    # More GPUs than experts leave one on each of some.
    assert weight_bytes_per_gpu(facts, weights, expert=9) == weight_bytes_per_gpu(facts, weights, expert=8)


@given(
    model=st.sampled_from(sorted(m for m in rows() if facts_of(m).num_moe_layers)),
    tensor=st.sampled_from([2, 4, 8, 16]),
    pipeline=st.integers(1, 8),
)
def test_a_gpus_experts_are_counted_one_by_one(model: str, tensor: int, pipeline: int) -> None:
    """Each expert of each layer is given to a GPU of the stage in turn; the largest pile is what the sum has."""
    facts = facts_of(model)
    weights = known(facts)
    layers = [len(range(stage, facts.num_moe_layers, pipeline)) for stage in range(pipeline)]
    piles = [0] * tensor
    for expert in range(facts.n_routed_experts):
        piles[expert % tensor] += max(layers)
    each = Fraction(weights.experts, facts.num_moe_layers * facts.n_routed_experts)
    spread = weight_bytes_per_gpu(facts, weights, tensor=tensor, pipeline=pipeline, expert=tensor)
    others = weight_bytes_per_gpu(facts, replace(weights, experts=0), tensor=tensor, pipeline=pipeline)
    assert spread == pytest.approx(others + float(max(piles) * each), abs=2)
    # As many bytes as with divided experts where they divide, more where not.
    divided = weight_bytes_per_gpu(facts, weights, tensor=tensor, pipeline=pipeline)
    assert (spread == divided) if facts.n_routed_experts % tensor == 0 else spread > divided


def test_key_value_projections_are_divided_by_their_heads_at_most() -> None:
    facts = a_llama()
    weights = known(facts)
    eight, two = weight_bytes_per_gpu(facts, weights, tensor=8), weight_bytes_per_gpu(facts, weights, tensor=2)
    rest = weights.embedding + weights.lm_head + weights.sharded
    assert two - eight == rest // 2 - rest // 8


DEGREES = st.integers(min_value=1, max_value=64)


@given(model=st.sampled_from(sorted(rows())), tensor=DEGREES, pipeline=DEGREES, expert=DEGREES)
def test_more_gpus_never_need_more_of_each(model: str, tensor: int, pipeline: int, expert: int) -> None:
    facts = facts_of(model)
    weights = known(facts)
    here = weight_bytes_per_gpu(facts, weights, tensor=tensor, pipeline=pipeline, expert=expert)
    assert 0 < here <= weights.total
    assert weight_bytes_per_gpu(facts, weights, tensor=2 * tensor, pipeline=pipeline, expert=expert) <= here
    assert weight_bytes_per_gpu(facts, weights, tensor=tensor, pipeline=2 * pipeline, expert=expert) <= here
    # All GPUs together hold at least the model.
    assert here * tensor * pipeline * max(1, expert) >= weights.total


@given(
    model=st.sampled_from(sorted(rows())),
    tokens=st.integers(min_value=0, max_value=2**20),
    tensor=DEGREES,
    pipeline=DEGREES,
)
def test_a_request_grows_with_its_tokens_and_shrinks_with_gpus(
    model: str, tokens: int, tensor: int, pipeline: int
) -> None:
    facts = facts_of(model)
    here = kv_bytes_per_request(facts, tokens, "bf16", tensor=tensor, pipeline=pipeline)
    assert here <= kv_bytes_per_request(facts, tokens + 1, "bf16", tensor=tensor, pipeline=pipeline)
    assert here >= kv_bytes_per_request(facts, tokens, "bf16", tensor=2 * tensor, pipeline=pipeline)
    assert here >= kv_bytes_per_request(facts, tokens, "fp8", tensor=tensor, pipeline=pipeline)
    assert here >= tokens * kv_bytes_per_token(facts, "bf16", tensor=tensor, pipeline=pipeline)
