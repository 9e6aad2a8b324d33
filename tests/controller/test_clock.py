"""The time that deadlines are measured with goes on evenly, and is right in the end."""

from datetime import timedelta

import pytest

from draftmark.controller.clock import SteadyClock
from tests.specs import T0

HOUR = timedelta(hours=1)


class Machine:
    """Its clock, which can be set, and the seconds since it was started."""

    def __init__(self) -> None:
        self.wall = T0
        self.seconds = 1000.0

    def passes(self, seconds: float) -> None:
        self.wall += timedelta(seconds=seconds)
        self.seconds += seconds


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def clock(machine: Machine) -> SteadyClock:
    return SteadyClock(lambda: machine.wall, lambda: machine.seconds)


def test_it_is_the_machines_clock_while_nobody_sets_that(machine: Machine, clock: SteadyClock) -> None:
    for seconds in (0.0, 1.5, 60.0, 86_400.0):
        machine.passes(seconds)
        assert clock() == machine.wall


@pytest.mark.parametrize(("by", "minute_s"), [(HOUR, 66), (-HOUR, 54)], ids=["forward", "back"])
def test_a_clock_that_is_set_makes_a_minute_a_tenth_shorter_or_longer(
    machine: Machine, clock: SteadyClock, by: timedelta, minute_s: int
) -> None:
    machine.wall += by
    assert clock() == T0
    for _ in range(60):
        machine.passes(1.0)
        clock()
    assert clock() == T0 + timedelta(seconds=minute_s)
    machine.passes(10 * 3600)
    assert clock() == machine.wall
