"""What an engine's command line takes, as data, and the check of a user's arguments against it.

A wrong flag is found when the object is applied, not as a crash loop an hour later. The tables lie in `flags/`, one
per engine and version, made from the program itself; each names its source. The check never refuses what the program
takes, with three exceptions: a number must be one to its end (`stoi` reads `12x` as 12), a flag that stands where a
value belongs is a forgotten value, and a flag is written in full (argparse takes any beginning that fits one flag only,
so a beginning would pass as a flag that is not the user's to set).

Three ways to read a list of arguments are known. llama-server takes a flag and its value as two items. Python's argparse
takes them also as `--flag=value`, and some flags take several items; vLLM's own argparse reads `--flag.key value` as JSON
as well, and underscores as dashes, which the plain one does not.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import lru_cache
from importlib.resources import files
from math import inf
from typing import Any, Final, Literal, Self, assert_never

__all__ = ["Flag", "FlagProblem", "FlagTable", "check_args", "names_in"]

#: Problems that one check reports; a reader repairs a few at a time, and status is bounded.
MAX_PROBLEMS: Final = 5
#: Characters of an argument that a message repeats.
MAX_SHOWN: Final = 80
#: Choices that a message lists.
MAX_CHOICES: Final = 12

#: integer and number are C's; int, float, size (vLLM's: 1k is 1000, 1K is 1024) and quantity (SGLang's: 1k, 1Ki) Python's.
FlagType = Literal[
    "switch", "string", "choice", "list", "integer", "integer64", "number", "int", "float", "size", "quantity", "json"
]

#: Bits of the largest number: int, and unsigned long. Source: <climits> on 64 bit Linux.
_BITS: Final[Mapping[str, int]] = {"integer": 31, "integer64": 64}
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,20}")
#: Source: `human_readable_int` in vllm/utils/argparse_utils.py.
_SIZE: Final = re.compile(r"[0-9]{1,40}(\.[0-9]{1,40})?[kmgt]|[0-9]{1,40}[KMGT]")
#: Source: `human_readable_int` in sglang/srt/utils/common.py.
_QUANTITY: Final = re.compile(r"[0-9]{1,40}(\.[0-9]{1,40})?[kMGT]|[0-9]{1,40}[KMGT]i")
#: What argparse takes for a value although it begins with a dash. Source: `_negative_number_matcher` in Python's argparse.
_NEGATIVE: Final = re.compile(r"-[0-9]+|-[0-9]*\.[0-9]+")
_NUMBER: Final = re.compile(r"[+-]?([0-9]{1,40}(\.[0-9]{0,40})?|\.[0-9]{1,40})([eE][+-]?[0-9]{1,3})?")
#: Sizes that a 32 bit float holds with full precision. Source: IEEE 754, binary32; `stof` refuses what lies outside.
_FLOAT_MIN: Final = 1.1754943508222875e-38
_FLOAT_MAX: Final = 3.4028234663852886e38


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """One flag of an engine."""

    name: str
    """The canonical name: the first long one."""
    type: FlagType
    aliases: tuple[str, ...] = ()
    negations: tuple[str, ...] = ()
    values: int = 0
    """List items that follow the flag."""
    more: bool = False
    """Further items may follow, until the next flag."""
    choices: tuple[str, ...] = ()
    """The only values (`choice`, `list`), or words that stand beside numbers (`integer`, `number`)."""
    known: tuple[str, ...] = ()
    """The values that the program has by itself, where plugins may add others."""
    undocumented: tuple[str, ...] = ()
    """Values that the program takes without its help saying so."""
    minimum: str = ""
    """The smallest number; empty where there is no known bound."""
    hint: str = ""
    default: str = ""
    environment: str = ""
    removed: str = ""
    """What replaces a flag that is gone; empty for one that works."""
    exits: bool = False
    """The program prints something and ends: no server."""

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *self.aliases, *self.negations)


@dataclass(frozen=True, slots=True, kw_only=True)
class FlagTable:
    """The flags of one version of one engine."""

    engine: str
    program: str
    version: str
    source: str
    date: str
    flags: tuple[Flag, ...]
    is_argparse: bool = False
    is_plain: bool = False
    """Python's argparse as it is, without what vLLM's adds to it."""
    by_name: Mapping[str, Flag] = field(repr=False, compare=False)
    """Every spelling that the program knows: canonical names, aliases and negations."""

    @classmethod
    def load(cls, engine: str, version: str) -> "FlagTable | None":
        """The table of exactly this version, or None when there is none."""
        # Both become a file name, and the version is the user's text.
        if not all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}", part) for part in (engine, version)):
            return None
        return _load(engine, version)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        flags = tuple(_flag(name, row) for name, row in data["flags"].items())
        return cls(
            engine=data["engine"],
            program=data["program"],
            version=data["version"],
            source=data["source"],
            date=data["date"],
            flags=flags,
            is_argparse=data.get("parser") in ("argparse", "plain argparse"),
            is_plain=data.get("parser") == "plain argparse",
            by_name={name: flag for flag in flags for name in flag.names},
        )

    def find(self, name: str) -> Flag | None:
        """The flag of this spelling; llama-server's parser and vLLM's read `_` as `-` in long names."""
        return self.by_name.get(name if self.is_plain else _normal(name))

    @property
    def title(self) -> str:
        return f"{self.program} {self.version}"


def _flag(name: str, row: Mapping[str, Any]) -> Flag:
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
    return Flag(name=name, **fields)


@lru_cache(maxsize=64)
def _load(engine: str, version: str) -> FlagTable | None:
    file = files("draftmark.engines").joinpath("flags", f"{engine}-{version}.json")
    return FlagTable.from_json(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else None


@dataclass(frozen=True, slots=True, kw_only=True)
class FlagProblem:
    """One thing wrong with a list of arguments."""

    index: int
    """Position in the list, from 0."""
    argument: str
    """As written, shortened."""
    message: str


def check_args(table: FlagTable, args: Sequence[str], reserved: Mapping[str, str]) -> tuple[FlagProblem, ...]:
    """Find what the engine would refuse, and what is not the user's to set.

    Args:
        reserved: For a flag that Draftmark writes itself, by any of its names: what sets it.

    Returns:
        At most five problems, in the order of the arguments; none for arguments that the engine takes.
    """
    owners = {flag.name: owner for name, owner in reserved.items() if (flag := table.find(name))}
    problems = list[FlagProblem]()
    position = 0
    while position < len(args) and len(problems) < MAX_PROBLEMS:
        use = _read_argparse(table, args, position) if table.is_argparse else _read(table, args, position)
        if use.flag is None:
            problem: str | None = _unknown(table, args[position], owners)
        else:
            problem = _misused(table, use.flag, use.name, use.values, owners.get(use.flag.name), use.form)
        if problem:
            problems.append(FlagProblem(index=position, argument=_shown(args[position]), message=problem))
        position += 1 + use.following
    return tuple(problems)


def names_in(args: Sequence[str]) -> tuple[str, ...]:
    """The names of the flags in a list that argparse reads, without values and keys; for a version without a table."""
    words = (item.partition("=")[0].partition(".")[0] for item in args if item.startswith("-"))
    return tuple(_normal(word) for word in words)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Use:
    """One flag as it stands in a list."""

    flag: Flag | None
    name: str = ""
    """As written, without a value."""
    values: Sequence[str] = ()
    following: int = 0
    """Items after the flag's own that belong to it."""
    form: Literal["apart", "joined", "key"] = "apart"


