"""How often a comparison is wrong: false alarms when both targets are one, and how surely 10 % are found.

Blocks are simulated request by request and go through `measure.rows` and `measure.statistics` as real ones do: three workloads under
two loads, four metrics each, 24 hypotheses together, as many rounds and seconds as `draftmark compare` takes by default. Printed with
them: how often the intervals of rows and of differences hold the true value. Shares have their 95 % interval (Wilson).

Noise is what `bench.noise` saw of a real engine (`bench/noise.json` keeps the levels, and where they come from), that of the
nearest workload and load for each. `--assumed` takes noise that nobody has seen; `--noise-of FILE` that of blocks that were
measured: a JSON list of `measure.samples.Block`, taken together.
"""

import argparse
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

import numpy as np
from pydantic import TypeAdapter

from draftmark.api.benchmark import DEFAULT_DURATION_S, DEFAULT_EQUAL_WITHIN_PERCENT, DEFAULT_ROUNDS
from draftmark.measure.order import Load
from draftmark.measure.rows import (
    METRICS,
    Floats,
    Metric,
    Requests,
    latency,
    medians_and_rate,
    rate,
    read_block,
)
from draftmark.measure.samples import Block
from draftmark.measure.statistics import Paired, block_order, choose_winner, compare

_SEED: Final = 7
_DIFFERENCE: Final = 1.1
_ROWS_REPETITIONS: Final = (3, 5, 10)
#: Blocks that stand for endless ones: with 4,000 their p99 hung on a few slow ones, and was another one with each seed.
_ENDLESS: Final = 40_000
#: Where the compared one is slower in the second scenario: position in `CELLS`, and what it is slower in.
_SLOWER: Final[dict[int, Metric]] = {0: "ttft", 3: "itl", 5: "ttft"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """What moves latencies, as standard deviations of their logarithms (0.04 is 4 %). The defaults are assumed.

    Args:
        request_ttft, request_itl: Of single requests in a block.
        block_ttft, block_itl: Of a block's level.
        shared: Share of the levels' variance that TTFT and ITL have in common.
        degrees: Of Student's t, from which levels of blocks are drawn: few have heavy tails.
        drift: Change from the first to the last block of a workload and load.
        wave: Height of a wave with a period of `wave_blocks` blocks, and any phase.
    """

    request_ttft: float = 0.15
    request_itl: float = 0.03
    block_ttft: float = 0.04
    block_itl: float = 0.04
    shared: float = 0.6
    degrees: float = 4.0
    drift: float = 0.10
    wave: float = 0.03
    wave_blocks: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A workload as a target answers it: seconds, and tokens of an answer."""

    workload: str
    load: Load
    ttft_s: float
    itl_s: float
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """What was seen of one workload under one load.

    Args:
        requests: Answers in a block, on average.
        ttft_ms, itl_ms: Medians of all.
        tokens: Of an answer, median.
        scatter: Of what a comparison takes from each block, by metric: the standard deviation of its logarithm from one block to the
            next, over the square root of two. It holds what so few requests scatter by themselves.
    """

    workload: str
    load: str
    requests: float
    ttft_ms: float
    itl_ms: float
    tokens: int
    scatter: Mapping[str, float]
    noise: Noise


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Levels of noise, and where they come from. `beside` says what else ran."""

    engine: str
    model: str
    machine: str
    beside: str
    measured: str
    blocks: int
    seconds: float
    levels: tuple[Level, ...] = field(default=())


#: Written by `bench.noise`.
RECORD: Final = Path(__file__).with_name("noise.json")

#: Workloads of `bench.noise` whose noise those of `CELLS` have.
_MEASURED_AS: Final = {"chat": "short", "long-context": "long", "shared-prefix": "short"}

#: Lengths of the presets; times of a small model on a GPU, a guess that decides how many requests a block has.
CELLS: Final = tuple(
    Served(workload=workload, load=Load(concurrency=concurrency), ttft_s=ttft_s, itl_s=0.01, tokens=tokens)
    for workload, ttft_s, tokens in (("chat", 0.1, 150), ("long-context", 0.8, 500), ("shared-prefix", 0.15, 150))
    for concurrency in (1, 4)
)


def simulate_blocks(
    rng: np.random.Generator,
    served: Served,
    noise: Noise,
    blocks: int,
    *,
    seconds: float,
    level: Floats | float = 0.0,
    slower: tuple[float, float] = (1.0, 1.0),
) -> list[Requests]:
    """Blocks of a target that keeps as many requests under way as the load says.

    Args:
        level: Logarithm by which each block is slower, beside the noise.
        slower: Factors of TTFT and ITL.
    """
    slots = served.load.concurrency or 1
    spread = math.sqrt(noise.degrees / (noise.degrees - 2))
    scales = (noise.block_ttft / spread, noise.block_itl / spread)
    common = rng.standard_t(noise.degrees, blocks) * math.sqrt(noise.shared)
    own = rng.standard_t(noise.degrees, (2, blocks)) * math.sqrt(1 - noise.shared)
    of_ttft, of_itl = (np.exp((common + own[i]) * scales[i] + level)[:, None, None] for i in (0, 1))
    fewest = served.ttft_s * slower[0] + served.itl_s * slower[1] * (served.tokens - 1)
    answers = math.ceil(seconds / fewest * 1.6) + 4
    shape = (blocks, slots, answers)
    ttft = served.ttft_s * slower[0] * of_ttft * np.exp(rng.normal(0, noise.request_ttft, shape))
    itl = served.itl_s * slower[1] * of_itl * np.exp(rng.normal(0, noise.request_itl, shape))
    took = ttft + itl * (served.tokens - 1)
    last = took.cumsum(axis=2)
    sent = last - took
    ended = last <= seconds
    nothing = np.empty(0)
    return [
        Requests(
            sent=sent[i][ended[i]],
            first=(sent[i] + ttft[i])[ended[i]],
            last=last[i][ended[i]],
            tokens=np.full(int(ended[i].sum()), float(served.tokens)),
            failed_sent=nothing,
            failed_last=nothing,
            seconds=seconds,
        )
        for i in range(blocks)
    ]


def simulate_pairs(
    rng: np.random.Generator,
    served: Served,
    noise: Noise,
    rounds: int,
    *,
    seconds: float,
    slower: tuple[float, float] = (1.0, 1.0),
) -> list[Paired]:
    """The metrics of one workload and load, measured in turns; `slower` are factors of the compared one."""
    order = block_order(rounds, str(rng.integers(2**63)))
    place = np.arange(len(order))
    wave = np.sin(2 * math.pi * place / noise.wave_blocks + rng.uniform(0, 2 * math.pi))
    drift = noise.drift * place / len(order) + noise.wave * wave
    values: dict[str, list[dict[Metric, float]]] = {}
    sides: tuple[tuple[Literal["target", "compared"], tuple[float, float]], ...] = (
        ("target", (1.0, 1.0)),
        ("compared", slower),
    )
    for side, factors in sides:
        levels = np.array([drift[i] for i, (_, target) in enumerate(order) if target == side])
        blocks = simulate_blocks(rng, served, noise, rounds, seconds=seconds, level=levels, slower=factors)
        values[side] = [medians_and_rate(block, served.load) for block in blocks]
    return [
        Paired(
            workload=served.workload,
            load=served.load.label,
            metric=metric,
            target=tuple(value[metric] for value in values["target"]),
            compared=tuple(value[metric] for value in values["compared"]),
        )
        for metric in METRICS
    ]


def measured_noise(blocks: Sequence[Block]) -> Noise:
    """The noise of real blocks, from the medians and requests of each workload, load and target.

    Of blocks one after the other the differences are taken, so that drift is not counted twice, and what medians of so few requests
    scatter by themselves is taken away, for the simulation adds it again; where that is more than what was seen nothing is left, and
    nothing is taken from other places for it. What it cannot say stays assumed: the tails, for
    which hundreds of blocks were needed, and waves.

    Raises:
        ValueError: There are not three blocks of one workload, load and target in which each has two requests and more.
    """
    inside: dict[str, list[float]] = {"ttft": [], "itl": []}
    beyond: dict[str, list[float]] = {"ttft": [], "itl": []}
    products: list[float] = []
    drifts: list[float] = []
    for there in _by_place(blocks):
        parts = [read_block(block) for block in there]
        found: dict[str, Floats] = {}
        for name, values in (("ttft", [p.ttft for p in parts]), ("itl", [p.itl for p in parts])):
            logs = [np.log(v[v > 0]) for v in values if (v > 0).sum() > 1]
            if len(logs) < 3 or len(logs) < len(values):
                continue
            variance = float(np.mean([log.var(ddof=1) for log in logs]))
            inside[name].append(variance)
            medians = np.array([float(np.median(log)) for log in logs])
            drifts.append(float(np.polyfit(np.linspace(0, 1, len(medians)), medians, 1)[0]))
            found[name] = np.diff(medians) / math.sqrt(2)
            # Variance of the median of n normal values: pi / 2 times that of their mean.
            of_medians = math.pi / 2 * variance * float(np.mean([1 / len(log) for log in logs]))
            beyond[name].append(max(float(np.mean(found[name] ** 2)) - of_medians, 0.0))
        if len(found) == 2:
            products += (found["ttft"] * found["itl"]).tolist()
    if not drifts:
        raise ValueError("three blocks of one workload, load and target are needed to see their noise")
    block = {name: math.sqrt(float(np.mean(seen))) if seen else 0.0 for name, seen in beyond.items()}
    both = block["ttft"] * block["itl"]
    return Noise(
        request_ttft=math.sqrt(float(np.mean(inside["ttft"]))) if inside["ttft"] else 0.0,
        request_itl=math.sqrt(float(np.mean(inside["itl"]))) if inside["itl"] else 0.0,
        block_ttft=block["ttft"],
        block_itl=block["itl"],
        shared=min(max(float(np.mean(products)) / both, 0.0), 1.0) if products and both > 0 else 0.0,
        drift=float(np.mean(np.abs(drifts))),
        wave=0.0,
    )


def measured_levels(blocks: Sequence[Block]) -> tuple[Level, ...]:
    """The noise of each workload, load and target, in the order in which they were measured. That inside a block is its own; that of
    blocks is of all together, for a handful of blocks of one says too little. One of which a block has fewer than two answers is left
    out."""
    found: list[Level] = []
    of_all = measured_noise(blocks)
    for there in _by_place(blocks):
        parts = [read_block(block) for block in there]
        if min(len(part.sent) for part in parts) < 2:
            continue
        load, own = _load_of(there[0].load), measured_noise(there)
        found.append(
            Level(
                workload=there[0].workload,
                load=there[0].load,
                requests=float(np.mean([len(part.sent) for part in parts])),
                ttft_ms=float(np.median(np.concatenate([part.ttft for part in parts]))),
                itl_ms=float(np.median(np.concatenate([part.itl for part in parts]))),
                tokens=int(np.median(np.concatenate([part.tokens for part in parts]))),
                scatter=scatter([medians_and_rate(part, load) for part in parts]),
                noise=replace(of_all, request_ttft=own.request_ttft, request_itl=own.request_itl),
            )
        )
    return tuple(found)


def scatter(values: Sequence[Mapping[Metric, float]]) -> dict[str, float]:
    """What `Level.scatter` says, from the values of blocks one after the other."""
    return {
        metric: float(np.sqrt(np.mean(np.diff(np.log([value[metric] for value in values])) ** 2) / 2))
        for metric in METRICS
    }


def _by_place(blocks: Sequence[Block]) -> list[list[Block]]:
    """Blocks of each workload, load and target, by time."""
    found: dict[tuple[str, str, str], list[Block]] = {}
    for block in sorted(blocks, key=lambda block: block.began):
        found.setdefault((block.workload, block.load, block.target), []).append(block)
    return list(found.values())


def _load_of(label: str) -> Load:
    kind, _, number = label.partition(" ")
    return Load(concurrency=int(number)) if kind == "concurrency" else Load(request_rate=float(kind))


def nearest(levels: Sequence[Level], served: Served) -> Level:
    """The level for a simulated workload and load: the lowest measured load for one request at a time, the highest for more."""
    those = [level for level in levels if level.workload == _MEASURED_AS[served.workload]]
    those.sort(key=lambda level: _load_of(level.load).concurrency or 0)
    return those[0 if served.load.concurrency == 1 else -1]


def wilson(hits: int, of: int) -> str:
    """A share in percent, with its 95 % interval."""
    z = 1.96
    share = hits / of
    middle = (share + z * z / 2 / of) / (1 + z * z / of)
    half = z * math.sqrt(share * (1 - share) / of + z * z / 4 / of / of) / (1 + z * z / of)
    return f"{100 * share:.2f} % ({100 * max(middle - half, 0):.2f} to {100 * min(middle + half, 1):.2f})"


def comparisons(noises: Sequence[Noise], *, count: int, rounds: int, seconds: float) -> None:
    """Print the rates of comparisons. `noises` are those of `CELLS`.

    In the second scenario the compared one is 10 % slower in three places (`_SLOWER`); all else is as in the first, in which both
    are alike.
    """
    rng = np.random.default_rng(_SEED)
    changed = {(CELLS[i].workload, CELLS[i].load.label) for i in _SLOWER}
    found = {(CELLS[i].workload, CELLS[i].load.label, metric): 0 for i, metric in _SLOWER.items()}
    factors = {"ttft": (_DIFFERENCE, 1.0), "itl": (1.0, _DIFFERENCE)}
    winners = dict.fromkeys((CELLS[i].workload for i in _SLOWER), 0)
    workloads = tuple(dict.fromkeys(cell.workload for cell in CELLS))
    alarms = held = equal = false_winners = 0
    other_alarms = 0
    for _ in range(count):
        alike = [
            simulate_pairs(rng, cell, noise, rounds, seconds=seconds) for cell, noise in zip(CELLS, noises, strict=True)
        ]
        differences = compare([p for cell in alike for p in cell], equal_within_percent=DEFAULT_EQUAL_WITHIN_PERCENT)
        alarms += any(d.verdict in ("Better", "Worse") for d in differences)
        equal += sum(d.verdict == "Equal" for d in differences)
        for workload in workloads:
            those = [d for d in differences if d.workload == workload]
            if choose_winner(workload, those, equal_within_percent=DEFAULT_EQUAL_WITHIN_PERCENT).winner != "none":
                false_winners += 1
                break
        pairs = [
            simulate_pairs(rng, cell, noises[i], rounds, seconds=seconds, slower=factors[_SLOWER[i]])
            if i in _SLOWER
            else alike[i]
            for i, cell in enumerate(CELLS)
        ]
        differences = compare([p for cell in pairs for p in cell], equal_within_percent=DEFAULT_EQUAL_WITHIN_PERCENT)
        is_held = True
        is_alarm = False
        for d in differences:
            where = (d.workload, d.load, d.metric)
            if where in found:
                found[where] += d.verdict == "Worse"
                is_held = is_held and d.low_percent <= 100 * (_DIFFERENCE - 1) <= d.high_percent
            elif where[:2] not in changed or d.metric in ("ttft", "itl"):
                is_alarm = is_alarm or d.verdict in ("Better", "Worse")
                is_held = is_held and d.low_percent <= 0 <= d.high_percent
        other_alarms += is_alarm
        held += is_held
        for workload in winners:
            those = [d for d in differences if d.workload == workload]
            winner = choose_winner(workload, those, equal_within_percent=DEFAULT_EQUAL_WITHIN_PERCENT).winner
            winners[workload] += winner == "target"
    hypotheses = len(CELLS) * len(METRICS)
    print(f"{count} comparisons, {rounds} rounds of blocks of {seconds:g} s, {hypotheses} hypotheses each")
    print(f"  both alike: a false alarm in {wilson(alarms, count)}, a false winner in {wilson(false_winners, count)}")
    print(
        f"  both alike: equal within {DEFAULT_EQUAL_WITHIN_PERCENT:g} % is {100 * equal / count / hypotheses:.1f} % of all verdicts"
    )
    for (workload, load, name), hits in found.items():
        print(f"  {name} of {workload} at {load} 10 % slower: found in {wilson(hits, count)}")
    for workload, hits in winners.items():
        print(f"  and the winner of {workload} is the faster one in {wilson(hits, count)}")
    print(f"  beside these: a false alarm in {wilson(other_alarms, count)}")
    print(f"  all intervals hold the true difference in {wilson(held, count)}")


def scaled(noise: Noise, by: float) -> Noise:
    """Larger noise of requests and blocks."""
    names = ("request_ttft", "request_itl", "block_ttft", "block_itl")
    return replace(noise, **{name: getattr(noise, name) * by for name in names})


def row_intervals(noise: Noise, *, count: int, seconds: float) -> None:
    """Print how often the intervals of rows hold what endless repetitions would give."""
    served = CELLS[1]
    rng = np.random.default_rng(_SEED + 1)
    steady = replace(noise, drift=0.0, wave=0.0)
    endless = simulate_blocks(rng, served, steady, _ENDLESS, seconds=seconds)
    everything = np.concatenate([block.ttft for block in endless])
    rates = [rate([block], served.load, lambda part: part.tokens) for block in endless]
    counted = [found.value for found in rates if found is not None]
    truth = {
        "ttft p50": float(np.quantile(everything, 0.5)),
        "ttft p90": float(np.quantile(everything, 0.9)),
        "ttft p99": float(np.quantile(everything, 0.99)),
        "output tokens/s": float(np.mean(counted)),
    }
    for repetitions in _ROWS_REPETITIONS:
        hits = dict.fromkeys(truth, 0)
        given = dict.fromkeys(truth, 0)
        for _ in range(count):
            blocks = simulate_blocks(rng, served, steady, repetitions, seconds=seconds)
            ttft = latency([block.ttft for block in blocks])
            for name, interval in (
                ("ttft p50", ttft.p50),
                ("ttft p90", ttft.p90),
                ("ttft p99", ttft.p99),
                ("output tokens/s", rate(blocks, served.load, lambda part: part.tokens)),
            ):
                if interval is not None and interval.low is not None and interval.high is not None:
                    given[name] += 1
                    hits[name] += interval.low <= truth[name] <= interval.high
        for name, hit in hits.items():
            if given[name]:
                print(
                    f"  {repetitions} repetitions: the interval of {name} holds the true value in {wilson(hit, given[name])}"
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000, help="simulated comparisons")
    parser.add_argument("--rounds", type=int, default=DEFAULT_ROUNDS)
    parser.add_argument("--seconds", type=float, default=float(DEFAULT_DURATION_S), help="of a block")
    given = parser.add_mutually_exclusive_group()
    given.add_argument("--noise-of", type=Path, help="JSON list of measured blocks, whose noise is taken")
    given.add_argument("--assumed", action="store_true", help="noise that nobody has seen")
    parser.add_argument(
        "--times", type=float, default=1.0, help="what the noise of requests and blocks is multiplied by"
    )
    for name, value in asdict(Noise()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, help=f"for all; assumed is {value}")
    arguments = vars(parser.parse_args())
    noises = [Noise()] * len(CELLS)
    if arguments["noise_of"] is not None:
        blocks = TypeAdapter(list[Block]).validate_json(arguments["noise_of"].read_bytes())
        noises = [measured_noise(blocks)] * len(CELLS)
    elif not arguments["assumed"]:
        levels = TypeAdapter(Record).validate_json(RECORD.read_bytes()).levels
        noises = [nearest(levels, cell).noise for cell in CELLS]
    said = {name: arguments[name] for name in asdict(Noise()) if arguments[name] is not None}
    noises = [replace(scaled(noise, arguments["times"]), **said) for noise in noises]
    for cell, noise in zip(CELLS, noises, strict=True):
        print(f"{cell.workload}, {cell.load.label}: " + ", ".join(f"{k} {v:.3g}" for k, v in asdict(noise).items()))
    began = time.perf_counter()
    comparisons(noises, count=arguments["count"], rounds=arguments["rounds"], seconds=arguments["seconds"])
    row_intervals(noises[1], count=arguments["count"], seconds=arguments["seconds"])
    print(f"took {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
