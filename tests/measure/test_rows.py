"""What a row's numbers mean."""

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftmark.measure.order import Bounds, Load, OrderedObjectives
from draftmark.measure.result import Row
from draftmark.measure.rows import (
    MIN_SAMPLES,
    has_rate,
    is_answered,
    make_row,
    medians_and_rate,
    min_samples,
    read_block,
    student_t_quantile,
)
from draftmark.measure.samples import Block, Sample
from tests.measure.seen import BLOCK_S, ITL_S, OUTPUT, OVERHEAD, PROMPT, TTFT_S, TWO, block, each_sample, sample

TOOK_S = TTFT_S + ITL_S * (OUTPUT - 1)


def of(*samples: Sample, load: Load = TWO) -> Block:
    return replace(block(load=load), began=0.0, ended=BLOCK_S, samples=samples, readings=())


def row(*blocks: Block, load: Load = TWO, objectives: OrderedObjectives | None = None) -> Row:
    return make_row(blocks, load=load, objectives=objectives)


@pytest.mark.parametrize(("quantile", "samples"), [(0.5, 6), (0.9, 36), (0.99, 368)])
def test_the_highest_sample_is_above_the_percentile_with_975_in_1000(quantile: float, samples: int) -> None:
    assert min_samples(quantile) == samples
    assert quantile**samples <= 0.025 < quantile ** (samples - 1)


@pytest.mark.parametrize(
    ("degrees", "quantile"), [(1, 12.706), (2, 4.303), (3, 3.182), (10, 2.228), (15, 2.131), (63, 1.998)]
)
def test_quantiles_of_student_are_those_of_the_tables(degrees: int, quantile: float) -> None:
    assert student_t_quantile(0.975, degrees) == pytest.approx(quantile, abs=5e-4)


def test_latencies_are_those_of_the_requests() -> None:
    seen = row(block(0), block(1))
    assert seen.ttft is not None
    assert seen.itl is not None
    assert seen.tpot is not None
    assert seen.e2e is not None
    for latency, milliseconds in ((seen.ttft, 200), (seen.itl, 20), (seen.tpot, 20), (seen.e2e, 1180)):
        assert latency.p50 is not None
        assert latency.p50.value == pytest.approx(milliseconds)
        assert latency.mean == pytest.approx(milliseconds)
    assert seen.prompt_tokens == PROMPT + OVERHEAD
    assert seen.output_tokens == OUTPUT
    assert seen.kv_use_percent == 25
    assert seen.client_cpu_percent == 30
    assert seen.peak_memory_gb == 1.5
    assert (seen.samples, seen.errors) == (200, 0)


@pytest.mark.parametrize(("seen_bytes", "gb"), [((None, 2**30), 1.073741824), ((3e9, 2e9), 3), ((None, None), None)])
def test_peak_memory_is_the_highest_of_the_blocks_that_have_one(
    seen_bytes: tuple[float | None, ...], gb: float
) -> None:
    blocks = [replace(block(i), peak_memory_bytes=peak) for i, peak in enumerate(seen_bytes)]
    assert row(*blocks).peak_memory_gb == gb


def test_a_pause_inside_an_answer_is_in_the_percentiles_of_itl_and_not_of_tpot() -> None:
    gaps = {20.0: 970, 500.0: 20}
    seen = row(replace(block(0), gaps_ms=gaps), replace(block(1), gaps_ms=gaps))
    assert seen.itl is not None
    assert seen.tpot is not None
    assert [latency.value for latency in (seen.itl.p50, seen.itl.p90, seen.itl.p99) if latency] == [20.0, 20.0, 500.0]
    assert seen.itl.mean == pytest.approx((970 * 20 + 20 * 500) / 990)
    assert seen.tpot.p50 is not None
    assert seen.tpot.p50.value == pytest.approx(20)


def test_gaps_that_are_not_known_everywhere_are_known_nowhere() -> None:
    seen = row(replace(block(0), gaps_ms={500.0: 400}), block(1))
    assert seen.itl is not None
    assert seen.itl.p50 is not None
    assert seen.itl.p50.value == pytest.approx(20)


def test_means_of_itl_are_over_gaps_and_those_of_tpot_over_requests() -> None:
    long = [sample(float(i), itl_s=0.02, output_tokens=101, asked_tokens=101) for i in range(3)]
    short = [sample(float(i), itl_s=0.04, output_tokens=51, asked_tokens=51) for i in range(3)]
    seen = row(of(*long, *short))
    assert seen.itl is not None
    assert seen.tpot is not None
    assert seen.tpot.mean == pytest.approx(30)
    assert seen.itl.mean == pytest.approx((100 * 20 + 50 * 40) / 150)


def test_answers_of_one_token_have_no_gap() -> None:
    seen = row(of(*(sample(float(i), output_tokens=1, asked_tokens=1) for i in range(6))))
    assert seen.itl is None
    assert seen.tpot is None
    assert seen.ttft is not None
    assert seen.ttft.p50 is not None


