"""The status of a Benchmark, from what was decided and what became of it. Written whole, and only when it differs."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from draftmark.api.conditions import (
    ACCEPTED,
    COMPLETE,
    CONTENDED,
    FAILED,
    Condition,
    Obstacle,
    kstatus,
    shorten,
    write_conditions,
)
from draftmark.benchmark.observation import BenchmarkDecision, BenchmarkObservation

#: Longest status, in bytes of JSON: what is more is in the whole result.
MOST_BYTES: Final = 24 * 1024
#: Longest message of a row where there is no room, in bytes.
_ROW_MESSAGE: Final = 80


def make_benchmark_status(
    seen: BenchmarkObservation,
    decision: BenchmarkDecision,
    now: datetime,
    *,
    obstacles: Sequence[Obstacle] = (),
    contended: Sequence[Obstacle] = (),
) -> dict[str, Any]:
    """The complete status; of a Benchmark that is finished and told of, the one that it has.

    Args:
        seen: What the decision was made from.
        decision: What was decided.
        now: Aware, UTC.
        obstacles: Objects that could not be written, most important first.
        contended: Objects that somebody else keeps changing back.
    """
    if decision.is_settled:
        return dict(seen.status)
    conditions = _conditions(decision, obstacles, contended)
    return _fit(
        {
            "observedGeneration": seen.generation,
            "conditions": write_conditions(
                conditions, before=seen.status.get("conditions") or (), generation=seen.generation, now=now
            ),
            **decision.told,
        }
    )


def _conditions(
    decision: BenchmarkDecision, obstacles: Sequence[Obstacle], contended: Sequence[Obstacle]
) -> list[Condition]:
    phase = decision.told.get("phase")
    reason, needs_human = decision.reason, decision.needs_human
    if obstacles and phase in ("Pending", "Running"):
        reason, needs_human = (obstacles[0].code, obstacles[0].message), obstacles[0].needs_human
    code, message = reason
    accepted = (
        Condition(type=ACCEPTED, status="True", reason="Accepted", message="The Benchmark can be run.")
        if decision.refused is None
        else Condition(type=ACCEPTED, status="False", reason=decision.refused[0], message=decision.refused[1])
    )
    conditions = [
        accepted,
        Condition(type=COMPLETE, status="True" if phase == "Succeeded" else "False", reason=code, message=message),
    ]
    if phase in ("Inconclusive", "Failed"):
        conditions.append(Condition(type=FAILED, status="True", reason=code, message=message))
    is_over = phase in ("Succeeded", "Inconclusive", "Failed")
    conditions += kstatus(reason if needs_human else None, None if is_over else reason)
    if contended:
        told = " ".join(one.message for one in contended)
        conditions.append(Condition(type=CONTENDED, status="True", reason=contended[0].code, message=told))
    return conditions


# The bound


def _without(*keys: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda row: {key: value for key, value in row.items() if key not in keys}


def _percentiles(*kept: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def lighten(row: dict[str, Any]) -> dict[str, Any]:
        return {
            key: {p: v for p, v in value.items() if p in kept} if isinstance(value, Mapping) else value
            for key, value in row.items()
        }

    return lighten


def _short_message(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "message": shorten(row["message"], _ROW_MESSAGE)} if "message" in row else row


#: What rows are told without where there is no room, one after the other. The tokens of prompts and answers go last: a service's
#: cost is made from them, and what contradicts its memory sum.
_LIGHTER: Final = (
    _without("tpot"),
    _percentiles("p50", "p99"),
    _short_message,
    _without("promptTokens", "outputTokens"),
)


def _fit(status: dict[str, Any]) -> dict[str, Any]:
    """A status that is not too long: rows with fewer numbers, then fewer differences and rows, which it says then."""
    is_cut = "resultsCut" in status
    most = MOST_BYTES - _size({"resultsCut": True})
    for lighten in _LIGHTER:
        if _size(status) <= most:
            break
        if "results" in status:
            rows = [lighten(row) for row in status["results"]]
            is_cut = is_cut or _messages(rows) != _messages(status["results"])
            status = {**status, "results": rows}
    for key in ("differences", "results"):
        items = list(status.get(key) or ())
        excess = _size(status) - most
        while items and excess > 0:
            excess -= _size(items.pop()) + 1
            is_cut = True
        status = {k: v for k, v in status.items() if k != key} | ({key: items} if items else {})
    return {**status, "resultsCut": True} if is_cut else status


def _messages(rows: Sequence[Mapping[str, Any]]) -> list[Any]:
    return [row.get("message") for row in rows]


def _size(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())
