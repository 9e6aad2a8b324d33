"""The configuration of a ModelGateway: HAProxy, unmodified, in front of the services of a namespace.

Unlike that of a service's gateway it has one part only: services, names and addresses come and go together, and each
change of them is a reload, in which the old process finishes what it has.

The cost of routing by the body is that the body is held whole until it has been read. HAProxy keeps it in a buffer of
the size of the limit, of which only what is used is memory: 200 bodies of 1 MiB at once took 190 to 230 MiB (HAProxy
3.0.11), and 16 to 23 MiB were left afterwards.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from re import fullmatch
from typing import Final

from draftmark.api import names
from draftmark.api.model_gateway import LEAST_BODY_BYTES, MOST_BODY_BYTES
from draftmark.facts.addresses import in_url, is_ipv6
from draftmark.render.gateway_config import (
    COMMANDS_FILE,
    CONFIG_FILE,
    HARD_STOP_SLACK_S,
    POST_PATHS,
    SLACK_S,
    GatewayFiles,
    GatewayPlace,
)
from draftmark.render.templates import read_text, render_text

__all__ = ["ModelGatewayConfig", "Route", "is_routable", "render_model_gateway_config", "service_timeout_s"]

#: Keys of the ConfigMap, beside those of every gateway.
MAP_FILE: Final = "models.map"
LIST_FILE: Final = "models.json"
SCRIPT_FILE: Final = "model.lua"

_POD: Final = GatewayPlace()

#: What a model's name may be made of, as in `spec.model.name`: nothing that means anything to HAProxy.
_NAME: Final = "[A-Za-z0-9][A-Za-z0-9._:/-]{0,252}"

#: Room beside the body for headers and HAProxy's own bookkeeping.
_BUFFER_SLACK_BYTES: Final = 64 * 1024
#: Bodies up to here are searched by the script when json_query finds nothing. What was made for it takes 0.5 s per
#: MiB, during which other requests wait for 0.05 s at most (HAProxy 3.0.11, one busy core).
_SEARCHED_BYTES: Final = 1024 * 1024
#: Seconds for a body to arrive: 8 MiB at 1 Mbit/s and a half.
_BODY_TIMEOUT_S: Final = 60
#: Seconds in which a service that refuses connections is tried again. Meanwhile the body is held.
_CONNECT_S: Final = 10
#: Names that the answer to an unknown model tells, in characters together.
_TOLD_CHARACTERS: Final = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One model behind the gateway."""

    #: Name under which requests ask for it.
    model: str
    #: Name of the InferenceService.
    service: str
    #: Cluster IP of its Service.
    address: str
    port: int = names.SERVICE_PORT
    #: Seconds after which the service's own gateway has ended any request.
    timeout_s: int
    #: When the service was made, in seconds since 1970.
    created: int = 0

    def __post_init__(self) -> None:
        if not is_routable(self.model):
            raise ValueError(f"not a name that can be routed: {self.model!r}")
        if names.name_problem(self.service):
            raise ValueError(f"not the name of a service: {self.service!r}")
        ip_address(self.address)

    @property
    def server(self) -> str:
        """Address and port as HAProxy reads them."""
        return f"{in_url(self.address)}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelGatewayConfig:
    """What a ModelGateway works with. Names and services each stand once."""

    routes: tuple[Route, ...]
    max_body_bytes: int

    def __post_init__(self) -> None:
        for each in ([r.model for r in self.routes], [r.service for r in self.routes]):
            if len(set(each)) != len(each):
                raise ValueError(f"each name and each service has one route: {', '.join(each)}")
        if not LEAST_BODY_BYTES <= self.max_body_bytes <= MOST_BODY_BYTES:
            raise ValueError(f"max_body_bytes is {self.max_body_bytes}")


def is_routable(model: str) -> bool:
    """Whether this can be the name of a model. An object that an older schema let in may have another."""
    return fullmatch(_NAME, model) is not None


def service_timeout_s(queue_timeout_s: int, request_timeout_s: int) -> int:
    """Seconds after which the gateway of a service with these time-outs has ended any request: it waits for a place,
    again for a router, and then for the answer."""
    return 2 * queue_timeout_s + request_timeout_s + 2 * SLACK_S


def render_model_gateway_config(config: ModelGatewayConfig, place: GatewayPlace = _POD) -> GatewayFiles:
    """Write the gateway's files.

    Pure: same inputs, same texts, whatever the order of the routes.
    """
    routes = sorted(config.routes, key=lambda route: route.model)
    beside = {
        MAP_FILE: render_text("model-gateway/models.map.j2", routes=routes),
        LIST_FILE: _list(routes),
        SCRIPT_FILE: read_text("model-gateway/model.lua"),
        # The reloader's: nothing here changes without a reload.
        COMMANDS_FILE: "",
    }
    version = names.short_hash([_shape(config, routes, place, beside, version="0"), beside])
    return GatewayFiles(
        data={CONFIG_FILE: _shape(config, routes, place, beside, version=version), **beside},
        config_version=version,
        runtime_version=version,
    )


def _list(routes: Sequence[Route]) -> str:
    """The answer to GET /v1/models, in OpenAI's shape."""
    models = [
        {"id": route.model, "object": "model", "created": route.created, "owned_by": route.service} for route in routes
    ]
    return json.dumps({"object": "list", "data": models}, separators=(",", ":")) + "\n"


def _shape(
    config: ModelGatewayConfig, routes: Sequence[Route], place: GatewayPlace, beside: dict[str, str], *, version: str
) -> str:
    longest = max((route.timeout_s for route in routes), default=_BODY_TIMEOUT_S)
    told = _told(routes)
    # A cluster whose Services have IPv6 addresses has IPv6 in its pods. One without may lack it in the kernel, and
    # then a listener on it does not start.
    has_ipv6 = any(is_ipv6(route.address) for route in routes)
    return render_text(
        "model-gateway/haproxy.cfg.j2",
        version=version,
        routes=routes,
        told_models=told,
        untold_models=len(routes) - len(told),
        config_folder=place.config_folder,
        run_folder=place.run_folder,
        map=f"{place.config_folder}/{MAP_FILE}",
        host="::" if has_ipv6 else place.host,
        public_port=place.port,
        inner_port=place.inner_port,
        metrics_port=place.metrics_port,
        post_paths=POST_PATHS,
        state_path=names.GATEWAY_STATE_PATH,
        header_service=names.HEADER_SERVICE,
        max_body_bytes=config.max_body_bytes,
        # The list is an answer of one buffer.
        buffer_bytes=max(config.max_body_bytes, len(beside[LIST_FILE])) + _BUFFER_SLACK_BYTES,
        searched_bytes=_SEARCHED_BYTES,
        body_timeout_s=_BODY_TIMEOUT_S,
        connect_s=_CONNECT_S,
        client_timeout_s=longest,
        hard_stop_s=_BODY_TIMEOUT_S + _CONNECT_S + longest + HARD_STOP_SLACK_S,
    )


def _told(routes: Sequence[Route]) -> list[str]:
    """The models that the answer to an unknown one tells: the first few."""
    told: list[str] = []
    for route in routes:
        if sum(map(len, told)) + len(route.model) > _TOLD_CHARACTERS:
            break
        told.append(route.model)
    return told
