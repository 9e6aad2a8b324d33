"""What stands against a result: each check is one small function, and the tables name its code.

A check answers None, or what is, what is needed, and the way out. `OF_THE_RUN` concerns everything that was measured: not one row
is shown. `OF_A_ROW` concerns one workload under one load on one target. The first that speaks is the reason.

What an engine or the client does not tell cannot be checked; that is no reason to refuse, and `unchecked` says it.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Generic, TypeVar

import numpy as np

from draftmark.measure.order import Lengths, Load, Order, OrderedTarget, OrderedWorkload
from draftmark.measure.result import Refusal
from draftmark.measure.rows import (
    MIN_SAMPLES,
    PERCENTILES,
    Floats,
    has_rate,
    is_answered,
    is_cut,
    itl_samples,
    length_tolerance,
    read_block,
    stuck_s,
    widest_scatter,
)
from draftmark.measure.samples import Block, Reading, Sample

__all__ = ["OF_A_ROW", "OF_THE_RUN", "Cell", "Check", "refuse_row", "refuse_run", "unchecked"]

#: Share of requests whose answers may have another length than asked, in percent: a stop that no option prevents.
OTHER_LENGTHS_PERCENT: Final = 1.0
#: How far the mean length of prompts may be from what was asked, in percent: text that is cut to a number of tokens has another
#: number when it is read again.
PROMPT_PERCENT: Final = 5.0
#: Tokens that a chat template may add to each prompt. Templates with a system prompt of their own add some 20 to 70 (a guess from
#: those of Llama 3.1, Qwen 2.5 and gpt-oss); a wrong tokenizer is off by a share of the prompt.
TEMPLATE_TOKENS: Final = 128
#: How far the server's count of a prompt may be from ours beside that, in percent: joined texts are cut differently here and there.
TOKENIZER_PERCENT: Final = 2.0
#: Tokens that a cache holds together: a shared beginning may reach into the block after it. The default of vLLM.
CACHE_BLOCK_TOKENS: Final = 16
#: Share of prompts that may come from a cache beyond what was intended, in percent.
CACHED_PERCENT: Final = 2.0
#: CPU share of the client's busiest second. At 80 % what arrives in its event loop waits for four others on average.
CLIENT_CPU_SHARE: Final = 0.8
#: Share of a block in which the kernel may hold the client back. At 1 % the p99 consists of nothing else.
THROTTLED_SHARE: Final = 0.01
#: How late requests may be sent: the median by 5 % of the median TTFT (of E2E, with a number of requests under way) and the p90
#: by 10 % of its p90; below 2 and 10 ms, a few turns of the client's event loop, it is not looked at.
LATE_MEDIAN: Final = (0.05, 2.0)
LATE_P90: Final = (0.1, 10.0)
#: Percent by which the first repetition may be slower than each of the others. With three blocks that scatter by 4 % a warm target
#: exceeds it in 8 of 10,000 cases where noise is normal, and in 3 of 1,000 where it is Student's t with 4 degrees (simulated).
FIRST_SLOWER_PERCENT: Final = 15.0
#: Ratio of medians inside a block, and standard deviations of the rank sum, from which on it is a trend.
WARM_TREND: Final = (1.2, 4.0)
QUEUE_TREND: Final = (1.5, 4.0)
#: The same of requests under way, at the end of a block and in its middle.
PILE: Final = (1.5, 4.0)
#: Requests without which a block shows no trend.
_TREND_SAMPLES: Final = 18
#: Milliseconds: no model writes 20,000 tokens a second for one request, so tokens that are closer came in one piece.
BUFFERED_MS: Final = 0.05
#: Readings with more requests under way than were sent: pods are read one after the other, so that one alone may be a request that
#: was counted twice.
_OVERFULL_READINGS: Final = 2
_OVERFULL_SHARE: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One workload under one load on one target: what was asked, and what was seen."""

    order: Order
    target: OrderedTarget
    workload: OrderedWorkload
    load: Load
    blocks: tuple[Block, ...]

    @property
    def samples(self) -> tuple[Sample, ...]:
        return tuple(sample for block in self.blocks for sample in block.samples)

    @property
    def answered(self) -> tuple[Sample, ...]:
        return tuple(sample for sample in self.samples if is_answered(sample))


