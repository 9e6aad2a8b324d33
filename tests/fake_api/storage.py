"""The objects of the fake API server, and the history of what became of them."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

from draftmark.cluster.kinds import Kind
from tests.fake_api import fields
from tests.fake_api.fields import Entry, Json

Key = tuple[str, str]


class Refusal(Exception):
    """An answer that is not a success."""

    def __init__(self, code: int, reason: str, message: str, causes: list[Json] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.causes = causes or []

    def status(self) -> Json:
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "code": self.code,
            "reason": self.reason,
            "message": self.message,
            "details": {"causes": self.causes},
        }


@dataclass
class Stored:
    """An object without managedFields, and who owns its fields. Once it is stored nobody changes it: a change is another
    one, so the history, watches and snapshots share it."""

    obj: Json
    entries: list[Entry]
    _full: Json | None = None

    @property
    def meta(self) -> Json:
        metadata: Json = self.obj["metadata"]
        return metadata

    def full(self) -> Json:
        if self._full is None:
            managed = fields.to_managed_fields(self.entries, self.obj["apiVersion"])
            metadata = {**self.obj["metadata"], **({"managedFields": managed} if managed else {})}
            self._full = {**self.obj, "metadata": metadata}
        return self._full


@dataclass(frozen=True)
class Change:
    """One entry of the history. `before` and `after` are None where there was, or is, no object."""

    version: int
    before: Json | None
    after: Json | None


class Storage:
    """All objects of all kinds under one counter of versions.

    Attributes:
        default: Called with each new or changed object of a kind, before it is stored: defaulting, or a mutating
            webhook.
        validate: Called with the old object or None, and the new one; raises Refusal.
    """

    def __init__(self) -> None:
        self.objects: dict[Kind, dict[Key, Stored]] = {}
        self.history: dict[Kind, list[Change]] = {}
        self.oldest: dict[Kind, int] = {}
        self.default: dict[Kind, Callable[[Json], None]] = {}
        self.validate: dict[Kind, Callable[[Json | None, Json], None]] = {}
        self.changed = asyncio.Condition()
        self.version = 100
        self._lives: Counter[tuple[Kind, Key]] = Counter()

    def serve(self, kind: Kind) -> None:
        self.objects.setdefault(kind, {})
        self.history.setdefault(kind, [])
        self.oldest.setdefault(kind, self.version)

    def remove_kind(self, kind: Kind) -> None:
        for table in (self.objects, self.history, self.oldest):
            table.pop(kind, None)

    def get(self, kind: Kind, key: Key) -> Stored:
        try:
            return self.objects[kind][key]
        except KeyError:
            raise Refusal(404, "NotFound", f'{kind.resource} "{key[1]}" not found') from None

    def create(self, kind: Kind, namespace: str, body: Json, manager: str, *, applied: bool = False) -> Stored:
        metadata = body["metadata"]
        key = (namespace, metadata["name"])
        if key in self.objects[kind]:
            raise Refusal(409, "AlreadyExists", f'{kind.resource} "{key[1]}" already exists')
        if metadata.get("resourceVersion"):
            raise Refusal(400, "BadRequest", "resourceVersion should not be set on objects to be created")
        obj = _clean(deepcopy(body), kind)
        obj["metadata"] |= {
            "namespace": namespace,
            "uid": self._uid(kind, key),
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "generation": 1,
        }
        if not kind.namespaced:
            del obj["metadata"]["namespace"]
        entries: list[Entry] = []
        if applied:
            fields.apply({}, obj, entries, Entry(manager, "Apply", "", time=self._time()), force=True)
        self._fill(kind, None, obj)
        if not applied:
            fields.update({}, obj, entries, Entry(manager, "Update", "", time=self._time()))
        stored = Stored(obj, entries)
        self._commit(kind, key, None, stored)
        return stored

    def update(self, kind: Kind, key: Key, body: Json, manager: str, subresource: str = "") -> Stored:
        """Replace, as PUT does; a resourceVersion in the body must be the present one."""
        old = self.get(kind, key)
        sent = body["metadata"]
        self._check(kind, old, sent)
        obj = _clean(deepcopy(body), kind)
        entries = [entry.copy() for entry in old.entries]
        if sent.get("managedFields"):
            entries = fields.from_managed_fields(sent["managedFields"])
        self._keep_system_fields(old, obj)
        if subresource:
            obj = {**old.obj, "metadata": dict(old.meta), "status": obj.get("status", {})}
        elif "status" in old.obj:
            obj["status"] = old.obj["status"]
        self._fill(kind, old.obj, obj)
        fields.update(old.obj, obj, entries, Entry(manager, "Update", subresource, time=self._time()))
        return self._replace(kind, key, old, Stored(obj, entries))

    def apply(self, kind: Kind, key: Key, body: Json, manager: str, *, force: bool, subresource: str = "") -> Stored:
        old = self.objects[kind].get(key)
        if old is None:
            if subresource:
                raise Refusal(404, "NotFound", f'{kind.resource} "{key[1]}" not found')
            if body["metadata"].get("uid"):
                raise Refusal(409, "Conflict", "uid mismatch: the provided object specified uid, and none was found")
            return self.create(kind, key[0], body, manager, applied=True)
        self._check(kind, old, body["metadata"])
        intent = _clean(deepcopy(body), kind)
        if subresource:
            intent = {"status": intent.get("status", {})}
        else:
            intent.pop("status", None)
        entries = [entry.copy() for entry in old.entries]
        mine = Entry(manager, "Apply", subresource, time=self._time())
        try:
            obj = fields.apply(old.obj, intent, entries, mine, force=force)
        except fields.OwnedElsewhere as conflict:
            causes = [
                {"reason": "FieldManagerConflict", "message": f'conflict with "{who}" using v1', "field": path}
                for path, who in conflict.fields
            ]
            raise Refusal(409, "Conflict", f"Apply failed with {len(causes)} conflicts", causes) from None
        self._keep_system_fields(old, obj)
        self._fill(kind, old.obj, obj)
        return self._replace(kind, key, old, Stored(obj, entries))

    def delete(self, kind: Kind, key: Key, uid: str | None = None) -> Stored:
        old = self.get(kind, key)
        if uid is not None and uid != old.meta["uid"]:
            raise Refusal(409, "Conflict", f"Precondition failed: UID in precondition: {uid}")
        if old.meta.get("finalizers"):
            if "deletionTimestamp" in old.meta:
                return old
            new = Stored(deepcopy(old.obj), old.entries)
            new.meta["deletionTimestamp"] = "2026-01-01T00:00:00Z"
            return self._replace(kind, key, old, new)
        self._commit(kind, key, old, None)
        self._collect_garbage(old.meta["uid"])
        return old

    def since(self, kind: Kind, version: int) -> list[Change]:
        if version < self.oldest[kind]:
            raise Refusal(410, "Expired", f"too old resource version: {version} ({self.oldest[kind]})")
        return [change for change in self.history[kind] if change.version > version]

    def is_news(self, kind: Kind, version: int) -> bool:
        """Whether a watch that has delivered up to `version` has something to do: an event, an expiry, a removed kind."""
        history = self.history.get(kind)
        return history is None or version < self.oldest[kind] or bool(history and history[-1].version > version)

    def compact(self, kind: Kind) -> None:
        """Forget the history: every version before now is expired."""
        self.history[kind].clear()
        self.oldest[kind] = self.version

    # Rules

    def _check(self, kind: Kind, old: Stored, sent: Json) -> None:
        if sent.get("uid") not in (None, old.meta["uid"]):
            # Seen in 1.35: an apply, or a replace, to a successor is Invalid; to an absent object it is a Conflict.
            causes = [{"reason": "FieldValueInvalid", "message": "field is immutable", "field": "metadata.uid"}]
            raise Refusal(422, "Invalid", "metadata.uid: Invalid value: field is immutable", causes)
        if sent.get("resourceVersion") not in (None, "", old.meta["resourceVersion"]):
            message = (
                f'Operation cannot be fulfilled on {kind.resource} "{old.meta["name"]}": the object has been modified'
            )
            raise Refusal(409, "Conflict", message)

    def _keep_system_fields(self, old: Stored, obj: Json) -> None:
        for name in ("uid", "creationTimestamp", "generation", "namespace", "deletionTimestamp"):
            if name in old.meta:
                obj["metadata"][name] = old.meta[name]

    def _fill(self, kind: Kind, old: Json | None, obj: Json) -> None:
        if old is not None and old.get("immutable"):  # of ConfigMaps and Secrets
            for name in ("data", "binaryData", "immutable"):
                if obj.get(name) != old.get(name):
                    message = f"{name}: Forbidden: field is immutable when `immutable` is set"
                    causes = [{"reason": "FieldValueForbidden", "message": message, "field": name}]
                    raise Refusal(422, "Invalid", message, causes)
        if kind in self.default:
            self.default[kind](obj)
        if kind in self.validate:
            self.validate[kind](old, obj)

    def _replace(self, kind: Kind, key: Key, old: Stored, new: Stored) -> Stored:
        new.meta.pop("resourceVersion", None)
        same = {**old.obj, "metadata": {k: v for k, v in old.meta.items() if k != "resourceVersion"}} == new.obj
        if same and [(e.id, e.paths) for e in old.entries] == [(e.id, e.paths) for e in new.entries]:
            return old
        if _spec(old.obj) != _spec(new.obj):
            new.meta["generation"] = old.meta["generation"] + 1
        if new.meta.get("deletionTimestamp") and not new.meta.get("finalizers"):
            self._commit(kind, key, old, None)
            self._collect_garbage(old.meta["uid"])
            return old
        self._commit(kind, key, old, new)
        return new

    def _commit(self, kind: Kind, key: Key, old: Stored | None, new: Stored | None) -> None:
        self.version += 1
        if new is None:
            del self.objects[kind][key]
        else:
            new.meta["resourceVersion"] = str(self.version)
            self.objects[kind][key] = new
        before, after = (x.full() if x else None for x in (old, new))
        self.history[kind].append(Change(self.version, before, after))
        self.wake()

    def wake(self) -> None:
        async def notify() -> None:
            async with self.changed:
                self.changed.notify_all()

        self._notification = asyncio.get_running_loop().create_task(notify())

    def _collect_garbage(self, uid: str) -> None:
        for kind, table in list(self.objects.items()):
            for key, stored in list(table.items()):
                references = stored.meta.get("ownerReferences") or []
                if any(reference["uid"] == uid for reference in references) and len(references) == 1:
                    asyncio.get_running_loop().call_soon(self._delete_dependent, kind, key, stored.meta["uid"])

    def _delete_dependent(self, kind: Kind, key: Key, uid: str) -> None:
        stored = self.objects.get(kind, {}).get(key)
        if stored is not None and stored.meta["uid"] == uid:
            self.delete(kind, key)

    def _uid(self, kind: Kind, key: Key) -> str:
        """By name and how often there was one of that name, so that two runs of the same have the same."""
        self._lives[kind, key] += 1
        return f"uid-{kind.plural}-{'-'.join(key)}-{self._lives[kind, key]}"

    def _time(self) -> str:
        # The order of writes matters to readers, not the time of day.
        return f"2026-01-01T00:00:00.{self.version:06d}Z"


def _clean(obj: Json, kind: Kind) -> Json:
    obj.setdefault("apiVersion", kind.api_version)
    obj.setdefault("kind", kind.kind)
    for name in ("managedFields", "resourceVersion"):
        obj.get("metadata", {}).pop(name, None)
    return obj


def _spec(obj: Json) -> str:
    return json.dumps({k: v for k, v in obj.items() if k not in ("metadata", "status")}, sort_keys=True)
