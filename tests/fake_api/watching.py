"""Lists and watches, and what can be done to the latter."""

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass

from aiohttp import web

from draftmark.cluster.kinds import Kind
from tests.fake_api.faults import EventFault, Faults
from tests.fake_api.fields import Json
from tests.fake_api.records import Request
from tests.fake_api.storage import Change, Refusal, Storage


@dataclass
class _Watcher:
    kind: Kind
    selector: dict[str, str]
    namespace: str
    response: web.StreamResponse
    client: str = ""
    muted: bool = False
    #: An event that comes after the next one.
    held: tuple[str, Json] | None = None

    async def send(self, type_: str, obj: Json) -> None:
        if not self.muted:
            await self.response.write(json.dumps({"type": type_, "object": obj}).encode() + b"\n")


class Watching:
    """The part of the server that lists and watches what is stored."""

    def __init__(self, storage: Storage, faults: Faults) -> None:
        self.storage = storage
        self.faults = faults
        self.bookmark_interval_s = 0.05
        self._watchers: list[_Watcher] = []
        self._watch_tasks: set[asyncio.Task[object]] = set()

    # What tests do to watches

    def watchers(self, kind: Kind) -> int:
        return sum(watcher.kind == kind for watcher in self._watchers)

    def is_watched(self, kind: Kind, client: str) -> bool:
        return any(watcher.kind == kind and watcher.client == client for watcher in self._watchers)

    async def inject(self, kind: Kind, type_: str, obj: Json) -> None:
        """Send an event that the history does not contain."""
        for watcher in self._of(kind):
            await watcher.send(type_, obj)

    async def fail_watches(self, kind: Kind, code: int, reason: str) -> None:
        """End the watches of a kind with an ERROR event."""
        for watcher in self._of(kind):
            await watcher.send("ERROR", Refusal(code, reason, "injected").status())
            watcher.muted = True

    def cut_watches(self, kind: Kind) -> None:
        for watcher in self._of(kind):
            watcher.muted = True
            transport = watcher.response._req.transport if watcher.response._req else None
            if transport is not None:
                transport.abort()

    def mute_watches(self, kind: Kind) -> None:
        """Half-open connections: they stay, and nothing comes any more."""
        for watcher in self._of(kind):
            watcher.muted = True

    def drop_events(self, kind: Kind, number: int) -> None:
        """The next events of this kind are never delivered to a watch."""
        self.fault_events(kind=kind, times=number, drop=True)

    def fault_events(self, **rule: object) -> EventFault:
        fault = EventFault(**rule)  # type: ignore[arg-type]
        self.faults.events.append(fault)
        return fault

    def _of(self, kind: Kind) -> list[_Watcher]:
        return [watcher for watcher in self._watchers if watcher.kind == kind]

    # List and watch

    def _list(self, request: web.Request, logged: Request, *, as_of: int | None = None) -> Json:
        kind = logged.kind
        assert kind is not None
        limit = int(logged.query.get("limit", "0"))
        after, version = "", self.storage.version if as_of is None else as_of
        if token := logged.query.get("continue"):
            after, at = token.rsplit("@", 1)
            version = int(at)
            if version < self.storage.oldest[kind]:
                raise Refusal(410, "Expired", "the provided continue parameter is too old")
        items: list[Json] = []
        more = ""
        for key, obj in sorted(self._at(kind, version).items()):
            text = "/".join(key)
            if text <= after or not _selected(obj, logged.query, logged.namespace):
                continue
            if limit and len(items) == limit:
                more = (
                    f"{'/'.join((items[-1]['metadata'].get('namespace', ''), items[-1]['metadata']['name']))}@{version}"
                )
                break
            items.append(obj)
        if "PartialObjectMetadataList" in request.headers.get("Accept", ""):
            items = [{"metadata": item["metadata"]} for item in items]
        elif kind.group != "draftmark.dev":
            # As the real one: items of built-in kinds do not name their kind.
            items = [{k: v for k, v in item.items() if k not in ("apiVersion", "kind")} for item in items]
        return {
            "kind": f"{kind.kind}List",
            "apiVersion": kind.api_version,
            "metadata": {"resourceVersion": str(version), **({"continue": more} if more else {})},
            "items": items,
        }

    def _at(self, kind: Kind, version: int) -> dict[tuple[str, str], Json]:
        """All objects as they were at a version: later pages show the same moment as the first."""
        objects = {key: stored.full() for key, stored in self.storage.objects[kind].items()}
        for change in reversed(self.storage.history[kind]):
            if change.version <= version:
                break
            metadata = (change.after or change.before or {})["metadata"]
            key = (metadata.get("namespace", ""), metadata["name"])
            if change.before is None:
                objects.pop(key, None)
            else:
                objects[key] = change.before
        return objects

    async def _watch(self, request: web.Request, logged: Request) -> web.StreamResponse:
        kind = logged.kind
        assert kind is not None
        sent = int(logged.query.get("resourceVersion") or self.storage.version)
        self.storage.since(kind, sent)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        watcher = _Watcher(kind, {}, logged.namespace, response, logged.client)
        self._watchers.append(watcher)
        task = asyncio.current_task()
        assert task is not None
        self._watch_tasks.add(task)
        loop = asyncio.get_running_loop()
        ends = loop.time() + float(logged.query.get("timeoutSeconds", "3600"))
        try:
            while loop.time() < ends and request.transport is not None:
                try:
                    changes = self.storage.since(kind, sent)
                except Refusal as refusal:
                    await watcher.send("ERROR", refusal.status())
                    break
                except KeyError:  # the kind was removed
                    break
                for change in changes:
                    sent = change.version
                    await self._deliver(watcher, logged, change)
                if await self._nothing_new(kind, sent, ends) and not self.storage.is_news(kind, sent):
                    await self._send_held(watcher)
                    sent = max(sent, self.storage.version)
                    metadata = {"resourceVersion": str(sent), "creationTimestamp": None}
                    await watcher.send("BOOKMARK", {"kind": kind.kind, "metadata": metadata})
        except (ConnectionResetError, asyncio.CancelledError):
            pass
        finally:
            self._watch_tasks.discard(task)
            self._watchers.remove(watcher)
        return response

    async def _nothing_new(self, kind: Kind, sent: int, ends: float) -> bool:
        """Wait for a change; True when a bookmark is due first."""
        left = min(self.bookmark_interval_s, max(ends - asyncio.get_running_loop().time(), 0.0))
        with suppress(TimeoutError):
            async with asyncio.timeout(left), self.storage.changed:
                await self.storage.changed.wait_for(lambda: self.storage.is_news(kind, sent))
                return False
        return True

    async def _deliver(self, watcher: _Watcher, logged: Request, change: Change) -> None:
        before = change.before if change.before and _selected(change.before, logged.query, logged.namespace) else None
        after = change.after if change.after and _selected(change.after, logged.query, logged.namespace) else None
        if before is None and after is None:
            return
        event = ("MODIFIED" if before else "ADDED", after) if after is not None else ("DELETED", _gone(change))
        fault = self.faults.match_event(watcher.kind)
        if fault is not None:
            if fault.drop:
                return
            if fault.swap and watcher.held is None:
                watcher.held = event
                return
            if fault.late_s is not None:
                await asyncio.sleep(fault.late_s)
        await watcher.send(*event)
        if fault is not None and fault.twice:
            await watcher.send(*event)
        await self._send_held(watcher)

    async def _send_held(self, watcher: _Watcher) -> None:
        held, watcher.held = watcher.held, None
        if held is not None:
            await watcher.send(*held)


def _gone(change: Change) -> Json:
    assert change.before is not None
    return {**change.before, "metadata": {**change.before["metadata"], "resourceVersion": str(change.version)}}


def _selected(obj: Json, query: dict[str, str], namespace: str) -> bool:
    metadata = obj["metadata"]
    if namespace and metadata.get("namespace") != namespace:
        return False
    labels = metadata.get("labels") or {}
    wanted = (part.partition("=") for part in query.get("labelSelector", "").split(",") if part)
    return all(labels.get(key) == value if equal else key in labels for key, equal, value in wanted)
