"""The router of one revision: smg, which finds the revision's engine pods itself and chooses one for each request.

Its pod template is pinned like the engine's: what runs stays until the user asks for another policy or time-out, or
accepts a suggestion. A router's memory of prompts is worth keeping, too.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from draftmark.api import names
from draftmark.api.defaults import Defaults
from draftmark.api.images import mirrored
from draftmark.render.metadata import Place
from draftmark.render.templates import render
from draftmark.traffic import Traffic

#: The version that everything here was seen working with.
DEFAULT_IMAGE: Final = "docker.io/lightseekorg/smg:1.13.0"

#: What the user asked for when the template was pinned, as a hash; and the template.
ANNOTATION_ASKED: Final = f"{names.GROUP}/asked"
ANNOTATION_PINNED: Final = f"{names.GROUP}/pinned"
#: uid of the ServiceAccount that the pods were started with. A token is worth nothing once its account was deleted, also
#: when there is a new one of that name, and the kubelet renews it only after 48 minutes.
ANNOTATION_ACCOUNT: Final = f"{names.GROUP}/account"

#: The ClusterRole (or, where the operator has no cluster-wide rights, the Role) of the chart: pods get, list, watch.
ROLE: Final = "draftmark-router"

#: Seconds in which Services forget the pod, before it is told to stop.
DRAIN_S: Final = 5

#: Several routers would each know a part of the prompts and a part of the load, so there is one for each revision. While
#: it is started anew, requests wait at the gateway.
REPLICAS: Final = 1

_POLICIES: Final[Mapping[str, tuple[str, ...]]] = {
    "cacheAware": ("--policy", "cache_aware"),
    # By its own count of requests in flight: the other measures need load metrics that not every engine has.
    "leastLoad": ("--policy", "power_of_two", "--power-of-two-load-metric", "least_requests"),
    "sessionAffinity": ("--policy", "consistent_hashing"),
    "roundRobin": ("--policy", "round_robin"),
}


def router_args(service: str, namespace: str, revision: str, traffic: Traffic, engine_port: int) -> list[str]:
    """smg's arguments; each differs from its default for a reason."""
    selector = {**names.selector_labels(service), names.LABEL_REVISION: revision}
    return [
        "--host", "0.0.0.0",
        "--port", str(names.ROUTER_PORT),
        "--prometheus-host", "0.0.0.0",
        "--prometheus-port", str(names.ROUTER_METRICS_PORT),
        *_POLICIES[traffic.policy],
        # By default loads are read every 10 s and pods asked every 60 s: too late for an even spread, and a pod that was
        # unready for a moment stays out for a minute.
        "--load-monitor-interval", "1",
        "--health-check-interval-secs", "5",
        # A request that may have been started is never sent again; a retry would be one more load in an overload, too.
        "--disable-retries",
        # Readiness tells which pods work. The breaker would keep a service of one pod closed for a minute.
        "--disable-circuit-breaker",
        # Without a token for 3 s a pod would get no more requests; reading a long prompt on a CPU takes longer.
        "--worker-wedge-secs", str(traffic.request_timeout_s),
        # The gateway limits; a second queue would hide what waits.
        "--max-concurrent-requests", "0",
        "--request-timeout-secs", str(traffic.request_timeout_s),
        "--shutdown-grace-period-secs", str(traffic.request_timeout_s),
        # It would keep 10,000 answers in memory, and run requests that nobody waits for.
        "--history-backend", "none",
        "--max-background-responses", "0",
        "--disable-tokenizer-autoload",
        "--log-level", "warn",
        "--log-json",
        "--service-discovery",
        "--selector", *(f"{key}={value}" for key, value in selector.items()),
        "--service-discovery-namespace", namespace,
        "--service-discovery-port", str(engine_port),
    ]  # fmt: skip


