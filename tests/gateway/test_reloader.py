"""The reloader beside HAProxy: what is mounted comes into effect, and no request is cut for it."""

import asyncio
import contextlib
import dataclasses
import os
import signal
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from draftmark.api import names
from draftmark.render.gateway_config import Backend, GatewayConfig
from tests.gateway.conftest import Gateway, until
from tests.gateway.stand_in import StandIn, read_answer, request, send

OLD, NEW = "16efc5ee", "a0b1c2d3"


def config(*backends: Backend) -> GatewayConfig:
    return GatewayConfig(backends=backends, queue_timeout_s=30, request_timeout_s=30)


def backend(router: StandIn, revision: str = OLD, *, limit: int = 100, queue: int = 100, weight: int = 1) -> Backend:
    return Backend(revision=revision, address="127.0.0.1", port=router.port, limit=limit, queue=queue, weight=weight)


async def test_a_new_shape_cuts_no_stream(gateway: Gateway, stand_in: StandIn) -> None:
    async with StandIn() as new:
        gateway.mount(config(backend(stand_in)))
        await gateway.start()
        gateway.start_reloader()
        worker = gateway.worker()
        streams = [
            asyncio.ensure_future(send(gateway.place.port, body={"id": each, "do": "stream", "seconds": 3}))
            for each in range(50)
        ]
        over = asyncio.Event()
        clients = [asyncio.ensure_future(_ask_until(gateway.place.port, over, kept=kept)) for kept in (True, False)]
        await until(lambda: _reached(stand_in, 50))
        files = gateway.mount(config(backend(stand_in), backend(new, NEW)))
        took = await until(lambda: gateway.is_at(files), 5)
        print(f"a reload was in effect after {took:.2f} s")
        assert not any(stream.done() for stream in streams)
        answered = {
            (await send(gateway.place.port, body={"seconds": 0})).headers[names.HEADER_REVISION] for _ in range(40)
        }
        assert answered == {OLD, NEW}
        answers = await asyncio.gather(*streams)
        over.set()
        asked = await asyncio.gather(*clients)
        assert gateway.worker() != worker
    assert all(answer.status == 200 and answer.is_complete and b"[DONE]" in answer.body for answer in answers)
    assert min(asked) > 20
    times = stand_in.times_by_id + new.times_by_id
    assert {times[each] for each in range(50)} == {1}


async def test_requests_that_wait_live_through_a_reload(gateway: Gateway, stand_in: StandIn) -> None:
    gateway.mount(config(backend(stand_in, limit=1)))
    await gateway.start()
    gateway.start_reloader()
    waiting = [asyncio.ensure_future(send(gateway.place.port, body={"id": each})) for each in range(3)]
    await until(lambda: _waits(gateway, 2))
    files = gateway.mount(
        config(backend(stand_in, limit=1), Backend(revision=NEW, address=None, limit=1, queue=1, weight=0))
    )
    await until(lambda: gateway.is_at(files), 5)
    stand_in.release.set()
    assert [answer.status for answer in await asyncio.gather(*waiting)] == [200] * 3


async def test_new_weights_need_no_reload(gateway: Gateway, stand_in: StandIn) -> None:
    async with StandIn() as new:
        old_backend, new_backend = backend(stand_in, weight=100), backend(new, NEW, weight=0)
        gateway.mount(config(old_backend, new_backend))
        await gateway.start()
        gateway.start_reloader()
        worker = gateway.worker()
        for weight in (5, 50, 100, 0):
            files = gateway.mount(
                config(
                    dataclasses.replace(old_backend, weight=100 - weight),
                    dataclasses.replace(new_backend, weight=weight),
                )
            )
            took = await until(partial(gateway.is_at, files), 2)
            print(f"weights were in effect after {took:.2f} s")
            answers = [await send(gateway.place.port, body={"seconds": 0}) for _ in range(20)]
            revisions = {answer.headers[names.HEADER_REVISION] for answer in answers}
            assert revisions == {0: {OLD}, 100: {NEW}, 50: {OLD, NEW}}.get(weight, revisions)
        assert gateway.worker() == worker
    assert "reloading" not in gateway.log