_Seen = TypeVar("_Seen")


@dataclass(frozen=True, slots=True)
class Check(Generic[_Seen]):
    """One reason to refuse.

    Args:
        code: Stands in `Refusal.code`; documented in docs/statistics.md.
        is_failure: Something broke; else the numbers would not be honest.
        look: Gives the message, or None.
    """

    code: str
    is_failure: bool
    look: Callable[[_Seen], str | None]


def refuse_run(cells: Sequence[Cell]) -> Refusal | None:
    """Why nothing may be shown of all that was measured."""
    return _first(OF_THE_RUN, cells)


def refuse_row(cell: Cell) -> Refusal | None:
    """Why no number of this row may be shown."""
    return _first(OF_A_ROW, cell)


def _first(checks: Iterable[Check[_Seen]], seen: _Seen) -> Refusal | None:
    for check in checks:
        message = check.look(seen)
        if message is not None:
            return Refusal(code=check.code, message=message, is_failure=check.is_failure)
    return None


def _is_other_model(cells: Sequence[Cell]) -> str | None:
    for cell in cells:
        for sample in cell.samples:
            if sample.model is not None and sample.model != cell.target.model:
                return (
                    f"{cell.target.url} answers as model '{sample.model[:120]}', asked was '{cell.target.model}'; the answers must "
                    "come from the model that is measured. Write the name that it is served under, or look at what is behind the address"
                )
    return None


def _is_restarted(cells: Sequence[Cell]) -> str | None:
    for url, label in dict.fromkeys((cell.target.url, cell.target.label) for cell in cells):
        blocks = [block for cell in cells if cell.target.label == label for block in cell.blocks]
        readings = sorted((reading for block in blocks for reading in block.readings), key=lambda r: r.at)
        started = [reading.started for reading in readings if reading.started is not None]
        # Some engines compute the time anew for each answer: below a second it is the same start.
        is_new = bool(started) and max(started) - min(started) > 1
        for name in ("prompt_tokens", "computed_prompt_tokens", "cached_prompt_tokens", "output_tokens"):
            values = [value for reading in readings if (value := _value(reading, name)) is not None]
            is_new = is_new or any(later < earlier for earlier, later in pairwise(values))
        if is_new:
            return (
                f"an engine of {url} restarted or was replaced while it was measured; all must be measured on the same processes. "
                "Look for restarts and evictions of its pods, then measure again"
            )
    return None


def _is_shared(cells: Sequence[Cell]) -> str | None:
    return next((message for cell in cells if (message := _has_others(cell)) is not None), None)


def _has_others(cell: Cell) -> str | None:
    way_out = "Measure a target that serves nobody else, or at a time when nobody does"
    limit = cell.load.concurrency
    readings = 0
    overfull: list[float] = []
    for block in cell.blocks:
        for reading in _at_rest(block):
            others = (reading.running or 0) + (reading.waiting or 0)
            if others > 0:
                return (
                    f"{cell.target.url} had {others:g} requests under way while this Benchmark sent none "
                    f"(before or after a block of {_named(cell)}); there must be no other load. {way_out}"
                )
        for reading in _inside(block):
            if reading.running is not None:
                readings += 1
                if limit is not None and reading.running + (reading.waiting or 0) > limit:
                    overfull.append(reading.running + (reading.waiting or 0))
        message = _grew_too_much(block, limit)
        if message is not None:
            return f"{cell.target.url} {message} in a block of {_named(cell)}; there must be no other load. {way_out}"
    if len(overfull) >= max(_OVERFULL_READINGS, _OVERFULL_SHARE * readings):
        return (
            f"{cell.target.url} had up to {max(overfull):g} requests under way while this Benchmark kept {limit} "
            f"({len(overfull)} of {readings} readings of {_named(cell)}); there must be no other load. {way_out}"
        )
    return None


