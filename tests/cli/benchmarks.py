"""Benchmarks as an API server shows them. Nobody has measured these numbers."""

from hashlib import sha256
from typing import Any

from draftmark.api import names
from draftmark.api.benchmark import BenchmarkSpec, BenchmarkStatus
from draftmark.measure.result import Result
from tests.cli.world import NAMESPACE, Json

NAME = "test-run"
UID = "5e9d4f0c-0000-4000-8000-00000000000b"
SPEC: Json = {"target": {"service": "test-a"}, "workloads": [{"name": "chat"}], "concurrency": [1, 4]}
COMPARING: Json = {**SPEC, "compare": {"target": {"service": "test-b"}}}


def manifest(spec: Json | None = None, *, name: str = NAME, **metadata: Any) -> Json:
    """As a user writes it."""
    BenchmarkSpec.model_validate(spec or SPEC)
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.BENCHMARK_KIND,
        "metadata": {"name": name, **metadata},
        "spec": spec or SPEC,
    }


def benchmark(phase: str | None, *, spec: Json | None = None, name: str = NAME, **status: Any) -> Json:
    """As it is in the cluster."""
    told = {"observedGeneration": 1, "phase": phase, "conditions": [complete(phase)], **status} if phase else {}
    if phase in ("Succeeded", "Inconclusive", "Failed"):
        told["finishedAt"] = "2026-01-01T12:00:00Z"
    if told:
        BenchmarkStatus.model_validate(told)
    item = manifest(spec, name=name, namespace=NAMESPACE, generation=1)
    return {**item, "status": told or {"observedGeneration": -1}}


def complete(phase: str | None, reason: str | None = None, message: str | None = None) -> Json:
    return {
        "type": "Complete",
        "status": "True" if phase == "Succeeded" else "False",
        "reason": reason or phase,
        "message": message or f"The Benchmark is {phase}.",
        "lastTransitionTime": "2026-01-01T12:00:00Z",
    }


def progress(stage: str, percent: int, seconds_left: int | None = None) -> Json:
    told = {"stage": stage, "workload": "chat", "load": "concurrency 4", "percent": percent}
    return told | ({"secondsLeft": seconds_left} if seconds_left is not None else {})


TARGETS: Json = {
    "target": {"service": "test-a", "revision": "aaaaaaaa", "engine": "test-engine", "version": "1.0", "model": "test/model"},
    "compared": {"service": "test-b", "revision": "bbbbbbbb", "engine": "other-engine", "version": "2.0", "model": "test/model"},
}  # fmt: skip


def row(concurrency: int, **changes: Any) -> Json:
    return {
        "workload": "chat",
        "load": f"concurrency {concurrency}",
        "target": "target",
        "samples": 300,
        "errorPercent": 0,
        "ttft": {"p50": 100.0, "p90": 200.0},
        "itl": {"p50": 10.0, "p99": 30.0},
        "e2e": {"p50": 1000.0, "p99": 3000.0},
        "requestsPerSecond": 1.0,
        "outputTokensPerSecond": 100.0 * concurrency,
        **changes,
    }


REFUSED_ROW: Json = {
    "workload": "chat", "load": "concurrency 16", "target": "target", "samples": 12, "reason": "ClientSaturated",
    "message": "The load generator used 99 % of its CPU; at most 80 % is allowed. Raise spec.resources.limits.cpu.",
}  # fmt: skip


def running() -> Json:
    return benchmark("Running", progress=progress("Measuring", 42, 200), target=TARGETS["target"])


def succeeded(**more: Any) -> Json:
    return benchmark("Succeeded", target=TARGETS["target"], results=[row(1), row(4)], **more)


def inconclusive() -> Json:
    message = "chat, concurrency 16: the load generator had too little CPU."
    told = [complete("Inconclusive", "ClientSaturated", message)]
    return benchmark("Inconclusive", conditions=told, target=TARGETS["target"], results=[row(1), REFUSED_ROW])


def compared(*, winner: str = "target") -> Json:
    difference = {"workload": "chat", "load": "concurrency 1", "metric": "ttft", "verdict": "Worse", "percent": 20.0}
    message = "compared is worse in TTFT at concurrency 1 (+20.0 %), and better nowhere"
    if winner == "none":
        message = "no difference shown: all are equal within 5 %"
    return benchmark(
        "Succeeded",
        spec=COMPARING,
        **TARGETS,
        results=[row(1), row(1, target="compared")],
        differences=[{**difference, "lowPercent": 15.0, "highPercent": 25.0}],
        winners=[{"workload": "chat", "winner": winner, "message": message}],
    )


def compared_and_refused() -> Json:
    """One row has no numbers: nobody wins, and the message says why."""
    item = compared(winner="none")
    told = [
        complete(
            "Inconclusive", "ClientSaturated", "1 of 2 rows have no numbers. The load generator used 99 % of its CPU."
        )
    ]
    item["status"] |= {"phase": "Inconclusive", "conditions": told, "results": [row(1), REFUSED_ROW]}
    item["status"]["winners"][0]["message"] = "no winner: concurrency 16 has no numbers (ClientSaturated)"
    return item


def cut(item: Json, *, rows: int) -> Json:
    """With this many rows in the status, which had no room for more, nor for messages."""
    kept = [{key: value for key, value in row.items() if key != "message"} for row in item["status"]["results"][:rows]]
    report = {"configMap": names.benchmark_result_name(item["metadata"]["name"]), "sha256": "0" * 64}
    return {**item, "status": {**item["status"], "results": kept, "resultsCut": True, "report": report}}


def not_shown() -> Json:
    """The noise is larger than any difference that was looked for."""
    item = compared(winner="none")
    item["status"] |= {"phase": "Inconclusive", "conditions": [complete("Inconclusive", "NoDifferenceShown")]}
    return item


def stored(result: Result) -> tuple[Json, str]:
    """The ConfigMap of a result, and its digest."""
    text = result.model_dump_json(by_alias=True, exclude_none=True)
    name = names.benchmark_result_name(result.benchmark)
    item = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "data": {"result": text},
    }
    return item, sha256(text.encode()).hexdigest()
