"""InferenceService: one model, served.

A field is here once something follows from it; DESIGN's later fields are not. The CRD is generated from these types
(`draftmark generate crds`), and no field that a pod depends on has a default in the schema: what a user did not write
stays unwritten, so that a later version may choose better without changing the revision that runs.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from draftmark.api.base import (
    Annotations,
    ApiModel,
    DnsLabel,
    DnsName,
    LabelKey,
    Labels,
    LabelValue,
    ListMap,
    Quantity,
    Rule,
    number_to_text,
)
from draftmark.api.duration import Duration, seconds_of
from draftmark.api.model_architecture import ArchitectureSpec
from draftmark.api.model_uri import SCHEMES, UnreadableUri, parse_model_uri

#: Engines that can be asked for. `engines.registry` has one file for each.
ENGINE_NAMES: Final = ("auto", "llama-cpp", "vllm", "sglang")

MAX_REPLICAS: Final = 1000


def _is_readable(uri: str) -> bool:
    try:
        parse_model_uri(uri)
    except UnreadableUri:
        return False
    return True


class SecretKeyRef(ApiModel):
    """One key of a Secret in the service's namespace. The kubelet reads it; the operator never does."""

    name: DnsName
    key: Annotated[str, Field(pattern=r"^[-._a-zA-Z0-9]+$", max_length=253)]


class ConfigMapKeyRef(ApiModel):
    """One key of a ConfigMap in the service's namespace."""

    name: DnsName
    key: Annotated[str, Field(pattern=r"^[-._a-zA-Z0-9]+$", max_length=253)]


#: A name that requests ask for.
ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]*$", max_length=253)]
#: A branch, tag or commit of a repository on the hub.
Revision = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$", max_length=128)]


class AdapterSpec(ApiModel):
    """A LoRA adapter, loaded when the engine starts and asked for by its own name."""

    name: ModelName
    """Name under which requests ask for the model with this adapter; for sglang MODEL:ADAPTER."""

    uri: Annotated[str, Field(min_length=1, max_length=1024)]
    """Where the adapter is: hf://org/repo, pvc://claim/folder or oci://registry/image:tag#folder."""

    rank: Annotated[int, Field(ge=1, le=512)] | None = None
    """Its rank, `r` in adapter_config.json. Default: 16."""

    rules: ClassVar = (
        Rule(
            cel="self.uri.matches('^(hf|pvc|oci)://')",
            holds=lambda a: a.uri.partition("://")[0] in ("hf", "pvc", "oci") and "://" in a.uri,
            message="an adapter's uri needs a scheme: use hf://, pvc:// or oci://",
        ),
    )


class ModelSpec(ApiModel):
    """What is served."""

    uri: Annotated[str, Field(min_length=1, max_length=1024)]
    """Where the weights are: hf://org/repo, pvc://claim/path or oci://registry/image:tag#path (an image volume); for
    llama-cpp a GGUF file: hf://org/repo:Q4_K_M, https://host/file.gguf, pvc://claim/path/file.gguf."""

    name: ModelName | None = None
    """Name under which requests ask for the model. Default: the name of the InferenceService."""

    revision: Revision | None = None
    """Branch, tag or commit on the hub, for hf:// models. Default: the hub's, main. A commit stays what it is."""

    quantization: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=48)] | None = None
    """How the engine quantizes the weights, as it names it, such as fp8. Default: as the checkpoint is."""

    adapters: Annotated[tuple[AdapterSpec, ...], Field(max_length=16), ListMap("name")] | None = None
    """LoRA adapters that are served beside the model."""

    max_context_length: Annotated[int, Field(ge=16, le=16_777_216)] | None = None
    """Tokens of prompt and answer that one request may hold. Default: the most that fits on the GPUs where the model is known,
    else 4096."""

    auth_secret_ref: SecretKeyRef | None = None
    """Secret key that holds the hub's token, for hf:// models and adapters."""

    architecture: ArchitectureSpec | None = None
    """The shape of the model, where it cannot be read from its files: the facts of config.json. Default: they are read,
    where something is decided by them."""

    rules: ClassVar = (
        Rule(
            cel="self.uri.matches('^(hf|https|pvc|oci)://')",
            holds=lambda m: m.uri.partition("://")[0] in SCHEMES and "://" in m.uri,
            message="model.uri needs a scheme: use hf://, https://, pvc:// or oci://",
        ),
        Rule(
            cel="!has(self.authSecretRef) || self.uri.startsWith('hf://') || (has(self.adapters) && self.adapters.exists(a, a.uri.startsWith('hf://')))",
            holds=lambda m: (
                m.auth_secret_ref is None
                or m.uri.startswith("hf://")
                or any(a.uri.startswith("hf://") for a in m.adapters or ())
            ),
            message="model.authSecretRef is used for hf:// models only: remove it, or use an hf:// uri",
        ),
        Rule(
            cel="!has(self.revision) || self.uri.startsWith('hf://')",
            holds=lambda m: m.revision is None or m.uri.startswith("hf://"),
            message="model.revision is used for hf:// models only: remove it, or use an hf:// uri",
        ),
    )