def _grew_too_much(block: Block, limit: int | None) -> str | None:
    """The engine counted more tokens between two readings than all requests have that touch the time between them, and than those
    may have that we do not know, for they began before the block or did not end in it: as many as are ever under way, at both
    ends."""
    inside = _inside(block)
    if len(inside) < 2 or not block.samples:
        return None
    first, last = inside[0], inside[-1]
    starts = np.sort([s.sent for s in block.samples])
    ends = np.sort([s.last for s in block.samples])
    most = int((np.arange(1, len(starts) + 1) - np.searchsorted(ends, starts, side="left")).max())
    unknown = 2 * max(most, limit or 0)
    touching = np.array([s.last >= first.at and s.sent <= last.at for s in block.samples])
    prompts = np.array([max(s.prompt_tokens or 0, s.sent_tokens + TEMPLATE_TOKENS) for s in block.samples])
    outputs = np.array([max(s.output_tokens or 0, s.asked_tokens) for s in block.samples])
    for name, tokens in (("prompt_tokens", prompts), ("computed_prompt_tokens", prompts), ("output_tokens", outputs)):
        grown = _growth(first, last, name)
        bound = int(tokens[touching].sum() + unknown * tokens.max())
        if grown is not None and grown > bound:
            what = "generated tokens" if name == "output_tokens" else "tokens of prompts"
            return f"counted {grown:.0f} {what} where this Benchmark can explain at most {bound}"
    return None


def _is_incomplete(cell: Cell) -> str | None:
    there = len({block.round for block in cell.blocks})
    if there >= cell.order.repetitions:
        return None
    return (
        f"{there} of {cell.order.repetitions} blocks of {_named(cell)} were measured; all are needed. "
        "The log of the Job says what ended it"
    )


def _has_errors(cell: Cell) -> str | None:
    failed = [sample for sample in cell.samples if sample.error is not None]
    stuck = stuck_s(cell.blocks)
    asked = len(cell.samples) + len(stuck)
    percent = 100 * (len(failed) + len(stuck)) / max(asked, 1)
    if percent <= cell.order.allowed_error_percent:
        return None
    words = []
    if failed:
        first = (failed[0].error or "")[:120]
        words.append(f"{len(failed)} of {asked} requests failed, the first with '{first}'")
    if stuck:
        slowest = max(sample.last - sample.sent for sample in cell.answered)
        words.append(
            f"{len(stuck)} of {asked} had no answer when their block ended, after up to {max(stuck):.3g} s, where the slowest answer "
            f"took {slowest:.3g} s"
        )
    return (
        f"{'; '.join(words)} ({percent:.3g} %); allowed are {cell.order.allowed_error_percent:g} %. Look at the engine's log, lower "
        "the load, or raise allowedErrorPercent"
    )


def _has_cut_streams(cell: Cell) -> str | None:
    cut = [sample for sample in cell.samples if is_cut(sample)]
    failed = sum(sample.error is not None for sample in cell.samples)
    if not cut or 100 * (len(cut) + failed) / len(cell.samples) <= cell.order.allowed_error_percent:
        return None
    return (
        f"{len(cut)} of {len(cell.samples)} streams were cut: without a token, without finish_reason, or with fewer tokens than "
        f"asked and no stop; a cut answer looks fast. Look for time-outs of proxies and at the engine's log"
    )


def _is_uncounted(cell: Cell) -> str | None:
    uncounted = sum(sample.output_tokens is None for sample in cell.answered)
    if uncounted == 0:
        return None
    return (
        f"{uncounted} of {len(cell.answered)} answers came without usage, the server's own count of tokens; rates and lengths need "
        "it. Use a server that knows stream_options.include_usage, and no proxy that drops it"
    )


