"""What is to be measured, as it is found: where it answers, what is known of it, and what stands in the way."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from draftmark.api import names
from draftmark.api.benchmark import BenchmarkSpec, BenchmarkTarget
from draftmark.api.conditions import shorten
from draftmark.api.inference_service import ModelSpec, PodTemplate
from draftmark.api.model_uri import ClaimModel, HubModel, ImageModel, UnreadableUri, parse_model_uri
from draftmark.benchmark.observation import BenchmarkObservation
from draftmark.choice import known_revisions
from draftmark.engines.registry import ENGINES
from draftmark.facts.addresses import in_url
from draftmark.facts.pods import ENGINE_CONTAINER, has_ended, is_ready, restarts, worst_problem
from draftmark.machines.benchmark import Obstacle
from draftmark.machines.revisions import Revision
from draftmark.measure.order import Counters, TargetFacts
from draftmark.observation import Json, Observation
from draftmark.render.benchmark import Target, tokens_of, workloads_of
from draftmark.running import engine_port, pods_of

#: Obstacles that the spec itself is, as things are: `Accepted` is false.
REFUSALS: Final = frozenset(
    {
        "InvalidSpec",
        "ForeignNamespace",
        "UrlOfService",
        "NotGenerative",
        "TokenizerUnavailable",
        "UnreadableTokenizerUri",
        "SeveralTokens",
        "ContextTooShort",
    }
)

#: Kinds without which nothing can be said of a service.
_NEEDED: Final = ("ControllerRevision", "Service")
#: How a GGUF file's name tells its quantization. Source: the names that llama.cpp's llama-quantize lists.
_QUANTIZATION: Final = re.compile(r"(?:^|[-._])((?:I?Q[1-8](?:_[A-Z0-9]+)*)|BF16|F16|F32|MXFP4)\.gguf$", re.IGNORECASE)
_ON_HUB: Final = re.compile(r"hf://[^/]+/[^/]+(/.+)?")
#: How the key of a target by url begins.
_URL_KEY: Final = "url "
#: Images that are told of one target.
_IMAGES: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A target that is there."""

    target: Target
    #: Of all that a result depends on, as JSON data; None: nothing is known of it.
    state: Any


def keys_of(benchmark: Json) -> tuple[str, ...]:
    """Names of what a Benchmark loads, the target's first: two that share one do not run at the same time. Whether the spec
    can be read does not matter."""
    return tuple(_key(target) for target in _targets(benchmark))


def hosts_of(benchmark: Json) -> tuple[str, ...]:
    """Services that a Benchmark names by a url."""
    return tuple(key.removeprefix(_URL_KEY) for key in keys_of(benchmark) if key.startswith(_URL_KEY))


def services_of(benchmark: Json) -> tuple[str, ...]:
    """InferenceServices that a Benchmark names."""
    return tuple(dict.fromkeys(str(t["service"]) for t in _targets(benchmark) if t.get("service")))


def _targets(benchmark: Json) -> list[Json]:
    spec = benchmark.get("spec") or {}
    given = (spec.get("target"), (spec.get("compare") or {}).get("target"))
    return [target for target in given if target is not None]


def _key(target: Json) -> str:
    if target.get("service"):
        return f"service {target['service']}"
    # Ports of one Service are one server as a rule.
    host, _, _ = _host(str(target.get("url") or ""))
    return f"{_URL_KEY}{host}"


