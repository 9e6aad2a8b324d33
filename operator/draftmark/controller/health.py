"""/healthz, /readyz and /metrics.

Healthy is not "the process answers": every watch has heard something lately, the queue moves, the loop is on time.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from draftmark.cluster.informer import Informer
from draftmark.controller.telemetry import Telemetry

#: Seconds of silence after which a watch is taken for dead. Where nothing changes no bookmark comes either, but a silent
#: watch is opened anew after 75 s, and being let in counts; a list is tried for half a minute.
_SILENCE_S: Final = 420.0
#: Age of the queue's oldest item, and lag of the loop, that no healthy process shows.
_QUEUE_AGE_S: Final = 300.0
_LAG_S: Final = 5.0
_LAG_PERIOD_S: Final = 1.0


@dataclass(slots=True)
class Health:
    """What the probes look at. A standby replica is ready: it does its work, which is to wait."""

    telemetry: Telemetry
    queue_age_s: Callable[[], float]
    clock: Callable[[], float] = time.monotonic
    informers: Sequence[Informer[Any]] = ()
    is_leading: bool = False
    has_started: bool = False
    _lag_s: float = field(default=0.0)

    def problems(self) -> list[str]:
        """Why the process should be started again; empty when it is well."""
        found = []
        if self._lag_s > _LAG_S:
            found.append(f"the event loop ran {self._lag_s:.1f} s late, at most {_LAG_S:.0f} s is normal")
        if not self.is_leading:
            return found
        now = self.clock()
        for informer in self.informers:
            silence = now - informer.last_heard
            # A kind that may not be read is told in conditions; starting again would not help.
            if informer.last_heard and silence > _SILENCE_S and not (informer.denied or informer.absent):
                found.append(f"nothing was heard of {informer.kind.plural} for {silence:.0f} s")
        age = self.queue_age_s()
        if age > _QUEUE_AGE_S:
            found.append(f"the oldest item of the queue waits for {age:.0f} s")
        return found

    async def watch_loop(self) -> None:
        """Measure how late the loop is, once a second, until cancelled."""
        while True:
            due = self.clock() + _LAG_PERIOD_S
            await asyncio.sleep(_LAG_PERIOD_S)
            self._lag_s = max(0.0, self.clock() - due)
            self.telemetry.loop_lag.set(self._lag_s)

    async def healthz(self, _: web.Request) -> web.Response:
        problems = self.problems()
        return web.Response(status=500 if problems else 200, text="; ".join(problems) or "ok")

    async def readyz(self, _: web.Request) -> web.Response:
        if not self.has_started:
            return web.Response(status=503, text="starting: the caches are not filled yet")
        problems = self.problems()
        text = "; ".join(problems) or ("leading" if self.is_leading else "standing by")
        return web.Response(status=503 if problems else 200, text=text)

    async def metrics(self, request: web.Request) -> web.Response:
        """All metrics, or those of the query's `name[]`, as Prometheus' own clients have it."""
        registry: Any = self.telemetry.registry
        if wanted := request.query.getall("name[]", []):
            registry = registry.restricted_registry(wanted)
        # The text of five thousand services takes most of a second to write: not on the loop.
        body = await asyncio.to_thread(generate_latest, registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def serve(self, port: int) -> web.AppRunner:
        """Start to answer on all addresses."""
        app = web.Application()
        app.router.add_get("/healthz", self.healthz)
        app.router.add_get("/readyz", self.readyz)
        app.router.add_get("/metrics", self.metrics)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, port=port).start()
        return runner
