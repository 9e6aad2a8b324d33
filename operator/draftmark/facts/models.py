"""What is known of a model: its shape, as the planner needs it.

One frozen type for every architecture that is served here. Its names are those of Hugging Face's config.json, so that
a user can copy them; a field that a model does not have is 0, False or empty. Layers are counted by kind, not listed:
a layer has full attention, sliding-window attention, a linear state of constant size, or none of them, and its
feed-forward part is dense, a mixture of experts, both (Gemma 4) or missing.

Who fills it: `hf_config` from a config.json, `gguf_header` from a GGUF file, `model_json` from our own text form, and
`model_catalogue` for well-known models. What is computed from it: `model_parameters` and `model_memory`.
"""

from dataclasses import dataclass, replace
from typing import Final, Literal

__all__ = [
    "ModelFacts",
    "Quantization",
    "ShortHeader",
    "UnreadableConfig",
    "UnreadableHeader",
    "WeightPart",
    "problem_of",
    "weighed",
]

#: What a weight can belong to, where formats differ in what they leave at 16 bit.
WeightPart = Literal["attention", "mlp", "sharedExperts", "experts"]
WEIGHT_PARTS: Final[tuple[WeightPart, ...]] = ("attention", "mlp", "sharedExperts", "experts")

LinearLayerType = Literal["", "gatedDeltaNet", "mamba2"]
QkNorm = Literal["", "head", "projection"]

#: Bytes of one number. Sources: IEEE 754, and the bfloat16 and OCP FP8 formats.
DTYPE_BYTES: Final = {"float32": 4, "bfloat16": 2, "float16": 2, "float8_e4m3fn": 1}

#: Bounds, far above what exists (2026: 126 layers, hidden size 18,432, 512 experts, vocabulary 262,208, ten million
#: positions) and low enough that every product stays a number that a person can read. They are guesses of ours.
MAX_LAYERS: Final = 1024
MAX_SIZE: Final = 2**20
MAX_VOCABULARY: Final = 2**22
MAX_HEADS: Final = 4096
MAX_HEAD_DIM: Final = 2**14
MAX_EXPERTS: Final = 2**14
MAX_POSITIONS: Final = 2**30
MAX_BYTES: Final = 2**50
MAX_PARAMETERS: Final = 10**14
MAX_NAME: Final = 96
MAX_SOURCE: Final = 200
MAX_UNCOUNTED: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadableConfig:
    """The data do not describe a model that can be reckoned with; the reason says which field, and what is needed."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadableHeader:
    """These bytes are no header that can be read; the reason says where."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShortHeader:
    """The bytes end inside the header; at least so many from the file's beginning are needed."""

    needed_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """The format of a checkpoint's weights, where it is not a plain 16 or 32 bit one."""

    quant_method: str
    """fp8, int8, int4, awq, gptq, nvfp4, mxfp4, gguf, or another name as the checkpoint has it."""
    bits: int
    """Bits of a quantized weight without its scales; 0 is unknown or mixed."""
    group_size: int = 0
    """Weights that share a scale; 0 is a whole row, column or tensor, or the format's own block."""
    parts: tuple[WeightPart, ...] = WEIGHT_PARTS
    """What is quantized. Embedding, output head, norms and routers never count to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """The shape of a decoder model. Sizes are elements, not bytes."""

    architecture: str
    """As config.json's `architectures` or GGUF's `general.architecture` says."""
    model_type: str
    num_hidden_layers: int
    hidden_size: int
    vocab_size: int
    max_position_embeddings: int

    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    """Size of a query and key head."""
    v_head_dim: int
    """Size of a value head."""

    num_sliding_layers: int = 0
    sliding_window: int = 0
    """Tokens that a sliding-window layer sees."""
    swa_num_attention_heads: int = 0
    """Heads of sliding-window layers where they differ; 0 is as in full layers. So with the next three."""
    swa_num_key_value_heads: int = 0
    swa_head_dim: int = 0
    swa_v_head_dim: int = 0

    num_linear_layers: int = 0
    linear_layer_type: LinearLayerType = ""
    linear_num_key_heads: int = 0
    """Key heads of a gated delta net; groups of a Mamba-2 layer."""
    linear_num_value_heads: int = 0
    linear_key_head_dim: int = 0
    """Key head size of a gated delta net; state size of a Mamba-2 layer."""
    linear_value_head_dim: int = 0
    linear_conv_kernel_dim: int = 0
    linear_state_dtype: str = ""
    """Number format of the recurrent state; empty is that of the model."""

    num_layers_without_attention: int = 0

    kv_lora_rank: int = 0
    """Above 0: multi-head latent attention, whose cache holds this and the rotary part only."""
    q_lora_rank: int = 0
    qk_nope_head_dim: int = 0
    qk_rope_head_dim: int = 0
    index_n_heads: int = 0
    """Heads of the indexer of sparse attention (DeepSeek-V3.2)."""
    index_head_dim: int = 0
    num_index_layers: int = 0

    num_mlp_layers: int
    """Layers with a dense feed-forward part."""
    intermediate_size: int
    num_moe_layers: int = 0
    n_routed_experts: int = 0
    num_experts_per_tok: int = 0
    moe_intermediate_size: int = 0
    """Size of one routed expert."""
    shared_expert_intermediate_size: int = 0
    """Size of all shared experts of a layer together."""
    has_shared_expert_gate: bool = False
    is_gated_mlp: bool = True
    """Three matrices (gate, up, down) and not two."""

    tie_word_embeddings: bool = False
    has_learned_positions: bool = False
    attention_bias: bool = False
    """Biases of query, key and value."""
    attention_output_bias: bool = False
    mlp_bias: bool = False
    expert_bias: bool = False
    router_bias: bool = False
    has_attention_sinks: bool = False
    attn_output_gate: bool = False
    """Full-attention layers have a second query-sized projection that gates their output."""
    attention_k_eq_v: bool = False
    """Full-attention layers use the key as value and have no value projection."""
    norms_per_layer: int = 2
    has_norm_bias: bool = False
    qk_norm: QkNorm = ""
    """Norm of query and key: none, over a head, or over the whole projection."""

    num_nextn_predict_layers: int = 0
    """Multi-token prediction layers that the checkpoint has besides; not in any sum unless it says so."""

    dtype: str = "bfloat16"
    quantization_config: Quantization | None = None
    weight_bytes: int | None = None
    """Measured: what the weight files hold."""
    expert_weight_bytes: int | None = None
    """Measured: the routed experts' part of it."""
    parameters: int | None = None
    """Measured: elements of the weights."""

    uncounted: tuple[str, ...] = ()
    """Parts of the checkpoint that no sum here includes, such as vision_config."""
    is_known_architecture: bool = True
    """False: a model type that is not known here, counted as a Llama of the same sizes."""
    source: str = ""

    @property
    def num_full_layers(self) -> int:
        """Layers whose cache grows with every token."""
        return (
            self.num_hidden_layers
            - self.num_sliding_layers
            - self.num_linear_layers
            - self.num_layers_without_attention
        )

    @property
    def is_mla(self) -> bool:
        return self.kv_lora_rank > 0