def find_targets(
    seen: BenchmarkObservation, spec: BenchmarkSpec, revisions: dict[str, str]
) -> list[Measured] | Obstacle:
    """All that is to be measured, or what stands in the way: what nothing can help, or the first thing.

    Args:
        revisions: Those that are measured already, by the target's label: what is the current one by now does not count.
    """
    given = [("target", spec.target), *([("compared", spec.compare.target)] if spec.compare is not None else [])]
    found: list[Measured] = []
    hindering: list[Obstacle] = []
    for label, target in given:
        one = (
            _of_service(seen, spec, target, label, revisions.get(label))
            if target.service is not None
            else _of_url(seen, target, label)
        )
        if isinstance(one, Obstacle):
            hindering.append(one)
        else:
            found.append(one)
    if hindering:
        return next((one for one in hindering if one.is_final), hindering[0])
    secrets = {m.target.secret for m in found if isinstance(m.target.tokenizer, HubModel)} - {None}
    if len(secrets) > 1:
        return Obstacle(
            code="SeveralTokens",
            message="The two targets have tokenizers on the hub behind two Secrets, and one Job has one token. Let both "
            "use the same Secret (model.authSecretRef of a service, target.authSecretRef with a url).",
            needs_human=True,
            # A service may be given the other one's; this spec never changes.
            is_final=all(target.service is None for _, target in given),
        )
    return found


def digest_of(measured: Iterable[Measured]) -> str | None:
    """Stands for the state of all targets; None: of none of them anything is known."""
    states = [one.state for one in measured]
    return names.short_hash(states) if any(state is not None for state in states) else None


# A Service of the namespace


def _host(url: str) -> tuple[str, str, str]:
    """Name of the Service, namespace (empty: not said), port (empty: not said)."""
    address = url.removeprefix("http://").rstrip("/")
    host, _, port = address.partition(":")
    name, _, rest = host.partition(".")
    return name, rest.removesuffix(".cluster.local").removesuffix(".svc"), port


def _of_url(seen: BenchmarkObservation, target: BenchmarkTarget, label: str) -> Measured | Obstacle:
    url = (target.url or "").rstrip("/")
    name, namespace, port = _host(url)
    if namespace and namespace != seen.namespace:
        return Obstacle(
            code="ForeignNamespace",
            message=f"'{url}' is a Service of namespace '{namespace}'. A Benchmark loads what is in its own, "
            f"'{seen.namespace}', only: make it there.",
            needs_human=True,
            is_final=True,
        )
    if port and not 0 < int(port) <= 65_535:
        return Obstacle(
            code="InvalidSpec",
            message=f"'{url}' has no port that there is: write 1 to 65535.",
            needs_human=True,
            is_final=True,
        )
    if name in seen.our_services:
        return Obstacle(
            code="UrlOfService",
            message=f"'{url}' is a Service of an InferenceService or a ModelGateway, where users' requests may come in. Name "
            "the InferenceService instead: target.service.",
            needs_human=True,
        )
    source = target.tokenizer or ""
    try:
        tokenizer = parse_model_uri(source)
    except UnreadableUri as error:
        tokenizer = None
        why = str(error).replace("model.uri", "target.tokenizer")
    if not isinstance(tokenizer, HubModel | ClaimModel):
        why = why if tokenizer is None else "target.tokenizer is neither on the hub nor on a claim."
        return Obstacle(code="UnreadableTokenizerUri", message=why, needs_human=True, is_final=True)
    # The name in full: what the user wrote may be short, and is looked up in the Job's own namespace.
    whole = f"http://{name}.{seen.namespace}.svc" + (f":{int(port)}" if port else "")
    token = target.auth_secret_ref
    made = Target(
        label=_label(label),
        url=whole,
        model=target.model or "",
        tokenizer=tokenizer,
        signs=tuple(engine.sign for engine in ENGINES.values()),
        secret=(token.name, token.key) if token is not None else None,
    )
    return Measured(target=made, state=None)


def _label(label: str) -> Any:
    return label


# An InferenceService


