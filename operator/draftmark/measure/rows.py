"""From the requests of one workload under one load on one target to a row of the result.

Of each request four times are known: when it was due and sent, when its first and when its last token came. With n the tokens
of its answer, as the server counted them:

- TTFT, time to the first token: first - sent.
- E2E, end-to-end latency: last - sent.
- TPOT, time per output token in vLLM's sense: (E2E - TTFT) / (n - 1) = (last - first) / (n - 1), one number per request.
- ITL, inter-token latency: each time between two pieces of an answer, as vLLM keeps them. Where they are not known one by one, the
  mean of each answer stands for them, which is the same number as TPOT. The mean of ITL is over all gaps then, too (sum of
  last - first over sum of n - 1), and that of TPOT over requests.

Answers of one token have no gap, and are left out of both.

Percentiles are over the answered requests of all repetitions, linear between neighbours. One is given only where the highest
sample is above the true percentile with 97.5 %: of n independent samples all lie below the q-quantile with q^n.

Rates come from the stretch of a block in which the load was whole. Counting what ended in the block, over its length, is low by
the requests that were cut off by its end: at 3 answers per slot a third of the figure. See `_Stretch`; without one there is no rate.

Confidence intervals (95 %) are over repetitions, for the requests of one repetition share its conditions and are not
independent: on the scale of logarithms, with Student's t for as many repetitions as there are, and the larger of two standard
errors. One is that of the repetitions' own values, the other the jackknife's, which leaves out one repetition at a time; each alone is
too narrow for percentiles far out (simulated: 87 to 92 % for p99). A bootstrap over three repetitions has ten different samples and
cannot do better. `bench/comparisons.py` measures how often the intervals hold the true value.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from draftmark.measure.order import Bounds, Load, OrderedObjectives
from draftmark.measure.result import Interval, Latency, Row
from draftmark.measure.samples import Block, Sample

__all__ = [
    "CONFIDENCE",
    "METRICS",
    "MIN_SAMPLES",
    "PERCENTILES",
    "Floats",
    "Metric",
    "Requests",
    "Scatter",
    "errors",
    "has_rate",
    "is_answered",
    "is_cut",
    "itl_samples",
    "latency",
    "length_tolerance",
    "make_row",
    "medians_and_rate",
    "min_samples",
    "rate",
    "read_block",
    "stuck_s",
    "student_t_quantile",
    "widest_scatter",
]

Floats = NDArray[np.float64]
Metric = Literal["ttft", "itl", "e2e", "output_tokens_per_second"]
METRICS: Final[tuple[Metric, ...]] = ("ttft", "itl", "e2e", "output_tokens_per_second")

#: Of the intervals of rows.
CONFIDENCE: Final = 0.95
_ABOVE_PERCENTILE: Final = 0.975
PERCENTILES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
_MS: Final = 1000.0
_GB: Final = 1e9

_Part = TypeVar("_Part")


def min_samples(quantile: float) -> int:
    """Samples of which the highest is above the true quantile with 97.5 %: the fewest n with quantile^n <= 0.025."""
    return math.ceil(math.log(1 - _ABOVE_PERCENTILE) / math.log(quantile))


#: Samples that a percentile needs: 6, 36 and 368.
MIN_SAMPLES: Final = {name: min_samples(quantile) for name, quantile in PERCENTILES.items()}


def length_tolerance(asked_tokens: int) -> int:
    """Tokens by which an answer may differ from what was asked: 1 %, and at least one, for servers count the end differently."""
    return max(1, asked_tokens // 100)


def is_cut(sample: Sample) -> bool:
    """The stream ended without an error, and yet not as an answer ends: no token, no finish_reason, or fewer tokens than asked
    although nothing says that the model stopped."""
    if sample.error is not None:
        return False
    if sample.first is None or sample.finish is None:
        return True
    if sample.output_tokens is None or sample.finish == "stop":
        return False
    return sample.output_tokens < sample.asked_tokens - length_tolerance(sample.asked_tokens)


def is_answered(sample: Sample) -> bool:
    """It has an answer that ended."""
    return sample.error is None and not is_cut(sample)


#: How long a request has been under way at the end of its block, from which on it counts as one that is never answered: twice as long as
#: the slowest answer of its row took, for as many tokens, and a second, which a pause of the client does not take. A guess of ours.
STUCK_TIMES: Final = 2.0
STUCK_S: Final = 1.0


def stuck_s(blocks: Sequence[Block]) -> list[float]:
    """Requests that were under way at the end of their blocks for so long that no answer can be expected any more: for how
    long, in seconds. Where nothing was answered nobody knows how long an answer takes."""
    answered = [sample for block in blocks for sample in block.samples if is_answered(sample)]
    if not answered:
        return []
    slowest = max(sample.last - sample.sent for sample in answered)
    most = max(sample.asked_tokens for sample in answered)
    found = []
    for block in blocks:
        for request in block.unfinished:
            age = block.ended - request.sent
            if age > max(STUCK_TIMES * slowest * max(1.0, request.asked_tokens / most), STUCK_S):
                found.append(age)
    return found


def errors(blocks: Sequence[Block]) -> int:
    """Requests that were sent and have no whole answer, without those that were simply under way when their block ended."""
    return sum(not is_answered(sample) for block in blocks for sample in block.samples) + len(stuck_s(blocks))


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """The requests of one block as arrays, one element for each. Times in seconds on one clock.

    Args:
        sent, first, last, tokens: Of those that were answered; tokens of their answers.
        failed_sent, failed_last: Of the others, which were load as well.
        seconds: Length of the block.
        piece_gaps: Times between pieces of the answers as they came, in milliseconds; None: not known one by one.
    """

    sent: Floats
    first: Floats
    last: Floats
    tokens: Floats
    failed_sent: Floats
    failed_last: Floats
    seconds: float
    piece_gaps: Floats | None = None

    @property
    def ttft(self) -> Floats:
        """Milliseconds."""
        return (self.first - self.sent) * _MS

    @property
    def e2e(self) -> Floats:
        """Milliseconds."""
        return (self.last - self.sent) * _MS

    @property
    def gaps(self) -> Floats:
        """Number of times between tokens of each answer; 0: it has one token."""
        return np.maximum(self.tokens - 1, 0)

    @property
    def itl(self) -> Floats:
        """Milliseconds, the mean of each answer of two tokens and more."""
        several = self.gaps > 0
        return (self.last - self.first)[several] / self.gaps[several] * _MS


def read_block(block: Block) -> Requests:
    """The arrays of a block.

    Raises:
        ValueError: A block of no length, or an answered request whose times are not in order or not finite, or whose tokens the server did not count.
    """
    answered = [sample for sample in block.samples if is_answered(sample)]
    failed = [sample for sample in block.samples if not is_answered(sample)]
    if not 0 < block.ended - block.began < math.inf:
        raise ValueError(f"a block lasts from {block.began} to {block.ended}")
    for sample in answered:
        first, tokens = sample.first, sample.output_tokens
        if first is None or not (math.isfinite(sample.sent) and sample.sent <= first <= sample.last < math.inf):
            raise ValueError(f"a request has times out of order: sent {sample.sent}, first {first}, last {sample.last}")
        if tokens is None:
            raise ValueError("an answer without its number of tokens cannot be measured")
    return Requests(
        sent=np.array([s.sent for s in answered], dtype=np.float64),
        first=np.array([s.first for s in answered], dtype=np.float64),
        last=np.array([s.last for s in answered], dtype=np.float64),
        tokens=np.array([s.output_tokens for s in answered], dtype=np.float64),
        failed_sent=np.array([s.sent for s in failed], dtype=np.float64),
        failed_last=np.array([s.last for s in failed], dtype=np.float64),
        seconds=block.ended - block.began,
        piece_gaps=_repeated(block.gaps_ms),
    )


def _repeated(counted: Mapping[float, int] | None) -> Floats | None:
    if counted is None:
        return None
    return np.repeat(np.array(list(counted), dtype=np.float64), np.array(list(counted.values()), dtype=np.int64))


@dataclass(frozen=True, slots=True)
class _Stretch:
    """The part of a block in which the load was whole.

    With a number of requests under way it lasts from when so many were sent until fewer were under way for good, as far as
    requests are known that ended. A request counts with the share of its time that lies in it, and so do its tokens: what ends
    up to a moment would otherwise depend on where in an answer that moment falls.

    With a rate of requests it lasts from the first end to the last one, and those that ended after the first one count.

    Args:
        shares: Of each answered request, 0 to 1.
        seconds: Its length.
    """

    shares: Floats
    seconds: float


def _stretch(requests: Requests, load: Load) -> _Stretch | None:
    """None: the load was never whole, as far as is known."""
    if load.concurrency is None:
        if len(requests.last) < 2:
            return None
        begin, end = float(requests.last.min()), float(requests.last.max())
        if end <= begin:
            return None
        shares = np.ones_like(requests.last)
        shares[int(requests.last.argmin())] = 0
        return _Stretch(shares, end - begin)
    sent = np.sort(np.concatenate((requests.sent, requests.failed_sent)))
    ends = np.sort(np.concatenate((requests.last, requests.failed_last)))
    if len(sent) < load.concurrency:
        return None
    under_way = np.searchsorted(sent, ends, side="left") - np.arange(len(ends))
    full = np.flatnonzero(under_way >= load.concurrency)
    begin = float(sent[load.concurrency - 1])
    if len(full) == 0 or ends[full[-1]] <= begin:
        return None
    end = float(ends[full[-1]])
    inside = np.minimum(requests.last, end) - np.maximum(requests.sent, begin)
    took = requests.last - requests.sent
    return _Stretch(np.clip(inside / np.maximum(took, 1e-12), 0, 1), end - begin)


def has_rate(block: Block, load: Load) -> bool:
    """Whether rates of a block are known: with fewer answers than requests under way its load was never seen whole."""
    return _stretch(read_block(block), load) is not None


def medians_and_rate(requests: Requests, load: Load) -> dict[Metric, float]:
    """What one block says for a comparison: medians in milliseconds, and output tokens per second; those that there are."""
    found: dict[Metric, float] = {}
    if len(requests.sent) == 0:
        return found
    found["ttft"] = float(np.median(requests.ttft))
    itl = requests.itl
    if len(itl):
        found["itl"] = float(np.median(itl))
    found["e2e"] = float(np.median(requests.e2e))
    if (stretch := _stretch(requests, load)) is not None:
        found["output_tokens_per_second"] = float(stretch.shares @ requests.tokens) / stretch.seconds
    return found


@dataclass(frozen=True, slots=True)
class Scatter:
    """The latency by which repetitions are farthest apart.

    Args:
        medians_ms: One of each repetition, in their order.
        percent: The range of these medians over the median of all requests.
    """

    latency: str
    medians_ms: tuple[float, ...]
    percent: float


def widest_scatter(blocks: Sequence[Requests]) -> Scatter | None:
    """Of TTFT, ITL and E2E the one with the largest. None: there is nothing to compare."""
    found: list[Scatter] = []
    for latency, values in (
        ("TTFT", [b.ttft for b in blocks]),
        ("ITL", [b.itl for b in blocks]),
        ("E2E", [b.e2e for b in blocks]),
    ):
        medians = tuple(float(np.median(v)) for v in values if len(v))
        if len(medians) > 1:
            middle = float(np.median(np.concatenate(values)))
            if middle > 0:
                found.append(Scatter(latency, medians, (max(medians) - min(medians)) / middle * 100))
    return max(found, key=lambda scatter: scatter.percent, default=None)


def make_row(
    blocks: Sequence[Block],
    *,
    load: Load,
    objectives: OrderedObjectives | None = None,
) -> Row:
    """The row of the repetitions of one workload under one load on one target.

    Whether its numbers may be shown is `measure.validity`'s to say, and to be asked before.

    Raises:
        ValueError: There is no block, or no answered request, or `read_block` refuses one.
    """
    parts = [read_block(block) for block in blocks]
    scatter = widest_scatter(parts)
    if sum(len(part.sent) for part in parts) == 0:
        raise ValueError("a row needs answered requests")
    ttft = latency([p.ttft for p in parts])
    e2e = latency([p.e2e for p in parts])
    tpot = itl = None
    if any(len(p.itl) for p in parts):
        tpot = latency([p.itl for p in parts])
        itl = _itl(parts, tpot)
    answered = [sample for block in blocks for sample in block.samples if is_answered(sample)]
    shares = [block.client.cpu_share for block in blocks if block.client.cpu_share is not None]
    memory = [block.peak_memory_bytes for block in blocks if block.peak_memory_bytes is not None]
    kv_use = [reading.kv_use for block in blocks for reading in block.readings if reading.kv_use is not None]
    return Row(
        target=blocks[0].target,
        workload=blocks[0].workload,
        load=blocks[0].load,
        concurrency=load.concurrency,
        request_rate=load.request_rate,
        samples=len(answered),
        errors=errors(blocks),
        ttft=ttft,
        itl=itl,
        tpot=tpot,
        e2e=e2e,
        requests_per_second=rate(parts, load, lambda part: np.ones_like(part.sent)),
        output_tokens_per_second=rate(parts, load, lambda part: part.tokens),
        goodput_per_second=None if objectives is None else rate(parts, load, lambda part: _is_good(part, objectives)),
        holds_objectives=None if objectives is None else _holds(objectives, ttft, itl, e2e),
        prompt_tokens=_mean([s.prompt_tokens for s in answered]),
        output_tokens=_mean([s.output_tokens for s in answered]),
        scatter_percent=scatter.percent if scatter is not None else None,
        kv_use_percent=min(max(kv_use) * 100, 100.0) if kv_use else None,
        peak_memory_gb=max(memory) / _GB if memory else None,
        client_cpu_percent=max(shares) * 100 if shares else None,
    )


def _itl(parts: Sequence[Requests], tpot: Latency) -> Latency:
    """Over all gaps; where they are not known one by one, over the means of the answers."""
    if (known := _known_gaps(parts)) is not None:
        return latency(known)
    gaps = sum(float(part.gaps.sum()) for part in parts)
    streamed = sum(float((part.last - part.first)[part.gaps > 0].sum()) for part in parts)
    return tpot.model_copy(update={"mean": streamed / gaps * _MS})


def _known_gaps(parts: Sequence[Requests]) -> list[Floats] | None:
    known = [part.piece_gaps for part in parts if part.piece_gaps is not None]
    return known if len(known) == len(parts) and any(len(gaps) for gaps in known) else None


def itl_samples(parts: Sequence[Requests]) -> list[Floats]:
    """What the percentiles of a row's ITL are over, in milliseconds, one array per repetition."""
    return _known_gaps(parts) or [part.itl for part in parts]


