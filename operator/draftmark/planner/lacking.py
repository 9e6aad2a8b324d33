"""What an engine lacks is refused here, in one place: what is asked, who has it, what to change.

The facts are those of the tables (`engines/capability_table.py`). What needs a computation, or a reason that only one
engine has, is refused by that engine's file.
"""

from collections.abc import Sequence

from draftmark.api.inference_service import InferenceServiceSpec
from draftmark.engines.capability_table import ANY, AskedFor, Capabilities, Lack, asked_in, lacks, who_has
from draftmark.engines.registry import ENGINES
from draftmark.facts.models import ModelFacts
from draftmark.plan import Unplannable

__all__ = ["refuse_lacking"]


def refuse_lacking(
    engine: str, version: str | None, spec: InferenceServiceSpec, model: ModelFacts | None
) -> Unplannable | None:
    """The first thing asked for that this version of an engine is known not to have, or None.

    Args:
        version: None: nobody knows which it is.
        model: What is known of the model; None: nothing.
    """
    for asked in asked_in(spec, model):
        if (lack := lacks(engine, version, asked)) is not None:
            code = "UnsupportedModelFormat" if asked.what == "checkpoint" else "UnsupportedOption"
            return Unplannable(code=code, message=message_of(lack))
    return None


def message_of(lack: Lack) -> str:
    """What is asked, who has it, what to change. The first sentence stands for itself."""
    why = f": {lack.row.why}" if lack.row.why is not None else ""
    able, others = _holders(lack)
    return f"{_what(lack)}{why}. {_who(lack, able, others)} {_change(lack, able)}"


def _what(lack: Lack) -> str:
    asked, row = lack.asked, lack.row
    if asked.what == "checkpoint":
        return f"The weights of model.uri are {asked.value}, which {lack.name} does not read"
    told = f"{asked.what} is {_shown(asked)}"
    if row.lacks is not None or not row.has:
        return f"{told}, which {lack.name} does not take"
    if len(row.has) == 1:
        return f"{told}, and {lack.name} takes {row.has[0]} only"
    return f"{told}, which is none of those that {lack.name} has"


def _shown(asked: AskedFor) -> str:
    if asked.value == ANY:
        return "set"
    is_plain = asked.value in ("true", "false") or asked.value.isdecimal()
    return asked.value if is_plain else f"'{asked.value}'"


def _holders(lack: Lack) -> tuple[list[Capabilities], list[Capabilities]]:
    """Those that can be deployed, and the others; of each engine the version that a service would get."""
    tables = who_has(lack.asked)
    found = {
        name: next((t for t in tables if t.engine == name and t.version == engine.default_version), None)
        or next((t for t in tables if t.engine == name), None)
        for name, engine in sorted(ENGINES.items())
    }
    others = {t.engine: t for t in reversed(tables) if t.engine not in ENGINES}
    return [t for t in found.values() if t is not None], [others[name] for name in sorted(others)]


def _who(lack: Lack, able: Sequence[Capabilities], others: Sequence[Capabilities]) -> str:
    known = [table.name for table in able]
    further = [table.name for table in others]
    one, many, it = ("reads", "read", "them") if lack.asked.what == "checkpoint" else ("has", "have", "it")

    def have(names: Sequence[str]) -> str:
        return f"{_listed(names)} {one if len(names) == 1 else many} {it}"

    cannot = f"this release cannot deploy {'it' if len(further) == 1 else 'them'}"
    if not known and not further:
        return f"No engine that is known here {one} {it}."
    if not known:
        return f"{have(further)}, and {cannot}."
    if not further:
        return f"{have(known)}."
    return f"{have(known)}; {have(further)} too, and {cannot}."


def _listed(names: Sequence[str]) -> str:
    *before, last = names
    return f"{', '.join(before)} and {last}" if before else last


def _change(lack: Lack, able: Sequence[Capabilities]) -> str:
    asked, row = lack.asked, lack.row
    if row.instead is not None:
        return row.instead.replace("{value}", asked.value)
    others = ", ".join(table.engine for table in able if table.engine != lack.engine)
    versions = [table.version for table in able if table.engine == lack.engine]
    ways = [f"set engine.version: {version}" for version in versions]
    it = "reads them" if asked.what == "checkpoint" else "has it"
    ways += [f"set engine.name to one that {it} ({others})"] if others else []
    if asked.what == "checkpoint":
        first = "take weights of another format"
    elif row.has:
        first = f"use one of {', '.join(row.has)}" if len(row.has) > 1 else f"write {row.has[0]}"
    else:
        first = f"remove {asked.what}"
    text = ", or ".join([first, *ways])
    return f"{text[0].upper()}{text[1:]}."
