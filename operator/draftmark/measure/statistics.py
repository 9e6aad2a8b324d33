"""Comparison of two targets that were measured in turns: which differences are real, and how large may they be.

In each round both targets have one block of each workload and load, and chance decides which comes first (`block_order`). Of each
metric the round gives one number, the logarithm of the ratio of both blocks, so that swapping the targets changes its sign and the
unit does not matter. Blocks are the samples here, not requests: requests of one block share its conditions, and counting them as
independent would find differences between a server and itself.

Many hypotheses are looked at (each metric of each workload and load), and one false alarm among them is one too many. So they
are tested together:

- *Is there a difference?* If there is none, each round's logarithm would have the other sign had chance put the other target first.
  The signs of whole rounds of a workload and load are flipped, all its metrics together, and the largest Student's t over all
  hypotheses is compared with what the flips give (max-T of Westfall and Young, in steps from the largest down). As the order was
  drawn, this is exact for any number of rounds, any distribution, any drift or periodic disturbance, and any dependence between
  metrics: the chance of one or more false alarms is at most `LEVEL`, whichever of the hypotheses are true.
- *How large may it be?* Simultaneous intervals: mean ± c standard errors, with c the larger of two values: what flipping the
  signs of the residuals gives (the wild bootstrap of the largest t), and Bonferroni's t. The former alone is too narrow for
  few rounds (simulated: 92 % instead of 96 % with 6). An interval of a difference that the test found ends at zero at the latest.

`LEVEL` is 4 %, not 5, so that a rate that is counted in simulations stays below 5 % with what counting scatters.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from typing import Final, Literal

import numpy as np

from draftmark.measure.result import METRIC_NAMES, Difference, Winner
from draftmark.measure.rows import METRICS, Floats, Metric, student_t_quantile

__all__ = ["LEVEL", "MIN_ROUNDS", "Paired", "block_order", "choose_winner", "compare"]

#: Chance of one or more false alarms in a comparison, at most.
LEVEL: Final = 0.04
#: With 5 rounds the signs of one hypothesis have 16 outcomes, and none is as rare as 4 %; with 6 they have 32.
MIN_ROUNDS: Final = 6
#: Flips of signs that are drawn where there are too many for all; the test stays exact, as what was seen is one of them.
_DRAWS: Final = 4096
_SEED: Final = 20_240_607
#: Standard error of a logarithm below which nothing is told apart: a billionth.
_SMALLEST_ERROR: Final = 1e-9
#: Logarithm of a ratio beyond which bounds are not told: e^50.
_LARGEST_LOG: Final = 50.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """One metric of one workload and load: a value per round of each target, finite and above zero."""

    workload: str
    load: str
    metric: Metric
    target: tuple[float, ...]
    compared: tuple[float, ...]


def block_order(rounds: int, seed: str = "") -> tuple[tuple[int, Literal["target", "compared"]], ...]:
    """Round and target of each block of one workload and load, in the order in which they are measured.

    Each round has both targets, and which comes first is drawn, so that no disturbance can keep in step with the order. With A B B A,
    over and over, one with a period of four blocks does, and looks like a difference.

    Args:
        seed: What to draw from: another one for each Benchmark, workload and load. The same gives the same order.
    """
    drawn = np.random.default_rng(int.from_bytes(sha256(seed.encode()).digest()[:16], "big")).integers(
        0, 2, size=rounds
    )
    order: list[tuple[int, Literal["target", "compared"]]] = []
    for round_ in range(rounds):
        pair: tuple[tuple[int, Literal["target"]], tuple[int, Literal["compared"]]]
        pair = ((round_, "target"), (round_, "compared"))
        order += pair if drawn[round_] == 0 else pair[::-1]
    return tuple(order)


def compare(pairs: Sequence[Paired], *, equal_within_percent: float) -> tuple[Difference, ...]:
    """The differences between two targets, one for each of `pairs` and in its order.

    Better and Worse: there is a difference, unless all that it may be lies within the equivalence bounds. Equal: it lies within
    them, whichever sign it has. Inconclusive: neither was shown. Bounds for x percent are 1 + x/100 and its inverse, so that
    nothing depends on which target is called the compared one.

    Raises:
        ValueError: Fewer than `MIN_ROUNDS` rounds, targets with different numbers of them, a value that is not finite or not above
            zero, or two pairs of one workload, load and metric.
    """
    ordered = sorted(pairs, key=_key)
    for one, other in pairwise(ordered):
        if _key(one) == _key(other):
            raise ValueError(f"{one.metric} of {one.workload} under {one.load} is given twice")
    cells: list[Floats] = []
    start = 0
    for end in range(1, len(ordered) + 1):
        if end == len(ordered) or _key(ordered[end])[:2] != _key(ordered[start])[:2]:
            columns = [_log_ratios(pair) for pair in ordered[start:end]]
            if len({len(column) for column in columns}) > 1:
                raise ValueError(f"metrics of {ordered[start].workload} have different numbers of rounds")
            cells.append(np.column_stack(columns))
            start = end
    if not cells:
        return ()
    found = infer(cells)
    bound = math.log1p(equal_within_percent / 100)
    by_key = {_key(pair): _difference(pair, found, position, bound=bound) for position, pair in enumerate(ordered)}
    return tuple(by_key[_key(pair)] for pair in pairs)


def _key(pair: Paired) -> tuple[str, str, int]:
    return (pair.workload, pair.load, METRICS.index(pair.metric))


def _log_ratios(pair: Paired) -> Floats:
    if len(pair.target) != len(pair.compared):
        raise ValueError(f"{len(pair.target)} rounds of the target and {len(pair.compared)} of the compared one")
    if len(pair.target) < MIN_ROUNDS:
        raise ValueError(f"{len(pair.target)} rounds say nothing; {MIN_ROUNDS} are needed")
    for value in (*pair.target, *pair.compared):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{pair.metric} of {pair.workload} under {pair.load} has a value of {value}")
    ratios: Floats = np.log(np.array(pair.compared)) - np.log(np.array(pair.target))
    return ratios


@dataclass(frozen=True, slots=True, kw_only=True)
class Inference:
    """Of all hypotheses, in the order of the columns of the cells, one after the other.

    Args:
        mean, error: Of the logarithms over rounds, with its standard error.
        p: Adjusted for all hypotheses together.
        half: Half the width of the simultaneous interval.
    """

    mean: Floats
    error: Floats
    p: Floats
    half: Floats


def infer(cells: Sequence[Floats]) -> Inference:
    """Test all hypotheses together, from arrays (rounds, metrics) of logarithms, one for each workload and load."""
    rounds = [len(cell) for cell in cells]
    mean = np.concatenate([cell.mean(axis=0) for cell in cells])
    error = np.concatenate([cell.std(axis=0, ddof=1) / math.sqrt(len(cell)) for cell in cells])
    error = np.maximum(error, _SMALLEST_ERROR)
    both = [(_flipped(s, c), _flipped(s, c - c.mean(axis=0))) for s, c in zip(_signs(rounds), cells, strict=True)]
    flipped = np.concatenate([raw for raw, _ in both], axis=1)
    residual = np.concatenate([centred for _, centred in both], axis=1)
    # What was seen is the first of the flips; a relative billionth, for others must not miss it for a rounding.
    seen = flipped[0] * (1 - 1e-9)
    p = _step_down(seen, flipped)
    largest = np.sort(residual.max(axis=1))
    bootstrap = float(largest[math.ceil((1 - LEVEL) * len(largest)) - 1])
    each = np.array([student_t_quantile(1 - LEVEL / 2 / len(mean), n - 1) for n in rounds])
    bonferroni = np.repeat(each, [cell.shape[1] for cell in cells])
    return Inference(mean=mean, error=error, p=p, half=np.maximum(bonferroni, bootstrap) * error)


def _signs(rounds: Sequence[int]) -> Iterator[Floats]:
    """Flips of the rounds of each cell, arrays (flips, rounds); the first flips nothing.

    All flips where they are few. Flipping all rounds of all cells changes no |t|, so the last round of the last cell can stay.
    One cell at a time, for all of a large comparison would take some hundred megabytes.
    """
    total = sum(rounds)
    numbers = np.arange(2 ** (total - 1)) if 2 ** (total - 1) <= _DRAWS else None
    random = np.random.default_rng(_SEED)
    before = 0
    for count in rounds:
        if numbers is not None:
            bits = (numbers[:, None] >> np.arange(before, before + count)[None, :]) & 1
        else:
            bits = random.integers(0, 2, size=(_DRAWS, count))
            bits[0] = 0
        before += count
        signs: Floats = np.where(bits == 1, -1.0, 1.0)
        yield signs


def _flipped(signs: Floats, values: Floats) -> Floats:
    """|t| of each column with its rounds' signs flipped, array (flips, columns)."""
    rounds = len(values)
    mean = signs @ values / rounds
    squares = (values**2).mean(axis=0)
    variance = np.maximum(squares - mean**2, 0) / (rounds - 1)
    # The difference of two nearly equal squares is known to half the digits only.
    smallest = np.maximum(1e-7 * np.sqrt(squares), _SMALLEST_ERROR)
    flipped: Floats = np.abs(mean) / np.maximum(np.sqrt(variance), smallest)
    return flipped


