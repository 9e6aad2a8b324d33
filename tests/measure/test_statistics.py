"""What must hold for every comparison. How often it is right is measured by `bench/comparisons.py`."""

import math
from random import Random
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftmark.measure.result import Difference
from draftmark.measure.rows import METRICS, Metric
from draftmark.measure.statistics import LEVEL, MIN_ROUNDS, Paired, block_order, choose_winner, compare, infer

SWAPPED = {"Better": "Worse", "Worse": "Better", "Equal": "Equal", "Inconclusive": "Inconclusive"}
VALUES = st.floats(1e-3, 1e6)


@st.composite
def comparisons(draw: st.DrawFn, *, same: bool = False) -> list[Paired]:
    rounds = draw(st.integers(6, 10))
    values = st.lists(VALUES, min_size=rounds, max_size=rounds)
    near = st.lists(st.floats(0.9, 1.1), min_size=rounds, max_size=rounds)
    factor = draw(st.sampled_from((1.0, 1.0, 1.02, 1.3, 5.0)))
    pairs: list[Paired] = []
    for workload in ("chat", "own")[: draw(st.integers(1, 2))]:
        for metric in draw(st.lists(st.sampled_from(METRICS), min_size=1, max_size=4, unique=True)):
            one = draw(values)
            other = one if same else [v * n * factor for v, n in zip(one, draw(near), strict=True)]
            pairs.append(
                Paired(
                    workload=workload,
                    load="concurrency 1",
                    metric=metric,
                    target=tuple(one),
                    compared=tuple(other),
                )
            )
    return pairs


def verdicts(pairs: list[Paired]) -> list[str]:
    return [difference.verdict for difference in compare(pairs, equal_within_percent=5.0)]


@given(comparisons())
def test_swapping_the_targets_swaps_the_verdicts(pairs: list[Paired]) -> None:
    swapped = [
        Paired(workload=p.workload, load=p.load, metric=p.metric, target=p.compared, compared=p.target) for p in pairs
    ]
    assert verdicts(swapped) == [SWAPPED[verdict] for verdict in verdicts(pairs)]


@given(comparisons(), st.sampled_from((0.001, 0.125, 1024.0)))
def test_units_do_not_matter(pairs: list[Paired], scale: float) -> None:
    scaled = [
        Paired(
            workload=p.workload,
            load=p.load,
            metric=p.metric,
            target=tuple(v * scale for v in p.target),
            compared=tuple(v * scale for v in p.compared),
        )
        for p in pairs
    ]
    for one, other in zip(
        compare(pairs, equal_within_percent=5.0), compare(scaled, equal_within_percent=5.0), strict=True
    ):
        assert one.verdict == other.verdict
        assert other.percent == pytest.approx(one.percent, rel=1e-6, abs=1e-6)


@given(comparisons(same=True))
def test_a_target_is_equal_to_itself(pairs: list[Paired]) -> None:
    assert set(verdicts(pairs)) == {"Equal"}


@given(comparisons(), st.randoms())
def test_the_sequence_of_cells_does_not_matter(pairs: list[Paired], random: Random) -> None:
    mixed = list(pairs)
    random.shuffle(mixed)
    by_place = {(d.workload, d.metric): d for d in compare(mixed, equal_within_percent=5.0)}
    differences = compare(pairs, equal_within_percent=5.0)
    assert [by_place[(d.workload, d.metric)] for d in differences] == list(differences)
    assert [(d.workload, d.metric) for d in differences] == [(p.workload, p.metric) for p in pairs]


@given(comparisons(), st.floats(1, 50))
def test_verdicts_are_what_the_interval_says(pairs: list[Paired], equal: float) -> None:
    for pair, d in zip(pairs, compare(pairs, equal_within_percent=equal), strict=True):
        assert d.low_percent <= d.percent <= d.high_percent
        assert all(math.isfinite(v) and v >= -100 for v in (d.low_percent, d.percent, d.high_percent))
        inside = d.high_percent <= equal * (1 + 1e-9) and d.low_percent >= -100 * equal / (100 + equal) - 1e-9
        assert (d.verdict == "Equal") == inside
        if d.verdict in ("Better", "Worse"):
            assert d.low_percent >= 0 or d.high_percent <= 0
            is_good = d.percent > 0 if pair.metric == "output_tokens_per_second" else d.percent < 0
            assert (d.verdict == "Better") == is_good
        if d.verdict == "Inconclusive":
            assert d.low_percent <= 0 <= d.high_percent


