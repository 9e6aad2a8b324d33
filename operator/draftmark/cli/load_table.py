"""The rows of `kubectl draftmark top`, from what gateways and engines say of themselves.

A number that could not be had is never 0: `-` means that there is nothing to ask (no gateway, an engine without such a
number), `?` that nobody answered, and `7+?` that some did and some did not.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from draftmark.api import names
from draftmark.cli.overview import Seen, label, revisions, role_of, wanted_replicas
from draftmark.facts.pods import is_ready

__all__ = [
    "EnginePage",
    "GatewayState",
    "Reading",
    "Row",
    "cells",
    "columns",
    "make_rows",
    "read_engine_page",
    "read_state",
]

Json = Mapping[str, Any]

#: Names of an engine's own numbers in its metrics: requests that run and wait, and tokens in and out so far.
#: Sources: README of llama.cpp's server, "Available metrics", v0.7.0; v1/metrics/loggers.py of vLLM 0.33.0;
#: srt/observability/metrics_collector.py of SGLang 0.5.23, which counts requests that wait for a grammar apart.
ENGINE_METRICS: Final[Mapping[str, tuple[str, ...]]] = {
    "running": ("llamacpp:requests_processing", "vllm:num_requests_running", "sglang:num_running_reqs"),
    "waiting": (
        "llamacpp:requests_deferred",
        "vllm:num_requests_waiting",
        "sglang:num_queue_reqs",
        "sglang:num_grammar_queue_reqs",
    ),
    "tokens": (
        "llamacpp:prompt_tokens_total",
        "llamacpp:tokens_predicted_total",
        "vllm:prompt_tokens_total",
        "vllm:generation_tokens_total",
        "sglang:prompt_tokens_total",
        "sglang:generation_tokens_total",
    ),
}


@dataclass(frozen=True, slots=True)
class Reading:
    """A sum over pods, of which some may not have answered."""

    total: float = 0
    asked: int = 0
    answered: int = 0

    def __str__(self) -> str:
        if not self.asked:
            return "-"
        if not self.answered:
            return "?"
        return f"{self.total:.0f}" + ("" if self.answered == self.asked else "+?")


@dataclass(frozen=True, slots=True)
class GatewayState:
    """What one gateway pod says: requests that run and wait, by revision."""

    running: Mapping[str, int]
    waiting: Mapping[str, int]
    weight: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class EnginePage:
    """What one engine pod says of itself. None: it has no such number."""

    running: float | None
    waiting: float | None
    tokens: float | None
    #: When it was read, in seconds of a clock that only goes forward.
    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What the pods of a service answered; None for those that did not."""

    gateways: Mapping[str, GatewayState | None] = field(default_factory=dict)
    engines: Mapping[str, EnginePage | None] = field(default_factory=dict)
    #: The same a moment ago, for rates.
    engines_before: Mapping[str, EnginePage | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One revision of one service."""

    namespace: str
    service: str
    revision: str
    phase: str
    weight: int | None
    ready: int
    wanted: int
    waiting: Reading
    running: Reading
    engine_running: Reading
    engine_waiting: Reading
    tokens_per_s: Reading


def read_state(text: str) -> GatewayState:
    """What a gateway's state page says.

    Raises:
        ValueError: It is no such page.
    """
    try:
        found: Json = json.loads(text)["revisions"]
        return GatewayState(
            running={str(r): int(state["running"]) for r, state in found.items()},
            waiting={str(r): int(state["waiting"]) for r, state in found.items()},
            weight={str(r): int(state["weight"]) for r, state in found.items() if state.get("weight") is not None},
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"its state page cannot be read ({type(error).__name__}: {error})") from None


def read_engine_page(text: str, at_s: float) -> EnginePage:
    """An engine's metrics, in Prometheus' text format. Lines that are none are skipped."""
    sums: dict[str, float] = {}
    for line in text.splitlines():
        name, _, rest = line.partition("{") if "{" in line else line.partition(" ")
        try:
            value = float(rest.rpartition("}")[2].split()[0])
        except (ValueError, IndexError):
            continue
        sums[name] = sums.get(name, 0.0) + value

    def total(of: str) -> float | None:
        found = [sums[name] for name in ENGINE_METRICS[of] if name in sums]
        return sum(found) if found else None

    return EnginePage(running=total("running"), waiting=total("waiting"), tokens=total("tokens"), at_s=at_s)


def make_rows(seen: Seen, answers: Answers) -> list[Row]:
    """One row per revision, in the order of the status; a service that has none yet has one row all the same."""
    metadata = seen.service["metadata"]
    listed: Sequence[Json] = revisions(seen) or [{"hash": "-"}]
    has_gateway = any(role_of(item) == names.ROLE_GATEWAY for item in (*seen.deployments, *seen.pods))
    states = list(answers.gateways.values())
    rows = []
    for revision in listed:
        hash_ = str(revision["hash"])
        pods = [p for p in seen.pods if role_of(p) == names.ROLE_ENGINE and label(p, names.LABEL_REVISION) == hash_]
        wanted = wanted_replicas(seen.deployments, names.ROLE_ENGINE, hash_)
        asked = [str(p["metadata"]["name"]) for p in pods if str(p["metadata"]["name"]) in answers.engines]
        pages = [answers.engines[name] for name in asked]
        weights = [s.weight[hash_] for s in states if s is not None and hash_ in s.weight]
        rows.append(
            Row(
                namespace=str(metadata["namespace"]),
                service=str(metadata["name"]),
                revision=hash_,
                phase=str(revision.get("phase") or "-"),
                weight=revision["weight"] if revision.get("weight") is not None else (weights[0] if weights else None),
                ready=sum(is_ready(p) for p in pods),
                wanted=wanted if wanted is not None else int(revision.get("replicas") or 0),
                waiting=_over_gateways([None if s is None else s.waiting.get(hash_, 0) for s in states], has_gateway),
                running=_over_gateways([None if s is None else s.running.get(hash_, 0) for s in states], has_gateway),
                engine_running=_over_engines([(p, None if p is None else p.running) for p in pages]),
                engine_waiting=_over_engines([(p, None if p is None else p.waiting) for p in pages]),
                tokens_per_s=_over_engines([(answers.engines[n], _rate(answers, n)) for n in asked]),
            )
        )
    return rows


def _over_gateways(values: Sequence[int | None], has_gateway: bool) -> Reading:
    if has_gateway and not values:
        # There is a gateway and no pod of it runs: nobody knows.
        return Reading(asked=1)
    found = [value for value in values if value is not None]
    return Reading(total=sum(found), asked=len(values), answered=len(found))


def _over_engines(values: Iterable[tuple[EnginePage | None, float | None]]) -> Reading:
    """Pods that answer and lack the number count as not asked."""
    relevant = [(page, value) for page, value in values if page is None or value is not None]
    found = [value for _, value in relevant if value is not None]
    return Reading(total=sum(found), asked=len(relevant), answered=len(found))


def _rate(answers: Answers, pod: str) -> float | None:
    """Tokens per second between two readings; a pod that was started anew meanwhile has counted from zero."""
    now, before = answers.engines.get(pod), answers.engines_before.get(pod)
    if now is None or before is None or now.tokens is None or before.tokens is None or now.at_s <= before.at_s:
        return None
    more = now.tokens - before.tokens if now.tokens >= before.tokens else now.tokens
    return more / (now.at_s - before.at_s)


def columns(*, has_namespaces: bool) -> list[str]:
    """The heads of the table."""
    heads = ["NAME", "REVISION", "PHASE", "WEIGHT", "READY", "WAITING", "RUNNING"]
    heads += ["ENGINE RUNNING", "ENGINE WAITING", "TOKENS/S"]
    return ["NAMESPACE", *heads] if has_namespaces else heads


def cells(row: Row, *, has_namespaces: bool) -> list[str]:
    """A row's cells, under `columns`."""
    found = [
        row.service,
        row.revision,
        row.phase,
        "-" if row.weight is None else f"{row.weight} %",
        f"{row.ready}/{row.wanted}",
        str(row.waiting),
        str(row.running),
        str(row.engine_running),
        str(row.engine_waiting),
        str(row.tokens_per_s),
    ]
    return [row.namespace, *found] if has_namespaces else found


def plain_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table as kubectl prints one."""
    lines = [list(heads), *map(list, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
    return "".join(
        "   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n"
        for line in lines
    )