def _step_down(seen: Floats, flipped: Floats) -> Floats:
    order = np.argsort(-seen, kind="stable")
    # From the smallest up, the largest among those that are not larger in what was seen.
    rivals = np.maximum.accumulate(flipped[:, order[::-1]], axis=1)[:, ::-1]
    p = np.empty_like(seen)
    p[order] = np.maximum.accumulate((rivals >= seen[order]).mean(axis=0))
    return p


def _difference(pair: Paired, found: Inference, position: int, *, bound: float) -> Difference:
    mean, half = float(found.mean[position]), float(found.half[position])
    low, high = mean - half, mean + half
    is_different = bool(found.p[position] <= LEVEL)
    if is_different:
        low, high = (max(low, 0.0), high) if mean > 0 else (low, min(high, 0.0))
    else:
        low, high = min(low, 0.0), max(high, 0.0)
    verdict: Literal["Better", "Worse", "Equal", "Inconclusive"] = "Inconclusive"
    if -bound <= low and high <= bound:
        verdict = "Equal"
    elif is_different:
        is_higher_better = pair.metric == "output_tokens_per_second"
        verdict = "Better" if (mean > 0) == is_higher_better else "Worse"
    return Difference(
        workload=pair.workload,
        load=pair.load,
        metric=pair.metric,
        verdict=verdict,
        percent=_percent(mean),
        low_percent=_percent(low),
        high_percent=_percent(high),
    )


