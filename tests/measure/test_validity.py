"""What a result is refused for, one fraud or fault at a time, and what is let pass."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from draftmark.measure.order import Bounds, Lengths, Load, OrderedObjectives, OrderedWorkload
from draftmark.measure.rows import make_row
from draftmark.measure.samples import Block, Client, Reading, Sample, Unfinished
from draftmark.measure.validity import OF_A_ROW, OF_THE_RUN, Cell, refuse_row, refuse_run, unchecked
from tests.measure.seen import (
    CHAT,
    OUTPUT,
    OVERHEAD,
    PROMPT,
    block,
    cell,
    each_reading,
    each_sample,
    order,
    sample,
    target,
)

Change = Callable[[Block], Block]
CODES: Final = [
    *((check.code, check.is_failure) for check in OF_THE_RUN),
    *((check.code, check.is_failure) for check in OF_A_ROW),
]
PAGE: Final = Path(__file__).parents[2] / "docs" / "statistics.md"


def code(seen: Cell) -> str | None:
    refusal = refuse_run((seen,)) or refuse_row(seen)
    return None if refusal is None else refusal.code


def only(round_: int, change: Change) -> Change:
    return lambda seen: change(seen) if seen.round == round_ else seen


def samples(change: Callable[[Sample], Sample], every: int = 1) -> Change:
    return each_sample(change, every=every)


def during(change: Callable[[Reading], Reading]) -> Change:
    return lambda seen: replace(
        seen, readings=tuple(change(r) if seen.began < r.at < seen.ended else r for r in seen.readings)
    )


def slower(share: float) -> Change:
    return lambda seen: block(seen.round, ttft_s=0.2 * (1 + share))


def lengthening(factor: float) -> Change:
    """TTFT goes from one to `factor` times its value in the course of a block, or falls from there for less than one."""

    def change(seen: Block) -> Block:
        count = len(seen.samples)
        ordered = []
        for i, one in enumerate(seen.samples):
            part = i / count
            ttft_s = 0.2 * (1 + (factor - 1) * part if factor > 1 else 1 / factor + (1 - 1 / factor) * part)
            ordered.append(replace(one, first=one.sent + ttft_s, last=one.last + ttft_s - 0.2))
        return replace(seen, samples=tuple(ordered))

    return change


def cut(seen: Sample) -> Sample:
    return replace(seen, finish=None)


def ending(*ages_s: float) -> Change:
    """With requests that have been under way for so long at its end. The slowest answer takes 1.18 s."""
    return lambda seen: replace(
        seen, unfinished=tuple(Unfinished(sent=seen.ended - age, asked_tokens=OUTPUT) for age in ages_s)
    )


def stopping_after(answers: int) -> Change:
    """Each slot hangs after so many answers, and sends no more."""
    return lambda seen: replace(
        seen,
        samples=seen.samples[:answers],
        unfinished=tuple(Unfinished(sent=seen.samples[answers - 1].last, asked_tokens=OUTPUT) for _ in range(2)),
        readings=(),
    )


def alone(seen: Block) -> tuple[Sample, ...]:
    """Two are asked to be under way, and of those that were answered there was never more than one."""
    return tuple(sample(seen.began + 2.0 * i) for i in range(10))


def failed(seen: Sample) -> Sample:
    return replace(seen, first=None, finish=None, output_tokens=None, error="stream_error: upstream closed")


def cached(tokens: int) -> Change:
    """So many tokens of each prompt come from the engine's cache."""

    def change(seen: Block) -> Block:
        return each_reading(
            lambda r: replace(r, cached_prompt_tokens=(r.prompt_tokens or 0) * tokens / (PROMPT + OVERHEAD))
        )(seen)

    return change


def computed_only(share: float) -> Change:
    """An engine that counts only what it computed, and computed this share of all."""
    return each_reading(
        lambda r: replace(
            r,
            prompt_tokens=None,
            cached_prompt_tokens=None,
            computed_prompt_tokens=(r.prompt_tokens or 0) * share,
        )
    )


def by_answers(tokens: int, every: int = 1) -> Change:
    """So many tokens of one of `every` prompts come from the cache of an engine without metrics; of the others nothing is said."""
    return lambda seen: replace(
        samples(lambda s: replace(s, cached_tokens=tokens), every=every)(seen),
        readings=(),
    )


def test_a_well_behaved_run_is_not_refused() -> None:
    assert code(cell()) is None
    assert unchecked((cell(),)) == ()