def _of_service(
    seen: BenchmarkObservation, spec: BenchmarkSpec, target: BenchmarkTarget, label: str, measured: str | None
) -> Measured | Obstacle:
    name = target.service or ""
    if name not in seen.targets:
        return Obstacle(code="Held", message=f"It is not known yet whether there is an InferenceService '{name}'.")
    service = seen.targets[name]
    if service is None or service.service["metadata"].get("deletionTimestamp"):
        return Obstacle(
            code="TargetNotFound",
            message=f"There is no InferenceService '{name}' in namespace '{seen.namespace}'. Create it; it is measured when "
            "its pods are ready. Or delete this Benchmark, and make one of another target.",
        )
    if unread := [service.unread[kind] for kind in _NEEDED if kind in service.unread]:
        return Obstacle(code="Held", message=f"What runs of '{name}' cannot be read: {shorten(unread[0], 300)}.")
    wanted = measured or target.revision or _current(service)
    if wanted is None:
        return _not_ready(name, "It has no revision that serves yet.")
    revision = next((r for r in known_revisions(service) if r.hash == wanted), None)
    if revision is None:
        there = ", ".join(r.hash for r in known_revisions(service)[-5:]) or "none"
        return Obstacle(
            code="RevisionNotFound",
            message=f"InferenceService '{name}' has no revision {wanted} (there are: {there}). Make a Benchmark of one of "
            "those, or of the current one: leave target.revision out.",
            needs_human=True,
        )
    is_pinned = target.revision is not None
    return _unfit(spec, service, revision, is_pinned=is_pinned) or _of_revision(
        seen, target, label, service, revision, measured
    )


def _current(service: Observation) -> str | None:
    told = service.status.get("revisions") or ()
    return next((str(r["hash"]) for r in told if r.get("phase") == "Current"), None)


def _not_ready(name: str, why: str) -> Obstacle:
    return Obstacle(
        code="TargetNotReady",
        message=f"InferenceService '{name}' cannot be measured yet. {why} It is measured when that is so; its own status says "
        f"what it waits for (kubectl draftmark status {name}).",
    )


def _unfit(spec: BenchmarkSpec, service: Observation, revision: Revision, *, is_pinned: bool) -> Obstacle | None:
    """Why this revision can never be measured as it is asked.

    Args:
        is_pinned: The spec asks for this one; otherwise another one may become the current one.
    """
    plan = revision.plan
    if plan.kind != "generate":
        return Obstacle(
            code="NotGenerative",
            message=f"InferenceService '{service.name}' serves a model for '{plan.kind}', and only models that generate text "
            "are measured. Make a Benchmark of another target.",
            needs_human=True,
            is_final=is_pinned,
        )
    longest = max(workloads_of(spec), key=tokens_of)
    if tokens_of(longest) > plan.max_context_length:
        return Obstacle(
            code="ContextTooShort",
            message=f"Requests of workload '{longest.name}' have up to {tokens_of(longest)} tokens, prompt and answer; revision "
            f"{revision.hash} of '{service.name}' holds {plan.max_context_length}. Measure shorter ones, or raise "
            "model.maxContextLength.",
            needs_human=True,
            is_final=is_pinned,
        )
    return None


def _of_revision(
    seen: BenchmarkObservation,
    target: BenchmarkTarget,
    label: str,
    service: Observation,
    revision: Revision,
    measured: str | None,
) -> Measured | Obstacle:
    model = _model(revision)
    tokenizer = _tokenizer(model, revision)
    if isinstance(tokenizer, Obstacle):
        return tokenizer
    pods = [p for p in pods_of(service.pods, revision.hash) if not _is_over(p)]
    routers = [p for p in pods_of(service.router_pods, revision.hash) if not _is_over(p)]
    if measured is None:
        if (waiting := _unready(service, revision, pods, routers)) is not None:
            return waiting
        if not target.allow_user_traffic and _serves_users(service, revision.hash):
            return _serving(service.name, revision.hash)
    elif not target.allow_user_traffic and _serves_users(service, revision.hash):
        return _joined(service.name, revision.hash)
    template = revision.pod_template
    path = str((template["metadata"].get("annotations") or {}).get("prometheus.io/path", "/metrics"))
    ready = sorted((p for p in pods if is_ready(p)), key=lambda p: str(p["metadata"]["name"]))
    engine = ENGINES.get(revision.plan.engine)
    addresses = [str(p["status"]["podIP"]) for p in ready if p.get("status", {}).get("podIP")]
    pod_template, secret = _pod_template(revision), model.auth_secret_ref
    made = Target(
        label=_label(label),
        url=f"http://{names.router_name(service.name, revision.hash)}.{service.namespace}.svc:{names.ROUTER_PORT}",
        model=revision.plan.served_name,
        tokenizer=tokenizer,
        revision=model.revision,
        secret=(secret.name, secret.key) if secret is not None else None,
        pod_template=pod_template,
        resource_name=revision.plan.layout.resource_name,
        pods=tuple(str(pod["metadata"]["name"]) for pod in ready),
        accelerators=revision.plan.layout.gpus * len(ready),
        metrics_urls=tuple(f"http://{in_url(ip)}:{engine_port(template)}{path}" for ip in addresses),
        counters=engine.counters if engine is not None else Counters(),
        facts=_facts(service, revision, model, ready),
    )
    state = [revision.hash, *sorted(_state(pod) for pod in (*pods, *routers))]
    return Measured(target=made, state=state)


