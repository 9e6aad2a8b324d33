"""`spec.model.architecture`: the shape of a model as its user writes it, where nothing can be asked.

The fields are config.json's own, in camelCase, and those of `facts.models.ModelFacts`; the text form is that of
`facts.model_json`, so that what the status of one cluster tells can be copied into the spec of another. The bounds of
single fields are here, for the API server; what must hold between fields is checked where the facts are read.
"""

from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field

from draftmark.api.base import ApiModel

#: Bounds of ours, as in `facts.models`; a test compares them.
_PRINTABLE: Final = "^[ -~]*$"

_Word = Annotated[str, Field(pattern=_PRINTABLE, min_length=1, max_length=96)]
_Dtype = Literal["float32", "bfloat16", "float16", "float8_e4m3fn"]
_SomeLayers = Annotated[int, Field(ge=1, le=1024)]
_Layers = Annotated[int, Field(ge=0, le=1024)]
_SomeSize = Annotated[int, Field(ge=1, le=1_048_576)]
_Size = Annotated[int, Field(ge=0, le=1_048_576)]
_SomeVocabulary = Annotated[int, Field(ge=1, le=4_194_304)]
_SomePositions = Annotated[int, Field(ge=1, le=1_073_741_824)]
_Positions = Annotated[int, Field(ge=0, le=1_073_741_824)]
_SomeHeads = Annotated[int, Field(ge=1, le=4096)]
_Heads = Annotated[int, Field(ge=0, le=4096)]
_SomeHeadDim = Annotated[int, Field(ge=1, le=16_384)]
_HeadDim = Annotated[int, Field(ge=0, le=16_384)]
_Experts = Annotated[int, Field(ge=0, le=16_384)]
_Norms = Annotated[int, Field(ge=0, le=16)]
_Counted = Annotated[int, Field(ge=1, le=1_125_899_906_842_624)]


class _Strict(ApiModel):
    # The API server keeps what it does not know here: a typing error in a size must be named, and not become a plan.
    model_config = ConfigDict(extra="allow", json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})


class QuantizationSpec(_Strict):
    """The format of quantized weights."""

    quant_method: _Word
    """Its name: fp8, int8, int4, awq, gptq, nvfp4, mxfp4, gguf, or as the checkpoint has it."""
    bits: Annotated[int, Field(ge=0, le=32)]
    """Bits of a weight without its scales; 0 is unknown or mixed."""
    group_size: _Size | None = None
    """Weights that share a scale. Default: a whole row, column or tensor."""
    parts: (
        Annotated[tuple[Literal["attention", "mlp", "sharedExperts", "experts"], ...], Field(max_length=4)] | None
    ) = None
    """What is quantized. Default: all of them."""


