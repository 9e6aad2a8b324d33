"""Prompts of exact lengths that no prefix cache can answer, but for what they are meant to have in common.

A prompt is words of the model's vocabulary, each a token of its own behind a space, in an order that no other prompt has:
the first tokens differ already. What they mean is nothing; how long an engine takes for a prompt of a length does not
depend on it, and where it does (a draft model, a cache), the answer is the same for every target.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import cycle, islice
from pathlib import Path
from random import Random
from typing import Final

from draftmark.benchmark_runner.problem import RunRefused
from draftmark.benchmark_runner.tokenizer import Tokenizer
from draftmark.measure.order import Lengths, OrderedWorkload

#: Words that prompts are made of, and tokens that are looked at for them. A guess: 1,000 words give more prompts of 16
#: tokens than anybody sends, and a vocabulary of 128,000 has many more.
WORDS: Final = 1000
MOST_LOOKED_AT: Final = 50_000
#: Tries for one length. Each adds or drops a word, or changes the text's first one.
TRIES: Final = 64
#: Bounds of a data set: of ours.
MAX_DATASET_BYTES: Final = 256 * 2**20
MAX_PROMPTS: Final = 1_000_000

_WORD: Final = re.compile(r" ?[a-zA-Z]{1,16}")
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What is sent, and how long the answer is to be."""

    text: str
    tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """Words of one tokenizer that are one token each behind a space."""

    tokenizer: Tokenizer
    words: Sequence[str]

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "Vocabulary":
        """Look for them. The same for the same tokenizer.

        Raises:
            RunRefused: There are none.
        """
        random = Random(tokenizer.size)
        found: dict[str, None] = {}
        numbers = range(tokenizer.size)
        for number in random.sample(numbers, min(len(numbers), MOST_LOOKED_AT)):
            piece = tokenizer.text([number])
            word = piece.strip()
            if _WORD.fullmatch(piece) and word not in found and _is_one_token(tokenizer, word):
                found[word] = None
                if len(found) == WORDS:
                    break
        if len(found) < 2:
            raise RunRefused(
                "TokenizerUnavailable",
                f"{tokenizer.source} has {len(found)} words of Latin letters that are one token each; 2 are needed to "
                "make prompts of exact lengths. Send a dataset of your own.",
            )
        return cls(tokenizer=tokenizer, words=tuple(found))

    def text(self, tokens: int, random: Random, *, after: str = "") -> str:
        """A text of exactly that many tokens, with what the engine adds, that begins with `after`.

        Raises:
            RunRefused: None was found.
        """
        count = self.tokenizer.count
        words = [random.choice(self.words)] if not after else []
        for _ in range(TRIES):
            missing = tokens - count(" ".join([after, *words] if after else words))
            if missing == 0:
                return " ".join([after, *words] if after else words)
            if missing > 0:
                words.extend(random.choices(self.words, k=missing))
            elif len(words) + missing >= 1:
                del words[missing:]
            else:
                # One word is too much already: a letter may be less.
                words = [random.choice(_LETTERS)]
        raise RunRefused(
            "TokenizerUnavailable",
            f"No text of exactly {tokens} tokens was found in {TRIES} tries with {self.tokenizer.source}; it adds "
            f"{self.tokenizer.added} tokens to each. Ask for more tokens, or send a dataset of your own.",
        )


def _is_one_token(tokenizer: Tokenizer, word: str) -> bool:
    # Twice, and behind another: merges across words would make lengths depend on neighbours.
    return len(tokenizer.numbers(f"a {word} {word}")) == len(tokenizer.numbers("a")) + 2


def seed_of(*parts: object) -> int:
    """The same for the same parts, and for no others."""
    return int.from_bytes(sha256(json.dumps([str(part) for part in parts]).encode()).digest()[:8], "big")


def lengths(of: Lengths, random: Random, *, least: int = 1) -> Iterator[int]:
    """Lengths around a mean, normally distributed, cut at its bounds and at the least one; all equal without a deviation."""
    while True:
        if of.standard_deviation is None:
            yield of.mean
        else:
            yield _cut(of, round(random.gauss(of.mean, of.standard_deviation)), least)


def shortest(of: Lengths, *, least: int) -> int:
    """The shortest length that `lengths` may give."""
    return of.mean if of.standard_deviation is None else _cut(of, least, least)


def _cut(of: Lengths, length: int, least: int) -> int:
    length = max(length, least, of.min if of.min is not None else least)
    return min(length, of.max) if of.max is not None else length


def least_length(tokenizer: Tokenizer) -> int:
    """Of a prompt: one token beside those that the engine adds. A shorter text there is none, and a spread without `min` reaches
    down to it."""
    return tokenizer.added + 1


