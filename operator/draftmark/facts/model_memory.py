"""What a model needs of a GPU's memory: weights and cache, by the degrees of parallelism.

Weights. Linear layers are stored in the format of the checkpoint, or of the engine's own quantization at load;
embedding, output head, norms and routers stay at 16 bit. A tensor degree divides the matrices, a pipeline degree the
layers (the largest stage counts), an expert degree the routed experts only, which stay whole. Small tensors have a copy on
every GPU.

Cache. A full-attention layer keeps key and value of every token, K·(d + e) numbers; latent attention keeps
kv_lora_rank + qk_rope_head_dim, on every GPU of a tensor group; a sliding-window layer keeps at most its window; a
linear layer keeps one state per request. Where K is less than the tensor degree, key-value heads are repeated.

Not in these sums, for they belong to an engine: rounding to blocks, padding of the vocabulary, activations, graphs.
Sources: vLLM 0.33, config/model.py (get_num_kv_heads) and v1/kv_cache_interface.py; SGLang 0.5, models/llama.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Final

from draftmark.facts.model_parameters import count_parameters
from draftmark.facts.models import DTYPE_BYTES, WEIGHT_PARTS, ModelFacts, Quantization, WeightPart

__all__ = [
    "KV_DTYPE_BYTES",
    "UnknownWeights",
    "WeightBytes",
    "bytes_per_weight",
    "expert_bytes",
    "kv_bytes_per_request",
    "kv_bytes_per_token",
    "weight_bytes",
    "weight_bytes_per_gpu",
]

#: Bytes of a cached number by the names that engines use. Sources: vLLM and SGLang `--kv-cache-dtype`; llama.cpp
#: `--cache-type-k`, whose block formats are in ggml-common.h (a block of 32 numbers has 34, 18, 20, 22, 24, 18 bytes).
KV_DTYPE_BYTES: Final[Mapping[str, Fraction]] = {
    "bfloat16": Fraction(2), "float16": Fraction(2), "float32": Fraction(4),
    "bf16": Fraction(2), "f16": Fraction(2), "f32": Fraction(4),
    "fp8": Fraction(1), "fp8_e4m3": Fraction(1), "fp8_e5m2": Fraction(1),
    "q8_0": Fraction(34, 32), "q4_0": Fraction(18, 32), "q4_1": Fraction(20, 32), "q5_0": Fraction(22, 32),
    "q5_1": Fraction(24, 32), "iq4_nl": Fraction(18, 32),
}  # fmt: skip

#: Bytes that the indexer of sparse attention keeps per token and layer: fp8, and a 32 bit scale per 128 numbers.
#: Source: vLLM, models/deepseek_v2.py (DeepseekV32IndexerCache); TensorRT-LLM's DSA cache manager has the same.
_INDEX_SCALE: Final = Fraction(4, 128)

#: Bytes of a weight that is not quantized, as it is loaded: engines load a 32 bit checkpoint at 16 bit. Source: vLLM
#: 0.33 and SGLang 0.5, `--dtype auto`.
_LOADED_BYTES: Final = 2

#: What a format keeps beside the bits of a group of `group_size` weights, in bytes. AWQ and GPTQ: a 16 bit scale and a
#: zero point of the weight's own width (AutoAWQ, WQLinear_GEMM; GPTQ's g_idx is too small to count); compressed-tensors
#: and int8: a 16 bit scale; block fp8: a 32 bit scale per square block (DeepSeek-V3, README_WEIGHTS.md); nvfp4: an
#: 8 bit scale per 16; mxfp4: an 8 bit scale per 32 (OCP Microscaling Formats 1.0).
_DEFAULT_GROUP: Final = 128
_DEFAULT_FORMATS: Final[Mapping[str, Quantization]] = {
    "fp8": Quantization(quant_method="fp8", bits=8),
    "int8": Quantization(quant_method="int8", bits=8),
    "int4": Quantization(quant_method="int4", bits=4, group_size=_DEFAULT_GROUP),
    "awq": Quantization(quant_method="awq", bits=4, group_size=_DEFAULT_GROUP),
    "gptq": Quantization(quant_method="gptq", bits=4, group_size=_DEFAULT_GROUP),
    "nvfp4": Quantization(quant_method="nvfp4", bits=4, group_size=16),
    "mxfp4": Quantization(quant_method="mxfp4", bits=4, group_size=32),
    "bitsandbytes": Quantization(quant_method="bitsandbytes", bits=4, group_size=64),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownWeights:
    """The bytes cannot be told; the reason says why."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightBytes:
    """Bytes of the weights, by what a degree of parallelism does to them."""

    embedding: int
    lm_head: int
    sharded: int
    """Divided by the tensor degree."""
    kv_projection: int
    """Divided by the tensor degree, yet at most by the key-value heads."""
    replicated: int
    """A copy on every GPU of a tensor group."""
    experts: int
    is_measured: bool

    @property
    def total(self) -> int:
        return self.embedding + self.lm_head + self.sharded + self.kv_projection + self.replicated + self.experts

    @property
    def dense(self) -> int:
        """All but the routed experts."""
        return self.total - self.experts


