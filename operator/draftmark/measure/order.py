"""What a Benchmark's Job is asked to do: everything is resolved, nothing is looked up by the Job itself.

The operator writes it (`render.benchmark`) into the ConfigMap that the Job mounts; `draftmark.benchmark_runner` reads it.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class Document(BaseModel):
    """JSON data that two programs of one version exchange, or that is kept: unknown fields are an error."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, frozen=True, extra="forbid", use_attribute_docstrings=True
    )


class Counters(Document):
    """Names of an engine's metrics, without labels. None: it has none."""

    running: str | None = None
    """Gauge: requests under way."""
    waiting: str | None = None
    """Gauge: requests that wait."""
    prompt_tokens: str | None = None
    """Counter: tokens of prompts, cached ones included."""
    computed_prompt_tokens: str | None = None
    """Counter: tokens of prompts that were computed, cached ones left out."""
    cached_prompt_tokens: str | None = None
    """Counter: tokens of prompts that came from a prefix cache."""
    output_tokens: str | None = None
    """Counter: generated tokens."""
    kv_use: str | None = None
    """Gauge: share of the KV cache in use, 0 to 1."""
    started: str | None = None
    """Gauge: when the process started, Unix seconds. Over several pods it is summed up: whichever of them starts anew, the sum
    grows."""


class EngineSign(Document):
    """How an engine shows what it is, and where it tells its version."""

    engine: str
    """Its name."""
    owned_by: str
    """What it says of a model in `/v1/models`."""
    version_path: str
    """Where it answers JSON that has its version in `version_field`."""
    version_field: str = "version"


class FromClaim(Document):
    """A tokenizer's folder, or a GGUF file, that the Job has mounted."""

    kind: Literal["mounted"] = "mounted"
    path: str
    """Absolute, in the Job's container."""


class FromHub(Document):
    """A tokenizer that is fetched, with the token in HF_TOKEN where there is one."""

    kind: Literal["hub"] = "hub"
    endpoint: str
    repository: str
    revision: str | None = None
    file: str | None = None
    """Of a GGUF file: its name."""
    quantization: str | None = None
    """Of a GGUF file whose name is not known: which one of the repository, such as Q4_K_M."""
    redirect_hosts: tuple[str, ...] = ()
    allow_http: bool = False


class TargetFacts(Document):
    """What the operator knows of a target; it is copied into the result."""

    service: str | None = None
    revision: str | None = None
    engine: str | None = None
    version: str | None = None
    quantization: str | None = None
    layout: str | None = None
    hardware: str | None = None
    replicas: int | None = None
    images: tuple[str, ...] = ()


class AcceleratorMemory(Document):
    """Where it is known what a target's GPUs hold: a Prometheus that scrapes NVIDIA's DCGM exporter."""

    prometheus: str
    """URL below which its API is, such as http://prometheus-operated.monitoring.svc:9090."""
    namespace: str
    """Of the pods."""
    pods: tuple[str, ...]
    """Names of the pods that hold the GPUs."""
    accelerators: int
    """GPUs of all these pods together. Where another number of them is told of, there is no figure: it would be of a part."""


class OrderedTarget(Document):
    """A server that is measured."""

    label: Literal["target", "compared"]
    url: str
    """Without a path, such as http://llama-router-1f2e3d4c.default.svc:30000."""
    model: str
    tokenizer: Annotated[FromClaim | FromHub, Field(discriminator="kind")]
    metrics_urls: tuple[str, ...] = ()
    """Of its engine pods."""
    counters: Counters = Counters()
    memory: AcceleratorMemory | None = None
    """None: it has no accelerators, or nobody knows what they hold."""
    signs: tuple[EngineSign, ...] = ()
    """By which its engine is looked for where the facts have none."""
    facts: TargetFacts = TargetFacts()


class Lengths(Document):
    """Tokens, spread around a mean."""

    mean: int
    standard_deviation: int | None = None
    min: int | None = None
    max: int | None = None


class OrderedWorkload(Document):
    """What is sent."""

    name: str
    prompt: Lengths | None = None
    """None: the data set says."""
    output: Lengths
    shared_prefix_tokens: int = 0
    dataset: str | None = None
    """Absolute path of the file of JSON lines, in the Job's container."""


class Load(Document):
    """How much is sent: one of both."""

    concurrency: int | None = None
    request_rate: float | None = None

    @property
    def label(self) -> str:
        """As results name it."""
        if self.concurrency is not None:
            return f"concurrency {self.concurrency}"
        return f"{self.request_rate:g} requests/s"


class Bounds(Document):
    """Upper bounds of one latency in milliseconds."""

    p50: float | None = None
    p90: float | None = None
    p99: float | None = None


class OrderedObjectives(Document):
    """What users shall see."""

    ttft: Bounds = Bounds()
    itl: Bounds = Bounds()
    e2e: Annotated[Bounds, Field(alias="e2e")] = Bounds()  # not e2E


class Order(Document):
    """The whole of it."""

    benchmark: str
    namespace: str
    uid: str
    job: str
    """Name of the Job: what it tells says so, for what an earlier one told late is not to be believed."""
    targets: tuple[OrderedTarget, ...]
    """One, or two for a comparison."""
    workloads: tuple[OrderedWorkload, ...]
    loads: tuple[Load, ...]
    warm_up_s: float
    duration_s: float | None = None
    """Of one block; None: `requests` says when it ends."""
    requests: int | None = None
    repetitions: int
    """Blocks of each target for each workload and load; in a comparison its rounds."""
    equal_within_percent: float = 5.0
    objectives: OrderedObjectives | None = None
    allowed_error_percent: float = 0.0
    allowed_scatter_percent: float = 20.0
    request_timeout_s: float = 120.0
    result_config_map: str
    """Where progress and the result are written, keys `progress` and `result`."""
    result_path: str | None = None
    """Absolute path of the file for the whole result on a claim; None: it goes to the ConfigMap."""
    notes: str = ""
