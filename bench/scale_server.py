"""An API server for many services, and the cluster behind it, in one process: `python -m bench.scale_server`.

It speaks what the fake API server of the tests speaks, of which it takes routes and discovery, but keeps objects without
field ownership and hands changes to watches one by one, so that tens of thousands of objects are no work. An apply
replaces what it names and removes nothing. Deployments have their pods, ready, at once; each pod of a gateway answers on an
address of its own, with what its ConfigMap says.

One line of JSON on stdin is a command, one on stdout its answer; `bench.scale` gives them.
"""

import asyncio
import json
import re
import sys
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

from aiohttp import web

from draftmark.api import names
from draftmark.cluster.kinds import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    INFERENCE_SERVICES,
    PODS,
    SERVICES,
    Kind,
)
from tests.fake_api.records import Request
from tests.fake_api.server import FakeApi, merge
from tests.fake_api.storage import Refusal

Json = dict[str, Any]
Key = tuple[str, str]

#: Objects that a new revision needs beside those of its service.
OF_A_REVISION = 4
_VERSION = re.compile(r"^  description (\w+)$", re.MULTILINE)
_RUNTIME = re.compile(r"^version (\w+)$", re.MULTILINE)
_WEIGHT = re.compile(r"^weight\.(\w+) (\d+)$", re.MULTILINE)


