"""A cache of one kind that is never wrong for long, and never the reason to stop.

List, then watch from there. Whatever goes wrong (a broken connection, an expired version, a missing permission, a kind
that is not installed) is waited out; the cache stays as it was, because not seeing an object is no news about it.
Deletions that fell into a gap are found by comparing the next list with the cache, and a list every ten minutes finds
what no watch delivered.

Two sources write here: the watch, and our own writes (`absorb`), whose answer is newer than the watch for a moment.
One rule decides between them, whatever the order or number of events: for a name, the higher resourceVersion wins.
Versions are compared as integers; Kubernetes documents them as comparable within a kind. A deletion leaves the version
at which it was seen, so that a late event cannot bring the object back.

Memory: objects are kept packed (`cluster.packing`); the latest of them are kept unpacked, too. Readers share them, and must
not change them.
"""

import asyncio
import logging
import random
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from sys import intern
from typing import Any, Final, Generic, TypeVar, cast, overload

from draftmark.cluster.client import ApiClient, WatchEvent
from draftmark.cluster.errors import ApiError, Forbidden, Gone, NotFound
from draftmark.cluster.kinds import Kind
from draftmark.cluster.packing import Packer
from draftmark.cluster.wire import Json

__all__ = ["Informer"]

_log = logging.getLogger(__name__)

T = TypeVar("T")

_SHORTEST_BACKOFF_S: Final = 0.5
_LONGEST_BACKOFF_S: Final = 30.0
#: How long a deletion is remembered. A guess: longer than any event can be late.
_TOMBSTONE_S: Final = 300.0
#: A watch that ends sooner is followed by a pause, so that a server that ends each at once is not flooded.
_SHORT_WATCH_S: Final = 1.0
#: Objects in a page of a list. A page is kept unpacked until it is stored, and all kinds are listed at once: with pages of
#: 500, of 10 kinds, the lists took 120 MiB at the start.
PAGE_SIZE: Final = 100
#: Objects of a kind that are kept unpacked beside the packed ones: those of some dozens of services.
_RECENT: Final = 128


@dataclass(slots=True)
class _Entry:
    uid: str
    version: int
    owner_uid: str
    packed: bytes
    #: What a reader has noted down about this version of the object.
    note: bytes = b""


