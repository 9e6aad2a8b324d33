"""The configuration of a service's gateway: HAProxy, unmodified, in front of one router per revision.

It comes in two parts with different lives. The shape (`haproxy.cfg`) holds the revisions, their addresses and the
timeouts; a change of it is a reload, in which the old process finishes what it has. The values (`weights.map`,
`limits.cfg`) hold weights, limits and queues; `commands` sets them in a running HAProxy at once. A rollout therefore
reloads when a revision comes or goes, and never for a step of its weights.

A revision is drawn per request, rather than given by server weights, because weights of servers hold only while no
server is full: at saturation each server takes what it has room for, and 90/10 becomes 50/50.

What runs is known by two digests: `config_version` is the `description` of the running process, and `runtime_version`
is a key of its map; the gateway's state path tells both.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import accumulate
from re import MULTILINE, findall, fullmatch
from typing import Final

from draftmark.api import names
from draftmark.facts.addresses import in_url, is_ipv6
from draftmark.render.templates import render_text

__all__ = [
    "POST_PATHS",
    "Backend",
    "GatewayConfig",
    "GatewayFiles",
    "GatewayPlace",
    "cumulative_bounds",
    "hard_stop_s",
    "read_weights",
    "render_gateway_config",
]

#: Keys of the ConfigMap.
CONFIG_FILE: Final = "haproxy.cfg"
LIMITS_FILE: Final = "limits.cfg"
MAP_FILE: Final = "weights.map"
COMMANDS_FILE: Final = "commands"

#: Paths of inference. Routers and engines have more, and those load adapters, add workers or flush caches.
POST_PATHS: Final = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/rerank",
    "/rerank",
    "/v1/responses",
    "/v1/messages",
    "/v1/classify",
    "/v1/score",
    "/v1/tokenize",
    "/v1/detokenize",
    "/v1/audio/transcriptions",
    "/v1/audio/translations",
    "/v1/audio/speech",
    "/v1/images/generations",
)

#: Numbers that are drawn from, one per request.
DRAWS: Final = 1000

#: Seconds by which the gateway outwaits the router, whose own timeout can say more. A guess.
SLACK_S: Final = 15
#: Seconds beyond the longest request after which an old process is ended. A guess.
HARD_STOP_SLACK_S: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """One revision behind the gateway. Limits are per gateway process, not per service."""

    #: Eight hexadecimal digits.
    revision: str
    #: Cluster IP of the router's Service, IPv4 or IPv6; None when it is not known yet. Never a name: HAProxy would
    #: resolve it once, at its start, and refuse to start when it cannot.
    address: str | None
    port: int = names.ROUTER_PORT
    #: Requests in flight, at least 1.
    limit: int
    #: Requests that may wait beside them, 0 or more.
    queue: int
    #: Share of new requests, relative to the sum of all; 0 gets none.
    weight: int

    def __post_init__(self) -> None:
        if not fullmatch("[0-9a-f]{8}", self.revision):
            raise ValueError(f"a revision is eight hexadecimal digits, and this is not: {self.revision!r}")
        if self.address is not None:
            ip_address(self.address)
        if self.limit < 1:
            # HAProxy reads 0 as "no limit".
            raise ValueError(f"limit is {self.limit} requests in flight; at least 1 is needed")
        if self.queue < 0 or self.weight < 0:
            raise ValueError(f"queue {self.queue} and weight {self.weight} must not be negative")

    @property
    def server(self) -> str | None:
        """Address and port as HAProxy reads them."""
        if self.address is None:
            return None
        return f"{in_url(self.address)}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayConfig:
    """What one service's gateway works with."""

    #: The first answers when all weights are 0. Each revision once.
    backends: tuple[Backend, ...]
    #: Seconds that a request may wait for a place, and again for a router that is not up.
    queue_timeout_s: int
    #: Seconds that the router gives a whole request.
    request_timeout_s: int

    def __post_init__(self) -> None:
        revisions = [backend.revision for backend in self.backends]
        if len(set(revisions)) != len(revisions):
            raise ValueError(f"each revision has one backend, and here one has several: {', '.join(revisions)}")
        if self.queue_timeout_s < 1 or self.request_timeout_s < 1:
            raise ValueError(f"timeouts are at least 1 s: {self.queue_timeout_s}, {self.request_timeout_s}")


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayPlace:
    """Where the gateway runs. Only tests have another one than the pod's."""

    config_folder: str = "/etc/draftmark"
    run_folder: str = "/run/haproxy"
    #: IPv4 address to listen on. Where the routers' addresses show that the cluster has IPv6, it is all of both.
    host: str = "0.0.0.0"
    port: int = names.GATEWAY_PORT
    inner_port: int = names.GATEWAY_INNER_PORT
    metrics_port: int = names.GATEWAY_METRICS_PORT


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayFiles:
    """What is mounted into the gateway's pod, and how to know that it is in effect."""

    #: Data of the ConfigMap: file name to text.
    data: dict[str, str]
    #: Digest of the shape. The gateway's state tells it as `config`.
    config_version: str
    #: Digest of weights, limits and queues. The gateway's state tells it as `runtime`.
    runtime_version: str


