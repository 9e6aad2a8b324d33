"""A ModelGateway as one pure function: what was seen of it and of its namespace, and what is to be done about it."""

from collections.abc import Sequence
from typing import Any, Final

from pydantic import ValidationError

from draftmark.api import names
from draftmark.api.inference_service import TrafficSpec
from draftmark.api.model_gateway import DEFAULT_BODY_BYTES, DEFAULT_REPLICAS, ModelGatewaySpec, bytes_of
from draftmark.api.times import read_time
from draftmark.choice import describe_errors
from draftmark.decision import GatewayTarget, ObjectRef
from draftmark.facts.pods import is_ready
from draftmark.model_gateway.observation import ModelGatewayDecision, ModelGatewayObservation, Unrouted
from draftmark.observation import Json
from draftmark.render.gateway_config import GatewayFiles
from draftmark.render.metadata import Place
from draftmark.render.model_gateway import render_model_gateway
from draftmark.render.model_gateway_config import (
    ModelGatewayConfig,
    Route,
    is_routable,
    render_model_gateway_config,
    service_timeout_s,
)
from draftmark.traffic import read_traffic

#: Kinds that a ModelGateway owns, and that are pruned when they are no longer wanted.
_OWNED_KINDS: Final = ("Deployment", "Service", "ServiceAccount", "ConfigMap", "NetworkPolicy")


def decide_model_gateway(seen: ModelGatewayObservation) -> ModelGatewayDecision:
    """Decide about one ModelGateway.

    Pure. What is not known changes nothing: a model that vanished from the list because a list was incomplete would be a
    404 for its clients.
    """
    if seen.gateway["metadata"].get("deletionTimestamp"):
        return ModelGatewayDecision(is_deleted=True)
    try:
        spec = ModelGatewaySpec.model_validate(seen.gateway.get("spec") or {})
    except ValidationError as error:
        return ModelGatewayDecision(refused=describe_errors(error))
    replicas = spec.replicas or DEFAULT_REPLICAS
    if (held := _missing(seen)) is not None:
        return ModelGatewayDecision(held=held, replicas=replicas)
    routes, unrouted = choose_routes(seen)
    limit = bytes_of(spec.max_body_bytes) if spec.max_body_bytes is not None else DEFAULT_BODY_BYTES
    files = render_model_gateway_config(ModelGatewayConfig(routes=routes, max_body_bytes=limit))
    place = Place(service=seen.name, namespace=seen.namespace, uid=seen.uid, kind=names.MODEL_GATEWAY_KIND)
    desired = render_model_gateway(place, replicas=replicas, files=files, max_body_bytes=limit, defaults=seen.defaults)
    return ModelGatewayDecision(
        desired=tuple(desired),
        prune=_prune(seen, desired),
        target=_target(seen, files),
        routes=routes,
        unrouted=unrouted,
        replicas=replicas,
    )


def choose_routes(seen: ModelGatewayObservation) -> tuple[tuple[Route, ...], tuple[Unrouted, ...]]:
    """Which service answers for which name: all that have an address, and of several of one name the oldest.

    Returns:
        Routes by name, and the services that got none.
    """
    taken: dict[str, Route] = {}
    unrouted = []
    for service in sorted(seen.services or (), key=_age):
        name = str(service["metadata"]["name"])
        address = seen.addresses.get(name)
        if address is None or service["metadata"].get("deletionTimestamp"):
            continue
        model = served_name(service)
        if not is_routable(model):
            unrouted.append(
                Unrouted(
                    service=name,
                    message=f"InferenceService '{name}' serves a model whose name the gateway cannot tell: '{model}'. "
                    "Give it another spec.model.name: letters, digits and ._:/- only.",
                )
            )
        elif (first := taken.get(model)) is not None:
            unrouted.append(
                Unrouted(
                    service=name,
                    message=f"InferenceServices '{first.service}' and '{name}' both serve '{model}'. The older one, "
                    f"'{first.service}', gets its requests. Give one of them another spec.model.name.",
                )
            )
        else:
            taken[model] = Route(
                model=model,
                service=name,
                address=address,
                timeout_s=_timeout_s(service),
                created=_created(service),
            )
    return tuple(taken[model] for model in sorted(taken)), tuple(unrouted)


def served_name(service: Json) -> str:
    """The name under which a service answers: what its revision was made with, then what is asked for."""
    wanted = (service.get("spec") or {}).get("model") or {}
    return str((service.get("status") or {}).get("model") or wanted.get("name") or service["metadata"]["name"])


def _age(service: Json) -> tuple[int, str]:
    return _created(service), str(service["metadata"]["name"])


def _created(service: Json) -> int:
    at = read_time(service["metadata"].get("creationTimestamp"))
    return int(at.timestamp()) if at is not None else 0


def _timeout_s(service: Json) -> int:
    try:
        given = TrafficSpec.model_validate((service.get("spec") or {}).get("traffic") or {})
    except ValidationError:
        given = TrafficSpec()  # as `decide` reads it
    traffic = read_traffic(given)
    return service_timeout_s(traffic.queue_timeout_s, traffic.request_timeout_s)


def _missing(seen: ModelGatewayObservation) -> str | None:
    """What is not known, and without which the list of models could be wrong."""
    if seen.services is None:
        return (
            "The InferenceServices of the namespace cannot be read, so nothing is changed. Give the operator the right to "
            "list them, or wait until the API server answers."
        )
    if "Service" in seen.unread:
        return (
            f"The Services of the namespace cannot be read ({seen.unread['Service']}), so nothing is changed. Give the "
            "operator the right to list them, or wait until the API server answers."
        )
    return None


def _target(seen: ModelGatewayObservation, files: GatewayFiles) -> GatewayTarget:
    states = [seen.states.get(str(p["metadata"]["name"])) for p in seen.pods if is_ready(p)]
    return GatewayTarget(
        config=files.config_version,
        runtime=files.runtime_version,
        is_awaited=any(state is None or state.config != files.config_version for state in states),
        is_decisive=True,
    )


def _prune(seen: ModelGatewayObservation, wanted: Sequence[dict[str, Any]]) -> tuple[ObjectRef, ...]:
    """Owned objects that are no longer wanted. A kind that could not be listed completely is left alone."""
    keep = {(m["kind"], m["metadata"]["name"]) for m in wanted}
    return tuple(
        ObjectRef(
            api_version=str(item.get("apiVersion", "")),
            kind=kind,
            namespace=seen.namespace,
            name=str(item["metadata"]["name"]),
            uid=str(item["metadata"].get("uid", "")),
        )
        for kind in _OWNED_KINDS
        if kind not in seen.unread
        for item in seen.children.get(kind, ())
        if (kind, item["metadata"]["name"]) not in keep and not item["metadata"].get("deletionTimestamp")
    )