class EnvValueFrom(ApiModel):
    """Where the value of an environment variable comes from."""

    secret_key_ref: SecretKeyRef | None = None
    config_map_key_ref: ConfigMapKeyRef | None = None

    rules: ClassVar = (
        Rule(
            cel="has(self.secretKeyRef) != has(self.configMapKeyRef)",
            holds=lambda v: (v.secret_key_ref is None) != (v.config_map_key_ref is None),
            message="valueFrom needs exactly one of secretKeyRef and configMapKeyRef",
        ),
    )


class EnvVar(ApiModel):
    """One environment variable of the engine's container."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=256)]
    value: Annotated[str, Field(max_length=4096)] | None = None
    value_from: EnvValueFrom | None = None

    rules: ClassVar = (
        Rule(
            cel="!(has(self.value) && has(self.valueFrom))",
            holds=lambda e: e.value is None or e.value_from is None,
            message="an environment variable has either value or valueFrom: remove one of them",
        ),
    )


class Resources(ApiModel):
    """CPU, memory and ephemeral storage of the engine's container. GPUs are asked for under `accelerator`."""

    requests: Annotated[Mapping[LabelKey, Quantity], Field(max_length=16)] | None = None
    limits: Annotated[Mapping[LabelKey, Quantity], Field(max_length=16)] | None = None


class SpeculativeSpec(ApiModel):
    """Speculative decoding: several tokens are guessed, and the model checks them in one pass."""

    method: Literal["ngram", "draftModel", "eagle", "eagle3", "mtp"]
    """Who guesses: ngram, what stood in the prompt before; draftModel, a small model; eagle and eagle3, a head that was
    trained for the model; mtp, the model's own heads."""

    tokens: Annotated[int, Field(ge=1, le=32)]
    """Tokens that are guessed at once."""

    uri: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """Where the guessing model is, for draftModel, eagle and eagle3: hf://, pvc:// or oci://."""

    revision: Revision | None = None
    """Branch, tag or commit on the hub, for an hf:// uri."""

    rules: ClassVar = (
        Rule(
            cel="has(self.uri) == (self.method in ['draftModel', 'eagle', 'eagle3'])",
            holds=lambda s: (s.uri is not None) == (s.method in ("draftModel", "eagle", "eagle3")),
            message="speculative needs a uri for draftModel, eagle and eagle3, and takes none for ngram and mtp",
        ),
        Rule(
            cel="!has(self.uri) || self.uri.matches('^(hf|pvc|oci)://')",
            holds=lambda s: s.uri is None or (s.uri.partition("://")[0] in ("hf", "pvc", "oci") and "://" in s.uri),
            message="speculative.uri needs a scheme: use hf://, pvc:// or oci://",
        ),
        Rule(
            cel="!has(self.revision) || (has(self.uri) && self.uri.startsWith('hf://'))",
            holds=lambda s: s.revision is None or (s.uri is not None and s.uri.startswith("hf://")),
            message="speculative.revision is used for an hf:// uri only: remove it, or use an hf:// uri",
        ),
    )


class EngineOptions(ApiModel):
    """Options in the same words for every engine; each engine's file says how it spells them."""

    prefix_caching: bool | None = None
    """Keep the KV cache of a prompt for the next request with the same beginning. Default: the engine's."""

    chunked_prefill: bool | None = None
    """Read long prompts in parts, between the tokens of other requests. Default: true where the engine can."""

    speculative: SpeculativeSpec | None = None

    structured_output: bool | None = None
    """True: requests may demand JSON of a schema, a choice or a grammar."""

    kv_cache_dtype: Annotated[str, Field(pattern=r"^[a-z0-9_]+$", max_length=32)] | None = Field(
        default=None, alias="kvCacheDType"
    )
    """Data type of the KV cache, as the engine names it, such as q8_0 or fp8. Default: the engine's."""

    kv_offload: Quantity | None = None
    """Memory of the pod that takes the KV cache of prompts for which the GPU has no room, such as 32Gi, for all GPUs
    together. Default: none."""

    api_server_count: Annotated[int, Field(ge=1, le=16)] | None = None
    """Processes that take requests and turn them into tokens. Default: 1."""


