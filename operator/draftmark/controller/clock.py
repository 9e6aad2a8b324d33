"""Time of day that goes on evenly, though somebody sets the clock of the machine.

Deadlines and drains compare now with a time of before. A clock that is set forward by an hour would withdraw a candidate
that is starting, and one that is set back would let a drain wait for that hour.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from draftmark.cluster.lease import uninterrupted_clock

__all__ = ["SteadyClock"]

#: How much faster or slower it runs until it agrees with the machine's clock again. A guess: a deadline may be off by so
#: much, and an hour is made up for in ten.
_CORRECTION: Final = 0.1


def _wall() -> datetime:
    return datetime.now(UTC)


class SteadyClock:
    """Reads the machine's clock once, then counts on. It never goes back.

    Args:
        wall: The machine's clock, aware, UTC.
        clock: Seconds that nobody sets.
    """

    def __init__(self, wall: Callable[[], datetime] = _wall, clock: Callable[[], float] = uninterrupted_clock) -> None:
        self._wall = wall
        self._clock = clock
        self._at, self._read = wall(), clock()

    def __call__(self) -> datetime:
        read = self._clock()
        passed, self._read = timedelta(seconds=read - self._read), read
        self._at += passed
        most = passed * _CORRECTION
        self._at += max(-most, min(self._wall() - self._at, most))
        return self._at