def _has_other_lengths(cell: Cell) -> str | None:
    other = [
        sample
        for sample in cell.answered
        if sample.output_tokens is not None
        and abs(sample.output_tokens - sample.asked_tokens) > length_tolerance(sample.asked_tokens)
    ]
    if 100 * len(other) <= OTHER_LENGTHS_PERCENT * len(cell.answered):
        return None
    example = other[0]
    return (
        f"{len(other)} of {len(cell.answered)} answers have another length than asked, such as {example.output_tokens} tokens "
        f"instead of {example.asked_tokens}; at most {OTHER_LENGTHS_PERCENT:g} % may. Use a server that respects ignore_eos, or ask "
        "for no more tokens than its context takes"
    )


def _has_other_prompts(cell: Cell) -> str | None:
    answered = cell.answered
    if not answered:
        return None
    sent = np.array([s.sent_tokens for s in answered], dtype=np.float64)
    if cell.workload.prompt is not None:
        asked = _mean_length(cell.workload.prompt) + cell.workload.shared_prefix_tokens
        chance = 4 * (cell.workload.prompt.standard_deviation or 0) / math.sqrt(len(sent))
        allowed = asked * PROMPT_PERCENT / 100 + chance + 2
        if abs(sent.mean() - asked) > allowed:
            return (
                f"prompts had {sent.mean():.4g} tokens on average, asked were {asked:.4g}; they may be {allowed:.3g} apart. "
                "Look at the tokenizer of the target"
            )
    counted = [s for s in answered if s.prompt_tokens is not None]
    if not counted:
        return None
    more = float(np.median([(s.prompt_tokens or 0) - s.sent_tokens for s in counted]))
    spare = float(sent.mean()) * TOKENIZER_PERCENT / 100 + 2
    if -spare <= more <= spare + TEMPLATE_TOKENS:
        return None
    return (
        f"the server counted {abs(more):.4g} tokens {'more' if more > 0 else 'fewer'} per prompt than were sent "
        f"({sent.mean():.4g}); {spare:.3g} fewer to {spare + TEMPLATE_TOKENS:.3g} more are allowed, for its chat template. Look "
        "whether it cuts prompts, has a long system prompt of its own, or another tokenizer"
    )


def _has_few_samples(cell: Cell) -> str | None:
    needed = MIN_SAMPLES["p50"]
    fewest = min((sum(is_answered(s) for s in block.samples) for block in cell.blocks), default=0)
    way_out = "Measure longer, or more requests"
    if len(cell.order.targets) > 1:
        if fewest < needed:
            return f"{fewest} answers in a block of a comparison; its median needs {needed}. {way_out}"
    elif len(cell.answered) < needed:
        return f"{len(cell.answered)} answers in all repetitions together; a median needs {needed}. {way_out}"
    elif fewest == 0:
        return f"no answer in one of {len(cell.blocks)} repetitions; each needs one. {way_out}"
    return _cannot_be_judged(cell) if len(cell.order.targets) == 1 else None


def _cannot_be_judged(cell: Cell) -> str | None:
    """An objective bounds a percentile that is not known, and no other bound is exceeded. A comparison shows differences, and
    objectives decide nothing there."""
    objectives = cell.order.objectives
    if objectives is None:
        return None
    parts = [read_block(block) for block in cell.blocks]
    unknown: str | None = None
    for name, bounds, values in (
        ("ttft", objectives.ttft, [p.ttft for p in parts]),
        ("itl", objectives.itl, itl_samples(parts)),
        ("e2e", objectives.e2e, [p.e2e for p in parts]),
    ):
        seen = np.concatenate(values)
        for percentile, quantile in PERCENTILES.items():
            bound: float | None = getattr(bounds, percentile)
            if bound is None:
                continue
            if len(seen) < MIN_SAMPLES[percentile]:
                unknown = unknown or (
                    f"{len(seen)} samples of {name.upper()} in all repetitions together; the {percentile} that objectives.{name} "
                    f"bounds needs {MIN_SAMPLES[percentile]}. Measure longer, more requests, or bound a lower percentile"
                )
            elif float(np.quantile(seen, quantile)) > bound:
                return None
    return unknown


