"""What engines can, as data: one table per engine and version in `capabilities/`, each row with its source.

A row says which values of one field an engine takes, or what it can that no field says: the formats of weights that it
reads, several nodes. There are tables of engines that no file here deploys, too: they answer who else has something.

A table is one of three answers: has, lacks, or not known. What no source tells is left out, and then nothing is refused
for it. A version without a table is believed, as with the flag tables; only what this release writes for no version of
the engine (`everyVersion`) is refused for it as well, because it would be dropped without a word.

Which engine is deployed, and what a refusal says, is not decided here.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Annotated, Any, Final, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from draftmark.api.inference_service import InferenceServiceSpec
from draftmark.facts.models import ModelFacts

__all__ = [
    "FIELDS",
    "AskedFor",
    "Capabilities",
    "Lack",
    "Row",
    "asked_in",
    "capabilities",
    "every_table",
    "lacks",
    "who_has",
]

#: Fields of an InferenceService, in the order in which they are looked at. `parallelism.data` is what engines have; copies
#: are replicas here, whatever the engine, so that no service can ask for more than one.
FieldName = Literal[
    "model.revision",
    "model.quantization",
    "model.adapters",
    "parallelism.tensor",
    "parallelism.pipeline",
    "parallelism.data",
    "parallelism.expert",
    "workload.kind",
    "engine.options.structuredOutput",
    "engine.options.prefixCaching",
    "engine.options.chunkedPrefill",
    "engine.options.speculative.method",
    "engine.options.kvCacheDType",
    "engine.options.kvOffload",
    "engine.options.apiServerCount",
]
#: What no field says. `checkpoint`: formats of the weights as they lie there. `uri`: schemes of model.uri. `hardware`: by
#: vendor. `nodes`: of one replica. `models`: of one server. `kinds`: what a model does with a request.
FactName = Literal["checkpoint", "uri", "hardware", "nodes", "models", "kinds"]

FIELDS: Final[tuple[FieldName, ...]] = get_args(FieldName)

#: Any value that the field may have.
ANY: Final = "*"


class _Data(BaseModel):
    model_config = ConfigDict(
        strict=True, frozen=True, extra="forbid", alias_generator=to_camel, use_attribute_docstrings=True
    )


Text = Annotated[str, Field(min_length=1, max_length=300)]
Value = Annotated[str, Field(min_length=1, max_length=64)]


class Row(_Data):
    """What an engine can of one thing."""

    has: tuple[Value, ...]
    """Values that it takes; `*` is any, and none is that it has nothing for it."""
    lacks: tuple[Value, ...] | None = None
    """Values that it is known not to take, where others are not known. Absent: all that it does not have."""
    every_version: bool = False
    """Holds for versions without a table, too: it is this release that writes nothing else."""
    flags: tuple[Value, ...] = ()
    """Flags of the engine that it rests on; each stands in the flag table of the same version."""
    choices_of: Value | None = None
    """The flag whose choices these are."""
    why: Text | None = None
    """Why it is not had, as the end of a sentence."""
    instead: Text | None = None
    """What to change, as sentences; `{value}` is what was asked for. Absent: said in general."""
    source: Text
    """Where the fact was read."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len({*self.has}) < len(self.has) or (ANY in self.has and len(self.has) > 1):
            raise ValueError("has: a value stands there twice, or beside *")
        if self.lacks is not None and ({*self.lacks} & {*self.has} or ANY in self.has):
            raise ValueError("lacks: a value is had")
        return self

    def answer(self, value: str) -> bool | None:
        """Whether it has a value; None: not known."""
        if value in self.has or ANY in self.has:
            return True
        return False if self.lacks is None or value in self.lacks else None


class Capabilities(_Data):
    """The table of one version of one engine."""

    engine: Value
    version: Value
    program: Text
    """What it speaks of, where an engine is several programs."""
    source: Text
    """What was read; a row names the place in it."""
    date: Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$")]
    rows: Mapping[FieldName | FactName, Row]

    @property
    def name(self) -> str:
        return f"{self.engine} {self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedFor:
    """One thing that a service asks of its engine."""

    what: FieldName | FactName
    #: As the tables write it: true and false for a switch, `*` for what is there or not.
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lack:
    """What is asked for and not had."""

    asked: AskedFor
    row: Row
    engine: str
    #: None: it holds for all of them.
    version: str | None

    @property
    def name(self) -> str:
        return f"{self.engine} {self.version}" if self.version is not None else self.engine


def capabilities(engine: str, version: str) -> Capabilities | None:
    """The table of exactly this version, or None when there is none."""
    return next((table for table in every_table() if (table.engine, table.version) == (engine, version)), None)


@lru_cache(maxsize=1)
def every_table() -> tuple[Capabilities, ...]:
    """All tables, by engine, the newest version of each first."""
    folder = files("draftmark.engines").joinpath("capabilities")
    found = [
        Capabilities.model_validate_json(file.read_text(encoding="utf-8"))
        for file in folder.iterdir()
        if file.name.endswith(".json")
    ]
    newest_first = sorted(found, key=lambda table: _version_key(table.version), reverse=True)
    return tuple(sorted(newest_first, key=lambda table: table.engine))


def _version_key(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"[0-9]+", version)]


def asked_in(spec: InferenceServiceSpec, model: ModelFacts | None) -> tuple[AskedFor, ...]:
    """What a service asks for that tables speak of, in the order of `FIELDS`.

    Args:
        model: What is known of the model; None: nothing.
    """
    written = spec.written()
    asked = [AskedFor(what=what, value=value) for what in FIELDS if (value := _value_at(written, what)) is not None]
    weights = model.quantization_config if model is not None else None
    # Which form of a URI is a GGUF file's, and what to write instead, the engines' own files know.
    if weights is not None and weights.quant_method != "gguf":
        asked.append(AskedFor(what="checkpoint", value=weights.quant_method))
    return tuple(asked)


def _value_at(data: Any, path: str) -> str | None:
    """The value of a field as the tables write it; None: it is not there, or empty and says nothing."""
    for key in path.split("."):
        data = data.get(key) if isinstance(data, dict) else None
    match data:
        case None | []:
            return None
        case bool():
            return "true" if data else "false"
        case str() | int():
            return str(data)
        case _:
            return ANY


def lacks(engine: str, version: str | None, asked: AskedFor) -> Lack | None:
    """What the engine is known not to have, or None: it has it, or nobody knows.

    Args:
        version: None: nobody knows which it is.
    """
    exact = capabilities(engine, version) if version is not None else None
    table = exact or next((table for table in every_table() if table.engine == engine), None)
    row = table.rows.get(asked.what) if table is not None else None
    if row is None or row.answer(asked.value) is not False:
        return None
    if exact is None and not row.every_version:
        return None
    return Lack(asked=asked, row=row, engine=engine, version=None if row.every_version else version)


def who_has(asked: AskedFor) -> tuple[Capabilities, ...]:
    """Tables that have it, by engine, the newest version of each first."""
    return tuple(
        table
        for table in every_table()
        if (row := table.rows.get(asked.what)) is not None and row.answer(asked.value) is True
    )