async def test_a_higher_limit_lets_waiting_requests_in(gateway: Gateway, stand_in: StandIn) -> None:
    gateway.mount(config(backend(stand_in, limit=1, queue=3)))
    await gateway.start()
    gateway.start_reloader()
    waiting = [asyncio.ensure_future(send(gateway.place.port, body={"id": each})) for each in range(4)]
    await until(lambda: _waits(gateway, 3))
    gateway.mount(config(backend(stand_in, limit=3, queue=0)))
    await until(lambda: _reached(stand_in, 3), 2)
    # The fourth waits on: a place in the queue that was given is not taken back. A fifth finds none.
    assert (await send(gateway.place.port, body={})).status == 429
    stand_in.release.set()
    assert [answer.status for answer in await asyncio.gather(*waiting)] == [200] * 4
    # And after a reload the limits are the same.
    files = gateway.mount(dataclasses.replace(config(backend(stand_in, limit=3, queue=0)), request_timeout_s=20))
    await until(lambda: gateway.is_at(files), 5)
    stand_in.release.clear()
    many = [asyncio.ensure_future(send(gateway.place.port, body={})) for _ in range(5)]
    await until(lambda: _done(many, 2))
    stand_in.release.set()
    assert sorted(answer.status for answer in await asyncio.gather(*many)) == [200, 200, 200, 429, 429]


async def test_a_refused_configuration_keeps_the_old_one(gateway: Gateway, stand_in: StandIn) -> None:
    before = gateway.mount(config(backend(stand_in)))
    await gateway.start()
    reloader = gateway.start_reloader()
    await until(lambda: _logged(gateway, "in effect:"))
    worker = gateway.worker()
    stream = asyncio.ensure_future(send(gateway.place.port, body={"do": "stream", "seconds": 3}))
    await until(lambda: _reached(stand_in, 1))
    gateway.mount(config(backend(stand_in, NEW)), lambda text: text + "\nbackend broken\n  no such word\n")
    await until(lambda: _logged(gateway, "reloading:"), 5)
    await until(lambda: _logged(gateway, "unknown keyword"), 5)
    await asyncio.sleep(0.5)
    assert await gateway.is_at(before)
    assert (await send(gateway.place.port, body={"seconds": 0})).status == 200
    assert gateway.worker() == worker
    # A good one is taken at once, although the reloader still waits for the other.
    after = gateway.mount(config(backend(stand_in, NEW)))
    await until(lambda: gateway.is_at(after), 5)
    assert (await stream).is_complete
    assert reloader.poll() is None


async def test_a_refused_configuration_is_tried_again_without_harm(gateway: Gateway, stand_in: StandIn) -> None:
    before = gateway.mount(config(backend(stand_in)))
    await gateway.start()
    worker = gateway.worker()
    stream = asyncio.ensure_future(send(gateway.place.port, body={"do": "stream", "seconds": 2}))
    await until(lambda: _reached(stand_in, 1))
    for number in range(1, 6):
        gateway.mount(config(backend(stand_in, NEW)), lambda text: text + "\nno such word\n")
        if number == 1:
            gateway.start_reloader()
        await until(partial(_refused, gateway, number))
    assert await gateway.is_at(before)
    assert gateway.worker() == worker
    assert (await stream).is_complete


async def test_a_gateway_that_is_told_to_stop_finishes_what_it_has(gateway: Gateway, stand_in: StandIn) -> None:
    gateway.mount(config(backend(stand_in, limit=1)))
    haproxy = await gateway.start()
    sent = [
        asyncio.ensure_future(send(gateway.place.port, body={"id": each, "do": "stream", "seconds": 0.5}))
        for each in range(3)
    ]
    await until(lambda: _waits(gateway, 2))
    haproxy.send_signal(signal.SIGUSR1)
    assert all(answer.is_complete and answer.status == 200 for answer in await asyncio.gather(*sent))
    assert haproxy.wait(5) == 0