def _is_never_whole(cell: Cell) -> str | None:
    short = next((block for block in cell.blocks if not has_rate(block, cell.load)), None)
    if short is None:
        return None
    answers = sum(is_answered(sample) for sample in short.samples)
    seen = (
        f"and among the requests that ended in it {cell.load.concurrency} were never under way at once"
        if cell.load.concurrency is not None
        else "and two that ended one after the other are needed"
    )
    return (
        f"a block of {_named(cell)} has {answers} answers, {seen}: no rate follows from that, and only the quickest are among the "
        "latencies. Measure longer, or more requests"
    )


def _is_buffered(cell: Cell) -> str | None:
    parts = [read_block(block) for block in cell.blocks]
    answers, gaps = np.concatenate([part.itl for part in parts]), np.concatenate(itl_samples(parts))
    for what, seen in (("the tokens of an answer came", answers), ("most pieces of the answers came", gaps)):
        if len(seen) and float(np.median(seen)) < BUFFERED_MS:
            return (
                f"{what} within {float(np.median(seen)):.2g} ms of each other, that is several in one piece: when each token was written, "
                f"and the first one, is not known then; {BUFFERED_MS:g} ms and more are credible. Look for a proxy that buffers"
            )
    return None


def _is_saturated(cell: Cell) -> str | None:
    way_out = "Give the load generator more CPU (spec.resources), or lower the load"
    for block in cell.blocks:
        share, throttled = block.client.cpu_share, block.client.throttled_s
        if share is not None and share > CLIENT_CPU_SHARE:
            return (
                f"the load generator used {100 * share:.0f} % of its CPU in its busiest second; above "
                f"{100 * CLIENT_CPU_SHARE:.0f} % it measures itself. {way_out}"
            )
        if throttled is not None and throttled > THROTTLED_SHARE * (block.ended - block.began):
            return (
                f"the kernel held the load generator back for {throttled:.2g} s of a block of "
                f"{block.ended - block.began:.3g} s; {100 * THROTTLED_SHARE:g} % are allowed. {way_out}"
            )
    late = np.array([(s.sent - s.due) * 1000 for s in cell.samples])
    parts = [read_block(block) for block in cell.blocks]
    # Requests of a rate have a time: what a user waits for from then on is missing in TTFT. With a number under way there is none:
    # the next one is due when another ends, and a late one is load that is missing, for a share of the time of a request.
    what, taken = (
        ("TTFT", [p.ttft for p in parts]) if cell.load.concurrency is None else ("E2E", [p.e2e for p in parts])
    )
    times = np.concatenate(taken)
    for name, quantile, (share, least) in (("p50", 0.5, LATE_MEDIAN), ("p90", 0.9, LATE_P90)):
        if len(times) < MIN_SAMPLES[name]:
            continue
        is_, whole = float(np.quantile(late, quantile)), float(np.quantile(times, quantile))
        allowed = max(least, share * whole)
        if is_ > allowed:
            return (
                f"the load generator sent its requests late, by {is_:.3g} ms ({name}); at most {allowed:.3g} ms are allowed, for "
                f"the target's {what} is {whole:.3g} ms. {way_out}"
            )
    return None