def hard_stop_s(config: GatewayConfig) -> int:
    """Seconds that a gateway which was told to stop may still need; its pod's grace period must not be shorter.

    The longest life of a request: it waits for a place, gets one while the router is down, waits for the router, and is
    answered at the end of the request's own time.
    """
    return 2 * config.queue_timeout_s + config.request_timeout_s + HARD_STOP_SLACK_S


def render_gateway_config(config: GatewayConfig, place: GatewayPlace = GatewayPlace()) -> GatewayFiles:
    """Write the gateway's files.

    Pure: same inputs, same texts. Weights, limits and queues never change `haproxy.cfg`.
    """
    shape = _shape(config, place, version="0")
    config_version = names.short_hash(shape)
    limits = render_text("gateway/limits.cfg.j2", backends=config.backends)
    values = {
        "backends": config.backends,
        "bounds": "/".join(map(str, cumulative_bounds([backend.weight for backend in config.backends]))) or 0,
        "map": f"{place.config_folder}/{MAP_FILE}",
    }
    runtime_version = names.short_hash([limits, render_text("gateway/commands.j2", **values, version="0")])
    return GatewayFiles(
        data={
            CONFIG_FILE: _shape(config, place, version=config_version),
            LIMITS_FILE: limits,
            MAP_FILE: render_text("gateway/weights.map.j2", **values, version=runtime_version),
            COMMANDS_FILE: render_text("gateway/commands.j2", **values, version=runtime_version),
        },
        config_version=config_version,
        runtime_version=runtime_version,
    )


def cumulative_bounds(weights: list[int]) -> list[int]:
    """Where each share of the draws ends: share i has the draws from bound i-1 up to, not including, bound i.

    The last bound is 1000 when any weight is above 0, and all are 0 otherwise. A weight above 0 has at least one draw,
    however small it is: a revision that was given a share must see requests.
    """
    total = sum(weights)
    if not total:
        return [0] * len(weights)
    bounds: list[int] = []
    for weight, reached in zip(weights, accumulate(weights), strict=True):
        before = bounds[-1] if bounds else 0
        bounds.append(max(DRAWS * reached // total, before + (weight > 0)))
    # What was pushed up must leave room for the shares that follow.
    following = 0
    for index in range(len(weights) - 1, -1, -1):
        bounds[index] = min(bounds[index], DRAWS - following)
        following += weights[index] > 0
    return bounds


def read_weights(data: Mapping[str, str]) -> dict[str, int]:
    """The weights by revision in a ConfigMap's data, as far as they can be read."""
    found = findall(r"^weight\.(\w+) (\d+)$", data.get(MAP_FILE, ""), MULTILINE)
    return {revision: int(weight) for revision, weight in found}


def _shape(config: GatewayConfig, place: GatewayPlace, *, version: str) -> str:
    # A cluster whose Services have IPv6 addresses has IPv6 in its pods. One without may lack it in the kernel, and
    # then a listener on it does not start.
    has_ipv6 = any(b.address is not None and is_ipv6(b.address) for b in config.backends)
    return render_text(
        "gateway/haproxy.cfg.j2",
        version=version,
        backends=config.backends,
        config_folder=place.config_folder,
        run_folder=place.run_folder,
        map=f"{place.config_folder}/{MAP_FILE}",
        host="::" if has_ipv6 else place.host,
        public_port=place.port,
        inner_port=place.inner_port,
        metrics_port=place.metrics_port,
        post_paths=POST_PATHS,
        state_path=names.GATEWAY_STATE_PATH,
        header_revision=names.HEADER_REVISION,
        queue_timeout_s=config.queue_timeout_s,
        stream_timeout_s=config.request_timeout_s + SLACK_S,
        hard_stop_s=hard_stop_s(config),
    )