@pytest.mark.parametrize("name", ["p50", "p90", "p99"])
def test_a_percentile_needs_its_samples(name: str) -> None:
    enough = MIN_SAMPLES[name]
    for count, is_given in ((enough - 1, False), (enough, True)):
        seen = row(of(*(sample(i / 100) for i in range(count))))
        assert seen.ttft is not None
        assert (getattr(seen.ttft, name) is not None) == is_given


def test_one_repetition_has_no_interval_and_several_have_one() -> None:
    single = row(block(0)).output_tokens_per_second
    assert single is not None
    assert single.low is None
    assert single.high is None
    several = row(block(0), block(1, ttft_s=0.21), block(2, ttft_s=0.19)).ttft
    assert several is not None
    assert several.p50 is not None
    assert several.p50.low is not None
    assert several.p50.high is not None
    assert several.p50.low < several.p50.value < several.p50.high


def test_the_interval_of_a_mean_of_equal_blocks_is_that_of_student() -> None:
    # Rates of 1, 1.1 and 1.2 in blocks of nearly one length: on the scale of logarithms nearly those of the plain formula.
    blocks = [block(i, ttft_s=took - ITL_S * (OUTPUT - 1)) for i, took in enumerate((2.0, 2 / 1.1, 2 / 1.2), 1)]
    seen = row(*blocks).requests_per_second
    assert seen is not None
    assert seen.low is not None
    assert seen.high is not None
    assert seen.value == pytest.approx(1.1, rel=0.01)
    half = 4.303 * 0.1 / math.sqrt(3)
    assert seen.high - seen.low == pytest.approx(2 * half, rel=0.1)


@pytest.mark.parametrize("took_s", [1.18, 7.0, 20.1, 29.9])
def test_rates_do_not_depend_on_where_the_block_cuts_answers(took_s: float) -> None:
    """Counting what ended in 60 s gives 2 answers per slot and minute at 20.1 s, and 2.985 is true."""
    seen = row(block(ttft_s=took_s - ITL_S * (OUTPUT - 1), load=Load(concurrency=4)), load=Load(concurrency=4))
    assert seen.requests_per_second is not None
    assert seen.output_tokens_per_second is not None
    assert seen.requests_per_second.value == pytest.approx(4 / took_s)
    assert seen.output_tokens_per_second.value == pytest.approx(4 / took_s * OUTPUT)


