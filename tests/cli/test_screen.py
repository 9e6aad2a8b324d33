"""What a terminal gets: colours, guides, and one view drawn over the other."""

from collections.abc import Mapping
from io import StringIO

import pytest
from rich.console import Console

from draftmark.cli.overview import overview
from draftmark.cli.screen import Screen
from draftmark.cli.status_tree import status_tree
from draftmark.cli.tree import Branch, Word
from tests.cli import world
from tests.specs import T0

GREEN, YELLOW = "\x1b[32m", "\x1b[33m"


def console(width: int = 200, environment: Mapping[str, str] | None = None) -> Console:
    settings = {"TERM": "xterm-256color", **(environment or {})}
    return Console(
        file=StringIO(), force_terminal=True, width=width, _environ=settings, color_system="auto", highlight=False
    )


def drawn(on: Console) -> str:
    assert isinstance(on.file, StringIO)
    return on.file.getvalue()


def test_a_tree_has_colours_and_guides() -> None:
    on = console()
    Screen(on).show_tree(status_tree(overview(world.changing(), T0), T0))
    text = drawn(on)
    assert f"{GREEN}2/2 ready" in text
    assert f"{YELLOW}Loading" in text
    assert "├── " in text


def test_no_color_is_respected() -> None:
    on = console(environment={"NO_COLOR": "1"})
    Screen(on).show_tree(status_tree(overview(world.changing(), T0), T0))
    assert GREEN not in drawn(on)
    assert "2/2 ready" in drawn(on)
    assert "\x1b[3" not in Screen(console(environment={"NO_COLOR": "1"})).prefix("engine/a")


def test_long_lines_wrap_below_their_guides() -> None:
    on = console(width=40)
    Screen(on).show_tree(Branch((Word("a"),), (Branch((Word("word " * 20),)), Branch((Word("last"),)))))
    lines = drawn(on).splitlines()
    assert all(len(line.replace("\x1b[2m", "").replace("\x1b[0m", "")) <= 40 for line in lines)
    assert sum("word" in line for line in lines) > 1


def test_brackets_in_messages_are_text() -> None:
    on = console()
    Screen(on).show_tree(Branch((Word("[red]not markup[/red] :smile:"),)))
    assert "[red]not markup[/red] :smile:" in drawn(on)


def test_a_table_marks_what_is_not_known() -> None:
    on = console()
    Screen(on).show_table(["NAME", "WAITING"], [["a", "3+?"], ["b", "-"]], ["models/a does not answer: [why]"])
    assert "\x1b[31m3+?" in drawn(on)
    assert "models/a does not answer: [why]" in drawn(on)


def test_a_live_view_is_drawn_over_the_one_before_and_stays_at_the_end() -> None:
    on = console()
    screen = Screen(on)
    with screen.live():
        screen.show_tree(Branch((Word("first"),)))
        screen.show_tree(Branch((Word("second"),)))
    text = drawn(on)
    assert text.index("first") < text.index("\x1b[2K") < text.index("second")


@pytest.mark.parametrize("text", ["engine/llama-engine-1", "gateway/llama-gateway-2"])
def test_a_prefix_keeps_its_colour(text: str) -> None:
    found = Screen(console()).prefix(text)
    assert found == Screen(console()).prefix(text)
    assert text in found
    assert found.startswith("\x1b[")
    assert found.endswith("\x1b[0m")
