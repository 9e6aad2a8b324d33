"""The objects of a Benchmark: the order of its Job, where the result goes, the right to write there, and the Job.

The Job may read and change one ConfigMap and nothing else of the API. It mounts the tokenizer as the engine's pod mounts the
model, read-only, as the same user, and is asked everything by one document: no value of a user is an argument or part of a
script.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any, Final, Literal

from draftmark.api import names
from draftmark.api.benchmark import (
    DEFAULT_CONCURRENCY,
    DEFAULT_DURATION_S,
    DEFAULT_EQUAL_WITHIN_PERCENT,
    DEFAULT_REPETITIONS,
    DEFAULT_REQUEST_TIMEOUT_S,
    DEFAULT_ROUNDS,
    DEFAULT_SCATTER_PERCENT,
    DEFAULT_WARM_UP_S,
    PRESETS,
    BenchmarkSpec,
    BenchmarkWorkload,
    Percentiles,
    Spread,
    milliseconds_of,
)
from draftmark.api.defaults import BenchmarkDefaults, Defaults, HubDefaults
from draftmark.api.duration import seconds_of
from draftmark.api.images import mirrored
from draftmark.api.inference_service import PodTemplate, Toleration
from draftmark.api.model_uri import ClaimModel, HubModel, ImageModel
from draftmark.measure.order import (
    AcceleratorMemory,
    Bounds,
    Counters,
    EngineSign,
    FromClaim,
    FromHub,
    Lengths,
    Load,
    Order,
    OrderedObjectives,
    OrderedTarget,
    OrderedWorkload,
    TargetFacts,
)
from draftmark.render.metadata import Place
from draftmark.render.model_facts import DEFAULT_ENDPOINT, DEFAULT_REDIRECT_HOSTS
from draftmark.render.pod import pod_security
from draftmark.render.templates import render

#: guidellm, and Draftmark's program around it.
DEFAULT_IMAGE: Final = "ghcr.io/draftmark/benchmark:0.2.0"
COMMAND: Final = ("python3", "-m", "draftmark.benchmark_runner")
CONTAINER: Final = "benchmark"

ORDER_FOLDER: Final = "/order"
ORDER_FILE: Final = "order.json"
TOKENIZER_FOLDER: Final = "/tokenizer"
DATASET_FOLDER: Final = "/dataset"
DATASET_FILE: Final = "data.jsonl"
RESULT_FOLDER: Final = "/result"

#: Accelerators of which DCGM tells, by their resources; and those of them that several pods share. Source: NVIDIA's device plugin,
#: README, "Shared Access to GPUs" (renameByDefault).
DCGM_RESOURCES: Final = "nvidia.com/"
SHARED_RESOURCES: Final = ".shared"

GRACE_S: Final = 5
#: Seconds until Kubernetes removes a Job that has ended: somebody may want its log.
TTL_S: Final = 86_400
#: Seconds of a Job beside its load: to come to a node, pull the image, get the tokenizer, judge what was measured. Half of it is
#: as long as the operator waits for the program to begin.
SLACK_S: Final = 3600
#: No Job runs longer.
LONGEST_S: Final = 30 * 86_400
#: What the load generator gets where the user says nothing. A guess; it looks at its own CPU, and says when it had too little.
REQUESTS: Final = {"cpu": "1", "memory": "1Gi"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A server that is measured, as it was found."""

    label: Literal["target", "compared"]
    #: Without a path.
    url: str
    model: str
    tokenizer: ClaimModel | ImageModel | HubModel
    #: Of a tokenizer on the hub; None: the hub's default.
    revision: str | None = None
    #: Name and key of the Secret with the hub's token.
    secret: tuple[str, str] | None = None
    #: Of the service: as which user, and where, its model's files can be read.
    pod_template: PodTemplate = field(default_factory=PodTemplate)
    #: The taint of the nodes that its pods are on; None: they are on any.
    resource_name: str | None = None
    #: Its engine pods, and how many accelerators they have together.
    pods: tuple[str, ...] = ()
    accelerators: int = 0
    metrics_urls: tuple[str, ...] = ()
    counters: Counters = field(default_factory=Counters)
    signs: tuple[EngineSign, ...] = ()
    facts: TargetFacts = field(default_factory=TargetFacts)

    @property
    def is_mounted(self) -> bool:
        """Whether its tokenizer is on a volume."""
        return not isinstance(self.tokenizer, HubModel)


