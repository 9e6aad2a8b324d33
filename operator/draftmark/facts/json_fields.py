"""Fields of a JSON object from strangers, each checked for type and bounds as it is read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from draftmark.facts.models import MAX_NAME

__all__ = ["Fields", "UnreadableField", "shown", "whole"]

#: Where a config of several towers keeps that of the language model.
_NESTED: Final = ("text_config", "llm_config", "language_config")


class UnreadableField(Exception):
    """Ends the reading of one config, with a sentence for its author; the readers catch it."""


@dataclass(frozen=True, slots=True)
class Fields:
    """Fields of the language model, then those of the whole, each checked as it is read."""

    inner: Mapping[str, object]
    outer: Mapping[str, object]

    @classmethod
    def of(cls, config: Mapping[str, object]) -> "Fields":
        for name in _NESTED:
            nested = config.get(name)
            if isinstance(nested, Mapping):
                return cls(nested, config)
        return cls(config, config)

    def get(self, *names: str) -> object:
        """The first of these fields that is there and not null."""
        for fields in (self.inner, self.outer):
            for name in names:
                value = fields.get(name)
                if value is not None:
                    return value
        return None

    def own(self, *names: str) -> object:
        """As `get`, of the language model alone: a count of the whole is not one of its part."""
        for name in names:
            value = self.inner.get(name)
            if value is not None:
                return value
        return None

    def whole(self, *names: str, least: int, most: int, default: int | None = None) -> int:
        for name in names:
            value = self.inner.get(name)
            if value is not None:
                return whole(name, value, least=least, most=most)
        if default is None:
            raise UnreadableField(f"config.json has no {' or '.join(names)}; it needs one, from {least} to {most}.")
        return default

    def flag(self, name: str, *, default: bool) -> bool:
        value = self.own(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise UnreadableField(f"{name} is {shown(value)}; it must be true or false.")
        return value

    def text(self, *names: str, default: str) -> str:
        value = self.get(*names)
        if value is None:
            return default
        if (
            not isinstance(value, str)
            or not 0 < len(value) <= MAX_NAME
            or not (value.isascii() and value.isprintable())
        ):
            raise UnreadableField(f"{names[0]} is {shown(value)}; it must be a name of at most {MAX_NAME} characters.")
        return value

    def items(self, name: str, length: int) -> Sequence[object] | None:
        value = self.own(name)
        if value is None:
            return None
        if not isinstance(value, Sequence) or isinstance(value, str | bytes) or len(value) != length:
            raise UnreadableField(f"{name} is {shown(value)}; it must be a list with one item per layer ({length}).")
        return value


def whole(name: str, value: object, *, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise UnreadableField(f"{name} is {shown(value)}; it must be a whole number from {least} to {most}.")
    return value


def shown(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case int():
            return str(value) if value.bit_length() <= 64 else f"a number of {value.bit_length()} bits"
        case float():
            return str(value)
        case str():
            return repr(value) if len(value) <= 40 else repr(value[:40]) + "…"
        case Mapping():
            return "an object"
        case Sequence():
            return f"a list of {len(value)}"
        case _:
            return f"a {type(value).__name__}"
