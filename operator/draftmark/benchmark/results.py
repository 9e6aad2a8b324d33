"""A result as the status holds it: one row per workload and load, shorter than the document that it is taken from."""

from typing import Any, Final

from draftmark.api.benchmark import MAX_ROWS, MAX_WORKLOADS
from draftmark.api.conditions import shorten
from draftmark.measure.result import Difference, Interval, Latency, Result, Row

#: Digits of a number that are told; the document has all.
_DIGITS: Final = 4
#: Longest message of a row, in bytes.
_ROW_MESSAGE: Final = 240
_WINNER_MESSAGE: Final = 240


def tell_result(result: Result) -> dict[str, Any]:
    """Rows, differences and winners. A number that was not measured is not there."""
    rows = [_row(row) for row in result.rows[:MAX_ROWS]]
    # Of those that are alike nobody asks first.
    ordered = sorted(result.differences, key=lambda d: d.verdict == "Equal")
    told: dict[str, Any] = {
        "results": rows,
        "differences": [_difference(d) for d in ordered[:MAX_ROWS]],
        "winners": [
            {"workload": shorten(w.workload, 64), "winner": w.winner, "message": shorten(w.message, _WINNER_MESSAGE)}
            for w in result.winners[:MAX_WORKLOADS]
        ],
        "resultsCut": len(result.rows) > MAX_ROWS or len(ordered) > MAX_ROWS,
    }
    return {key: value for key, value in told.items() if value}


def _row(row: Row) -> dict[str, Any]:
    asked = row.samples + row.errors
    told: dict[str, Any] = {
        "workload": shorten(row.workload, 64),
        "load": shorten(row.load, 64),
        "target": row.target,
        "samples": max(0, row.samples),
        "errorPercent": _short(100 * row.errors / asked) if asked > 0 else None,
    }
    if (refusal := row.refusal) is not None:
        told |= {"reason": shorten(refusal.code, 64), "message": shorten(refusal.message, _ROW_MESSAGE)}
    else:
        told |= {
            "ttft": _latency(row.ttft),
            "itl": _latency(row.itl),
            "tpot": _latency(row.tpot),
            "e2e": _latency(row.e2e),
            "requestsPerSecond": _value(row.requests_per_second),
            "outputTokensPerSecond": _value(row.output_tokens_per_second),
            "goodputPerSecond": _value(row.goodput_per_second),
            "holdsObjectives": row.holds_objectives,
            "promptTokens": _number(row.prompt_tokens),
            "outputTokens": _number(row.output_tokens),
            "kvUsePercent": _number(row.kv_use_percent),
        }
    return {key: value for key, value in told.items() if value is not None}


def _latency(latency: Latency | None) -> dict[str, float] | None:
    if latency is None:
        return None
    told = {"p50": _value(latency.p50), "p90": _value(latency.p90), "p99": _value(latency.p99)}
    return {key: value for key, value in told.items() if value is not None} or None


def _difference(difference: Difference) -> dict[str, Any]:
    return {
        "workload": shorten(difference.workload, 64),
        "load": shorten(difference.load, 64),
        "metric": difference.metric,
        "verdict": difference.verdict,
        "percent": _short(difference.percent),
        "lowPercent": _short(difference.low_percent),
        "highPercent": _short(difference.high_percent),
    }


def _value(interval: Interval | None) -> float | None:
    return _short(interval.value) if interval is not None else None


def _number(value: float | None) -> float | None:
    return _short(value) if value is not None else None


def _short(value: float) -> float:
    """The number with few digits, as JSON that reads the same after the API server had it: 5.0 comes back as 5."""
    rounded = float(f"{value:.{_DIGITS}g}")
    return int(rounded) if rounded.is_integer() else rounded