REFUSED: Final[list[tuple[str, bool, Change]]] = [
    ("ModelMismatch", True, only(2, samples(lambda s: replace(s, model="another"), every=100))),
    ("TargetRestarted", True, only(1, each_reading(lambda r: replace(r, started=70.0)))),
    ("TargetRestarted", True, only(2, each_reading(lambda r: replace(r, output_tokens=1.0)))),
    ("OtherLoad", False, only(1, lambda b: replace(b, readings=(replace(b.readings[0], running=1.0), *b.readings[1:])))),
    ("OtherLoad", False, only(1, lambda b: replace(b, readings=(*b.readings[:-1], replace(b.readings[-1], waiting=1.0))))),
    ("OtherLoad", False, only(0, during(lambda r: replace(r, running=3.0)))),
    ("OtherLoad", False, only(0, each_reading(lambda r: replace(r, output_tokens=(r.output_tokens or 0) * 1.5)))),
    ("OtherLoad", False, only(0, each_reading(lambda r: replace(r, prompt_tokens=(r.prompt_tokens or 0) * 2.5)))),
    ("TooManyErrors", True, only(1, samples(failed, every=1000))),
    ("TooManyErrors", True, only(1, ending(2.5))),
    ("TooManyErrors", True, only(1, stopping_after(10))),
    ("StreamsCut", True, only(1, samples(cut, every=1000))),
    ("StreamsCut", True, only(1, samples(lambda s: replace(s, output_tokens=OUTPUT // 2), every=1000))),
    ("StreamsCut", True, only(1, samples(lambda s: replace(s, first=None), every=1000))),
    ("TokensNotCounted", False, samples(lambda s: replace(s, output_tokens=None), every=50)),
    ("OutputLengths", False, samples(lambda s: replace(s, output_tokens=OUTPUT - 10, finish="stop"), every=20)),
    ("OutputLengths", False, samples(lambda s: replace(s, output_tokens=OUTPUT + 10))),
    ("PromptLengths", False, samples(lambda s: replace(s, prompt_tokens=PROMPT - 50))),
    ("PromptLengths", False, samples(lambda s: replace(s, prompt_tokens=PROMPT + 200))),
    ("PromptLengths", False, samples(lambda s: replace(s, sent_tokens=PROMPT - 30))),
    ("TooFewSamples", False, lambda b: replace(b, samples=b.samples[:1], readings=())),
    ("TooFewSamples", False, lambda b: replace(b, samples=())),
    ("TooFewSamples", False, only(1, lambda b: replace(b, samples=(), readings=()))),
    ("LoadNeverWhole", False, only(1, lambda b: replace(b, samples=alone(b), readings=()))),
    ("StreamsBuffered", False, samples(lambda s: replace(s, first=s.last - 1e-4))),
    ("StreamsBuffered", False, lambda b: replace(b, gaps_ms={0.02: 46, 320.0: 3})),
    ("ClientSaturated", False, only(2, lambda b: replace(b, client=Client(cpu_share=0.95, throttled_s=0.0)))),
    ("ClientSaturated", False, only(2, lambda b: replace(b, client=Client(cpu_share=0.5, throttled_s=1.0)))),
    ("ClientSaturated", False, samples(lambda s: replace(s, due=s.sent - 0.07))),
    ("ClientSaturated", False, samples(lambda s: replace(s, due=s.sent - 0.15), every=5)),
    ("PrefixCacheHits", False, cached(100)),
    ("PrefixCacheHits", False, computed_only(0.5)),
    ("PrefixCacheHits", False, by_answers(100)),
    ("PrefixCacheHits", False, by_answers(100, every=2)),
    ("PrefixCacheHits", False, samples(lambda s: replace(s, cached_tokens=100))),
    ("NotWarmedUp", False, only(0, slower(0.18))),
    ("NotWarmedUp", False, only(0, lengthening(0.5))),
    ("ScatterTooLarge", False, only(1, slower(0.5))),
]  # fmt: skip


@pytest.mark.parametrize(("expected", "is_failure", "change"), REFUSED)
def test_it_refuses(expected: str, is_failure: bool, change: Change) -> None:
    seen = cell(change)
    refusal = refuse_run((seen,)) or refuse_row(seen)
    assert refusal is not None
    assert (refusal.code, refusal.is_failure) == (expected, is_failure), refusal.message
    assert len(refusal.message) < 500


PASSES: Final[dict[str, Change]] = {
    "one reading beyond the load": lambda b: (
        replace(b, readings=(*b.readings[:2], replace(b.readings[2], running=3.0), *b.readings[3:]))
        if b.round == 0
        else b
    ),
    "requests of the warm-up and cut off ones in the counters": each_reading(
        lambda r: replace(r, output_tokens=(r.output_tokens or 0) + (0 if r.at % 100 < 90 else 400))
    ),
    "an answer that stopped": samples(lambda s: replace(s, output_tokens=20, finish="stop"), every=1000),
    "a chat template": samples(lambda s: replace(s, prompt_tokens=PROMPT + 100)),
    "a template in the cache": cached(OVERHEAD + 10),
    "a template in the cache of an engine without metrics": by_answers(OVERHEAD + 10),
    "one prompt of many that was cached": by_answers(100, every=50),
    "an engine that computes all": computed_only(1.0),
    "requests that are under way at the end": ending(0.0, 2.3),
    "a longer answer that is under way at the end": lambda b: replace(
        b, unfinished=(Unfinished(sent=b.ended - 4.0, asked_tokens=2 * OUTPUT),)
    ),
    "tokens that come one by one": lambda b: replace(b, gaps_ms={0.06: 40, 20.0: 9}),
    "a few late requests": samples(lambda s: replace(s, due=s.sent - 0.1), every=20),
    "a server that names no model": samples(lambda s: replace(s, model=None)),
    "a first repetition a little slower": only(0, slower(0.1)),
    "a last repetition that is slower": only(2, slower(0.18)),
    "a burst at the beginning": lambda b: replace(
        b,
        samples=tuple(
            replace(s, first=(s.first or 0) + 1, last=s.last + 1) if i < 2 else s for i, s in enumerate(b.samples)
        ),
    ),
}


@pytest.mark.parametrize("what", PASSES)
def test_it_lets_pass(what: str) -> None:
    assert code(cell(PASSES[what])) is None


def test_a_block_that_is_missing_is_a_failure() -> None:
    assert code(cell(blocks=(block(0), block(2)))) == "BlocksMissing"


def test_errors_and_cut_streams_share_what_is_allowed() -> None:
    asked = order(allowed_error_percent=3.0)
    assert code(cell(samples(cut, every=50), asked=asked)) is None
    both = cell(lambda b: samples(failed, every=49)(samples(cut, every=50)(b)), asked=asked)
    assert code(both) == "StreamsCut"
    assert code(cell(samples(failed, every=10), asked=asked)) == "TooManyErrors"


def test_restarts_are_seen_between_workloads() -> None:
    one = cell()
    other = cell(
        lambda b: replace(b, readings=tuple(replace(r, at=r.at + 1000, output_tokens=7.0) for r in b.readings)),
        workload=CHAT.model_copy(update={"name": "other"}),
    )
    assert refuse_run((one,)) is None
    refusal = refuse_run((one, other))
    assert refusal is not None
    assert refusal.code == "TargetRestarted"


def test_two_targets_have_counters_of_their_own() -> None:
    one = cell()
    other = cell(
        each_reading(lambda r: replace(r, started=900.0, output_tokens=(r.output_tokens or 0) + 3)),
        target=target("compared"),
    )
    assert refuse_run((one, other)) is None


def test_a_shared_beginning_may_come_from_the_cache_and_no_more() -> None:
    workload = OrderedWorkload(
        name="shared-prefix", prompt=Lengths(mean=100), output=Lengths(mean=OUTPUT), shared_prefix_tokens=100
    )
    assert code(cell(cached(100), workload=workload)) is None
    assert code(cell(cached(160), workload=workload)) == "PrefixCacheHits"


def test_each_block_of_a_comparison_needs_a_median() -> None:
    few = only(1, lambda b: replace(b, samples=b.samples[:4], readings=()))
    assert code(cell(few)) is None
    both = order(compared=True, repetitions=3)
    assert code(cell(few, asked=both)) == "TooFewSamples"


def test_an_objective_whose_percentile_is_not_known_is_not_taken_for_held() -> None:
    """Three blocks have some 300 answers, and a p99 needs 368."""

    def seen(change: Change = lambda b: b, **bounds: Bounds) -> Cell:
        return cell(change, asked=order(objectives=OrderedObjectives(**bounds)))

    refusal = refuse_row(seen(itl=Bounds(p50=25), ttft=Bounds(p50=250, p99=400)))
    assert refusal is not None
    assert (refusal.code, refusal.is_failure) == ("TooFewSamples", False)
    count = sum(len(b.samples) for b in seen().blocks)
    assert refusal.message.startswith(
        f"{count} samples of TTFT in all repetitions together; the p99 that objectives.ttft "
    )
    assert "needs 368. Measure longer, more requests, or bound a lower percentile" in refusal.message
    assert code(seen(ttft=Bounds(p90=250), itl=Bounds(p50=25), e2e=Bounds(p90=2000))) is None
    # That it is not held is known all the same.
    assert code(seen(ttft=Bounds(p99=400), e2e=Bounds(p50=500))) is None
    # The samples of ITL are all gaps, where they are known, as in the row.
    assert code(seen(itl=Bounds(p99=25))) == "TooFewSamples"
    assert code(seen(lambda b: replace(b, gaps_ms={20.0: 200}), itl=Bounds(p99=25))) is None
    # Answers of one token have no time between tokens.
    asked = order(objectives=OrderedObjectives(itl=Bounds(p50=25)))
    single = samples(lambda s: replace(s, last=s.first or 0, output_tokens=1, asked_tokens=1))
    without = cell(lambda b: replace(single(b), readings=()), asked=asked)
    assert code(without) == "TooFewSamples"
    # What a comparison shows are differences.
    both = order(compared=True, repetitions=3, objectives=OrderedObjectives(ttft=Bounds(p99=400)))
    assert code(cell(asked=both)) is None


def test_scatter_is_told_with_the_latency_and_its_medians() -> None:
    refusal = refuse_row(cell(only(1, slower(0.5))))
    assert refusal is not None
    assert re.match(
        r"the repetitions' medians of TTFT are [\d.]+ % apart \(([\d.]+), [\d.]+, \1 ms\); allowed are 20 %\. ",
        refusal.message,
    )


def test_rounds_of_a_comparison_may_scatter() -> None:
    """Their range grows with their number, and the intervals of the differences hold it."""
    both = order(compared=True, repetitions=3)
    assert code(cell(only(1, slower(0.5)), asked=both)) is None


def test_a_queue_that_grows_is_no_latency() -> None:
    load = Load(request_rate=2.0)

    def at_rate(change: Change) -> Cell:
        def made(seen: Block) -> Block:
            sent = tuple(sample(seen.began + i / 2) for i in range(110))
            return change(replace(seen, load=load.label, samples=sent, readings=()))

        return cell(made, load=load)

    assert code(at_rate(lambda b: b)) is None
    # A request of a rate has a time, and what is late is late for a user: by the measure of TTFT, not of E2E.
    assert code(at_rate(samples(lambda s: replace(s, due=s.sent - 0.015)))) == "ClientSaturated"
    assert code(cell(samples(lambda s: replace(s, due=s.sent - 0.015)))) is None
    assert code(at_rate(lengthening(30.0))) == "QueueGrows"


def test_a_queue_that_grows_is_seen_where_hardly_anything_is_answered() -> None:
    """A request each second, of which one in five is answered: 12 answers in a block show no trend."""
    load = Load(request_rate=1.0)

    def at_rate(seen: Block, served_per_s: float) -> Block:
        sent = [seen.began + i for i in range(60)]
        served = [(at, max(at, seen.began + i / served_per_s) + 1.0) for i, at in enumerate(sent)]
        answered = tuple(sample(at, ttft_s=end - at - 0.98) for at, end in served if end < seen.ended)
        rest = tuple(Unfinished(sent=at, asked_tokens=OUTPUT) for at, end in served if end >= seen.ended)
        return replace(seen, load=load.label, samples=answered, unfinished=rest, readings=())

    refusal = refuse_row(cell(lambda b: at_rate(b, 0.2), load=load))
    assert refusal is not None
    assert refusal.code == "QueueGrows"
    assert "requests were under way in the middle of the blocks, and 144 at their ends" in refusal.message
    assert code(cell(lambda b: at_rate(b, 2.0), load=load)) is None


def test_a_request_that_is_never_answered_is_an_error_and_told_with_its_time() -> None:
    refusal = refuse_row(cell(only(1, ending(2.5, 40.0))))
    assert refusal is not None
    assert (
        "2 of 302 had no answer when their block ended, after up to 40 s, where the slowest answer took 1.18 s (0.662 %)"
        in (refusal.message)
    )
    # As many as errors may be.
    allowed = cell(only(1, ending(2.5, 40.0)), asked=order(allowed_error_percent=1.0))
    assert code(allowed) is None
    assert make_row(allowed.blocks, load=allowed.load).errors == 2


@pytest.mark.parametrize("workload", [CHAT, OrderedWorkload(name="own", output=Lengths(mean=OUTPUT), dataset="/data")])
def test_prompts_of_a_data_set_have_no_length_that_was_asked(workload: OrderedWorkload) -> None:
    long = samples(lambda s: replace(s, sent_tokens=900, prompt_tokens=900 + OVERHEAD))
    assert code(cell(lambda b: replace(long(b), readings=()), workload=workload)) == (
        "PromptLengths" if workload is CHAT else None
    )


def test_requests_that_all_come_at_once_are_no_trend() -> None:
    load = Load(concurrency=16)

    def burst(seen: Block) -> Block:
        """Three requests of each slot; the first ones wait for each other."""
        sent = block(seen.round, load=load).samples[:48]
        slow = tuple(replace(s, first=(s.first or 0) + 0.4, last=s.last + 0.4) for s in sent[:16])
        return replace(seen, load=load.label, samples=slow + sent[16:], readings=())

    assert code(cell(burst, load=load)) is None


def test_spread_prompts_are_held_against_the_mean_of_their_spread() -> None:
    rng = np.random.default_rng(1)
    workload = OrderedWorkload(
        name="spread", prompt=Lengths(mean=200, standard_deviation=150, min=100, max=1000), output=Lengths(mean=OUTPUT)
    )

    def spread(shift: int) -> Change:
        def change(seen: Block) -> Block:
            lengths = np.clip(rng.normal(200, 150, len(seen.samples)), 100, 1000).round().astype(int) + shift
            return replace(
                seen,
                samples=tuple(
                    replace(s, sent_tokens=int(n), prompt_tokens=int(n) + OVERHEAD)
                    for s, n in zip(seen.samples, lengths, strict=True)
                ),
                readings=(),
            )

        return change

    assert code(cell(spread(0), workload=workload)) is None
    assert code(cell(spread(80), workload=workload)) == "PromptLengths"


def test_what_cannot_be_checked_is_said_and_not_refused() -> None:
    silent = cell(lambda b: replace(b, readings=(), client=Client(cpu_share=None, throttled_s=None)))
    assert code(silent) is None
    (note,) = unchecked((silent,))
    for what in ("other load", "restarts", "prefix cache", "CPU of the load generator"):
        assert what in note
    unnamed = cell(samples(lambda s: replace(s, model=None, prompt_tokens=None)))
    (note,) = unchecked((unnamed,))
    assert note == (
        "Not checked of target: the answering model (answers name none), lengths of prompts (answers count none)."
    )


def test_answers_that_tell_a_cache_suffice_to_check_it() -> None:
    (note,) = unchecked((cell(by_answers(0)),))
    assert "prefix cache" not in note
    assert "restarts" in note


def test_a_chance_of_noise_is_not_taken_for_a_cold_target() -> None:
    """Blocks that scatter by 4 %, as `bench/comparisons.py` assumes."""
    rng = np.random.default_rng(3)
    asked = order(allowed_scatter_percent=100.0)

    def noisy() -> str | None:
        levels = 0.2 * np.exp(rng.normal(0, 0.04, 3))
        blocks = tuple(
            replace(seen, samples=seen.samples[:20], readings=())
            for seen in (block(i, ttft_s=float(level)) for i, level in enumerate(levels))
        )
        return code(cell(asked=asked, blocks=blocks))

    assert [noisy() for _ in range(200)] == [None] * 200


def test_codes_are_named_once_and_documented() -> None:
    assert len({code for code, _ in CODES}) == len(CODES)
    told = re.findall(r"^\| `(\w+)` \| (Failed|Inconclusive) \|", PAGE.read_text(), re.MULTILINE)
    assert told == [(code, "Failed" if is_failure else "Inconclusive") for code, is_failure in CODES]


def test_every_code_has_a_case_here() -> None:
    elsewhere = {("BlocksMissing", True), ("QueueGrows", False)}
    assert {(code, is_failure) for code, is_failure, _ in REFUSED} | elsewhere == set(CODES)


def test_an_order_without_blocks_fails() -> None:
    assert code(cell(blocks=())) == "BlocksMissing"
