"""Manifests from files, and what the API server would say of one of our kinds."""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from draftmark.api import names
from draftmark.api.base import ApiModel
from draftmark.choice import describe_errors
from draftmark.cli.endings import fail
from draftmark.render.yaml_io import load_manifests

__all__ = ["check_types", "files_option", "read_manifests", "unknown_fields", "where"]

files_option = click.option("-f", "--filename", "files", multiple=True, required=True, help="File, or - for stdin.")


def read_manifests(files: Iterable[str]) -> list[dict[str, Any]]:
    """All objects in the files."""
    found: list[dict[str, Any]] = []
    for name in files:
        try:
            text = sys.stdin.read() if name == "-" else Path(name).read_text("utf-8")
            found += load_manifests(text)
        except (OSError, ValueError) as error:
            fail(f"{name}: {error}")
    return found


def check_types(item: Mapping[str, Any], spec: type[ApiModel], what: str) -> None:
    """The rules that the API server would check; ends the command where one does not hold."""
    metadata = item.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(name, str) or not name:
        fail(f"{what} has no metadata.name. Give it one.")
    if problem := names.name_problem(name, str(item.get("kind"))):
        fail(f"{name}: {problem}")
    try:
        spec.model_validate(item.get("spec") or {})
    except ValidationError as error:
        fail(f"{where(item)}: {describe_errors(error)}")


def unknown_fields(item: Mapping[str, Any], spec: type[ApiModel]) -> list[str]:
    """Paths of fields that the kind does not have."""
    try:
        spec.model_validate(item.get("spec") or {}, extra="forbid")
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)
        return [".".join(["spec", *map(str, e["loc"])]) for e in found if e["type"] == "extra_forbidden"]
    return []


def where(item: Mapping[str, Any]) -> str:
    """An object's name, for messages."""
    return str(item.get("metadata", {}).get("name", "(no name)"))
