"""Who owns which field: server-side apply, simple but honest.

A field set is a set of paths to leaves, as the real API server keeps it: maps by key, lists of maps by their merge key,
every other list as one leaf. It has its own table of merge keys; sharing the operator's would hide a mistake in that.
"""

import json
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

Json = dict[str, Any]
#: ("f", name) or ("k", the merge key as JSON); the last step of an item's own existence is ("i", "").
Step = tuple[str, str]
Path = tuple[Step, ...]

_SINGLE_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "imagePullSecrets": "name",
    "secrets": "name",
    "conditions": "type",
    "ownerReferences": "uid",
}
_ATOMIC = {"selector", "nodeSelector", "matchLabels", "data"}
_NOT_OWNED = {"name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp", "managedFields"}
_MISSING = object()


@dataclass
class Entry:
    """What one manager owns."""

    manager: str
    operation: str
    subresource: str
    paths: set[Path] = field(default_factory=set)
    time: str = ""

    def copy(self) -> "Entry":
        return replace(self, paths=set(self.paths))

    @property
    def id(self) -> tuple[str, str, str]:
        return self.manager, self.operation, self.subresource


class OwnedElsewhere(Exception):
    """An unforced apply met fields of other managers."""

    def __init__(self, fields: list[tuple[str, str]]) -> None:
        super().__init__(str(fields))
        #: Dotted path and manager.
        self.fields = fields


def leaves(obj: Mapping[str, Any]) -> dict[Path, Any]:
    """Every leaf of an object that can be owned, with its value."""
    found: dict[Path, Any] = {}
    for name, value in obj.items():
        if name in ("apiVersion", "kind"):
            continue
        if name == "metadata":
            value = {key: item for key, item in value.items() if key not in _NOT_OWNED}
        _collect((("f", name),), name, value, found)
    return found


def _collect(path: Path, name: str, value: Any, found: dict[Path, Any]) -> None:
    if isinstance(value, dict) and value and name not in _ATOMIC:
        for key, item in value.items():
            _collect((*path, ("f", key)), key, item, found)
    elif isinstance(value, list) and value and (keys := _merge_keys(name, value)):
        for item in value:
            step = ("k", _key(item, keys))
            found[(*path, step, ("i", ""))] = None
            for key, inner in item.items():
                _collect((*path, step, ("f", key)), key, inner, found)
    elif value is not None:
        found[path] = value


def _merge_keys(name: str, items: list[Any]) -> tuple[str, ...]:
    keys: tuple[str, ...]
    if name == "ports":
        keys = ("containerPort", "protocol") if "containerPort" in items[0] else ("port", "protocol")
    elif name in _SINGLE_KEYS:
        keys = (_SINGLE_KEYS[name],)
    else:
        return ()
    return keys if all(isinstance(item, dict) and keys[0] in item for item in items) else ()


def _key(item: Mapping[str, Any], keys: tuple[str, ...]) -> str:
    return json.dumps({key: item.get(key, "TCP" if key == "protocol" else None) for key in keys}, sort_keys=True)


def apply(live: Json, intent: Json, entries: list[Entry], mine: Entry, *, force: bool) -> Json:
    """Merge an intent and move ownership in `entries`; returns the new object.

    Raises:
        OwnedElsewhere: Without force, and another manager has another value.
    """
    wanted = leaves(intent)
    present = leaves(live)
    conflicts = [
        (entry, path)
        for entry in entries
        if entry.id != mine.id
        for path in wanted
        if path in entry.paths and present.get(path, _MISSING) != wanted[path]
    ]
    if conflicts and not force:
        raise OwnedElsewhere([(text(path), entry.manager) for entry, path in conflicts])
    for entry, path in conflicts:
        entry.paths.discard(path)

    before = next((entry for entry in entries if entry.id == mine.id), None)
    others = {path for entry in entries if entry.id != mine.id for path in entry.paths}
    result = deepcopy(live)
    for path in sorted(before.paths - wanted.keys() - others, key=len, reverse=True) if before else ():
        if not _is_merge_key(path) and not (path[-1] == ("i", "") and _is_below(path[:-1], others)):
            _remove(result, path)
    for path, value in wanted.items():
        _put(result, path, value)
    if before is None:
        entries.append(before := mine)
    if before.paths != set(wanted):
        before.paths = set(wanted)
        before.time = mine.time
    entries[:] = [entry for entry in entries if entry.paths]
    return result