def make_order(place: Place, spec: BenchmarkSpec, targets: Sequence[Target], *, job: str, defaults: Defaults) -> Order:
    """What a Job is asked to do.

    Args:
        place: Of the Benchmark.
        targets: One, or two for a comparison.
        job: Its name.
    """
    compare = spec.compare
    repetitions = (
        (compare.rounds or DEFAULT_ROUNDS) if compare is not None else (spec.repetitions or DEFAULT_REPETITIONS)
    )
    duration = seconds_of(spec.duration) if spec.duration is not None else DEFAULT_DURATION_S
    within = compare.equal_within_percent if compare is not None else None
    scatter = spec.allowed_scatter_percent
    return Order(
        benchmark=place.service,
        namespace=place.namespace,
        uid=place.uid or "",
        job=job,
        targets=tuple(_ordered(target, place, defaults) for target in targets),
        workloads=tuple(_workload(workload) for workload in workloads_of(spec)),
        loads=_loads(spec),
        warm_up_s=seconds_of(spec.warm_up) if spec.warm_up is not None else DEFAULT_WARM_UP_S,
        duration_s=duration if spec.requests is None else None,
        requests=spec.requests,
        repetitions=repetitions,
        equal_within_percent=DEFAULT_EQUAL_WITHIN_PERCENT if within is None else within,
        objectives=_objectives(spec),
        allowed_error_percent=spec.allowed_error_percent or 0.0,
        allowed_scatter_percent=DEFAULT_SCATTER_PERCENT if scatter is None else scatter,
        request_timeout_s=_timeout_s(spec),
        result_config_map=names.benchmark_result_name(place.service),
        result_path=f"{RESULT_FOLDER}/{_result_file(place, spec)}" if spec.result is not None else None,
        notes=spec.notes or "",
    )


def workloads_of(spec: BenchmarkSpec) -> tuple[BenchmarkWorkload, ...]:
    """What is sent; chat, where the user does not say."""
    return spec.workloads or (BenchmarkWorkload(name="chat"),)


def tokens_of(workload: BenchmarkWorkload) -> int:
    """The most tokens that a request of a workload holds, prompt and answer; of a data set, the answer's alone."""
    ordered = _workload(workload)
    prompt = _longest(ordered.prompt) if ordered.prompt is not None else 0
    return ordered.shared_prefix_tokens + prompt + _longest(ordered.output)


def result_location(place: Place, spec: BenchmarkSpec) -> str | None:
    """Claim, folder and file of the whole result; None: it is in the ConfigMap."""
    return f"{spec.result.claim.name}/{_result_file(place, spec)}" if spec.result is not None else None


def planned_s(order: Order) -> int:
    """The longest that a Job's load can take, in seconds, when each last request of a block takes all of its time."""
    total = 0.0
    for load in order.loads:
        block = order.duration_s or 0.0
        if order.requests is not None:
            rate = load.request_rate
            each = 1 / rate if rate is not None else order.request_timeout_s / (load.concurrency or 1)
            block = ceil(order.requests * each)
        total += (block + order.warm_up_s + order.request_timeout_s) * order.repetitions
    return ceil(total) * len(order.workloads) * len(order.targets)