def prompts(
    workload: OrderedWorkload, vocabulary: Vocabulary, *, job: str, stretch: int, attempt: int = 0
) -> Iterator[Prompt]:
    """Prompts of one stretch of load, without end.

    Args:
        job: Other Jobs have other prompts: what one left in a cache must not answer the next one.
        stretch: And so have other stretches. The beginning that all have in common is that of the Job.
        attempt: And so has a stretch that is repeated.

    Raises:
        RunRefused: A length cannot be made.
    """
    assert workload.prompt is not None, "a data set has its own"
    random = Random(seed_of(job, workload.name, stretch, attempt))
    prompt_lengths = lengths(workload.prompt, random, least=least_length(vocabulary.tokenizer))
    output_lengths = lengths(workload.output, random)
    after = _in_common(workload, vocabulary, job)
    while True:
        tokens = next(prompt_lengths) + workload.shared_prefix_tokens
        yield Prompt(
            text=vocabulary.text(tokens, random, after=after), tokens=tokens, output_tokens=next(output_lengths)
        )


def try_lengths(workload: OrderedWorkload, vocabulary: Vocabulary, *, job: str) -> None:
    """Make a prompt of a length as they are drawn, and one of the shortest that may be: what cannot be made is known before load
    is sent, and not in the middle.

    Raises:
        RunRefused: A length cannot be made.
    """
    assert workload.prompt is not None, "a data set has its own"
    next(prompts(workload, vocabulary, job=job, stretch=-1))
    tokens = shortest(workload.prompt, least=least_length(vocabulary.tokenizer)) + workload.shared_prefix_tokens
    vocabulary.text(
        tokens, Random(seed_of(job, workload.name, "shortest")), after=_in_common(workload, vocabulary, job)
    )


def _in_common(workload: OrderedWorkload, vocabulary: Vocabulary, job: str) -> str:
    if workload.shared_prefix_tokens == 0:
        return ""
    random = Random(seed_of(job, workload.name, "shared"))
    return vocabulary.text(workload.shared_prefix_tokens + vocabulary.tokenizer.added, random)


class Watched(Iterator[Prompt]):
    """Prompts, and what ended them: they are taken in a thread of guidellm, which tells that there was an error and not which."""

    def __init__(self, prompts: Iterator[Prompt]) -> None:
        self.failure: Exception | None = None
        self._prompts = prompts

    def __next__(self) -> Prompt:
        try:
            return next(self._prompts)
        except StopIteration:
            raise
        except Exception as error:
            self.failure = error
            raise


def read_dataset(workload: OrderedWorkload, tokenizer: Tokenizer) -> Sequence[Prompt]:
    """Prompts of a workload's file of JSON lines, in its order.

    Raises:
        RunRefused: It cannot be read, or a line is none.
    """
    assert workload.dataset is not None, "the others have lengths"
    path = Path(workload.dataset)
    found = list[Prompt]()
    try:
        if path.stat().st_size > MAX_DATASET_BYTES:
            raise _unreadable(workload, f"has more than {MAX_DATASET_BYTES} bytes")
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(islice(lines, MAX_PROMPTS + 1), 1):
                if number > MAX_PROMPTS:
                    raise _unreadable(workload, f"has more than {MAX_PROMPTS} lines")
                if line.strip():
                    found.append(_line(workload, tokenizer, number, line))
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(workload, f"cannot be read: {error}") from None
    if not found:
        raise _unreadable(workload, "has no line with a prompt")
    return found


def from_dataset(all_prompts: Sequence[Prompt], start: int) -> Iterator[Prompt]:
    """Prompts from some place on, and then again from the first: a repetition is as late as can be."""
    return islice(cycle(all_prompts), start % len(all_prompts), None)


def _line(workload: OrderedWorkload, tokenizer: Tokenizer, number: int, line: str) -> Prompt:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    text = value.get("prompt") if isinstance(value, dict) else None
    if not isinstance(text, str) or not text:
        raise _unreadable(workload, f'has no JSON object with a text "prompt" in line {number}')
    output = value.get("output_tokens", workload.output.mean)
    if not isinstance(output, int) or isinstance(output, bool) or not 1 <= output <= 1_048_576:
        raise _unreadable(
            workload, f'has "output_tokens" {output!r:.40} in line {number}, which must be from 1 to 1048576'
        )
    return Prompt(text=text, tokens=tokenizer.count(text), output_tokens=output)


def _unreadable(workload: OrderedWorkload, why: str) -> RunRefused:
    return RunRefused(
        "DatasetUnreadable",
        f'The dataset of workload {workload.name} {why}. It needs one JSON object per line with its text in "prompt", in UTF-8, '
        f"at most {MAX_PROMPTS} lines and {MAX_DATASET_BYTES} bytes: correct the file, and make another Benchmark.",
    )
