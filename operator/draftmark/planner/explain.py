"""A plan, told: as text for people and as data for programs."""

from collections.abc import Sequence
from typing import Any

from draftmark.plan import Plan, Unplannable


def explain_data(plan: Plan | Unplannable, *, argv: Sequence[str] = ()) -> dict[str, Any]:
    """The plan as JSON data; the keys are part of the interface."""
    if isinstance(plan, Unplannable):
        return {"accepted": False, "reasons": [{"code": plan.code, "message": plan.message}]}
    return {
        "accepted": True,
        "engine": {"name": plan.engine, "version": plan.version, "image": plan.image, "args": list(argv)},
        "model": {"servedName": plan.served_name, "maxContextLength": plan.max_context_length},
        "layout": {
            "gpusPerReplica": plan.layout.gpus,
            "product": plan.layout.product,
            "resourceName": plan.layout.resource_name,
        },
        "concurrency": plan.concurrency,
        **({"maxBatchedTokens": plan.max_batched_tokens} if plan.max_batched_tokens is not None else {}),
        "reasons": [{"code": r.code, "message": r.message} for r in plan.reasons],
        "argsUnchecked": plan.args_unchecked,
    }


def explain_text(name: str, plan: Plan | Unplannable, *, argv: Sequence[str] = ()) -> str:
    """The plan as lines for people; ends with a line end."""
    if isinstance(plan, Unplannable):
        return f"{name}: not accepted ({plan.code})\n  {plan.message}\n"
    rows = [
        ("engine", f"{plan.engine} {plan.version}"),
        ("image", plan.image),
        ("model name", plan.served_name),
        ("layout", "CPU" if not plan.layout.gpus else f"{plan.layout} ({plan.layout.resource_name})"),
        ("context", f"{plan.max_context_length} tokens per request"),
        ("concurrency", f"{plan.concurrency} requests at once per replica"),
    ]
    if plan.max_batched_tokens is not None:
        rows.append(("batch", f"{plan.max_batched_tokens} tokens per step"))
    lines = [name, *(f"  {label:<12} {value}" for label, value in rows)]
    if plan.reasons:
        lines += ["  chosen for you, because you left it open:"]
        lines += [f"    - {reason.message}" for reason in plan.reasons]
    if plan.args_unchecked is not None:
        lines += [f"  not checked: {plan.args_unchecked}"]
    if argv:
        lines += ["  command line:", *_wrap(argv)]
    return "\n".join(lines) + "\n"


def _wrap(argv: Sequence[str]) -> list[str]:
    """One line per flag with its value."""
    lines: list[str] = []
    for word in argv:
        if (word.startswith("-") and not word[1:2].isdigit()) or not lines or " " in lines[-1].strip():
            lines.append(f"    {word}")
        else:
            lines[-1] += f" {word}"
    return lines