_AT_LEAST_ONE: Final = (
    ("num_hidden_layers", MAX_LAYERS),
    ("hidden_size", MAX_SIZE),
    ("vocab_size", MAX_VOCABULARY),
    ("max_position_embeddings", MAX_POSITIONS),
    ("num_attention_heads", MAX_HEADS),
    ("num_key_value_heads", MAX_HEADS),
    ("head_dim", MAX_HEAD_DIM),
    ("v_head_dim", MAX_HEAD_DIM),
)
_AT_LEAST_NONE: Final = (
    ("num_sliding_layers", MAX_LAYERS),
    ("sliding_window", MAX_POSITIONS),
    ("swa_num_attention_heads", MAX_HEADS),
    ("swa_num_key_value_heads", MAX_HEADS),
    ("swa_head_dim", MAX_HEAD_DIM),
    ("swa_v_head_dim", MAX_HEAD_DIM),
    ("num_linear_layers", MAX_LAYERS),
    ("linear_num_key_heads", MAX_HEADS),
    ("linear_num_value_heads", MAX_HEADS),
    ("linear_key_head_dim", MAX_HEAD_DIM),
    ("linear_value_head_dim", MAX_HEAD_DIM),
    ("linear_conv_kernel_dim", MAX_HEAD_DIM),
    ("num_layers_without_attention", MAX_LAYERS),
    ("kv_lora_rank", MAX_SIZE),
    ("q_lora_rank", MAX_SIZE),
    ("qk_nope_head_dim", MAX_HEAD_DIM),
    ("qk_rope_head_dim", MAX_HEAD_DIM),
    ("index_n_heads", MAX_HEADS),
    ("index_head_dim", MAX_HEAD_DIM),
    ("num_index_layers", MAX_LAYERS),
    ("num_mlp_layers", MAX_LAYERS),
    ("intermediate_size", MAX_SIZE),
    ("num_moe_layers", MAX_LAYERS),
    ("n_routed_experts", MAX_EXPERTS),
    ("num_experts_per_tok", MAX_EXPERTS),
    ("moe_intermediate_size", MAX_SIZE),
    ("shared_expert_intermediate_size", MAX_SIZE),
    ("norms_per_layer", 16),
    ("num_nextn_predict_layers", MAX_LAYERS),
)


def problem_of(facts: ModelFacts) -> str | None:
    """What is wrong with these facts, in a sentence, or None.

    Checks bounds and what must hold between the fields, so that every later sum is a sum of a possible model.
    """
    for least, fields in ((1, _AT_LEAST_ONE), (0, _AT_LEAST_NONE)):
        for name, most in fields:
            value = getattr(facts, name)
            if not least <= value <= most:
                return f"{name} is {_shown(value)}; it must be from {least} to {most}."
    for name in ("weight_bytes", "expert_weight_bytes", "parameters"):
        value = getattr(facts, name)
        if value is not None and not 1 <= value <= MAX_BYTES:
            return f"{name} is {_shown(value)}; it must be from 1 to {MAX_BYTES}."
    return (
        _problem_of_texts(facts)
        or _problem_of_layers(facts)
        or _problem_of_attention(facts)
        or _problem_of_experts(facts)
        or _problem_of_quantization(facts.quantization_config)
    )


