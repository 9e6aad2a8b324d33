"""What passes the gateway, what comes back, and that nothing is sent twice."""

import asyncio
import time
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest

from draftmark.api import names
from draftmark.render.gateway_config import POST_PATHS, Backend, GatewayConfig
from tests.gateway.conftest import Gateway
from tests.gateway.stand_in import StandIn, read_answer, request, send

OLD, NEW, NOWHERE = "16efc5ee", "a0b1c2d3", "00000001"


@pytest.fixture
async def served(gateway: Gateway, stand_in: StandIn) -> AsyncIterator[Gateway]:
    """Three revisions: all requests go to OLD; NEW has a router of its own; NOWHERE has no address."""
    stand_in.headers = {"x-smg-routed-worker-id": "http://10.0.0.9:8080", "X-SMG-Other": "1", "x-request-id": "r1"}
    async with StandIn() as other:
        backends = (
            Backend(revision=OLD, address="127.0.0.1", port=stand_in.port, limit=9, queue=9, weight=1),
            Backend(revision=NEW, address="127.0.0.1", port=other.port, limit=9, queue=9, weight=0),
            Backend(revision=NOWHERE, address=None, limit=9, queue=9, weight=0),
        )
        config = GatewayConfig(backends=backends, queue_timeout_s=5, request_timeout_s=5)
        # What would take long here is 1 s.
        gateway.mount(
            config,
            lambda text: text.replace("timeout http-request 30s", "timeout http-request 1s").replace(
                "timeout server 20s", "timeout server 1s"
            ),
        )
        await gateway.start()
        yield gateway


FORBIDDEN = [
    *("/", "/workers", "/get_loads", "/metrics", "/health", "/sleep", "/flush_cache", "/api/pull", "/v1", "/v1/"),
    *("/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/v1/files", "/tokenize", names.GATEWAY_STATE_PATH),
    # Spelled so that somebody behind us might read an allowed or a forbidden path.
    *("//v1/chat/completions", "/v1//chat/completions", "/v1/chat/completions/", "/V1/chat/completions", "/v1/Models"),
    *(
        "/v1/chat/../../workers",
        "/v1/models/../../workers",
        "/v1/models/..",
        "/v1/models/",
        "/v1/models/.",
        "/./workers",
    ),
    *("/v1/models/%2e%2e/%2e%2e/workers", "/v1/models/..%2f..%2fworkers", "/v1/models/x/../../../workers"),
    *("/v1/models/x%2f..%2f..%2fworkers", "/v1/models//workers", "/v1/models/x%00", "/v1/models/x%5c..", "/%77orkers"),
    *("/v1/chat/completions%2f..%2f..%2fworkers", "/v1/chat/completions;/../workers", "/v1/chat%2fcompletions"),
    *("/workers?/v1/models", "/workers?path=/v1/chat/completions", "http://test/workers", "/v1/models;x", "*"),
]


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_other_paths_do_not_pass(served: Gateway, stand_in: StandIn, method: str) -> None:
    for path in FORBIDDEN:
        answer = await send(served.place.port, path, {} if method == "POST" else None, method=method)
        if path == "*" and answer.status == 400:
            continue  # HAProxy 3 takes it with OPTIONS only
        assert (path, answer.status, answer.code) == (path, 404, "not_found")
    assert not stand_in.received


async def test_a_fragment_in_the_path_is_refused(served: Gateway, stand_in: StandIn) -> None:
    assert (await send(served.place.port, "/v1/models#/../../workers")).status in (400, 404)
    assert not stand_in.received


