"""The work queue: which objects to look at next, each at most once at a time.

Keys, not events: a key that is added again while it waits is one piece of work, and one that is added while it is
worked on is done once more afterwards. So a thousand events about an object cost two looks at it, and the work is the
same whatever the events were.

Order: every key is due at the moment it was added plus the head start that it leaves to more urgent ones. So a user's
edit passes the thousands of keys of a resync, and no key waits for ever, however many urgent ones arrive.

All delays are one heap and one timer; there is no task per key. A key that fails waits longer each time and holds
nothing meanwhile.

One key begins in each turn of the event loop. After a restart with thousands of keys none of them waits for anything, and
workers that went from key to key would not let the loop renew the Lease before the last of them is done.
"""

import asyncio
import heapq
import logging
import random
import time
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from enum import IntEnum
from itertools import count
from typing import Final, Generic, TypeVar

from draftmark.cluster.errors import ApiError
from draftmark.cluster.lease import LeadershipLost

__all__ = ["Priority", "TryAgain", "WorkQueue"]

_log = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)

_FIRST_BACKOFF_S: Final = 0.005
_LONGEST_BACKOFF_S: Final = 300.0


class TryAgain(Exception):
    """A handler left something undone, has said so where users see it, and wants to be called again.

    Args:
        retry_after_s: Not sooner than this, because the API server has asked for it.
    """

    def __init__(self, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Priority(IntEnum):
    """How urgent a key is; the lower the sooner."""

    DELETION = 0
    #: Somebody waits for it.
    EDIT = 1
    CHANGE = 2
    RESYNC = 3


#: Seconds that a key lets more urgent ones go first. Guesses: a full resync of 5,000 takes less than a minute, and the
#: pods of a rollout take longer to start than what a change of one of them may wait.
_HEAD_START_S: Final = {Priority.DELETION: 0.0, Priority.EDIT: 0.5, Priority.CHANGE: 5.0, Priority.RESYNC: 60.0}


@dataclass(slots=True)
class _Waiting:
    """A key in the queue. A heap entry whose turn is not this one is out of date."""

    turn: tuple[float, int]
    priority: Priority
    since: float


class WorkQueue(Generic[K]):
    """A de-duplicating queue with workers. All of it runs in one event loop.

    Args:
        random_: Spreads back-offs; a seeded one makes tests repeatable.
    """

    def __init__(self, *, random_: random.Random | None = None) -> None:
        #: Keys taken in: an `add` of a key that waits already does not count.
        self.adds = 0
        #: Failures that led to another attempt.
        self.retries = 0
        self._random = random_ or random.Random()
        self._sequence = count()
        self._waiting: dict[K, _Waiting] = {}
        self._heap: list[tuple[tuple[float, int], K]] = []
        self._running: dict[K, float] = {}
        self._dirty: dict[K, Priority] = {}
        self._failures: dict[K, int] = {}
        self._later: dict[K, tuple[float, Priority]] = {}
        self._later_heap: list[tuple[float, int, K]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._free_workers: list[asyncio.Future[None]] = []
        self._workers: list[asyncio.Task[None]] = []
        #: Held for one turn of the loop by the worker that begins.
        self._door = asyncio.Lock()
        self._stopping = False

    @property
    def depth(self) -> int:
        """Keys that wait for a worker. Keys whose delay is not over do not count."""
        return len(self._waiting)

    @property
    def oldest_age_s(self) -> float:
        """How long the key at the back has waited for a worker."""
        now = _now()
        # The metrics are written in another thread: copied in one step, before it is walked.
        return now - min((item.since for item in list(self._waiting.values())), default=now)

    @property
    def longest_running_s(self) -> float:
        """How long the slowest key is being worked on."""
        now = _now()
        return now - min(list(self._running.values()), default=now)

    def add(self, key: K, priority: Priority = Priority.CHANGE) -> None:
        """Have the key worked on soon, once, however often this is called until then."""
        if self._stopping:
            return
        if key in self._running:
            if key not in self._dirty:
                self.adds += 1
            self._dirty[key] = min(priority, self._dirty.get(key, priority))
            return
        before = self._waiting.get(key)
        if before is not None and before.priority <= priority:
            return
        since = _now() if before is None else before.since
        if before is None:
            self.adds += 1
        # Counted from now, also for a key that only became more urgent: it must not pass older keys as urgent as it.
        turn = (_now() + _HEAD_START_S[priority], next(self._sequence))
        if before is not None:
            turn = min(turn, before.turn)
        self._waiting[key] = _Waiting(turn, priority, since)
        heapq.heappush(self._heap, (turn, key))
        self._wake_one()

    def add_after(self, key: K, delay_s: float, priority: Priority = Priority.CHANGE) -> None:
        """Add the key when the delay is over. Of several delays of a key the one that ends first counts."""
        if self._stopping:
            return
        if delay_s <= 0:
            self.add(key, priority)
            return
        due = _now() + delay_s
        before = self._later.get(key)
        if before is not None:
            priority = min(priority, before[1])
            if before[0] <= due:
                self._later[key] = (before[0], priority)
                return
        self._later[key] = (due, priority)
        heapq.heappush(self._later_heap, (due, next(self._sequence), key))
        self._set_timer()

    def retry(self, key: K, at_least_s: float = 0.0) -> float:
        """Add the key after its back-off: 5 ms, doubled with each failure in a row, at most 5 min.

        Returns:
            The seconds until then.
        """
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        self.retries += 1
        backoff_s = min(_FIRST_BACKOFF_S * 2.0 ** min(failures, 30), _LONGEST_BACKOFF_S)
        delay_s = max(backoff_s * self._random.uniform(0.8, 1.0), at_least_s)
        self.add_after(key, delay_s)
        return delay_s

    def forget(self, key: K) -> None:
        """The key's failures are over."""
        self._failures.pop(key, None)

    async def run(self, handler: Callable[[K], Awaitable[None]], workers: int = 16) -> None:
        """Work until drained or cancelled, or until this process must not write any more (`LeadershipLost`).

        Args:
            handler: Returns when the key is done; raises to have it tried again, after the error's own
                `retry_after_s` at least.
        """
        self._workers = [asyncio.create_task(self._work(handler), name=f"worker {n}") for n in range(workers)]
        try:
            await asyncio.gather(*self._workers)
        except asyncio.CancelledError:
            if not self._stopping:
                raise
        finally:
            for worker in self._workers:
                worker.cancel()
            await asyncio.gather(*self._workers, return_exceptions=True)

    async def drain(self, timeout_s: float) -> bool:
        """Take nothing in any more, let the keys that are being worked on finish, and stop the workers.

        Keys that still wait are dropped: after a restart everything is looked at anyway.

        Returns:
            False when the time was over and keys were abandoned half-way.
        """
        self._stop()
        if not self._workers:
            return True
        _, late = await asyncio.wait(self._workers, timeout=timeout_s)
        for worker in late:
            worker.cancel()
        if late:
            await asyncio.wait(late, timeout=1.0)
        return not late

    def _stop(self) -> None:
        """Take nothing in any more, and begin with nothing."""
        self._stopping = True
        if self._timer is not None:
            self._timer.cancel()
        for free in self._free_workers:
            if not free.done():
                free.set_result(None)

    async def _work(self, handler: Callable[[K], Awaitable[None]]) -> None:
        while not self._stopping:
            async with self._door:
                await asyncio.sleep(0)
            if self._stopping:
                return
            key = self._take()
            if key is None:
                await self._wait_for_work()
                continue
            try:
                await handler(key)
            except LeadershipLost as error:
                # It never comes back to this process, and every other key would fail in the same way.
                _log.warning("%s failed, and no other key is tried: %s", key, error)
                self._stop()
            except Exception as error:  # noqa: BLE001 - a bug in the handling of one key must not stop the others
                asked_s = error.retry_after_s if isinstance(error, ApiError | TryAgain) else None
                delay_s = self.retry(key, asked_s or 0.0)
                # The traceback is for bugs; these speak for themselves.
                trace = None if isinstance(error, ApiError | TryAgain) else error
                _log.warning("%s failed, trying again in %.1f s: %s", key, delay_s, error, exc_info=trace)
            else:
                self.forget(key)
            finally:
                del self._running[key]
                dirty = self._dirty.pop(key, None)
                if dirty is not None and not self._stopping:
                    self.adds -= 1  # it was counted when it came
                    self.add(key, dirty)

    def _take(self) -> K | None:
        while self._heap:
            turn, key = heapq.heappop(self._heap)
            item = self._waiting.get(key)
            if item is not None and item.turn == turn:
                del self._waiting[key]
                self._running[key] = _now()
                return key
        return None

    async def _wait_for_work(self) -> None:
        free: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._free_workers.append(free)
        try:
            await free
        finally:
            if free in self._free_workers:
                self._free_workers.remove(free)

    def _wake_one(self) -> None:
        while self._free_workers:
            free = self._free_workers.pop()
            if not free.done():
                free.set_result(None)
                return

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._later_heap and not self._stopping:
            self._timer = asyncio.get_running_loop().call_at(self._later_heap[0][0], self._add_due)

    def _add_due(self) -> None:
        # A timer may fire up to the clock's resolution early.
        horizon = _now() + 0.001
        while self._later_heap and self._later_heap[0][0] <= horizon:
            due, _, key = heapq.heappop(self._later_heap)
            later = self._later.get(key)
            if later is not None and later[0] == due:
                del self._later[key]
                self.add(key, later[1])
        self._set_timer()


def _now() -> float:
    """The loop's clock; the metrics are written in another thread, which has no loop."""
    return time.monotonic()
