"""The facts of a model from its config.json on the Hugging Face hub.

A config.json leaves out what its model class takes for granted: whether query, key and value have biases, where
experts are, which layers slide. Those rules are the table `_FAMILIES`, one row per `model_type`. A model type
without a row is counted as a Llama of the same sizes and says so (`is_known_architecture`), unless its config has
fields of a structure that a Llama does not have; then it is refused.

The input comes from strangers: every field is read by name and checked for type and bounds, and nothing in it is run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from draftmark.facts.json_fields import Fields, UnreadableField, shown, whole
from draftmark.facts.model_parameters import is_absurd
from draftmark.facts.models import (
    DTYPE_BYTES,
    MAX_EXPERTS,
    MAX_HEAD_DIM,
    MAX_HEADS,
    MAX_LAYERS,
    MAX_NAME,
    MAX_POSITIONS,
    MAX_SIZE,
    MAX_SOURCE,
    MAX_UNCOUNTED,
    MAX_VOCABULARY,
    LinearLayerType,
    ModelFacts,
    QkNorm,
    UnreadableConfig,
    problem_of,
)
from draftmark.facts.quantization_config import quantization_of

__all__ = ["KNOWN_MODEL_TYPES", "facts_from_config"]

_OTHER_TOWERS: Final = ("vision_config", "audio_config", "vision_tower_config", "speech_config")

#: Fields of structures that the formulas do not have, with what they stand for.
_NOT_COUNTED_HERE: Final = {
    "is_encoder_decoder": "an encoder beside the decoder",
    "moe_latent_size": "experts in a latent space",
    "hidden_size_per_layer_input": "an embedding per layer",
    "num_kv_shared_layers": "layers that share a cache",
    "block_configs": "layers of differing sizes",
    "compress_ratios": "compressed attention",
    "cross_attention_layers": "cross attention",
    "cross_attention_interval": "cross attention",
}
#: Words in the fields of an unknown model type that speak against a Llama.
_UNLIKE_LLAMA: Final = (
    "mamba",
    "ssm",
    "linear_",
    "rwkv",
    "lora_rank",
    "latent",
    "hybrid",
    "expert",
    "moe",
    "recurrent",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Family:
    """What a model class takes for granted."""

    qkv_bias: bool | None = None
    """None: `attention_bias` says it."""
    output_bias: bool | None = False
    """None: as query, key and value."""
    mlp_bias: bool | None = None
    """None: `mlp_bias` says it."""
    expert_bias: bool = False
    router_bias: bool = False
    sinks: bool = False
    ties: bool = False
    """Embedding and output head are one where the config does not say."""
    gated: bool = True
    norms: int = 2
    norm_bias: bool = False
    qk_norm: QkNorm = ""
    windows: Literal["none", "all", "upper", "period"] = "none"
    """Which layers slide where `layer_types` does not say: none, all, those from `max_window_layers` on, or all but
    every `full_every`th."""
    full_every: int = 0
    experts: Literal["none", "all", "sparseStep", "afterDense", "interleaved", "pattern"] = "none"
    shared_gate: bool = False
    output_gate: bool = False
    linear: LinearLayerType = ""
    learned_positions: bool = False


_LLAMA: Final = _Family(output_bias=None)
_QWEN2: Final = _Family(qkv_bias=True, windows="upper")
_QWEN3: Final = _Family(output_bias=None, qk_norm="head", windows="upper")
_GEMMA: Final = _Family(output_bias=None, ties=True)
_GEMMA3: Final = _Family(output_bias=None, ties=True, norms=4, qk_norm="head", windows="period", full_every=6)
_DEEPSEEK: Final = _Family(experts="afterDense", router_bias=True)
_QWEN3_NEXT: Final = _Family(
    qk_norm="head", experts="sparseStep", shared_gate=True, output_gate=True, linear="gatedDeltaNet"
)

#: Sources: the classes of the same name in Hugging Face's transformers, and for nemotron_h, mimo_v2_flash and minimax_m2
#: the code in the models' repositories. Types with a model in the catalogue are compared there with a published count;
#: mistral, gemma, qwen2_moe, qwen3_vl*, qwen3_5_moe_text, deepseek_v2, glm4_moe*, mimo, falcon, gpt2, gpt_bigcode and mpt
#: are not.
_FAMILIES: Final[Mapping[str, _Family]] = {
    "llama": _LLAMA,
    "mistral": _Family(windows="all"),
    "mixtral": _Family(windows="all", experts="all"),
    "phi3": _Family(windows="all"),
    "qwen2": _QWEN2,
    "qwen2_moe": _Family(qkv_bias=True, windows="upper", experts="sparseStep", shared_gate=True),
    "qwen3": _QWEN3,
    "qwen3_vl_text": _QWEN3,
    "qwen3_moe": _Family(output_bias=None, qk_norm="head", windows="upper", experts="sparseStep"),
    "qwen3_vl_moe_text": _Family(output_bias=None, qk_norm="head", experts="sparseStep"),
    "qwen3_next": _QWEN3_NEXT,
    "qwen3_5_text": _QWEN3_NEXT,
    "qwen3_5_moe_text": _QWEN3_NEXT,
    "gemma": _GEMMA,
    "gemma2": _Family(output_bias=None, ties=True, norms=4, windows="period", full_every=2),
    "gemma3": _GEMMA3,
    "gemma3_text": _GEMMA3,
    "gemma4_text": _Family(output_bias=None, ties=True, norms=4, qk_norm="head", experts="all"),
    "gpt_oss": _Family(output_bias=None, expert_bias=True, router_bias=True, sinks=True, experts="all"),
    "deepseek_v2": _Family(experts="afterDense"),
    "deepseek_v3": _DEEPSEEK,
    "deepseek_v32": _DEEPSEEK,
    "deepseek_ref": _DEEPSEEK,
    "kimi_k2": _DEEPSEEK,
    "glm4_moe": _DEEPSEEK,
    "glm_moe_dsa": _DEEPSEEK,
    "glm4_moe_lite": _DEEPSEEK,
    "minimax_m2": _Family(qk_norm="projection", experts="all", router_bias=True),
    "mimo": _Family(qkv_bias=True, windows="upper"),
    "mimo_v2_flash": _Family(experts="afterDense", router_bias=True, sinks=True),
    "llama4_text": _Family(experts="interleaved", windows="period", full_every=4),
    "nemotron_h": _Family(gated=False, norms=1, experts="pattern", router_bias=True, linear="mamba2"),
    "falcon": _Family(gated=False, norms=1, norm_bias=True, ties=True),
    "gpt2": _Family(
        qkv_bias=True, output_bias=True, mlp_bias=True, gated=False, norm_bias=True, ties=True, learned_positions=True
    ),
    "gpt_bigcode": _Family(
        qkv_bias=True, output_bias=True, mlp_bias=True, gated=False, norm_bias=True, ties=True, learned_positions=True
    ),
    "mpt": _Family(qkv_bias=False, mlp_bias=False, gated=False, ties=True),
}
KNOWN_MODEL_TYPES: Final = tuple(sorted(_FAMILIES))


def facts_from_config(
    config: Mapping[str, object],
    *,
    quantization: Mapping[str, object] | None = None,
    source: str = "config.json",
) -> ModelFacts | UnreadableConfig:
    """Read a config.json.

    Args:
        config: Its object. The config of a model with several towers counts for its language model; the others are
            named in `uncounted`.
        quantization: The object of hf_quant_config.json, which NVIDIA's checkpoints have beside it.
        source: Where the config came from, for people; at most 200 characters.

    Returns:
        The facts, or which field cannot be read and what it needs. Never raises, whatever the JSON holds.
    """
    try:
        facts = _read(Fields.of(config), quantization, source)
    except UnreadableField as error:
        return UnreadableConfig(reason=str(error))
    problem = problem_of(facts)
    if problem:
        return UnreadableConfig(reason=problem)
    if is_absurd(facts):
        return UnreadableConfig(reason="the sizes make a model of over 10^14 parameters; no such model is served.")
    return facts


def _read(fields: Fields, beside: Mapping[str, object] | None, source: str) -> ModelFacts:
    model_type = fields.text("model_type", default="unknown")
    family = _FAMILIES.get(model_type)
    for name, meaning in _NOT_COUNTED_HERE.items():
        if fields.own(name) not in (None, False, 0):
            raise UnreadableField(f"{name} means {meaning}, which the sums here do not have.")
    if family is None:
        _refuse_unlike_llama(fields, model_type)

    layers = fields.whole("num_hidden_layers", "n_layer", "n_layers", least=1, most=MAX_LAYERS)
    h = fields.whole("hidden_size", "n_embd", "d_model", least=1, most=MAX_SIZE)
    heads = fields.whole("num_attention_heads", "n_head", "n_heads", least=1, most=MAX_HEADS)
    rules = family or _LLAMA
    positions = _positions(fields, model_type)
    kinds = _layer_kinds(fields, rules, layers, positions)
    heads_and_sizes = _attention_fields(fields, model_type, h, heads)
    feed_forward = _feed_forward_fields(fields, model_type, rules, layers, h, kinds)
    has_qkv_bias = _bias(fields, rules.qkv_bias, "attention_bias", "bias")
    return ModelFacts(
        architecture=_architecture(fields, model_type),
        model_type=model_type,
        num_hidden_layers=layers,
        hidden_size=h,
        vocab_size=_vocabulary(fields, model_type),
        max_position_embeddings=positions,
        num_attention_heads=heads,
        num_key_value_heads=heads_and_sizes.kv_heads,
        head_dim=heads_and_sizes.head_dim,
        v_head_dim=heads_and_sizes.v_head_dim,
        num_sliding_layers=kinds.sliding,
        sliding_window=kinds.window,
        swa_num_attention_heads=heads_and_sizes.swa_heads if kinds.sliding else 0,
        swa_num_key_value_heads=heads_and_sizes.swa_kv_heads if kinds.sliding else 0,
        swa_head_dim=heads_and_sizes.swa_head_dim if kinds.sliding else 0,
        swa_v_head_dim=heads_and_sizes.swa_v_head_dim if kinds.sliding else 0,
        num_linear_layers=kinds.linear,
        linear_layer_type=rules.linear if kinds.linear else "",
        linear_num_key_heads=_linear(fields, kinds, "linear_num_key_heads", "n_groups", most=MAX_HEADS),
        linear_num_value_heads=_linear(fields, kinds, "linear_num_value_heads", "mamba_num_heads", most=MAX_HEADS),
        linear_key_head_dim=_linear(fields, kinds, "linear_key_head_dim", "ssm_state_size", most=MAX_HEAD_DIM),
        linear_value_head_dim=_linear(fields, kinds, "linear_value_head_dim", "mamba_head_dim", most=MAX_HEAD_DIM),
        linear_conv_kernel_dim=_linear(fields, kinds, "linear_conv_kernel_dim", "conv_kernel", most=MAX_HEAD_DIM),
        linear_state_dtype=_dtype(fields, "mamba_ssm_dtype", "mamba_ssm_cache_dtype", default="")
        if kinds.linear
        else "",
        num_layers_without_attention=kinds.without,
        kv_lora_rank=heads_and_sizes.kv_lora_rank,
        q_lora_rank=heads_and_sizes.q_lora_rank,
        qk_nope_head_dim=heads_and_sizes.nope,
        qk_rope_head_dim=heads_and_sizes.rope,
        index_n_heads=heads_and_sizes.index_heads,
        index_head_dim=heads_and_sizes.index_head_dim,
        num_index_layers=_index_layers(fields, heads_and_sizes, layers),
        num_mlp_layers=feed_forward.dense_layers,
        intermediate_size=feed_forward.dense_size,
        num_moe_layers=feed_forward.moe_layers,
        n_routed_experts=feed_forward.experts,
        num_experts_per_tok=feed_forward.active,
        moe_intermediate_size=feed_forward.expert_size,
        shared_expert_intermediate_size=feed_forward.shared_size,
        has_shared_expert_gate=rules.shared_gate and feed_forward.shared_size > 0,
        is_gated_mlp=rules.gated,
        tie_word_embeddings=_ties(fields, rules),
        has_learned_positions=rules.learned_positions,
        attention_bias=has_qkv_bias,
        attention_output_bias=has_qkv_bias if rules.output_bias is None else rules.output_bias,
        mlp_bias=_bias(fields, rules.mlp_bias, "mlp_bias", "bias"),
        expert_bias=rules.expert_bias,
        router_bias=rules.router_bias,
        has_attention_sinks=rules.sinks,
        attn_output_gate=rules.output_gate,
        attention_k_eq_v=fields.flag("attention_k_eq_v", default=False),
        norms_per_layer=_norms(fields, model_type, rules, has_experts=feed_forward.moe_layers > 0),
        has_norm_bias=rules.norm_bias,
        qk_norm=rules.qk_norm,
        num_nextn_predict_layers=fields.whole(
            "num_nextn_predict_layers", "mtp_num_hidden_layers", least=0, most=MAX_LAYERS, default=0
        ),
        dtype=_dtype(fields, "dtype", "torch_dtype", default="bfloat16"),
        quantization_config=quantization_of(fields, beside, layers),
        uncounted=tuple(name for name in _OTHER_TOWERS if fields.outer.get(name))[:MAX_UNCOUNTED],
        is_known_architecture=family is not None,
        source=source[:MAX_SOURCE],
    )


def _refuse_unlike_llama(fields: Fields, model_type: str) -> None:
    unlike = sorted(
        name
        for name, value in fields.inner.items()
        if isinstance(name, str) and value not in (None, False, 0) and any(word in name for word in _UNLIKE_LLAMA)
    )
    if unlike:
        raise UnreadableField(
            f"model_type {shown(model_type)} is not known here, and {unlike[0][:MAX_NAME]} says that it is not like a "
            f"Llama. Known are {', '.join(KNOWN_MODEL_TYPES)}."
        )


def _architecture(fields: Fields, model_type: str) -> str:
    names = fields.outer.get("architectures") or fields.inner.get("architectures")
    if names is None:
        return model_type
    first = names[0] if isinstance(names, Sequence) and not isinstance(names, str) and names else None
    if not isinstance(first, str) or not 0 < len(first) <= MAX_NAME or not (first.isascii() and first.isprintable()):
        raise UnreadableField(f"architectures is {shown(names)}; it must be a list that begins with a class name.")
    return first


def _positions(fields: Fields, model_type: str) -> int:
    names = ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx", "max_sequence_length")
    # Falcon's first configs and some of Gemma 3's leave it out; the class' default is what engines then use.
    # Sources: transformers, configuration_falcon.py and configuration_gemma3.py.
    default = {"falcon": 2048, "gemma3_text": 131_072}.get(model_type)
    return fields.whole(*names, least=1, most=MAX_POSITIONS, default=default)


def _vocabulary(fields: Fields, model_type: str) -> int:
    # Gemma 3's text_config leaves it out. Source of the default: transformers, configuration_gemma3.py.
    default = {"gemma3_text": 262_208}.get(model_type)
    return fields.whole("vocab_size", "n_vocab", least=1, most=MAX_VOCABULARY, default=default)


def _dtype(fields: Fields, *names: str, default: str) -> str:
    text = fields.text(*names, default=default) if fields.get(*names) is not None else default
    text = text.removeprefix("torch.")
    if text and text not in DTYPE_BYTES:
        raise UnreadableField(f"{names[0]} is {shown(text)}; it must be one of {', '.join(DTYPE_BYTES)}.")
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kinds:
    sliding: int = 0
    window: int = 0
    linear: int = 0
    without: int = 0
    pattern: str = ""
    """Nemotron-H's letter per layer: M Mamba-2, * attention, - dense, E experts."""


