"""Whether a server keeps its connections, by servers that do and others that do not."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from draftmark.benchmark_runner import connections
from draftmark.benchmark_runner.connections import keeps_connections

STREAM = b"data: {}\n\ndata: [DONE]\n\n"


@asynccontextmanager
async def serving(
    *, keeps: bool = True, status: int = 200, headers: bytes = b"", is_endless: bool = False, late_s: float = 0.0
) -> AsyncIterator[tuple[str, list[Any]]]:
    """A server that answers one request per connection, and then waits for another one or does not; and what it was asked."""
    asked: list[Any] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0])
            asked.append((head.splitlines()[0], json.loads(await reader.readexactly(length))))
            writer.write(f"HTTP/1.1 {status} x\r\nTransfer-Encoding: chunked\r\n".encode() + headers + b"\r\n")
            writer.write(b"%x\r\n%b\r\n" % (len(STREAM), STREAM))
            while is_endless:
                writer.write(b"1\r\n \r\n")
                await writer.drain()
                await asyncio.sleep(0.001)
            writer.write(b"0\r\n\r\n")
            await writer.drain()
            await asyncio.sleep(late_s)
            if keeps:
                await reader.read()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked


async def test_it_is_asked_for_one_token_as_under_load() -> None:
    async with serving() as (url, asked):
        assert await keeps_connections(url + "/", "org/m")
    body = {"model": "org/m", "prompt": "a", "max_tokens": 1, "stream": True}
    assert asked == [("POST /v1/completions HTTP/1.1", body)]


@pytest.mark.parametrize(
    "server",
    [
        {"keeps": False},
        {"keeps": False, "late_s": 0.05},
        {"keeps": False, "headers": b"Connection: close\r\n"},
        {"headers": b"Connection: close\r\n"},
        {"status": 503},
    ],
    ids=str,
)
async def test_a_server_that_closes_them_gets_a_new_one_each_time(
    server: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A busy machine may halt this process for longer than the real one lasts.
    monkeypatch.setattr(connections, "REST_S", 1.0)
    async with serving(**server) as (url, _):
        assert not await keeps_connections(url, "m")


async def test_an_answer_without_end_is_not_read_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "ANSWER_S", 0.2)
    async with serving(is_endless=True) as (url, _):
        assert not await keeps_connections(url, "m")


async def test_a_server_that_is_not_there_is_no_error() -> None:
    assert not await keeps_connections("http://127.0.0.1:1", "m")
