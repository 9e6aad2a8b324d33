"""What is around the operator in a real cluster without engines: `python -m bench.scale_kwok_server KUBECONFIG AUDIT_LOG`.

It creates and edits the services, writes what kubelets write, answers for every gateway pod, and counts the operator's
writes in the API server's audit log. The commands are those of `bench.scale_server`.
"""

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from aiohttp import web

from bench.scale_server import OF_A_REVISION, serve_gateways
from draftmark.api import names
from draftmark.cluster import kinds
from draftmark.cluster.client import ApiClient
from draftmark.cluster.credentials import Credentials
from draftmark.cluster.errors import Gone, TooManyRequests, Unavailable
from draftmark.cluster.kinds import (
    CONFIG_MAPS,
    CONTROLLER_REVISIONS,
    DEPLOYMENTS,
    INFERENCE_SERVICES,
    PODS,
    SERVICES,
    Kind,
)
from tests.specs import gateway_state

Json = dict[str, Any]

NAMESPACE = "default"
#: Requests of ours that are under way at the same time. They keep two cores busy. More would only wait in the API server,
#: and the operator's requests behind them: with 32 it lost its Lease on a machine that others used, too.
_AT_ONCE = 8
_KIND_OF = {right.kind.plural: right.kind.kind for right in kinds.RIGHTS}
#: What a new revision needs beside the objects of its service.
_REVISION_KINDS = {kind.plural for kind in (CONTROLLER_REVISIONS, DEPLOYMENTS, SERVICES)}
_GATEWAYS = f"{names.LABEL_ROLE}={names.ROLE_GATEWAY}"


@dataclass
class Writes:
    """The operator's writes, as the API server has written them down."""

    log: Path
    #: By verb, kind and, of those that were refused, the status; without Leases.
    counted: Counter[str] = field(default_factory=Counter)
    #: Objects created less objects deleted.
    objects: int = 0
    #: Edited services: when, in seconds since 1970, and how many objects of the new revision were created since.
    edits: dict[str, tuple[float, int]] = field(default_factory=dict)
    #: Seconds from an edit until the new revision's pin, its engine and its router were created, by service.
    took: dict[str, float] = field(default_factory=dict)
    _offset: int = 0

    def read(self) -> None:
        """Take up what was written since the last time."""
        with self.log.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):  # the rest comes later
                    break
                self._offset += len(line)
                self._note(json.loads(line))

    def _note(self, event: Json) -> None:
        verb, ref, code = event["verb"], event["objectRef"], event["responseStatus"]["code"]
        if ref["resource"] == kinds.LEASES.plural:
            return
        what = _KIND_OF.get(ref["resource"], ref["resource"]) + (
            "/" + ref["subresource"] if "subresource" in ref else ""
        )
        self.counted[f"{verb} {what}" + (f" ({code})" if code >= 300 else "")] += 1
        if code >= 300:
            return
        self.objects += {"create": 1, "delete": -1}.get(verb, 0)
        service = ref.get("name", "").partition("-")[0]
        if verb == "create" and ref["resource"] in _REVISION_KINDS and service in self.edits:
            at, made = self.edits[service]
            self.edits[service] = (at, made + 1)
            if made + 1 == OF_A_REVISION:
                self.took[service] = datetime.fromisoformat(event["stageTimestamp"]).timestamp() - at
                del self.edits[service]