#: Sparse attention still caches every token.
_LAYER_TYPES: Final = (
    "full_attention",
    "sliding_attention",
    "chunked_attention",
    "linear_attention",
    "deepseek_sparse_attention",
)
#: Nemotron-H's kinds of layers as words and as letters.
_BLOCK_LETTERS: Final = {"mamba": "M", "attention": "*", "mlp": "-", "moe": "E"}


def _block_pattern(fields: Fields, layers: int) -> str:
    blocks = fields.items("layers_block_type", layers)
    if blocks is not None:
        letters = [_BLOCK_LETTERS.get(block) if isinstance(block, str) else None for block in blocks]
        if None in letters:
            raise UnreadableField(f"layers_block_type must have one of {', '.join(_BLOCK_LETTERS)} per layer.")
        return "".join(letter for letter in letters if letter)
    pattern = fields.own("hybrid_override_pattern")
    if not isinstance(pattern, str) or len(pattern) != layers or not set(pattern) <= set(_BLOCK_LETTERS.values()):
        raise UnreadableField(f"hybrid_override_pattern is {shown(pattern)}; it must have one of M * - E per layer.")
    return pattern


def _layer_kinds(fields: Fields, family: _Family, layers: int, positions: int) -> _Kinds:
    if family.experts == "pattern":
        pattern = _block_pattern(fields, layers)
        return _Kinds(linear=pattern.count("M"), without=pattern.count("-") + pattern.count("E"), pattern=pattern)
    window = fields.whole("sliding_window", "attention_chunk_size", least=0, most=MAX_POSITIONS, default=0)
    if fields.own("use_sliding_window") is False:
        window = 0
    linear = 0
    sliding = _sliding_by_rule(fields, family, layers)
    types = fields.items("layer_types", layers)
    hybrid = fields.items("hybrid_layer_pattern", layers)
    if types is not None:
        for kind in types:
            if not isinstance(kind, str) or kind not in _LAYER_TYPES:
                raise UnreadableField(f"layer_types has {shown(kind)}; known are {', '.join(_LAYER_TYPES)}.")
        sliding = sum(kind in ("sliding_attention", "chunked_attention") for kind in types)
        linear = sum(kind == "linear_attention" for kind in types)
    elif hybrid is not None:
        sliding = sum(whole("hybrid_layer_pattern", kind, least=0, most=1) for kind in hybrid)
    elif family.linear == "gatedDeltaNet":
        # Without a list every n-th layer has full attention. Source: transformers, configuration_qwen3_next.py.
        every = fields.whole("full_attention_interval", least=1, most=MAX_LAYERS, default=4)
        linear, sliding = layers - layers // every, 0
    if linear and not family.linear:
        raise UnreadableField("layer_types has linear_attention, and this model_type has no such layers here.")
    if sliding and not window:
        if types is not None or hybrid is not None:
            raise UnreadableField("layers slide, and sliding_window does not say how far.")
        sliding = 0
    if window >= positions:
        # The window never closes before the context does: the layer's cache is that of full attention.
        sliding = 0
    return _Kinds(sliding=sliding, window=window if sliding else 0, linear=linear)