class EngineSpec(ApiModel):
    """Which program serves the model, and how."""

    name: Annotated[str, Field(max_length=32, json_schema_extra={"enum": list(ENGINE_NAMES)})]
    """The serving engine; auto takes the one that suits the model, the hardware and the options best."""

    version: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$", max_length=64)] | None = None
    """Engine version. Default: the administrator's, then the one that this release of Draftmark was tested with."""

    image: Annotated[str, Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9._:/@-]*$", max_length=512)] | None = None
    """Image to run instead of the administrator's. Give `version` with it, or its arguments cannot be checked."""

    args: Annotated[tuple[Annotated[str, Field(max_length=4096)], ...], Field(max_length=128)] | None = None
    """Further arguments of the engine, checked against its flag table before a pod is started."""

    env: (
        Annotated[
            tuple[EnvVar, ...],
            Field(max_length=64),
            ListMap("name"),
        ]
        | None
    ) = None
    """Environment variables of the engine's container."""

    resources: Resources | None = None
    """CPU and memory of one engine pod."""

    options: EngineOptions | None = None
    """Engine options in words that are the same for every engine."""

    rules: ClassVar = (
        Rule(
            cel="self.name != 'auto' || !(has(self.version) || has(self.image) || has(self.args))",
            holds=lambda e: e.name != "auto" or not (e.version or e.image or e.args),
            message="engine.version, image and args belong to one engine: name it instead of auto, or remove them",
        ),
    )