def _read(table: FlagTable, args: Sequence[str], position: int) -> _Use:
    flag = table.find(args[position])
    following = _following(table, flag, args, position)
    return _Use(flag=flag, name=args[position], values=following, following=len(following))


def _read_argparse(table: FlagTable, args: Sequence[str], position: int) -> _Use:
    item = args[position]
    head, joined, value = item.partition("=") if item.startswith("-") else (item, "", "")
    name, dot, _ = (head, "", "") if table.is_plain else head.partition(".")
    flag = table.find(name)
    if flag is None and name.startswith("-O") and (level := table.find("-O")):
        flag, joined, value = level, "=", value or name[2:]  # the one short flag whose value stands behind it
    if flag is None or (dot and flag.type not in ("json", "string")):
        return _Use(flag=None, following=len(_following(table, None, args, position)))
    if joined:
        return _Use(flag=flag, name=head, values=(value,), form="key" if dot else "joined")
    if dot:
        # The item after a key is its value, whatever it looks like.
        values = args[position + 1 : position + 2]
        return _Use(flag=flag, name=head, values=values, following=len(values), form="key")
    values = _following(table, flag, args, position)
    return _Use(flag=flag, name=head, values=values, following=len(values))


def _following(table: FlagTable, flag: Flag | None, args: Sequence[str], position: int) -> Sequence[str]:
    """The items that belong to the flag at `position`."""
    if flag is None:
        # What follows an unknown flag is most likely its value: one mistake, one problem.
        after = args[position + 1 : position + 2]
        is_value = args[position].startswith("-") and "=" not in args[position]
        return after if is_value and after and not _looks_like_flag(after[0]) else ()
    taken = list[str]()
    for item in args[position + 1 :] if flag.more else args[position + 1 : position + 1 + flag.values]:
        if table.find(item) or (table.is_argparse and _is_option(table, item)):
            break
        taken.append(item)
    return taken