class Surroundings:
    """The namespace as watches show it, and what is done to it."""

    def __init__(self, api: ApiClient, log: Path) -> None:
        self.api = api
        self.writes = Writes(log)
        self.services: set[str] = set()
        self.ready: set[str] = set()
        self.pods: set[str] = set()
        #: Each gateway pod and its service, by its address.
        self.gateways: dict[str, tuple[str, str]] = {}
        #: What each gateway works with, by the name of its ConfigMap.
        self.states: dict[str, Json] = {}

    # What is seen

    async def follow(
        self, kind: Kind, selector: str | None, forget: Callable[[], None], note: Callable[[Json, bool], None]
    ) -> None:
        """List, then watch, until cancelled; again when the API server does not know the version any more.

        Args:
            forget: Called before each list.
            note: Told of each object, and whether it is there.
        """
        while True:
            forget()
            version = ""
            async for page in self.api.list_pages(kind, NAMESPACE, label_selector=selector):
                version = page.resource_version
                for item in page.items:
                    note(item, True)
            with suppress(Gone):
                await self._watch(kind, selector, version, note)

    async def _watch(self, kind: Kind, selector: str | None, version: str, note: Callable[[Json, bool], None]) -> None:
        while True:
            try:
                async for event in self.api.watch(kind, NAMESPACE, resource_version=version, label_selector=selector):
                    version = event.object["metadata"]["resourceVersion"]
                    if event.type != "BOOKMARK":
                        note(event.object, event.type != "DELETED")
            except Unavailable:  # nothing has changed for so long that the connection counts as dead
                continue
            except TooManyRequests:  # the API server has just learnt of our kinds
                await asyncio.sleep(1)

    def forget_services(self) -> None:
        self.services.clear()
        self.ready.clear()

    def note_service(self, item: Json, is_there: bool) -> None:
        name, status = item["metadata"]["name"], item.get("status") or {}
        conditions = {c["type"]: c["status"] for c in status.get("conditions") or ()}
        is_current = status.get("observedGeneration") == item["metadata"]["generation"]
        (self.services.add if is_there else self.services.discard)(name)
        (self.ready.add if is_there and is_current and conditions.get("Ready") == "True" else self.ready.discard)(name)

    def forget_pods(self) -> None:
        self.pods.clear()
        self.gateways.clear()

    def note_pod(self, item: Json, is_there: bool) -> None:
        name, labels = item["metadata"]["name"], item["metadata"]["labels"]
        address = str((item.get("status") or {}).get("podIP") or "")
        (self.pods.add if is_there else self.pods.discard)(name)
        if labels[names.LABEL_ROLE] != names.ROLE_GATEWAY:
            return
        if is_there and address:
            self.gateways[address] = (name, labels[names.LABEL_SERVICE])
        # KWOK gives an address again, and the successor may have been seen first.
        elif self.gateways.get(address, ("", ""))[0] == name:
            del self.gateways[address]

    def note_config(self, item: Json, is_there: bool) -> None:
        if not is_there:
            self.states.pop(item["metadata"]["name"], None)
            return
        state = gateway_state(item)
        revisions = {name: asdict(traffic) for name, traffic in state.revisions.items()}
        self.states[item["metadata"]["name"]] = {
            "config": state.config,
            "runtime": state.runtime,
            "revisions": revisions,
        }

    def state_of(self, address: str) -> Json:
        """What the gateway pod at an address works with: what its ConfigMap says now."""
        _, service = self.gateways.get(address, ("", ""))
        state = self.states.get(names.gateway_name(service))
        if state is None:  # the watch has not shown it yet; a real gateway would just be starting
            raise web.HTTPServiceUnavailable
        return state

    # What is done

    async def obey(self, command: Json) -> Json:
        match command["do"]:
            case "add":
                await _all(self._add(f"s{number:05d}", command["spec"]) for number in range(command["count"]))
            case "edit":
                self.writes.read()  # what was written before does not belong to the edit
                for name in command["names"]:
                    self.writes.edits[name] = (time.time(), 0)
                    await self.api.merge_patch(
                        INFERENCE_SERVICES, NAMESPACE, name, {"spec": command["spec"]}, field_manager="bench"
                    )
            case "touch":
                await _all(self._touch(name) for name in list(self.pods)[: command["count"]])
            case _:  # only to be told
                pass
        self.writes.read()
        return {
            "ready": len(self.ready),
            "writes": dict(self.writes.counted),
            "objects": len(self.services) + len(self.pods) + self.writes.objects,
            "pods": len(self.pods),
            "took": sorted(self.writes.took.values()),
        }

    async def _add(self, name: str, spec: Json) -> None:
        body = {"apiVersion": names.API_VERSION, "kind": names.KIND, "metadata": {"name": name}, "spec": spec}
        await self.api.create(INFERENCE_SERVICES, NAMESPACE, body, field_manager="bench")

    async def _touch(self, name: str) -> None:
        """What a kubelet writes when it has looked at a pod."""
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "status": {"conditions": [{"type": "Ready", "status": "True", "lastProbeTime": at}]},
        }
        await self.api.apply_status(PODS, NAMESPACE, name, body, field_manager="kubelet")


async def _all(calls: Iterable[Awaitable[None]]) -> None:
    turns = asyncio.Semaphore(_AT_ONCE)

    async def in_turn(call: Awaitable[None]) -> None:
        async with turns:
            await call

    await asyncio.gather(*(in_turn(call) for call in calls))


async def main(kubeconfig: str, log: str) -> None:
    async with ApiClient(Credentials.from_environment(kubeconfig)) as api, asyncio.TaskGroup() as tasks:
        around = Surroundings(api, Path(log))
        await serve_gateways(around.state_of)
        for kind, selector, forget, note in (
            (INFERENCE_SERVICES, None, around.forget_services, around.note_service),
            (PODS, names.LABEL_SERVICE, around.forget_pods, around.note_pod),
            (CONFIG_MAPS, _GATEWAYS, around.states.clear, around.note_config),
        ):
            tasks.create_task(around.follow(kind, selector, forget, note))
        commands = asyncio.StreamReader()
        # Not read in a thread: it could not be interrupted when a watch fails.
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
        print(json.dumps({}), flush=True)
        while line := await commands.readline():
            print(json.dumps(await around.obey(json.loads(line))), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