def latency(parts: Sequence[Floats]) -> Latency:
    """Of milliseconds, one array per repetition."""
    everything = np.concatenate(parts)
    found: dict[str, Interval] = {}
    for name, quantile in PERCENTILES.items():
        if len(everything) >= MIN_SAMPLES[name]:
            found[name] = _interval(parts, partial(_pooled_quantile, quantile))
    return Latency(p50=found.get("p50"), p90=found.get("p90"), p99=found.get("p99"), mean=float(everything.mean()))


def _pooled_quantile(quantile: float, parts: Sequence[Floats]) -> float:
    return float(np.quantile(np.concatenate(parts), quantile))


def rate(parts: Sequence[Requests], load: Load, weight: Callable[[Requests], Floats]) -> Interval | None:
    """Per second, with `weight` of each answered request, one element of `parts` per repetition. None: the load of one of them was
    never seen whole."""
    counted = []
    for part in parts:
        if (stretch := _stretch(part, load)) is None:
            return None
        counted.append((float(stretch.shares @ weight(part)), stretch.seconds))
    return _interval(counted, lambda some: sum(count for count, _ in some) / sum(seconds for _, seconds in some))


def _interval(parts: Sequence[_Part], statistic: Callable[[Sequence[_Part]], float]) -> Interval:
    """The statistic of all parts, with its interval over them.

    Leaving out is done with groups of many requests, so that percentiles, for which the jackknife over single samples fails,
    move smoothly enough. A repetition in which nothing was seen leaves no interval. Values of zero, such as a goodput of none, have
    no logarithm; then the interval is a linear one, and begins at 0 at the least.
    """
    value = statistic(parts)
    count = len(parts)
    if count < 2 or any(isinstance(part, np.ndarray) and len(part) == 0 for part in parts):
        return Interval(value=value)
    alone = np.array([statistic([part]) for part in parts])
    without = np.array([statistic([*parts[:i], *parts[i + 1 :]]) for i in range(count)])
    is_positive = min(value, float(alone.min()), float(without.min())) > 0
    if is_positive:
        alone, without = np.log(alone), np.log(without)
    left_out = (count - 1) / count * float(((without - without.mean()) ** 2).sum())
    half = student_t_quantile((1 + CONFIDENCE) / 2, count - 1) * math.sqrt(
        max(left_out, float(alone.var(ddof=1)) / count)
    )
    if is_positive:
        # Beyond e^50 nothing is known anyway, and JSON has no infinity.
        return Interval(value=value, low=value * math.exp(-min(half, 50.0)), high=value * math.exp(min(half, 50.0)))
    return Interval(value=value, low=max(value - half, 0.0), high=value + half)


