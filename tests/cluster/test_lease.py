"""At most one leader, and certainty about it."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from draftmark.cluster.client import ApiClient
from draftmark.cluster.credentials import Credentials
from draftmark.cluster.kinds import LEASES
from draftmark.cluster.lease import LeadershipLost, LeaseLock
from tests.cluster.conftest import eventually
from tests.fake_api import FakeApi


class Replica:
    """One process of the operator, with a clock that the test moves."""

    def __init__(self, client: ApiClient, name: str, **settings: Any) -> None:
        self.seconds = 5000.0
        self.lock = LeaseLock(
            client,
            namespace="ops",
            name="draftmark",
            identity=name,
            retry_s=0.02,
            clock=lambda: self.seconds,
            **settings,
        )
        self.stop = asyncio.Event()
        self.task = asyncio.create_task(self.lock.acquire(self.stop))

    async def leads(self, within_s: float = 1.0) -> bool:
        try:
            return await asyncio.wait_for(asyncio.shield(self.task), within_s)
        except TimeoutError:
            return False

    def pause(self) -> None:
        """SIGSTOP: nothing of the process runs."""
        assert self.lock._renewals is not None
        self.lock._renewals.cancel()

    def resume(self) -> None:
        self.lock._renewals = asyncio.create_task(self.lock._keep_renewing())


@pytest.fixture
async def clients(fake_api: FakeApi) -> AsyncIterator[tuple[ApiClient, ApiClient]]:
    credentials = Credentials.plain(fake_api.url)
    async with ApiClient(credentials, max_connections=2) as a, ApiClient(credentials, max_connections=2) as b:
        yield a, b


def spec(fake_api: FakeApi) -> dict[str, Any]:
    lease = fake_api.see(LEASES, "draftmark", "ops")
    assert lease is not None
    found: dict[str, Any] = lease["spec"]
    return found


async def looked(fake_api: FakeApi) -> None:
    """Wait until who waits has seen the Lease as it is now: its second look from here on begins after the answer to the first."""
    before = fake_api.count("get", LEASES)
    await eventually(lambda: fake_api.count("get", LEASES) >= before + 2)


async def test_the_first_leads_and_renews_while_the_second_waits(
    fake_api: FakeApi, clients: tuple[ApiClient, ApiClient]
) -> None:
    a = Replica(clients[0], "a")
    assert await a.leads()
    assert a.lock.valid()
    b = Replica(clients[1], "b")
    b.seconds = 9_999_999.0
    first = spec(fake_api)
    assert (first["holderIdentity"], first["leaseDurationSeconds"], first["leaseTransitions"]) == (a.lock.holder, 15, 0)
    await eventually(lambda: spec(fake_api)["renewTime"] > first["renewTime"])
    assert spec(fake_api)["acquireTime"] == first["acquireTime"]
    for _ in range(5):
        b.seconds += 14.0
        await asyncio.sleep(0.05)
    assert not await b.leads(0.01)
    assert not b.lock.valid()
    with pytest.raises(LeadershipLost, match="writes nothing"):
        b.lock.guard()
    b.stop.set()
    assert await b.task is False


async def test_a_released_lease_is_taken_at_once(fake_api: FakeApi, clients: tuple[ApiClient, ApiClient]) -> None:
    a = Replica(clients[0], "a")
    await a.leads()
    b = Replica(clients[1], "b")
    await asyncio.sleep(0.05)
    await a.lock.release()
    assert not a.lock.valid()
    assert not a.lock.lost.done()
    assert await b.leads()
    assert spec(fake_api)["leaseTransitions"] >= 1
    await b.lock.release()
    assert spec(fake_api)["holderIdentity"] == ""


async def test_a_paused_leader_wakes_up_and_knows_that_it_may_not_lead(
    fake_api: FakeApi, clients: tuple[ApiClient, ApiClient]
) -> None:
    a = Replica(clients[0], "a")
    await a.leads()
    b = Replica(clients[1], "b")
    a.pause()
    await looked(fake_api)
    b.seconds += 14.0
    assert not await b.leads(0.06)
    b.seconds += 2.0
    assert await b.leads()
    a.seconds += 60.0
    assert not a.lock.valid()
    with pytest.raises(LeadershipLost):
        a.lock.guard()
    a.resume()
    assert "no renewal for 10 s" in await asyncio.wait_for(a.lock.lost, 1)
    await a.lock.release()
    assert spec(fake_api)["holderIdentity"] == b.lock.holder


async def test_writing_ends_before_anyone_else_may_begin(clients: tuple[ApiClient, ApiClient]) -> None:
    a = Replica(clients[0], "a")
    await a.leads()
    a.pause()
    a.seconds += 12.9
    assert a.lock.valid()
    a.seconds += 0.2
    assert not a.lock.valid()


async def test_clocks_that_differ_by_hours_change_nothing(
    fake_api: FakeApi, clients: tuple[ApiClient, ApiClient]
) -> None:
    a = Replica(clients[0], "a", now=lambda: datetime.now(UTC) - timedelta(hours=3))
    await a.leads()
    b = Replica(clients[1], "b", now=lambda: datetime.now(UTC) + timedelta(hours=3))
    assert not await b.leads(0.2)
    assert a.lock.valid()


async def test_a_lost_answer_of_a_renewal_is_recognised_as_ours(
    fake_api: FakeApi, clients: tuple[ApiClient, ApiClient]
) -> None:
    a = Replica(clients[0], "a")
    await a.leads()
    fault = fake_api.fault(verb="update", lost_answer=True, times=2)
    await eventually(lambda: fault.seen > 4)
    assert a.lock.valid()
    assert not a.lock.lost.done()


async def test_a_lost_answer_of_the_first_write_is_recognised_as_ours(
    fake_api: FakeApi, clients: tuple[ApiClient, ApiClient]
) -> None:
    fake_api.fault(verb="create", lost_answer=True)
    assert await Replica(clients[0], "a").leads()


async def test_a_lease_that_was_perhaps_taken_is_released_on_exit(
    fake_api: FakeApi, clients: tuple[ApiClient, ApiClient]
) -> None:
    fake_api.fault(verb="create", lost_answer=True)
    a = Replica(clients[0], "a")
    await eventually(lambda: fake_api.count("create") == 1)
    a.stop.set()
    await a.task
    await a.lock.release()
    assert spec(fake_api)["holderIdentity"] == ""


async def test_leadership_ends_when_the_api_is_away_too_long(
    fake_api: FakeApi, clients: tuple[ApiClient, ApiClient]
) -> None:
    a = Replica(clients[0], "a")
    await a.leads()
    fake_api.fault(status=503, times=None)
    a.seconds += 9.0
    await asyncio.sleep(0.1)
    assert a.lock.valid()
    assert not a.lock.lost.done()
    a.seconds += 1.5
    assert "no renewal" in await asyncio.wait_for(a.lock.lost, 1)
    assert not a.lock.valid()


async def test_leadership_ends_when_somebody_else_has_taken_it(
    fake_api: FakeApi, clients: tuple[ApiClient, ApiClient]
) -> None:
    a = Replica(clients[0], "a")
    await a.leads()
    fake_api.edit(LEASES, "draftmark", lambda obj: obj["spec"].update(holderIdentity="b"), namespace="ops")
    assert await asyncio.wait_for(a.lock.lost, 1) == "the lease is held by b"


async def test_a_request_that_hangs_does_not_outlast_the_deadline(
    fake_api: FakeApi, clients: tuple[ApiClient, ApiClient], caplog: pytest.LogCaptureFixture
) -> None:
    a = Replica(clients[0], "a", duration_s=1.0, renew_deadline_s=0.4, margin_s=0.1)
    await a.leads()
    fake_api.fault(stall=True, times=None)
    loop = asyncio.get_running_loop()
    started = loop.time()
    while not a.lock.lost.done():
        a.seconds += 0.1
        await asyncio.sleep(0.1)
    assert loop.time() - started < 1.0
    assert "The lease was not renewed, trying again: no answer in time" in caplog.messages


async def test_an_api_that_needs_three_seconds_does_not_cost_leadership(clients: tuple[ApiClient, ApiClient]) -> None:
    assert LeaseLock(clients[0], namespace="ops", name="x", identity="a")._request_timeout_s > 3.0


async def test_of_two_that_take_it_together_one_leads(clients: tuple[ApiClient, ApiClient]) -> None:
    replicas = [Replica(clients[i % 2], str(i)) for i in range(6)]
    await asyncio.sleep(0.3)
    assert sum(replica.lock.valid() for replica in replicas) == 1