def update(live: Json, changed: Json, entries: list[Entry], mine: Entry) -> None:
    """Record a create, replace or patch: what changed is owned by its author alone."""
    before, after = leaves(live), leaves(changed)
    touched = {path for path, value in after.items() if before.get(path, _MISSING) != value}
    removed = before.keys() - after.keys()
    for entry in entries:
        entry.paths -= removed
        if entry.id != mine.id:
            entry.paths -= {path for path in touched if path[-1] != ("i", "")}
    if touched:
        own = next((entry for entry in entries if entry.id == mine.id), None)
        if own is None:
            entries.append(own := mine)
        own.paths |= touched
        own.time = mine.time
    entries[:] = [entry for entry in entries if entry.paths]


def text(path: Path) -> str:
    return "".join(f".{name}" if tag == "f" else f"[{name}]" for tag, name in path if tag != "i")


def to_managed_fields(entries: Iterable[Entry], api_version: str) -> list[Json]:
    return [
        {
            "manager": entry.manager,
            "operation": entry.operation,
            "apiVersion": api_version,
            "time": entry.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": _to_v1(entry.paths),
            **({"subresource": entry.subresource} if entry.subresource else {}),
        }
        for entry in entries
    ]


def from_managed_fields(managed: Iterable[Json]) -> list[Entry]:
    return [
        Entry(
            item["manager"],
            item["operation"],
            item.get("subresource", ""),
            set(_from_v1(item["fieldsV1"], ())),
            item.get("time", ""),
        )
        for item in managed
    ]


def _to_v1(paths: set[Path]) -> Json:
    tree: Json = {}
    for path in paths:
        node = tree
        for tag, name in path:
            node = node.setdefault("." if tag == "i" else f"{tag}:{name}", {})
    return tree


def _from_v1(tree: Json, path: Path) -> Iterable[Path]:
    if not tree and path:
        yield path
    for key, inner in tree.items():
        if key == ".":
            yield (*path, ("i", ""))
        else:
            tag, _, name = key.partition(":")
            yield from _from_v1(inner, (*path, (tag, name)))


def _is_merge_key(path: Path) -> bool:
    """The key of an item goes with the item."""
    return len(path) > 1 and path[-2][0] == "k" and path[-1][1] in json.loads(path[-2][1])


def _is_below(item: Path, paths: set[Path]) -> bool:
    return any(path[: len(item)] == item for path in paths)


def _find(node: Any, step: Step) -> Any:
    tag, key = step
    if tag == "f":
        return node.get(key, _MISSING) if isinstance(node, dict) else _MISSING
    for item in node if isinstance(node, list) else ():
        keys = tuple(json.loads(key))
        if isinstance(item, dict) and keys[0] in item and _key(item, keys) == key:
            return item
    return _MISSING


def _put(obj: Json, path: Path, value: Any) -> None:
    node: Any = obj
    for i, step in enumerate(path):
        if step == ("i", ""):
            return
        is_last = i == len(path) - 1
        if is_last:
            node[step[1]] = deepcopy(value)
            return
        found = _find(node, step)
        if found is _MISSING or not isinstance(found, dict | list):
            found = [] if path[i + 1][0] == "k" else {}
            if step[0] == "f":
                node[step[1]] = found
            else:
                found = {key: v for key, v in json.loads(step[1]).items() if v is not None}
                node.append(found)
        node = found


def _remove(obj: Json, path: Path) -> None:
    trail: list[Any] = [obj]
    for step in path[:-1]:
        node = _find(trail[-1], step)
        if node is _MISSING:
            return
        trail.append(node)
    last = path[-1]
    if last == ("i", ""):
        if trail[-1] in trail[-2]:
            trail[-2].remove(trail[-1])
        path, trail = path[:-1], trail[:-1]
    else:
        trail[-1].pop(last[1], None)
    # A map or list that became empty goes too.
    for i in range(len(trail) - 1, 0, -1):
        if trail[i]:
            return
        parent, step = trail[i - 1], path[i - 1]
        if step[0] == "f":
            parent.pop(step[1], None)
        elif trail[i] in parent:
            parent.remove(trail[i])