def _is_option(table: FlagTable, item: str) -> bool:
    """Whether argparse takes an item for a flag; vLLM's splits what begins with a dash at its first dot."""
    is_value = " " in item or (_NEGATIVE.fullmatch(item) is not None and (table.is_plain or "." not in item))
    return len(item) > 1 and item.startswith("-") and not is_value


def _unknown(table: FlagTable, argument: str, owners: Mapping[str, str]) -> str:
    """What to say about an item that is none of the program's flags."""
    shown = _shown(argument)
    if not argument.startswith("-"):
        return (
            f"{shown} is no flag, and {table.title} takes only flags and their values. "
            "Remove it, or put the flag that it belongs to before it as a list item of its own."
        )
    for separator in ("=", " ") if not table.is_argparse else (" ",):
        name, found, _ = argument.partition(separator)
        if found and (flag := table.find(name)):
            return _joined(table, flag, argument, separator, owners.get(flag.name))
    name = _normal(argument[:MAX_SHOWN].partition("=")[0].partition(" ")[0])
    # Without the dashes, which make any two short names look alike; a long name wins over a short one.
    spellings = {spelling.lstrip("-"): spelling for spelling in sorted(table.by_name, reverse=True)}
    nearest = get_close_matches(name.lstrip("-"), spellings, n=1)
    way_out = f"Nearest: {spellings[nearest[0]]}. " if nearest else ""
    return f"{shown} is no flag of {table.title}. {way_out}Correct it, remove it, or set an engine.version that has it."


def _joined(table: FlagTable, flag: Flag, argument: str, separator: str, owner: str | None) -> str:
    """What to say about `--flag=value` or `--flag value` in one item; llama-server refuses both."""
    name, _, value = argument.partition(separator)
    if flag.removed or owner is not None or flag.exits:
        # The value is not repeated: of a reserved flag it may be a key.
        return _misused(table, flag, name, (), owner) or ""
    if flag.type == "switch":
        return (
            f"{_shown(name)} of {table.title} is a switch and takes no value. Write {_shown(name)} alone{_off(flag)}."
        )
    return (
        f"{_shown(argument)} is one list item; {table.title} takes a flag and its value as two. "
        f"Write {_shown(name)} and {_shown(value.strip())} as separate items."
    )


