"""The only place that writes children.

Every child is wanted as a whole (the intent) and written by server-side apply, so that dropped fields disappear and
foreign fields stay. Three questions are answered before each write.

Is it ours? An object of our name that another controller owns, or nobody, is `Foreign`: never adopted. The cache may
be behind, so the API server is asked once before this is said. The uid travels with each apply: should the object
have been replaced meanwhile, the API server refuses.

Is there anything to do? An annotation holds a digest of the intent. Same digest and the intent contained in the live
object: no call. Same digest and not contained: somebody changed a field of ours, which is repaired, or, when the
other writer does it again and again, `Contended`.

How is it created? With a POST, because nothing else refuses to touch an object that appeared a moment ago: an apply,
even unforced, would merge our labels and our owner reference into it, and then deleting our parent would delete a
stranger's object. The price: the API server records a create as an Update, and an apply removes only what an Apply
has set. So the POST signs with a name of its own, and the first later write hands those fields over to the applying
manager (`managed_fields.hand_over`). A child that never changes costs one write in its life; a restart costs none.
"""

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, Final, Protocol

from draftmark.api.names import ANNOTATION_APPLIED, FIELD_MANAGER
from draftmark.cluster.client import ApiClient
from draftmark.cluster.compare import Difference, Item, differences, path_text
from draftmark.cluster.contention import Fight
from draftmark.cluster.errors import AlreadyExists, ApiError, Conflict, Invalid, NotFound
from draftmark.cluster.kinds import CONTROLLER_REVISIONS, Kind
from draftmark.cluster.managed_fields import hand_over, manager_of
from draftmark.cluster.outcomes import (
    Contended,
    Created,
    Foreign,
    ObjectRef,
    Outcome,
    Pruned,
    Refused,
    Repaired,
    Terminating,
    Unchanged,
    Updated,
)
from draftmark.cluster.wire import Json, decode, digest_of, encode

__all__ = ["Applier", "Cache", "patch_fields", "restore_lists"]

#: Objects that are remembered. A forgotten one costs a GET, or one write that changes nothing.
_REMEMBERED: Final = 50_000
#: How often one call follows an object that changes under it.
_ATTEMPTS: Final = 3


class Cache(Protocol):
    """What the applier needs of an informer."""

    def get(self, namespace: str | None, name: str) -> Json | None: ...

    def absorb(self, obj: Json) -> None: ...

    def note(self, obj: Json, note: bytes) -> None: ...

    def noted(self, namespace: str | None, name: str) -> bytes: ...

    @property
    def is_synced(self) -> bool: ...


@dataclass(slots=True)
class _Memory:
    """What this process knows about one object beyond its state."""

    #: Digest that this process has written last.
    written: str = ""
    #: uid of the object whose fields the applying manager holds already.
    handed_over: str = ""
    #: uid that this process has deleted; the cache may still show it.
    deleted: str = ""
    #: A digest, and how the API server's answer differed from that intent.
    stored_differently: tuple[str, tuple[Difference, ...]] = ("", ())
    fight: Fight = field(default_factory=Fight)


