"""How many weights a model has, from its shape.

With h the hidden size, V the vocabulary, H and K the query and key-value heads, d and e the key and value head sizes,
I the feed-forward size, E experts of size M, g = 3 matrices of a gated feed-forward part (2 otherwise):

embedding        V·h; the output head again V·h unless both are tied
full, sliding    h·H·d (twice with an output gate) + h·K·d + h·K·e + H·e·h, biases where the model has them
latent (MLA)     query h·q + q·H·(n+r), or h·H·(n+r) without a query rank q; key and value h·(c+r) + c·H·(n+e);
                 output H·e·h; with c = kv_lora_rank, n and r the parts of a head without and with rotary positions
gated delta net  h·(2·kd + 2·vd + 2·nv) + kernel·(2·kd + vd) + vd·h; kd and vd keys' and values' width, nv value heads
Mamba-2          h·(2·vd + 2·kd + nv) + (kernel + 1)·(vd + 2·kd) + vd·h; kd = groups × state size
dense            g·h·I
experts          E·g·h·M, router E·h, shared experts g·h·S (and a gate h)
norms            h each, 2h with bias; one more after the last layer

Sources: the modules of Hugging Face's `transformers` (models/llama, gemma2, deepseek_v3, gpt_oss, qwen3_next,
nemotron_h ...) and of the models' own repositories; checked against published counts in tests/facts.
"""

from dataclasses import dataclass
from typing import Final

from draftmark.facts.models import MAX_PARAMETERS, ModelFacts