class AcceleratorSpec(ApiModel):
    """The GPUs of one replica."""

    product: Annotated[LabelValue, Field(min_length=1)] | None = None
    """Product as the node label nvidia.com/gpu.product (or amd.com/gpu.product-name) has it."""

    resource_name: Annotated[str, Field(pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$", max_length=253)] | None = None
    """Extended resource that the device plugin offers. Default: nvidia.com/gpu."""

    count: Annotated[int, Field(ge=0, le=16)] | None = None
    """GPUs of one replica. Default: planned where the model is known, else parallelism.tensor × pipeline; 0 is CPU."""

    rules: ClassVar = (
        Rule(
            cel="has(self.product) || (has(self.count) && self.count == 0)",
            holds=lambda a: a.product is not None or a.count == 0,
            message="accelerator needs product (see kubectl get nodes -L nvidia.com/gpu.product), or count: 0 for CPU",
        ),
    )


class ParallelismSpec(ApiModel):
    """How one replica spreads over GPUs."""

    tensor: Annotated[int, Field(ge=1, le=16)] | None = None
    """GPUs that share every layer. Default: planned where the model is known and neither degree is given, else 1."""

    pipeline: Annotated[int, Field(ge=1, le=64)] | None = None
    """Stages of layers, each on GPUs of its own. Default: as of tensor."""

    data: Annotated[int, Field(ge=1, le=64)] | None = None
    """Copies of the model. Each is a replica here, so 1 is all that is taken: set replicas instead."""

    expert: bool | None = None
    """True: each expert is whole on one of the GPUs of tensor, and not divided among all of them. For models with
    experts, on two GPUs or more. Default: false, unless experts in blocks of fp8 cannot be divided."""


class WorkloadSpec(ApiModel):
    """What the service is sized for."""

    kind: Literal["chat", "batch", "interactive"] | None = None
    """What batch sizes are chosen for: chat, a first token soon under many requests; batch, tokens per second over all
    requests; interactive, an even flow of tokens for few requests. Default: chat."""

    concurrency: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Requests that one replica serves at the same time. Default: the engine's, by kind."""

    input_tokens: Annotated[int, Field(ge=1, le=16_777_216)] | None = None
    """Tokens of a usual prompt, for which memory is planned. Default, with outputTokens: 2048 together."""

    output_tokens: Annotated[int, Field(ge=1, le=16_777_216)] | None = None
    """Tokens of a usual answer."""

    shared_prefix_tokens: Annotated[int, Field(ge=0, le=16_777_216)] | None = None
    """Tokens at the beginning that most prompts have in common: decides which engine is taken for engine.name auto."""


class EmptyDir(ApiModel):
    """Scratch space of one pod."""

    medium: Literal["", "Memory"] | None = None
    size_limit: Quantity | None = None


class ClaimVolume(ApiModel):
    """A PersistentVolumeClaim of the same namespace."""

    claim_name: DnsName
    read_only: bool | None = None


class ConfigMapVolume(ApiModel):
    """A ConfigMap of the same namespace."""

    name: DnsName


class Volume(ApiModel):
    """A volume of the engine pods; the kinds that a pod of restricted security may have."""

    name: DnsLabel
    mount_path: Annotated[str, Field(pattern=r"^/[A-Za-z0-9._/-]*$", max_length=255)]
    """Where the engine's container sees it."""
    empty_dir: EmptyDir | None = None
    persistent_volume_claim: ClaimVolume | None = None
    config_map: ConfigMapVolume | None = None

    rules: ClassVar = (
        Rule(
            cel="(has(self.emptyDir) ? 1 : 0) + (has(self.persistentVolumeClaim) ? 1 : 0) + (has(self.configMap) ? 1 : 0) == 1",
            holds=lambda v: sum(x is not None for x in (v.empty_dir, v.persistent_volume_claim, v.config_map)) == 1,
            message="a volume needs exactly one of emptyDir, persistentVolumeClaim and configMap",
        ),
        Rule(
            cel="!self.name.startsWith('draftmark-')",
            holds=lambda v: not v.name.startswith("draftmark-"),
            message="volume names that begin with draftmark- are the operator's: choose another name",
        ),
    )


class Toleration(ApiModel):
    """A taint that the engine pods tolerate."""

    key: LabelKey | None = None
    operator: Literal["Exists", "Equal"] | None = None
    value: LabelValue | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: Annotated[int, Field(ge=0, le=2_147_483_647)] | None = None


class TopologySpread(ApiModel):
    """How replicas spread over the nodes; the operator fills in the pod selector."""

    max_skew: Annotated[int, Field(ge=1, le=1000)]
    topology_key: LabelKey
    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"]


class ImagePullSecret(ApiModel):
    """A Secret of the namespace that the kubelet pulls images with."""

    name: DnsName


class PodSecurity(ApiModel):
    """Identity of the engine's process. Everything else of a restricted pod is set and cannot be changed here."""

    run_as_user: Annotated[int, Field(ge=1, le=2_147_483_647)] | None = None
    run_as_group: Annotated[int, Field(ge=1, le=2_147_483_647)] | None = None
    fs_group: Annotated[int, Field(ge=1, le=2_147_483_647)] | None = None
    supplemental_groups: (
        Annotated[tuple[Annotated[int, Field(ge=1, le=2_147_483_647)], ...], Field(max_length=16)] | None
    ) = None


class PodMetadata(ApiModel):
    """Labels and annotations of the engine pods."""

    labels: Labels | None = None
    annotations: Annotations | None = None


class PodTemplate(ApiModel):
    """The parts of a pod that a user may set. Anything else is refused, and said, not dropped."""

    # The API server keeps what it does not know here, so that the operator can name it instead of losing it.
    model_config = ConfigDict(extra="allow", json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})

    metadata: PodMetadata | None = None
    node_selector: Labels | None = None
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=16)] | None = None
    affinity: (
        Annotated[Mapping[str, Any], Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})] | None
    ) = None
    """As in a pod; the API server checks it when the Deployment is applied."""
    topology_spread: Annotated[tuple[TopologySpread, ...], Field(max_length=8)] | None = None
    priority_class_name: DnsName | None = None
    runtime_class_name: DnsName | None = None
    image_pull_secrets: (
        Annotated[
            tuple[ImagePullSecret, ...],
            Field(max_length=8),
            ListMap("name"),
        ]
        | None
    ) = None
    security_context: PodSecurity | None = None
    volumes: (
        Annotated[
            tuple[Volume, ...],
            Field(max_length=16),
            ListMap("name"),
        ]
        | None
    ) = None

    @property
    def refused_fields(self) -> tuple[str, ...]:
        """Fields that stand there and are not on the allow-list."""
        return tuple(sorted(self.model_extra or {}))


def _lasts(value: str | None, least_s: int, most_s: int) -> bool:
    return value is None or least_s <= seconds_of(value) <= most_s