async def test_the_paths_of_inference_pass(served: Gateway, stand_in: StandIn) -> None:
    for path in POST_PATHS:
        assert (await send(served.place.port, path, {"seconds": 0})).status == 200
    models = ["/v1/models", "/v1/models/tiny", "/v1/models/Qwen/Qwen2.5-0.5B:Q4_K_M", "/v1/models/Qwen%2FQwen2.5%3AQ4"]
    stand_in.release.set()
    for path in [*models, "/v1/models?limit=2"]:
        assert (await send(served.place.port, path)).status == 200
    lines = [f"POST {path} HTTP/1.1" for path in POST_PATHS]
    lines += [f"GET {path} HTTP/1.1" for path in [*models, "/v1/models?limit=2"]]
    assert [request.line for request in stand_in.received] == lines


async def test_the_wrong_method_is_a_405(served: Gateway, stand_in: StandIn) -> None:
    for method, path, allowed in [
        ("GET", "/v1/chat/completions", "POST"),
        ("OPTIONS", "/v1/chat/completions", "POST"),
        ("POST", "/v1/models", "GET"),
        ("DELETE", "/v1/models/tiny", "GET"),
    ]:
        answer = await send(served.place.port, path, {}, method=method)
        assert (answer.status, answer.code, answer.headers["allow"]) == (405, "method_not_allowed", allowed)
    assert not stand_in.received


async def test_headers_of_the_inside_stay_inside(served: Gateway, stand_in: StandIn) -> None:
    headers = {names.HEADER_REVISION: NEW, "Authorization": "Bearer key", "Connection": "upgrade", "Upgrade": "h2c"}
    answer = await send(served.place.port, body={"seconds": 0}, headers=headers)
    assert answer.headers[names.HEADER_REVISION] == OLD
    assert answer.headers["x-request-id"] == "r1"
    assert not [name for name in answer.headers if name.startswith("x-smg")]
    got = stand_in.received[0].headers
    assert got["authorization"] == "Bearer key"
    assert names.HEADER_REVISION not in got
    assert "upgrade" not in got
    assert got["connection"] == "close"


@pytest.mark.parametrize(("does", "status"), [("close", 502), ("reset", 502), ("break", 200)])
async def test_a_request_is_sent_once_whatever_becomes_of_it(
    served: Gateway, stand_in: StandIn, does: str, status: int
) -> None:
    answers = await asyncio.gather(
        *(send(served.place.port, body={"id": each, "do": does}) for each in range(8)),
    )
    assert {answer.status for answer in answers} == {status}
    if status == 502:
        assert {answer.code for answer in answers} == {"router_failed"}
    else:
        assert not any(answer.is_complete for answer in answers)
    assert stand_in.times_by_id == dict.fromkeys(range(8), 1)


async def test_a_kept_connection_carries_many_requests(served: Gateway, stand_in: StandIn) -> None:
    async with request(served.place.port, body={"id": 0, "seconds": 0}, close=False) as (reader, writer):
        assert (await read_answer(reader)).json == {"id": 0}
        writer.write(b"GET /v1/models HTTP/1.1\r\nHost: test\r\n\r\n")
        stand_in.release.set()
        assert (await read_answer(reader)).status == 200
        writer.write(b"GET /workers HTTP/1.1\r\nHost: test\r\n\r\n")
        assert (await read_answer(reader)).status == 404


