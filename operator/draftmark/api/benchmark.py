"""Benchmark: one measurement of a model server, run once, to the end.

Its spec cannot be changed: a result belongs to what was asked. A further measurement is a Benchmark of another name, or of
the same one after the first was deleted.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field

from draftmark.api.base import ApiModel, DnsLabel, DnsName, LabelKey, LabelValue, ListMap, Rule
from draftmark.api.duration import Duration, seconds_of
from draftmark.api.inference_service import ConfigMapKeyRef, ModelName, Resources, SecretKeyRef, Toleration
from draftmark.api.inference_service_status import ConditionStatus, Name, Text, Time, Word

#: Tokens of prompt, answer and shared beginning of the presets. Source: the usual workloads of chat assistants and of
#: retrieval, which `docs/benchmarks.md` describes.
PRESETS: Final = {"chat": (200, 150, 0), "long-context": (4096, 500, 0), "shared-prefix": (200, 150, 2048)}

DEFAULT_CONCURRENCY: Final = (1, 4, 8, 16)
DEFAULT_WARM_UP_S: Final = 10
DEFAULT_DURATION_S: Final = 60
DEFAULT_REPETITIONS: Final = 3
DEFAULT_ROUNDS: Final = 20
DEFAULT_EQUAL_WITHIN_PERCENT: Final = 5.0
DEFAULT_SCATTER_PERCENT: Final = 20.0
DEFAULT_REQUEST_TIMEOUT_S: Final = 120

MAX_WORKLOADS: Final = 8
MAX_LOADS: Final = 8
#: Rows of the status; `spec` allows no more cells, those of both targets counted.
MAX_ROWS: Final = MAX_WORKLOADS * MAX_LOADS

#: Host name of a Service of the same namespace, and its port.
_URL: Final = r"^http://[a-z]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.svc(\.cluster\.local)?)?)?(:[0-9]{1,5})?/?$"
_SHORT_DURATION: Final = r"^[0-9]{1,6}(\.[0-9]{1,3})?(ms|s)$"

#: Milliseconds or seconds, such as 80ms or 1.5s.
ShortDuration = Annotated[str, Field(pattern=_SHORT_DURATION, max_length=16)]
Tokens = Annotated[int, Field(ge=1, le=1_048_576)]
Percent = Annotated[float, Field(ge=0, le=100)]


def milliseconds_of(text: str) -> float:
    """Milliseconds of a short duration.

    Raises:
        ValueError: The text is none.
    """
    if re.fullmatch(_SHORT_DURATION, text) is None:
        raise ValueError(f"'{text}' is no duration: write milliseconds or seconds as in 80ms or 1.5s")
    return float(text[:-2]) if text.endswith("ms") else float(text[:-1]) * 1000


class BenchmarkTarget(ApiModel):
    """What is measured: an InferenceService of the namespace, or any server behind a Service of the namespace."""

    service: DnsLabel | None = None
    """Name of an InferenceService."""

    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{8}$")] | None = None
    """Hash of one of its revisions that has ready pods. Default: the current one."""

    allow_user_traffic: bool | None = None
    """Measure although users' requests may reach the target, too. What else is under way is looked for, and if there is
    something, there is no result. Default: a revision that takes users' requests is not measured."""

    url: Annotated[str, Field(pattern=_URL, max_length=253)] | None = None
    """A Service of the same namespace that answers as OpenAI's API does, such as http://vllm:8000."""

    model: ModelName | None = None
    """Name under which requests ask for the model; with url only."""

    tokenizer: Annotated[str, Field(pattern=r"^(pvc|hf)://[^ ]+$", max_length=1024)] | None = None
    """Where the model's tokenizer is: pvc://claim/folder, pvc://claim/file.gguf or hf://org/repo; with url only."""

    auth_secret_ref: SecretKeyRef | None = None
    """Secret key that holds the hub's token, for a tokenizer at hf://; with url only."""

    rules: ClassVar = (
        Rule(
            cel="has(self.service) != has(self.url)",
            holds=lambda t: (t.service is None) != (t.url is None),
            message="a target is either a service or a url: write exactly one of both",
        ),
        Rule(
            cel="!has(self.revision) || has(self.service)",
            holds=lambda t: t.revision is None or t.service is not None,
            message="target.revision is a revision of an InferenceService: write service, or remove it",
        ),
        Rule(
            cel="has(self.url) == has(self.model) && has(self.url) == has(self.tokenizer)",
            holds=lambda t: (t.url is None) == (t.model is None) and (t.url is None) == (t.tokenizer is None),
            message="target.model and target.tokenizer belong to target.url: write all three, or none (of an InferenceService both are known)",
        ),
        Rule(
            cel="!has(self.authSecretRef) || (has(self.tokenizer) && self.tokenizer.startsWith('hf://'))",
            holds=lambda t: t.auth_secret_ref is None or (t.tokenizer or "").startswith("hf://"),
            message="target.authSecretRef is used for an hf:// target.tokenizer only: remove it (an InferenceService has its own, model.authSecretRef)",
        ),
    )