__all__ = ["ParameterCount", "count_parameters", "is_absurd", "mtp_parameters", "parameters"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterCount:
    """Weights by what happens to them: how they are stored, and how a degree of parallelism divides them."""

    embedding: int
    lm_head: int
    attention: int
    """Divided by the tensor degree; linear layers included."""
    kv_projection: int
    """Divided by the tensor degree, yet at most by the key-value heads."""
    latent: int
    """Down-projections of latent attention and its indexer: a copy on every GPU of a tensor group."""
    mlp: int
    shared_experts: int
    experts: int
    """Routed experts; the only part that an expert degree divides."""
    rest: int
    """Norms, routers, biases: small, a copy on every GPU."""

    @property
    def total(self) -> int:
        return (
            self.embedding + self.lm_head + self.attention + self.kv_projection + self.latent
            + self.mlp + self.shared_experts + self.experts + self.rest
        )  # fmt: skip


def parameters(facts: ModelFacts) -> int:
    """Weights of the model, by the formulas of this module; multi-token prediction layers are not among them."""
    return count_parameters(facts).total


def is_absurd(facts: ModelFacts) -> bool:
    """Fields that are possible one by one may still make a model that nobody has."""
    return parameters(facts) > MAX_PARAMETERS


def count_parameters(facts: ModelFacts) -> ParameterCount:
    """Weights by part, by the formulas of this module."""
    h = facts.hidden_size
    vocabulary = facts.vocab_size * h
    positions = facts.max_position_embeddings * h if facts.has_learned_positions else 0
    full = _latent_attention(facts) if facts.is_mla else _attention(facts, is_sliding=False)
    sliding = _attention(facts, is_sliding=True)
    linear = _linear_layer(facts)
    indexer = _indexer(facts)
    matrices = 3 if facts.is_gated_mlp else 2
    inner = matrices - 1
    dense = matrices * h * facts.intermediate_size
    dense_bias = inner * facts.intermediate_size + h if facts.mlp_bias else 0
    expert = matrices * h * facts.moe_intermediate_size
    if facts.expert_bias:
        expert += inner * facts.moe_intermediate_size + h
    shared = matrices * h * facts.shared_expert_intermediate_size
    router = facts.n_routed_experts * (h + (1 if facts.router_bias else 0))
    router += h if facts.has_shared_expert_gate else 0
    norm = h * (2 if facts.has_norm_bias else 1)
    return ParameterCount(
        embedding=vocabulary + positions,
        lm_head=0 if facts.tie_word_embeddings else vocabulary,
        attention=facts.num_full_layers * full.sharded
        + facts.num_sliding_layers * sliding.sharded
        + facts.num_linear_layers * linear.sharded,
        kv_projection=facts.num_full_layers * full.kv + facts.num_sliding_layers * sliding.kv,
        latent=facts.num_full_layers * full.latent + facts.num_index_layers * indexer,
        mlp=facts.num_mlp_layers * dense,
        shared_experts=facts.num_moe_layers * shared,
        experts=facts.num_moe_layers * facts.n_routed_experts * expert,
        rest=facts.num_full_layers * full.rest
        + facts.num_sliding_layers * sliding.rest
        + facts.num_linear_layers * linear.rest
        + facts.num_mlp_layers * dense_bias
        + facts.num_moe_layers * router
        + (facts.num_hidden_layers * facts.norms_per_layer + 1) * norm,
    )


def mtp_parameters(facts: ModelFacts) -> int:
    """Weights of the multi-token prediction layers: each is one more layer like the last, a projection of 2h to h, and
    three norms. Source: DeepSeek-V3's report, section 2.2, and README_WEIGHTS.md of its repository.

    Copies of embedding and output head that some checkpoints store with the layer are not counted: engines share them.
    """
    if not facts.num_nextn_predict_layers:
        return 0
    count = count_parameters(facts)
    h = facts.hidden_size
    # The prediction layer has full attention in a hybrid model too.
    full = _latent_attention(facts) if facts.is_mla else _attention(facts, is_sliding=False)
    attention = full.sharded + full.kv + full.latent
    if facts.num_moe_layers:
        feed_forward = (count.experts + count.shared_experts) // facts.num_moe_layers + facts.n_routed_experts * h
    else:
        feed_forward = count.mlp // max(1, facts.num_mlp_layers)
    return facts.num_nextn_predict_layers * (attention + feed_forward + 2 * h * h + 5 * h)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
    sharded: int
    kv: int = 0
    latent: int = 0
    rest: int = 0


_NO_LAYER: Final = _Layer(sharded=0)


def _attention(facts: ModelFacts, *, is_sliding: bool) -> _Layer:
    h = facts.hidden_size
    heads, kv_heads, d, e = facts.num_attention_heads, facts.num_key_value_heads, facts.head_dim, facts.v_head_dim
    has_value = not facts.attention_k_eq_v
    if is_sliding:
        heads = facts.swa_num_attention_heads or heads
        kv_heads = facts.swa_num_key_value_heads or kv_heads
        d = facts.swa_head_dim or d
        e = facts.swa_v_head_dim or e
        has_value = True
    query = heads * d * (2 if facts.attn_output_gate and not is_sliding else 1)
    kv = kv_heads * d + (kv_heads * e if has_value else 0)
    rest = query + kv if facts.attention_bias else 0
    rest += h if facts.attention_output_bias else 0
    rest += heads if facts.has_attention_sinks else 0
    match facts.qk_norm:
        case "head":
            rest += 2 * d
        case "projection":
            rest += heads * d + kv_heads * d
        case "":
            pass
    return _Layer(sharded=h * query + heads * e * h, kv=h * kv, rest=rest)


def _latent_attention(facts: ModelFacts) -> _Layer:
    h, heads, rank = facts.hidden_size, facts.num_attention_heads, facts.kv_lora_rank
    query_head = facts.qk_nope_head_dim + facts.qk_rope_head_dim
    down = h * (rank + facts.qk_rope_head_dim)
    norms = rank
    if facts.q_lora_rank:
        down += h * facts.q_lora_rank
        norms += facts.q_lora_rank
        query = facts.q_lora_rank * heads * query_head
    else:
        query = h * heads * query_head
    up = rank * heads * (facts.qk_nope_head_dim + facts.v_head_dim)
    return _Layer(sharded=query + up + heads * facts.v_head_dim * h, latent=down, rest=norms)


def _indexer(facts: ModelFacts) -> int:
    """Query from the query rank, key, a weight per head, and a layer norm of the key. Source: DeepSeek-V3.2-Exp's
    inference/model.py, class Indexer."""
    query = (facts.q_lora_rank or facts.hidden_size) * facts.index_n_heads * facts.index_head_dim
    return query + facts.hidden_size * (facts.index_head_dim + facts.index_n_heads) + 2 * facts.index_head_dim


def _linear_layer(facts: ModelFacts) -> _Layer:
    h, value_heads = facts.hidden_size, facts.linear_num_value_heads
    keys = facts.linear_num_key_heads * facts.linear_key_head_dim
    values = value_heads * facts.linear_value_head_dim
    channels = 2 * keys + values
    match facts.linear_layer_type:
        case "gatedDeltaNet":
            projections = h * (2 * keys + 2 * values + 2 * value_heads) + values * h
            return _Layer(
                sharded=projections + channels * facts.linear_conv_kernel_dim,
                rest=2 * value_heads + facts.linear_value_head_dim,
            )
        case "mamba2":
            projections = h * (2 * values + 2 * keys + value_heads) + values * h
            return _Layer(
                sharded=projections + channels * (facts.linear_conv_kernel_dim + 1), rest=3 * value_heads + values
            )
        case "":
            return _NO_LAYER
