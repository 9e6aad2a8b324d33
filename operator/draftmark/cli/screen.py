"""Trees and tables on a terminal. Only what writes to one imports this: elsewhere the same is plain text.

`rich` decides about colours (NO_COLOR, TERM=dumb) and draws anew in place.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from draftmark.cli.tree import Branch, Tone

__all__ = ["Screen"]

_STYLES: Final[Mapping[Tone, str]] = {
    "plain": "",
    "strong": "bold",
    "faint": "dim",
    "good": "green",
    "busy": "yellow",
    "bad": "red",
}
#: Told apart on light and dark grounds.
_PREFIX_STYLES: Final = ("cyan", "magenta", "blue", "green", "yellow", "bright_cyan", "bright_magenta", "bright_blue")


class Screen:
    """One terminal."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False, markup=False, emoji=False)
        self._live: Live | None = None

    def show_tree(self, branch: Branch) -> None:
        self._show(drawn_tree(branch))

    def show_table(self, heads: Sequence[str], rows: Iterable[Sequence[str]], notes: Iterable[str]) -> None:
        """A table, and remarks below it."""
        self._show(drawn_table(heads, rows), *(Text(note, style="yellow") for note in notes))

    def _show(self, *parts: RenderableType) -> None:
        if self._live is not None:
            self._live.update(Group(*parts), refresh=True)
        else:
            self._console.print(*parts, sep="\n")

    @contextmanager
    def live(self) -> Iterator[None]:
        """While this is open, each view is drawn over the one before; the last one stays."""
        with Live(console=self._console, auto_refresh=False, vertical_overflow="ellipsis") as live:
            self._live = live
            try:
                yield
            finally:
                self._live = None

    def prefix(self, text: str) -> str:
        """Text in a colour of its own, always the same for the same text, ready to be written before a line."""
        style = _PREFIX_STYLES[sum(text.encode()) % len(_PREFIX_STYLES)]
        with self._console.capture() as capture:
            self._console.print(Text(text, style=style), end="", soft_wrap=True)
        return capture.get()


def drawn_tree(branch: Branch) -> Tree:
    """A tree with colours. Texts are never read as markup: messages contain brackets."""
    tree = Tree(_line(branch), guide_style="dim")
    _hang(tree, branch)
    return tree


def _hang(tree: Tree, branch: Branch) -> None:
    for child in branch.branches:
        _hang(tree.add(_line(child)), child)


def _line(branch: Branch) -> Text:
    return Text("  ").join(Text(word.text, style=_STYLES[word.tone]) for word in branch.words)


def drawn_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table with colours: what is not known stands out."""
    table = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for head in heads:
        table.add_column(Text(head), no_wrap=True)
    for row in rows:
        table.add_row(*(Text(cell, style="red" if "?" in cell else "dim" if cell == "-" else "") for cell in row))
    return table