def pair(
    compared: list[float], metric: Metric = "ttft", *, load: str = "concurrency 1", workload: str = "chat"
) -> Paired:
    return Paired(workload=workload, load=load, metric=metric, target=(1.0,) * len(compared), compared=tuple(compared))


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_values_without_a_logarithm_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="value of"):
        compare([pair([1.0] * 7 + [bad])], equal_within_percent=5.0)


def test_no_verdict_comes_from_fewer_rounds_than_can_say_anything() -> None:
    with pytest.raises(ValueError, match="6 are needed"):
        compare([pair([2.0] * (MIN_ROUNDS - 1))], equal_within_percent=5.0)
    assert compare([], equal_within_percent=5.0) == ()
    # 2 of the 2^rounds outcomes of the signs are as far apart as one can be.
    assert 2 / 2 ** (MIN_ROUNDS - 1) > LEVEL >= 2 / 2**MIN_ROUNDS


def test_rounds_and_metrics_must_match() -> None:
    with pytest.raises(ValueError, match="rounds"):
        compare(
            [Paired(workload="a", load="b", metric="itl", target=(1.0,) * 6, compared=(1.0,) * 7)],
            equal_within_percent=5.0,
        )
    with pytest.raises(ValueError, match="twice"):
        compare([pair([1.0] * 6), pair([1.0] * 6)], equal_within_percent=5.0)
    with pytest.raises(ValueError, match="different numbers"):
        compare([pair([1.0] * 6), pair([1.0] * 7, "itl")], equal_within_percent=5.0)


def test_six_rounds_of_one_sign_are_enough_for_one_metric() -> None:
    clear = [1.30, 1.31, 1.29, 1.32, 1.28, 1.30]
    assert verdicts([pair(clear)]) == ["Worse"]
    assert verdicts([pair(clear, "output_tokens_per_second")]) == ["Better"]
    assert verdicts([pair([*clear[:5], 0.9])]) == ["Inconclusive"]


def test_differences_everywhere_do_not_hide_each_other() -> None:
    """Each of three loads needs the one outcome in 32: together they are beyond the level, in steps they are not."""
    clear = [1.30, 1.31, 1.29, 1.32, 1.28, 1.30]
    wider = [1.60, 1.65, 1.55, 1.70, 1.50, 1.60]
    assert verdicts([pair(clear), pair(wider, load="concurrency 4")]) == ["Worse", "Worse"]


def test_chance_among_many_metrics_is_not_a_difference() -> None:
    """A metric that alone would be one is none beside others that scatter as much."""
    lucky = [1.02, 1.05, 1.01, 1.06, 1.03, 1.02]
    rng = np.random.default_rng(5)
    assert verdicts([pair(lucky)]) != ["Inconclusive"]
    others = [pair(np.exp(rng.normal(0, 0.05, 6)).tolist(), load=f"concurrency {i}") for i in range(2, 10)]
    assert verdicts([pair(lucky), *others])[0] == "Inconclusive"


def test_small_but_certain_differences_are_equal() -> None:
    steady = [1.020, 1.021, 1.019, 1.020, 1.022, 1.018, 1.020, 1.020]
    (difference,) = compare([pair(steady)], equal_within_percent=5.0)
    assert difference.verdict == "Equal"
    assert difference.low_percent > 1.5


def test_levels_of_signs_are_exact() -> None:
    """Over all signs that six rounds can have, no more than the level is found different."""
    rng = np.random.default_rng(11)
    sizes = rng.uniform(0.01, 0.2, (6, 1))
    found = 0
    for number in range(64):
        signs = np.array([1.0 if number >> i & 1 else -1.0 for i in range(6)])[:, None]
        found += bool((infer([signs * sizes]).p <= LEVEL).any())
    assert found == 2


