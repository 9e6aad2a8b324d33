"""Manifests as YAML text, in and out."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import yaml

_FIRST_KEYS: Final = ("apiVersion", "kind", "metadata", "spec")


class _Dumper(yaml.SafeDumper):
    """Block style with indented lists; text of several lines as a block."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, indentless=False)

    def ignore_aliases(self, data: Any) -> bool:
        return True


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


def load_manifests(text: str) -> list[dict[str, Any]]:
    """The objects of a YAML (or JSON) stream; Lists are taken apart.

    Raises:
        ValueError: The text is no YAML, or not made of objects; says where.
    """
    try:
        documents = [d for d in yaml.safe_load_all(text) if d is not None]
    except yaml.YAMLError as error:
        raise ValueError(f"This is no YAML: {error}") from error
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