async def test_own_errors_have_the_shape_of_openai(served: Gateway) -> None:
    silent = await send(served.place.port, body={"seconds": 3})
    assert (silent.status, silent.code) == (504, "request_timeout")
    closed = await send(served.place.port, body={"do": "close"})
    assert (closed.status, closed.code) == (502, "router_failed")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"POST /v1/chat/completions HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"POST /v1/chat/completions HTTP/1.1\r\nx: " + b"x" * 17000 + b"\r\n\r\n", 400),
        (b"POST /v1/chat/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: x\r\n\r\n", 400),
        (b"POST /v1/chat/completions HTTP/1.1\r\n", 408),
    ],
)
async def test_what_is_no_request_is_refused(served: Gateway, stand_in: StandIn, sent: bytes, status: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", served.place.port)
    writer.write(sent)
    # The text is HAProxy's own: no setting of 2.6 changes what it says before there is a request.
    assert (await read_answer(reader)).status == status
    assert not stand_in.received
    writer.close()


async def test_the_inner_port_reaches_a_revision_by_name(served: Gateway, stand_in: StandIn) -> None:
    inner = served.place.inner_port
    answer = await send(inner, body={"id": 1, "seconds": 0}, headers={names.HEADER_REVISION: NEW})
    assert (answer.status, answer.headers[names.HEADER_REVISION]) == (200, NEW)
    assert not stand_in.received
    nowhere = await send(inner, body={}, headers={names.HEADER_REVISION: NOWHERE})
    assert (nowhere.status, nowhere.code, nowhere.headers["retry-after"]) == (503, "no_address", "5")
    for headers in ({}, {names.HEADER_REVISION: "ffffffff"}, {names.HEADER_REVISION: f"{OLD} "}):
        unknown = await send(inner, body={"seconds": 0}, headers=headers)
        if headers.get(names.HEADER_REVISION) == f"{OLD} ":
            assert unknown.status == 200  # white space around a value is no part of it
            continue
        assert (unknown.status, unknown.code) == (404, "unknown_revision")
        assert all(revision in unknown.json["error"]["message"] for revision in (OLD, NEW, NOWHERE))
    for path in FORBIDDEN:
        if path != names.GATEWAY_STATE_PATH:
            assert (await send(inner, path, headers={names.HEADER_REVISION: NEW})).status in (400, 404)


async def test_state_names_versions_and_revisions(gateway: Gateway, stand_in: StandIn) -> None:
    backend = Backend(revision=OLD, address="127.0.0.1", port=stand_in.port, limit=9, queue=9, weight=7)
    files = gateway.mount(GatewayConfig(backends=(backend,), queue_timeout_s=5, request_timeout_s=5))
    await gateway.start()
    assert await gateway.state() == {
        "config": files.config_version,
        "runtime": files.runtime_version,
        "revisions": {OLD: {"running": 0, "waiting": 0, "weight": 7}},
    }


async def test_without_a_revision_it_answers_503(gateway: Gateway) -> None:
    files = gateway.mount(GatewayConfig(backends=(), queue_timeout_s=5, request_timeout_s=5))
    await gateway.start()
    assert await gateway.is_at(files)
    answer = await send(gateway.place.port, body={})
    assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "no_revision", "5")
    unknown = await send(gateway.place.inner_port, body={}, headers={names.HEADER_REVISION: OLD})
    assert (unknown.status, unknown.code) == (404, "unknown_revision")


async def test_metrics_and_probe(served: Gateway) -> None:
    metrics = await send(served.place.metrics_port, "/metrics")
    assert b'haproxy_backend_current_sessions{proxy="rev_16efc5ee"} 0' in metrics.body
    assert (await send(served.place.metrics_port, "/healthz")).body == b"ok"
    assert (await send(served.place.metrics_port, "/v1/models")).status == 404


async def test_tokens_are_passed_on_one_by_one(served: Gateway) -> None:
    async with request(served.place.port, body={"do": "stream", "seconds": 0.5}) as (reader, _):
        await reader.readuntil(b"\r\n\r\n")
        times = []
        while b"DONE" not in (line := await reader.readline()):
            if line.startswith(b"data:"):
                times.append(time.monotonic())
    gaps = sorted(after - before for before, after in pairwise(times))
    # They leave every 50 ms. Chunks that were held back would come together, 200 ms apart.
    assert 0.03 < gaps[len(gaps) // 2] < 0.1


async def test_only_errors_are_logged(served: Gateway) -> None:
    await send(served.place.port, body={"seconds": 0})
    await send(served.place.port, "/workers")
    await send(served.place.port, body={"do": "close"})
    await asyncio.sleep(0.1)
    lines = [line for line in served.log.splitlines() if "HTTP/1.1" in line]
    assert len(lines) == 1
    assert " 502 " in lines[0]