@given(st.integers(1, 64), st.text(max_size=20))
def test_each_round_has_both_targets_after_those_before_it(rounds: int, seed: str) -> None:
    order = block_order(rounds, seed)
    assert sorted(order) == [(i, side) for i in range(rounds) for side in ("compared", "target")]
    assert [round_ for round_, _ in order] == sorted(round_ for round_, _ in order)
    assert block_order(rounds, seed) == order


def test_chance_decides_which_target_comes_first() -> None:
    firsts = [[side for _, side in block_order(16, f"uid-{i}")[::2]] for i in range(200)]
    assert len({tuple(first) for first in firsts}) > 190
    for round_ in range(16):
        assert 60 < sum(first[round_] == "target" for first in firsts) < 140


def test_a_disturbance_in_step_with_a_b_b_a_is_no_difference() -> None:
    """It slows two blocks of four; with a fixed order these would be those of one target in every round."""

    def false_alarms(orders: list[tuple[tuple[int, str], ...]]) -> int:
        found = 0
        for i, order in enumerate(orders):
            noise = np.random.default_rng(i).normal(0, 0.01, len(order))
            log = {block: noise[place] + (0.05 if place % 4 in (1, 2) else 0.0) for place, block in enumerate(order)}
            ratios = np.array([[log[(r, "compared")] - log[(r, "target")]] for r in range(len(order) // 2)])
            found += bool((infer([ratios]).p <= LEVEL).any())
        return found

    fixed = [((0, "target"), (0, "compared"), (1, "compared"), (1, "target"))]
    in_step = tuple((2 * i + r, side) for i in range(4) for r, side in fixed[0])
    assert false_alarms([in_step] * 100) == 100
    assert false_alarms([block_order(8, str(i)) for i in range(100)]) <= 9


def difference(
    verdict: Literal["Better", "Worse", "Equal", "Inconclusive"], percent: float, load: str = "concurrency 1"
) -> Difference:
    return Difference(
        workload="chat",
        load=load,
        metric="ttft",
        verdict=verdict,
        percent=percent,
        low_percent=percent - 3,
        high_percent=percent + 3,
    )


@pytest.mark.parametrize(
    ("differences", "winner", "message"),
    [
        (
            [difference("Better", -10), difference("Equal", 0)],
            "compared",
            "compared is better in TTFT at concurrency 1 (-10.0 %), and worse nowhere",
        ),
        (
            [difference("Worse", 10), difference("Inconclusive", 4)],
            "target",
            "compared is worse in TTFT at concurrency 1 (+10.0 %), and better nowhere; 1 of 2 are inconclusive",
        ),
        (
            [difference("Worse", 10), difference("Better", -5, "concurrency 4")],
            "none",
            "compared is better in TTFT at concurrency 4 (-5.0 %), and worse in TTFT at concurrency 1 (+10.0 %): "
            "choose by what matters more",
        ),
        ([difference("Equal", 0)], "none", "no difference shown: all are equal within 5 %"),
        (
            [difference("Equal", 0), difference("Inconclusive", -4)],
            "none",
            "no difference shown: one of up to 7.0 % (TTFT at concurrency 1) could have been missed; "
            "more rounds or longer blocks show smaller ones",
        ),
    ],
)
def test_a_winner_is_better_somewhere_and_worse_nowhere(
    differences: list[Difference], winner: str, message: str
) -> None:
    chosen = choose_winner("chat", differences, equal_within_percent=5.0)
    assert (chosen.winner, chosen.message) == (winner, message)


def test_a_winner_fits_into_a_status() -> None:
    many = [difference("Better", -10 - i, f"concurrency {2**i}") for i in range(8)]
    message = choose_winner("chat", many, equal_within_percent=5.0).message
    assert message.startswith("compared is better in TTFT at concurrency 128 (-17.0 %)")
    assert "and 4 more" in message
