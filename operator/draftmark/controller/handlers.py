"""kopf's part: log-in, and the watch of our own kind. Every event becomes a key in the queue.

Only kopf's stateless layer is used. Its create/update/delete handlers, timers, daemons and indices would write to
every object, and they lose deletions that happen while a watch is being listed again.
"""

from collections.abc import Callable, Iterator
from random import Random
from typing import Any, Final

import kopf

from draftmark.api import names

#: Seconds between kopf's attempts to reach the API server, about five minutes in all; then the process ends and is
#: started again, which costs nothing and writes nothing.
_BACKOFFS: Final = (1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 89)


class JitteredBackoffs:
    """Delays that many replicas do not share. May be iterated any number of times."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def __iter__(self) -> Iterator[float]:
        return (delay * self._random.uniform(0.8, 1.2) for delay in _BACKOFFS)


def register(
    registry: kopf.OperatorRegistry,
    *,
    login: Callable[[], kopf.ConnectionInfo],
    on_event: Callable[[str | None, dict[str, Any]], None],
) -> None:
    """Put the handlers into kopf's registry.

    Args:
        registry: Of this process.
        login: Where the API server is, and how to log in.
        on_event: Told of each event's type (None: listed) and object.
    """

    @kopf.on.login(registry=registry)  # type: ignore[untyped-decorator]
    def log_in(**_: Any) -> kopf.ConnectionInfo:
        return login()

    @kopf.on.event(names.GROUP, names.VERSION, names.PLURAL, registry=registry)  # type: ignore[untyped-decorator]
    async def heard(event: dict[str, Any], **_: Any) -> None:
        on_event(event["type"], event["object"])


def configure(settings: kopf.OperatorSettings, random: Random) -> None:
    """Settings that differ from kopf's own, each with its reason."""
    settings.peering.standalone = True  # the Lease decides who leads; no peering objects
    settings.posting.enabled = False  # Events are our own and told once
    settings.scanning.disabled = True  # no right to list namespaces and CRDs is needed
    settings.watching.chunk_size = 500  # thousands of objects are listed in pages
    settings.watching.server_timeout = 290  # an orderly new watch before most proxies cut it
    settings.networking.request_timeout = 30  # five minutes would look like a hang
    settings.networking.connect_timeout = 10
    settings.networking.error_backoffs = JitteredBackoffs(random)
    settings.queueing.idle_timeout = 1  # a worker per object, five seconds each, adds up
    settings.persistence.finalizer = f"{names.GROUP}/cleanup"  # never used; kopf's own name must not appear
