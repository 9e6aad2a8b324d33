"""Events on transitions, each told once."""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime

from draftmark.api import names
from draftmark.api.conditions import shorten
from draftmark.cluster.client import ApiClient
from draftmark.cluster.errors import AlreadyExists, ApiError
from draftmark.cluster.kinds import EVENTS
from draftmark.observation import Json
from draftmark.status import Transition

#: Longest note that the API server takes, in characters. Source: core/v1 Event validation.
_MAX_NOTE = 1024

logger = logging.getLogger(__name__)


async def record(client: ApiClient, about: Json, transitions: Sequence[Transition], now: datetime) -> None:
    """Write one Event per transition.

    The name is made from what happened and to which generation, not from the words. So a process that dies between the
    Event and the status, and does both again, tells nothing twice, also when more replicas are ready by then; and what
    comes and goes is told once, until the API server forgets the Event (after an hour by default). An Event that cannot be
    written is logged and lost: nothing may wait for it.
    """
    metadata = about["metadata"]
    stamp = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    for transition in transitions:
        identity = [metadata.get("uid"), metadata.get("generation"), transition.reason, transition.subject]
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "name": f"{metadata['name']}.{names.short_hash(identity)}",
                "namespace": metadata["namespace"],
            },
            "involvedObject": {
                "apiVersion": about.get("apiVersion", names.API_VERSION),
                "kind": about.get("kind", names.KIND),
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata.get("uid"),
            },
            "type": transition.type,
            "reason": transition.reason,
            "message": shorten(transition.message, _MAX_NOTE),
            "source": {"component": names.MANAGED_BY},
            "reportingComponent": f"{names.GROUP}/{names.MANAGED_BY}",
            "firstTimestamp": stamp,
            "lastTimestamp": stamp,
            "count": 1,
        }
        try:
            await client.create(EVENTS, metadata["namespace"], body, field_manager=names.FIELD_MANAGER)
        except AlreadyExists:
            continue
        except ApiError as error:
            logger.warning("An Event could not be written: %s", error, extra={"service": metadata["name"]})
