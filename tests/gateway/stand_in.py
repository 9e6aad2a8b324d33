"""A router's stand-in and a plain client, both on raw sockets: they do what a library would refuse to do."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self

_HEADERS_END = b"\r\n\r\n"


@dataclass(kw_only=True)
class Received:
    """One request as it reached the stand-in."""

    line: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass(kw_only=True)
class StandIn:
    """Answers as the body of the request asks: {"id": …, "do": …, "seconds": …}.

    `do` is one of: answer (the default; after `seconds`, or when `release` is set if there is none), stream (chunks for
    `seconds`), close (before any answer), break (in the middle of one), reset (a broken connection).
    """

    port: int = 0
    host: str = "127.0.0.1"
    #: Headers that each answer carries.
    headers: dict[str, str] = field(default_factory=dict)
    received: list[Received] = field(default_factory=list)
    #: Requests being answered, and the most at a time.
    running: int = 0
    peak: int = 0
    release: asyncio.Event = field(default_factory=asyncio.Event)
    _server: asyncio.Server | None = None
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)

    @property
    def times_by_id(self) -> Counter[Any]:
        return Counter(request.body.get("id") for request in self.received)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, self.host, self.port, backlog=2048)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            await self._serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the gateway closed: its client left
        except asyncio.CancelledError:
            pass  # the test is over
        finally:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(_HEADERS_END)
        line, headers = _parse(head)
        if headers.get("transfer-encoding") == "chunked":
            raw = b""
            while size := int(await reader.readline(), 16):
                raw += (await reader.readexactly(size + 2))[:-2]
            await reader.readexactly(2)
        else:
            raw = await reader.readexactly(int(headers.get("content-length", "0")))
        body = json.loads(raw) if raw else {}
        self.received.append(Received(line=line, headers=headers, body=body))
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            await self._answer(body, reader, writer)
        finally:
            self.running -= 1

    async def _answer(self, body: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        extra = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        match body.get("do", "answer"):
            case "answer":
                await self._wait(body.get("seconds"), reader)
                text = json.dumps({"id": body.get("id")})
                writer.write(f"HTTP/1.1 200 OK\r\n{extra}Content-Length: {len(text)}\r\n\r\n{text}".encode())
                await writer.drain()
            case "stream":
                writer.write(f"HTTP/1.1 200 OK\r\n{extra}Transfer-Encoding: chunked\r\n\r\n".encode())
                for number in range(round(body["seconds"] / 0.05)):
                    chunk = f"data: {number}\n\n"
                    writer.write(f"{len(chunk):x}\r\n{chunk}\r\n".encode())
                    await writer.drain()
                    await asyncio.sleep(0.05)
                writer.write(b"c\r\ndata: [DONE]\r\n0\r\n\r\n")
                await writer.drain()
            case "break":
                writer.write(f"HTTP/1.1 200 OK\r\n{extra}Content-Length: 1000\r\n\r\nhalf".encode())
                await writer.drain()
                writer.transport.abort()
            case "reset":
                writer.transport.abort()
            case "close":
                pass
            case unknown:
                raise AssertionError(f"the stand-in cannot do {unknown}")

    async def _wait(self, seconds: float | None, reader: asyncio.StreamReader) -> None:
        """Until it is time, or the gateway closes the connection."""
        leaving = asyncio.ensure_future(reader.read(1))
        waiting = asyncio.ensure_future(self.release.wait() if seconds is None else asyncio.sleep(seconds))
        done, pending = await asyncio.wait({leaving, waiting}, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        if leaving in done:
            leaving.exception()  # one of the two ways of leaving
            raise ConnectionResetError


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a client got. The body is what arrived; `is_complete` says whether that was all of it."""

    status: int
    headers: dict[str, str]
    body: bytes
    is_complete: bool

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The `code` of an error in OpenAI's shape, which is checked."""
        assert self.headers["content-type"] == "application/json"
        error = self.json["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        assert error["param"] is None
        return str(error["code"])


async def send(
    port: int,
    path: str = "/v1/chat/completions",
    body: dict[str, Any] | None = None,
    *,
    method: str | None = None,
    headers: dict[str, str] | None = None,
    host: str = "127.0.0.1",
) -> Answer:
    """One request on a connection of its own, the path exactly as given."""
    async with request(port, path, body, method=method, headers=headers, host=host) as (reader, _):
        return await read_answer(reader)


@asynccontextmanager
async def request(
    port: int,
    path: str = "/v1/chat/completions",
    body: dict[str, Any] | None = None,
    *,
    method: str | None = None,
    headers: dict[str, str] | None = None,
    host: str = "127.0.0.1",
    close: bool = True,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Send a request and hand over the connection."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        raw = json.dumps(body).encode() if body is not None else b""
        fields = {"Host": "test", **({"Connection": "close"} if close else {}), **(headers or {})}
        if body is not None:
            fields["Content-Length"] = str(len(raw))
        head = f"{method or ('POST' if body is not None else 'GET')} {path} HTTP/1.1\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        writer.write(head.encode() + b"\r\n" + raw)
        await writer.drain()
        yield reader, writer
    finally:
        writer.close()


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    """Read one answer. A connection that ends within it makes it incomplete; one that ends before it raises."""
    line, headers = _parse(await reader.readuntil(_HEADERS_END))
    body = b""
    is_complete = True
    try:
        if headers.get("transfer-encoding") == "chunked":
            while size := int(await reader.readline(), 16):
                body += await reader.readexactly(size)
                await reader.readexactly(2)
            await reader.readexactly(2)
        elif "content-length" in headers:
            body = await reader.readexactly(int(headers["content-length"]))
        else:
            body = await reader.read()
    except asyncio.IncompleteReadError as cut:
        body += cut.partial
        is_complete = False
    except (ConnectionError, ValueError):
        is_complete = False
    return Answer(status=int(line.split(" ")[1]), headers=headers, body=body, is_complete=is_complete)


def _parse(head: bytes) -> tuple[str, dict[str, str]]:
    line, *fields = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    return line, {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