def render_benchmark(
    place: Place,
    spec: BenchmarkSpec,
    targets: Sequence[Target],
    *,
    job: str,
    digest: str | None,
    keys: Sequence[str],
    defaults: Defaults,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """What a Job needs, and the Job.

    Args:
        place: Of the Benchmark.
        targets: One, or two for a comparison.
        job: Its name.
        digest: Of the targets; None: nothing is known of them.
        keys: Of the targets: no other Job loads one of them at the same time.
        defaults: The administrator's file.
    """
    order = make_order(place, spec, targets, job=job, defaults=defaults)
    data = {ORDER_FILE: order.model_dump_json(by_alias=True)}
    fields = place.fields(job, names.ROLE_BENCHMARK)
    order_map = render("jobs/benchmark-order.yaml.j2", **fields, data=data)
    return [*render_benchmark_keeping(place), order_map], render(
        "jobs/benchmark.yaml.j2",
        **fields,
        annotations={names.ANNOTATION_TARGET: digest or "", names.ANNOTATION_LOADS: ",".join(keys)},
        deadline_s=min(planned_s(order) + SLACK_S, LONGEST_S),
        ttl_s=TTL_S,
        pod_labels={**fields["labels"], names.LABEL_JOB: job},
        pod=_pod(place, spec, targets, job, defaults),
    )


def render_benchmark_keeping(place: Place) -> list[dict[str, Any]]:
    """What a Job needs as long as it runs: its account, the ConfigMap for its result, and the right to that one."""
    role, name = names.ROLE_BENCHMARK, names.benchmark_account_name(place.service)
    fields, result = place.fields(name, role), names.benchmark_result_name(place.service)
    return [
        render("common/service_account.yaml.j2", **fields),
        render("jobs/benchmark-role.yaml.j2", **fields, config_maps=[result]),
        render("router/role_binding.yaml.j2", **fields, role_kind="Role", role=name, service_account=name),
        render("jobs/benchmark-result.yaml.j2", **place.fields(result, role)),
    ]


def benchmark_image(defaults: Defaults) -> str:
    """The load generator's image, as the administrator wants it."""
    configured = defaults.benchmarks or BenchmarkDefaults()
    return configured.image or mirrored(DEFAULT_IMAGE, defaults)


def _pod(place: Place, spec: BenchmarkSpec, targets: Sequence[Target], job: str, defaults: Defaults) -> dict[str, Any]:
    # Where a claim can be mounted, and who may read it, the service says; without a volume any node will do.
    mounted = next((target for target in targets if target.is_mounted), None)
    security = pod_security(mounted.pod_template if mounted is not None else PodTemplate())
    if spec.result is not None:
        security.setdefault("fsGroup", security["runAsGroup"])
        security.setdefault("fsGroupChangePolicy", "OnRootMismatch")
    selector = spec.node_selector or (mounted.pod_template.node_selector if mounted is not None else None)
    volumes, mounts = _volumes(spec, targets, job)
    return render(
        "jobs/benchmark-pod.yaml.j2",
        service_account=names.benchmark_account_name(place.service),
        grace_s=GRACE_S,
        pod_security=security,
        node_selector=dict(selector or {}),
        tolerations=_tolerations(spec, mounted, defaults),
        image_pull_secrets=_pull_secrets(mounted, defaults),
        container=CONTAINER,
        image=benchmark_image(defaults),
        command=list(COMMAND),
        args=["--order", f"{ORDER_FOLDER}/{ORDER_FILE}"],
        env=_env(targets),
        resources=_resources(spec),
        mounts=mounts,
        volumes=volumes,
    )


def _ordered(target: Target, place: Place, defaults: Defaults) -> OrderedTarget:
    hub = defaults.hub or HubDefaults()
    tokenizer: FromClaim | FromHub
    match target.tokenizer:
        case HubModel(repository=repository, file=file, quantization=quantization):
            endpoint = hub.endpoint or DEFAULT_ENDPOINT
            hosts = hub.redirect_hosts or (DEFAULT_REDIRECT_HOSTS if endpoint == DEFAULT_ENDPOINT else ())
            tokenizer = FromHub(
                endpoint=endpoint,
                repository=repository,
                revision=target.revision,
                file=file,
                quantization=quantization,
                redirect_hosts=tuple(hosts),
                allow_http=bool(hub.allow_http),
            )
        case ClaimModel(path=path) | ImageModel(path=path):
            tokenizer = FromClaim(path=_tokenizer_folder(target) + (f"/{path}" if path else ""))
    return OrderedTarget(
        label=target.label,
        url=target.url,
        model=target.model,
        tokenizer=tokenizer,
        metrics_urls=target.metrics_urls,
        counters=target.counters,
        memory=_memory(target, place, defaults),
        signs=target.signs,
        facts=target.facts,
    )


def _memory(target: Target, place: Place, defaults: Defaults) -> AcceleratorMemory | None:
    """Where its GPUs' memory is told. DCGM knows NVIDIA's only, and of one that is shared it tells what all pods on it hold."""
    prometheus = (defaults.benchmarks or BenchmarkDefaults()).prometheus
    resource = target.resource_name or ""
    is_known = resource.startswith(DCGM_RESOURCES) and not resource.endswith(SHARED_RESOURCES)
    if prometheus is None or not target.accelerators or not is_known:
        return None
    return AcceleratorMemory(
        prometheus=prometheus.rstrip("/"),
        namespace=place.namespace,
        pods=target.pods,
        accelerators=target.accelerators,
    )


def _tokenizer_folder(target: Target) -> str:
    return f"{TOKENIZER_FOLDER}/{target.label}"


def _workload(workload: BenchmarkWorkload) -> OrderedWorkload:
    if workload.dataset is not None:
        claim = workload.dataset.claim
        file = claim.path if claim is not None else DATASET_FILE
        return OrderedWorkload(
            name=workload.name,
            output=_lengths(workload.output_tokens or 1, None),
            dataset=f"{DATASET_FOLDER}/{workload.name}/{file}",
        )
    if workload.prompt_tokens is not None:
        return OrderedWorkload(
            name=workload.name,
            prompt=_lengths(workload.prompt_tokens, workload.prompt_spread),
            output=_lengths(workload.output_tokens or 1, workload.output_spread),
            shared_prefix_tokens=workload.shared_prefix_tokens or 0,
        )
    prompt, output, shared = PRESETS[workload.preset or workload.name]
    return OrderedWorkload(
        name=workload.name, prompt=Lengths(mean=prompt), output=Lengths(mean=output), shared_prefix_tokens=shared
    )


def _lengths(mean: int, spread: Spread | None) -> Lengths:
    if spread is None:
        return Lengths(mean=mean)
    return Lengths(mean=mean, standard_deviation=spread.standard_deviation, min=spread.min, max=spread.max)


def _longest(lengths: Lengths) -> int:
    return max(lengths.mean, lengths.max or 0)


def _loads(spec: BenchmarkSpec) -> tuple[Load, ...]:
    if spec.request_rate is not None:
        return tuple(Load(request_rate=rate) for rate in dict.fromkeys(spec.request_rate))
    return tuple(Load(concurrency=count) for count in dict.fromkeys(spec.concurrency or DEFAULT_CONCURRENCY))


def _objectives(spec: BenchmarkSpec) -> OrderedObjectives | None:
    if (given := spec.objectives) is None:
        return None

    def bounds(of: Percentiles | None) -> Bounds:
        texts = {name: getattr(of, name) for name in ("p50", "p90", "p99")} if of is not None else {}
        return Bounds(**{name: milliseconds_of(text) for name, text in texts.items() if text is not None})

    return OrderedObjectives(ttft=bounds(given.ttft), itl=bounds(given.itl), e2e=bounds(given.e2e))


def _timeout_s(spec: BenchmarkSpec) -> float:
    return float(seconds_of(spec.request_timeout) if spec.request_timeout is not None else DEFAULT_REQUEST_TIMEOUT_S)


def _result_file(place: Place, spec: BenchmarkSpec) -> str:
    """Below the claim; another Benchmark of the same name does not write over it."""
    assert spec.result is not None, "asked for where there is a claim"
    return f"{spec.result.claim.path.rstrip('/')}/{place.service}-{names.short_hash(place.uid)}.json"


def _volumes(
    spec: BenchmarkSpec, targets: Sequence[Target], job: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    volumes: list[dict[str, Any]] = [{"name": "order", "configMap": {"name": job}}, {"name": "tmp", "emptyDir": {}}]
    mounts: list[dict[str, Any]] = [
        {"name": "order", "mountPath": ORDER_FOLDER, "readOnly": True},
        {"name": "tmp", "mountPath": "/tmp"},
    ]
    written = spec.result.claim.name if spec.result is not None else None
    known: dict[tuple[str, str], str] = {}

    def mount(path: str, what: str, of: str, source: Mapping[str, Any], *, is_written: bool = False) -> None:
        # A claim is one volume, however often it is used: up to Kubernetes 1.34 a pod with two volumes of one claim never
        # starts, for the kubelet keeps one volume name per PersistentVolume. Source: kubernetes/kubernetes issue 99453 and
        # pull request 122140.
        if (what, of) not in known:
            known[what, of] = f"{what}-{sum(kind == what for kind, _ in known)}"
            volumes.append({"name": known[what, of], **source})
        mounts.append({"name": known[what, of], "mountPath": path, **({} if is_written else {"readOnly": True})})

    def mount_claim(path: str, claim: str, *, is_written: bool = False) -> None:
        # Where the result goes to the same claim, only the mounts beside it are read-only.
        read_only = {} if claim == written else {"readOnly": True}
        source = {"persistentVolumeClaim": {"claimName": claim, **read_only}}
        mount(path, "claim", claim, source, is_written=is_written)

    for target in targets:
        match target.tokenizer:
            case ClaimModel(claim=claim):
                mount_claim(_tokenizer_folder(target), claim)
            case ImageModel(reference=reference):
                image = {"image": {"reference": reference, "pullPolicy": "IfNotPresent"}}
                mount(_tokenizer_folder(target), "image", reference, image)
            case _:
                pass
    for workload in workloads_of(spec):
        if (dataset := workload.dataset) is None:
            continue
        folder = f"{DATASET_FOLDER}/{workload.name}"
        if (config_map := dataset.config_map) is not None:
            items = [{"key": config_map.key, "path": DATASET_FILE}]
            prompts = {"configMap": {"name": config_map.name, "items": items}}
            mount(folder, "dataset", f"{config_map.name}/{config_map.key}", prompts)
        elif dataset.claim is not None:
            mount_claim(folder, dataset.claim.name)
    if written is not None:
        mount_claim(RESULT_FOLDER, written, is_written=True)
    return volumes, mounts


def _env(targets: Sequence[Target]) -> list[dict[str, Any]]:
    env: list[dict[str, Any]] = [{"name": "HOME", "value": "/tmp"}]
    secrets = dict.fromkeys(t.secret for t in targets if t.secret is not None and isinstance(t.tokenizer, HubModel))
    for name, key in secrets:
        env.append({"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": name, "key": key}}})
    return env


