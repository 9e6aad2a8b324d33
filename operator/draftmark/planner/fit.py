"""A model on the GPUs that there are: the layout, the context, and the sum behind both.

Only where the facts of the model are known; without them a service is deployed as it is written (`planner.make_plan`).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, TypeGuard

from draftmark.api.inference_service import InferenceServiceSpec, ParallelismSpec
from draftmark.engines.engine import Engine, Step
from draftmark.facts.model_memory import UnknownWeights, WeightBytes, weight_bytes
from draftmark.facts.model_parameters import parameters
from draftmark.facts.models import ModelFacts
from draftmark.plan import Layout, Memory, Plan, Reason, Rejected, Unplannable
from draftmark.planner.draft import Draft, draft_of
from draftmark.planner.hardware import Found
from draftmark.planner.layout import Candidate, Hardware, Layouts, Split, Wish, choose_layout
from draftmark.planner.memory import (
    LEAST_CONTEXT,
    Demand,
    Share,
    adapter_bytes,
    demand_of,
    gib,
    largest_context,
    memory_of,
)
from draftmark.planner.selection import MAX_REJECTED

#: That no sum can be made.
MEMORY_UNKNOWN: Final = "MemoryUnknown"
#: What vLLM and SGLang convert to at load on GPUs that compute it; offered as a way out where it helps.
_SMALLER: Final = "fp8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What was chosen beside the layout, and what the sum needs of it."""

    #: Requests at once, as the engine is told.
    requests: int
    #: Tokens of a step for a context; None: the engine chooses.
    step_tokens: Callable[[int], int | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    layout: Layout
    context: int
    #: None: the memory of the GPU is not known.
    memory: Memory | None
    parameters: int
    reasons: tuple[Reason, ...]
    rejected: tuple[Rejected, ...]
    #: Why it cannot be deployed although it fits; None: it can.
    undeployable: Unplannable | None = None


def fit(
    spec: InferenceServiceSpec, engine: Engine, facts: ModelFacts, found: Found, sizes: Sizes, keep: Plan | None
) -> Fitted | Unplannable:
    """The fewest GPUs that the model fits on, and the largest context on them where the user names none.

    Args:
        found: Kinds of GPU nodes, at least one.
        keep: The plan of the revision before, whose layout and context stay while the service fits on them.
    """
    sums = _sums(spec, engine, facts, sizes)
    if isinstance(sums, Unplannable):
        return sums
    layouts = _look(spec, engine, facts, found.hardware, sums, keep.layout if keep is not None else None)
    chosen = layouts.chosen
    rejected = tuple(Rejected(option=str(c), code=c.code or "", message=c.why) for c in layouts.rejected)[:MAX_REJECTED]
    if chosen is None:
        return replace(_does_not_fit(spec, engine, facts, found, sums, layouts), rejected=rejected)
    context, context_reasons = _context(spec, facts, chosen, sums, keep)
    memory = sums.of(chosen.hardware, chosen.split, context)
    layout = Layout(
        gpus=chosen.split.gpus,
        resource_name=chosen.hardware.resource_name,
        product=chosen.hardware.product,
        tensor=chosen.split.tensor,
        pipeline=chosen.split.pipeline,
        nodes=chosen.split.nodes,
        expert=chosen.split.expert,
    )
    return Fitted(
        layout=layout,
        context=context,
        memory=memory,
        parameters=parameters(facts),
        reasons=(
            *_layout_reasons(spec, found, chosen, memory),
            *_expert_reason(spec, engine, facts, chosen.split),
            *((sums.draft.reason,) if sums.draft.reason is not None else ()),
            *context_reasons,
        ),
        rejected=rejected,
        undeployable=_several_nodes(spec, facts, chosen) if chosen.split.nodes > 1 else None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sums:
    """The memory sum of this service for any layout and context."""

    spec: InferenceServiceSpec
    engine: Engine
    facts: ModelFacts
    sizes: Sizes
    weights: WeightBytes
    kv_dtype: str
    draft: Draft

    def of(self, hardware: Hardware, split: Split, context: int) -> Memory | None:
        if hardware.gpu_bytes is None:
            return None
        step = Step(
            requests=self.sizes.requests,
            tokens=self.sizes.step_tokens(context),
            tensor=split.tensor,
            pipeline=split.pipeline,
        )
        main = Share(facts=self.facts, weights=self.weights, kv_dtype=self.kv_dtype)
        return memory_of(
            (main, self.draft.share) if self.draft.share is not None else (main,),
            self.engine.memory_use(hardware.gpu_bytes, self.facts, step, self.spec.engine.args or ()),
            gpu_bytes=hardware.gpu_bytes,
            tensor=split.tensor,
            pipeline=split.pipeline,
            expert=split.expert_degree,
            context=context,
            demand=self.demand(context),
            adapter_bytes=adapter_bytes(self.facts, [a.rank for a in self.spec.model.adapters or ()], split.pipeline),
        )

    def demand(self, context: int) -> Demand:
        return demand_of(self.spec.workload, self.engine.whole_contexts(self.sizes.requests), context)

    @property
    def request_tokens(self) -> int:
        """Of a usual request, as the user says; 0: nothing is said."""
        workload = self.spec.workload
        return (workload.input_tokens or 0) + (workload.output_tokens or 0) if workload is not None else 0

    @property
    def least_context(self) -> int:
        """The context that a layout is chosen for."""
        least = max(LEAST_CONTEXT, self.request_tokens)
        return self.spec.model.max_context_length or min(least, self.facts.max_position_embeddings)


def _sums(spec: InferenceServiceSpec, engine: Engine, facts: ModelFacts, sizes: Sizes) -> _Sums | Unplannable:
    weights = weight_bytes(facts, spec.model.quantization)
    if isinstance(weights, UnknownWeights):
        return Unplannable(
            code=MEMORY_UNKNOWN,
            message=f"The memory of {_name(facts)} cannot be counted: {weights.reason}",
        )
    option = spec.engine.options.kv_cache_dtype if spec.engine.options is not None else None
    kv_dtype = engine.kv_dtype(facts, option)
    if kv_dtype is None:
        return Unplannable(
            code=MEMORY_UNKNOWN,
            message=f"The memory of the KV cache cannot be counted: the size of engine.options.kvCacheDType '{option}' is not "
            "known. Leave it out, or give accelerator and parallelism.",
        )
    draft = draft_of(spec, engine, weights)
    return _Sums(spec=spec, engine=engine, facts=facts, sizes=sizes, weights=weights, kv_dtype=kv_dtype, draft=draft)


def _look(
    spec: InferenceServiceSpec,
    engine: Engine,
    facts: ModelFacts,
    hardware: tuple[Hardware, ...],
    sums: _Sums,
    keep: Layout | None,
) -> Layouts:
    def look(kinds: tuple[Hardware, ...], wish: Wish) -> Layouts:
        return choose_layout(
            kinds,
            wish,
            forbids=lambda split: _forbidden(engine, facts, sums.draft.facts, split),
            sum_of=lambda one, split: sums.of(one, split, sums.least_context),
        )

    if keep is not None and keep.gpus:
        same = tuple(h for h in hardware if (h.resource_name, h.product) == (keep.resource_name, keep.product))
        kept = look(same, Wish(tensor=keep.tensor_degree, pipeline=keep.pipeline, expert=keep.expert))
        if kept.chosen is not None:
            return kept
    return look(hardware, _wish(spec))


def _forbidden(engine: Engine, facts: ModelFacts, draft: ModelFacts | None, split: Split) -> str | None:
    """Why a split cannot be, by the model or by its draft model."""
    why = engine.refuse_split(facts, tensor=split.tensor, pipeline=split.pipeline, expert=split.expert)
    if why is not None or draft is None:
        return why
    why = engine.refuse_split(draft, tensor=split.tensor, pipeline=1)
    return f"the draft model: {why}" if why is not None else None


def _wish(spec: InferenceServiceSpec) -> Wish:
    given, accelerator = spec.parallelism, spec.accelerator
    expert = given.expert if given is not None else None
    gpus = accelerator.count if accelerator is not None else None
    if not _says_degrees(given):
        return Wish(expert=expert, gpus=gpus)
    return Wish(tensor=given.tensor or 1, pipeline=given.pipeline or 1, expert=expert, gpus=gpus)


def _says_degrees(given: ParallelismSpec | None) -> TypeGuard[ParallelismSpec]:
    return given is not None and (given.tensor is not None or given.pipeline is not None)


def _context(
    spec: InferenceServiceSpec, facts: ModelFacts, chosen: Candidate, sums: _Sums, keep: Plan | None
) -> tuple[int, list[Reason]]:
    """Tokens of one request, and why they are as many."""
    if spec.model.max_context_length is not None:
        return spec.model.max_context_length, []

    def fits(tokens: int) -> bool:
        memory = sums.of(chosen.hardware, chosen.split, tokens)
        return memory is not None and memory.fits

    kept = [r for r in keep.reasons if r.code == "MaxContextLength"] if keep is not None else []
    if keep is not None and kept and fits(keep.max_context_length):
        return keep.max_context_length, kept
    if chosen.memory is None:
        found, why = sums.least_context, "more was not looked for, because the memory of the GPU is not known"
    else:
        found = largest_context(fits, most=facts.max_position_embeddings) or sums.least_context
        why = "all that the model has" if found == facts.max_position_embeddings else "the largest that fits"
    message = f"{found} tokens, because model.maxContextLength is not set: {why}"
    return found, [Reason(code="MaxContextLength", message=message)]


def _layout_reasons(spec: InferenceServiceSpec, found: Found, chosen: Candidate, memory: Memory | None) -> list[Reason]:
    is_given = _says_degrees(spec.parallelism) or (spec.accelerator is not None and spec.accelerator.count is not None)
    why = "as the service says" if is_given else "the fewest that fit"
    if memory is None:
        message = f"{chosen}: their memory is not known, so nothing was summed up"
    else:
        room = f", and cache for {memory.kv_tokens:,} tokens" if memory.kv_tokens is not None else ""
        message = f"{chosen}: {why}, with {gib(memory.weight_bytes)} of weights on the fullest GPU{room}"
    reasons = [Reason(code="Layout", message=message)]
    if found.is_awaited:
        because = f" ({found.left_out})" if found.left_out else ""
        wait = "; pods wait until one does" if chosen.split.nodes == 1 else ""  # of several nodes there are none yet
        reasons.append(Reason(code="NoNodeYet", message=f"no node offers {chosen.hardware} now{because}{wait}"))
    return reasons


def _expert_reason(spec: InferenceServiceSpec, engine: Engine, facts: ModelFacts, split: Split) -> tuple[Reason, ...]:
    """Why experts are whole although nobody asked for it."""
    if not split.expert or (spec.parallelism is not None and spec.parallelism.expert):
        return ()
    why = engine.refuse_split(facts, tensor=split.tensor, pipeline=split.pipeline)
    message = f"experts are whole, each on one of {split.tensor} GPUs, because {why}"
    return (Reason(code="Expert", message=message),)


def _several_nodes(spec: InferenceServiceSpec, facts: ModelFacts, chosen: Candidate) -> Unplannable:
    """This version deploys one pod per replica."""
    if _says_degrees(spec.parallelism):
        what, way_out = f"parallelism asks for {chosen}", "Lower its degrees, or use"
    else:
        what, way_out = f"the fewest GPUs that hold {_name(facts)} are {chosen}", "Use"
    return Unplannable(
        code="MultiNodeUnsupported",
        message=f"A replica of several nodes cannot be deployed yet, and {what}. {way_out} GPUs with more memory, a smaller "
        "model.maxContextLength, or weights of fewer bits.",
    )


def _name(facts: ModelFacts) -> str:
    billions = parameters(facts) / 10**9
    return f"the model ({billions:.3g} B parameters)"


def _named(facts: ModelFacts) -> str:
    name = _name(facts)
    return name[0].upper() + name[1:]


def _does_not_fit(
    spec: InferenceServiceSpec,
    engine: Engine,
    facts: ModelFacts,
    found: Found,
    sums: _Sums,
    layouts: Layouts,
) -> Unplannable:
    """What is missing, and the ways out that do help: each was tried."""
    best = max(
        (c for c in layouts.rejected if c.memory is not None),
        key=lambda c: (c.memory.usable_bytes / c.memory.needed_bytes if c.memory else 0, -c.split.gpus),
        default=None,
    )
    if best is None or best.memory is None:
        whys = "; ".join(dict.fromkeys(f"{c}: {c.why}" for c in layouts.rejected[:3]))
        return Unplannable(
            code="NoLayout",
            message=f"{_named(facts)} cannot be split as asked: {whys}. Change or remove parallelism and "
            "accelerator.count.",
        )
    memory = best.memory
    ways = [
        *_by_more_gpus(spec, engine, facts, found, sums),
        *_by_fewer_bits(spec, engine, facts, found, sums),
        *_by_less_cache(spec, facts, best, sums),
    ]
    while len(ways) < 3:
        further = ("take GPUs with more memory", "set a smaller workload.concurrency", "take a smaller model")
        ways.append(further[len(ways)])
    told = "; ".join(f"({n}) {way}" for n, way in enumerate(ways, 1))
    return Unplannable(
        code="DoesNotFit",
        message=f"{_named(facts)} does not fit: {best} needs {gib(memory.needed_bytes)} per GPU, of which "
        f"{engine.name} can use {gib(memory.usable_bytes)}; {gib(memory.missing_bytes)} are missing. Ways out: {told}.",
    )


def _by_more_gpus(
    spec: InferenceServiceSpec, engine: Engine, facts: ModelFacts, found: Found, sums: _Sums
) -> list[str]:
    more = tuple(replace(one, nodes=None, gpus_per_node=max(8, one.node_size)) for one in found.hardware)
    # As if nothing were said of how many.
    parallelism = ParallelismSpec(expert=spec.parallelism.expert if spec.parallelism is not None else None)
    wanted = spec.model_copy(update={"parallelism": parallelism, "accelerator": None})
    chosen = _look(wanted, engine, facts, more, sums, None).chosen
    if chosen is None:
        return []
    there = max((one.node_size * (one.nodes or 1) for one in found.hardware), default=0)
    missing = f", {chosen.split.gpus - there} more than there are" if 0 < there < chosen.split.gpus else ""
    later = ", which this version cannot deploy yet" if chosen.split.nodes > 1 else ""
    return [f"use {chosen}{missing}{later}"]


def _by_fewer_bits(
    spec: InferenceServiceSpec, engine: Engine, facts: ModelFacts, found: Found, sums: _Sums
) -> list[str]:
    if spec.model.quantization is not None or facts.quantization_config is not None:
        return []
    smaller = weight_bytes(facts, _SMALLER)
    if isinstance(smaller, UnknownWeights):
        return []
    chosen = _look(spec, engine, facts, found.hardware, replace(sums, weights=smaller), None).chosen
    return [f"set model.quantization: {_SMALLER}, which fits on {chosen}"] if chosen is not None else []


def _by_less_cache(spec: InferenceServiceSpec, facts: ModelFacts, best: Candidate, sums: _Sums) -> list[str]:
    def fits(tokens: int) -> bool:
        memory = sums.of(best.hardware, best.split, tokens)
        return memory is not None and memory.fits

    most = min(spec.model.max_context_length or facts.max_position_embeddings, facts.max_position_embeddings)
    context = largest_context(fits, most=most)
    return [f"set model.maxContextLength: {context}"] if context is not None else []