def _sliding_by_rule(fields: Fields, family: _Family, layers: int) -> int:
    match family.windows:
        case "none":
            return 0
        case "all":
            return layers
        case "upper":
            # Qwen's sliding window is off unless the config turns it on. Source: configuration_qwen2.py.
            if fields.own("use_sliding_window") is not True:
                return 0
            return layers - min(layers, fields.whole("max_window_layers", least=0, most=MAX_LAYERS, default=layers))
        case "period":
            every = fields.whole("sliding_window_pattern", least=1, most=MAX_LAYERS, default=family.full_every)
            return layers - layers // every


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attention:
    kv_heads: int
    head_dim: int
    v_head_dim: int
    swa_heads: int = 0
    swa_kv_heads: int = 0
    swa_head_dim: int = 0
    swa_v_head_dim: int = 0
    kv_lora_rank: int = 0
    q_lora_rank: int = 0
    nope: int = 0
    rope: int = 0
    index_heads: int = 0
    index_head_dim: int = 0


def _attention_fields(fields: Fields, model_type: str, h: int, heads: int) -> _Attention:
    kv_rank = fields.whole("kv_lora_rank", least=0, most=MAX_SIZE, default=0)
    if kv_rank:
        nope = fields.whole("qk_nope_head_dim", least=1, most=MAX_HEAD_DIM)
        rope = fields.whole("qk_rope_head_dim", least=1, most=MAX_HEAD_DIM)
        return _Attention(
            kv_heads=heads,
            head_dim=nope + rope,
            v_head_dim=fields.whole("v_head_dim", least=1, most=MAX_HEAD_DIM),
            kv_lora_rank=kv_rank,
            q_lora_rank=fields.whole("q_lora_rank", least=0, most=MAX_SIZE, default=0),
            nope=nope,
            rope=rope,
            index_heads=fields.whole("index_n_heads", least=0, most=MAX_HEADS, default=0),
            index_head_dim=fields.whole("index_head_dim", least=0, most=MAX_HEAD_DIM, default=0),
        )
    # Gemma's classes have a head size of 256 where the config says none. Source: configuration_gemma.py and its heirs.
    default = 256 if model_type in ("gemma", "gemma2", "gemma3", "gemma3_text") else h // heads
    head_dim = fields.whole("head_dim", "attention_head_dim", least=1, most=MAX_HEAD_DIM, default=default)
    v_head_dim = fields.whole("v_head_dim", least=1, most=MAX_HEAD_DIM, default=head_dim)
    kv_heads = _kv_heads(fields, model_type, heads)
    if model_type == "gemma4_text":
        # Its plain fields are those of sliding layers, the global ones those of full layers.
        full_dim = fields.whole("global_head_dim", least=1, most=MAX_HEAD_DIM, default=head_dim)
        return _Attention(
            kv_heads=fields.whole("num_global_key_value_heads", least=1, most=MAX_HEADS, default=kv_heads),
            head_dim=full_dim,
            v_head_dim=full_dim,
            swa_kv_heads=kv_heads,
            swa_head_dim=head_dim,
            swa_v_head_dim=head_dim,
        )
    return _Attention(
        kv_heads=kv_heads,
        head_dim=head_dim,
        v_head_dim=v_head_dim,
        swa_heads=fields.whole("swa_num_attention_heads", least=0, most=MAX_HEADS, default=0),
        swa_kv_heads=fields.whole("swa_num_key_value_heads", least=0, most=MAX_HEADS, default=0),
        swa_head_dim=fields.whole("swa_head_dim", least=0, most=MAX_HEAD_DIM, default=0),
        swa_v_head_dim=fields.whole("swa_v_head_dim", least=0, most=MAX_HEAD_DIM, default=0),
    )