def weighed(
    facts: ModelFacts, *, weight_bytes: int, expert_weight_bytes: int | None = None, parameters: int | None = None
) -> ModelFacts:
    """The same facts with what the weight files were seen to hold."""
    return replace(facts, weight_bytes=weight_bytes, expert_weight_bytes=expert_weight_bytes, parameters=parameters)


def _problem_of_texts(facts: ModelFacts) -> str | None:
    for name, most in (("architecture", MAX_NAME), ("model_type", MAX_NAME), ("source", MAX_SOURCE)):
        text = getattr(facts, name)
        if len(text) > most or not text.isprintable() or not text.isascii():
            return f"{name} must be at most {most} printable ASCII characters."
    if facts.dtype not in DTYPE_BYTES:
        return f"dtype must be one of {', '.join(DTYPE_BYTES)}."
    if facts.linear_state_dtype not in {"", *DTYPE_BYTES}:
        return f"linear_state_dtype must be empty or one of {', '.join(DTYPE_BYTES)}."
    if len(facts.uncounted) > MAX_UNCOUNTED or not all(_is_name(name) for name in facts.uncounted):
        return f"uncounted must be at most {MAX_UNCOUNTED} names of at most {MAX_NAME} characters."
    return None


def _problem_of_layers(facts: ModelFacts) -> str | None:
    if facts.num_full_layers < 0:
        return (
            f"sliding-window, linear and attention-free layers are "
            f"{facts.num_hidden_layers - facts.num_full_layers} together, of {facts.num_hidden_layers} layers."
        )
    if bool(facts.num_sliding_layers) != bool(facts.sliding_window):
        return "num_sliding_layers and sliding_window must both be given, or neither."
    if max(facts.num_mlp_layers, facts.num_moe_layers, facts.num_index_layers) > facts.num_hidden_layers:
        return f"more layers have a feed-forward part or an indexer than there are layers ({facts.num_hidden_layers})."
    if facts.num_mlp_layers and not facts.intermediate_size:
        return f"{facts.num_mlp_layers} layers are dense, and intermediate_size is 0."
    linear = (
        facts.linear_num_key_heads,
        facts.linear_num_value_heads,
        facts.linear_key_head_dim,
        facts.linear_value_head_dim,
        facts.linear_conv_kernel_dim,
    )
    if facts.num_linear_layers and not (facts.linear_layer_type and all(linear)):
        return "linear layers need their type, head counts, head sizes and convolution kernel."
    return None


def _problem_of_attention(facts: ModelFacts) -> str | None:
    if facts.num_key_value_heads > facts.num_attention_heads:
        return f"num_key_value_heads is {facts.num_key_value_heads}, of {facts.num_attention_heads} heads."
    if facts.num_attention_heads % facts.num_key_value_heads:
        return f"num_key_value_heads ({facts.num_key_value_heads}) must divide num_attention_heads ({facts.num_attention_heads})."
    if facts.is_mla and not (facts.qk_rope_head_dim and facts.qk_nope_head_dim):
        return "kv_lora_rank needs qk_rope_head_dim and qk_nope_head_dim."
    if bool(facts.index_n_heads) != bool(facts.index_head_dim) or bool(facts.index_n_heads) != bool(
        facts.num_index_layers
    ):
        return "an indexer needs index_n_heads, index_head_dim and the layers that have one."
    return None


def _problem_of_experts(facts: ModelFacts) -> str | None:
    needed = (facts.n_routed_experts, facts.num_experts_per_tok, facts.moe_intermediate_size)
    if facts.num_moe_layers and not all(needed):
        return "layers with experts need n_routed_experts, num_experts_per_tok and moe_intermediate_size."
    if facts.num_experts_per_tok > facts.n_routed_experts:
        return f"num_experts_per_tok is {facts.num_experts_per_tok}, of {facts.n_routed_experts} experts."
    if facts.expert_weight_bytes is not None and facts.expert_weight_bytes > (facts.weight_bytes or 0):
        return "expert_weight_bytes is more than weight_bytes."
    return None


def _problem_of_quantization(quantization: Quantization | None) -> str | None:
    if quantization is None:
        return None
    if not _is_name(quantization.quant_method):
        return f"quant_method must be 1 to {MAX_NAME} printable ASCII characters."
    if not 0 <= quantization.bits <= 32 or not 0 <= quantization.group_size <= MAX_SIZE:
        return f"quantization needs bits from 0 to 32 and a group size from 0 to {MAX_SIZE}."
    if len(set(quantization.parts)) != len(quantization.parts) or not set(quantization.parts) <= set(WEIGHT_PARTS):
        return f"quantized parts must be among {', '.join(WEIGHT_PARTS)}, each once."
    return None


def _is_name(text: str) -> bool:
    return 0 < len(text) <= MAX_NAME and text.isprintable() and text.isascii()


def _shown(value: int) -> str:
    # str() of an int of over 4,300 digits raises.
    return str(value) if value.bit_length() <= 64 else f"a number of {value.bit_length()} bits"
