"""From blocks to the document that is kept."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from draftmark.measure.evaluate import evaluate
from draftmark.measure.order import Load, Order
from draftmark.measure.result import Result
from draftmark.measure.samples import Block
from tests.measure.seen import CHAT, TWO, Label, block, each_sample, order

FOUR = Load(concurrency=4)
OTHER = CHAT.model_copy(update={"name": "other"})


def result_of(asked: Order, blocks: list[Block]) -> Result:
    return evaluate(asked, blocks, began="2026-01-01T00:00:00Z", ended="2026-01-01T01:00:00Z", tool="guidellm 0.8.1")


def measured(asked: Order, change: Callable[[Block], Block] = lambda seen: seen, slower: float = 1.0) -> list[Block]:
    """All blocks of an order, one after the other in time; the compared one's TTFT is `slower` times the target's. Each
    round has a level of its own."""
    blocks: list[Block] = []
    labels: list[Label] = [target.label for target in asked.targets]
    for workload in asked.workloads:
        for load in asked.loads:
            for round_ in range(asked.repetitions):
                level = 1 + 0.004 * (round_ * 7 % 5)
                for label in labels:
                    own = 0.2 * level * (slower * (1 + 0.002 * (round_ % 3)) if label == "compared" else 1)
                    seen = block(len(blocks), label=label, workload=workload.name, load=load, ttft_s=own)
                    blocks.append(change(replace(seen, round=round_)))
    return blocks


def test_a_run_of_one_target_gives_its_rows() -> None:
    asked = order(workloads=(CHAT, OTHER), loads=(TWO, FOUR), notes="the user's own")
    result = result_of(asked, measured(asked))
    assert [(row.workload, row.load, row.refusal) for row in result.rows] == [
        (workload, load, None) for workload in ("chat", "other") for load in ("concurrency 2", "concurrency 4")
    ]
    first = result.rows[0]
    assert first.ttft is not None
    assert first.ttft.p50 is not None
    assert first.ttft.p50.low is not None
    assert first.peak_memory_gb == 1.5
    assert result.differences == ()
    assert result.winners == ()
    assert result.notes == "the user's own"
    assert result.targets[0].facts.engine == "vllm"


def test_what_could_not_be_checked_is_told_beside_the_notes() -> None:
    asked = order(notes="the user's own")
    result = result_of(asked, measured(asked, change=lambda seen: replace(seen, readings=())))
    assert result.rows[0].refusal is None
    (said,) = result.unchecked
    assert said.startswith("Not checked of target: other load (no metric of requests under way), restarts")
    assert result.notes == f"the user's own\n{said}"
    assert result_of(asked, measured(asked)).unchecked == ()


def test_the_result_survives_json() -> None:
    asked = order(compared=True)
    result = result_of(asked, measured(asked, slower=1.3))
    assert result.differences
    assert Result.model_validate_json(result.model_dump_json(by_alias=True)) == result


def test_the_sequence_of_blocks_does_not_matter() -> None:
    asked = order(compared=True)
    blocks = measured(asked, slower=1.1)
    assert result_of(asked, blocks) == result_of(asked, blocks[::-1])


def test_a_comparison_names_the_faster_one_in_both_orders() -> None:
    asked = order(compared=True)
    for slower, winner, verdict in ((1.2, "target", "Worse"), (1 / 1.2, "compared", "Better")):
        result = result_of(asked, measured(asked, slower=slower))
        assert [w.winner for w in result.winners] == [winner]
        (ttft,) = [d for d in result.differences if d.metric == "ttft"]
        assert ttft.verdict == verdict
        assert ttft.low_percent < 100 * (slower * 1.002 - 1) < ttft.high_percent
        (itl,) = [d for d in result.differences if d.metric == "itl"]
        assert itl.verdict == "Equal"


def test_two_that_are_alike_have_no_winner() -> None:
    asked = order(compared=True)
    result = result_of(asked, measured(asked))
    assert {d.verdict for d in result.differences} == {"Equal"}
    assert [(w.winner, w.message) for w in result.winners] == [
        ("none", "no difference shown: all are equal within 5 %")
    ]


def test_what_concerns_the_run_takes_all_numbers() -> None:
    asked = order(compared=True, workloads=(CHAT, OTHER))
    blocks = measured(asked, slower=1.3)
    blocks[3] = each_sample(lambda s: replace(s, model="another"))(blocks[3])
    result = result_of(asked, blocks)
    assert result.refusal is not None
    assert result.refusal.code == "ModelMismatch"
    assert all(row.refusal == result.refusal and row.ttft is None for row in result.rows)
    assert result.differences == ()
    assert [w.winner for w in result.winners] == ["none", "none"]


def test_a_refused_half_leaves_its_workload_without_a_winner_and_others_alone() -> None:
    asked = order(compared=True, workloads=(CHAT, OTHER))

    def cut(seen: Block) -> Block:
        if seen.workload == "other" and seen.target == "compared" and seen.round == 2:
            return each_sample(lambda s: replace(s, finish=None))(seen)
        return seen

    result = result_of(asked, measured(asked, cut, slower=1.3))
    assert result.refusal is None
    refused = [row for row in result.rows if row.refusal is not None]
    assert [(row.workload, row.target) for row in refused] == [("other", "compared")]
    assert refused[0].ttft is None
    assert refused[0].output_tokens_per_second is None
    assert {d.workload for d in result.differences} == {"chat"}
    assert [w.winner for w in result.winners] == ["target", "none"]
    assert result.winners[1].message == "no winner: concurrency 2 has no numbers (StreamsCut)"


def test_rounds_that_are_too_few_give_rows_and_no_verdict() -> None:
    asked = order(compared=True, repetitions=5)
    result = result_of(asked, measured(asked, slower=2.0))
    assert all(row.refusal is None for row in result.rows)
    assert result.differences == ()
    assert result.winners[0].message == "no winner: 5 rounds show nothing, 6 are needed"


def test_answers_of_one_token_are_compared_without_gaps() -> None:
    asked = order(
        compared=True, workloads=(CHAT.model_copy(update={"output": CHAT.output.model_copy(update={"mean": 1})}),)
    )
    one: dict[str, Any] = {"output_tokens": 1, "asked_tokens": 1}
    blocks = [
        replace(each_sample(lambda s: replace(s, **one, last=s.first or 0))(seen), readings=())
        for seen in measured(asked, slower=1.3)
    ]
    result = result_of(asked, blocks)
    assert [d.metric for d in result.differences] == ["ttft", "e2e", "output_tokens_per_second"]
    assert "ITL of chat at concurrency 2 was not compared: a block has none." in result.notes


def test_blocks_that_were_not_ordered_are_an_error() -> None:
    asked = order()
    with pytest.raises(ValueError, match="not ordered"):
        result_of(asked, [*measured(asked), block(3, workload="another")])
    with pytest.raises(ValueError, match="two blocks"):
        result_of(asked, [*measured(asked), block(0)])


def test_nothing_measured_is_a_refusal_of_each_row() -> None:
    result = result_of(order(), [])
    assert [row.refusal.code for row in result.rows if row.refusal is not None] == ["BlocksMissing"]