def bytes_per_weight(quantization: Quantization) -> Fraction | None:
    """Bytes of one quantized weight with its share of scales and zero points; None for a format not known here."""
    group = quantization.group_size
    plain = Fraction(quantization.bits, 8)
    match quantization.quant_method:
        case "fp8":
            return plain + (Fraction(4, group * group) if group else 0)
        case "int8" | "int4":
            return plain + (Fraction(2, group) if group else 0)
        case "awq" | "gptq":
            return plain + (Fraction(2) + plain) / group if group else plain
        case "nvfp4":
            return plain + Fraction(1, 16)
        case "mxfp4":
            return plain + Fraction(1, 32)
        case "bitsandbytes":
            # nf4 with double quantization has 0.127 bits of scales per weight (QLoRA, arXiv 2305.14314, section 3).
            return plain + (Fraction(127, 8000) if quantization.bits == 4 else 0)
        case _:
            return None


def weight_bytes(facts: ModelFacts, quantization: str | None = None) -> WeightBytes | UnknownWeights:
    """Bytes of the weights.

    Measured bytes are taken when the weights are served as the checkpoint has them. Otherwise weights times bytes per
    weight of the format.

    Args:
        facts: The model.
        quantization: The format that the engine converts to at load, such as `fp8`; None is as the checkpoint is.

    Returns:
        The bytes by part, or why they cannot be told: a format not known here, or two formats at once.
    """
    own = facts.quantization_config
    wanted = own
    if quantization is not None and (own is None or own.quant_method != quantization):
        if own is not None:
            return UnknownWeights(
                reason=f"the checkpoint is {own.quant_method} and {quantization} is asked for. Leave quantization out, "
                "or take a checkpoint that is not quantized."
            )
        if quantization not in _DEFAULT_FORMATS:
            return UnknownWeights(
                reason=f"bytes per weight of {quantization} are not known here; known are {', '.join(sorted(_DEFAULT_FORMATS))}."
            )
        wanted = _DEFAULT_FORMATS[quantization]
    is_as_checkpoint = wanted == own
    if is_as_checkpoint and facts.weight_bytes is not None:
        # A 32 bit checkpoint takes half of its files' bytes.
        is_halved = own is None and facts.dtype == "float32"
        return _measured(facts, 2 if is_halved else 1)
    estimated = _estimated(facts, wanted)
    if estimated is None:
        method = wanted.quant_method if wanted else facts.dtype
        return UnknownWeights(
            reason=f"bytes per weight of the checkpoint's format {method} are not known here, and its files were not measured."
        )
    return estimated