class Spread(ApiModel):
    """How lengths are spread around their mean, in tokens."""

    standard_deviation: Tokens
    min: Tokens | None = None
    max: Tokens | None = None

    rules: ClassVar = (
        Rule(
            cel="!has(self.min) || !has(self.max) || self.min <= self.max",
            holds=lambda s: s.min is None or s.max is None or s.min <= s.max,
            message="min is above max: exchange them",
        ),
    )


class ClaimFile(ApiModel):
    """A file or folder of a PersistentVolumeClaim in the namespace."""

    name: DnsName
    path: Annotated[str, Field(pattern=r"^[^/\x00-\x1f][^\x00-\x1f]*$", max_length=512)]

    rules: ClassVar = (
        Rule(
            cel="!self.path.split('/').exists(p, p == '..')",
            holds=lambda f: ".." not in f.path.split("/"),
            message="path must stay inside the claim: remove '..'",
        ),
    )


class Dataset(ApiModel):
    """Prompts of one's own: a file with one JSON object per line, with its text in `prompt` and, where the answers differ in
    length, `output_tokens`."""

    config_map: ConfigMapKeyRef | None = None
    claim: ClaimFile | None = None

    rules: ClassVar = (
        Rule(
            cel="has(self.configMap) != has(self.claim)",
            holds=lambda d: (d.config_map is None) != (d.claim is None),
            message="a dataset is in a configMap or on a claim: write exactly one of both",
        ),
    )


class BenchmarkWorkload(ApiModel):
    """What is sent."""

    name: DnsLabel
    """Names it in results."""

    preset: Literal["chat", "long-context", "shared-prefix"] | None = None
    """chat: 200 tokens in, 150 out. long-context: 4096 in, 500 out. shared-prefix: 200 in after 2048 that all prompts have
    in common, 150 out. Default: the one that is named like the workload, when it says nothing else."""

    prompt_tokens: Tokens | None = None
    output_tokens: Tokens | None = None
    prompt_spread: Spread | None = None
    """How lengths of prompts are spread around promptTokens. Default: all are equal."""
    output_spread: Spread | None = None
    shared_prefix_tokens: Tokens | None = None
    """Tokens before the prompt that all requests have in common."""
    dataset: Dataset | None = None

    rules: ClassVar = (
        Rule(
            cel="[has(self.preset), has(self.promptTokens), has(self.dataset)].filter(x, x).size() == 1 || (self.name in ['chat', 'long-context', 'shared-prefix'] && !has(self.outputTokens) && [has(self.preset), has(self.promptTokens), has(self.dataset)].filter(x, x).size() == 0)",
            holds=lambda w: (
                sum(x is not None for x in (w.preset, w.prompt_tokens, w.dataset)) == 1
                or (
                    w.name in PRESETS
                    and w.output_tokens is None
                    and w.preset is None
                    and w.prompt_tokens is None
                    and w.dataset is None
                )
            ),
            message="a workload is a preset, promptTokens with outputTokens, or a dataset: write exactly one of them, or name it chat, long-context or shared-prefix",
        ),
        Rule(
            cel="has(self.outputTokens) == (has(self.promptTokens) || has(self.dataset))",
            holds=lambda w: (w.output_tokens is not None) == (w.prompt_tokens is not None or w.dataset is not None),
            message="outputTokens goes with promptTokens or a dataset: a preset has its own, the others need it",
        ),
        Rule(
            cel="(!has(self.promptSpread) && !has(self.sharedPrefixTokens)) || has(self.promptTokens)",
            holds=lambda w: (w.prompt_spread is None and w.shared_prefix_tokens is None) or w.prompt_tokens is not None,
            message="promptSpread and sharedPrefixTokens go with promptTokens: write it, or remove them",
        ),
        Rule(
            cel="!has(self.outputSpread) || has(self.promptTokens)",
            holds=lambda w: w.output_spread is None or w.prompt_tokens is not None,
            message="outputSpread goes with promptTokens: write it, or remove outputSpread",
        ),
    )