def _resources(spec: BenchmarkSpec) -> dict[str, Any]:
    given = spec.resources
    requests, limits = dict((given and given.requests) or {}), dict((given and given.limits) or {})
    # Of what has a limit only, Kubernetes makes it the request as well.
    requests |= {key: value for key, value in REQUESTS.items() if key not in requests and key not in limits}
    return {name: value for name, value in (("requests", requests), ("limits", limits)) if value}


def _pull_secrets(mounted: Target | None, defaults: Defaults) -> list[dict[str, str]]:
    # Of a model in an image, the service's: it is pulled with the pod's.
    theirs = mounted.pod_template.image_pull_secrets if mounted is not None else None
    return [
        {"name": name} for name in sorted({s.name for s in (*(defaults.image_pull_secrets or ()), *(theirs or ()))})
    ]


def _tolerations(spec: BenchmarkSpec, mounted: Target | None, defaults: Defaults) -> list[dict[str, Any]]:
    given = [*(defaults.tolerations or ()), *(spec.tolerations or ())]
    if mounted is not None:
        # A claim may be on a node that is kept for GPUs.
        given += mounted.pod_template.tolerations or ()
        if mounted.resource_name is not None:
            given.insert(0, Toleration(key=mounted.resource_name, operator="Exists", effect="NoSchedule"))
    written = [t.written() for t in given]
    return [t for i, t in enumerate(written) if t not in written[:i]]
