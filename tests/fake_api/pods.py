"""What pods say: their logs, and what they answer through the API server's proxy."""

import asyncio
import re
from dataclasses import dataclass, field
from typing import Final

from aiohttp import web

from draftmark.cluster.kinds import PODS
from tests.fake_api.records import Request
from tests.fake_api.storage import Refusal, Storage

#: Namespace, pod, port and path.
POD_PORT: Final = re.compile(r"/api/v1/namespaces/([^/]+)/pods/([^/:]+):(\d+)/proxy(/.*)")


@dataclass
class PodLog:
    """The log of one container: timestamps and lines. While it is open, who follows waits for more."""

    lines: list[tuple[str, str]] = field(default_factory=list)
    #: Of the container before its last restart.
    previous: list[tuple[str, str]] = field(default_factory=list)
    is_open: bool = False


class Pods:
    """The part of the server that asks pods."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        #: By pod and container; a pod without an entry has not started.
        self.logs: dict[tuple[str, str], PodLog] = {}
        #: What pods answer, by pod, port and path; nothing else is listened to.
        self.pod_answers: dict[tuple[str, int, str], str] = {}

    def _ask_pod(self, path: str) -> web.Response:
        asked = POD_PORT.fullmatch(path)
        assert asked is not None
        self.storage.get(PODS, (asked[1], asked[2]))
        answer = self.pod_answers.get((asked[2], int(asked[3]), asked[4]))
        if answer is None:
            message = "error trying to reach service: dial tcp: connect: connection refused"
            raise Refusal(503, "ServiceUnavailable", message)
        return web.Response(text=answer)

    async def _log(self, request: web.Request, logged: Request) -> web.StreamResponse:
        query = logged.query
        key = (logged.namespace, logged.name)
        container = query.get("container") or self.storage.get(PODS, key).obj["spec"]["containers"][0]["name"]
        log = self.logs.get((logged.name, container))
        if log is None:
            message = f'container "{container}" in pod "{logged.name}" is waiting to start: ContainerCreating'
            raise Refusal(400, "BadRequest", message)
        lines = log.previous if query.get("previous") == "true" else log.lines
        if query.get("previous") == "true" and not lines:
            message = f'previous terminated container "{container}" in pod "{logged.name}" not found'
            raise Refusal(400, "BadRequest", message)
        first = max(len(lines) - int(query.get("tailLines", len(lines))), 0)
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        while True:
            for at, line in lines[first:]:
                # Whole seconds, as in the real one.
                if at[:19] >= query.get("sinceTime", "")[:19]:
                    stamp = f"{at} " if query.get("timestamps") == "true" else ""
                    await response.write(f"{stamp}{line}\n".encode())
            first = len(lines)
            if query.get("follow") != "true" or not log.is_open or key not in self.storage.objects[PODS]:
                return response
            await asyncio.sleep(0.01)