class Percentiles(ApiModel):
    """Upper bounds of one latency."""

    p50: ShortDuration | None = None
    p90: ShortDuration | None = None
    p99: ShortDuration | None = None

    rules: ClassVar = (
        Rule(
            cel="has(self.p50) || has(self.p90) || has(self.p99)",
            holds=lambda p: any(bound is not None for bound in (p.p50, p.p90, p.p99)),
            message="an objective without a bound is held by everything: write p50, p90 or p99, or remove it",
        ),
        Rule(
            cel="(!has(self.p50) || !has(self.p90) || duration(self.p50) <= duration(self.p90)) && (!has(self.p90) || !has(self.p99) || duration(self.p90) <= duration(self.p99)) && (!has(self.p50) || !has(self.p99) || duration(self.p50) <= duration(self.p99))",
            holds=lambda p: _ascend(tuple(milliseconds_of(b) for b in (p.p50, p.p90, p.p99) if b is not None)),
            message="a lower percentile has the higher bound, which a higher percentile would exceed first: write p50 <= p90 <= p99",
        ),
    )


def _ascend(bounds: Sequence[float]) -> bool:
    return all(lower <= higher for lower, higher in pairwise(bounds))


class Objectives(ApiModel):
    """What users shall see. A request is good when it is below the tightest bound of each latency named here."""

    ttft: Percentiles | None = None
    """Time to the first token."""
    itl: Percentiles | None = None
    """Time between tokens: percentiles are over all of them, and a request is good by the mean of its own."""
    e2e: Annotated[Percentiles | None, Field(alias="e2e")] = None  # not e2E
    """Time to the last token."""

    rules: ClassVar = (
        Rule(
            cel="has(self.ttft) || has(self.itl) || has(self.e2e)",
            holds=lambda o: any(latency is not None for latency in (o.ttft, o.itl, o.e2e)),
            message="objectives without one are held by everything: write ttft, itl or e2e, or remove objectives",
        ),
    )


class Comparison(ApiModel):
    """A second target, measured in turns with the first."""

    target: BenchmarkTarget
    rounds: Annotated[int, Field(ge=6, le=64)] | None = None
    """Pairs of blocks, each target once in each. Default: 20."""
    equal_within_percent: Annotated[float, Field(ge=1, le=50)] | None = None
    """Differences that make no difference. Default: 5."""


class ResultStore(ApiModel):
    """Where the whole result goes."""

    claim: ClaimFile
    """A folder of a claim. Default: the ConfigMap <name>-result."""


def _rows(spec: "BenchmarkSpec") -> int:
    """Rows of a result: cells of all targets."""
    loads = spec.concurrency or spec.request_rate or DEFAULT_CONCURRENCY
    return len(spec.workloads or ("chat",)) * len(loads) * (2 if spec.compare is not None else 1)


