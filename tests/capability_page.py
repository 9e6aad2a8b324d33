"""docs/engines.md, made from the tables of capabilities: `python -m tests.update_golden` writes it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from draftmark.engines.capability_table import ANY, FIELDS, Capabilities, FactName, FieldName, Row, every_table
from draftmark.engines.registry import ENGINES

PAGE: Final = Path(__file__).parents[1] / "docs" / "engines.md"

#: Longer lists stand below the tables.
_MOST: Final = 7

_HEAD: Final = """\
# What each engine has

What a service asks for and its engine does not have is refused before a pod starts (`Accepted` is False, `UnsupportedOption` or
`UnsupportedModelFormat`); the message says what is asked, who has it, and what to change. With `engine.name: auto` such an engine is among
the rejected ones, with the same words, and the next one is looked at. An engine that this release cannot deploy is never chosen, whatever it
has; it is named where nobody else has something.

This page is made from the tables in `operator/draftmark/engines/capabilities`, one for each engine and version, where every row has its
source, and tests hold them to the flag tables. "?" is not known: then nothing is refused. For a version without a table nothing is refused
but what this release would not write for any version of the engine. What needs more than a table, such as a combination of options, the
engine's own file refuses. `parallelism.data` above 1 is refused for all of them: copies of a model are `replicas`.
"""

_FACTS: Final[dict[FactName, str]] = {
    "checkpoint": "formats of weights",
    "uri": "schemes of `model.uri`",
    "hardware": "hardware",
    "nodes": "nodes of a replica",
    "models": "models of a server",
    "kinds": "kinds of models",
}


def page() -> str:
    tables = every_table()
    built = [t for name in sorted(ENGINES) for t in tables if t.engine == name]
    others = [t for t in tables if t.engine not in ENGINES]
    parts = [
        _HEAD,
        "## Engines that are deployed\n",
        _table(built),
        "## Engines that this release cannot deploy\n",
        "They answer who else has something. Their sources were read, and no such engine was run.\n",
        _table(others),
        "## Long lists\n",
        *_lists(built, others),
        "## Sources\n",
        *(f"- **{t.name}** ({t.program}), {t.date}: {t.source}." for t in [*built, *others]),
    ]
    return "\n".join(parts) + "\n"


def _table(tables: Sequence[Capabilities]) -> str:
    rows: list[tuple[FieldName | FactName, str]] = [(field, f"`{field}`") for field in FIELDS]
    rows += list(_FACTS.items())
    lines = [
        f"| | {' | '.join(t.name for t in tables)} |",
        f"| --- |{' --- |' * len(tables)}",
        *(f"| {title} | {' | '.join(_cell(t.rows.get(what)) for t in tables)} |" for what, title in rows),
    ]
    return "\n".join(lines) + "\n"


def _cell(row: Row | None) -> str:
    if row is None:
        return "?"
    has = ", ".join(row.has) if len(row.has) <= _MOST else f"{len(row.has)} names, below"
    if ANY in row.has:
        has = "any"
    elif not row.has and row.lacks is None:
        has = "no"
    not_had = f"not {', '.join(row.lacks)}" if row.lacks else ""
    return "; ".join(part for part in (has, not_had) if part) or "?"


def _lists(built: Sequence[Capabilities], others: Sequence[Capabilities]) -> list[str]:
    return [
        f"- `{what}` of {table.name}: {', '.join(row.has)}.\n"
        for table in [*built, *others]
        for what, row in table.rows.items()
        if len(row.has) > _MOST
    ]
