"""Manifests as YAML text, in and out."""

from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Any, Final

import yaml

_FIRST_KEYS: Final = ("apiVersion", "kind", "metadata", "spec")


class _Dumper(yaml.SafeDumper):
    """Block style with indented lists; text of several lines as a block."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, indentless=False)

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        style = "|" if "\n" in data else None
        # Unless they are escaped, a reader makes line feeds or blanks of these.
        if set("\r\x85\u2028\u2029") & set(data):
            style = '"'
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Dumper.add_representer(str, _Dumper.represent_str)


def dump_manifests(manifests: Iterable[Mapping[str, Any]]) -> str:
    """Several objects as one YAML stream; the same objects give the same text."""
    return "".join(f"---\n{dump_manifest(manifest)}" for manifest in manifests)


def dump_manifest(manifest: Mapping[str, Any]) -> str:
    """One object, with the keys that a reader looks for first."""
    first = {key: manifest[key] for key in _FIRST_KEYS if key in manifest}
    rest = {key: manifest[key] for key in sorted(manifest) if key not in first}
    return yaml.dump(
        {**first, **rest}, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120, default_flow_style=False
    )


class _JsonLoader(yaml.SafeLoader):
    """YAML as far as it is JSON, which is what kubectl sends: a date is text."""


_JsonLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def load_documents(text: str) -> list[Any]:
    """The documents of a YAML (or JSON) stream, as JSON data; empty ones are left out.

    Raises:
        ValueError: The text is no YAML, or holds what JSON cannot; says where or what.
    """
    try:
        documents = [d for d in yaml.load_all(text, Loader=_JsonLoader) if d is not None]
        for document in documents:
            _check_json(document)
    except yaml.YAMLError as error:
        raise ValueError(f"This is no YAML: {error}") from error
    except RecursionError:
        raise ValueError("This is nested too deeply, or contains itself.") from None
    except (ValueError, LookupError, AttributeError, OverflowError) as error:
        # What PyYAML makes of an explicit tag over a text that is none, as in `!!int x`.
        raise ValueError(f"A value cannot be read: {error}") from error
    return documents


def _check_json(value: object) -> None:
    match value:
        case dict():
            for key, item in value.items():
                if not isinstance(key, str):
                    raise ValueError(f"the key {key!r} is no text. Put it in quotes.")
                _check_json(key)
                _check_json(item)
        case list():
            for item in value:
                _check_json(item)
        case str():
            if any("\ud800" <= c <= "\udfff" for c in value):
                raise ValueError(f"the text {value!r} has half of a character (a lone surrogate).")
        case float() if not isfinite(value):
            raise ValueError(f"the number {value} is none that JSON knows.")
        case None | bool() | int() | float():
            pass
        case _:
            raise ValueError(f"a {type(value).__name__} is nothing that JSON knows.")


def load_manifests(text: str) -> list[dict[str, Any]]:
    """The objects of a YAML (or JSON) stream; Lists are taken apart.

    Raises:
        ValueError: The text is no YAML, or not made of objects; says where.
    """
    documents = load_documents(text)
    found: list[dict[str, Any]] = []
    for document in documents:
        if not isinstance(document, dict):
            raise ValueError(f"Expected an object with apiVersion and kind, found {type(document).__name__}.")
        is_list = str(document.get("kind", "")).endswith("List") and isinstance(document.get("items"), list)
        found.extend(document["items"] if is_list else [document])
    for item in found:
        if not isinstance(item, dict) or not isinstance(item.get("kind"), str):
            raise ValueError("Expected objects with apiVersion and kind; one has no kind.")
    return found