def expert_bytes(facts: ModelFacts, quantization: str | None = None) -> int | UnknownWeights:
    """Bytes of the routed experts, the part that an expert degree divides."""
    weights = weight_bytes(facts, quantization)
    return weights if isinstance(weights, UnknownWeights) else weights.experts


def weight_bytes_per_gpu(
    facts: ModelFacts, weights: WeightBytes, *, tensor: int = 1, pipeline: int = 1, expert: int = 1
) -> int:
    """Bytes of weights on the fullest GPU.

    Args:
        facts: The model that the weights are of.
        weights: What `weight_bytes` said.
        tensor, pipeline: Degrees, at least 1.
        expert: GPUs of one stage that the routed experts are spread over; 1 is no expert parallelism, and the tensor
            degree then divides each expert. vLLM and SGLang spread over tensor × data. Experts stay whole: where they do
            not divide, some GPUs have one more.

    The fullest stage has the most layers (they are divided as evenly as they go) and one end of the model: the first
    has the embedding, the last the output head, with a copy of the embedding where both are tied.
    """
    stage = _stage_share(facts.num_hidden_layers, pipeline)
    moe_stage = _stage_share(facts.num_moe_layers, pipeline)
    if pipeline == 1:
        ends = Fraction(weights.embedding + weights.lm_head)
    else:
        ends = Fraction(max(weights.embedding, weights.lm_head))
    kv_share = max(Fraction(1, tensor), Fraction(1, facts.num_key_value_heads))
    return ceil(
        ends / tensor
        + stage * (Fraction(weights.sharded, tensor) + weights.kv_projection * kv_share + weights.replicated)
        + moe_stage * weights.experts * _expert_share(facts, tensor, expert)
    )


def kv_bytes_per_token(facts: ModelFacts, kv_dtype: str, *, tensor: int = 1, pipeline: int = 1) -> int:
    """Bytes that each further token of a request adds to the cache of the fullest GPU; the whole model's with both
    degrees 1. Sliding-window and linear layers add nothing in the long run: see `kv_bytes_per_request`.

    Args:
        kv_dtype: A name of `KV_DTYPE_BYTES`.

    Raises:
        KeyError: The name is not in the table; callers check what the user wrote.
    """
    return ceil(_full_bytes_per_token(facts, KV_DTYPE_BYTES[kv_dtype], tensor, pipeline))


def kv_bytes_per_request(facts: ModelFacts, tokens: int, kv_dtype: str, *, tensor: int = 1, pipeline: int = 1) -> int:
    """Bytes of cache on the fullest GPU for one request that holds so many tokens.

    tokens · full layers + min(tokens, window) · sliding-window layers + the states of linear layers, which do not
    depend on the tokens: kernel − 1 columns of the convolution, and value heads × value size × key size of the
    recurrence. Source: vLLM 0.33, layers/mamba/mamba_utils.py, gated_delta_net_state_shape and mamba2_state_shape.

    Raises:
        KeyError: As `kv_bytes_per_token`.
    """
    each = KV_DTYPE_BYTES[kv_dtype]
    growing = tokens * _full_bytes_per_token(facts, each, tensor, pipeline)
    kv_heads = facts.swa_num_key_value_heads or facts.num_key_value_heads
    sizes = (facts.swa_head_dim or facts.head_dim) + (facts.swa_v_head_dim or facts.v_head_dim)
    capped = (
        min(tokens, facts.sliding_window)
        * _stage_layers(facts.num_sliding_layers, pipeline)
        * _heads_per_gpu(kv_heads, tensor)
        * sizes
        * each
    )
    return ceil(growing + capped + _state_bytes(facts, tensor, pipeline))


def _full_bytes_per_token(facts: ModelFacts, each: Fraction, tensor: int, pipeline: int) -> Fraction:
    layers = _stage_layers(facts.num_full_layers, pipeline)
    if facts.is_mla:
        index = _stage_layers(facts.num_index_layers, pipeline) * facts.index_head_dim * (1 + _INDEX_SCALE)
        return layers * (facts.kv_lora_rank + facts.qk_rope_head_dim) * each + index
    return layers * _heads_per_gpu(facts.num_key_value_heads, tensor) * (facts.head_dim + facts.v_head_dim) * each


