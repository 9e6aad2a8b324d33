"""Order to stretches of load, and how far a run is."""

from draftmark.benchmark_runner.plan import FIRST_OVERHEAD_S, Pace, stretches_of
from draftmark.measure.order import Load
from tests.benchmark_runner.orders import a_target, a_workload, an_order

TWO = (a_target(), a_target(label="compared"))


def test_a_row_is_warmed_up_and_then_measured_as_often_as_asked() -> None:
    order = an_order(
        workloads=(a_workload(), a_workload(name="long")), loads=(Load(concurrency=1), Load(concurrency=4))
    )
    rows = [(s.workload.name, s.load.label, s.round, s.seconds) for s in stretches_of(order)]
    assert rows[:4] == [("short", "concurrency 1", None, 10), *(("short", "concurrency 1", r, 60) for r in range(3))]
    assert [row[:2] for row in rows[::4]] == [
        ("short", "concurrency 1"),
        ("short", "concurrency 4"),
        ("long", "concurrency 1"),
        ("long", "concurrency 4"),
    ]
    assert [s.number for s in stretches_of(order)] == list(range(16))


def test_two_targets_take_turns_in_an_order_that_is_drawn_for_each_row() -> None:
    loads = (Load(concurrency=1), Load(concurrency=2))
    found = stretches_of(an_order(targets=TWO, repetitions=16, loads=loads))
    rows = [[(s.round, s.target.label) for s in found if s.load == load] for load in loads]
    for row in rows:
        assert row[:2] == [(None, "target"), (None, "compared")]
        assert [number for number, _ in row[2:]] == [number for number in range(16) for _ in range(2)]
        assert all({label for _, label in row[at : at + 2]} == {"target", "compared"} for at in range(2, 34, 2))
    assert rows[0] != rows[1]
    assert found == stretches_of(an_order(targets=TWO, repetitions=16, loads=loads))


def test_no_warm_up_where_none_is_asked_for() -> None:
    assert all(not s.is_warm_up for s in stretches_of(an_order(warm_up_s=0.0)))


def test_a_block_ends_by_its_requests_or_by_its_time() -> None:
    found = stretches_of(an_order(duration_s=None, requests=50))
    assert [(s.seconds, s.requests) for s in found] == [(10, None), (None, 50), (None, 50), (None, 50)]


def test_progress_is_time_that_has_passed() -> None:
    stretches = stretches_of(an_order())
    pace = Pace(stretches)
    assert pace.percent() == 0
    assert pace.seconds_left() == 190 + 4 * FIRST_OVERHEAD_S
    pace.ended(stretches[0], 11.0)
    assert pace.seconds_left() == 3 * 61
    assert pace.seconds_left(running_s=30) == 3 * 61 - 30
    assert pace.percent() < pace.percent(running_s=30)
    for stretch in stretches[1:]:
        pace.ended(stretch, 61.0)
    assert (pace.percent(), pace.seconds_left()) == (99, 0)


def test_nobody_says_how_long_requests_take_before_some_did() -> None:
    stretches = stretches_of(an_order(duration_s=None, requests=50))
    pace = Pace(stretches)
    assert pace.seconds_left() is None
    pace.ended(stretches[0], 12.0)
    assert pace.seconds_left() is None
    pace.ended(stretches[1], 40.0)
    assert pace.seconds_left() == 80
    assert 33 <= pace.percent() <= 50
