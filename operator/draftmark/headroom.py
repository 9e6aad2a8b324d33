"""How much one replica of a service carries at its objectives, and what that costs: from finished Benchmarks, and from
nothing else.

A Benchmark counts when it measured one replica, at objectives: the latest of the current revision, and else the latest. What it
says is kept in the service's status, for a Benchmark may be deleted; another revision than the one that was measured makes it
stale.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from draftmark.api.benchmark import DEFAULT_CONCURRENCY, MAX_WORKLOADS
from draftmark.api.conditions import shorten
from draftmark.api.defaults import PriceDefaults
from draftmark.api.times import read_time
from draftmark.observation import Json

#: Bounds of the lists and texts, as in the schema. A Benchmark has no more workloads than there are rows.
MAX_ROWS: Final = MAX_WORKLOADS
_MESSAGE_LENGTH: Final = 160
_MAX_IMAGES: Final = 1
_IMAGE_LENGTH: Final = 160

#: By how much of the cache, in percent, a measurement may be above the sum before it contradicts it: metrics are read now and
#: then, and blocks are not full.
_KV_SLACK_PERCENT: Final = 10.0
_CONCURRENCY: Final = re.compile(r"concurrency (\d+)")

MEASURED: Final = "Measured"
STALE: Final = "Stale"
UNMEASURED: Final = "Unmeasured"


def benchmarks_of(service: Json, benchmarks: Sequence[Json] | None) -> tuple[Json, ...] | None:
    """Of the Benchmarks of a name those that can have measured this very service: one that was deleted and made anew has
    revisions of the same hashes, maybe with another layout. None: not known yet."""
    if benchmarks is None:
        return None
    made = read_time(service["metadata"].get("creationTimestamp"))
    ends = [(item, read_time((item.get("status") or {}).get("finishedAt"))) for item in benchmarks]
    return tuple(item for item, end in ends if made is None or end is None or end >= made)


def headroom(
    service: str, revision: str | None, benchmarks: Sequence[Json] | None, before: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The status's `headroom`.

    Args:
        service: Name of the InferenceService.
        revision: Hash of the revision that serves, or of the one that is to; None: there is none.
        benchmarks: Those that name it, whatever their phase; None: not known yet, and what was told stands.
        before: What the status holds.
    """
    measured = [
        found
        for item in benchmarks or ()
        for label in _labels(item, service)
        if (found := _measured(item, label)) is not None
    ]
    counts = [found for found in measured if "rows" in found]
    kept = before if before is not None and "rows" in before else None

    def rank(found: Mapping[str, Any]) -> tuple[bool, datetime]:
        return found.get("revision") == revision, _age(found)

    latest = max(counts, key=rank, default=None)
    if kept is not None and (latest is None or rank(kept) > rank(latest)):
        latest = {key: value for key, value in kept.items() if key not in ("state", "message")}
    if latest is None and benchmarks is None and before is not None:
        return dict(before)
    if latest is None:
        why = max(measured, key=_age, default=None)
        return {
            "state": UNMEASURED,
            **({"message": shorten(why["message"], _MESSAGE_LENGTH)} if why is not None else {}),
        }
    if revision is None or latest.get("revision") == revision:
        return {"state": MEASURED, **latest}
    message = (
        f"Revision {latest.get('revision')} was measured, and the current one is {revision}: run a Benchmark of it."
    )
    return {"state": STALE, "message": message, **latest}


def _labels(benchmark: Json, service: str) -> list[tuple[str, Mapping[str, Any]]]:
    """Under which names the results of a Benchmark speak of a service, with what was seen of it."""
    status = benchmark.get("status") or {}
    if status.get("phase") != "Succeeded":
        return []
    found = ((label, status.get(label) or {}) for label in ("target", "compared"))
    return [(label, target) for label, target in found if target.get("service") == service]