def _kv_heads(fields: Fields, model_type: str, heads: int) -> int:
    # Source of the default: transformers, configuration_gpt_bigcode.py.
    multi_query = fields.flag("multi_query", default=model_type == "gpt_bigcode")
    # Falcon 7B says both multi_query and num_kv_heads: 71, and has one head. Only its second architecture has groups.
    # Source: transformers, modeling_falcon.py, FalconAttention.
    if multi_query and not fields.flag("new_decoder_architecture", default=False):
        return 1
    nested = fields.own("attn_config")
    if model_type == "mpt" and isinstance(nested, Mapping) and nested.get("kv_n_heads") is not None:
        return whole("attn_config.kv_n_heads", nested["kv_n_heads"], least=1, most=MAX_HEADS)
    return fields.whole("num_key_value_heads", "num_kv_heads", "n_head_kv", least=1, most=MAX_HEADS, default=heads)


def _index_layers(fields: Fields, attention: _Attention, layers: int) -> int:
    """Layers with an indexer of their own; GLM-5.2 shares one between several layers."""
    if not attention.index_heads:
        return 0
    types = fields.items("indexer_types", layers)
    return layers if types is None else max(1, sum(kind == "full" for kind in types))


def _linear(fields: Fields, kinds: _Kinds, *names: str, most: int) -> int:
    return fields.whole(*names, least=1, most=most) if kinds.linear else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _FeedForward:
    dense_layers: int
    dense_size: int
    moe_layers: int = 0
    experts: int = 0
    active: int = 0
    expert_size: int = 0
    shared_size: int = 0


