"""Gateways that are none: one server answers for all gateway pods, each on a loopback address of its own.

A pod works with the ConfigMap that was there when it started, until the kubelet brings it another one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from draftmark.api import names
from tests.specs import gateway_state

Json = dict[str, Any]


@dataclass
class FakeGateways:
    """Use as `async with`; all pods listen on the same port."""

    #: What each pod works with, by its address; a pod without an entry does not answer.
    working_with: dict[str, Json] = field(default_factory=dict)
    #: Answers in the place of a pod's own, by its address.
    answers: dict[str, web.Response | str] = field(default_factory=dict)
    #: Addresses that were asked, in order.
    asked: list[str] = field(default_factory=list)
    port: int = 0

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_routes(self._routes())
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.05)
        await self._runner.setup()
        await web.TCPSite(self._runner, "0.0.0.0", 0).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    def _routes(self) -> Sequence[web.RouteDef]:
        return [web.get(names.GATEWAY_STATE_PATH, self._state)]

    def take_over(self, address: str, config_map: Mapping[str, Any], *, waiting: int = 0) -> None:
        """The pod works with this ConfigMap from now on."""
        state = gateway_state(config_map)
        revisions = {r: {"running": 0, "waiting": waiting, "weight": t.weight} for r, t in state.revisions.items()}
        self.working_with[address] = {"config": state.config, "runtime": state.runtime, "revisions": revisions}

    async def _state(self, request: web.Request) -> web.Response:
        assert request.transport is not None
        address = request.transport.get_extra_info("sockname")[0]
        self.asked.append(address)
        answer = self.answers.get(address)
        if isinstance(answer, str):
            return web.Response(text=answer)
        if answer is not None:
            return answer
        if address not in self.working_with:
            request.transport.close()
            return web.Response()
        return web.json_response(self.working_with[address])
