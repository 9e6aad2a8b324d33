"""Who gets a place, who waits, who is refused."""

import asyncio
import time
from collections import Counter

import pytest

from draftmark.api import names
from draftmark.render.gateway_config import Backend, GatewayConfig
from e2e.ports import free_ports
from tests.gateway.conftest import Gateway, until
from tests.gateway.stand_in import Answer, StandIn, request, send

OLD, NEW = "16efc5ee", "a0b1c2d3"


def one(
    stand_in: StandIn, *, limit: int = 3, queue: int = 2, queue_timeout_s: int = 30, request_timeout_s: int = 30
) -> GatewayConfig:
    backend = Backend(revision=OLD, address="127.0.0.1", port=stand_in.port, limit=limit, queue=queue, weight=100)
    return GatewayConfig(backends=(backend,), queue_timeout_s=queue_timeout_s, request_timeout_s=request_timeout_s)


async def send_many(port: int, number: int, **body: object) -> list[Answer]:
    return await asyncio.gather(*(send(port, body={"id": each, **body}) for each in range(number)))


@pytest.mark.parametrize(("limit", "queue"), [(3, 2), (3, 0), (1, 1)])
async def test_limit_and_queue_are_exact(gateway: Gateway, stand_in: StandIn, limit: int, queue: int) -> None:
    gateway.mount(one(stand_in, limit=limit, queue=queue))
    await gateway.start()
    sent = asyncio.ensure_future(send_many(gateway.place.port, 20))

    async def all_are_placed() -> bool:
        seen = await gateway.revision(OLD)
        return (seen["running"], seen["waiting"], stand_in.running) == (limit, queue, limit)

    await until(all_are_placed)
    await asyncio.sleep(0.1)
    assert await all_are_placed()
    stand_in.release.set()
    answers = await sent
    assert Counter(answer.status for answer in answers) == {200: limit + queue, 429: 20 - limit - queue}
    assert stand_in.peak == limit
    refused = next(answer for answer in answers if answer.status == 429)
    assert (refused.code, refused.headers["retry-after"]) == ("queue_full", "2")
    assert refused.json["error"]["type"] == "rate_limit_error"
    assert len(stand_in.received) == limit + queue


async def test_who_waits_too_long_is_told_when_to_come_back(gateway: Gateway, stand_in: StandIn) -> None:
    gateway.mount(one(stand_in, limit=1, queue=1, queue_timeout_s=1))
    await gateway.start()
    first = asyncio.ensure_future(send(gateway.place.port, body={"id": 1}))
    await until(lambda: _reached(stand_in, 1))
    start = time.monotonic()
    second = await send(gateway.place.port, body={"id": 2})
    assert 0.9 < time.monotonic() - start < 3
    assert (second.status, second.code, second.headers["retry-after"]) == (503, "queue_timeout", "5")
    stand_in.release.set()
    assert (await first).status == 200


async def test_who_leaves_gives_the_place_back(gateway: Gateway, stand_in: StandIn) -> None:
    gateway.mount(one(stand_in, limit=1, queue=1))
    await gateway.start()
    async with request(gateway.place.port, body={"id": 1}), request(gateway.place.port, body={"id": 2}):

        async def full() -> bool:
            return await gateway.revision(OLD) == {"running": 1, "waiting": 1, "weight": 100}

        await until(full)

    async def empty() -> bool:
        return await gateway.revision(OLD) == {"running": 0, "waiting": 0, "weight": 100} and not stand_in.running

    await until(empty)
    assert stand_in.times_by_id == {1: 1}


async def test_requests_wait_for_a_router_that_is_not_up(gateway: Gateway) -> None:
    router = StandIn(port=free_ports(1)[0])
    gateway.mount(one(router, limit=3, queue=5))
    await gateway.start()
    long = "x" * 200_000
    held = asyncio.gather(
        send(gateway.place.port, body={"id": 0, "seconds": 0, "prompt": long}),
        send(gateway.place.port, body={"id": 1, "seconds": 0}),
        send(gateway.place.port, body={"id": 2, "do": "stream", "seconds": 0.2}),
        *(send(gateway.place.port, body={"id": number, "seconds": 0}) for number in range(3, 5)),
    )
    # One leaves meanwhile. It has no place and no connection yet.
    async with request(gateway.place.port, body={"id": "left"}):

        async def six_are_held() -> bool:
            return await gateway.revision(OLD) == {"running": 3, "waiting": 3, "weight": 100}

        await until(six_are_held)
    await asyncio.sleep(1.5)
    async with router:
        answers = await held
    assert [answer.status for answer in answers] == [200] * 5
    assert router.times_by_id == dict.fromkeys(range(5), 1)
    assert {len(r.body.get("prompt", "")) for r in router.received} == {0, 200_000}


async def test_a_router_that_does_not_come_is_a_503(gateway: Gateway) -> None:
    gateway.mount(one(StandIn(port=free_ports(1)[0]), queue_timeout_s=2))
    await gateway.start()
    start = time.monotonic()
    answer = await send(gateway.place.port, body={"id": 1})
    assert 1.5 < time.monotonic() - start < 4
    assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "queue_timeout", "5")


async def test_weights_hold_at_saturation(gateway: Gateway) -> None:
    async with StandIn() as old, StandIn() as new:
        backends = (
            Backend(revision=OLD, address="127.0.0.1", port=old.port, limit=4, queue=5000, weight=90),
            Backend(revision=NEW, address="127.0.0.1", port=new.port, limit=1, queue=5000, weight=10),
        )
        gateway.mount(GatewayConfig(backends=backends, queue_timeout_s=60, request_timeout_s=60))
        await gateway.start()
        sent = asyncio.ensure_future(send_many(gateway.place.port, 1000, seconds=0.002))
        most = {OLD: 0, NEW: 0}
        while not sent.done():
            for revision in most:
                most[revision] = max(most[revision], (await gateway.revision(revision))["waiting"])
            await asyncio.sleep(0.05)
        answers = await sent
        assert min(most.values()) > 0
        assert (old.peak, new.peak) == (4, 1)
        counts = Counter(answer.headers[names.HEADER_REVISION] for answer in answers)
        # Five standard deviations of 1000 draws.
        assert 52 < counts[NEW] < 148
        assert (len(old.received), len(new.received)) == (counts[OLD], counts[NEW])
        assert {*old.times_by_id.values(), *new.times_by_id.values()} == {1}


async def test_the_first_revision_answers_when_all_weights_are_zero(gateway: Gateway) -> None:
    async with StandIn() as old, StandIn() as new:
        backends = tuple(
            Backend(revision=revision, address="127.0.0.1", port=router.port, limit=9, queue=9, weight=0)
            for revision, router in ((OLD, old), (NEW, new))
        )
        gateway.mount(GatewayConfig(backends=backends, queue_timeout_s=60, request_timeout_s=60))
        await gateway.start()
        answers = [await send(gateway.place.port, body={"seconds": 0}) for _ in range(5)]
    assert {answer.headers[names.HEADER_REVISION] for answer in answers} == {OLD}
    assert not new.received


async def _reached(stand_in: StandIn, number: int) -> bool:
    return len(stand_in.received) >= number
