"""A tree of short lines, as data: what is said, and in which tone. How a terminal shows a tone is `screen`'s matter."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

__all__ = ["Branch", "Tone", "Word", "plain_lines", "plain_text"]

Tone = Literal["plain", "strong", "faint", "good", "busy", "bad"]


@dataclass(frozen=True, slots=True)
class Word:
    """A piece of a line."""

    text: str
    tone: Tone = "plain"


@dataclass(frozen=True, slots=True)
class Branch:
    """One line, and what hangs below it."""

    words: tuple[Word, ...]
    branches: tuple["Branch", ...] = ()

    @property
    def line(self) -> str:
        return "  ".join(word.text for word in self.words)


def plain_lines(branch: Branch) -> Iterator[str]:
    """The tree line by line, without colours."""
    yield branch.line
    for i, child in enumerate(branch.branches):
        is_last = i == len(branch.branches) - 1
        first, *rest = plain_lines(child)
        yield f"{'└─' if is_last else '├─'} {first}"
        for line in rest:
            yield f"{'  ' if is_last else '│ '} {line}"


def plain_text(branch: Branch) -> str:
    """The tree as text, without colours."""
    return "".join(f"{line.rstrip()}\n" for line in plain_lines(branch))
