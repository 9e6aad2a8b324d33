"""A plan, told: as text for people and as data for programs."""

from collections.abc import Sequence
from typing import Any, Final

from draftmark.facts.model_answer import ModelProblem
from draftmark.plan import Layout, Memory, Plan, Rejected, Unplannable
from draftmark.planner.memory import gib

#: Characters of the bar that stands for a GPU's memory.
_BAR: Final = 60


def explain_data(
    plan: Plan | Unplannable, *, argv: Sequence[str] = (), unknown: ModelProblem | None = None
) -> dict[str, Any]:
    """The plan as JSON data; the keys are part of the interface. Of a refusal with a plan both are told.

    Args:
        argv: The engine's command line.
        unknown: What the plan had to be made without.
    """
    missing = {"modelUnknown": {"code": unknown.code, "message": unknown.message}} if unknown is not None else {}
    if isinstance(plan, Plan):
        return {"accepted": True, **_plan_data(plan, argv), **missing}
    why = {"code": plan.code, "message": plan.message}
    if plan.plan is None:
        return {
            "accepted": False,
            "reasons": [why],
            **({"rejected": rejected_data(plan.rejected)} if plan.rejected else {}),
            **missing,
        }
    # Its command line would need what this version cannot deploy.
    planned = _plan_data(plan.plan, None)
    return {
        "accepted": False,
        **planned,
        "reasons": [why, *planned["reasons"]],
        "rejected": rejected_data(plan.rejected),
        **missing,
    }


def _plan_data(plan: Plan, argv: Sequence[str] | None) -> dict[str, Any]:
    args = {"args": list(argv)} if argv is not None else {}
    return {
        "engine": {"name": plan.engine, "version": plan.version, "image": plan.image, **args},
        "model": {"servedName": plan.served_name, "maxContextLength": plan.max_context_length},
        "parameters": plan.parameters,
        "layout": {
            **plan.layout.degrees,
            "product": plan.layout.product,
            "resourceName": plan.layout.resource_name,
        },
        "memory": memory_data(plan.memory) if plan.memory is not None else None,
        "concurrency": plan.concurrency,
        **({"maxBatchedTokens": plan.max_batched_tokens} if plan.max_batched_tokens is not None else {}),
        "reasons": [{"code": r.code, "message": r.message} for r in plan.reasons],
        "rejected": rejected_data(plan.rejected),
        "argsUnchecked": plan.args_unchecked,
    }


def memory_data(memory: Memory) -> dict[str, Any]:
    """The sum of the fullest GPU as JSON data. `perGpuBytes` is what must fit, `kvTokens` what there is room for."""
    return {
        "gpuBytes": memory.gpu_bytes,
        "usableBytes": memory.usable_bytes,
        "weightBytes": memory.weight_bytes,
        "furtherBytes": memory.further_bytes,
        "overheadBytes": memory.overhead_bytes,
        "kvBytesPerToken": memory.kv_bytes_per_token,
        "kvNeededBytes": memory.kv_needed_bytes,
        "kvTokens": memory.kv_tokens,
        "perGpuBytes": memory.needed_bytes,
        "weightsMeasured": memory.is_measured,
    }


def rejected_data(rejected: Sequence[Rejected]) -> list[dict[str, str]]:
    return [{"option": r.option, "code": r.code, "message": r.message} for r in rejected]


def explain_text(
    name: str, plan: Plan | Unplannable, *, argv: Sequence[str] = (), unknown: ModelProblem | None = None
) -> str:
    """The plan as lines for people; ends with a line end. The arguments are those of `explain_data`."""
    missing = [f"  {unknown.message}"] if unknown is not None else []
    if isinstance(plan, Plan):
        lines = [name, *_planned(plan), *_table(plan.rejected)]
        if plan.args_unchecked is not None:
            lines += [f"  not checked: {plan.args_unchecked}"]
        lines += missing
        if argv:
            lines += ["  command line:", *_wrap(argv)]
        return "\n".join(lines) + "\n"
    lines = [f"{name}: not accepted ({plan.code})", f"  {plan.message}"]
    if plan.plan is not None:
        lines += ["  what it would be:", *_planned(plan.plan)]
    lines += [*_table(plan.rejected), *missing]
    return "\n".join(lines) + "\n"


def _planned(plan: Plan) -> list[str]:
    """The plan without what was not taken and without its command line."""
    rows = [
        ("engine", f"{plan.engine} {plan.version}"),
        ("image", plan.image),
        ("model name", plan.served_name),
        ("layout", _layout(plan.layout)),
        ("context", f"{plan.max_context_length} tokens per request"),
        ("concurrency", f"{plan.concurrency} requests at once per replica"),
    ]
    if plan.max_batched_tokens is not None:
        rows.append(("batch", f"{plan.max_batched_tokens} tokens per step"))
    if plan.parameters is not None:
        rows.insert(3, ("parameters", f"{plan.parameters:,}"))
    lines = [f"  {label:<12} {value}" for label, value in rows]
    if plan.memory is not None:
        lines += _sum(plan.memory, is_cpu=not plan.layout.gpus)
    if plan.reasons:
        lines += ["  chosen for you, because you left it open:"]
        lines += [f"    - {reason.message}" for reason in plan.reasons]
    return lines


def _layout(layout: Layout) -> str:
    if not layout.gpus:
        return "CPU"
    return f"{layout} ({', '.join([str(layout.resource_name), *layout.parts])})"


def _sum(memory: Memory, *, is_cpu: bool) -> list[str]:
    """The memory of the fullest GPU, or of the container on CPU, as a bar, and what its parts mean."""
    whose = "engine.resources.limits.memory" if is_cpu else "the fullest GPU"
    weights, other = memory.weight_bytes + memory.further_bytes, memory.overhead_bytes
    spare = memory.usable_bytes - memory.needed_bytes
    parts = [
        ("#", weights, "weights", "measured" if memory.is_measured else "counted from the model's shape"),
        ("+", other, "process and buffers" if is_cpu else "activations, graphs, buffers", "an estimate"),
        ("=", memory.kv_needed_bytes, "cache that must fit", f"{memory.kv_bytes_per_token:,} bytes per token"),
        (".", spare, "cache for more", _tokens(memory)),
        ("x", memory.gpu_bytes - memory.usable_bytes, "not used by the engine", ""),
    ]
    scale = memory.gpu_bytes / _BAR
    bar = "".join(sign * max(round(size / scale), 1 if size > 0 else 0) for sign, size, *_ in parts)
    lines = [f"  memory       {gib(memory.gpu_bytes)} of {whose}", f"    [{bar[: _BAR + 4]}]"]
    for sign, size, label, how in parts:
        if not size:
            continue
        lines.append(f"    {sign} {gib(size):>10}  {label}{f' ({how})' if how else ''}")
    return lines


def _tokens(memory: Memory) -> str:
    if memory.kv_tokens is None:
        return "tokens do not add to it"
    return f"room for {memory.kv_tokens:,} tokens in all"


def _table(rejected: Sequence[Rejected]) -> list[str]:
    """What was looked at and not taken."""
    if not rejected:
        return []
    width = max(len(r.option) for r in rejected)
    return ["  looked at and not taken:", *(f"    - {r.option:<{width}}  {r.message}" for r in rejected)]


def _wrap(argv: Sequence[str]) -> list[str]:
    """One line per flag with its value."""
    lines: list[str] = []
    for word in argv:
        if (word.startswith("-") and not word[1:2].isdigit()) or not lines or " " in lines[-1].strip():
            lines.append(f"    {word}")
        else:
            lines[-1] += f" {word}"
    return lines
