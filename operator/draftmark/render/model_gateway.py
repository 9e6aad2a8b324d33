"""The objects of a ModelGateway: what a service's gateway has, and a Service, an account and a policy of its own."""

from typing import Any, Final

from draftmark.api import names
from draftmark.api.defaults import Defaults
from draftmark.render.gateway import render_gateway_pods
from draftmark.render.gateway_config import GatewayFiles
from draftmark.render.metadata import Place
from draftmark.render.network import gateway_ingress
from draftmark.render.templates import render

ARGS: Final = ("-W", "-S", "/run/haproxy/master.sock", "-f", "/etc/draftmark/haproxy.cfg")

#: Seconds that a pod may take to end: more than the longest time-outs that a service can have, 24 h for an answer and
#: twice 1 h in queues. HAProxy's own bound comes sooner and follows the services; were this one to follow them, a service
#: with a longer time-out would roll the pods.
GRACE_S: Final = 27 * 3600

#: Longest bodies that a pod can hold at once before it is ended for its memory; ten thousands of common ones.
_BODIES_AT_ONCE: Final = 256
_BASE_MEMORY_MI: Final = 128


def render_model_gateway(
    place: Place, *, replicas: int, files: GatewayFiles, max_body_bytes: int, defaults: Defaults
) -> list[dict[str, Any]]:
    """All objects of a ModelGateway.

    Args:
        place: Of the ModelGateway.
        max_body_bytes: The memory limit follows from it.
    """
    role = names.ROLE_GATEWAY
    name = names.gateway_name(place.service)
    selector = names.selector_labels(place.service, role, kind=place.kind)
    limit_mi = _BASE_MEMORY_MI + -(-_BODIES_AT_ONCE * max_body_bytes // 1024**2)
    return [
        render("common/service_account.yaml.j2", **place.fields(name, role)),
        *render_gateway_pods(
            place,
            replicas=replicas,
            files=files,
            args=ARGS,
            service_account=name,
            hard_stop_s=GRACE_S,
            resources={"requests": {"cpu": "50m", "memory": "96Mi"}, "limits": {"memory": f"{limit_mi}Mi"}},
            defaults=defaults,
        ),
        render(
            "common/service.yaml.j2",
            **place.fields(place.service, "service"),
            selector=selector,
            port=names.SERVICE_PORT,
        ),
        render(
            "common/network_policy.yaml.j2",
            **place.fields(name, role),
            selector=selector,
            ingress=gateway_ingress(defaults),
        ),
    ]