class Informer(Generic[T]):
    """The objects of one kind, by name and by the uid of their controller.

    Args:
        on_change: Called with (None, new), (old, new) or (old, None). A successor of the same name is two calls. It
            must be quick and must not raise; usually it adds a key to the queue.
        namespace: None means all namespaces.
        project: What to keep of an object. Default: all but `metadata.managedFields`.
        is_optional: The kind may be missing, or not be ours to read: then there is nothing of it, which is no error, and it
            is asked for again as seldom as lists are compared.
    """

    @overload
    def __init__(
        self: "Informer[Json]",
        client: ApiClient,
        kind: Kind,
        *,
        on_change: Callable[[Json | None, Json | None], None] | None = None,
        namespace: str | None = None,
        label_selector: str | None = None,
        project: None = None,
        resync_s: float = 600.0,
        inactivity_timeout_s: float = 75.0,
        page_size: int = PAGE_SIZE,
        is_optional: bool = False,
    ) -> None: ...

    @overload
    def __init__(
        self,
        client: ApiClient,
        kind: Kind,
        *,
        on_change: Callable[[T | None, T | None], None] | None = None,
        namespace: str | None = None,
        label_selector: str | None = None,
        project: Callable[[Json], T],
        resync_s: float = 600.0,
        inactivity_timeout_s: float = 75.0,
        page_size: int = PAGE_SIZE,
        is_optional: bool = False,
    ) -> None: ...

    def __init__(
        self,
        client: ApiClient,
        kind: Kind,
        *,
        on_change: Callable[[Any, Any], None] | None = None,
        namespace: str | None = None,
        label_selector: str | None = None,
        project: Callable[[Json], Any] | None = None,
        resync_s: float = 600.0,
        inactivity_timeout_s: float = 75.0,
        page_size: int = PAGE_SIZE,
        is_optional: bool = False,
    ) -> None:
        self.kind = kind
        #: Set after the first complete list; of an optional kind also when it is not there.
        self.synced = asyncio.Event()
        #: When the API server last said something about this kind, on the monotonic clock; 0.0 before.
        self.last_heard = 0.0
        #: Why the kind cannot be read, while that is so.
        self.denied: str | None = None
        #: Why the kind is not there, while that is so.
        self.absent: str | None = None
        self._client = client
        self._on_change = on_change
        self._namespace = namespace
        self._label_selector = label_selector
        self._project = project
        self._resync_s = resync_s
        self._inactivity_timeout_s = inactivity_timeout_s
        self._page_size = page_size
        self._is_optional = is_optional
        self._packer = Packer()
        self._entries: dict[tuple[str, str], _Entry] = {}
        self._recent: OrderedDict[tuple[str, str], tuple[_Entry, T]] = OrderedDict()
        self._owned: dict[str, set[tuple[str, str]]] = {}
        self._tombstones: dict[tuple[str, str], int] = {}
        self._tombstone_ages: deque[tuple[float, tuple[str, str], int]] = deque()
        self._listed_at = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def is_synced(self) -> bool:
        return self.synced.is_set()

    def get(self, namespace: str | None, name: str) -> T | None:
        entry = self._entries.get((namespace or "", name))
        return None if entry is None else self._give((namespace or "", name), entry)

    def note(self, obj: Json, note: bytes) -> None:
        """Note something down about an object; it is forgotten when the object changes, or has changed since."""
        entry = self._entries.get(_key(obj))
        if entry is not None and entry.version == int(obj["metadata"]["resourceVersion"]):
            entry.note = note

    def noted(self, namespace: str | None, name: str) -> bytes:
        """What was noted down about an object as it is now; empty: nothing."""
        entry = self._entries.get((namespace or "", name))
        return entry.note if entry is not None else b""

    def owned_by(self, uid: str) -> list[T]:
        """The objects whose controller has this uid, by namespace and name."""
        return [self._give(key, self._entries[key]) for key in sorted(self._owned.get(uid, ()))]

    def values(self) -> Iterator[T]:
        for key, entry in list(self._entries.items()):
            yield self._give(key, entry)

    def absorb(self, obj: Json) -> None:
        """Take the answer of an own write. An answer that is older than the cache is ignored."""
        self._upsert(obj)

    async def run(self) -> None:
        """List and watch until cancelled."""
        backoff_s = _SHORTEST_BACKOFF_S
        version: str | None = None
        relist_at = 0.0
        while True:
            started = time.monotonic()
            try:
                if version is None or started >= relist_at:
                    version = await self._list()
                    relist_at = time.monotonic() + self._resync_s * random.uniform(0.8, 1.2)
                version, heard = await self._watch(version, relist_at - time.monotonic())
                if heard:
                    backoff_s = _SHORTEST_BACKOFF_S
                if time.monotonic() - started >= _SHORT_WATCH_S:
                    continue
                wait = backoff_s
            except _WatchEnded as ended:
                # The events that were delivered before the end count: go on from the last one, if it still exists.
                version = None if _lost_history(ended.error) else ended.version
                lasted_s = time.monotonic() - started
                if ended.heard or lasted_s >= _SHORT_WATCH_S:
                    backoff_s = _SHORTEST_BACKOFF_S
                wait = self._note(ended.error, backoff_s, is_quiet=lasted_s >= self._inactivity_timeout_s)
            except ApiError as error:
                version = None
                wait = self._note(error, backoff_s)
            except Exception:  # noqa: BLE001 - a task that died silently would look like a quiet cluster
                _log.exception("%s: the watch met what it does not understand; listing again.", self.kind.resource)
                version = None
                wait = backoff_s
            await asyncio.sleep(max(wait * random.uniform(0.5, 1.0), 0.0))
            backoff_s = min(backoff_s * 2, _LONGEST_BACKOFF_S)

    def _note(self, error: ApiError, backoff_s: float, *, is_quiet: bool = False) -> float:
        """Remember why the kind cannot be seen; returns the seconds to wait.

        Args:
            is_quiet: The watch was open and silent for as long as one may be; on a quiet cluster that is ordinary.
        """
        if isinstance(error, Gone):
            _log.info("%s: the version is too old; listing again.", self.kind.resource)
            return 0.0 if backoff_s <= _SHORTEST_BACKOFF_S else backoff_s
        before = self.denied or self.absent
        self.denied = error.message if isinstance(error, Forbidden) else None
        self.absent = error.message if isinstance(error, NotFound) else None
        why = self.denied or self.absent
        # What stays so until somebody acts is said once.
        is_old = is_quiet or (why is not None and why == before)
        if self._is_optional and why is not None:
            self.synced.set()
            _log.log(
                logging.DEBUG if is_old else logging.INFO, "%s is done without: %s", self.kind.resource, error.message
            )
            return self._resync_s
        level = logging.DEBUG if is_old else logging.WARNING if why else logging.INFO
        _log.log(level, "%s cannot be watched now, trying again: %s", self.kind.resource, error.message)
        return max(backoff_s, 2.0 * (error.retry_after_s or 0.0))  # doubled: the caller waits half of it at least

    # List and watch

    async def _list(self) -> str:
        try:
            return await self._list_once(self._page_size)
        except Gone:
            # The continue token expired between two pages: once more, in one piece.
            return await self._list_once(0)

    async def _list_once(self, page_size: int) -> str:
        seen: set[tuple[str, str]] = set()
        version = ""
        pages = self._client.list_pages(
            self.kind, self._namespace, limit=page_size, label_selector=self._label_selector
        )
        async with aclosing(pages):
            async for page in pages:
                self._heard()
                if not seen:
                    self._notice_restored_backup(int(page.resource_version or "0"))
                version = page.resource_version
                for obj in page.items:
                    seen.add(_key(obj))
                    self._upsert(obj)
                # A page takes some milliseconds to store; others may run in between.
                await asyncio.sleep(0)
        listed_at = int(version or "0")
        for key, entry in list(self._entries.items()):
            # What is newer than the list was written by us meanwhile.
            if key not in seen and entry.version <= listed_at:
                self._delete(key, listed_at)
        self.synced.set()
        return version

    def _notice_restored_backup(self, listed_at: int) -> None:
        """Versions that go backwards mean that etcd was restored: what the cache knows is not newer, only different."""
        if listed_at < self._listed_at:
            _log.warning("%s: resourceVersions went backwards; the cache starts anew.", self.kind.resource)
            self._tombstones.clear()
            self._tombstone_ages.clear()
            for key, entry in self._entries.items():
                self._entries[key] = replace(entry, version=-1)
        self._listed_at = listed_at

    async def _watch(self, version: str, seconds_to_resync: float) -> tuple[str, bool]:
        """Follow the changes; returns the version to go on from, and whether anything came."""
        timeout_s = max(1, int(min(random.uniform(240, 300), seconds_to_resync)))
        events = self._client.watch(
            self.kind,
            self._namespace,
            resource_version=version,
            label_selector=self._label_selector,
            timeout_s=timeout_s,
            inactivity_timeout_s=self._inactivity_timeout_s,
            # An accepted watch is a sign of life: of a kind that never changes there may be no other.
            on_open=self._heard,
        )
        heard = False
        try:
            async with aclosing(events):
                async for event in events:
                    heard = True
                    self._heard()
                    version = str(event.object["metadata"]["resourceVersion"])
                    self._take(event)
        except ApiError as error:
            raise _WatchEnded(version, heard, error) from error
        self._heard()
        return version, heard

    def _heard(self) -> None:
        self.last_heard = time.monotonic()
        self.denied = None
        self.absent = None

    def _take(self, event: WatchEvent) -> None:
        match event.type:
            case "ADDED" | "MODIFIED":
                self._upsert(event.object)
            case "DELETED":
                metadata = event.object["metadata"]
                self._delete(_key(event.object), int(metadata["resourceVersion"]))
            case _:  # a bookmark carries only the version
                pass

    # Cache

    def _upsert(self, obj: Json) -> None:
        metadata = obj["metadata"]
        key = _key(obj)
        version = int(metadata["resourceVersion"])
        before = self._entries.get(key)
        if version <= self._tombstones.get(key, -1) or (before is not None and version <= before.version):
            return
        value = self._keep(obj)
        entry = _Entry(str(metadata["uid"]), version, _controller_uid(metadata), self._packer.pack(value))
        self._entries[key] = entry
        old = None if before is None or self._on_change is None else self._give(key, before)
        self._remember(key, entry, value)
        if before is not None and before.owner_uid != entry.owner_uid:
            self._disown(before.owner_uid, key)
        if entry.owner_uid:
            self._owned.setdefault(entry.owner_uid, set()).add(key)
        if before is not None and before.uid != entry.uid:
            self._tell(old, None)
            old = None
        self._tell(old, value)

    def _delete(self, key: tuple[str, str], version: int) -> None:
        if version > self._tombstones.get(key, -1):
            now = time.monotonic()
            self._tombstones[key] = version
            self._tombstone_ages.append((now, key, version))
            while self._tombstone_ages[0][0] < now - _TOMBSTONE_S:
                _, old_key, old_version = self._tombstone_ages.popleft()
                if self._tombstones.get(old_key) == old_version:
                    del self._tombstones[old_key]
        before = self._entries.get(key)
        if before is None or before.version > version:
            return
        del self._entries[key]
        self._disown(before.owner_uid, key)
        old = self._give(key, before) if self._on_change is not None else None
        self._recent.pop(key, None)
        self._tell(old, None)

    def _disown(self, owner_uid: str, key: tuple[str, str]) -> None:
        keys = self._owned.get(owner_uid)
        if keys is not None:
            keys.discard(key)
            if not keys:
                del self._owned[owner_uid]

    def _tell(self, old: T | None, new: T | None) -> None:
        if self._on_change is None:
            return
        try:
            self._on_change(old, new)
        except Exception:  # noqa: BLE001 - a bug of the listener must not end the watch for everybody else
            _log.exception("%s: the listener failed on a change.", self.kind.resource)

    def _keep(self, obj: Json) -> T:
        """What readers get of an object."""
        if self._project is not None:
            return cast(T, self._project(obj))
        metadata = {field: value for field, value in obj["metadata"].items() if field != "managedFields"}
        return cast(T, {**obj, "metadata": metadata})

    def _give(self, key: tuple[str, str], entry: _Entry) -> T:
        recent = self._recent.get(key)
        if recent is not None and recent[0] is entry:
            self._recent.move_to_end(key)
            return recent[1]
        value = cast(T, self._packer.unpack(entry.packed))
        if self._entries.get(key) is entry:
            self._remember(key, entry, value)
        return value

    def _remember(self, key: tuple[str, str], entry: _Entry, value: T) -> None:
        """Keep what was read lately as it is: one look at a service reads each of its objects two or three times."""
        self._recent[key] = (entry, value)
        self._recent.move_to_end(key)
        if len(self._recent) > _RECENT:
            self._recent.popitem(last=False)


class _WatchEnded(Exception):
    """A watch ended with an error, after some events or none."""

    def __init__(self, version: str, heard: bool, error: ApiError) -> None:
        super().__init__(error.message)
        self.version = version
        self.heard = heard
        self.error = error


def _lost_history(error: ApiError) -> bool:
    """True when the version is worth nothing: expired, of a kind that was removed, or from before a restored backup."""
    return isinstance(error, Gone | NotFound) or any(c.reason == "ResourceVersionTooLarge" for c in error.causes)


def _key(obj: Json) -> tuple[str, str]:
    metadata = obj["metadata"]
    return intern(str(metadata.get("namespace") or "")), str(metadata["name"])


def _controller_uid(metadata: Json) -> str:
    for reference in metadata.get("ownerReferences") or ():
        if reference.get("controller"):
            return intern(str(reference["uid"]))
    return ""