def _percent(log: float) -> float:
    return math.expm1(max(-_LARGEST_LOG, min(log, _LARGEST_LOG))) * 100


def choose_winner(workload: str, differences: Sequence[Difference], *, equal_within_percent: float) -> Winner:
    """What a comparison says of one workload, from all its differences, of which there is at least one.

    A target wins that is better somewhere and worse nowhere.
    """
    better = [d for d in differences if d.verdict == "Better"]
    worse = [d for d in differences if d.verdict == "Worse"]
    if better and worse:
        message = f"compared is better in {_listed(better)}, and worse in {_listed(worse)}: choose by what matters more"
        return Winner(workload=workload, winner="none", message=message)
    if better or worse:
        how = f"compared is {'better' if better else 'worse'} in {_listed(better or worse)}"
        rest = f"and {'worse' if better else 'better'} nowhere"
        open_ = sum(d.verdict == "Inconclusive" for d in differences)
        if open_:
            rest += f"; {open_} of {len(differences)} are inconclusive"
        return Winner(workload=workload, winner="compared" if better else "target", message=f"{how}, {rest}")
    widest = max(differences, key=_reach)
    if all(d.verdict == "Equal" for d in differences):
        message = f"no difference shown: all are equal within {equal_within_percent:g} %"
    else:
        message = (
            f"no difference shown: one of up to {_reach(widest):.1f} % ({_named(widest)}) could have been missed; "
            "more rounds or longer blocks show smaller ones"
        )
    return Winner(workload=workload, winner="none", message=message)


def _reach(difference: Difference) -> float:
    return max(abs(difference.low_percent), abs(difference.high_percent))


def _named(difference: Difference) -> str:
    return f"{METRIC_NAMES[difference.metric]} at {difference.load}"


def _listed(differences: Sequence[Difference]) -> str:
    """Not all of many: the message has to fit into a status."""
    ordered = sorted(differences, key=lambda d: -abs(d.percent))
    shown = ", ".join(f"{_named(d)} ({d.percent:+.1f} %)" for d in ordered[:4])
    return shown + (f" and {len(ordered) - 4} more" if len(ordered) > 4 else "")
