"""An API server with one ConfigMap, and answers that come before the true one."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

PATH = "/api/v1/namespaces/default/configmaps/bench-result"


class Server:
    """`faults` are statuses that are answered first; 0: the connection breaks."""

    def __init__(self) -> None:
        self.data: dict[str, str] = {}
        self.faults: list[int] = []
        self.requests: list[tuple[str, str, str]] = []
        self.url = ""
        self.written = asyncio.Event()

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.requests.append((request.method, request.headers["Authorization"], request.content_type))
        if self.faults:
            status = self.faults.pop(0)
            if status == 0:
                assert request.transport is not None
                request.transport.close()
            return web.json_response({"message": "told to"}, status=status or 500)
        assert request.path == PATH
        if request.method == "PATCH":
            self.data |= json.loads(body)["data"]
            self.written.set()
        return web.json_response({"data": self.data})

    async def until_progress(self, stage: str) -> None:
        """Wait until progress names a stage."""
        while stage not in self.data.get("progress", ""):
            self.written.clear()
            await self.written.wait()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Server"]:
        app = web.Application(client_max_size=8 * 2**20)
        app.router.add_route("*", "/{path:.*}", self.handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield self
        finally:
            await runner.cleanup()