async def test_a_haproxy_that_starts_late_or_again_is_brought_up_to_date(gateway: Gateway, stand_in: StandIn) -> None:
    first = gateway.mount(config(backend(stand_in)))
    gateway.start_reloader()
    await until(lambda: _logged(gateway, "not in effect yet: HAProxy does not answer"))
    haproxy = await gateway.start()
    await until(lambda: _logged(gateway, f"in effect: configuration {first.config_version}"))
    haproxy.terminate()
    haproxy.wait(5)
    second = gateway.mount(config(backend(stand_in), backend(stand_in, NEW)))
    await asyncio.sleep(0.5)
    await gateway.start()
    assert await gateway.is_at(second)
    await until(lambda: _logged(gateway, f"in effect: configuration {second.config_version}"))
    third = gateway.mount(config(backend(stand_in), backend(stand_in, NEW, weight=7)))
    await until(lambda: gateway.is_at(third), 2)


async def test_the_reloader_is_small_and_ends_at_once(gateway: Gateway, stand_in: StandIn) -> None:
    gateway.mount(config(backend(stand_in)))
    await gateway.start()
    reloader = gateway.start_reloader()
    await until(lambda: _logged(gateway, "in effect:"))
    before = _cpu_s(reloader.pid)
    await asyncio.sleep(2)
    resident_kib, used = _resident_kib(reloader.pid), (_cpu_s(reloader.pid) - before) / 2
    print(f"{resident_kib} KiB resident; {used:.2%} of a core")
    assert resident_kib < 20_000
    assert used < 0.1
    start = time.monotonic()
    reloader.terminate()
    assert reloader.wait(2) == 0
    assert time.monotonic() - start < 0.5


@pytest.mark.parametrize("missing", ["haproxy.cfg", "commands"])
async def test_a_missing_file_is_said_and_waited_for(gateway: Gateway, stand_in: StandIn, missing: str) -> None:
    gateway.mount(config(backend(stand_in)))
    await gateway.start()
    file = Path(gateway.place.config_folder, "..0", missing)
    os.rename(file, f"{file}.away")
    gateway.start_reloader()
    await until(lambda: _logged(gateway, f"not in effect yet: [Errno 2] No such file or directory: '{file}'"))
    os.rename(f"{file}.away", file)
    await until(lambda: _logged(gateway, "in effect:"), 2)


def _resident_kib(process: int) -> int:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def _cpu_s(process: int) -> float:
    """Seconds of CPU that a process has used, in user and system mode."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _ask_until(port: int, over: asyncio.Event, *, kept: bool) -> int:
    """One request after the other, each answered; how many they were. A client that keeps its connection opens a new
    one when it was told so."""
    number = 0
    while not over.is_set():
        async with contextlib.AsyncExitStack() as stack:
            body = {"id": f"{kept} {number}", "seconds": 0}
            reader, writer = await stack.enter_async_context(request(port, body=body, close=not kept))
            while True:
                answer = await read_answer(reader)
                assert (answer.status, answer.is_complete) == (200, True)
                number += 1
                await asyncio.sleep(0.02)
                if not kept or answer.headers.get("connection") == "close" or over.is_set():
                    break
                writer.write(b'POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 13\r\n\r\n{"seconds":0}')
    return number


async def _reached(stand_in: StandIn, number: int) -> bool:
    return len(stand_in.received) >= number


async def _waits(gateway: Gateway, number: int) -> bool:
    return (await gateway.revision(OLD))["waiting"] == number


async def _done(tasks: "Sequence[asyncio.Task[Any]]", number: int) -> bool:
    return sum(task.done() for task in tasks) == number


async def _refused(gateway: Gateway, number: int) -> bool:
    return gateway.log.count("Fatal errors found") >= number


async def _logged(gateway: Gateway, text: str) -> bool:
    return text in gateway.log
