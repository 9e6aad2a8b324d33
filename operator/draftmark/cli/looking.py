"""How commands look again and again.

On a terminal a watched view is drawn anew in place. Elsewhere what has changed is printed, so that the output of a
pipeline can be read afterwards.
"""

import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import click

from draftmark.cli.endings import ClusterError
from draftmark.cli.tree import Branch, plain_text

if TYPE_CHECKING:
    from draftmark.cli.screen import Screen

__all__ = ["Remarks", "TreeView", "live", "screen_or_none", "try_again", "wait"]


def wait(seconds: float) -> None:
    """Until the next look. In one place, so that tests need not."""
    time.sleep(seconds)


def screen_or_none() -> "Screen | None":
    """The terminal, or None when the output goes elsewhere."""
    if not sys.stdout.isatty():
        return None
    from draftmark.cli.screen import Screen  # slow to import

    return Screen()


def live(screen: "Screen | None", *, is_watched: bool) -> AbstractContextManager[None]:
    return screen.live() if screen is not None and is_watched else nullcontext()


class Remarks:
    """Messages on stderr, each once in a row."""

    def __init__(self) -> None:
        self._last = ""

    def __call__(self, text: str) -> None:
        if text != self._last:
            self._last = text
            click.echo(f"draftmark: {text}", err=True)


def try_again(look: Callable[[], None], remark: Remarks) -> None:
    """Look once more; what may pass is only told."""
    try:
        look()
    except ClusterError as error:
        if not error.may_pass:
            raise
        remark(f"{error} Trying again.")


class TreeView:
    """A tree: drawn over itself on a terminal, and line by line as it changes elsewhere."""

    def __init__(self, screen: "Screen | None") -> None:
        self._screen = screen
        self._shown: set[str] | None = None
        self._since = time.monotonic()

    def show(self, tree: Branch) -> None:
        if self._screen is not None:
            self._screen.show_tree(tree)
            return
        text = plain_text(tree)
        lines = [line.lstrip("│├└─ ") for line in text.splitlines()]
        if self._shown is None:
            click.echo(text, nl=False)
        else:
            for line in lines:
                if _without_times(line) not in self._shown:
                    click.echo(f"+{time.monotonic() - self._since:.0f} s  {line}")
        self._shown = set(map(_without_times, lines))


def _without_times(line: str) -> str:
    """What makes a line of a tree another one: not what only says how long something has lasted, or will."""
    if line.endswith(" left"):
        return line.rpartition("  ")[0]
    return line.rpartition(", for ")[0] if line.endswith(" so far") else line.partition("  proven ")[0]
