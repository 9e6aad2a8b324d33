"""A server that answers as Prometheus does, with what it is told."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

#: Labels of a series as NVIDIA's exporter and Prometheus make them; the pod's are left out.
LABELS = {
    "__name__": "DCGM_FI_DEV_FB_USED",
    "job": "nvidia-dcgm-exporter",
    "modelName": "NVIDIA L4",
    "device": "nvidia0",
}


def series(gpu: str, *values: tuple[float, float], **labels: str) -> dict[str, Any]:
    """Samples of one GPU: times and MiB."""
    told = [[at, f"{mebibytes:g}"] for at, mebibytes in values]
    return {"metric": {**LABELS, "UUID": gpu, **labels}, "values": told}


def answer(*found: Any, **more: Any) -> dict[str, Any]:
    """The whole of an answer to a query of a range."""
    return {"status": "success", "data": {"resultType": "matrix", "result": list(found)}, **more}


class FakePrometheus:
    """Whether a query is for the exporter's own labels decides what it gets.

    Args:
        own: Gets the time that is asked for; the series whose labels were kept.
        exported: Those whose labels Prometheus renamed.
    """

    def __init__(
        self,
        own: Callable[[float], Sequence[Any]] = lambda at: (),
        exported: Callable[[float], Sequence[Any]] = lambda at: (),
    ) -> None:
        self.own, self.exported = own, exported
        self.asked: list[dict[str, str]] = []
        #: What is answered instead; None: nothing for a long time.
        self.instead: list[web.Response | None] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        self.asked.append(form)
        if self.instead:
            instead = self.instead.pop(0)
            if instead is None:
                await asyncio.sleep(60)
            assert instead is not None
            return instead
        told = self.exported if "exported_pod" in form["query"] else self.own
        return web.json_response(answer(*told(float(form["time"]))))

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["FakePrometheus"]:
        app = web.Application()
        app.router.add_post("/below/api/v1/query", self.handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/below"
            yield self
        finally:
            await runner.cleanup()
