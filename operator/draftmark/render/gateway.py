"""The gateway of a service, or of a namespace: HAProxy, its configuration, and the reloader beside it.

Unlike revisions and routers a gateway is not pinned: an upgrade of the operator rolls it, drained, one pod at a time.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from draftmark.api import names
from draftmark.api.defaults import Defaults
from draftmark.api.images import mirrored
from draftmark.render.gateway_config import GatewayFiles
from draftmark.render.metadata import Place
from draftmark.render.router import POD_SECURITY
from draftmark.render.templates import render

#: The version that everything here was seen working with.
DEFAULT_IMAGE: Final = "docker.io/library/haproxy:3.0"
#: The operator's own; the chart says which.
DEFAULT_RELOADER_IMAGE: Final = "ghcr.io/draftmark/operator:0.2.0"

COMMAND: Final = ("haproxy",)
ARGS: Final = (
    "-W",
    "-S", "/run/haproxy/master.sock",
    "-f", "/etc/draftmark/limits.cfg",
    "-f", "/etc/draftmark/haproxy.cfg",
)  # fmt: skip
RELOADER_COMMAND: Final = ("python3", "-m", "draftmark.gateway_reloader")

#: Seconds in which Services forget the pod, before it is told to stop.
DRAIN_S: Final = 5

_CONTAINER_SECURITY: Final = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def gateway_replicas(replicas: int) -> int:
    """Gateway pods for so many engine pods: a second one where the user wants to survive the loss of a pod."""
    return 2 if replicas >= 2 else 1


def render_gateway(
    place: Place, *, replicas: int, files: GatewayFiles, hard_stop_s: int, defaults: Defaults
) -> list[dict[str, Any]]:
    """ConfigMap and Deployment of a gateway.

    Args:
        replicas: Gateway pods.
        files: The configuration; it reaches running pods without a restart.
        hard_stop_s: Seconds that HAProxy may take to end what it holds.
    """
    return render_gateway_pods(
        place,
        replicas=replicas,
        files=files,
        args=ARGS,
        # The engines' account: it has no rights either.
        service_account=names.service_account_name(place.service),
        hard_stop_s=hard_stop_s,
        resources={"requests": {"cpu": "25m", "memory": "48Mi"}},
        defaults=defaults,
    )


def render_gateway_pods(
    place: Place,
    *,
    replicas: int,
    files: GatewayFiles,
    args: Sequence[str],
    service_account: str,
    hard_stop_s: int,
    resources: Mapping[str, Any],
    defaults: Defaults,
) -> list[dict[str, Any]]:
    """ConfigMap and Deployment of any HAProxy with a reloader.

    Args:
        args: HAProxy's.
        service_account: One without rights.
        resources: HAProxy's.
    """
    images = defaults.traffic
    fields = place.fields(names.gateway_name(place.service), names.ROLE_GATEWAY)
    return [
        render("common/config_map.yaml.j2", **fields, data=dict(files.data)),
        render(
            "gateway/deployment.yaml.j2",
            **fields,
            replicas=replicas,
            selector=names.selector_labels(place.service, names.ROLE_GATEWAY, kind=place.kind),
            annotations={
                "prometheus.io/scrape": "true",
                "prometheus.io/port": str(names.GATEWAY_METRICS_PORT),
                "prometheus.io/path": "/metrics",
                "kubectl.kubernetes.io/default-container": "haproxy",
            },
            service_account=service_account,
            grace_s=DRAIN_S + hard_stop_s + 5,
            pod_security=POD_SECURITY,
            container_security=_CONTAINER_SECURITY,
            tolerations=[t.written() for t in defaults.tolerations or ()],
            image_pull_secrets=[{"name": s.name} for s in defaults.image_pull_secrets or ()],
            image=(images and images.gateway_image) or mirrored(DEFAULT_IMAGE, defaults),
            command=list(COMMAND),
            args=list(args),
            port=names.GATEWAY_PORT,
            inner_port=names.GATEWAY_INNER_PORT,
            metrics_port=names.GATEWAY_METRICS_PORT,
            resources=dict(resources),
            drain_s=DRAIN_S,
            reloader_image=(images and images.reloader_image) or mirrored(DEFAULT_RELOADER_IMAGE, defaults),
            reloader_command=list(RELOADER_COMMAND),
            reloader_resources={"requests": {"cpu": "5m", "memory": "24Mi"}},
            config_map=fields["name"],
        ),
    ]
