"""A list of arguments as an engine in Python reads it: flags with their values, and a user's own among ours."""

import json
from collections.abc import Sequence
from itertools import zip_longest

__all__ = ["compact_json", "pairs_in", "without"]


def pairs_in(args: Sequence[str]) -> list[tuple[str, str]]:
    """Flags with their values, whether in one item or in two."""
    pairs = []
    for item, following in zip_longest(args, args[1:], fillvalue=""):
        name, joined, value = item.partition("=")
        pairs.append((name.replace("_", "-"), value if joined else following))
    return pairs


def without(pairs: Sequence[str], given: Sequence[str]) -> list[str]:
    """Flags with one value each, without those that the user writes: twice, the last one wins, and some engines warn."""
    kept = list[str]()
    for flag, value in zip(pairs[::2], pairs[1::2], strict=True):
        kept += [flag, value] if flag not in given else []
    return kept


def compact_json(value: object) -> str:
    """JSON without spaces, the same for the same value."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True)
