"""What a service's traffic settings come to, once what the user left open is filled in: plain data."""

from dataclasses import dataclass
from typing import Final

from draftmark.api.duration import seconds_of
from draftmark.api.inference_service import TrafficSpec

#: A guess: longer than most people wait for one generation. It also bounds how long an engine pod drains.
DEFAULT_REQUEST_TIMEOUT_S: Final = 600
DEFAULT_QUEUE_TIMEOUT_S: Final = 30
DEFAULT_MAX_QUEUE: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """How requests reach the engines of one service."""

    policy: str
    request_timeout_s: int
    queue_timeout_s: int
    #: Over all gateway pods; None: what the ready replicas serve at once.
    max_concurrent: int | None
    #: Over all gateway pods.
    max_queue: int


def read_traffic(spec: TrafficSpec | None) -> Traffic:
    """The settings, with defaults for what was not written."""
    given = spec or TrafficSpec()
    return Traffic(
        policy=given.policy or "cacheAware",
        request_timeout_s=seconds_of(given.request_timeout) if given.request_timeout else DEFAULT_REQUEST_TIMEOUT_S,
        queue_timeout_s=seconds_of(given.queue_timeout) if given.queue_timeout else DEFAULT_QUEUE_TIMEOUT_S,
        max_concurrent=given.max_concurrent,
        max_queue=given.max_queue if given.max_queue is not None else DEFAULT_MAX_QUEUE,
    )
