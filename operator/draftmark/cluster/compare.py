"""Whether a live object contains what we want of it, and where not.

Server-side apply merges; so "nothing to do" does not mean equal, it means contained. The comparison follows the same
shape as the merge: maps by key, lists of maps by their merge key, other lists as one value. It forgives what the
API server does to every object: leaving out empty values, and writing quantities in their canonical form.

Pure: no clock, no network.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kubernetes.utils.quantity import parse_quantity

__all__ = ["Difference", "Item", "Path", "differences", "path_text"]


@dataclass(frozen=True, slots=True)
class Item:
    """A step into a list of maps, by the keys that identify the item."""

    keys: tuple[tuple[str, str | int], ...]

    def like(self, item: Mapping[str, Any]) -> "Item":
        """The step to another item of the same list."""
        keys = tuple(key for key, _ in self.keys)
        return _item(keys, _values(item, keys))


Path = tuple[str | int | Item, ...]
#: A step on the way: of an item its keys and their values, of which an Item is made where there is a difference.
_Step = str | int | tuple[tuple[str, ...], tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Difference:
    """A place where the live object does not hold what was intended."""

    path: Path
    #: What is there instead, as JSON; empty when nothing is.
    live: str


#: Merge keys of the lists that children contain. Source: listMapKeys in the OpenAPI of Kubernetes 1.34.
_MERGE_KEYS: Final[Mapping[str, tuple[tuple[str, ...], ...]]] = {
    "containers": (("name",),),
    "initContainers": (("name",),),
    "ephemeralContainers": (("name",),),
    "env": (("name",),),
    "volumes": (("name",),),
    "volumeMounts": (("mountPath",),),
    "volumeDevices": (("devicePath",),),
    "ports": (("containerPort", "protocol"), ("port", "protocol")),
    "imagePullSecrets": (("name",),),
    "secrets": (("name",),),
    "hostAliases": (("ip",),),
    "topologySpreadConstraints": (("topologyKey", "whenUnsatisfiable"),),
    "ownerReferences": (("uid",),),
    "conditions": (("type",),),
    "claims": (("name",),),
}
#: Keys that may be left out of an item, and what the API server puts there.
_KEY_DEFAULTS: Final = {"protocol": "TCP"}
#: Maps that are one value: a foreign key in them changes what ours mean, as in a Service's selector.
_ATOMIC_MAPS: Final = frozenset({"selector", "matchLabels", "nodeSelector"})
#: Fields whose values are quantities, or maps of quantities.
_QUANTITIES: Final = frozenset({"limits", "requests", "capacity", "sizeLimit", "divisor"})
#: Empty maps that are there although they are empty, because their presence chooses a member of a union.
_MEANT_EMPTY: Final = frozenset({"emptyDir"})

_NOTHING: Final = object()


def differences(intent: Mapping[str, Any], live: Mapping[str, Any]) -> tuple[Difference, ...]:
    """Where `live` does not hold `intent`, in the order of the intent; empty when it does."""
    found: list[Difference] = []
    for field, value in intent.items():
        if field in ("apiVersion", "kind"):
            continue
        actual = live.get(field, _NOTHING)
        if field == "data" and intent.get("kind") == "ControllerRevision":
            # One opaque value for the API server: contained would not mean equal.
            if not _same(value, actual):
                found.append(_difference(("data",), actual))
            continue
        _compare(found, [field], field, value, actual)
    return tuple(found)


def path_text(path: Path) -> str:
    """As people write it: `spec.template.spec.containers[engine].image`."""
    text = ""
    for step in path:
        match step:
            case str():
                # A label's key contains dots itself.
                text += f"[{step}]" if "." in step or "/" in step else f".{step}"
            case int():
                text += f"[{step}]"
            case Item(keys=keys):
                text += f"[{','.join(str(value) for _, value in keys)}]"
    return text.removeprefix(".")


def _compare(found: list[Difference], path: list[_Step], name: str, intent: Any, live: Any) -> None:
    """Add to `found` where `live` does not hold `intent`.

    Tens of thousands of objects are compared after a restart, hence one path that grows and shrinks, and no generators.

    Args:
        path: Where we are. The same at the end as at the beginning.
        name: The last step of the path that is the name of a field.
    """
    if type(intent) is str and type(live) is str:
        if intent != live and not (_is_quantity(path) and _same_quantity(intent, live)):
            found.append(_difference(path, live))
        return
    if intent is None:
        return
    if live is _NOTHING or live is None:
        # Fields with the zero value are left out by the server, so their absence says the same.
        if intent or (isinstance(intent, dict) and name in _MEANT_EMPTY):
            found.append(_difference(path, live))
        return
    if isinstance(intent, dict) and isinstance(live, dict):
        if path[-1] in _ATOMIC_MAPS and intent.keys() != live.keys():
            found.append(_difference(path, live))
            return
        for key, value in intent.items():
            path.append(key)
            _compare(found, path, key, value, live.get(key, _NOTHING))
            path.pop()
        return
    if isinstance(intent, list) and isinstance(live, list):
        _compare_lists(found, path, name, intent, live)
        return
    if not _same(intent, live) and not (_is_quantity(path) and _same_quantity(intent, live)):
        found.append(_difference(path, live))


def _compare_lists(found: list[Difference], path: list[_Step], name: str, intent: list[Any], live: list[Any]) -> None:
    for keys in _MERGE_KEYS.get(name, ()):
        if all(isinstance(item, dict) and keys[0] in item for item in intent):
            by_values = {_values(item, keys): item for item in live if isinstance(item, dict)}
            for item in intent:
                values = _values(item, keys)
                path.append((keys, values))
                _compare(found, path, name, item, by_values.get(values, _NOTHING))
                path.pop()
            return
    if len(intent) != len(live):
        found.append(_difference(path, live))
        return
    # One value, but its items may have been given defaults inside.
    inside: list[Difference] = []
    for i, (mine, theirs) in enumerate(zip(intent, live, strict=True)):
        path.append(i)
        _compare(inside, path, name, mine, theirs)
        path.pop()
    if inside:
        found.append(_difference(path, live))


def _values(item: Mapping[str, Any], keys: tuple[str, ...]) -> tuple[Any, ...]:
    """What identifies an item of a list."""
    first = keys[0]
    if len(keys) == 1:
        return (item.get(first, _KEY_DEFAULTS.get(first, "")),)
    return tuple([item.get(key, _KEY_DEFAULTS.get(key, "")) for key in keys])


def _item(keys: tuple[str, ...], values: tuple[Any, ...]) -> Item:
    return Item(tuple(zip(keys, values, strict=True)))


def _same(intent: Any, live: Any) -> bool:
    # For Python True is 1; for the API server it is not.
    return (type(intent) is type(live) and bool(intent == live)) or (
        _is_number(intent) and _is_number(live) and intent == live
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_quantity(path: Sequence[_Step]) -> bool:
    return any(step in _QUANTITIES for step in path[-2:] if isinstance(step, str))


def _same_quantity(intent: Any, live: Any) -> bool:
    try:
        return bool(parse_quantity(intent) == parse_quantity(live))
    except ValueError:
        return False


def _difference(path: Sequence[_Step], live: Any) -> Difference:
    steps = tuple(_item(*step) if isinstance(step, tuple) else step for step in path)
    return Difference(steps, "" if live is _NOTHING else json.dumps(live, sort_keys=True))