class BenchmarkSpec(ApiModel):
    """What is measured, under which load, and what is held against it."""

    target: BenchmarkTarget
    compare: Comparison | None = None
    workloads: (
        Annotated[tuple[BenchmarkWorkload, ...], Field(min_length=1, max_length=MAX_WORKLOADS), ListMap("name")] | None
    ) = None
    """Default: chat."""
    concurrency: (
        Annotated[tuple[Annotated[int, Field(ge=1, le=1024)], ...], Field(min_length=1, max_length=MAX_LOADS)] | None
    ) = None
    """Requests that are under way at any time, one row of results each. Default: 1, 4, 8, 16."""
    request_rate: (
        Annotated[tuple[Annotated[float, Field(ge=0.001, le=10_000)], ...], Field(min_length=1, max_length=MAX_LOADS)]
        | None
    ) = None
    """Requests per second at random times (Poisson), one row of results each; instead of concurrency."""
    warm_up: Duration | None = None
    """Load before each row whose answers do not count. Default: 10s."""
    duration: Duration | None = None
    """Of one repetition of one row; in a comparison, of one block. Default: 60s."""
    requests: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Requests of one repetition of one row; instead of duration."""
    repetitions: Annotated[int, Field(ge=1, le=20)] | None = None
    """How often each row is measured. Default: 3; a comparison has rounds instead."""
    objectives: Objectives | None = None
    allowed_error_percent: Percent | None = None
    """Requests that may fail, of all of a row. Default: 0."""
    allowed_scatter_percent: Percent | None = None
    """How far repetitions of a row may be apart, as the range of their medians over the median of all. Default: 20."""
    request_timeout: Duration | None = None
    """After which a request has failed. Default: 120s."""
    result: ResultStore | None = None
    ttl_after_finished: Duration | None = None
    """After which a finished Benchmark is deleted. Default: the administrator's; without one it stays."""
    resources: Resources | None = None
    """Of the load generator. Its CPU is looked at: one that had too little gives no result."""
    node_selector: Annotated[Mapping[LabelKey, LabelValue], Field(max_length=16)] | None = None
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=16)] | None = None
    notes: Annotated[str, Field(max_length=1024)] | None = None
    """Text for the result."""

    rules: ClassVar = (
        Rule(
            cel="self == oldSelf",
            # A single object has no spec before this one.
            holds=lambda s: True,
            message="the spec of a Benchmark cannot be changed, because a result belongs to what was asked: delete the Benchmark, or make one of another name",
        ),
        Rule(
            cel="!(has(self.concurrency) && has(self.requestRate))",
            holds=lambda s: s.concurrency is None or s.request_rate is None,
            message="concurrency and requestRate are two kinds of load: write one of them",
        ),
        Rule(
            cel="!(has(self.duration) && has(self.requests))",
            holds=lambda s: s.duration is None or s.requests is None,
            message="duration and requests both say when a repetition ends: write one of them",
        ),
        Rule(
            cel="!(has(self.repetitions) && has(self.compare))",
            holds=lambda s: s.repetitions is None or s.compare is None,
            message="a comparison has compare.rounds: remove repetitions",
        ),
        Rule(
            cel=f"(has(self.workloads) ? self.workloads.size() : 1) * (has(self.concurrency) ? self.concurrency.size() : has(self.requestRate) ? self.requestRate.size() : {len(DEFAULT_CONCURRENCY)}) * (has(self.compare) ? 2 : 1) <= {MAX_ROWS}",
            holds=lambda s: _rows(s) <= MAX_ROWS,
            message=f"a result has one row for each workload, load (concurrency or requestRate) and target, at most {MAX_ROWS}, and these are more: a comparison has two targets, so write at most {MAX_ROWS // 2} of workloads times loads, or make several Benchmarks",
        ),
        Rule(
            cel="!has(self.duration) || duration(self.duration) >= duration('1s') && duration(self.duration) <= duration('4h')",
            holds=lambda s: s.duration is None or 1 <= seconds_of(s.duration) <= 14_400,
            message="duration is out of bounds: write one between 1s and 4h",
        ),
        Rule(
            cel="!has(self.warmUp) || duration(self.warmUp) <= duration('1h')",
            holds=lambda s: s.warm_up is None or seconds_of(s.warm_up) <= 3600,
            message="warmUp is out of bounds: write at most 1h",
        ),
        Rule(
            cel="!has(self.requestTimeout) || duration(self.requestTimeout) >= duration('1s') && duration(self.requestTimeout) <= duration('1h')",
            holds=lambda s: s.request_timeout is None or 1 <= seconds_of(s.request_timeout) <= 3600,
            message="requestTimeout is out of bounds: write one between 1s and 1h",
        ),
    )


class ProgressStatus(ApiModel):
    """How far it is, as the Job last told it."""

    stage: Literal["Waiting", "Starting", "Tokenizer", "WarmUp", "Measuring", "Evaluating"]
    workload: Word | None = None
    load: Word | None = None
    """Such as "concurrency 8" or "2.5 requests/s"."""
    percent: Annotated[int, Field(ge=0, le=100)]
    seconds_left: Annotated[int, Field(ge=0)] | None = None


class MeasuredTargetStatus(ApiModel):
    """What answered, for whoever reads the numbers later."""

    service: Word | None = None
    revision: Word | None = None
    url: Name | None = None
    engine: Word | None = None
    version: Word | None = None
    model: Name
    quantization: Word | None = None
    layout: Word | None = None
    hardware: Name | None = None
    """Accelerator product, or the CPU of the node."""
    replicas: Annotated[int, Field(ge=0)] | None = None
    images: Annotated[tuple[Name, ...], Field(max_length=8)] | None = None
    """Images of its pods, by digest where the node tells it."""