def test_rates_of_slots_that_are_apart_are_those_of_all_slots() -> None:
    slots = [sample(slot * 0.3 + i * TOOK_S) for slot in range(3) for i in range(int((BLOCK_S - 1) // TOOK_S))]
    seen = row(of(*slots, load=Load(concurrency=3)), load=Load(concurrency=3))
    assert seen.requests_per_second is not None
    assert seen.requests_per_second.value == pytest.approx(3 / TOOK_S)


def test_a_rate_of_requests_is_seen_as_it_is_answered() -> None:
    load = Load(request_rate=2.0)
    seen = row(of(*(sample(i / 2) for i in range(100)), load=load), load=load)
    assert seen.requests_per_second is not None
    assert seen.requests_per_second.value == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("ends_s", "load"),
    [
        # The quickest 8 of 16, and the first 10 of 16 whose answers are as long as the block.
        ([4.0 + i for i in range(8)], Load(concurrency=16)),
        ([50.0 + i for i in range(10)], Load(concurrency=16)),
        ([5.0], Load(request_rate=1.0)),
    ],
)
def test_a_load_that_was_never_seen_whole_has_no_rate(ends_s: list[float], load: Load) -> None:
    seen = of(*(sample(0.0, ttft_s=end - ITL_S * (OUTPUT - 1)) for end in ends_s), load=load)
    assert not has_rate(seen, load)
    assert has_rate(block(load=load), load)
    both = row(seen, block(load=load), load=load)
    assert (both.requests_per_second, both.output_tokens_per_second) == (None, None)
    assert "output_tokens_per_second" not in medians_and_rate(read_block(seen), load)


def test_failed_requests_are_load_and_no_answers() -> None:
    """One of two slots fails all the time: the other one's rate is what is answered."""
    failing = [
        replace(sample(i * TOOK_S), first=None, finish=None, error="reset", output_tokens=None) for i in range(50)
    ]
    seen = row(of(*failing, *(sample(i * TOOK_S) for i in range(50))))
    assert (seen.samples, seen.errors) == (50, 50)
    assert seen.requests_per_second is not None
    assert seen.requests_per_second.value == pytest.approx(1 / TOOK_S)


@pytest.mark.parametrize("latency", ["ttft", "itl", "e2e"])
def test_goodput_counts_what_is_below_the_tightest_bound(latency: str) -> None:
    """One request of four is slower to the first token by 100 ms, one by as much between its tokens."""
    late = each_sample(lambda s: replace(s, first=(s.first or 0) + 0.1, last=s.last + 0.1), every=4)(block(0))
    slow = each_sample(lambda s: replace(s, last=s.last + 0.1), every=4)(replace(late, samples=late.samples[1:]))
    bounds = {"ttft": Bounds(p50=250, p99=400), "itl": Bounds(p90=21, p99=50), "e2e": Bounds(p50=1200)}
    seen = row(slow, objectives=OrderedObjectives(**{latency: bounds[latency]}))
    assert seen.goodput_per_second is not None
    assert seen.requests_per_second is not None
    good = 0.5 if latency == "e2e" else 0.75
    assert seen.goodput_per_second.value == pytest.approx(good * seen.requests_per_second.value, rel=0.03)


def test_objectives_are_held_by_percentiles_that_are_known() -> None:
    def holds(**bounds: Bounds) -> bool | None:
        return row(block(0), block(1), objectives=OrderedObjectives(**bounds)).holds_objectives

    assert holds(ttft=Bounds(p50=200.1), itl=Bounds(p90=20.1), e2e=Bounds(p50=1180.1)) is True
    assert holds(ttft=Bounds(p50=199)) is False
    assert holds(e2e=Bounds(p99=2000)) is None
    assert holds(e2e=Bounds(p99=2000), itl=Bounds(p90=19)) is False
    assert row(block(0)).holds_objectives is None


def test_a_goodput_of_none_is_zero() -> None:
    seen = row(block(0), block(1), objectives=OrderedObjectives(ttft=Bounds(p50=1)))
    assert seen.goodput_per_second is not None
    assert (seen.goodput_per_second.value, seen.goodput_per_second.low) == (0, 0)


def test_scatter_is_the_range_of_medians_over_the_median() -> None:
    seen = row(block(0), block(1, ttft_s=0.22), block(2, ttft_s=0.21))
    assert seen.scatter_percent == pytest.approx(100 * 0.02 / 0.21, rel=0.01)
    assert row(block(0)).scatter_percent is None


@pytest.mark.parametrize(
    "broken",
    [
        {"first": 0.0, "sent": 1.0},
        {"first": float("nan")},
        {"last": float("inf")},
        {"output_tokens": None},
    ],
)
def test_times_that_cannot_be_are_an_error(broken: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"out of order|number of tokens"):
        read_block(of(sample(**broken)))


def test_a_block_needs_a_length_and_a_row_needs_answers() -> None:
    with pytest.raises(ValueError, match="lasts"):
        read_block(replace(block(), ended=block().began))
    with pytest.raises(ValueError, match="answered"):
        row(of())


@pytest.mark.parametrize(
    ("changes", "is_fine"),
    [
        ({}, True),
        ({"finish": None}, False),
        ({"first": None}, False),
        ({"error": "reset"}, False),
        ({"output_tokens": OUTPUT - 1}, True),
        ({"output_tokens": OUTPUT - 5}, False),
        ({"output_tokens": OUTPUT - 5, "finish": "stop"}, True),
    ],
)
def test_an_answer_ends_with_a_reason(changes: dict[str, Any], is_fine: bool) -> None:
    assert is_answered(sample(**changes)) is is_fine


@given(
    st.lists(st.tuples(st.floats(0.01, 5), st.floats(0.001, 0.1)), min_size=6, max_size=30),
    st.floats(0.1, 10),
    st.sampled_from((Load(concurrency=1), Load(request_rate=1.0))),
)
def test_numbers_follow_the_scale_of_time(requests: list[tuple[float, float]], scale: float, load: Load) -> None:
    def seen(factor: float) -> dict[str, float]:
        samples: list[Sample] = []
        at = 0.0
        for ttft_s, itl_s in requests:
            samples.append(sample(at, ttft_s=ttft_s * factor, itl_s=itl_s * factor))
            at = samples[-1].last
        return {str(k): v for k, v in medians_and_rate(read_block(of(*samples)), load).items()}

    one, other = seen(1), seen(scale)
    for name in ("ttft", "itl", "e2e"):
        assert other[name] == pytest.approx(one[name] * scale, rel=1e-6)
    assert other["output_tokens_per_second"] == pytest.approx(one["output_tokens_per_second"] / scale, rel=1e-6)


@given(st.lists(st.floats(0.05, 0.5), min_size=2, max_size=6))
def test_intervals_hold_their_value(levels: list[float]) -> None:
    seen = row(*(block(i, ttft_s=level) for i, level in enumerate(levels)))
    assert seen.ttft is not None
    assert seen.ttft.p50 is not None
    assert seen.requests_per_second is not None
    for interval in (seen.ttft.p50, seen.requests_per_second):
        assert interval.low is not None
        assert interval.high is not None
        assert 0 <= interval.low <= interval.value <= interval.high < math.inf