def _misused(
    table: FlagTable,
    flag: Flag,
    argument: str,
    values: Sequence[str],
    owner: str | None,
    form: Literal["apart", "joined", "key"] = "apart",
) -> str | None:
    """What is wrong with a flag that the table knows."""
    shown = _shown(argument) if _normal(argument) == flag.name else f"{_shown(argument)} ({flag.name})"
    if flag.removed:
        return f"{shown} was removed; {table.title} does not start with it. Use {flag.removed}."
    if owner is not None:
        return f"{shown} cannot be given in engine.args: it is set by {owner}. Remove it."
    if flag.exits:
        return f"{shown} makes {table.title} print and exit instead of serving. Remove it."
    if form == "joined" and flag.type == "switch":
        return f"{shown} of {table.title} is a switch and takes no value. Write {shown} alone{_off(flag)}."
    if form == "key" and values:
        return None  # the part of a JSON value is any text
    if len(values) < flag.values:
        need = "a value" if flag.values == 1 else f"{flag.values} values"
        have = f"; it has {len(values)}" if values else "; it has none"
        return (
            f"{shown} needs {need} as the next list {_items(flag.values)}: {_needs(flag)}{have}. Add what is missing."
        )
    for value in values:
        if not _accepts(flag, value):
            return f"{shown} takes {_needs(flag)}; it is {_shown(value)}. Correct the value."
    return None


def _accepts(flag: Flag, value: str) -> bool:
    if value in flag.choices or value in flag.undocumented:
        return True
    match flag.type:
        case "switch" | "string":
            return True
        case "choice":
            return False
        case "list":
            return all(part in flag.choices for part in value.split(","))
        case "integer" | "integer64":
            return _INTEGER.fullmatch(value) is not None and _minimum(flag) <= int(value) < 2 ** _BITS[flag.type]
        case "number":
            return _NUMBER.fullmatch(value) is not None and _is_float(float(value)) and float(value) >= _minimum(flag)
        case "int":
            return _is_read_by(int, value)
        case "size":
            return _is_read_by(int, value) or _SIZE.fullmatch(value.strip()) is not None
        case "quantity":
            return _is_read_by(int, value) or _QUANTITY.fullmatch(value.strip()) is not None
        case "float":
            return _is_read_by(float, value)
        case "json":
            return _is_read_by(json.loads, value)
        case _:
            assert_never(flag.type)


def _is_read_by(read: Callable[[str], object], value: str) -> bool:
    try:
        read(value)
    except (ValueError, RecursionError):
        return False
    return True


def _minimum(flag: Flag) -> float:
    if flag.minimum:
        return int(flag.minimum)
    return -inf if flag.type == "number" else -(2**31) if flag.type == "integer" else -(2**63)


def _is_float(number: float) -> bool:
    return number == 0 or _FLOAT_MIN <= abs(number) <= _FLOAT_MAX


def _needs(flag: Flag) -> str:
    more = ", …" if len(flag.choices) > MAX_CHOICES else ""
    choices = ", ".join(flag.choices[:MAX_CHOICES]) + more
    words = f", or one of {choices}" if choices else ""
    match flag.type:
        case "switch":
            return "nothing"
        case "string":
            return flag.hint or "text"
        case "choice":
            return f"one of {choices}"
        case "list":
            return f"some of {choices}, separated by commas"
        case "integer" | "integer64":
            return f"a whole number from {_minimum(flag)} to {2 ** _BITS[flag.type] - 1}{words}"
        case "number":
            return f"a number{f' of at least {flag.minimum}' if flag.minimum else ''}{words}"
        case "int":
            return f"a whole number{words}"
        case "size":
            return (
                f"a whole number, where wanted with k, m, g or t (thousands) or K, M, G or T (1024s) behind it{words}"
            )
        case "quantity":
            return f"a whole number, where wanted with k, M, G or T (thousands) or Ki, Mi, Gi or Ti (1024s) behind it{words}"
        case "float":
            return f"a number{words}"
        case "json":
            return f"JSON{words}"
        case _:
            assert_never(flag.type)


def _off(flag: Flag) -> str:
    name = next((name for name in flag.negations if name.startswith("--")), None)
    return f" to switch it on, or {name} to switch it off" if name else ", or leave it out"


def _items(count: int) -> str:
    return "item" if count == 1 else "items"


def _looks_like_flag(item: str) -> bool:
    return re.match(r"-+[A-Za-z]", item) is not None


def _normal(name: str) -> str:
    return name.replace("_", "-") if name.startswith("--") else name


def _shown(text: str) -> str:
    """An argument as messages repeat it: short, on one line, and visible where it is empty or blank."""
    short = text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"
    plain = short.isprintable() and short.strip() == short and short
    return short if plain else json.dumps(short)
