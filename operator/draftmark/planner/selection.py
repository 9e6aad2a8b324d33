"""Which engine serves a service that leaves it open: each engine's file says whether it can, and how gladly.

The order that comes out: GGUF → llama.cpp on any hardware; safetensors without a GPU → refused with the ways out; prompts
that share their beginning → SGLang; structured output → SGLang, then vLLM; else vLLM. An engine that cannot do what is
asked gives way to the next one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from draftmark.engines.engine import Asked, Engine, Misfit, Suit
from draftmark.plan import Reason, Rejected, Unplannable

#: Rejected options that are kept. Source: the design, which bounds the status.
MAX_REJECTED = 8
#: What `engine.name` says to leave the choice open.
AUTO = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected:
    engine: Engine
    reason: Reason
    rejected: tuple[Rejected, ...]


def select_engine(
    asked: Asked,
    engines: Mapping[str, Engine],
    refuses: Callable[[Engine], Unplannable | None],
    lacks: Callable[[Engine], Unplannable | None],
) -> Selected | Unplannable:
    """The engine that suits best of those that can.

    Args:
        engines: Those that can be deployed; no other one is chosen, whatever it has.
        refuses: What stands in the way of a service with this engine; None: nothing.
        lacks: What the engine is known not to have, without a look at the hardware; for those that suit less, which are not
            planned with.
    """
    suits: list[tuple[int, str, Engine, Suit]] = []
    rejected: list[Rejected] = []
    for engine in sorted(engines.values(), key=lambda e: e.name):
        suit = engine.suits(asked)
        if isinstance(suit, Misfit):
            rejected.append(Rejected(option=engine.name, code="CannotServe", message=suit.why))
        else:
            suits.append((-suit.rank, engine.name, engine, suit))
    chosen: Selected | None = None
    refused_first: tuple[Selected, Unplannable] | None = None
    refusals: list[Rejected] = []
    for _, _, engine, suit in sorted(suits, key=lambda s: s[:2]):
        reason = Reason(code="Engine", message=f"{engine.name}: {suit.why}")
        this = Selected(engine=engine, reason=reason, rejected=())
        if chosen is not None and (lacking := lacks(engine)) is not None:
            refusals.append(Rejected(option=engine.name, code=lacking.code, message=lacking.message))
        elif chosen is not None:
            refusals.append(Rejected(option=engine.name, code="LessSuited", message=f"It could: {suit.why}"))
        elif (refused := refuses(engine)) is not None:
            refusals.append(Rejected(option=engine.name, code=refused.code, message=refused.message))
            refused_first = refused_first or (this, refused)
        else:
            chosen = this
    kept = (*refusals, *rejected)
    if chosen is not None:
        return replace(chosen, rejected=kept)
    if refused_first is not None:
        suited, first = refused_first
        name, plan = suited.engine.name, first.plan
        # Its own words are the message; of the others it is enough to know what stands in their way.
        others = tuple(replace(r, message=r.message.partition(". ")[0]) for r in kept if r.option != name)
        return Unplannable(
            code=first.code,
            message=f"No engine can do what is asked. {name}, which suits best: {first.message}",
            rejected=(*first.rejected, *others)[:MAX_REJECTED],
            plan=replace(plan, reasons=(suited.reason, *plan.reasons)) if plan is not None else None,
        )
    return Unplannable(
        code="NoEngine",
        message="engine.name is auto, the model is of safetensors, and there is no GPU for it. Ways out: (1) set "
        "accelerator.product to a GPU that the cluster has or will have; (2) serve a GGUF file of the model, which "
        "llama-cpp runs on CPU (hf://ORG/REPO:Q4_K_M); (3) set engine.name: vllm with accelerator.count: 0, which runs on "
        "CPU, slowly.",
        rejected=kept,
    )
