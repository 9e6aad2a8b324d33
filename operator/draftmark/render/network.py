"""NetworkPolicies: who may talk to the pods of a service. Each hears its neighbour in the chain, and who measures it."""

from typing import Any, Final

from draftmark.api import names
from draftmark.api.defaults import Defaults
from draftmark.render.metadata import Place
from draftmark.render.templates import render

DEFAULT_OPERATOR_NAMESPACE: Final = "draftmark-system"
_NAMESPACE_NAME: Final = "kubernetes.io/metadata.name"


def render_network_policies(
    place: Place, *, engine_port: int, is_routed: bool, defaults: Defaults
) -> list[dict[str, Any]]:
    """One policy for each role: engines, routers, gateway.

    Args:
        engine_port: Where the engines answer requests and tell their metrics.
        is_routed: Whether every revision has a router. Where one has none, the gateway talks to the engines.
    """
    operator, monitoring = _operator(defaults), _monitoring(defaults)

    def of(role: str) -> dict[str, Any]:
        return {"podSelector": {"matchLabels": names.selector_labels(place.service, role)}}

    engine, router, gateway = names.ROLE_ENGINE, names.ROLE_ROUTER, names.ROLE_GATEWAY
    # One Benchmark may measure two services, so its pods are no service's.
    benchmark = {"podSelector": {"matchLabels": {names.LABEL_ROLE: names.ROLE_BENCHMARK}}}
    senders = [of(router)] if is_routed else [of(router), of(gateway)]
    rules = {
        # Ranks of a group talk on ports of their engine's choice.
        engine: [{"from": [of(engine)]}, _allow(engine_port, *senders, benchmark, operator, *monitoring)],
        router: [
            _allow(names.ROUTER_PORT, of(gateway), benchmark),
            _allow(names.ROUTER_METRICS_PORT, benchmark, operator, *monitoring),
        ],
        gateway: gateway_ingress(defaults),
    }
    return [
        render(
            "common/network_policy.yaml.j2",
            **place.fields(f"{place.service}-{role}", role),
            selector=names.selector_labels(place.service, role),
            ingress=ingress,
        )
        for role, ingress in rules.items()
    ]


def gateway_ingress(defaults: Defaults) -> list[dict[str, Any]]:
    """Who may talk to a gateway: everybody where clients do, and those who look after it."""
    operator = _operator(defaults)
    return [
        {"ports": [{"protocol": "TCP", "port": names.GATEWAY_PORT}]},
        _allow(names.GATEWAY_INNER_PORT, operator),
        _allow(names.GATEWAY_METRICS_PORT, operator, *_monitoring(defaults)),
    ]


def _operator(defaults: Defaults) -> dict[str, Any]:
    namespace = (defaults.network and defaults.network.operator_namespace) or DEFAULT_OPERATOR_NAMESPACE
    return {
        "namespaceSelector": {"matchLabels": {_NAMESPACE_NAME: namespace}},
        "podSelector": {"matchLabels": {"app.kubernetes.io/component": "operator"}},
    }


def _monitoring(defaults: Defaults) -> list[dict[str, Any]]:
    namespaces = (defaults.network and defaults.network.monitoring_namespaces) or ()
    return [{"namespaceSelector": {"matchLabels": {_NAMESPACE_NAME: name}}} for name in namespaces]


def _allow(port: int, *peers: dict[str, Any]) -> dict[str, Any]:
    return {"from": list(peers), "ports": [{"protocol": "TCP", "port": port}]}
