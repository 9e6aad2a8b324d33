"""When a repair has to wait."""

from draftmark.cluster.contention import Fight

IMAGE = frozenset({("spec", "image")})
REPLICAS = frozenset({("spec", "replicas")})


def fight(rounds: int, seconds_between: float = 1.0) -> tuple[list[float], float]:
    """The other writer undoes each repair at once. Returns the wait before each repair, and the time."""
    state, now, waits = Fight(), 1000.0, []
    for _ in range(rounds):
        now += seconds_between
        wait = state.wait_s(IMAGE, now)
        waits.append(wait)
        now += wait
        assert state.wait_s(IMAGE, now) == 0.0
        state.note_repair(IMAGE, now)
    return waits, now


def test_three_repairs_are_free_and_then_each_waits_twice_as_long_up_to_ten_minutes() -> None:
    assert fight(12)[0] == [0, 0, 0, 10, 20, 40, 80, 160, 320, 600, 600, 600]


def test_rare_repairs_are_no_fight() -> None:
    assert fight(12, seconds_between=151.0)[0] == [0.0] * 12


def test_another_field_is_another_matter() -> None:
    state = Fight()
    for now in (1.0, 2.0, 3.0):
        state.note_repair(IMAGE, now)
    assert state.wait_s(REPLICAS, 4.0) == 0.0
    assert state.wait_s(IMAGE | REPLICAS, 4.0) == 10.0


def test_many_fields_at_once_are_counted_each() -> None:
    state, paths = Fight(), frozenset(("spec", str(i)) for i in range(50))
    for now in (1.0, 2.0, 3.0):
        state.note_repair(paths, now)
    assert state.wait_s(paths, 4.0) == 10.0


def test_five_quiet_minutes_end_a_fight() -> None:
    state = Fight()
    for now in (1.0, 2.0, 3.0):
        state.note_repair(IMAGE, now)
    assert state.wait_s(IMAGE, 4.0) == 10.0
    state.note_repair(IMAGE, 14.0)
    assert state.wait_s(IMAGE, 14.0 + 311.0) == 0.0
