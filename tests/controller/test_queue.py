"""Each key is worked on after its last change, by one worker at a time, soon, and not at the cost of others."""

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count, pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from draftmark.cluster.errors import TooManyRequests
from draftmark.cluster.lease import LeadershipLost
from draftmark.controller.queue import Priority, TryAgain, WorkQueue


@asynccontextmanager
async def working(
    queue: WorkQueue[str], handler: Callable[[str], Awaitable[None]], workers: int = 1
) -> AsyncIterator[None]:
    task = asyncio.create_task(queue.run(handler, workers))
    try:
        yield
    finally:
        await queue.drain(0.1)
        await asyncio.wait_for(task, 1)


class Handler:
    """Records what it is given; fails or takes its time as told."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.failures: dict[str, int] = {}
        self.seconds: dict[str, float] = {}
        self.at: list[float] = []
        #: Nothing ends before it is set.
        self.held: asyncio.Event | None = None

    async def __call__(self, key: str) -> None:
        self.seen.append(key)
        self.at.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self.seconds.get(key, 0.0))
        if self.held is not None:
            await self.held.wait()
        if self.failures.get(key, 0) > 0:
            self.failures[key] -= 1
            raise RuntimeError(f"{key} fails")


async def until(holds: Callable[[], bool], within_s: float = 2.0) -> None:
    async with asyncio.timeout(within_s):
        while not holds():  # noqa: ASYNC110 - a statement has no event
            await asyncio.sleep(0.002)


async def test_a_key_that_waits_is_one_piece_of_work() -> None:
    queue, handler = WorkQueue[str](), Handler()
    for _ in range(100):
        queue.add("a")
    assert (queue.depth, queue.adds) == (1, 1)
    async with working(queue, handler):
        await asyncio.sleep(0.02)
    assert handler.seen == ["a"]


async def test_a_key_that_changes_while_it_is_worked_on_is_done_once_more() -> None:
    queue, handler = WorkQueue[str](), Handler()
    handler.held = asyncio.Event()
    async with working(queue, handler, workers=4):
        queue.add("a")
        await until(lambda: handler.seen == ["a"])
        for _ in range(10):
            queue.add("a")
        await asyncio.sleep(0.02)
        assert handler.seen == ["a"], "never by two workers at once"
        handler.held.set()
        await until(lambda: handler.seen == ["a", "a"])
        await asyncio.sleep(0.02)
    assert handler.seen == ["a", "a"]
    assert queue.adds == 2


async def test_keys_that_wait_for_nothing_leave_the_loop_its_turns() -> None:
    """As after a restart, when nothing is to be written: the Lease must be renewed meanwhile."""
    queue, seen, turns = WorkQueue[str](), list[str](), list[int]()

    async def at_once(key: str) -> None:
        seen.append(key)

    async def count_turns() -> None:
        while len(seen) < 200:
            turns.append(len(seen))
            await asyncio.sleep(0)
        turns.append(len(seen))

    for i in range(200):
        queue.add(str(i))
    counting = asyncio.create_task(count_turns())
    async with working(queue, at_once, workers=16):
        await asyncio.wait_for(counting, 2)
    assert max(after - before for before, after in pairwise(turns)) <= 1


async def test_nothing_is_begun_when_this_process_must_not_write_any_more() -> None:
    queue, seen = WorkQueue[str](), list[str]()

    async def without_lease(key: str) -> None:
        seen.append(key)
        raise LeadershipLost("it is held by another one")

    for i in range(100):
        queue.add(str(i))
    await asyncio.wait_for(queue.run(without_lease, 4), 1)
    assert len(seen) <= 4
    queue.add("later")
    assert queue.depth == 100 - len(seen)


async def test_deletions_and_edits_pass_a_resync() -> None:
    queue, handler = WorkQueue[str](), Handler()
    for i in range(3):
        queue.add(f"resync{i}", Priority.RESYNC)
    queue.add("pods", Priority.CHANGE)
    queue.add("edit", Priority.EDIT)
    queue.add("deletion", Priority.DELETION)
    queue.add("resync1", Priority.CHANGE)
    async with working(queue, handler):
        await until(lambda: len(handler.seen) == 6)
    assert handler.seen == ["deletion", "edit", "pods", "resync1", "resync0", "resync2"]


async def test_a_key_does_not_become_less_urgent() -> None:
    queue, handler = WorkQueue[str](), Handler()
    queue.add("other", Priority.CHANGE)
    queue.add("gone", Priority.DELETION)
    queue.add("gone", Priority.RESYNC)
    async with working(queue, handler):
        await until(lambda: len(handler.seen) == 2)
    assert handler.seen == ["gone", "other"]


async def test_a_resync_is_not_starved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("draftmark.controller.queue._HEAD_START_S", {0: 0.0, 1: 0.0, 2: 0.0, 3: 0.1})
    queue, handler = WorkQueue[str](), Handler()
    queue.add("resync", Priority.RESYNC)

    async def busy(key: str) -> None:
        await handler(key)
        await asyncio.sleep(0.005)
        if key != "resync":
            queue.add(f"edit{len(handler.seen)}")

    async with working(queue, busy):
        queue.add("edit0")
        await until(lambda: "resync" in handler.seen)
    assert len(handler.seen) > 5


async def test_delays_end_in_their_order_and_the_first_of_a_key_counts() -> None:
    queue, handler = WorkQueue[str](), Handler()
    async with working(queue, handler):
        queue.add_after("c", 0.09)
        queue.add_after("a", 0.03)
        queue.add_after("b", 0.06)
        queue.add_after("b", 5.0)
        queue.add_after("a", 0.0)
        assert queue.depth == 1, "keys whose delay is not over do not wait for a worker"
        await until(lambda: handler.seen[:4] == ["a", "a", "b", "c"])
        await asyncio.sleep(0.05)
    assert handler.seen == ["a", "a", "b", "c"]


async def test_a_delay_can_become_shorter() -> None:
    queue, handler = WorkQueue[str](), Handler()
    async with working(queue, handler):
        queue.add_after("a", 60.0)
        queue.add_after("a", 0.01)
        await until(lambda: handler.seen == ["a"])


async def test_a_failing_key_waits_longer_each_time_until_it_succeeds() -> None:
    queue, handler = WorkQueue[str](random_=random.Random(1)), Handler()
    handler.failures["a"] = 5
    async with working(queue, handler):
        queue.add("a")
        await until(lambda: len(handler.seen) == 6)
        gaps = [b - a for a, b in zip(handler.at, handler.at[1:], strict=False)]
        assert queue.retries == 5
        for failures, gap in enumerate(gaps):
            assert 0.8 * 0.005 * 2**failures - 0.002 <= gap < 0.005 * 2**failures + 0.05
        await asyncio.sleep(0.02)
        handler.failures["a"] = 1
        queue.add("a")
        await until(lambda: len(handler.seen) == 8)
    assert handler.at[7] - handler.at[6] < 0.05, "success starts the back-off anew"


async def test_the_back_off_ends_at_five_minutes() -> None:
    queue = WorkQueue[str]()
    delays = [queue.retry("a") for _ in range(2000)]
    assert 240 <= delays[-1] <= 300
    await queue.drain(0)


async def test_the_wait_that_the_server_asks_for_is_kept() -> None:
    queue, calls = WorkQueue[str](), []

    async def handler(key: str) -> None:
        calls.append(asyncio.get_running_loop().time())
        if len(calls) == 1:
            raise TooManyRequests("busy", retry_after_s=0.1)

    async with working(queue, handler):
        queue.add("a")
        await until(lambda: len(calls) == 2)
    assert calls[1] - calls[0] >= 0.099


async def test_slow_and_failing_keys_do_not_delay_others() -> None:
    queue, handler = WorkQueue[str](), Handler()
    handler.seconds["slow"] = 10.0
    handler.failures = {f"bad{i}": 10**6 for i in range(20)}
    async with working(queue, handler, workers=2):
        queue.add("slow")
        for i in range(20):
            queue.add(f"bad{i}")
        await asyncio.sleep(0.05)
        started = asyncio.get_running_loop().time()
        for i in range(100):
            queue.add(f"good{i}")
        await until(lambda: sum(key.startswith("good") for key in handler.seen) == 100)
        assert asyncio.get_running_loop().time() - started < 0.5
        assert queue.longest_running_s > 0.04


async def test_draining_finishes_what_runs_and_drops_what_waits() -> None:
    queue, handler = WorkQueue[str](), Handler()
    handler.seconds["a"] = 0.05
    task = asyncio.create_task(queue.run(handler, 1))
    queue.add("a")
    queue.add("b")
    await until(lambda: handler.seen == ["a"])
    assert await queue.drain(1.0)
    await asyncio.wait_for(task, 1)
    queue.add("c")
    assert handler.seen == ["a"]


async def test_draining_abandons_what_takes_too_long() -> None:
    queue, handler = WorkQueue[str](), Handler()
    handler.seconds["a"] = 60.0
    task = asyncio.create_task(queue.run(handler, 1))
    queue.add("a")
    await until(lambda: handler.seen == ["a"])
    assert not await queue.drain(0.05)
    await asyncio.wait_for(task, 1)


async def test_a_cancelled_queue_leaves_no_worker_behind() -> None:
    queue, handler = WorkQueue[str](), Handler()
    task = asyncio.create_task(queue.run(handler, 3))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert all(worker.done() for worker in queue._workers)


async def test_age_is_that_of_the_key_at_the_back() -> None:
    queue = WorkQueue[str]()
    assert queue.oldest_age_s == 0.0
    assert await asyncio.to_thread(lambda: (queue.oldest_age_s, queue.longest_running_s)) == (0.0, 0.0)
    queue.add("a", Priority.RESYNC)
    await asyncio.sleep(0.03)
    queue.add("a", Priority.CHANGE)
    queue.add("b")
    assert 0.03 <= queue.oldest_age_s < 0.5


async def test_there_is_no_task_per_key() -> None:
    queue = WorkQueue[str]()
    before = len(asyncio.all_tasks())
    for i in range(10_000):
        queue.add(f"a{i}")
        queue.add_after(f"b{i}", 60)
    assert len(asyncio.all_tasks()) == before
    await queue.drain(0)


steps = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["add", "later", "wait"]), st.sampled_from(list(Priority))),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(steps, st.integers(1, 3), st.integers(0, 2**16))
def test_the_last_change_of_a_key_is_always_worked_on(
    script: list[tuple[str, str, Priority]], workers: int, seed: int
) -> None:
    """Whatever is added when, with workers that fail at random: no change is lost, and no key runs twice at once."""
    chance = random.Random(seed)
    changes: dict[str, int] = defaultdict(int)
    done: dict[str, int] = {}
    running: set[str] = set()

    async def handler(key: str) -> None:
        assert key not in running
        running.add(key)
        seen = changes[key]
        try:
            await asyncio.sleep(chance.choice([0, 0, 0.001]))
            if chance.random() < 0.2:
                raise RuntimeError("at random")
            done[key] = seen
        finally:
            running.discard(key)

    async def play() -> None:
        queue = WorkQueue[str](random_=chance)
        async with working(queue, handler, workers):
            for key, step, priority in script:
                if step == "wait":
                    await asyncio.sleep(0)
                    continue
                changes[key] += 1
                if step == "add":
                    queue.add(key, priority)
                else:
                    queue.add_after(key, 0.001, priority)
            await until(lambda: done == changes)

    asyncio.run(play())


async def test_whoever_tries_again_waits_as_long_as_the_api_server_asks() -> None:
    queue, seen = WorkQueue[str](), list[float]()

    async def handle(key: str) -> None:
        seen.append(asyncio.get_running_loop().time())
        if len(seen) == 1:
            raise TryAgain("a child could not be written", 0.3)

    task = asyncio.create_task(queue.run(handle, 1))
    queue.add("a")
    await until(lambda: len(seen) == 2, within_s=10)
    await queue.drain(0.1)
    await asyncio.wait_for(task, 1)
    assert seen[1] - seen[0] >= 0.3


def test_the_age_can_be_read_while_keys_come() -> None:
    """The metrics are written in another thread, so a key may come between any two steps of it."""
    queue, come = WorkQueue[str](), count()

    class Waiting:
        @property
        def since(self) -> float:
            queue._waiting[f"new{next(come)}"] = waiting
            return time.monotonic() - 5.0

    waiting: Any = Waiting()
    queue._waiting |= {"a": waiting, "b": waiting}
    assert 4.0 < queue.oldest_age_s < 6.0