def _is_over(pod: Json) -> bool:
    """Whether another pod takes its place."""
    return bool(pod["metadata"].get("deletionTimestamp")) or has_ended(pod)


def _model(revision: Revision) -> ModelSpec:
    try:
        return ModelSpec.model_validate(revision.spec["model"])
    except ValidationError:
        # Written by another version: what is needed of it is the same in all.
        uri = str(revision.spec["model"].get("uri", ""))
        return ModelSpec.model_construct(uri=uri, revision=None, quantization=None, auth_secret_ref=None)


def _pod_template(revision: Revision) -> PodTemplate:
    try:
        return PodTemplate.model_validate(revision.spec.get("podTemplate") or {})
    except ValidationError:
        return PodTemplate()


def _tokenizer(model: ModelSpec, revision: Revision) -> HubModel | ClaimModel | ImageModel | Obstacle:
    try:
        source = parse_model_uri(model.uri)
    except UnreadableUri as error:
        return Obstacle(code="TokenizerUnavailable", message=str(error), needs_human=True, is_final=True)
    match source:
        case ImageModel(reference=reference, path=None):
            engine = ENGINES.get(revision.plan.engine)
            return ImageModel(reference=reference, path=engine.default_image_path if engine is not None else None)
        case HubModel() | ClaimModel() | ImageModel():
            return source
        case _:
            return Obstacle(
                code="TokenizerUnavailable",
                message=f"The model's file is behind a URL ({shorten(model.uri, 200)}), and only the hub is asked for a "
                "tokenizer: prompts of a known length need the model's own. Bring the model on a claim or from the hub, or "
                "measure a Service of the namespace with target.url, target.model and target.tokenizer.",
                needs_human=True,
                is_final=True,
            )


def _unready(service: Observation, revision: Revision, pods: list[Json], routers: list[Json]) -> Obstacle | None:
    """What its pods still wait for."""
    ready = sum(is_ready(pod) for pod in pods)
    if not pods:
        return _not_ready(service.name, f"Revision {revision.hash} has no pods.")
    if ready < len(pods):
        problem = worst_problem(pods)
        why = f" {problem.message}" if problem is not None else ""
        return _not_ready(service.name, f"{ready} of {len(pods)} pods of revision {revision.hash} are ready.{why}")
    if revision.plan.is_routed and not any(is_ready(pod) for pod in routers):
        return _not_ready(service.name, f"The router of revision {revision.hash} is not ready.")
    entry = names.router_name(service.name, revision.hash)
    if not any(item["metadata"]["name"] == entry for item in service.owned("Service")):
        return _not_ready(service.name, f"The Service '{entry}' is not there.")
    return None


def _serves_users(service: Observation, revision: str) -> bool:
    """Whether users' requests come to a revision: it has a weight, or is the only one that could have one."""
    told = service.status.get("revisions") or ()
    mine = next((r for r in told if r.get("hash") == revision), None)
    if mine is None:
        return False
    weight = mine.get("weight")
    return weight is None or weight > 0 or len(told) == 1