def _state_bytes(facts: ModelFacts, tensor: int, pipeline: int) -> int:
    if not facts.num_linear_layers:
        return 0
    keys = facts.linear_num_key_heads * facts.linear_key_head_dim
    values = facts.linear_num_value_heads * facts.linear_value_head_dim
    own = _LOADED_BYTES
    columns = (facts.linear_conv_kernel_dim - 1) * ceil(Fraction(2 * keys + values, tensor)) * own
    state = (
        ceil(Fraction(facts.linear_num_value_heads, tensor))
        * facts.linear_value_head_dim
        * facts.linear_key_head_dim
        * DTYPE_BYTES.get(facts.linear_state_dtype, own)
    )
    return _stage_layers(facts.num_linear_layers, pipeline) * (columns + state)


def _estimated(facts: ModelFacts, quantization: Quantization | None) -> WeightBytes | None:
    own = Fraction(_LOADED_BYTES)
    each: dict[WeightPart, Fraction] = dict.fromkeys(WEIGHT_PARTS, own)
    if quantization is not None:
        quantized = bytes_per_weight(quantization)
        if quantized is None:
            return None
        each |= dict.fromkeys(quantization.parts, quantized)
    count = count_parameters(facts)
    return WeightBytes(
        embedding=ceil(count.embedding * own),
        lm_head=ceil(count.lm_head * own),
        sharded=ceil(
            count.attention * each["attention"] + count.mlp * each["mlp"] + count.shared_experts * each["sharedExperts"]
        ),
        kv_projection=ceil(count.kv_projection * each["attention"]),
        replicated=ceil(count.latent * each["attention"] + count.rest * own),
        experts=ceil(count.experts * each["experts"]),
        is_measured=False,
    )


def _measured(facts: ModelFacts, divisor: int) -> WeightBytes:
    """The measured total, in the proportions of the estimate; the experts' part is exact where it was measured."""
    guess = _estimated(facts, facts.quantization_config)
    if guess is None:
        # No bytes per weight are known (GGUF mixes formats): the proportions are those of equal bytes.
        guess = _estimated(facts, None)
        assert guess is not None
    total = (facts.weight_bytes or 0) // divisor
    if facts.expert_weight_bytes is None:
        experts = total * guess.experts // guess.total
    else:
        experts = facts.expert_weight_bytes // divisor
    dense, guessed = total - experts, max(1, guess.dense)
    embedding = dense * guess.embedding // guessed
    lm_head = dense * guess.lm_head // guessed
    kv_projection = dense * guess.kv_projection // guessed
    replicated = dense * guess.replicated // guessed
    return WeightBytes(
        embedding=embedding,
        lm_head=lm_head,
        sharded=dense - embedding - lm_head - kv_projection - replicated,
        kv_projection=kv_projection,
        replicated=replicated,
        experts=experts,
        is_measured=True,
    )


def _heads_per_gpu(kv_heads: int, tensor: int) -> int:
    return max(1, ceil(Fraction(kv_heads, tensor)))


def _stage_layers(layers: int, pipeline: int) -> int:
    return ceil(Fraction(layers, pipeline))


def _expert_share(facts: ModelFacts, tensor: int, expert: int) -> Fraction:
    """Of the routed experts of a layer, what the fullest GPU has."""
    if expert == 1 or not facts.n_routed_experts:
        return Fraction(1, tensor)
    return Fraction(ceil(Fraction(facts.n_routed_experts, expert)), facts.n_routed_experts)


def _stage_share(layers: int, pipeline: int) -> Fraction:
    return Fraction(_stage_layers(layers, pipeline), layers) if layers else Fraction(0)