def _feed_forward_fields(
    fields: Fields, model_type: str, family: _Family, layers: int, h: int, kinds: _Kinds
) -> _FeedForward:
    experts = fields.whole("num_local_experts", "num_experts", "n_routed_experts", least=0, most=MAX_EXPERTS, default=0)
    if family.experts == "none" or not experts:
        dense_layers = kinds.pattern.count("-") if kinds.pattern else layers
        return _FeedForward(
            dense_layers=dense_layers, dense_size=_dense_size(fields, model_type, h) if dense_layers else 0
        )
    moe_layers = _moe_layers(fields, family, layers, kinds)
    size = fields.whole("moe_intermediate_size", "intermediate_size", least=1, most=MAX_SIZE)
    active = fields.whole(
        "num_experts_per_tok", "top_k_experts", "experts_per_token", "moe_topk", least=1, most=MAX_EXPERTS
    )
    match family.experts:
        case "interleaved":
            # Llama 4: the expert's size is intermediate_size, and there is one shared expert of that size; dense
            # layers have intermediate_size_mlp. Source: transformers, modeling_llama4.py.
            dense_size = fields.whole("intermediate_size_mlp", least=1, most=MAX_SIZE)
            shared = size
        case _:
            dense_size = _dense_size(fields, model_type, h) if moe_layers < layers or model_type == "gemma4_text" else 0
            shared = _shared_size(fields, size)
    if kinds.pattern:
        dense_layers = kinds.pattern.count("-")
    elif model_type == "gemma4_text":
        # Every layer has both. Source: transformers, modeling_gemma4.py.
        dense_layers = layers
    else:
        dense_layers = layers - moe_layers
    return _FeedForward(
        dense_layers=dense_layers,
        dense_size=dense_size if dense_layers else 0,
        moe_layers=moe_layers,
        experts=experts if moe_layers else 0,
        active=active if moe_layers else 0,
        expert_size=size if moe_layers else 0,
        shared_size=shared if moe_layers else 0,
    )


