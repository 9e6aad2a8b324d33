"""Prompts have exact lengths, and none begins like another."""

import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftmark.benchmark_runner.problem import RunRefused
from draftmark.benchmark_runner.prompts import (
    Vocabulary,
    Watched,
    from_dataset,
    lengths,
    prompts,
    read_dataset,
    shortest,
    try_lengths,
)
from draftmark.benchmark_runner.tokenizer import Tokenizer
from draftmark.measure.order import Lengths
from tests.benchmark_runner.orders import a_workload

WORDS = [f"{a}{b}{c}" for a in "bcdfgl" for b in "aeiou" for c in "nrst"]


def a_tokenizer(words: Sequence[str] = WORDS, *, added: int = 1) -> Tokenizer:
    """A word that it has is one token behind a space, and as many as it has letters elsewhere."""
    pieces = [*(f" {word}" for word in words), *map(chr, range(32, 127))]
    number = {piece: index for index, piece in enumerate(pieces)}

    def numbers(text: str) -> list[int]:
        found, at = [], 0
        while at < len(text):
            end = next((at + n for n in (4, 1) if text[at : at + n] in number), at + 1)
            found.append(number.get(text[at:end], 0))
            at = end
        return found

    return Tokenizer(
        numbers=numbers,
        text=lambda tokens: "".join(pieces[token] for token in tokens),
        size=len(pieces),
        added=added,
        source="tokenizer.json of a test",
        is_built=False,
    )


VOCABULARY = Vocabulary.of(a_tokenizer())


def take(
    count: int, *, vocabulary: Vocabulary = VOCABULARY, job: str = "job", stretch: int = 0, **workload: Any
) -> list[str]:
    wanted = a_workload(**workload)
    found = list(islice(prompts(wanted, vocabulary, job=job, stretch=stretch), count))
    for prompt in found:
        assert vocabulary.tokenizer.count(prompt.text) == prompt.tokens
    return [prompt.text for prompt in found]


def test_words_are_one_token_each() -> None:
    assert set(WORDS) <= set(VOCABULARY.words)


@given(st.integers(2, 600), st.integers(0, 1000), st.integers(0, 2))
def test_lengths_are_exact(tokens: int, seed: int, added: int) -> None:
    vocabulary = Vocabulary(tokenizer=a_tokenizer(added=added), words=VOCABULARY.words)
    if tokens > added:
        text = vocabulary.text(tokens, Random(seed))
        assert vocabulary.tokenizer.count(text) == tokens


def test_a_length_that_cannot_be_is_refused() -> None:
    with pytest.raises(RunRefused, match="exactly 1 tokens"):
        VOCABULARY.text(1, Random(0))


def test_prompts_differ_within_a_stretch_between_stretches_and_between_jobs() -> None:
    texts = [*take(50), *take(50, stretch=1), *take(50, job="other")]
    assert len({tuple(text.split()[:4]) for text in texts}) == 150
    assert take(3) == take(3)


def test_a_shared_beginning_is_the_same_in_the_whole_job_and_no_longer() -> None:
    workload: dict[str, Any] = {"shared_prefix_tokens": 30, "prompt": Lengths(mean=20)}
    texts = [*take(20, **workload), *take(20, stretch=1, **workload)]
    common = 0
    while len({text[:common] for text in texts}) == 1:
        common += 1
    tokens = VOCABULARY.tokenizer.count(texts[0][: common - 1])
    assert 30 <= tokens <= 32
    assert all(VOCABULARY.tokenizer.count(text) == 50 for text in texts)
    assert take(1, job="other", **workload)[0][:20] != texts[0][:20]


def test_spread_lengths_keep_their_bounds_and_their_mean() -> None:
    drawn = list(islice(lengths(Lengths(mean=100, standard_deviation=20, min=70, max=150), Random(1)), 2000))
    assert (min(drawn), max(drawn)) == (70, 150)
    assert sum(drawn) / len(drawn) == pytest.approx(100, abs=2)
    assert len(set(drawn)) > 40
    assert set(islice(lengths(Lengths(mean=7), Random(1)), 20)) == {7}
    assert min(islice(lengths(Lengths(mean=2, standard_deviation=5), Random(1)), 200)) == 1


