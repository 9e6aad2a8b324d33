"""What is the same for every kind of ours: writing its status, and whether children are missing that it already had."""

import logging
import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Generic, TypeVar

from draftmark.api import names
from draftmark.cluster.client import ApiClient
from draftmark.cluster.compare import Path
from draftmark.cluster.contention import Fight
from draftmark.cluster.errors import Conflict, NotFound
from draftmark.cluster.kinds import Kind
from draftmark.controller.events import record
from draftmark.observation import Json
from draftmark.status import differs, transitions

logger = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)

_STATUS: Final[frozenset[Path]] = frozenset({("status",)})


async def write_status(
    client: ApiClient, kind: Kind, item: Json, status: Mapping[str, Any], now: datetime
) -> Json | None:
    """Write the status of an object of ours and tell its Events, where it differs from what the object carries.

    Args:
        item: The object as it was seen when the status was made.

    Returns:
        The object as it is now; the same where nothing differs; None when it was deleted, or deleted and made again.

    Raises:
        ApiError: The status could not be written.
    """
    metadata = item["metadata"]
    before = item.get("status") or {}
    if not differs(before, status):
        return item
    body = {
        "apiVersion": names.API_VERSION,
        "kind": kind.kind,
        # With the uid the status cannot reach a successor of the same name.
        "metadata": {"name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"]},
        "status": status,
    }
    await record(client, item, transitions(before, status), now)
    try:
        return await client.apply_status(
            kind, metadata["namespace"], metadata["name"], body, field_manager=names.STATUS_FIELD_MANAGER
        )
    except NotFound:
        return None
    except Conflict:
        # With a uid an object that is gone is a Conflict; so is one that others change too fast for the API server to
        # merge. The latter must be tried again: who is forgotten here is looked at no more until the next resync.
        live = await client.get(kind, metadata["namespace"], metadata["name"])
        if live is not None and live["metadata"].get("uid") == metadata["uid"]:
            raise
        return None


@dataclass(slots=True)
class _Written:
    """What this process has last written as the status of an object."""

    digest: str = ""
    fight: Fight = field(default_factory=Fight)


@dataclass(slots=True)
class StatusWriter(Generic[K]):
    """Writes the statuses of one kind, and gives way where somebody else keeps changing one back.

    Two operators that look after the same objects, because it was installed twice, agree on nothing: without a pause each
    would write whenever the other one has, for ever. It cannot be told in the status itself, so the log has it.

    Args:
        wake_after: Called with a key and seconds when a status that is held back is due.
    """

    client: ApiClient
    kind: Kind
    wake_after: Callable[[K, float], None]
    clock: Callable[[], float] = time.monotonic
    _written: dict[K, _Written] = field(default_factory=dict)

    async def write(self, key: K, item: Json, status: Mapping[str, Any], now: datetime) -> Json | None:
        """As `write_status`; the object as it was where the status is held back."""
        if not differs(item.get("status") or {}, status):
            return item
        digest, memory = names.short_hash(_undated(status)), self._written.setdefault(key, _Written())
        is_repair = memory.digest == digest
        if is_repair and (wait_s := memory.fight.wait_s(_STATUS, self.clock())) > 0.0:
            logger.warning(
                "Somebody else keeps changing the status of %s %s, so the next write waits %.0f s. Is the operator "
                "installed twice?",
                self.kind.kind,
                item["metadata"]["name"],
                wait_s,
            )
            self.wake_after(key, wait_s)
            return item
        written = await write_status(self.client, self.kind, item, status, now)
        memory.digest = digest
        if is_repair:
            memory.fight.note_repair(_STATUS, self.clock())
        return written

    def forget(self, key: K) -> None:
        """The object is gone."""
        self._written.pop(key, None)


def _undated(status: Mapping[str, Any]) -> dict[str, Any]:
    """A status without when its conditions have changed: whoever changes one back makes that another time."""
    bare = [{k: v for k, v in c.items() if k != "lastTransitionTime"} for c in status.get("conditions") or ()]
    return {**status, "conditions": bare}


def brings_back(item: Json, children: Mapping[str, Iterable[Json]], wanted: Iterable[Mapping[str, Any]]) -> bool:
    """Whether children are missing that this generation of an object already had."""
    if (item.get("status") or {}).get("observedGeneration") != item["metadata"].get("generation", 0):
        return False
    there = {(kind, child["metadata"]["name"]) for kind, items in children.items() for child in items}
    return any((m["kind"], m["metadata"]["name"]) not in there for m in wanted)