class Applier:
    """Brings children to what they should be, one at a time; one that fails never stops the others.

    Args:
        caches: The informer of each kind that may be written. They must hold whole objects.
    """

    def __init__(
        self,
        client: ApiClient,
        caches: Mapping[Kind, Cache],
        *,
        field_manager: str = FIELD_MANAGER,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._caches = dict(caches)
        self._kinds = {(kind.api_version, kind.kind): kind for kind in caches}
        self._manager = field_manager
        self._created_by = f"{field_manager}-create"
        self._clock = clock
        self._memories: OrderedDict[tuple[Kind, str, str], _Memory] = OrderedDict()

    async def apply(
        self,
        owner: ObjectRef,
        desired: Sequence[Mapping[str, Any]],
        prune: Sequence[tuple[Kind, str, str, str]] = (),
    ) -> list[Outcome]:
        """Write what differs, delete what is left over.

        Args:
            owner: The parent. Each manifest in `desired` names it as its controller.
            desired: Whole manifests, in the order in which they are written.
            prune: Kind, namespace, name and uid of children that should not be there any more.

        Returns:
            One outcome per object, in the order given.

        Raises:
            LeadershipLost: By the client's write guard. Nothing else is expected.
        """
        outcomes: list[Outcome] = []
        for manifest in desired:
            metadata = manifest["metadata"]
            kind = self._kinds[manifest["apiVersion"], manifest["kind"]]
            ref = ObjectRef(kind, metadata["namespace"], metadata["name"])
            outcomes.append(await _or_refused(ref, self._ensure(owner, ref, manifest)))
        for kind, namespace, name, uid in prune:
            ref = ObjectRef(kind, namespace, name, uid)
            outcomes.append(await _or_refused(ref, self._prune(owner, ref)))
        return outcomes

    # One object that should be there

    async def _ensure(self, owner: ObjectRef, ref: ObjectRef, manifest: Mapping[str, Any]) -> Outcome:
        cache = self._caches[ref.kind]
        is_fresh = not cache.is_synced
        live = await self._fetch(ref) if is_fresh else cache.get(ref.namespace, ref.name)
        # In the form in which it is sent, and in which live objects are.
        written = encode(manifest)
        hashed = sha256(written).digest()
        if live is not None and not is_fresh and cache.noted(ref.namespace, ref.name) == hashed:
            # Neither has changed since they were compared, and most objects are looked at many times.
            return Unchanged(ref=_with_uid(ref, live))
        intent = decode(written)
        digest = digest_of(intent)
        intent["metadata"].setdefault("annotations", {})[ANNOTATION_APPLIED] = digest
        memory = self._memory(ref)
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                if live is None:
                    return await self._create(ref, intent, digest, memory)
                outcome = await self._update(owner, ref, intent, digest, memory, live, is_fresh)
                if outcome is not None:
                    if outcome == Unchanged(ref=_with_uid(ref, live)):
                        cache.note(live, hashed)
                    return outcome
            except (AlreadyExists, NotFound, Conflict) as error:
                # The object came, went or was replaced since we looked. NotFound on a create is the namespace.
                if attempt == _ATTEMPTS or (live is None and isinstance(error, NotFound)):
                    raise
            live = await self._fetch(ref)
            is_fresh = True
        raise Conflict(f"{ref} changed {_ATTEMPTS} times while it was being written; trying again later.")

    async def _create(self, ref: ObjectRef, intent: Json, digest: str, memory: _Memory) -> Outcome:
        stored = await self._client.create(ref.kind, ref.namespace, intent, field_manager=self._created_by)
        self._note_written(ref, intent, digest, memory, stored)
        return Created(ref=_with_uid(ref, stored))

    async def _update(
        self,
        owner: ObjectRef,
        ref: ObjectRef,
        intent: Json,
        digest: str,
        memory: _Memory,
        live: Json,
        is_fresh: bool,
    ) -> Outcome | None:
        """Returns None when a fresh look at the object is needed first."""
        ref = _with_uid(ref, live)
        if not _is_ours(live, owner, digest):
            return Foreign(ref=ref, controller=_controller_text(live)) if is_fresh else None
        if live["metadata"].get("deletionTimestamp"):
            return Terminating(ref=ref, finalizers=tuple(live["metadata"].get("finalizers") or ()))

        found = differences(intent, live)
        if not found:
            return Unchanged(ref=ref)
        is_new = _applied(live) != digest and memory.written != digest
        if not is_new:
            if memory.stored_differently == (digest, found):
                return Unchanged(ref=ref, stored_differently=_texts(found))
            paths = frozenset(difference.path for difference in found)
            wait_s = memory.fight.wait_s(paths, self._clock())
            if wait_s > 0.0:
                manager = memory.fight.manager or await self._other_manager(ref, found)
                memory.fight.manager = manager
                return Contended(ref=ref, paths=_texts(found), manager=manager, retry_after_s=wait_s)

        if memory.handed_over != ref.uid:
            if not is_fresh:
                return None
            live = await self._hand_over(ref, live)
            memory.handed_over = ref.uid
        body = deepcopy(intent)
        body["metadata"]["uid"] = ref.uid
        try:
            stored = await self._client.apply(
                ref.kind, ref.namespace, ref.name, body, field_manager=self._manager, force=True
            )
        except Invalid:
            lists = restore_lists(intent, live, found)
            operations = lists or patch_fields(intent, live, found)
            if not operations:
                raise
            stored = await self._patch(ref, operations, live, self._created_by)
            # What this patch has set is handed over before the next write.
            memory.handed_over = ""
            if (is_new and lists) or differences(intent, stored):
                return None
        self._note_written(ref, intent, digest, memory, stored)
        if is_new:
            return Updated(ref=ref)
        memory.fight.note_repair(frozenset(difference.path for difference in found), self._clock())
        return Repaired(ref=ref, paths=_texts(found))

    async def _patch(self, ref: ObjectRef, operations: list[Json], live: Json, manager: str) -> Json:
        """Change single fields of an object."""
        try:
            return await self._client.json_patch(ref.kind, ref.namespace, ref.name, operations, field_manager=manager)
        except Invalid:
            if ref.kind != CONTROLLER_REVISIONS:
                raise
        # A patch, too, writes data anew, with other escapes than version 0.1.0 had used.
        body = deepcopy(live)
        for operation in operations:
            *parents, last = operation["path"].split("/")[1:]
            node = body
            for step in parents:
                node = node.setdefault(_unescaped(step), {})
            node[_unescaped(last)] = operation["value"]
        return await self._client.replace_as_0_1_0(ref.kind, ref.namespace, ref.name, body, field_manager=manager)

    async def _hand_over(self, ref: ObjectRef, live: Json) -> Json:
        entries = hand_over(
            live["metadata"].get("managedFields") or (), created_by=self._created_by, manager=self._manager
        )
        if entries is None:
            return live
        operations = [
            # Whoever changes the object meanwhile changes this list too: with a version it is a Conflict, not a loss.
            {"op": "replace", "path": "/metadata/resourceVersion", "value": live["metadata"]["resourceVersion"]},
            {"op": "replace", "path": "/metadata/managedFields", "value": entries},
        ]
        return await self._patch(ref, operations, live, self._manager)

    async def _other_manager(self, ref: ObjectRef, found: tuple[Difference, ...]) -> str:
        live = await self._fetch(ref)
        entries = (live or {}).get("metadata", {}).get("managedFields") or ()
        return manager_of(entries, found[0].path, ours=self._manager)

    # One object that should not be there

    async def _prune(self, owner: ObjectRef, ref: ObjectRef) -> Outcome:
        cache = self._caches[ref.kind]
        memory = self._memory(ref)
        live = cache.get(ref.namespace, ref.name) if cache.is_synced else await self._fetch(ref)
        if live is None or live["metadata"]["uid"] != ref.uid:
            return Unchanged(ref=ref)
        if _controller(live).get("uid") != owner.uid:
            return Foreign(ref=ref, controller=_controller_text(live))
        if live["metadata"].get("deletionTimestamp"):
            return Terminating(ref=ref, finalizers=tuple(live["metadata"].get("finalizers") or ()))
        if memory.deleted == ref.uid:
            return Unchanged(ref=ref)  # deleted a moment ago; only the cache does not know yet
        was_there = await self._client.delete(ref.kind, ref.namespace, ref.name, uid=ref.uid)
        memory.deleted = ref.uid
        return Pruned(ref=ref) if was_there else Unchanged(ref=ref)

    # Common

    async def _fetch(self, ref: ObjectRef) -> Json | None:
        live = await self._client.get(ref.kind, ref.namespace, ref.name)
        if live is not None:
            self._caches[ref.kind].absorb(live)
        return live

    def _note_written(self, ref: ObjectRef, intent: Json, digest: str, memory: _Memory, stored: Json) -> None:
        self._caches[ref.kind].absorb(stored)
        memory.written = digest
        memory.stored_differently = (digest, differences(intent, stored))

    def _memory(self, ref: ObjectRef) -> _Memory:
        key = (ref.kind, ref.namespace, ref.name)
        memory = self._memories.pop(key, None) or _Memory()
        self._memories[key] = memory
        if len(self._memories) > _REMEMBERED:
            self._memories.popitem(last=False)
        return memory


def restore_lists(intent: Json, live: Json, found: tuple[Difference, ...]) -> list[Json]:
    """A JSON patch that puts back each list from which an item of ours has vanished.

    Somebody who edits the very key of an item (a Service's port number) makes it another item. An apply adds ours
    beside it, and what the two share, such as the port's name, makes the object invalid. Empty when that is not the case.
    Items of others stay, unless they have the name of one of ours.
    """
    lists: dict[str, list[Json]] = {}
    for difference in found:
        steps = next((difference.path[:i] for i, step in enumerate(difference.path) if isinstance(step, Item)), None)
        # Only lists outside of other lists: children have no key below one that is worth an edit by hand.
        if steps is None or difference.live:
            continue
        item = difference.path[len(steps)]
        assert isinstance(item, Item)
        mine, theirs = _at(intent, steps), _at(live, steps)
        names = {one["name"] for one in mine if "name" in one}
        keys = [item.like(one) for one in mine]
        others = [one for one in theirs if one.get("name") not in names and item.like(one) not in keys]
        lists["/" + "/".join(str(step).replace("~", "~0").replace("/", "~1") for step in steps)] = mine + others
    if not lists:
        return []
    # Whoever changes the object meanwhile makes it a Conflict, not a loss. A `test` would make it Invalid.
    version = {"op": "replace", "path": "/metadata/resourceVersion", "value": live["metadata"]["resourceVersion"]}
    return [version, *({"op": "replace", "path": path, "value": value} for path, value in lists.items())]


def patch_fields(intent: Json, live: Json, found: tuple[Difference, ...]) -> list[Json]:
    """A JSON patch of exactly the fields that differ; empty where one of them lies in a list.

    What an apply writes anew although it is equal may be refused: version 0.1.0 stored the data of ControllerRevisions in
    another order of keys, and an apply's order is a change there. A patch leaves the bytes of everything else alone.
    """
    operations: list[Json] = []
    for difference in found:
        if not all(isinstance(step, str) for step in difference.path) or not difference.path:
            return []
        *parents, last = difference.path
        value: Any = intent
        for step in difference.path:
            value = value[step]
        steps = "/".join(str(step).replace("~", "~0").replace("/", "~1") for step in (*parents, last))
        operations.append({"op": "add", "path": f"/{steps}", "value": value})
    version = {"op": "replace", "path": "/metadata/resourceVersion", "value": live["metadata"]["resourceVersion"]}
    return [version, *operations] if operations else []


def _unescaped(step: str) -> str:
    """A step of a JSON pointer. Source: RFC 6901, section 4."""
    return step.replace("~1", "/").replace("~0", "~")


def _at(obj: Json, steps: Sequence[Any]) -> list[Json]:
    """The list at a path; empty where there is none."""
    node: Any = obj
    for step in steps:
        node = node.get(step, {})
    return node or []


async def _or_refused(ref: ObjectRef, work: Awaitable[Outcome]) -> Outcome:
    try:
        return await work
    except ApiError as error:
        return Refused(ref=ref, error=error)


def _is_ours(live: Json, owner: ObjectRef, digest: str) -> bool:
    """Our uid as controller. Or no controller and our very digest, which covers the owner's uid: then somebody has
    removed the owner reference of a child that we wrote for this parent."""
    controller = _controller(live)
    return controller.get("uid") == owner.uid or (not controller and _applied(live) == digest)


def _controller(live: Json) -> Json:
    references = live["metadata"].get("ownerReferences") or ()
    return next((reference for reference in references if reference.get("controller")), {})


def _controller_text(live: Json) -> str:
    controller = _controller(live)
    return f'{controller.get("kind")} "{controller.get("name")}"' if controller else ""


def _applied(live: Json) -> str:
    return str((live["metadata"].get("annotations") or {}).get(ANNOTATION_APPLIED) or "")


def _texts(found: tuple[Difference, ...]) -> tuple[str, ...]:
    return tuple(path_text(difference.path) for difference in found)


def _with_uid(ref: ObjectRef, live: Json) -> ObjectRef:
    return replace(ref, uid=str(live["metadata"]["uid"]))
