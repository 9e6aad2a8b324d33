"""The gateway over several models: whose request is whose, whatever the body looks like, and what is refused."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from draftmark.api import names
from draftmark.render.gateway_config import POST_PATHS
from draftmark.render.model_gateway_config import ModelGatewayConfig, Route, render_model_gateway_config
from e2e.ports import free_ports
from tests.gateway.conftest import Gateway, until
from tests.gateway.stand_in import Answer, StandIn, read_answer, request, send

MIB = 1024 * 1024
LIMIT = 2 * MIB
#: A name as the hub has them.
HUB = "Qwen/Qwen2.5-0.5B:Q4_K_M"

#: Peak of the process's memory with 200 bodies of 1 MiB in it, in MiB. 195 to 232 were measured.
PEAK_MIB = 300


@dataclass(frozen=True, kw_only=True)
class Models:
    """A gateway in front of two services: `tiny` is served by `small`, HUB by `qwen`. `gone` takes no connection."""

    gateway: Gateway
    small: StandIn
    qwen: StandIn

    @property
    def port(self) -> int:
        return self.gateway.place.port

    def config(self, *more: Route, max_body_bytes: int = LIMIT) -> ModelGatewayConfig:
        routes = (route("tiny", "small", self.small.port), route(HUB, "qwen", self.qwen.port), *more)
        return ModelGatewayConfig(routes=routes, max_body_bytes=max_body_bytes)

    async def post(self, body: bytes, *headers: str, path: str = "/v1/chat/completions") -> Answer:
        """Send a body as it is."""
        length = () if any("chunked" in header for header in headers) else (f"Content-Length: {len(body)}",)
        head = "\r\n".join((f"POST {path} HTTP/1.1", "Host: test", "Connection: close", *length, *headers))
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(head.encode() + b"\r\n\r\n" + body)
            answer = asyncio.ensure_future(read_answer(reader))
            with suppress(ConnectionError):  # an answer may come before the end of the request
                await writer.drain()
            return await answer
        finally:
            writer.close()


def route(model: str, service: str, port: int) -> Route:
    return Route(model=model, service=service, address="127.0.0.1", port=port, timeout_s=20, created=1767225600)


@pytest.fixture
async def models(gateway: Gateway, stand_in: StandIn) -> AsyncIterator[Models]:
    async with StandIn() as other:
        made = Models(gateway=gateway, small=stand_in, qwen=other)
        files = render_model_gateway_config(made.config(route("gone", "gone", free_ports(1)[0])), gateway.place)
        # What would take long here is 1 s.
        gateway.mount_files(
            files,
            lambda text: text.replace("retries 10", "retries 1").replace(
                "wait-for-body time 60s", "wait-for-body time 1s"
            ),
        )
        await gateway.start()
        yield made


def body(model: str, size: int = 0, *, last: bool = True, **more: Any) -> bytes:
    """A request of at least so many bytes, with the model at its end or its beginning."""
    others = {"id": 1, "seconds": 0, **more, "messages": [{"role": "user", "content": "x" * size}]}
    whole = {**others, "model": model} if last else {"model": model, **others}
    return json.dumps(whole).encode()


def exactly(size: int) -> bytes:
    return body("tiny", size - len(body("tiny")))


def nested(levels: int, *, objects: bool = False) -> bytes:
    opening, closing = (b'{"a":' * levels, b"}" * levels) if objects else (b"[" * levels, b"]" * levels)
    return b'{"seconds":0,"x":' + opening + b"1" + closing + b',"model":"tiny"}'


def chunks(whole: bytes, size: int) -> bytes:
    parts = (whole[at : at + size] for at in range(0, len(whole), size))
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


CHUNKED = "Transfer-Encoding: chunked"

FOR_TINY = {
    "first": body("tiny", last=False),
    "last": body("tiny"),
    "white space": b' \r\n\t{ "seconds" : 0 ,\n "model"\t:\n"tiny" } \n',
    "1 MiB before": body("tiny", MIB),
    "escaped": rb'{"seconds":0,"model":"\u0074i\u006ey"}',
    "an escaped key": rb'{"seconds":0,"mod\u0065l":"tiny"}',
    "one within another object": b'{"seconds":0,"metadata":{"model":"gone"},"model":"tiny"}',
    "one within a list": b'{"seconds":0,"tools":[{"model":"gone"},["model","gone"]],"model":"tiny"}',
    "one within a text": json.dumps({"seconds": 0, "messages": '{"model":"gone"}', "model": "tiny"}).encode(),
    "an end of text within a text": rb'{"seconds":0,"a":"\",\"model\":\"gone\",\"b\":\"","model":"tiny"}',
    "a backslash before the end of a text": rb'{"seconds":0,"a":"\\","model":"tiny","b":"\\\",\"model\":\"gone"}',
    "the word as a value": b'{"seconds":0,"a":"model","model":"tiny","b":["model"]}',
    "keys like it": b'{"seconds":0,"Model":"gone","models":"gone","a.model":"gone","model":"tiny"}',
    "twice: the first": b'{"seconds":0,"model":"tiny","model":"gone"}',
    "numbers": b'{"seconds":0,"n":[-1.5e+300,1e999,123456789012345678901234567890],"model":"tiny"}',
    "null, true, false": b'{"seconds":0,"a":null,"b":true,"c":false,"model":"tiny"}',
    "other languages": json.dumps({"seconds": 0, "a": "模型 😀", "model": "tiny"}, ensure_ascii=False).encode(),
    "19 levels": nested(19),
    "20 levels": nested(20),
    "40 levels of objects": nested(40, objects=True),
    "900 levels": nested(900),
    "900 levels behind it": b'{"seconds":0,"model":"tiny","x":' + b"[" * 900 + b"]" * 900 + b"}",
}


@pytest.mark.parametrize("case", FOR_TINY)
async def test_the_model_is_found_wherever_it_stands(models: Models, case: str) -> None:
    answer = await models.post(FOR_TINY[case])
    assert (answer.status, answer.headers.get(names.HEADER_SERVICE)) == (200, "small"), answer
    assert [received.body for received in models.small.received] == [json.loads(FOR_TINY[case])]
    assert not models.qwen.received


@pytest.mark.parametrize("written", [HUB, HUB.replace("/", r"\/"), HUB.replace("/", r"\u002f")])
@pytest.mark.parametrize("size", [0, 500_000])
async def test_a_slash_may_be_escaped(models: Models, written: str, size: int) -> None:
    """As PHP does it everywhere."""
    text = b'{"seconds":0,"url":"http:\\/\\/x' + b"x\\/" * (size // 3) + b'","model":"' + written.encode() + b'"}'
    answer = await models.post(text)
    assert (answer.status, answer.headers.get(names.HEADER_SERVICE)) == (200, "qwen"), answer


async def test_a_large_body_has_its_slashes_unescaped_or_is_told_so(models: Models) -> None:
    large = b'{"seconds":0,"a":"' + b"x" * MIB + b'","model":"' + HUB.replace("/", r"\/").encode() + b'"}'
    refused = await models.post(large)
    assert (refused.status, refused.code) == (400, "model_missing")
    assert "escaped slash" in refused.json["error"]["message"]
    assert (await models.post(large.replace(rb"\/", b"/"))).status == 200


NO_MODEL = {
    "no body": b"",
    "no JSON": b"hello",
    "a list": b'[{"model":"tiny"}]',
    "a text": b'"model"',
    "none": b'{"messages":[]}',
    "one inside only": b'{"metadata":{"model":"tiny"}}',
    "one in a second object": b'{"a":1} {"model":"tiny"}',
    "null": b'{"model":null}',
    "an object": b'{"model":{"name":"tiny"}}',
    "cut in the name": b'{"model":"ti',
    "cut before": b'{"messages":[',
    "a form": b"model=tiny",
    "many brackets": b'{"x":' + b"[" * 900_000,
}


@pytest.mark.parametrize("case", NO_MODEL)
async def test_a_body_without_a_model_is_a_400(models: Models, case: str) -> None:
    answer = await models.post(NO_MODEL[case])
    assert (answer.status, answer.code) == (400, "model_missing")
    assert not models.small.received


@pytest.mark.parametrize(
    "name",
    [
        "other",
        "Tiny",
        "tin",
        "tinyy",
        "",
        "x" * 300,
        'a"b\\c\n',
        "é",
        "tiny ",
        "# tiny",
        "small",
        "%[path]",
        "tiny\0",
        "tiny\0x",
    ],
)
async def test_an_unknown_model_is_a_404_with_the_known_ones(models: Models, name: str) -> None:
    answer = await models.post(body(name))
    assert (answer.status, answer.code) == (404, "model_not_found")
    message = answer.json["error"]["message"]
    assert message.endswith(f"is not served here. Served are: {HUB}, gone, tiny.")
    if name.isascii():
        assert f"`{name[:254]}`" in message
    assert not models.small.received


@pytest.mark.parametrize("value", [5, True, ["tiny"]])
async def test_a_model_that_is_no_text_is_refused(models: Models, value: Any) -> None:
    assert (await models.post(json.dumps({"model": value}).encode())).status in (400, 404)
    assert not models.small.received


@pytest.mark.parametrize("size", [1, 100, 65536])
async def test_a_body_without_a_length_is_read_as_well(models: Models, size: int) -> None:
    whole = body(HUB, 20_000 if size == 1 else MIB)
    answer = await models.post(chunks(whole, size), CHUNKED)
    assert (answer.status, answer.headers.get(names.HEADER_SERVICE)) == (200, "qwen"), answer
    assert models.qwen.received[0].body == json.loads(whole)


async def test_the_limit_is_exact_with_and_without_a_length(models: Models) -> None:
    for size, status in ((LIMIT, 200), (LIMIT + 1, 413), (4 * LIMIT, 413)):
        for answer in (await models.post(exactly(size)), await models.post(chunks(exactly(size), 65536), CHUNKED)):
            assert answer.status == status
            if status == 413:
                assert answer.code == "request_too_large"
                assert str(LIMIT) in answer.json["error"]["message"]
    assert len(models.small.received) == 2


async def test_who_asks_first_is_told_to_go_on_or_not(models: Models) -> None:
    """As curl does it with bodies above 1 MiB."""
    for size, first in ((MIB, b"HTTP/1.1 100"), (LIMIT + 1, b"HTTP/1.1 413")):
        reader, writer = await asyncio.open_connection("127.0.0.1", models.port)
        whole = exactly(size)
        head = (
            f"POST /v1/completions HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: {len(whole)}\r\n\r\n"
        )
        writer.write(head.encode())
        assert (await asyncio.wait_for(reader.readline(), 5)).startswith(first)
        if first.endswith(b"100"):
            await reader.readline()
            writer.write(whole)
            assert (await read_answer(reader)).status == 200
        writer.close()


async def test_what_cannot_be_read_is_said_so(models: Models) -> None:
    compressed = await models.post(b"\x1f\x8b\x08", "Content-Encoding: gzip")
    assert (compressed.status, compressed.code) == (415, "unsupported_encoding")
    form = await models.post(b"--x--", "Content-Type: multipart/form-data; boundary=x", path="/v1/audio/transcriptions")
    assert (form.status, form.code) == (415, "unsupported_media_type")
    assert (await models.post(body("tiny"), "Content-Encoding: identity")).status == 200
    # What curl says of any body.
    assert (await models.post(body("tiny"), "Content-Type: application/x-www-form-urlencoded")).status == 200


async def test_a_body_that_does_not_come_is_a_408(models: Models) -> None:
    answer = await models.post(body("tiny")[:-5] + b"", CHUNKED)  # no chunk is ever whole
    assert answer.status in (400, 408)
    reader, writer = await asyncio.open_connection("127.0.0.1", models.port)
    writer.write(b'POST /v1/completions HTTP/1.1\r\nHost: t\r\nContent-Length: 100\r\n\r\n{"model":"tiny"')
    slow = await asyncio.wait_for(read_answer(reader), 5)
    assert (slow.status, slow.code) == (408, "request_timeout")
    writer.close()
    assert not models.small.received


async def test_all_models_are_listed_and_each_can_be_asked_for(models: Models) -> None:
    listed = await send(models.port, "/v1/models")
    assert (listed.status, listed.headers["content-type"]) == (200, "application/json")
    entry = {"object": "model", "created": 1767225600}
    assert listed.json == {
        "object": "list",
        "data": [
            {"id": HUB, **entry, "owned_by": "qwen"},
            {"id": "gone", **entry, "owned_by": "gone"},
            {"id": "tiny", **entry, "owned_by": "small"},
        ],
    }
    for path in (HUB, HUB.replace("/", "%2F").replace(":", "%3a")):
        assert (await send(models.port, f"/v1/models/{path}")).json == listed.json["data"][0]
    for path in ("nobody", "", "..", "%zz", "tiny/", "tiny%00", "../../workers"):
        answer = await send(models.port, f"/v1/models/{path}")
        assert (answer.status, answer.code) == (404, "model_not_found")
    assert not models.small.received


async def test_only_the_paths_of_inference_pass(models: Models) -> None:
    for path in POST_PATHS:
        assert (await models.post(body("tiny"), path=path)).status == 200
    assert [received.line for received in models.small.received] == [f"POST {path} HTTP/1.1" for path in POST_PATHS]
    for path in (
        "/",
        "/workers",
        "/metrics",
        "//v1/completions",
        "/v1/completions/",
        "/v1/../workers",
        names.GATEWAY_STATE_PATH,
    ):
        answer = await models.post(body("tiny"), path=path)
        assert (answer.status, answer.code) == (404, "not_found")
    for method, path, allowed in (
        ("GET", "/v1/completions", "POST"),
        ("POST", "/v1/models", "GET"),
        ("PUT", "/v1/models/x", "GET"),
    ):
        answer = await send(models.port, path, {} if method != "GET" else None, method=method)
        assert (answer.status, answer.headers["allow"]) == (405, allowed)
    assert len(models.small.received) == len(POST_PATHS)


async def test_headers_go_through_and_no_tunnel_does(models: Models) -> None:
    models.small.headers = {"x-request-id": "r1", names.HEADER_REVISION: "16efc5ee"}
    headers = ("Authorization: Bearer key", "Connection: upgrade", "Upgrade: h2c")
    answer = await models.post(body("tiny"), *headers)
    assert answer.headers["x-request-id"] == "r1"
    assert answer.headers[names.HEADER_REVISION] == "16efc5ee"
    got = models.small.received[0].headers
    assert got["authorization"] == "Bearer key"
    assert "upgrade" not in got


async def test_a_kept_connection_carries_requests_for_several_models(models: Models) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", models.port)
    for model, service in (("tiny", "small"), (HUB, "qwen"), ("nobody", ""), ("tiny", "small")):
        whole = body(model, 300_000)
        writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n" % len(whole) + whole)
        answer = await read_answer(reader)
        assert answer.headers.get(names.HEADER_SERVICE, "") == service
    writer.close()


async def test_tokens_are_passed_on_one_by_one(models: Models) -> None:
    question = {"do": "stream", "seconds": 0.5, "messages": "x" * MIB, "model": "tiny"}
    async with request(models.port, body=question) as (reader, _):
        await reader.readuntil(b"\r\n\r\n")
        times = []
        while b"DONE" not in (line := await reader.readline()):
            if line.startswith(b"data:"):
                times.append(time.monotonic())
    gaps = sorted(after - before for before, after in pairwise(times))
    # They leave every 50 ms. Chunks that were held back would come together, 200 ms apart.
    assert 0.03 < gaps[len(gaps) // 2] < 0.1


@pytest.mark.parametrize(("does", "status"), [("close", 502), ("reset", 502), ("break", 200)])
async def test_a_request_is_sent_once_whatever_becomes_of_it(models: Models, does: str, status: int) -> None:
    answers = await asyncio.gather(*(models.post(body("tiny", id=n, do=does)) for n in range(8)))
    assert {answer.status for answer in answers} == {status}
    if status == 502:
        assert {answer.code for answer in answers} == {"service_failed"}
    assert models.small.times_by_id == dict.fromkeys(range(8), 1)


async def test_a_service_that_takes_no_connection_is_waited_for_and_then_a_503(models: Models) -> None:
    start = time.monotonic()
    answer = await models.post(body("gone"))
    assert 0.9 < time.monotonic() - start < 4
    assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "service_unavailable", "5")


async def test_what_a_service_refuses_comes_through_as_it_is(gateway: Gateway, stand_in: StandIn) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 2\r\nContent-Length: 4\r\n\r\nfull")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        config = ModelGatewayConfig(
            routes=(route("tiny", "small", server.sockets[0].getsockname()[1]),), max_body_bytes=LIMIT
        )
        gateway.mount_files(render_model_gateway_config(config, gateway.place))
        await gateway.start()
        answer = await send(gateway.place.port, body={"model": "tiny"})
    assert (answer.status, answer.headers["retry-after"], answer.body) == (429, "2", b"full")


async def test_two_hundred_clients_with_a_mebibyte_each_get_their_own_answers(
    models: Models, record_property: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """All bodies are in the gateway before the first one is whole, which is the most that it can hold of so many."""
    count, size = 200, MIB
    name = {True: "tiny", False: HUB}
    wholes = [body(name[n % 2 == 0], size - 200, id=n) for n in range(count)]
    all_but_the_end = asyncio.Barrier(count)

    async def ask(n: int) -> Answer:
        reader, writer = await asyncio.open_connection("127.0.0.1", models.port)
        whole = wholes[n]
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: {len(whole)}\r\n\r\n"
        writer.write(head.encode() + whole[:-5])
        await writer.drain()
        await all_but_the_end.wait()
        writer.write(whole[-5:])
        answer = await read_answer(reader)
        writer.close()
        return answer

    start = time.monotonic()
    # The body's second is for tests that wait for its end.
    models.gateway.mount_files(render_model_gateway_config(models.config(max_body_bytes=8 * MIB), models.gateway.place))
    models.gateway.start_reloader()
    await until(lambda: _knows(models, "tune.bufsize"))
    answers = await asyncio.gather(*(ask(n) for n in range(count)))
    took = time.monotonic() - start

    assert Counter(answer.status for answer in answers) == {200: count}
    assert [answer.json["id"] for answer in answers] == [*range(count)]
    services = {True: "small", False: "qwen"}
    assert [answer.headers[names.HEADER_SERVICE] for answer in answers] == [services[n % 2 == 0] for n in range(count)]
    assert models.small.times_by_id == dict.fromkeys(range(0, count, 2), 1)
    assert models.qwen.times_by_id == dict.fromkeys(range(1, count, 2), 1)
    peak, now = (_memory_mib(models.gateway, field) for field in ("VmHWM", "VmRSS"))
    with capsys.disabled():
        print(f" [200 bodies of 1 MiB: {took:.1f} s, {peak:.0f} MiB at most, {now:.0f} MiB afterwards]", end="")
    assert peak < PEAK_MIB


def _memory_mib(gateway: Gateway, field: str) -> float:
    process = gateway.worker().removeprefix("Pid: ")
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


async def _knows(models: Models, _: str) -> bool:
    state = await models.gateway.state()
    files = render_model_gateway_config(models.config(max_body_bytes=8 * MIB), models.gateway.place)
    return state is not None and state["config"] == files.config_version


async def test_services_come_and_go_without_a_lost_request(models: Models) -> None:
    """As the operator and the reloader do it, under load."""
    models.gateway.start_reloader()
    ends = time.monotonic() + 3
    told: Counter[tuple[int, str]] = Counter()

    async def ask(n: int) -> None:
        while time.monotonic() < ends:
            answer = await models.post(body("tiny", 10_000, id=n))
            told[answer.status, answer.headers.get(names.HEADER_SERVICE, "")] += 1

    clients = [asyncio.ensure_future(ask(n)) for n in range(8)]
    async with request(models.port, body={"model": HUB, "do": "stream", "seconds": 3}) as (reader, _):
        for more in (
            (),
            (route("third", "third", models.qwen.port + 1),),
            (route("new", "new", models.qwen.port + 1),),
        ):
            files = models.gateway.mount_files(render_model_gateway_config(models.config(*more), models.gateway.place))
            await until(lambda files=files: models.gateway.is_at(files))  # type: ignore[misc]
            listed = (await send(models.port, "/v1/models")).json["data"]
            assert [m["id"] for m in listed] == sorted(("tiny", HUB, *(r.model for r in more)))
        await asyncio.gather(*clients)
        stream = await read_answer(reader)
    assert set(told) == {(200, "small")}
    # It outlived three configurations.
    assert stream.is_complete
    assert b"[DONE]" in stream.body


async def test_state_and_probe(models: Models) -> None:
    inner = models.gateway.place.inner_port
    state = await models.gateway.state()
    assert state is not None
    assert state.keys() == {"config", "runtime", "revisions"}
    assert (state["runtime"], state["revisions"]) == (state["config"], {})
    assert (await send(inner, "/v1/models")).status == 404
    assert (await send(models.gateway.place.metrics_port, "/healthz")).body == b"ok"
    metrics = await send(models.gateway.place.metrics_port, "/metrics")
    assert b'haproxy_backend_current_sessions{proxy="model_small"}' in metrics.body


@pytest.mark.parametrize("count", [0, 1000])
async def test_haproxy_takes_no_models_and_a_thousand(gateway: Gateway, count: int) -> None:
    routes = tuple(route(f"{n:04}-{'x' * 240}", f"s{n}", 1) for n in range(count))
    files = gateway.mount_files(
        render_model_gateway_config(ModelGatewayConfig(routes=routes, max_body_bytes=64 * 1024), gateway.place)
    )
    await gateway.start()
    assert await gateway.is_at(files)
    assert "WARNING" not in gateway.log
    assert len((await send(gateway.place.port, "/v1/models")).json["data"]) == count
    unknown = await send(gateway.place.port, body={"model": "nobody"})
    assert (unknown.status, unknown.code) == (404, "model_not_found")
    assert len(unknown.body) < 4000