def _dense_size(fields: Fields, model_type: str, h: int) -> int:
    default = None
    if model_type in ("falcon", "gpt2", "gpt_bigcode", "mpt"):
        # Four times the hidden size where they say nothing. Source: their classes in transformers.
        default = h * fields.whole("expansion_ratio", least=1, most=64, default=4)
    return fields.whole("intermediate_size", "ffn_hidden_size", "n_inner", least=1, most=MAX_SIZE, default=default)


def _shared_size(fields: Fields, size: int) -> int:
    direct = fields.whole(
        "shared_expert_intermediate_size", "moe_shared_expert_intermediate_size", least=0, most=MAX_SIZE, default=0
    )
    return direct or size * fields.whole("n_shared_experts", least=0, most=MAX_EXPERTS, default=0)


def _moe_layers(fields: Fields, family: _Family, layers: int, kinds: _Kinds) -> int:
    match family.experts:
        case "none":
            return 0
        case "all":
            return layers
        case "pattern":
            return kinds.pattern.count("E")
        case "interleaved":
            return layers // fields.whole("interleave_moe_layer_step", least=1, most=MAX_LAYERS, default=1)
        case "sparseStep":
            step = fields.whole("decoder_sparse_step", least=1, most=MAX_LAYERS, default=1)
            dense = fields.own("mlp_only_layers") or ()
            if not isinstance(dense, Sequence) or isinstance(dense, str) or len(dense) > layers:
                raise UnreadableField(f"mlp_only_layers is {shown(dense)}; it must be a list of layer numbers.")
            only = {whole("mlp_only_layers", layer, least=0, most=MAX_LAYERS) for layer in dense}
            return sum((layer + 1) % step == 0 and layer not in only for layer in range(layers))
        case "afterDense":
            frequency = fields.own("moe_layer_freq")
            if isinstance(frequency, Sequence) and not isinstance(frequency, str):
                chosen = fields.items("moe_layer_freq", layers) or ()
                return sum(whole("moe_layer_freq", layer, least=0, most=1) for layer in chosen)
            step = fields.whole("moe_layer_freq", least=1, most=MAX_LAYERS, default=1)
            first = fields.whole("first_k_dense_replace", least=0, most=MAX_LAYERS, default=0)
            return sum(layer >= first and layer % step == 0 for layer in range(layers))


def _norms(fields: Fields, model_type: str, family: _Family, *, has_experts: bool) -> int:
    if model_type == "falcon":
        # One norm before attention and feed-forward side by side, two in the second architecture.
        side_by_side = fields.flag("parallel_attn", default=True)
        return 1 if side_by_side and not fields.flag("new_decoder_architecture", default=False) else 2
    # Gemma 4 has norms of its own around the experts. Source: transformers, modeling_gemma4.py.
    return 7 if model_type == "gemma4_text" and has_experts else family.norms


def _bias(fields: Fields, rule: bool | None, *names: str) -> bool:
    return rule if rule is not None else any(fields.flag(name, default=False) for name in names)


def _ties(fields: Fields, family: _Family) -> bool:
    value = fields.get("tie_word_embeddings")
    if value is None:
        return family.ties
    if not isinstance(value, bool):
        raise UnreadableField(f"tie_word_embeddings is {shown(value)}; it must be true or false.")
    return value
