"""Reading and correcting `metadata.managedFields`, the API server's record of who set which field.

Pure: lists and dicts in, lists and dicts out.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from draftmark.cluster.compare import Item, Path
from draftmark.cluster.wire import Json

__all__ = ["hand_over", "manager_of"]


def hand_over(entries: Sequence[Json], *, created_by: str, manager: str) -> list[Json] | None:
    """Give the fields that a create has set to the manager that applies.

    A create is recorded as an Update, and an apply removes only fields of its own Apply entry. Without this step a
    field that the first intent had and a later one has not would stay for ever.

    Returns:
        The corrected entries, or None when there is nothing to hand over.
    """
    created = [entry for entry in entries if _is(entry, created_by, "Update")]
    if not created:
        return None
    fields: Json = {}
    for entry in [*created, *(entry for entry in entries if _is(entry, manager, "Apply"))]:
        fields = _union(fields, entry.get("fieldsV1") or {})
    applied = {**created[-1], "manager": manager, "operation": "Apply", "fieldsV1": fields}
    rest = [e for e in entries if not _is(e, created_by, "Update") and not _is(e, manager, "Apply")]
    return [applied, *rest]


def manager_of(entries: Sequence[Json], path: Path, *, ours: str) -> str:
    """Who else holds the field at `path`; else who wrote last besides us; empty when nobody did."""
    others = [entry for entry in entries if not str(entry.get("manager") or "").startswith(ours)]
    others.sort(key=lambda entry: str(entry.get("time") or ""))
    for entry in reversed(others):
        if _holds(entry.get("fieldsV1") or {}, path):
            return str(entry["manager"])
    return str(others[-1]["manager"]) if others else ""


def _is(entry: Json, manager: str, operation: str) -> bool:
    return entry.get("manager") == manager and entry.get("operation") == operation and not entry.get("subresource")


def _union(left: Json, right: Json) -> Json:
    merged = dict(left)
    for key, value in right.items():
        merged[key] = _union(merged[key], value) if key in merged else value
    return merged


def _holds(fields: Mapping[str, Any], path: Path) -> bool:
    """True when the path, or an atomic value around it, is in the set."""
    for step in path:
        match step:
            case str():
                found = fields.get(f"f:{step}")
            case Item(keys=keys):
                found = next((v for k, v in fields.items() if k.startswith("k:") and _matches(k[2:], keys)), None)
            case int():
                found = None
        if found is None:
            return False
        if not found:
            return True
        fields = found
    return True


def _matches(key: str, keys: tuple[tuple[str, str | int], ...]) -> bool:
    try:
        return bool(json.loads(key) == dict(keys))
    except ValueError:
        return False