def _is_cached(cell: Cell) -> str | None:
    answered = cell.answered
    if not answered:
        return None
    more = [s.prompt_tokens - s.sent_tokens for s in answered if s.prompt_tokens is not None]
    intended = cell.workload.shared_prefix_tokens + (max(float(np.median(more)), 0.0) if more else 0.0)
    length = float(np.mean([s.prompt_tokens or s.sent_tokens for s in answered]))
    allowed = min((intended + CACHE_BLOCK_TOKENS) / length + CACHED_PERCENT / 100, 1.0)
    told = {"the engine's metrics": _cached_share(cell.blocks), "the usage of its answers": _cached_share_of(answered)}
    shares = {by: share for by, share in told.items() if share is not None}
    # Either may leave out a part of it, and none adds to it.
    by = max(shares, key=lambda each: shares[each], default="")
    if not shares or shares[by] <= allowed:
        return None
    return (
        f"{100 * shares[by]:.0f} % of the prompts' tokens came from the engine's prefix cache, as told by {by}; the workload intends at "
        f"most {100 * allowed:.0f} %. Write sharedPrefixTokens if prompts shall begin alike, use a data set that does not repeat, or "
        "switch the cache off"
    )


def _cached_share(blocks: Sequence[Block]) -> float | None:
    """Of the tokens of prompts, 0 to 1. From the engine's count of cached ones where it has one. Else from those that it computed:
    at least the prompts that came and were answered between two readings; those of others hide some, and never add to it."""
    cached = total = 0.0
    for block in blocks:
        if len(block.readings) < 2:
            continue
        first, last = block.readings[0], block.readings[-1]
        of_cache = _growth(first, last, "cached_prompt_tokens")
        of_all = _growth(first, last, "prompt_tokens")
        computed = _growth(first, last, "computed_prompt_tokens")
        if of_cache is not None and (of_all is not None or computed is not None):
            cached += of_cache
            total += of_all if of_all is not None else of_cache + (computed or 0)
        elif of_all is not None and computed is not None:
            cached += of_all - computed
            total += of_all
        else:
            inside = _inside(block)
            if len(inside) >= 2 and inside[-1].at - inside[0].at > (block.ended - block.began) / 2:
                first, last = inside[0], inside[-1]
            computed = _growth(first, last, "computed_prompt_tokens")
            if computed is None:
                continue
            sent = sum(
                s.prompt_tokens or s.sent_tokens
                for s in block.samples
                if is_answered(s) and s.first is not None and first.at <= s.sent and s.last <= last.at
            )
            cached += sent - computed
            total += sent
    return max(cached, 0.0) / total if total > 0 else None


def _cached_share_of(answered: Sequence[Sample]) -> float | None:
    """The same as the answers' own usage says. Servers leave the field out that do not tell it; earlier versions of vLLM also where
    there are none, so an answer without it has none if another one has it."""
    if all(sample.cached_tokens is None for sample in answered):
        return None
    return sum(s.cached_tokens or 0 for s in answered) / sum(s.prompt_tokens or s.sent_tokens for s in answered)


def _is_cold(cell: Cell) -> str | None:
    way_out = "Warm up for longer (spec.warmUp)"
    blocks = sorted(cell.blocks, key=lambda b: b.round)
    parts = [read_block(block) for block in blocks]
    for name, values in (("TTFT", [p.ttft for p in parts]), ("ITL", [p.itl for p in parts])):
        medians = [float(np.median(v)) for v in values if len(v) >= MIN_SAMPLES["p50"]]
        if len(medians) < 3 or len(medians) < len(values):
            continue
        first, others = medians[0], medians[1:]
        beyond = max(FIRST_SLOWER_PERCENT / 100 * max(others), 2 * (max(others) - min(others)))
        if first > max(others) + beyond:
            return (
                f"the first repetition had a median {name} of {first:.4g} ms, the others at most {max(others):.4g} ms; a warm "
                f"target is less than {100 * beyond / max(others):.0f} % apart. {way_out}"
            )
    if not parts:
        return None
    order = np.argsort(parts[0].sent, kind="stable")
    # The first requests of a block may all come at once, and wait for each other, warm or not.
    order = order[cell.load.concurrency or 1 :]
    third = len(order) // 3
    if len(order) >= _TREND_SAMPLES:
        of_first = parts[0].ttft
        early, late = of_first[order[:third]], of_first[order[third:]]
        if _is_above(early, late, *WARM_TREND):
            return (
                f"TTFT fell during the first block, from a median of {float(np.median(early)):.4g} ms in its first third to "
                f"{float(np.median(late)):.4g} ms; a warm target shows no trend. {way_out}"
            )
    return None


