"""Write the flag table of an engine whose command line Python's argparse reads, from its parser.

    PYTHON_OF_THE_ENGINE e2e/argparse_table.py --make MODULE:FUNCTION --parser MODULE:CLASS --engine vllm --version 0.33.0 \\
        --program "vllm serve" --source "PyPI package vllm 0.33.0" --out operator/draftmark/engines/flags/vllm-0.33.0.json

FUNCTION adds the engine's arguments to a CLASS and returns it. What a value may be is asked of the parser's own functions,
so the table never refuses what the program takes. The standard library only: it runs where the engine is installed, and
nothing else of this repository has to be.
"""

import argparse
import importlib
import json
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

#: A value by which a type is told from those after it, in this order: each takes what the ones before it do not.
PROBES: Final = (("x", "string"), ("{}", "json"), ("1k", "size"), ("0.5", "float"), ("1", "int"))
#: What an optional value may also be. Source: `optional_type` in vllm/engine/arg_utils.py.
NOTHING: Final = ("None", "")
#: Words that stand beside numbers.
WORDS: Final = ("auto",)


def rows(parser: argparse.ArgumentParser) -> dict[str, dict[str, Any]]:
    """The rows of the table, in the order of the names."""
    found = (describe(action) for action in parser._actions if action.option_strings)
    return dict(sorted(found))


def describe(action: argparse.Action) -> tuple[str, dict[str, Any]]:
    """The row of one flag: its canonical name, the first long one, and what is known of it."""
    positive, negative = _split_negations(action)
    canonical = next((name for name in positive if name.startswith("--")), positive[0])
    row: dict[str, Any] = {"aliases": [name for name in positive if name != canonical], "negations": negative}
    if action.nargs == 0:
        row |= {"type": "switch", "exits": isinstance(action, argparse._HelpAction | argparse._VersionAction)}
    else:
        row |= {"values": 0 if action.nargs in ("?", "*") else 1, "more": action.nargs in ("+", "*"), **_values(action)}
    if isinstance(action.default, bool):
        row["default"] = "on" if action.default else "off"
    elif isinstance(action.default, int | float | str) and action.default != argparse.SUPPRESS:
        row["default"] = str(action.default)
    return canonical, {key: value for key, value in row.items() if value not in ("", 0, False, None, [])}


def _split_negations(action: argparse.Action) -> tuple[list[str], list[str]]:
    names = list(action.option_strings)
    if not isinstance(action, argparse.BooleanOptionalAction):
        return names, []
    # argparse puts the one that switches off behind the one that switches on.
    negative = [name for name in names if name.startswith("--no-") and f"--{name[5:]}" in names]
    return [name for name in names if name not in negative], negative


def _values(action: argparse.Action) -> dict[str, Any]:
    read = action.type if callable(action.type) else str
    if action.choices is not None:
        choices = [str(choice) for choice in action.choices]
        return {"type": "choice", "choices": choices, "undocumented": [n for n in NOTHING if _takes(read, n, choices)]}
    kind = next((kind for probe, kind in PROBES if _takes(read, probe)), "string")
    if kind == "string":
        # Where plugins may add values, vLLM names its own in the place of the value's name.
        named = re.search(r"\{([^{}]+)\}", str(action.metavar or ""))
        return {"type": kind, "known": named[1].split(",") if named else []}
    return {
        "type": kind,
        "choices": [word for word in WORDS if _takes(read, word)],
        "undocumented": [text for text in NOTHING if _takes(read, text)],
    }


def _takes(read: Callable[[str], object], text: str, choices: list[str] | None = None) -> bool:
    try:
        value = read(text)
    except (ValueError, TypeError, argparse.ArgumentTypeError):
        return False
    return choices is None or value is None or str(value) in choices


def _named(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("make", "parser", "engine", "version", "program", "source"):
        options.add_argument(f"--{name}", required=True)
    options.add_argument("--out", required=True, type=Path)
    given = options.parse_args()
    parser = _named(given.make)(_named(given.parser)())
    table = {
        "engine": given.engine,
        "program": given.program,
        "version": given.version,
        "parser": "argparse",
        "source": f"the parser of {given.source}",
        "date": datetime.now(UTC).date().isoformat(),
        "flags": rows(parser),
    }
    # Flags that are gone are nothing that a parser knows; they stay as they were written by hand.
    before = json.loads(given.out.read_text())["flags"] if given.out.is_file() else {}
    gone = {name: row for name, row in before.items() if "removed" in row and name not in table["flags"]}
    table["flags"] = dict(sorted({**table["flags"], **gone}.items()))
    given.out.write_text(json.dumps(table, indent=1, ensure_ascii=False) + "\n")
    print(f"{given.out}: {len(table['flags'])} flags of {given.program} {given.version}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
