"""The facts of a model as JSON, and back.

For a termination message (at most 4 KiB), a cache and `spec.model.architecture`. Keys are config.json's names in
camelCase; a field with its default is left out. Reading is strict: an unknown key, a wrong type or an impossible value
is an error with its name, for a typing error in a size must not become a plan.
"""

import json
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from typing import Any, Final, get_args

from draftmark.facts.model_parameters import is_absurd
from draftmark.facts.models import (
    WEIGHT_PARTS,
    LinearLayerType,
    ModelFacts,
    QkNorm,
    Quantization,
    UnreadableConfig,
    WeightPart,
    problem_of,
)

__all__ = ["MAX_JSON_BYTES", "facts_from_json", "facts_to_json"]

#: A termination message holds so much. Source: Kubernetes docs, "Determine the Reason for Pod Failure".
MAX_JSON_BYTES: Final = 4096

_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "linear_layer_type": get_args(LinearLayerType),
    "qk_norm": get_args(QkNorm),
}


def facts_to_json(facts: ModelFacts) -> str:
    """One line of JSON, at most 4 KiB for facts that `problem_of` finds nothing wrong with."""
    return json.dumps(_written(facts), separators=(",", ":"))


def facts_from_json(text: str | bytes) -> ModelFacts | UnreadableConfig:
    """Read what `facts_to_json` wrote, or a person; never raises.

    Returns:
        The facts, or what is wrong, with the key.
    """
    if len(text) > MAX_JSON_BYTES:
        return UnreadableConfig(reason=f"the facts have {len(text)} bytes; at most {MAX_JSON_BYTES} are read.")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return UnreadableConfig(reason="the facts are not JSON.")
    if not isinstance(value, dict):
        return UnreadableConfig(reason="the facts are not a JSON object.")
    try:
        arguments = _arguments(value, ModelFacts)
    except _Wrong as error:
        return UnreadableConfig(reason=str(error))
    facts = ModelFacts(**arguments)
    problem = problem_of(facts)
    if problem:
        return UnreadableConfig(reason=problem)
    if is_absurd(facts):
        return UnreadableConfig(reason="the sizes make a model of over 10^14 parameters; no such model is served.")
    return facts


class _Wrong(Exception):
    """Ends the reading; never leaves this module."""


def _written(value: ModelFacts | Quantization) -> dict[str, object]:
    written: dict[str, object] = {}
    for field in fields(value):
        item = getattr(value, field.name)
        if item != field.default:
            if isinstance(item, Quantization):
                item = _written(item)
            written[_key(field.name)] = item
    return written


def _arguments(value: Mapping[str, object], kind: type[ModelFacts] | type[Quantization]) -> dict[str, Any]:
    known = {_key(field.name): field for field in fields(kind)}
    strange = sorted(key for key in value if key not in known)
    if strange:
        raise _Wrong(f"{strange[0][:60]!r} is no field of a model's facts.")
    missing = [key for key, field in known.items() if key not in value and field.default is MISSING]
    if missing:
        raise _Wrong(f"{missing[0]} is missing.")
    return {known[key].name: _checked(key, item, known[key]) for key, item in value.items()}


def _checked(key: str, item: object, field: Field[Any]) -> object:
    if field.type is Quantization or field.name == "quantization_config":
        if not isinstance(item, dict):
            raise _Wrong(f"{key} must be an object.")
        return Quantization(**_arguments(item, Quantization))
    if field.name in ("parts", "uncounted"):
        if not isinstance(item, list) or not all(isinstance(name, str) for name in item):
            raise _Wrong(f"{key} must be a list of strings.")
        return _parts(key, item) if field.name == "parts" else tuple(item)
    if field.name in _CHOICES:
        if item not in _CHOICES[field.name]:
            raise _Wrong(f"{key} must be one of {', '.join(filter(None, _CHOICES[field.name]))}.")
        return item
    wanted = {bool: bool, str: str}.get(field.type if isinstance(field.type, type) else int, int)
    if not isinstance(item, wanted) or (wanted is int and isinstance(item, bool)):
        words = {bool: "true or false", str: "a string", int: "a whole number"}
        raise _Wrong(f"{key} must be {words[wanted]}.")
    return item


def _parts(key: str, names: list[str]) -> tuple[WeightPart, ...]:
    parts = tuple(part for part in WEIGHT_PARTS if part in names)
    if len(parts) != len(names):
        raise _Wrong(f"{key} must be among {', '.join(WEIGHT_PARTS)}, each once.")
    return parts


def _key(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(other.capitalize() for other in others)
