"""Result documents for tests. Nobody has measured these numbers: they are round, and their servers do not exist."""

from typing import Any

from draftmark.measure.order import (
    Bounds,
    FromClaim,
    Lengths,
    Load,
    Order,
    OrderedObjectives,
    OrderedTarget,
    OrderedWorkload,
    TargetFacts,
)
from draftmark.measure.result import Difference, Interval, Latency, MeasuredTarget, Refusal, Result, Row, Winner

SATURATED = Refusal(
    code="ClientSaturated",
    message="The load generator used 99 % of its CPU in its busiest second; at most 80 % is allowed. Raise spec.resources.limits.cpu.",
    is_failure=False,
)
GONE = Refusal(
    code="TargetChanged",
    message="The pods of 'test-a' were replaced while it was measured. Run it again.",
    is_failure=True,
)

FACTS = {
    "target": TargetFacts(
        service="test-a", revision="aaaaaaaa", engine="test-engine", version="1.0", quantization="none", layout="1 GPU",
        hardware="TEST-GPU", replicas=1, images=("registry.test/a@sha256:00",),
    ),
    # Of a server behind a URL little is known.
    "compared": TargetFacts(),
}  # fmt: skip


def interval(value: float, *, by: float | None = 0.1) -> Interval:
    """A number whose interval reaches this share of it to both sides."""
    return Interval(value=value) if by is None else Interval(value=value, low=value * (1 - by), high=value * (1 + by))


def latency(p50: float, *, has_p99: bool = True) -> Latency:
    return Latency(
        p50=interval(p50), p90=interval(2 * p50), p99=interval(3 * p50, by=None) if has_p99 else None, mean=p50
    )


def row(concurrency: int, *, factor: float = 1.0, **changes: Any) -> Row:
    """A row that was measured; latencies are the multiple of round numbers that `factor` says."""
    numbers = {
        "ttft": latency(100 * factor),
        "itl": latency(10 * factor, has_p99=False),
        "tpot": latency(10 * factor, has_p99=False),
        "e2e": latency(1000 * factor),
        "requests_per_second": interval(concurrency / factor),
        "output_tokens_per_second": interval(100 * concurrency / factor),
        "goodput_per_second": interval(concurrency / factor / 2),
        "holds_objectives": concurrency < 4,
        "prompt_tokens": 200.0,
        "output_tokens": 150.0,
        "scatter_percent": 2.0,
        "kv_use_percent": 12.5,
        "peak_memory_gb": 10.0 if changes.get("target") != "compared" else None,
        "client_cpu_percent": 20.0,
    }
    fields = {"target": "target", "workload": "chat", "samples": 300, "errors": 0, **numbers, **changes}
    return Row(load=f"concurrency {concurrency}", concurrency=concurrency, **fields)


def refused(concurrency: int, refusal: Refusal = SATURATED, **changes: Any) -> Row:
    fields = {"target": "target", "workload": "chat", "samples": 12, "errors": 3, **changes}
    return Row(load=f"concurrency {concurrency}", concurrency=concurrency, refusal=refusal, **fields)


def result(
    name: str = "test-run", *, rows: tuple[Row, ...] | None = None, is_compared: bool = False, **changes: Any
) -> Result:
    """A result; without rows one of two loads."""
    rows = (row(1), row(4)) if rows is None else rows
    urls = {"target": "http://test-a:8000", "compared": "http://test-b:8000"}
    labels: Any = ("target", "compared") if is_compared else ("target",)
    order = Order(
        benchmark=name,
        namespace="models",
        uid="uid-1",
        job=f"{name}-1",
        targets=tuple(
            OrderedTarget(
                label=label, url=urls[label], model="test/model", tokenizer=FromClaim(path="/t"), facts=FACTS[label]
            )
            for label in labels
        ),
        workloads=tuple(
            OrderedWorkload(name=workload, prompt=Lengths(mean=200), output=Lengths(mean=150))
            for workload in dict.fromkeys(r.workload for r in rows)
        ),
        loads=tuple(Load(concurrency=c) for c in sorted({r.concurrency for r in rows if r.concurrency})),
        warm_up_s=10,
        duration_s=60,
        repetitions=3,
        objectives=OrderedObjectives(ttft=Bounds(p99=500)),
        result_config_map=f"{name}-result",
    )
    fields = {
        "benchmark": name,
        "namespace": "models",
        "uid": "uid-1",
        "job": f"{name}-1",
        "tool": "test-load 1.0",
        "began": "2026-01-01T12:00:00Z",
        "ended": "2026-01-01T12:10:00Z",
        "order": order,
        "targets": tuple(
            MeasuredTarget(label=label, url=urls[label], model="test/model", facts=FACTS[label]) for label in labels
        ),
        "rows": rows,
        **changes,
    }
    return Result(**fields)