def _measured(benchmark: Json, labelled: tuple[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """What one Benchmark says of a service; without `rows`: why it says nothing."""
    label, target = labelled
    status, name = benchmark["status"], str(benchmark["metadata"]["name"])
    told = {"benchmark": name, "measuredAt": status.get("finishedAt")}
    if told["measuredAt"] is None:
        return None
    if (replicas := target.get("replicas")) != 1:
        seen = "an unknown number of" if replicas is None else str(replicas)
        return {**told, "message": f"Benchmark '{name}' measured {seen} replicas together. Measure one alone."}
    rows = [row for row in status.get("results") or () if row.get("target") == label]
    judged = [row for row in rows if row.get("holdsObjectives") is not None]
    if not judged:
        why = (
            "has objectives, but too few samples of what they bound. Measure longer, or bound lower percentiles."
            if (benchmark.get("spec") or {}).get("objectives")
            else "has no objectives, so no capacity follows. Write spec.objectives."
        )
        return {**told, "message": f"Benchmark '{name}' {why}"}
    workloads = sorted({str(row["workload"]) for row in judged})
    return {
        **told,
        **{key: target[key] for key in ("revision", "hardware") if key in target},
        **(
            {"images": [shorten(str(i), _IMAGE_LENGTH) for i in target["images"][:_MAX_IMAGES]]}
            if target.get("images")
            else {}
        ),
        "rows": [
            _capacity(
                workload,
                [row for row in judged if row["workload"] == workload],
                is_whole=not status.get("resultsCut")
                or sum(row["workload"] == workload for row in rows) >= _loads(benchmark),
            )
            for workload in workloads
        ][:MAX_ROWS],
    }


def _loads(benchmark: Json) -> int:
    """Rows that a Benchmark has of each workload and target."""
    spec = benchmark.get("spec") or {}
    return len(set(spec.get("requestRate") or spec.get("concurrency") or DEFAULT_CONCURRENCY))


def _capacity(workload: str, rows: Sequence[Mapping[str, Any]], *, is_whole: bool) -> dict[str, Any]:
    """The most that was carried at the objectives. Where every load held them, more may be possible.

    Args:
        is_whole: No row of the workload was left out of the status: what is not there may not have held them.
    """
    holding = [row for row in rows if row["holdsObjectives"] and row.get("requestsPerSecond") is not None]
    if not holding:
        return {"workload": workload, "isCarried": False}
    best = max(holding, key=lambda row: float(row["requestsPerSecond"]))
    kept = ("load", "requestsPerSecond", "outputTokensPerSecond", "promptTokens")
    return {
        "workload": workload,
        "isCarried": True,
        **{key: best[key] for key in kept if best.get(key) is not None},
        **({"isLowerBound": all(row["holdsObjectives"] for row in rows)} if is_whole else {}),
    }


def contradiction(service: str, revision: str | None, kv_tokens: int | None, benchmarks: Sequence[Json]) -> str | None:
    """Where the cache of one replica was fuller than its sum allows; None: nowhere, or nothing is known.

    The sum's upper bound for a row is its concurrency times the tokens of prompt and answer.

    Args:
        revision: Hash of the current revision.
        kv_tokens: Tokens for which the plan counts cache.
    """
    found = []
    for item in benchmarks:
        for label, target in _labels(item, service):
            if not kv_tokens or target.get("replicas") != 1 or target.get("revision") != revision:
                continue
            rows = [row for row in item["status"].get("results") or () if row.get("target") == label]
            found += [(str(item["metadata"]["name"]), row, _expected(row, kv_tokens)) for row in rows]
    beyond = [
        (float(row["kvUsePercent"]) - expected, name, row, expected)
        for name, row, expected in found
        if expected is not None and row.get("kvUsePercent") is not None
    ]
    most = max(beyond, key=lambda one: one[0], default=None)
    if most is None or most[0] <= _KV_SLACK_PERCENT:
        return None
    _, name, row, expected = most
    return (
        f"Measured otherwise: under {row['load']} of '{row['workload']}' the cache was {row['kvUsePercent']:.0f} % full "
        f"(Benchmark '{name}'), and the sum expects at most {expected:.0f} %. Trust the measurement."
    )


def _expected(row: Mapping[str, Any], kv_tokens: int) -> float | None:
    load = _CONCURRENCY.fullmatch(str(row.get("load")))
    tokens = (row.get("promptTokens"), row.get("outputTokens"))
    if load is None or tokens[0] is None or tokens[1] is None:
        return None
    return min(100.0, int(load[1]) * float(tokens[0] + tokens[1]) / kv_tokens * 100)


def _age(found: Mapping[str, Any]) -> datetime:
    return read_time(found.get("measuredAt")) or datetime.min.replace(tzinfo=UTC)


def cost(
    measured: Mapping[str, Any], product: str | None, gpus: int, prices: PriceDefaults | None
) -> dict[str, Any] | None:
    """The status's `cost`, from measured capacity and the administrator's price; None: one of both is not known.

    The whole price of a replica is divided by the prompt tokens that it reads, and once more by the tokens that it writes:
    these are two views of one sum, not two parts of it.

    Args:
        measured: As `headroom` says.
        product: Of the replica's GPUs. What was measured on others says nothing of their price.
        gpus: Of one replica.
        prices: Per accelerator and hour.
    """
    price = prices.per_hour.get(product) if prices is not None and product is not None else None
    if prices is None or price is None or gpus == 0 or measured["state"] != MEASURED:
        return None
    if measured.get("hardware", product) != product:
        return None
    per_second = price * gpus / 3600
    rows = []
    for row in measured["rows"]:
        written, requests = row.get("outputTokensPerSecond"), row.get("requestsPerSecond")
        read = requests * row["promptTokens"] if requests and row.get("promptTokens") else None
        prices_of = {"perMillionInputTokens": read, "perMillionOutputTokens": written}
        found = {key: _significant(per_second / rate * 1e6) for key, rate in prices_of.items() if rate}
        if found:
            rows.append({"workload": row["workload"], **found})
    if not rows:
        return None
    return {
        "currency": prices.currency,
        "perReplicaHour": _significant(price * gpus),
        "rows": rows,
    }


def _significant(value: float) -> float:
    return float(f"{value:.4g}")