class ArchitectureSpec(_Strict):
    """The shape of a decoder model. Sizes are elements, not bytes; what a model does not have is left out."""

    architecture: _Word
    """The first of config.json's `architectures`, such as LlamaForCausalLM."""

    model_type: _Word
    """config.json's `model_type`, such as llama."""

    num_hidden_layers: _SomeLayers
    """Decoder layers."""

    hidden_size: _SomeSize
    """Width of the model."""

    vocab_size: _SomeVocabulary
    """Rows of the embedding."""

    max_position_embeddings: _SomePositions
    """Longest context that the model was made for, in tokens."""

    num_attention_heads: _SomeHeads
    """Query heads of a layer."""

    num_key_value_heads: _SomeHeads
    """Key and value heads of a layer; they divide the query heads."""

    head_dim: _SomeHeadDim
    """Size of a query and key head."""

    v_head_dim: _SomeHeadDim
    """Size of a value head."""

    num_sliding_layers: _Layers | None = None
    """Layers with a sliding window."""

    sliding_window: _Positions | None = None
    """Tokens that such a layer sees."""

    swa_num_attention_heads: _Heads | None = None
    """Query heads of a layer with a sliding window, where they are others than in full layers."""

    swa_num_key_value_heads: _Heads | None = None
    """Key and value heads of such a layer, where they are others."""

    swa_head_dim: _HeadDim | None = None
    """Size of a query and key head of such a layer, where it is another."""

    swa_v_head_dim: _HeadDim | None = None
    """Size of a value head of such a layer, where it is another."""

    num_linear_layers: _Layers | None = None
    """Layers with a state of constant size in the place of a cache."""

    linear_layer_type: Literal["gatedDeltaNet", "mamba2"] | None = None
    """Their kind."""

    linear_num_key_heads: _Heads | None = None
    """Key heads of a gated delta net; groups of a Mamba-2 layer."""

    linear_num_value_heads: _Heads | None = None
    """Value heads of such a layer."""

    linear_key_head_dim: _HeadDim | None = None
    """Size of its key heads; for Mamba-2 of its state."""

    linear_value_head_dim: _HeadDim | None = None
    """Size of its value heads."""

    linear_conv_kernel_dim: _HeadDim | None = None
    """Width of its convolution."""

    linear_state_dtype: _Dtype | None = None
    """Number format of its state. Default: dtype."""

    num_layers_without_attention: _Layers | None = None
    """Layers of a feed-forward part alone."""

    kv_lora_rank: _Size | None = None
    """Multi-head latent attention: size of the part that the cache holds."""

    q_lora_rank: _Size | None = None
    """Multi-head latent attention: size of the query's latent part."""

    qk_nope_head_dim: _HeadDim | None = None
    """Part of a head without rotary positions."""

    qk_rope_head_dim: _HeadDim | None = None
    """Part of a head with rotary positions."""

    index_n_heads: _Heads | None = None
    """Heads of the indexer of sparse attention."""

    index_head_dim: _HeadDim | None = None
    """Size of such a head."""

    num_index_layers: _Layers | None = None
    """Layers with an indexer."""

    num_mlp_layers: _Layers
    """Layers with a dense feed-forward part."""

    intermediate_size: _Size
    """Size of a dense feed-forward part."""

    num_moe_layers: _Layers | None = None
    """Layers with experts."""

    n_routed_experts: _Experts | None = None
    """Experts of a layer, without the shared ones."""

    num_experts_per_tok: _Experts | None = None
    """Experts that one token goes through."""

    moe_intermediate_size: _Size | None = None
    """Size of one expert."""

    shared_expert_intermediate_size: _Size | None = None
    """Size of all shared experts of a layer together."""

    has_shared_expert_gate: bool | None = None
    """The shared experts have a gate."""

    is_gated_mlp: bool | None = None
    """A feed-forward part has three matrices and not two. Default: true."""

    tie_word_embeddings: bool | None = None
    """Embedding and output head are one."""

    has_learned_positions: bool | None = None
    """Positions have an embedding of their own."""

    attention_bias: bool | None = None
    """Query, key and value have biases."""

    attention_output_bias: bool | None = None
    """The output of attention has a bias."""

    mlp_bias: bool | None = None
    """Dense feed-forward parts have biases."""

    expert_bias: bool | None = None
    """Experts have biases."""

    router_bias: bool | None = None
    """The router of the experts has a bias."""

    has_attention_sinks: bool | None = None
    """Every head has a learned sink."""

    attn_output_gate: bool | None = None
    """Full layers have a second query-sized projection."""

    attention_k_eq_v: bool | None = None
    """Full layers use the key as value."""

    norms_per_layer: _Norms | None = None
    """Norms of a layer. Default: 2."""

    has_norm_bias: bool | None = None
    """Norms have biases."""

    qk_norm: Literal["head", "projection"] | None = None
    """Norm of query and key: over a head, or over the whole projection. Default: none."""

    num_nextn_predict_layers: _Layers | None = None
    """Layers of multi-token prediction that the checkpoint has besides."""

    dtype: _Dtype | None = None
    """Number format of what is not quantized. Default: bfloat16."""

    quantization_config: QuantizationSpec | None = None
    """Format of the quantized weights. Default: none are."""

    weight_bytes: _Counted | None = None
    """Bytes of all weights, as the files hold them. Default: computed."""

    expert_weight_bytes: _Counted | None = None
    """The routed experts' part of it."""

    parameters: _Counted | None = None
    """Elements of the weights, as counted in the files. Default: computed."""

    uncounted: Annotated[tuple[_Word, ...], Field(max_length=8)] | None = None
    """Parts of the checkpoint that are in none of these numbers, such as vision_config."""

    is_known_architecture: bool | None = None
    """False: counted as a Llama of the same sizes. Default: true."""

    source: Annotated[str, Field(pattern=_PRINTABLE, max_length=200)] | None = None
    """Where these numbers are from, to be told. Default: spec.model.architecture."""
