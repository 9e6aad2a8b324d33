"""The request that proves a revision: what is sent, and what counts as an answer."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from draftmark.api import names
from draftmark.controller import prove as proving
from draftmark.controller.prove import prove
from draftmark.decision import ProveRevision
from draftmark.plan import ModelKind

ANSWERS: dict[ModelKind, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "generate": ("/v1/chat/completions", {"max_tokens": 1}, {"choices": [{"message": {"content": "Hi"}}]}),
    "embed": ("/v1/embeddings", {"input": "Hello"}, {"data": [{"embedding": [0.5, -0.5]}]}),
    "rerank": ("/v1/rerank", {"query": "Hello", "documents": ["Hello"]}, {"results": [{"index": 0}]}),
}


class Gateway:
    """The inner port of a gateway pod."""

    def __init__(self) -> None:
        self.answer: web.StreamResponse | dict[str, Any] | str = {}
        self.status = 200
        self.delay_s = 0.0
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        self.port = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.path, dict(request.headers), await request.json()))
        await asyncio.sleep(self.delay_s)
        if isinstance(self.answer, web.StreamResponse):
            return self.answer
        text = self.answer if isinstance(self.answer, str) else json.dumps(self.answer)
        return web.Response(text=text, status=self.status)


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    made = Gateway()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", made.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.05)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.port = runner.addresses[0][1]
    yield made
    await runner.cleanup()


def request(kind: ModelKind = "generate", address: str = "127.0.0.1") -> ProveRevision:
    return ProveRevision(revision="0123abcd", pod="llama-gateway-0", address=address, model="org/llama", kind=kind)


@pytest.mark.parametrize("kind", ANSWERS)
async def test_a_request_of_the_models_kind_goes_to_one_revision(gateway: Gateway, kind: ModelKind) -> None:
    path, fields, answer = ANSWERS[kind]
    gateway.answer = answer
    assert await prove(request(kind), port=gateway.port) is None
    [(asked, headers, body)] = gateway.requests
    assert asked == path
    assert headers[names.HEADER_REVISION] == "0123abcd"
    assert body["model"] == "org/llama"
    assert fields.items() <= body.items()


@pytest.mark.parametrize("kind", ANSWERS)
@pytest.mark.parametrize("answer", ["", "no JSON", "[]", "{}", "null", '{"choices": [], "data": [], "results": []}'])
async def test_an_answer_without_a_result_proves_nothing(gateway: Gateway, kind: ModelKind, answer: str) -> None:
    gateway.answer = answer
    problem = await prove(request(kind), port=gateway.port)
    assert problem is not None
    assert "llama-gateway-0" in problem
    assert "See the log of the engine's pod" in problem


async def test_a_refusal_is_told_with_its_words(gateway: Gateway) -> None:
    gateway.status, gateway.answer = 503, {"error": {"message": "no router"}}
    problem = await prove(request(), port=gateway.port)
    assert problem is not None
    assert "HTTP 503" in problem
    assert "no router" in problem


async def test_a_long_refusal_is_cut(gateway: Gateway) -> None:
    gateway.status, gateway.answer = 500, "x" * 100_000
    problem = await prove(request(), port=gateway.port)
    assert problem is not None
    assert len(problem) < 500


async def test_an_endless_answer_is_not_read_to_its_end(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proving, "MAX_ANSWER_BYTES", 1000)
    gateway.answer = "x" * 100_000
    problem = await prove(request(), port=gateway.port)
    assert problem is not None
    assert "more than 1000 bytes" in problem


async def test_a_redirect_is_not_followed(gateway: Gateway) -> None:
    gateway.answer = web.Response(status=307, headers={"Location": f"http://127.0.0.1:{gateway.port}/elsewhere"})
    problem = await prove(request(), port=gateway.port)
    assert problem is not None
    assert "HTTP 307" in problem
    assert len(gateway.requests) == 1


async def test_a_proxy_of_the_environment_is_not_used(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    gateway.answer = ANSWERS["generate"][2]
    assert await prove(request(), port=gateway.port) is None


async def test_nobody_there_is_told_and_tried_again(gateway: Gateway) -> None:
    problem = await prove(request(), port=1)
    assert problem is not None
    assert "ConnectError" in problem
    assert "tried again" in problem


async def test_a_late_answer_is_none(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proving, "TIMEOUT_S", 0.2)
    gateway.answer, gateway.delay_s = ANSWERS["generate"][2], 0.5
    problem = await prove(request(), port=gateway.port)
    assert problem is not None
    assert "ReadTimeout" in problem


async def test_an_address_of_ipv6_is_written_in_brackets() -> None:
    problem = await prove(request(address="::1"), port=1)
    assert problem is not None
    assert "ConnectError" in problem, "a host without brackets would not even be a URL"
