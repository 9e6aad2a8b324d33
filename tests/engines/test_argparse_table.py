"""The table that is made from a parser says what the parser takes."""

import argparse
import json
from typing import Any

import pytest

from draftmark.engines.flag_table import FlagTable, check_args
from e2e.argparse_table import rows


def optional_int(text: str) -> int | None:
    return None if text in ("", "None") else int(text)


def optional_str(text: str) -> str | None:
    return None if text in ("", "None") else text


def quantity(text: str) -> int:
    return int(text.removesuffix("i").removesuffix("K")) * (1024 if text.endswith("Ki") else 1)


def size_or_auto(text: str) -> int:
    return -1 if text == "auto" else int(float(text[:-1]) * 1000) if text.endswith("k") else int(text)


class EnableDisable(argparse.BooleanOptionalAction):
    """Of two names that the parser knows, the help shows one: like vLLM's own since 0.33."""

    def __init__(self, option_strings: list[str], dest: str, **more: Any) -> None:
        super().__init__([*option_strings, "--disable-it"], dest, **more)

    def __call__(self, parser: object, namespace: argparse.Namespace, values: object, name: str | None = None) -> None:
        setattr(namespace, self.dest, name == "--enable-it")


def small_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    parser.add_argument("model_tag", nargs="?")
    parser.add_argument("--on-off", action=argparse.BooleanOptionalAction, default=False)
    parser.add_argument("--enable-it", action=EnableDisable, default=None)
    parser.add_argument("--switch", action="store_true")
    parser.add_argument("--text", "-t", default="a")
    parser.add_argument("--count", "-c", type=int, default=3)
    parser.add_argument("--maybe", type=optional_int)
    parser.add_argument("--length", type=size_or_auto)
    parser.add_argument("--tokens", type=quantity)
    parser.add_argument("--one-of-a-set", choices={"c", "a", "b"})
    parser.add_argument("--share", type=float)
    parser.add_argument("--config", type=json.loads)
    parser.add_argument("--rank", type=int, choices=[8, 16])
    parser.add_argument("--names", nargs="+")
    parser.add_argument("--format", metavar="{auto,pt} or a plugin's")
    parser.add_argument("--names-by-type", metavar=["auto", "pt"])  # type: ignore[arg-type]
    parser.add_argument("--tool-parser", type=optional_str, metavar="{a,b} or name registered in --tool-parser-plugin")
    parser.add_argument("--reasoning-parser", default="", metavar="{a} or name registered in --reasoning-parser-plugin")
    parser.add_argument("--maybe-rank", type=optional_int, choices=[8, None])
    parser.add_argument("--token", nargs="?", const=True)
    for action in parser._actions:
        if isinstance(action, EnableDisable):
            action.option_strings = ["--enable-it"]
    return parser


ROWS = rows(small_parser())


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("--on-off", {"type": "switch", "negations": ["--no-on-off"], "default": "off"}),
        ("--enable-it", {"type": "switch", "negations": ["--no-enable-it", "--disable-it", "--no-disable-it"]}),
        ("--switch", {"type": "switch", "default": "off"}),
        ("--text", {"type": "string", "values": 1, "aliases": ["-t"], "default": "a"}),
        ("--count", {"type": "int", "values": 1, "aliases": ["-c"], "default": "3"}),
        ("--maybe", {"type": "int", "values": 1, "undocumented": ["None", ""]}),
        ("--length", {"type": "size", "values": 1, "choices": ["auto"]}),
        ("--tokens", {"type": "quantity", "values": 1}),
        ("--one-of-a-set", {"type": "choice", "values": 1, "choices": ["a", "b", "c"]}),
        ("--share", {"type": "float", "values": 1}),
        ("--config", {"type": "json", "values": 1}),
        ("--rank", {"type": "choice", "values": 1, "choices": ["8", "16"]}),
        ("--names", {"type": "string", "values": 1, "more": True}),
        ("--format", {"type": "string", "values": 1, "known": ["auto", "pt"]}),
        ("--names-by-type", {"type": "string", "values": 1, "known": ["auto", "pt"]}),
        ("--tool-parser", {"type": "choice", "values": 1, "choices": ["a", "b"], "undocumented": ["None", ""]}),
        ("--reasoning-parser", {"type": "choice", "values": 1, "choices": ["a"], "undocumented": [""]}),
        ("--maybe-rank", {"type": "choice", "values": 1, "choices": ["8"], "undocumented": ["None", ""]}),
        ("--token", {"type": "string", "more": True}),
        ("--help", {"type": "switch", "aliases": ["-h"], "exits": True}),
    ],
)
def test_a_flag_becomes_its_row(name: str, row: object) -> None:
    assert ROWS[name] == row


def test_an_argument_without_a_flag_has_no_row() -> None:
    assert "model_tag" not in ROWS
    assert len(ROWS) == 20


def test_the_check_reads_the_table_that_was_made() -> None:
    data = {"engine": "e", "program": "p", "version": "1", "source": "s", "date": "d", "parser": "argparse"}
    table = FlagTable.from_json({**data, "flags": ROWS})
    taken = ["--no-on-off", "-t=x", "--length", "1.5k", "--config.a", "1", "--names", "a", "b", "--maybe", "None"]
    assert check_args(table, taken, {}) == ()
    refused = check_args(table, ["--rank", "9", "--count", "x"], {})
    assert [problem.index for problem in refused] == [0, 2]
