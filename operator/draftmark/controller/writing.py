"""What is the same for every kind of ours: writing its status, and whether children are missing that it already had."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from draftmark.api import names
from draftmark.cluster.client import ApiClient
from draftmark.cluster.errors import Conflict, NotFound
from draftmark.cluster.kinds import Kind
from draftmark.controller.events import record
from draftmark.observation import Json
from draftmark.status import differs, transitions


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


def brings_back(item: Json, children: Mapping[str, Iterable[Json]], wanted: Iterable[Mapping[str, Any]]) -> bool:
    """Whether children are missing that this generation of an object already had."""
    if (item.get("status") or {}).get("observedGeneration") != item["metadata"].get("generation", 0):
        return False
    there = {(kind, child["metadata"]["name"]) for kind, items in children.items() for child in items}
    return any((m["kind"], m["metadata"]["name"]) not in there for m in wanted)