class TrafficSpec(ApiModel):
    """How requests reach the engines."""

    policy: Literal["cacheAware", "leastLoad", "sessionAffinity", "roundRobin"] | None = None
    """How the router chooses an engine pod: by the beginning of the prompt and load, by requests in flight, by the
    header x-smg-routing-key, or in turn. Default: cacheAware."""

    request_timeout: Duration | None = None
    """Longest time from a request's arrival at an engine to the end of its answer, streams included; then it is ended,
    and not sent again. Engine pods take as long to drain. Default: 10m."""

    max_concurrent: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Requests in flight to one revision, over all gateway pods. Default: the plan's concurrency times the revision's
    ready replicas, for each gateway pod."""

    max_queue: Annotated[int, Field(ge=0, le=100_000)] | None = None
    """Requests that wait for a revision beyond maxConcurrent, over all gateway pods; more are refused with 429.
    Default: 200."""

    queue_timeout: Duration | None = None
    """Longest time that a request waits for an engine; then it is refused with 503. Default: 30s."""

    rules: ClassVar = (
        Rule(
            cel="!has(self.requestTimeout) || (duration(self.requestTimeout) >= duration('1s') && duration(self.requestTimeout) <= duration('24h'))",
            holds=lambda t: _lasts(t.request_timeout, 1, 86_400),
            message="traffic.requestTimeout is out of bounds: write a duration between 1s and 24h",
        ),
        Rule(
            cel="!has(self.queueTimeout) || (duration(self.queueTimeout) >= duration('1s') && duration(self.queueTimeout) <= duration('1h'))",
            holds=lambda t: _lasts(t.queue_timeout, 1, 3_600),
            message="traffic.queueTimeout is out of bounds: write a duration between 1s and 1h",
        ),
    )


# No zeros in front: the rules below know nothing by its looks.
_POD_COUNT: Final = "^(0|[1-9][0-9]{0,3}|(0|[1-9][0-9]{0,2})%)$"

#: A number of pods, or a share of the wanted replicas. Its form is a rule of the whole: a pattern of the schema looks at
#: text only, and this may be a number.
PodCount = Annotated[
    str,
    Field(max_length=8, json_schema_extra={"x-kubernetes-int-or-string": True}),
    BeforeValidator(number_to_text),
]


def _is_pod_count(text: str | None) -> bool:
    return text is None or re.fullmatch(_POD_COUNT, text) is not None


class RolloutSpec(ApiModel):
    """How changes reach the running service."""

    strategy: Literal["rolling", "recreate"] | None = None
    """rolling: a new revision takes over replica by replica; recreate: the old one stops first, and requests wait at
    the gateway meanwhile. Default: rolling."""

    max_surge: PodCount | None = None
    """rolling: engine pods beyond `replicas` while a change is under way, as a number or a percentage (rounded up).
    Default: 1."""

    max_unavailable: PodCount | None = None
    """rolling: engine pods that may be missing from `replicas` while a change is under way, as a number or a percentage
    (rounded down). Default: 0."""

    when_no_capacity: Literal["hold", "inPlace"] | None = None
    """When no node has room for a pod of the new revision: hold waits until progressDeadline, inPlace stops a pod of
    the running revision first. Default: hold."""

    progress_deadline: Duration | None = None
    """Longest time without a further ready pod of the new revision; then it is withdrawn, and the revision before goes
    on. Default: the engine's start-up budget and ten minutes."""

    revision_history_limit: Annotated[int, Field(ge=0, le=10)] | None = None
    """Revisions kept beside the current one, to go back to. Default: 5."""

    accept: Annotated[str, Field(pattern=r"^[0-9a-f]{8}$")] | None = None
    """Id from status.plan.suggestion: take what the operator would choose today. Leave it in place afterwards:
    without it the service goes back to the revision that it had before."""

    rules: ClassVar = (
        Rule(
            cel=f"!has(self.maxSurge) || string(self.maxSurge).matches('{_POD_COUNT}')",
            holds=lambda r: _is_pod_count(r.max_surge),
            message="rollout.maxSurge is no number of pods: write one from 0 to 9999, or a percentage as in 25%",
        ),
        Rule(
            cel=f"!has(self.maxUnavailable) || string(self.maxUnavailable).matches('{_POD_COUNT}')",
            holds=lambda r: _is_pod_count(r.max_unavailable),
            message="rollout.maxUnavailable is no number of pods: write one from 0 to 9999, or a percentage as in 25%",
        ),
        Rule(
            cel="!(has(self.maxSurge) && has(self.maxUnavailable) && string(self.maxSurge) in ['0', '0%'] && string(self.maxUnavailable) in ['0', '0%'])",
            holds=lambda r: not (r.max_surge in ("0", "0%") and r.max_unavailable in ("0", "0%")),
            message="rollout.maxSurge and rollout.maxUnavailable are both 0, so no pod could ever be replaced: raise one of them",
        ),
        Rule(
            cel="!(has(self.maxSurge) && !has(self.maxUnavailable) && string(self.maxSurge) in ['0', '0%'])",
            holds=lambda r: not (r.max_surge in ("0", "0%") and r.max_unavailable is None),
            message="rollout.maxSurge is 0 and rollout.maxUnavailable is not set (0), so no pod could ever be replaced: set maxUnavailable to 1 or more",
        ),
        Rule(
            cel="!has(self.progressDeadline) || (duration(self.progressDeadline) >= duration('10s') && duration(self.progressDeadline) <= duration('24h'))",
            holds=lambda r: _lasts(r.progress_deadline, 10, 86_400),
            message="rollout.progressDeadline is out of bounds: write a duration between 10s and 24h",
        ),
    )


