"""The status of an InferenceService: decisions, transitions and where to send requests. Live readings are metrics.

These types give the schema; the operator writes plain JSON data of this shape (`draftmark.status`).
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from draftmark.api.base import ApiModel
from draftmark.api.model_architecture import ArchitectureSpec

Text = Annotated[str, Field(max_length=1024)]
Word = Annotated[str, Field(max_length=64)]
Name = Annotated[str, Field(max_length=512)]
Time = Annotated[str, Field(max_length=32, json_schema_extra={"format": "date-time"})]


class ConditionStatus(ApiModel):
    """A condition as metav1.Condition defines it."""

    type: Annotated[str, Field(max_length=316)]
    status: Literal["True", "False", "Unknown"]
    reason: Annotated[str, Field(min_length=1, max_length=1024)]
    message: Annotated[str, Field(max_length=32768)]
    observed_generation: Annotated[int, Field(ge=0)] | None = None
    last_transition_time: Annotated[str, Field(max_length=32, json_schema_extra={"format": "date-time"})]


class ReasonStatus(ApiModel):
    """One decision, and why it fell this way."""

    code: Word
    message: Text


class SuggestionStatus(ApiModel):
    """What the operator would choose today, when that is not what runs."""

    id: Word
    """Write it to spec.rollout.accept to take the suggestion."""
    message: Text


class RejectedStatus(ApiModel):
    """An option that was looked at and not taken."""

    option: Annotated[str, Field(max_length=128)]
    code: Word
    message: Text


class MemoryStatus(ApiModel):
    """The memory sum of the GPU of a replica that is fullest, in bytes; on CPU of the engine's container."""

    gpu_bytes: Annotated[int, Field(ge=0)]
    """Memory of the GPU; on CPU engine.resources.limits.memory."""
    per_gpu_bytes: Annotated[int, Field(ge=0)]
    """What must fit: weights, buffers, and the cache of one request of the whole context and the workload's usual ones."""
    weight_bytes: Annotated[int, Field(ge=0)]
    kv_bytes_per_token: Annotated[int, Field(ge=0)]
    kv_tokens: Annotated[int, Field(ge=0)] | None = None
    """Tokens of all requests for which there is cache."""


class ParallelismStatus(ApiModel):
    """How one replica is split over its GPUs."""

    tensor: Annotated[int, Field(ge=1)]
    pipeline: Annotated[int, Field(ge=1)]
    data: Annotated[int, Field(ge=1)]
    """Copies of the model in one replica."""
    expert: bool
    """Whether experts are whole, each on one of the GPUs of tensor."""
    nodes: Annotated[int, Field(ge=1)]
    gpus_per_replica: Annotated[int, Field(ge=0)]
    """0 is CPU."""


class PlanStatus(ApiModel):
    """What was decided for the current revision."""

    engine: Word
    version: Word
    image: Name
    layout: Word
    """GPUs of one replica, or CPU."""
    parallelism: ParallelismStatus | None = None
    max_context_length: Annotated[int, Field(ge=0)]
    """Tokens that one request may hold."""
    concurrency: Annotated[int, Field(ge=0)]
    """Requests that one replica serves at the same time."""
    parameters: Annotated[int, Field(ge=0)] | None = None
    """Of the model, where it is known."""
    memory: MemoryStatus | None = None
    """Where model and GPU are known, or on CPU model and limit."""
    reasons: Annotated[tuple[ReasonStatus, ...], Field(max_length=16)]
    rejected: Annotated[tuple[RejectedStatus, ...], Field(max_length=8)] | None = None
    suggestion: SuggestionStatus | None = None


class RevisionStatus(ApiModel):
    """One revision that has pods, or had them."""

    hash: Word
    phase: Literal["Current", "Candidate", "Retiring", "Failed"]
    """Current: what serves, or is started first. Candidate: about to take over. Retiring: on its way out. Failed: was
    withdrawn."""
    weight: Annotated[int, Field(ge=0, le=100)] | None = None
    """Percent of new requests."""
    replicas: Annotated[int, Field(ge=0)]
    ready_replicas: Annotated[int, Field(ge=0)]
    proven_at: Time | None = None
    """When a request through the gateway was first answered by this revision."""
    progressed_at: Time | None = None
    """When the candidate last came further; from then rollout.progressDeadline counts."""
    progress: Annotated[int, Field(ge=0)] | None = None
    """What it had reached then: ready pods, and its first answer."""
    drained_since: Time | None = None
    """Since when no gateway sends it new requests."""
    failed_at: Time | None = None
    reason: Word | None = None
    """Why it was withdrawn."""
    message: Text | None = None


