"""The memory sum of one GPU: does a model fit, and what is left for requests.

    usable    = what the engine takes of the GPU (its own fraction flag)
    needed    = weights + overhead + cache of what must fit
    must fit  = one request of the whole context + the workload's requests, each of its usual length
    capacity  = (usable − weights − overhead) ÷ cache per token

All of it is of the fullest GPU of a replica, in bytes. Weights and cache are counted by the model's own shape
(`facts.model_memory`); what an engine needs besides is its own estimate (`Engine.memory_use`), and is told as one.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import ceil
from typing import Final

from draftmark.api.inference_service import WorkloadSpec
from draftmark.engines.engine import MemoryUse
from draftmark.facts.model_memory import (
    WeightBytes,
    kv_bytes_per_request,
    kv_bytes_per_token,
    weight_bytes_per_gpu,
)
from draftmark.facts.models import ModelFacts
from draftmark.plan import Memory

#: Requests at once, and tokens of each, that must fit where the workload does not say. Source: the design.
DEFAULT_REQUESTS: Final = 16
DEFAULT_REQUEST_TOKENS: Final = 2048
#: The smallest context that a layout is chosen for where the user names none; smaller is a bigger GPU's business, or
#: the user's word. A guess.
LEAST_CONTEXT: Final = 4096
#: Rank of an adapter that says none. Source: the schema of model.adapters.
DEFAULT_RANK: Final = 16
#: A context that is found by search is a multiple of this, so that it does not move with every byte.
CONTEXT_STEP: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """The requests that must fit at once, besides one of the whole context."""

    requests: int = DEFAULT_REQUESTS
    #: Prompt and answer together.
    request_tokens: int = DEFAULT_REQUEST_TOKENS


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """One model's part of a GPU: the main model, or one that guesses for it."""

    facts: ModelFacts
    weights: WeightBytes
    kv_dtype: str


def memory_of(
    shares: tuple[Share, ...],
    use: MemoryUse,
    *,
    gpu_bytes: int,
    tensor: int,
    pipeline: int,
    expert: int = 1,
    context: int,
    demand: Demand,
    adapter_bytes: int = 0,
) -> Memory:
    """The sum for one layout.

    Args:
        shares: The main model first; others see the same tokens.
        tensor, pipeline, expert: Degrees of the main model, at least 1; `expert` as in `weight_bytes_per_gpu`. A draft
            model has its tensor degree (vllm-project/vllm#31345: another one takes no effect), and is whole on one
            stage, which is taken for the fullest one.
        context: Tokens of one request of the whole length.
        adapter_bytes: Of all adapters, per GPU.
    """
    main, *drafts = shares
    split = {"tensor": tensor, "pipeline": pipeline}
    whole = {"tensor": tensor, "pipeline": 1}
    return Memory(
        gpu_bytes=gpu_bytes,
        usable_bytes=use.usable_bytes,
        weight_bytes=weight_bytes_per_gpu(main.facts, main.weights, **split, expert=expert),
        further_bytes=sum(weight_bytes_per_gpu(d.facts, d.weights, **whole) for d in drafts) + adapter_bytes,
        overhead_bytes=use.overhead_bytes,
        kv_needed_bytes=_cache(main, context, demand, **split)
        + sum(_cache(d, context, demand, **whole) for d in drafts),
        kv_bytes_per_token=kv_bytes_per_token(main.facts, main.kv_dtype, **split)
        + sum(kv_bytes_per_token(d.facts, d.kv_dtype, **whole) for d in drafts),
        is_measured=all(s.weights.is_measured for s in shares),
    )


def _cache(share: Share, context: int, demand: Demand, tensor: int, pipeline: int) -> int:
    return kv_bytes_of(share.facts, share.kv_dtype, context, demand, tensor=tensor, pipeline=pipeline)


def kv_bytes_of(
    facts: ModelFacts, kv_dtype: str, context: int, demand: Demand, *, tensor: int = 1, pipeline: int = 1
) -> int:
    """Bytes of cache that must fit at once: one request of the whole context, and the demand."""

    def of(tokens: int) -> int:
        return kv_bytes_per_request(facts, tokens, kv_dtype, tensor=tensor, pipeline=pipeline)

    return of(context) + demand.requests * of(min(demand.request_tokens, context))


def demand_of(workload: WorkloadSpec | None, whole_contexts: int, context: int) -> Demand:
    """What must fit besides one request of the whole context.

    Args:
        whole_contexts: Requests for which the engine sets aside a whole context each; 1: all share what there is.
    """
    if whole_contexts > 1:
        return Demand(requests=whole_contexts - 1, request_tokens=context)
    said = (workload.input_tokens or 0) + (workload.output_tokens or 0) if workload is not None else 0
    return Demand(
        requests=(workload.concurrency if workload else None) or DEFAULT_REQUESTS,
        request_tokens=said or DEFAULT_REQUEST_TOKENS,
    )


def largest_context(fits: Callable[[int], bool], *, most: int) -> int | None:
    """The largest context that fits, at most `most`, else a multiple of `CONTEXT_STEP`; None: none does.

    Args:
        fits: Whether a context fits; what fits does so with a smaller context, too.
    """
    if fits(most):
        return most
    low, high = 0, ceil(most / CONTEXT_STEP)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle * CONTEXT_STEP) else (low, middle)
    return low * CONTEXT_STEP or None


def adapter_bytes(facts: ModelFacts, ranks: Iterable[int | None], pipeline: int) -> int:
    """Bytes of LoRA adapters on one GPU: two matrices of 16 bit per projection of a layer. Counted whole, although a
    tensor degree divides one of each two.

    Args:
        ranks: Of each adapter; None is the default of 16.
    """
    hidden, heads = facts.hidden_size, facts.num_attention_heads * facts.head_dim
    key_value = facts.num_key_value_heads * (facts.head_dim + facts.v_head_dim)
    sides = 4 * hidden + 2 * heads + key_value + 3 * (hidden + facts.intermediate_size)
    layers = ceil(facts.num_hidden_layers / pipeline)
    return sum((rank or DEFAULT_RANK) * sides * layers * 2 for rank in ranks)


def gib(size: int) -> str:
    """Bytes for people: 14.96 GiB, 512 MiB."""
    if abs(size) >= 2**30:
        return f"{size / 2**30:.2f} GiB"
    return f"{ceil(size / 2**20)} MiB"