def _is_overrun(cell: Cell) -> str | None:
    if cell.load.request_rate is None:
        return None
    if (message := _is_piling_up(cell)) is not None:
        return message
    growing: list[tuple[float, float]] = []
    for block in cell.blocks:
        part = read_block(block)
        order = np.argsort(part.sent, kind="stable")
        third = len(order) // 3
        if len(order) < _TREND_SAMPLES:
            continue
        early, late = part.e2e[order[:third]], part.e2e[order[-third:]]
        if _is_above(late, early, *QUEUE_TREND):
            growing.append((float(np.median(early)), float(np.median(late))))
    if 2 * len(growing) <= len(cell.blocks):
        return None
    early_ms, late_ms = growing[0]
    return (
        f"answers took ever longer, {early_ms:.4g} ms (E2E p50) at the beginning of a block and {late_ms:.4g} ms at its end: requests "
        f"come faster than they are answered, and the figures say how long was waited. Lower requestRate below {cell.load.request_rate:g}"
    )


def _is_piling_up(cell: Cell) -> str | None:
    """Whether more requests are under way at the end of blocks than in their middle, by more than chance explains: of those that come
    at random and are answered as fast as they come, the number under way is Poisson's."""
    middle = end = 0
    for block in cell.blocks:
        at = (block.began + block.ended) / 2
        middle += sum(s.sent <= at < s.last for s in block.samples) + sum(r.sent <= at for r in block.unfinished)
        end += len(block.unfinished)
    ratio, deviations = PILE
    if end <= ratio * middle or end - middle <= deviations * math.sqrt(middle + end):
        return None
    return (
        f"{middle} requests were under way in the middle of the blocks, and {end} at their ends: they come faster than they are "
        f"answered, and the figures say how long was waited. Lower requestRate below {cell.load.request_rate:g}; or measure longer, "
        "where an answer takes more than half a block"
    )


def _scatters(cell: Cell) -> str | None:
    # The range grows with the number of rounds, and a comparison's intervals hold what rounds scatter.
    if len(cell.order.targets) > 1:
        return None
    scatter = widest_scatter([read_block(block) for block in cell.blocks])
    if scatter is None or scatter.percent <= cell.order.allowed_scatter_percent:
        return None
    medians = ", ".join(f"{median:.4g}" for median in scatter.medians_ms)
    return (
        f"the repetitions' medians of {scatter.latency} are {scatter.percent:.3g} % apart ({medians} ms); allowed are "
        f"{cell.order.allowed_scatter_percent:g} %. Look for other load on the node, measure longer, or raise allowedScatterPercent"
    )


#: What speaks against all that was measured.
OF_THE_RUN: Final[tuple[Check[Sequence[Cell]], ...]] = (
    Check("ModelMismatch", True, _is_other_model),
    Check("TargetRestarted", True, _is_restarted),
    Check("OtherLoad", False, _is_shared),
)
#: What speaks against a row. Later ones may count on what earlier ones have found in order.
OF_A_ROW: Final[tuple[Check[Cell], ...]] = (
    Check("BlocksMissing", True, _is_incomplete),
    Check("TooManyErrors", True, _has_errors),
    Check("StreamsCut", True, _has_cut_streams),
    Check("TokensNotCounted", False, _is_uncounted),
    Check("OutputLengths", False, _has_other_lengths),
    Check("PromptLengths", False, _has_other_prompts),
    Check("TooFewSamples", False, _has_few_samples),
    Check("ClientSaturated", False, _is_saturated),
    # A client without CPU keeps fewer requests under way as well.
    Check("LoadNeverWhole", False, _is_never_whole),
    # And it reads several pieces at once.
    Check("StreamsBuffered", False, _is_buffered),
    Check("PrefixCacheHits", False, _is_cached),
    Check("NotWarmedUp", False, _is_cold),
    Check("QueueGrows", False, _is_overrun),
    Check("ScatterTooLarge", False, _scatters),
)