@pytest.mark.parametrize(("bounds", "least"), [({}, 3), ({"min": 1}, 3), ({"min": 5}, 5), ({"max": 2}, 2)], ids=str)
def test_the_shortest_length_is_known(bounds: dict[str, int], least: int) -> None:
    spread = Lengths(mean=8, standard_deviation=5, **bounds)
    assert min(islice(lengths(spread, Random(1), least=3), 500)) == shortest(spread, least=3) == least
    assert shortest(Lengths(mean=1), least=3) == 1


@pytest.mark.parametrize("shared", [0, 30])
@pytest.mark.parametrize("added", [0, 1, 2])
def test_a_spread_without_a_bound_reaches_down_to_what_can_be_made(added: int, shared: int) -> None:
    vocabulary = Vocabulary(tokenizer=a_tokenizer(added=added), words=VOCABULARY.words)
    workload = a_workload(prompt=Lengths(mean=8, standard_deviation=8), shared_prefix_tokens=shared)
    try_lengths(workload, vocabulary, job="job")
    found = list(islice(prompts(workload, vocabulary, job="job", stretch=0), 200))
    assert min(prompt.tokens for prompt in found) == shared + added + 1
    assert all(vocabulary.tokenizer.count(prompt.text) == prompt.tokens for prompt in found)


def test_a_spread_whose_shortest_length_cannot_be_made_is_refused_before_it_is_drawn() -> None:
    tokenizer = a_tokenizer(added=0)
    spaced = Tokenizer(
        # With a token before each text, as where a space begins it.
        numbers=lambda text: [0, *tokenizer.numbers(text)],
        text=tokenizer.text,
        size=tokenizer.size,
        added=0,
        source="tokenizer.json of a test",
        is_built=False,
    )
    vocabulary = Vocabulary(tokenizer=spaced, words=VOCABULARY.words)
    spread = Lengths(mean=40, standard_deviation=10)
    with pytest.raises(RunRefused, match="exactly 1 tokens"):
        try_lengths(a_workload(prompt=spread), vocabulary, job="job")
    try_lengths(a_workload(prompt=spread.model_copy(update={"min": 10})), vocabulary, job="job")


def test_what_ends_prompts_is_kept() -> None:
    watched = Watched(prompts(a_workload(prompt=Lengths(mean=1)), VOCABULARY, job="job", stretch=0))
    with pytest.raises(RunRefused) as refused:
        next(watched)
    assert watched.failure is refused.value
    ended = Watched(iter(()))
    assert list(ended) == []
    assert ended.failure is None


def test_a_tokenizer_without_words_is_refused() -> None:
    with pytest.raises(RunRefused, match="0 words"):
        Vocabulary.of(a_tokenizer([]))


def dataset(tmp_path: Path, *lines: str) -> Any:
    file = tmp_path / "prompts.jsonl"
    file.write_text("\n".join(lines))
    return a_workload(prompt=None, dataset=str(file), output=Lengths(mean=9))


def test_a_dataset_has_its_prompts_and_lengths(tmp_path: Path) -> None:
    workload = dataset(
        tmp_path, json.dumps({"prompt": " ban ran"}), "", json.dumps({"prompt": "x", "output_tokens": 3, "id": 7})
    )
    found = read_dataset(workload, a_tokenizer())
    assert [(p.text, p.tokens, p.output_tokens) for p in found] == [(" ban ran", 6, 9), ("x", 2, 3)]
    assert [p.text for p in islice(from_dataset(found, 3), 3)] == ["x", " ban ran", "x"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "no line with a prompt"),
        (["{"], "line 1"),
        (['{"prompt": "a"}', '{"prompt": 3}'], "line 2"),
        (['{"prompt": "a", "output_tokens": 0}'], '"output_tokens" 0'),
        (['{"prompt": "a", "output_tokens": true}'], '"output_tokens" True'),
        (["[" * 100_000], "line 1"),
    ],
)
def test_a_dataset_that_is_none_is_refused(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(RunRefused, match=message) as refused:
        read_dataset(dataset(tmp_path, *lines), a_tokenizer())
    assert refused.value.refusal.is_failure


def test_a_dataset_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunRefused, match="cannot be read"):
        read_dataset(a_workload(prompt=None, dataset=str(tmp_path / "none")), a_tokenizer())
