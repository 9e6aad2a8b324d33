"""A hub on the loopback that answers as told: well, or as an enemy would."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

from aiohttp import web

from draftmark.facts.model_answer import ModelAnswer, ModelProblem
from draftmark.model_facts_reader.hub import Hub, Limits, Question, read_hub
from draftmark.model_facts_reader.problem import ReadingEnds

REPOSITORY = "org/repo"
COMMIT = "1605565b47bb9346c5515c34102e054115b4f98b"

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@dataclass
class FakeHub:
    """Files of one repository, and what is answered otherwise."""

    #: By name.
    files: dict[str, bytes] = field(default_factory=dict)
    #: By name; `list` is the repository's list.
    instead: dict[str, Handler] = field(default_factory=dict)
    has_list: bool = True
    #: (host, path, headers) of every request.
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def elsewhere(self) -> str:
        """The same server under another name."""
        return f"http://localhost:{self.port}"

    def paths(self) -> list[str]:
        return [path for _, path, _ in self.asked]

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        headers = {key.lower(): value for key, value in request.headers.items()}
        path = request.rel_url.raw_path
        self.asked.append((request.host, path, headers))
        name = path.partition("/resolve/")[2].partition("/")[2]
        if path.startswith("/api/"):
            name = "list"
        if name in self.instead:
            return await self.instead[name](request)
        if name == "list" and self.has_list:
            return web.json_response({"sha": COMMIT, "siblings": [{"rfilename": n} for n in self.files]})
        if name not in self.files:
            return web.Response(
                status=404, headers={"X-Error-Code": "EntryNotFound", "X-Error-Message": "no such file"}
            )
        return part(request, self.files[name])

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["FakeHub"]:
        runner = web.ServerRunner(web.Server(self.answer), shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.port = runner.addresses[0][1]
        try:
            yield self
        finally:
            await runner.cleanup()


def part(request: web.BaseRequest, body: bytes) -> web.Response:
    """A file, or the part of it that is asked for."""
    headers = {"X-Repo-Commit": COMMIT}
    wanted = request.http_range
    if wanted.stop is None:
        return web.Response(body=body, headers=headers)
    piece = body[wanted.start or 0 : wanted.stop]
    headers["Content-Range"] = f"bytes {wanted.start or 0}-{len(piece) - 1}/{len(body)}"
    return web.Response(status=206, body=piece, headers=headers)


def redirect(to: str) -> Handler:
    async def answer(_: web.BaseRequest) -> web.Response:
        return web.Response(status=302, headers={"Location": to})

    return answer


def says(status: int, **headers: str) -> Handler:
    async def answer(_: web.BaseRequest) -> web.Response:
        return web.Response(status=status, headers={k.replace("_", "-"): v for k, v in headers.items()})

    return answer


def once(first: Handler, then: Handler) -> Handler:
    """The first answer, and another one from then on."""
    left = [first]

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return await (left.pop() if left else then)(request)

    return answer


def endless(piece: bytes = b" " * 65536, *, pause_s: float = 0.0, **headers: str) -> Handler:
    """A body that does not end."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={k.replace("_", "-"): v for k, v in headers.items()})
        await response.prepare(request)
        for _ in range(2000):
            await response.write(piece)
            await asyncio.sleep(pause_s)
        return response

    return answer


async def ask(
    hub: FakeHub,
    *,
    token: str | None = None,
    redirect_hosts: tuple[str, ...] = (),
    allow_http: bool = True,
    endpoint: str | None = None,
    limits: Limits | None = None,
    **question: str,
) -> ModelAnswer | ModelProblem:
    """What the reader says of a repository there."""
    return await asyncio.to_thread(
        partial(
            _read,
            endpoint or hub.url,
            redirect_hosts,
            token,
            allow_http,
            limits or Limits(total_s=5, answer_s=1, pauses_s=(0.01, 0.01)),
            Question(repository=REPOSITORY, **question),
        )
    )


def _read(
    endpoint: str,
    redirect_hosts: tuple[str, ...],
    token: str | None,
    allow_http: bool,
    limits: Limits,
    question: Question,
) -> ModelAnswer | ModelProblem:
    try:
        with Hub(endpoint, redirect_hosts, token=token, allow_http=allow_http, limits=limits) as hub:
            return read_hub(hub, question)
    except ReadingEnds as ends:
        return ends.problem