class InferenceServiceSpec(ApiModel):
    """What the user asks for."""

    model: ModelSpec
    engine: EngineSpec
    accelerator: AcceleratorSpec | None = None
    """GPUs of one replica. Omitted: planned from the cluster's nodes where the model is known, else CPU."""
    parallelism: ParallelismSpec | None = None
    # The one default of the schema: without a value the scale subresource refuses `kubectl scale`, and no pod depends
    # on it.
    replicas: Annotated[int, Field(ge=0, le=MAX_REPLICAS)] = 1
    """Engine pods. kubectl scale and autoscalers change it through the scale subresource."""
    workload: WorkloadSpec | None = None
    paused: bool | None = None
    """True: the operator changes nothing of this service; its status goes on."""
    pod_template: PodTemplate | None = None
    traffic: TrafficSpec | None = None
    rollout: RolloutSpec | None = None

    rules: ClassVar = (
        Rule(
            cel="!has(self.parallelism) || !has(self.accelerator) || !has(self.accelerator.count) || self.accelerator.count != 0 || ((!has(self.parallelism.tensor) || self.parallelism.tensor == 1) && (!has(self.parallelism.pipeline) || self.parallelism.pipeline == 1))",
            holds=lambda s: s.accelerator is None or s.accelerator.count != 0 or _degrees(s) == (1, 1),
            message="parallelism.tensor and pipeline above 1 need GPUs: set accelerator.product, or remove them",
        ),
        Rule(
            cel="!(has(self.parallelism) && has(self.parallelism.tensor) && has(self.accelerator) && has(self.accelerator.count)) || self.accelerator.count == 0 || self.accelerator.count == self.parallelism.tensor * (has(self.parallelism.pipeline) ? self.parallelism.pipeline : 1)",
            holds=lambda s: (
                s.parallelism is None
                or s.parallelism.tensor is None
                or s.accelerator is None
                or s.accelerator.count in (None, 0, _degrees(s)[0] * _degrees(s)[1])
            ),
            message="accelerator.count differs from parallelism.tensor × pipeline, the GPUs of a replica: remove accelerator.count",
        ),
    )

    def pod_affecting(self) -> dict[str, Any]:
        """The part that decides what runs in the pods; a revision is named by its hash.

        Empty maps and lists say nothing and leave no trace: `options: {}` must not restart a pod. Neither does
        model.architecture: it is knowledge and no wish. It decides the plan of a revision that is made, and there it is
        pinned; whoever adds or corrects it later gets a suggestion, and keeps the pods that run.
        """
        written = _without_empty(self.written())
        written.get("model", {}).pop("architecture", None)
        accept = written.get("rollout", {}).get("accept")
        parts = ("model", "engine", "accelerator", "parallelism", "workload", "podTemplate")
        return {key: written[key] for key in parts if key in written} | ({"accept": accept} if accept else {})


def _degrees(spec: InferenceServiceSpec) -> tuple[int, int]:
    given = spec.parallelism
    return ((given.tensor or 1), (given.pipeline or 1)) if given is not None else (1, 1)


def _without_empty(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_empty(item) for item in value]
    if not isinstance(value, dict):
        return value
    inner = {key: item if key == "emptyDir" else _without_empty(item) for key, item in value.items()}
    # An emptyDir is chosen by being there.
    return {key: item for key, item in inner.items() if key == "emptyDir" or item not in ({}, [])}
