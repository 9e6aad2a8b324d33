"""The result of a Benchmark as it is kept: JSON, one document, written once. Latencies in milliseconds."""

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import Field

from draftmark.measure.order import Document, Order, TargetFacts


class Interval(Document):
    """A number with its confidence interval (95 %, over repetitions); absent bounds: too few repetitions to say."""

    value: float
    low: float | None = None
    high: float | None = None


class Latency(Document):
    """Milliseconds; None: too few samples for this percentile."""

    p50: Interval | None = None
    p90: Interval | None = None
    p99: Interval | None = None
    mean: float


class Refusal(Document):
    """Why there are no numbers, of a row or of the whole."""

    code: str
    """Such as ClientSaturated; `measure.validity` has all."""
    message: str
    """What is, what is needed, and the way out."""
    is_failure: bool
    """True: something broke (Failed). False: it ran, but its numbers would not be honest (Inconclusive)."""


class Row(Document):
    """One workload under one load on one target."""

    target: Literal["target", "compared"]
    workload: str
    load: str
    concurrency: int | None = None
    request_rate: float | None = None
    samples: int
    errors: int
    refusal: Refusal | None = None
    """Not None: no number below is set."""
    ttft: Latency | None = None
    itl: Latency | None = None
    tpot: Latency | None = None
    e2e: Annotated[Latency | None, Field(alias="e2e")] = None  # not e2E
    requests_per_second: Interval | None = None
    output_tokens_per_second: Interval | None = None
    goodput_per_second: Interval | None = None
    holds_objectives: bool | None = None
    prompt_tokens: float | None = None
    output_tokens: float | None = None
    scatter_percent: float | None = None
    kv_use_percent: float | None = None
    peak_memory_gb: float | None = None
    """The most that all accelerators of the target, of all its replicas together, held at one moment of the row's blocks, as DCGM
    told Prometheus. In 10^9 bytes, not in GiB. None: nobody told."""
    client_cpu_percent: float | None = None


#: How people call the metrics of a comparison.
METRIC_NAMES: Final[Mapping[str, str]] = {
    "ttft": "TTFT",
    "itl": "ITL",
    "e2e": "E2E",
    "output_tokens_per_second": "output tokens/s",
}


class Difference(Document):
    """One metric of one workload and load: compared against target."""

    workload: str
    load: str
    metric: Literal["ttft", "itl", "e2e", "output_tokens_per_second"]
    verdict: Literal["Better", "Worse", "Equal", "Inconclusive"]
    percent: float
    low_percent: float
    high_percent: float
    """Bounds that hold for all metrics and cells together in 95 of 100 comparisons."""


class Winner(Document):
    """What a comparison says of one workload."""

    workload: str
    winner: Literal["target", "compared", "none"]
    message: str


class MeasuredTarget(Document):
    """What answered."""

    label: Literal["target", "compared"]
    url: str
    model: str
    facts: TargetFacts


def measured_targets(order: Order, facts: Mapping[str, TargetFacts]) -> tuple[MeasuredTarget, ...]:
    """All of an order.

    Args:
        facts: Of those of which more is known than the order says, by their labels.
    """
    return tuple(
        MeasuredTarget(label=t.label, url=t.url, model=t.model, facts=facts.get(t.label, t.facts))
        for t in order.targets
    )


class Result(Document):
    """The whole of it."""

    schema_version: Literal[1] = 1
    benchmark: str
    namespace: str
    uid: str
    job: str
    tool: str
    """The load generator and its version."""
    began: str
    """RFC 3339, UTC."""
    ended: str
    order: Order
    targets: tuple[MeasuredTarget, ...]
    rows: tuple[Row, ...]
    differences: tuple[Difference, ...] = ()
    winners: tuple[Winner, ...] = ()
    refusal: Refusal | None = None
    """Of the whole: not None means that no row has numbers."""
    unchecked: tuple[str, ...] = ()
    """What could not be checked, one sentence per target; `notes` has them, too."""
    notes: str = ""


class Progress(Document):
    """What the Job tells while it runs."""

    job: str
    stage: Literal["Starting", "Tokenizer", "WarmUp", "Measuring", "Evaluating"]
    workload: str | None = None
    load: str | None = None
    percent: int
    seconds_left: int | None = None
    at: str
    """RFC 3339, UTC; also a sign of life."""