def render_router_template(
    place: Place, *, revision: str, traffic: Traffic, engine_port: int, defaults: Defaults
) -> dict[str, Any]:
    """The pod template of a router, as today's code and defaults make it."""
    images = defaults.traffic
    return render(
        "router/pod.yaml.j2",
        labels={**names.object_labels(place.service, names.ROLE_ROUTER), names.LABEL_REVISION: revision},
        annotations={
            "prometheus.io/scrape": "true",
            "prometheus.io/port": str(names.ROUTER_METRICS_PORT),
            "prometheus.io/path": "/metrics",
            "kubectl.kubernetes.io/default-container": "router",
        },
        service_account=names.router_account_name(place.service),
        grace_s=DRAIN_S + traffic.request_timeout_s + 30,
        pod_security=POD_SECURITY,
        tolerations=[t.written() for t in defaults.tolerations or ()],
        image_pull_secrets=[{"name": s.name} for s in defaults.image_pull_secrets or ()],
        image=(images and images.router_image) or mirrored(DEFAULT_IMAGE, defaults),
        command=["smg", "launch"],
        args=router_args(place.service, place.namespace, revision, traffic, engine_port),
        port=names.ROUTER_PORT,
        metrics_port=names.ROUTER_METRICS_PORT,
        resources={"requests": {"cpu": "25m", "memory": "96Mi"}},
        drain_s=DRAIN_S,
    )


#: Of every pod that is ours and no engine.
POD_SECURITY: Final[Mapping[str, Any]] = {
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "runAsGroup": 65532,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def asked(revision: str, traffic: Traffic) -> str:
    """Names what the user asked of a router; as long as it is the same, the pinned template stays."""
    return names.short_hash({"revision": revision, "policy": traffic.policy, "timeout": traffic.request_timeout_s})


def pinned_template(deployment: Mapping[str, Any] | None, wanted: str) -> Mapping[str, Any] | None:
    """The template that a router's Deployment pins, or None when there is none for what is asked for now."""
    annotations = ((deployment or {}).get("metadata") or {}).get("annotations") or {}
    if annotations.get(ANNOTATION_ASKED) != wanted:
        return None
    try:
        template = json.loads(annotations[ANNOTATION_PINNED])
    except (KeyError, ValueError):
        return None
    is_whole = isinstance(template, dict) and isinstance(template.get("spec"), dict)
    return template if is_whole and isinstance(template.get("metadata"), dict) else None


def account_of(deployment: Mapping[str, Any] | None) -> str | None:
    """uid of the ServiceAccount that a router's Deployment starts its pods for, or None."""
    template = ((deployment or {}).get("spec") or {}).get("template") or {}
    found = ((template.get("metadata") or {}).get("annotations") or {}).get(ANNOTATION_ACCOUNT)
    return str(found) if found else None


def render_router_service(place: Place, *, revision: str, is_routed: bool) -> dict[str, Any]:
    """The Service of a revision's router; of its engines, when its requests need no router."""
    name, label = names.router_name(place.service, revision), {names.LABEL_REVISION: revision}
    role = names.ROLE_ROUTER if is_routed else names.ROLE_ENGINE
    selector = {**names.selector_labels(place.service, role), **label}
    fields = place.fields(name, names.ROLE_ROUTER, **label)
    return render("router/service.yaml.j2", **fields, selector=selector, port=names.ROUTER_PORT)


def render_router(
    place: Place, *, revision: str, wanted: str, pod_template: Mapping[str, Any], account: str | None
) -> dict[str, Any]:
    """Deployment of one revision's router.

    Args:
        wanted: As `asked` says.
        pod_template: Pinned, or as `render_router_template` makes it.
        account: uid of the ServiceAccount that its pods start with. Pods are replaced when it changes.
    """
    name = names.router_name(place.service, revision)
    label = {names.LABEL_REVISION: revision}
    fields = place.fields(name, names.ROLE_ROUTER, **label)
    selector = {**names.selector_labels(place.service, names.ROLE_ROUTER), **label}
    pinned = json.dumps(pod_template, sort_keys=True, separators=(",", ":"))
    if account is not None:
        metadata = pod_template["metadata"]
        annotations = {**(metadata.get("annotations") or {}), ANNOTATION_ACCOUNT: account}
        pod_template = {**pod_template, "metadata": {**metadata, "annotations": annotations}}
    return render(
        "router/deployment.yaml.j2",
        **fields,
        annotations={ANNOTATION_ASKED: wanted, ANNOTATION_PINNED: pinned},
        replicas=REPLICAS,
        selector=selector,
        pod_template=pod_template,
    )


def render_router_access(place: Place, defaults: Defaults) -> list[dict[str, Any]]:
    """ServiceAccount of a service's routers, and its binding to the right to look at pods of the namespace."""
    name = names.router_account_name(place.service)
    fields = place.fields(name, names.ROLE_ROUTER)
    return [
        render("common/service_account.yaml.j2", **fields),
        render(
            "router/role_binding.yaml.j2",
            **fields,
            role_kind="Role" if defaults.namespaced else "ClusterRole",
            role=ROLE,
            service_account=name,
        ),
    ]
