"""The memory sum on CPU: weights, cache and the process itself, against the limit of the engine's container.

    needed = weights + what the engine keeps besides + the process and its buffers + cache that it sets aside
    limit  = engine.resources.limits.memory

A container that exceeds its limit is killed, so that a sum above it is refused. Without a limit there is nothing to compare
with, and the sum is told. Weights of a file that is mapped count whole: the kernel may drop their pages, and every token
would read them again.
"""

from dataclasses import dataclass
from math import ceil

from draftmark.api.inference_service import InferenceServiceSpec, WorkloadSpec
from draftmark.engines.engine import CpuCache, Engine, Step
from draftmark.facts.model_memory import UnknownWeights, WeightBytes, kv_bytes_per_token, weight_bytes
from draftmark.facts.model_parameters import parameters
from draftmark.facts.models import ModelFacts
from draftmark.plan import Memory, Reason, Unplannable
from draftmark.planner.draft import draft_of
from draftmark.planner.fit import Sizes
from draftmark.planner.memory import Share, adapter_bytes, demand_of, gib, kv_bytes_of, largest_context

__all__ = ["CpuSum", "sum_on_cpu"]

_GIB = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuSum:
    """What was summed up."""

    parameters: int
    #: None: there is no limit to compare with, or the engine's use of memory on CPU is not known.
    memory: Memory | None
    reasons: tuple[Reason, ...]


def sum_on_cpu(
    spec: InferenceServiceSpec, engine: Engine, facts: ModelFacts, sizes: Sizes, context: int, limit: int | None
) -> CpuSum | Unplannable:
    """The sum of one replica on CPU, or the refusal where it exceeds the limit.

    Args:
        context: Tokens of one request, as the engine is told.
        limit: Of the container, in bytes; None: it has none.
    """
    count = parameters(facts)
    weights = weight_bytes(facts, spec.model.quantization)
    option = spec.engine.options.kv_cache_dtype if spec.engine.options is not None else None
    kv_dtype = engine.kv_dtype(facts, option)
    if isinstance(weights, UnknownWeights) or kv_dtype is None:
        return CpuSum(parameters=count, memory=None, reasons=())
    draft = draft_of(spec, engine, weights)
    this = _Sum(
        spec=spec, engine=engine, facts=facts, sizes=sizes, weights=weights, kv_dtype=kv_dtype, draft=draft.share
    )
    parts = this.of(context, sizes.requests, limit)
    if parts is None:
        return CpuSum(parameters=count, memory=None, reasons=())
    if limit is not None and not parts.memory.fits:
        return this.refuse(context, limit, parts.memory)
    return CpuSum(
        parameters=count,
        memory=parts.memory if limit is not None else None,
        reasons=(
            Reason(code="CpuMemory", message=_told(parts, limit)),
            *((draft.reason,) if draft.reason is not None else ()),
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    memory: Memory
    cache: CpuCache


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sum:
    """The sum of this service for any context and number of requests."""

    spec: InferenceServiceSpec
    engine: Engine
    facts: ModelFacts
    sizes: Sizes
    weights: WeightBytes
    kv_dtype: str
    draft: Share | None

    def of(self, context: int, requests: int, limit: int | None) -> _Parts | None:
        """None: what the engine does with memory on CPU is not known."""
        tokens = self.sizes.step_tokens(context)
        use = self.engine.cpu_memory_use(
            self.spec, self.facts, Step(requests=requests, tokens=tokens, tensor=1, pipeline=1)
        )
        if use is None:
            return None
        workload = self.spec.workload
        if requests != self.sizes.requests:  # as if it were written
            workload = (workload or WorkloadSpec()).model_copy(update={"concurrency": requests})
        demand = demand_of(workload, self.engine.whole_contexts(requests), context)
        main = Share(facts=self.facts, weights=self.weights, kv_dtype=self.kv_dtype)
        drafts = (self.draft,) if self.draft is not None else ()
        needed = sum(kv_bytes_of(s.facts, s.kv_dtype, context, demand) for s in (main, *drafts))
        per_token = sum(kv_bytes_per_token(s.facts, s.kv_dtype) for s in (main, *drafts))
        further = adapter_bytes(self.facts, [a.rank for a in self.spec.model.adapters or ()], 1) + use.further_bytes
        further += sum(d.weights.total for d in drafts)
        fixed = self.weights.total + further + use.overhead_bytes
        left = max(0, limit - fixed) if limit is not None else None
        cache = self.engine.cpu_cache(self.spec, needed=needed, left=left, limit=limit)
        most = fixed + (cache.taken_bytes if limit is not None else cache.least_bytes)
        memory = Memory(
            gpu_bytes=limit if limit is not None else most,
            usable_bytes=min(limit, most) if limit is not None else most,
            weight_bytes=self.weights.total,
            further_bytes=further,
            overhead_bytes=use.overhead_bytes,
            kv_needed_bytes=cache.least_bytes,
            kv_bytes_per_token=per_token,
            is_measured=all(s.weights.is_measured for s in (main, *drafts)),
        )
        return _Parts(memory=memory, cache=cache)

    def fits(self, context: int, requests: int, limit: int) -> bool:
        parts = self.of(context, requests, limit)
        return parts is not None and parts.memory.fits

    def refuse(self, context: int, limit: int, memory: Memory) -> Unplannable:
        """What is missing, and ways out that help: each was tried."""
        larger = ceil(memory.needed_bytes / _GIB)
        if self.fits(context, self.sizes.requests, larger * _GIB):
            ways = [f"set engine.resources.limits.memory: {larger}Gi"]
        else:
            ways = ["remove what engine.env says of the size of the cache"]
        fewer = largest_context(lambda tokens: self.fits(tokens, self.sizes.requests, limit), most=context)
        ways += [f"set model.maxContextLength: {fewer}"] if fewer is not None else []
        requests = self.sizes.requests // 2
        while requests and not self.fits(context, requests, limit):
            requests //= 2
        ways += [f"set workload.concurrency: {requests}"] if requests else []
        more = ("take weights of fewer bits, or a smaller model", "name a GPU with accelerator.product")
        ways += more[: max(0, 3 - len(ways))]
        told = "; ".join(f"({n}) {way}" for n, way in enumerate(ways, 1))
        return Unplannable(
            code="DoesNotFit",
            message=f"The model ({parameters(self.facts) / 10**9:.3g} B parameters) does not fit into the memory of its "
            f"container: on CPU {self.engine.name} needs about {_sum_of(memory)}, and engine.resources.limits.memory is "
            f"{gib(limit)}; {gib(memory.needed_bytes - memory.usable_bytes)} are missing. Ways out: {told}.",
        )


def _sum_of(memory: Memory) -> str:
    further = f", {gib(memory.further_bytes)} of what is kept besides" if memory.further_bytes else ""
    return (
        f"{gib(memory.needed_bytes)} ({gib(memory.weight_bytes)} of weights, {gib(memory.kv_needed_bytes)} of cache{further}, "
        f"{gib(memory.overhead_bytes)} of the process and its buffers, an estimate)"
    )


def _told(parts: _Parts, limit: int | None) -> str:
    note = f"; {parts.cache.note}" if parts.cache.note else ""
    if limit is None:
        return (
            f"needs about {_sum_of(parts.memory)} of memory on CPU; engine.resources.limits.memory is not set, so that "
            f"nothing was compared with it{note}"
        )
    return f"needs about {_sum_of(parts.memory)} of the {gib(limit)} of engine.resources.limits.memory{note}"