def _is_good(requests: Requests, objectives: OrderedObjectives) -> Floats:
    good = np.ones_like(requests.sent)
    good[requests.ttft > _tightest(objectives.ttft)] = 0
    good[requests.e2e > _tightest(objectives.e2e)] = 0
    several = requests.gaps > 0
    good[several] *= requests.itl <= _tightest(objectives.itl)
    return good


def _tightest(bounds: Bounds) -> float:
    return min((bound for bound in (bounds.p50, bounds.p90, bounds.p99) if bound is not None), default=math.inf)


def _holds(objectives: OrderedObjectives, ttft: Latency, itl: Latency | None, e2e: Latency) -> bool | None:
    """False: a bound is exceeded. None: none of those that are known is, and one is not known."""
    is_unknown = False
    for bounds, latency in ((objectives.ttft, ttft), (objectives.itl, itl), (objectives.e2e, e2e)):
        for name in PERCENTILES:
            bound: float | None = getattr(bounds, name)
            if bound is None:
                continue
            seen: Interval | None = getattr(latency, name) if latency is not None else None
            if seen is None:
                is_unknown = True
            elif seen.value > bound:
                return False
    return None if is_unknown else True


def _mean(values: Sequence[int | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def student_t_quantile(probability: float, degrees: int) -> float:
    """Of Student's t with a whole number of degrees of freedom, for a probability of at least 1/2.

    The distribution function is a finite sum then (Abramowitz and Stegun, 26.7.3 and 26.7.4); it is inverted by halving.
    """
    low, high = 0.0, 1e9
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if _student_t(middle, degrees) < probability:
            low = middle
        else:
            high = middle
    return high


def _student_t(t: float, degrees: int) -> float:
    angle = math.atan2(t, math.sqrt(degrees))
    sine, cosine = math.sin(angle), math.cos(angle)
    is_odd = degrees % 2 == 1
    term = cosine if is_odd else 1.0
    total = term if degrees > 1 else 0.0
    for k in range(3 if is_odd else 2, degrees - 1, 2):
        term *= cosine * cosine * (k - 1) / k
        total += term
    inside = 2 / math.pi * (angle + sine * total) if is_odd else sine * total
    return 0.5 + inside / 2