class LatencyStatus(ApiModel):
    """Milliseconds; a percentile for which there were too few samples is absent."""

    p50: Annotated[float, Field(ge=0)] | None = None
    p90: Annotated[float, Field(ge=0)] | None = None
    p99: Annotated[float, Field(ge=0)] | None = None


class RowStatus(ApiModel):
    """One workload under one load. Absent numbers were not measured."""

    workload: Word
    load: Word
    target: Literal["target", "compared"]
    samples: Annotated[int, Field(ge=0)]
    """Requests that were answered as asked, over all repetitions."""
    error_percent: Annotated[float, Field(ge=0, le=100)] | None = None
    ttft: LatencyStatus | None = None
    itl: LatencyStatus | None = None
    tpot: LatencyStatus | None = None
    e2e: Annotated[LatencyStatus | None, Field(alias="e2e")] = None
    requests_per_second: Annotated[float, Field(ge=0)] | None = None
    output_tokens_per_second: Annotated[float, Field(ge=0)] | None = None
    goodput_per_second: Annotated[float, Field(ge=0)] | None = None
    """Requests per second that held the objectives."""
    holds_objectives: bool | None = None
    prompt_tokens: Annotated[float, Field(ge=0)] | None = None
    """Mean, as the engine counted."""
    output_tokens: Annotated[float, Field(ge=0)] | None = None
    kv_use_percent: Annotated[float, Field(ge=0, le=100)] | None = None
    """Highest that was seen."""
    reason: Word | None = None
    """Why the row has no numbers."""
    message: Text | None = None


class DifferenceStatus(ApiModel):
    """One metric of one workload and load, compared."""

    workload: Word
    load: Word
    metric: Word
    verdict: Literal["Better", "Worse", "Equal", "Inconclusive"]
    """Of the compared one against the target."""
    percent: float | None = None
    """Estimate of the difference, compared against target."""
    low_percent: float | None = None
    high_percent: float | None = None


class WinnerStatus(ApiModel):
    """What a comparison says of one workload."""

    workload: Word
    winner: Literal["target", "compared", "none"]
    message: Text


class ReportStatus(ApiModel):
    """Where the whole result is."""

    config_map: Word | None = None
    claim: Text | None = None
    """Claim, folder and file."""
    sha256: Word
    """Of the key `result` of the ConfigMap."""


class BenchmarkStatus(ApiModel):
    """What came of it."""

    observed_generation: Annotated[int, Field(json_schema_extra={"default": -1})]
    """Generation of the spec that this status speaks of; -1: the operator has not seen the object yet."""
    conditions: (
        Annotated[
            tuple[ConditionStatus, ...],
            Field(
                max_length=16,
                json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
            ),
        ]
        | None
    ) = None
    phase: Literal["Pending", "Running", "Succeeded", "Inconclusive", "Failed"] | None = None
    """Inconclusive: it ran, and its numbers would not be honest, or show no difference."""
    job: Word | None = None
    """The Job that measures; it stays the same until the end."""
    attempts: Annotated[int, Field(ge=0)] | None = None
    """Jobs that ended without a result before this one."""
    target_digest: Word | None = None
    """Of the pods that were measured, at the start: another one at the end means that there is no result."""
    waiting_since: Time | None = None
    started_at: Time | None = None
    finished_at: Time | None = None
    progress: ProgressStatus | None = None
    target: MeasuredTargetStatus | None = None
    compared: MeasuredTargetStatus | None = None
    results: Annotated[tuple[RowStatus, ...], Field(max_length=MAX_ROWS)] | None = None
    differences: Annotated[tuple[DifferenceStatus, ...], Field(max_length=MAX_ROWS)] | None = None
    """Those that are not Equal first; the whole result has all."""
    winners: Annotated[tuple[WinnerStatus, ...], Field(max_length=MAX_WORKLOADS)] | None = None
    results_cut: bool | None = None
    """True: for want of room not all rows or differences are here, or messages of rows are shortened; the whole result has
    all. Absent otherwise."""
    report: ReportStatus | None = None

    rules: ClassVar = ()
