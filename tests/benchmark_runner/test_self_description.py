"""What servers say of themselves, and what is not believed."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from draftmark.benchmark_runner import self_description
from draftmark.benchmark_runner.self_description import MAX_BYTES, described
from draftmark.engines.registry import ENGINES
from draftmark.measure.order import OrderedTarget, TargetFacts
from tests.benchmark_runner.orders import a_target
from tests.model_facts_reader.hub import FakeHub, endless

SIGNS = tuple(engine.sign for engine in ENGINES.values())
NOTHING = TargetFacts()


@asynccontextmanager
async def serving(**answers: Any) -> AsyncIterator[Callable[..., OrderedTarget]]:
    """A server with these answers by path, and targets that have its address."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        found = answers.get(request.path.strip("/"))
        if isinstance(found, web.Response):
            return found
        return web.Response(status=404) if found is None else web.json_response(found)

    runner = web.ServerRunner(web.Server(answer), shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield lambda **changes: a_target(**{"url": url, "signs": SIGNS, **changes})
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("owner", "answers", "told"),
    [
        # As llama-server (Debian's build 11669), vLLM 0.32.0 and the source of SGLang 0.5.23 (http_server.py) have it.
        ("llamacpp", {"props": {"build_info": "b11669-unknown", "total_slots": 4}}, ("llama-cpp", "b11669-unknown")),
        ("vllm", {"version": {"version": "0.32.0"}}, ("vllm", "0.32.0")),
        ("sglang", {"server_info": {"version": "0.5.23", "tp_size": 1}}, ("sglang", "0.5.23")),
    ],
)
async def test_an_engine_is_known_by_what_it_says(owner: str, answers: Any, told: tuple[str, str]) -> None:
    async with serving(**answers) as target:
        facts = await described(target(), owner)
    assert (facts.engine, facts.version) == told
    assert facts == NOTHING.model_copy(update={"engine": told[0], "version": told[1]})


@pytest.mark.parametrize("owner", [None, "", "vLLM", "openai", "library"])
async def test_an_engine_that_nobody_knows_stays_unknown(owner: str | None) -> None:
    async with serving(version={"version": "0.32.0"}) as target:
        assert await described(target(), owner) == NOTHING


@pytest.mark.parametrize(
    "answer",
    [
        None,
        web.Response(status=302, headers={"Location": "/elsewhere"}),
        web.Response(body=b"0.32.0"),
        web.Response(body=b"[" * 100_000),
        web.Response(body=b"\xff"),
        web.Response(body=b'{"version": "' + b"1" * MAX_BYTES + b'"}'),
        ["version"],
        {"version": 1},
        {"version": None},
        {"version": ""},
        {"version": "1" * 65},
        {"version": "=1+1"},
        {"version": "1\n2"},
        {"version": "<b>1</b>"},
    ],
    ids=lambda answer: str(answer)[:30] if not isinstance(answer, web.Response) else str(answer.status),
)
async def test_a_version_that_is_none_is_not_told(answer: Any) -> None:
    async with serving(version=answer, elsewhere={"version": "0.32.0"}) as target:
        facts = await described(target(), "vllm")
    assert (facts.engine, facts.version) == ("vllm", None)


async def test_what_the_operator_knows_is_not_asked_for() -> None:
    known = TargetFacts(service="llama", engine="llama-cpp", version="v0.7.0")
    async with serving(version={"version": "0.32.0"}) as target:
        assert await described(target(facts=known), "vllm") == known
        assert await described(target(signs=()), "vllm") == NOTHING


async def test_a_server_that_is_gone_is_no_error() -> None:
    facts = await described(a_target(url="http://127.0.0.1:1", signs=SIGNS), "vllm")
    assert (facts.engine, facts.version) == ("vllm", None)


@pytest.mark.timeout(20)
async def test_an_answer_that_comes_byte_by_byte_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_description, "ANSWER_S", 0.3)
    async with FakeHub(instead={"": endless(b" ", pause_s=0.05)}).serving() as server:
        facts = await described(a_target(url=server.url, signs=SIGNS), "vllm")
    assert (facts.engine, facts.version) == ("vllm", None)


def test_no_two_engines_share_a_sign() -> None:
    assert len({sign.owned_by for sign in SIGNS}) == len(SIGNS)
    assert [sign.engine for sign in SIGNS] == list(ENGINES)