def unchecked(cells: Sequence[Cell]) -> tuple[str, ...]:
    """What could not be checked, one sentence per target, for the notes."""
    found: list[str] = []
    for label in dict.fromkeys(cell.target.label for cell in cells):
        blocks = [block for cell in cells if cell.target.label == label for block in cell.blocks]
        readings = [reading for block in blocks for reading in block.readings]
        answered = [sample for block in blocks for sample in block.samples if is_answered(sample)]
        missing: list[str] = []
        if answered and all(sample.model is None for sample in answered):
            missing.append("the answering model (answers name none)")
        if answered and all(sample.prompt_tokens is None for sample in answered):
            missing.append("lengths of prompts (answers count none)")
        if not _known(readings, "running"):
            missing.append("other load (no metric of requests under way)")
        if not _known(readings, "started", "prompt_tokens", "computed_prompt_tokens", "output_tokens"):
            missing.append("restarts (no metric tells them)")
        is_told = any(sample.cached_tokens is not None for sample in answered)
        if not is_told and not _known(readings, "cached_prompt_tokens", "computed_prompt_tokens"):
            missing.append("prefix cache (neither a metric nor an answer tells its tokens)")
        if all(block.client.cpu_share is None for block in blocks):
            missing.append("CPU of the load generator")
        if missing:
            found.append(f"Not checked of {label}: {', '.join(missing)}.")
    return tuple(found)


def _known(readings: Sequence[Reading], *names: str) -> bool:
    return any(_value(reading, name) is not None for reading in readings for name in names)


def _value(reading: Reading, name: str) -> float | None:
    value: float | None = getattr(reading, name)
    return value


def _growth(first: Reading, last: Reading, name: str) -> float | None:
    begin, end = _value(first, name), _value(last, name)
    return None if begin is None or end is None else end - begin


def _at_rest(block: Block) -> list[Reading]:
    readings = block.readings
    found = [readings[0]] if readings and readings[0].at <= block.began else []
    if len(readings) > 1 and readings[-1].at >= block.ended:
        found.append(readings[-1])
    return found


def _inside(block: Block) -> list[Reading]:
    return [reading for reading in block.readings if block.began <= reading.at <= block.ended]


def _named(cell: Cell) -> str:
    return f"{cell.workload.name}, {cell.load.label}"


def _mean_length(lengths: Lengths) -> float:
    """Of a normal distribution whose values beyond its bounds are set to them."""
    mean, deviation = float(lengths.mean), lengths.standard_deviation
    if not deviation:
        return mean
    low = float(lengths.min if lengths.min is not None else 1)
    high = float(lengths.max if lengths.max is not None else mean + 10 * deviation)
    below, above = ((bound - mean) / deviation for bound in (low, high))
    inside = _normal(above) - _normal(below)
    bend = (math.exp(-(above**2) / 2) - math.exp(-(below**2) / 2)) / math.sqrt(2 * math.pi)
    return low * _normal(below) + high * (1 - _normal(above)) + mean * inside - deviation * bend


def _normal(value: float) -> float:
    return (1 + math.erf(value / math.sqrt(2))) / 2


def _is_above(one: Floats, other: Floats, ratio: float, deviations: float) -> bool:
    """By its median, and by the rank sum of Mann and Whitney: how often a value of one is above one of the other."""
    if float(np.median(one)) <= ratio * float(np.median(other)):
        return False
    ordered = np.sort(other)
    above = (np.searchsorted(ordered, one, side="left") + np.searchsorted(ordered, one, side="right")).sum() / 2
    count = len(one) * len(other)
    spread = math.sqrt(count * (len(one) + len(other) + 1) / 12)
    return bool((above - count / 2) / spread > deviations)