def one_run() -> Result:
    """One workload, one load that was refused."""
    return result(rows=(row(1), row(4, factor=1.5), refused(16)), notes="test data")


def comparison() -> Result:
    """Two servers in turns, of which the second is slower; one of the workloads shows nothing."""
    long = {"workload": "long-context"}
    rows = (
        row(1), row(4, factor=1.5),
        row(1, factor=1.2, target="compared"), row(4, factor=1.8, target="compared"),
        row(1, factor=3, **long), row(1, factor=3, target="compared", **long),
    )  # fmt: skip
    bounds = {"low_percent": 15.0, "high_percent": 25.0}
    return result(
        "test-comparison",
        rows=rows,
        is_compared=True,
        differences=(
            Difference(workload="chat", load="concurrency 1", metric="ttft", verdict="Worse", percent=20.0, **bounds),
            Difference(workload="chat", load="concurrency 4", metric="ttft", verdict="Worse", percent=20.0, **bounds),
            Difference(
                workload="chat", load="concurrency 4", metric="output_tokens_per_second", verdict="Inconclusive", percent=-4.0,
                low_percent=-9.0, high_percent=1.0,
            ),
            Difference(
                workload="long-context", load="concurrency 1", metric="ttft", verdict="Equal", percent=0.5, low_percent=-1.0,
                high_percent=2.0,
            ),
        ),
        winners=(
            Winner(workload="chat", winner="target", message="compared is worse in TTFT at concurrency 1 (+20.0 %), and better nowhere"),
            Winner(workload="long-context", winner="none", message="no difference shown: all are equal within 5 %"),
        ),
    )  # fmt: skip


def failed() -> Result:
    """Refused as a whole, before there were rows."""
    return result("test-failed", rows=(), refusal=GONE)


def hostile() -> Result:
    """Text that a page, a table or a spreadsheet would take for something else, in every field that somebody else fills in."""
    text = "<script>alert(1)</script>--><img src=x onerror=alert(2)>|`*_$x$\x1b[31m\u202e\"'\n# x"
    facts = TargetFacts(
        service=text,
        revision=text,
        engine=f"={text}",
        version=f"+{text}",
        quantization=f"-{text}",
        layout=text,
        hardware=f"@{text}",
        images=(text,),
    )
    refusal = Refusal(code=text, message=text, is_failure=False)
    base = result(
        rows=(row(1, workload=text), row(4, workload=text), refused(16, refusal, workload=text)), is_compared=True
    )
    differences = (
        Difference(
            workload=text, load=text, metric="ttft", verdict="Worse", percent=20, low_percent=10, high_percent=30
        ),
    )
    return base.model_copy(
        update={
            "benchmark": f"=cmd|{text}",
            "notes": f"=1+1{text}",
            "tool": text,
            "began": text,
            "rows": (*base.rows, row(1, workload=text, target="compared")),
            "targets": tuple(t.model_copy(update={"facts": facts, "model": f"={text}"}) for t in base.targets),
            "differences": differences,
            "winners": (Winner(workload=text, winner="compared", message=text),),
        }
    )


def other_run() -> Result:
    """A second run of the same kind, on a server that is a little faster; one load of the first is missing."""
    return result("test-other", rows=(row(1, factor=0.9), row(4, factor=1.4)))


#: Of each golden file the results in it.
CASES = {
    "one-run": (one_run(),),
    "comparison": (comparison(),),
    "side-by-side": (one_run(), other_run()),
    "failed": (failed(),),
}