class StartupStatus(ApiModel):
    """How long the first pod of the current revision took to start, by stage, in whole seconds as Kubernetes tells
    them."""

    revision: Word
    schedule_seconds: Annotated[int, Field(ge=0)] | None = None
    """From the pod's creation to its node."""
    image_seconds: Annotated[int, Field(ge=0)] | None = None
    """From its node to the start of the engine: volumes and image."""
    load_seconds: Annotated[int, Field(ge=0)] | None = None
    """From the start of the engine to its readiness: weights, compilation, warm-up."""
    total_seconds: Annotated[int, Field(ge=0)]


class ModelFactsStatus(ApiModel):
    """What a Job of the service's namespace has told of the model, so that it is asked once."""

    state: Literal["Asked", "Known", "Failed"]
    """Asked: the Job is to answer. Known: it has. Failed: it could not."""
    question: Word
    """Stands for the URI, the revision and what is read of it."""
    attempt: Annotated[int, Field(ge=0)] | None = None
    """Jobs before this one that were asked the same. Default: none."""
    at: Time
    """When it was asked, or answered."""
    failures: Annotated[int, Field(ge=0)] | None = None
    """Answers in a row that told nothing."""
    generation: Annotated[int, Field(ge=0)] | None = None
    """Generation of the spec when it failed: an edit asks again."""
    retried_at: Time | None = None
    """The time to come that the annotation draftmark.dev/retry named when it failed: it asks once."""
    commit: Word | None = None
    """Commit of the repository that was read."""
    facts: ArchitectureSpec | None = None
    """In the form of spec.model.architecture."""
    code: Word | None = None
    message: Text | None = None


class CapacityStatus(ApiModel):
    """What one replica carried of one workload at the objectives."""

    workload: Word
    is_carried: bool
    """False: no load that was measured held the objectives."""
    load: Word | None = None
    """At which the most was carried."""
    requests_per_second: Annotated[float, Field(ge=0)] | None = None
    output_tokens_per_second: Annotated[float, Field(ge=0)] | None = None
    prompt_tokens: Annotated[float, Field(ge=0)] | None = None
    """Mean of the prompts."""
    is_lower_bound: bool | None = None
    """True: every load that was measured held the objectives, so that more may be possible."""


class HeadroomStatus(ApiModel):
    """What one replica carries at the objectives of a Benchmark, as that measured it."""

    state: Literal["Measured", "Stale", "Unmeasured"]
    """Stale: another revision was measured than the one that serves (while none does, the one that the spec asks for)."""
    message: Text | None = None
    """What is missing, and the way out."""
    benchmark: Name | None = None
    measured_at: Time | None = None
    revision: Word | None = None
    hardware: Name | None = None
    images: Annotated[tuple[Name, ...], Field(max_length=1)] | None = None
    """Of the pods that were measured."""
    rows: Annotated[tuple[CapacityStatus, ...], Field(max_length=8)] | None = None


class WorkloadCostStatus(ApiModel):
    """What tokens of one workload cost at the measured capacity. Each of both numbers bears the whole price of a replica:
    they are two views of one sum, and are not added."""

    workload: Word
    per_million_input_tokens: Annotated[float, Field(ge=0)] | None = None
    per_million_output_tokens: Annotated[float, Field(ge=0)] | None = None


class CostStatus(ApiModel):
    """From the administrator's price per accelerator and the measured capacity; absent where one of both is not known."""

    currency: Word
    per_replica_hour: Annotated[float, Field(ge=0)]
    rows: Annotated[tuple[WorkloadCostStatus, ...], Field(max_length=8)]


class InferenceServiceStatus(ApiModel):
    """What the operator decided and saw."""

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
    url: Name | None = None
    """Where clients inside the cluster send requests."""
    model: Name | None = None
    """Name under which requests ask for the model."""
    replicas: Annotated[int, Field(ge=0)] | None = None
    """Engine pods that exist, over all revisions."""
    ready_replicas: Annotated[int, Field(ge=0)] | None = None
    selector: Annotated[str, Field(max_length=512)] | None = None
    """Label selector of the engine pods, for autoscalers."""
    plan: PlanStatus | None = None
    startup: StartupStatus | None = None
    model_facts: ModelFactsStatus | None = None
    headroom: HeadroomStatus | None = None
    cost: CostStatus | None = None
    revisions: (
        Annotated[
            tuple[RevisionStatus, ...],
            Field(
                max_length=5,
                json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["hash"]},
            ),
        ]
        | None
    ) = None

    rules: ClassVar = ()