def _serving(name: str, revision: str) -> Obstacle:
    return Obstacle(
        code="ServesUsers",
        message=f"Revision {revision} of InferenceService '{name}' takes users' requests: they would suffer from the load, and "
        "the numbers from them. Make another Benchmark: of a revision without traffic (target.revision), of a service of its own "
        "with target.allowUserTraffic: true, or of this one with it. Then what else is under way is looked for.",
        needs_human=True,
    )


def _joined(name: str, revision: str) -> Obstacle:
    return Obstacle(
        code="TargetChanged",
        message=f"Users' requests came to revision {revision} of InferenceService '{name}' while it was measured: the load "
        "would harm them, and the numbers would be of both. It must be without traffic until the end. Make another Benchmark: of "
        "a revision that gets no traffic meanwhile (target.revision), of a service of its own with target.allowUserTraffic: true, "
        "or of this one with it.",
        needs_human=True,
    )


def _state(pod: Json) -> list[str]:
    statuses = pod.get("status", {}).get("containerStatuses") or ()
    images = sorted(str(c.get("imageID") or c.get("image") or "") for c in statuses)
    metadata = pod["metadata"]
    return [str(metadata.get("uid") or metadata["name"]), str(restarts(pod)), *images]


def _facts(service: Observation, revision: Revision, model: ModelSpec, pods: list[Json]) -> TargetFacts:
    plan = revision.plan
    layout = f"{plan.layout} ({', '.join(plan.layout.parts)})" if plan.layout.parts else str(plan.layout)
    return TargetFacts(
        service=service.name,
        revision=revision.hash,
        engine=plan.engine,
        version=plan.version,
        quantization=_quantization(model, service, revision),
        layout=layout[:64],
        hardware=_hardware(service, revision, pods),
        replicas=len(pods),
        images=tuple(sorted({image for pod in pods if (image := _image(pod)) is not None}))[:_IMAGES],
    )


def _quantization(model: ModelSpec, service: Observation, revision: Revision) -> str | None:
    """As it is asked for, or as the file says; None: not known."""
    if model.quantization is not None:
        return model.quantization
    if _ON_HUB.fullmatch(model.uri) and ":" in model.uri.rpartition("/")[2]:
        return model.uri.rpartition(":")[2]
    if (found := _QUANTIZATION.search(model.uri)) is not None:
        return found[1].upper()
    memory = service.status.get("modelFacts") or {}
    config = (memory.get("facts") or {}).get("quantizationConfig") or {}
    is_of_it = memory.get("state") == "Known" and _current(service) == revision.hash
    return str(config["quantMethod"])[:64] if is_of_it and config.get("quantMethod") else None


def _hardware(service: Observation, revision: Revision, pods: list[Json]) -> str | None:
    layout = revision.plan.layout
    if layout.gpus:
        return layout.product or layout.resource_name
    nodes = {str(pod.get("spec", {}).get("nodeName")) for pod in pods}
    kinds = {
        " ".join(
            word
            for word in (
                "CPU",
                node.host_architecture,
                node.labels.get("node.kubernetes.io/instance-type", ""),
                f"{node.cpu_millicores / 1000:g} cores" if node.cpu_millicores is not None else "",
            )
            if word
        )
        for node in service.cluster.nodes or ()
        if node.name in nodes
    }
    return "; ".join(sorted(kinds))[:512] or "CPU"


def _image(pod: Json) -> str | None:
    """The engine's image, by digest where the node tells it."""
    for container in pod.get("status", {}).get("containerStatuses") or ():
        if container.get("name") != ENGINE_CONTAINER:
            continue
        image, digest = str(container.get("image") or ""), str(container.get("imageID") or "").rpartition("://")[2]
        if "@" in digest or not digest:
            return (digest or image)[:512] or None
        return f"{image} ({digest})"[:512]
    return None
