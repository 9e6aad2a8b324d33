"""What an engine is to the rest of Draftmark. One file per engine implements it; nothing else asks for its name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from draftmark.api.inference_service import AdapterSpec, EngineOptions, InferenceServiceSpec
from draftmark.api.model_uri import ModelSource
from draftmark.engines.flag_table import FlagTable
from draftmark.facts.models import ModelFacts
from draftmark.measure.order import Counters, EngineSign
from draftmark.plan import Layout, ModelKind, Plan, Unplannable

NO_OPTIONS: Final = EngineOptions()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a service asks of an engine, and what was chosen for it so far."""

    spec: InferenceServiceSpec
    source: ModelSource
    layout: Layout
    served_name: str
    #: None: the flags of the version are not known.
    table: FlagTable | None

    @property
    def options(self) -> EngineOptions:
        return self.spec.engine.options or NO_OPTIONS

    @property
    def args(self) -> Sequence[str]:
        return self.spec.engine.args or ()

    @property
    def env_names(self) -> Sequence[str]:
        return [variable.name for variable in self.spec.engine.env or ()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A number that the user left open, and why it is this one."""

    value: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The largest step of an engine: what its activations are sized by."""

    #: Requests at once.
    requests: int
    #: Tokens of all of them; None: the engine chooses.
    tokens: int | None
    tensor: int
    pipeline: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryUse:
    """What an engine does with a GPU's memory."""

    #: Of the GPU, what the engine fills at most.
    usable_bytes: int
    #: Of that, what is neither weights nor cache: activations of the largest step, graphs, buffers. An estimate.
    overhead_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuMemoryUse:
    """What an engine needs on CPU besides weights and cache."""

    #: The process and its buffers. An estimate.
    overhead_bytes: int
    #: What it keeps besides because the user says so.
    further_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuCache:
    """The cache that an engine sets aside on CPU."""

    #: For what must fit.
    least_bytes: int
    #: Under the container's limit.
    taken_bytes: int
    #: What else is to be known of it; empty: nothing.
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchRequest:
    """What an engine needs to know to write its command line."""

    plan: Plan
    source: ModelSource
    options: EngineOptions
    #: CPU cores that the container may use, rounded up; None when the user set no bound.
    cpu_cores: int | None
    #: Bytes that the model cannot exceed, because the container's memory could not hold more; None when unknown.
    max_model_bytes: int | None
    #: Seconds that a request may take; a pod that stops lets its requests end first.
    request_timeout_s: int
    #: Whether the image is one that users bring along: which programs it holds is not known.
    is_own_image: bool
    #: Name and key of the Secret with the hub's token.
    auth_secret: tuple[str, str] | None
    #: Branch, tag or commit of the model on the hub.
    revision: str | None = None
    quantization: str | None = None
    adapters: Sequence[AdapterSpec] = ()
    #: What batch sizes are chosen for, as the user wrote it.
    workload_kind: str | None = None
    #: The user's own arguments, checked.
    args: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """An HTTP probe of the engine's port."""

    path: str
    period_s: int
    timeout_s: int
    failure_threshold: int

    def to_json(self) -> dict[str, Any]:
        return {
            "httpGet": {"path": self.path, "port": "http", "scheme": "HTTP"},
            "periodSeconds": self.period_s,
            "timeoutSeconds": self.timeout_s,
            "successThreshold": 1,
            "failureThreshold": self.failure_threshold,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How one engine pod is started, watched and stopped."""

    args: tuple[str, ...]
    port: int
    #: Empty: the image's entry point is the server itself, wherever the image keeps it.
    command: tuple[str, ...] = ()
    env: tuple[Mapping[str, Any], ...] = ()
    #: Pod volumes, and where the container mounts them.
    volumes: tuple[Mapping[str, Any], ...] = ()
    mounts: tuple[Mapping[str, Any], ...] = ()
    startup: Probe
    readiness: Probe
    liveness: Probe
    #: What the kubelet runs between the pod's removal from the endpoints and SIGTERM.
    pre_stop: Mapping[str, Any]
    #: Seconds from the deletion to SIGKILL; more than `pre_stop` takes.
    grace_s: int
    metrics_path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the choice of an engine depends on."""

    spec: InferenceServiceSpec
    source: ModelSource
    #: Resources of the GPUs that there are, or that are asked for; empty: CPU.
    gpu_resources: tuple[str, ...]

    @property
    def options(self) -> EngineOptions:
        return self.spec.engine.options or NO_OPTIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class Suit:
    """An engine that can, and why it is taken when no other one suits better."""

    #: The highest is taken.
    rank: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Misfit:
    """An engine that cannot, and why."""

    why: str


class Engine(Protocol):
    """A serving engine: its tables, and the launch of one pod."""

    @property
    def name(self) -> str: ...

    @property
    def default_version(self) -> str:
        """The version that this release was tested with."""
        ...

    @property
    def counters(self) -> Counters:
        """Where its metrics tell what a measurement looks at."""
        ...

    @property
    def sign(self) -> EngineSign:
        """By what a server is known to be this engine."""
        ...

    @property
    def default_image_path(self) -> str | None:
        """Where an image holds the model whose URI does not say; None: it is all of the image."""
        ...

    def default_image(self, version: str, resource_name: str | None) -> str | None:
        """The public image for a version on this hardware (None: CPU), or None when there is no such image."""
        ...

    def flag_table(self, version: str) -> FlagTable | None:
        """The flags of exactly this version, or None when they are not known."""
        ...

    def refuse(self, wanted: Wanted) -> Unplannable | None:
        """The first thing asked for that this engine cannot do."""
        ...

    def choose_concurrency(self, spec: InferenceServiceSpec, layout: Layout) -> Choice:
        """Requests at once for a service that says nothing about it."""
        ...

    def choose_batched_tokens(self, spec: InferenceServiceSpec, layout: Layout, *, least: int) -> Choice | None:
        """Tokens that one step of the engine may take, `least` or more; None where it is not the operator's to choose."""
        ...

    def model_kind(self, args: Sequence[str]) -> ModelKind:
        """What the served model does, as far as the user's arguments say so."""
        ...

    def suits(self, asked: "Asked") -> "Suit | Misfit":
        """Whether to take this engine for a service that leaves the choice open, and how gladly."""
        ...

    def memory_use(self, gpu_bytes: int, facts: ModelFacts, step: Step, args: Sequence[str]) -> MemoryUse:
        """What it does with a GPU of so many bytes, as the flags that it is started with say."""
        ...

    def cpu_memory_use(self, spec: InferenceServiceSpec, facts: ModelFacts, step: Step) -> CpuMemoryUse | None:
        """What it needs on CPU besides weights and cache; None: not known, and nothing is summed up."""
        ...

    def cpu_cache(self, spec: InferenceServiceSpec, *, needed: int, left: int | None, limit: int | None) -> CpuCache:
        """The cache that it sets aside on CPU, in bytes.

        Args:
            needed: For what must fit.
            left: Of the container's limit, beside weights and all else; None: there is no limit.
            limit: The container's; None: it has none.
        """
        ...

    def whole_contexts(self, requests: int) -> int:
        """Requests for which the cache of a whole context is set aside at the start; 1: all share what there is."""
        ...

    def kv_dtype(self, facts: ModelFacts, option: str | None) -> str | None:
        """Number format of the KV cache, as `KV_DTYPE_BYTES` names it, for what the user writes; None: not known."""
        ...

    def refuse_split(self, facts: ModelFacts, *, tensor: int, pipeline: int, expert: bool = False) -> str | None:
        """Why this model cannot be split so by this engine, or None.

        Args:
            expert: Whether experts are spread over the GPUs of `tensor`.
        """
        ...

    def launch(self, request: LaunchRequest) -> Launch: ...