class ScaleApi(FakeApi):
    """Objects by kind, and a queue for each watch."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: dict[Kind, dict[Key, Json]] = {kind: {} for kind in self.storage.objects}
        self.queues: dict[Kind, list[asyncio.Queue[bytes]]] = {kind: [] for kind in self.storage.objects}
        #: Changes since the beginning, for a watch that starts at an older version than the present one.
        self.log: dict[Kind, list[tuple[int, bytes]]] = {kind: [] for kind in self.storage.objects}
        self.counted: Counter[str] = Counter()
        self.bookmark_interval_s = 30.0
        self.version = 100
        self.ready: set[str] = set()
        #: Edited services: when, and how many objects of the new revision have been created since.
        self.edits: dict[str, tuple[float, int]] = {}
        #: Seconds from an edit until the new revision's pin, its engine and its router were created.
        self.took: dict[str, float] = {}
        self.addresses: dict[str, Json] = {}
        self._uids = count(1)
        self._ips = count(1)

    # What happens to an object

    def put(self, kind: Kind, key: Key, obj: Json) -> Json:
        """Store an object, tell the watches, and let the cluster follow."""
        before = self.tables[kind].get(key)
        self.version += 1
        metadata = obj["metadata"]
        if before is None:
            metadata |= {"uid": f"u{next(self._uids)}", "creationTimestamp": "2026-01-01T00:00:00Z", "generation": 1}
        elif before.get("spec") != obj.get("spec"):
            metadata["generation"] = before["metadata"].get("generation", 1) + 1
        metadata["resourceVersion"] = str(self.version)
        obj.setdefault("apiVersion", kind.api_version)
        obj.setdefault("kind", kind.kind)
        if kind == SERVICES:
            obj["spec"].setdefault(
                "clusterIP", f"10.{self.version >> 16 & 255}.{self.version >> 8 & 255}.{self.version & 255}"
            )
        self.tables[kind][key] = obj
        self._tell(kind, "MODIFIED" if before is not None else "ADDED", obj)
        if kind == DEPLOYMENTS:
            self._run_pods(key, obj)
        if kind == INFERENCE_SERVICES:
            conditions = {c["type"]: c["status"] for c in obj.get("status", {}).get("conditions") or ()}
            is_current = obj.get("status", {}).get("observedGeneration") == metadata["generation"]
            (self.ready.add if conditions.get("Ready") == "True" and is_current else self.ready.discard)(key[1])
        return obj

    def remove(self, kind: Kind, key: Key) -> None:  # type: ignore[override]
        obj = self.tables[kind].pop(key, None)
        if obj is None:
            raise Refusal(404, "NotFound", f"{key} not found")
        self.version += 1
        self._tell(kind, "DELETED", {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self.version)}})
        if kind == DEPLOYMENTS:
            self._run_pods(key, {**obj, "spec": {**obj["spec"], "replicas": 0}}, is_gone=True)

    def _tell(self, kind: Kind, type_: str, obj: Json) -> None:
        line = json.dumps({"type": type_, "object": obj}).encode() + b"\n"
        self.log[kind].append((self.version, line))
        for queue in self.queues[kind]:
            queue.put_nowait(line)

    def _run_pods(self, key: Key, deployment: Json, *, is_gone: bool = False) -> None:
        wanted, template = int(deployment["spec"]["replicas"]), deployment["spec"]["template"]
        for number in range(wanted):
            pod = (key[0], f"{key[1]}-{number}")
            if pod in self.tables[PODS]:
                continue
            n = next(self._ips)
            address = f"127.{10 + (n >> 16)}.{n >> 8 & 255}.{n & 255}"
            body = {
                "metadata": {"name": pod[1], "namespace": key[0], "labels": template["metadata"]["labels"]},
                "spec": {},
                "status": {
                    "phase": "Running",
                    "podIP": address,
                    "conditions": [{"type": "Ready", "status": "True"}],
                    "containerStatuses": [{"name": "main", "ready": True, "restartCount": 0, "state": {"running": {}}}],
                },
            }
            self.addresses[address] = self.put(PODS, pod, body)
        number = wanted
        while (pod := (key[0], f"{key[1]}-{number}")) in self.tables[PODS]:
            self.remove(PODS, pod)
            number += 1
        if not is_gone:
            status = {
                "observedGeneration": deployment["metadata"]["generation"], "replicas": wanted, "readyReplicas": wanted,
            }  # fmt: skip
            if deployment.get("status") != status:
                self.version += 1
                done = {**deployment, "status": status}
                done["metadata"] = {**deployment["metadata"], "resourceVersion": str(self.version)}
                self.tables[DEPLOYMENTS][key] = done
                self._tell(DEPLOYMENTS, "MODIFIED", done)

    # The protocol

    def _do(self, logged: Request, body: bytes) -> Json:
        kind, key = logged.kind, (logged.namespace, logged.name)
        assert kind is not None
        if logged.verb != "get" and kind.plural != "leases":
            self.counted[f"{logged.verb} {kind.kind}{'/' + logged.subresource if logged.subresource else ''}"] += 1
        sent = json.loads(body) if body else {}
        if logged.verb == "create":
            key = (logged.namespace, sent["metadata"]["name"])
            if key in self.tables[kind]:
                raise Refusal(409, "AlreadyExists", f"{key} already exists")
            self._note(sent)
            return self.put(kind, key, sent)
        live = self.tables[kind].get(key)
        if live is None:
            raise Refusal(404, "NotFound", f"{kind.plural} {key} not found")
        match logged.verb:
            case "get":
                return live
            case "update":
                return self.put(kind, key, {**sent, "metadata": {**live["metadata"], **sent["metadata"]}})
            case "delete":
                self.remove(kind, key)
                return {"kind": "Status", "status": "Success"}
            case _:  # a patch, below
                pass
        if isinstance(sent, list):  # the hand-over of fields: nobody owns any here
            return live
        if logged.subresource == "status":
            return self.put(kind, key, {**live, "metadata": dict(live["metadata"]), "status": sent["status"]})
        merged = merge(json.loads(json.dumps(live)), sent)
        return self.put(kind, key, merged)

    def _note(self, obj: Json) -> None:
        """Count what an edit makes: ControllerRevision, two Deployments, and the router's Service."""
        name = obj["metadata"].get("labels", {}).get(names.LABEL_SERVICE)
        if name in self.edits:
            at, made = self.edits[name]
            self.edits[name] = (at, made + 1)
            if made + 1 == OF_A_REVISION:
                self.took[name] = time.monotonic() - at
                del self.edits[name]

    def _list(self, request: web.Request, logged: Request, *, as_of: int | None = None) -> Json:
        kind = logged.kind
        assert kind is not None
        keys = sorted(self.tables[kind])
        start = int(logged.query.get("continue", "0"))
        limit = int(logged.query.get("limit", "0")) or len(keys)
        items = [self.tables[kind][key] for key in keys[start : start + limit]]
        token = str(start + limit) if start + limit < len(keys) else ""
        return {
            "kind": f"{kind.kind}List",
            "apiVersion": kind.api_version,
            "metadata": {"resourceVersion": str(self.version), **({"continue": token} if token else {})},
            "items": items,
        }

    async def _watch(self, request: web.Request, logged: Request) -> web.StreamResponse:
        kind = logged.kind
        assert kind is not None
        since = int(logged.query.get("resourceVersion") or self.version)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        missed = self.log[kind][bisect_right(self.log[kind], since, key=lambda entry: entry[0]) :]
        for _, line in missed:
            queue.put_nowait(line)
        self.queues[kind].append(queue)
        task = asyncio.current_task()
        assert task is not None
        self._watch_tasks.add(task)
        try:
            await response.prepare(request)
            ends = time.monotonic() + float(logged.query.get("timeoutSeconds", "3600"))
            while time.monotonic() < ends:
                try:
                    line = await asyncio.wait_for(queue.get(), self.bookmark_interval_s)
                except TimeoutError:
                    metadata = {"resourceVersion": str(self.version), "creationTimestamp": None}
                    bookmark = {"type": "BOOKMARK", "object": {"kind": kind.kind, "metadata": metadata}}
                    line = json.dumps(bookmark).encode() + b"\n"
                while not queue.empty() and len(line) < 2**20:
                    line += queue.get_nowait()
                await response.write(line)
        except (ConnectionResetError, asyncio.CancelledError):
            pass
        finally:
            self._watch_tasks.discard(task)
            self.queues[kind].remove(queue)
        return response

    # Gateways

    def state_of(self, address: str) -> Json:
        """What the gateway pod at an address works with: what its ConfigMap says now."""
        pod = self.addresses[address]["metadata"]
        name = names.gateway_name(pod["labels"][names.LABEL_SERVICE])
        data: Mapping[str, str] = self.tables[CONFIG_MAPS][pod["namespace"], name]["data"]
        text = "\n".join(data.values())
        [version], [runtime] = _VERSION.findall(text), _RUNTIME.findall(text)
        revisions = {r: {"running": 0, "waiting": 0, "weight": int(w)} for r, w in _WEIGHT.findall(text)}
        return {"config": version, "runtime": runtime, "revisions": revisions}

    # Commands

    def obey(self, command: Json) -> Json:
        match command["do"]:
            case "add":
                for number in range(command["count"]):
                    name = f"s{number:05d}"
                    body = {"metadata": {"name": name, "namespace": "default"}, "spec": command["spec"]}
                    body["status"] = {"observedGeneration": -1}
                    self.put(INFERENCE_SERVICES, ("default", name), json.loads(json.dumps(body)))
            case "edit":
                for name in command["names"]:
                    live = json.loads(json.dumps(self.tables[INFERENCE_SERVICES]["default", name]))
                    live["spec"] |= command["spec"]
                    self.edits[name] = (time.monotonic(), 0)
                    self.put(INFERENCE_SERVICES, ("default", name), live)
            case "touch":  # what a kubelet writes
                for key in list(self.tables[PODS])[: command["count"]]:
                    live = self.tables[PODS][key]
                    at = f"2026-01-01T00:00:{command['count'] % 60:02d}.{self.version}Z"
                    conditions = [{"type": "Ready", "status": "True", "lastProbeTime": at}]
                    pod = {
                        **live,
                        "metadata": dict(live["metadata"]),
                        "status": {**live["status"], "conditions": conditions},
                    }
                    self.put(PODS, key, pod)
            case _:  # only asked for what it counted
                pass
        return {
            "ready": len(self.ready),
            "writes": dict(self.counted),
            "objects": sum(len(table) for table in self.tables.values()),
            "pods": len(self.tables[PODS]),
            "took": sorted(self.took.values()),
        }


async def serve_gateways(state_of: Callable[[str], Json]) -> None:
    """Answer for the gateway pod at each address of this machine.

    Args:
        state_of: What a gateway pod works with, by its address.
    """

    def address(request: web.Request) -> str:
        assert request.transport is not None
        return str(request.transport.get_extra_info("sockname")[0])

    async def state(request: web.Request) -> web.Response:
        return web.json_response(state_of(address(request)))

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        return web.json_response({"choices": [{}], "data": [{}], "results": [{}]})

    app = web.Application()
    app.router.add_get(names.GATEWAY_STATE_PATH, state)
    app.router.add_post("/v1/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "0.0.0.0", names.GATEWAY_INNER_PORT).start()


async def main() -> None:
    async with ScaleApi() as api:
        await serve_gateways(api.state_of)
        print(json.dumps({"url": api.url}), flush=True)
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            print(json.dumps(api.obey(json.loads(line))), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
