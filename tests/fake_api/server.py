"""An API server over HTTP that knows no Kubernetes but the protocol: list, watch, apply, status, delete, and faults."""

import asyncio
import json
import re
from collections.abc import Callable, Iterable
from copy import deepcopy
from types import TracebackType
from typing import Self

from aiohttp import web

from draftmark.cluster.kinds import PODS, RIGHTS, Kind
from tests.fake_api.faults import Fault, Faults
from tests.fake_api.fields import Json
from tests.fake_api.pods import POD_PORT, Pods
from tests.fake_api.records import Done, Request
from tests.fake_api.storage import Refusal, Storage
from tests.fake_api.watching import Watching

_SURROGATE_ESCAPE = re.compile(rb"(?<!\\)(?:\\\\)*\\u[dD][89abAB]")
_UNPRINTABLE = re.compile("[\x7f-\x84\x86-\x9f\ufffe\uffff]")


class FakeApi(Watching, Pods):
    """A server on a free port of the loopback. Use as `async with`."""

    def __init__(self, kinds: Iterable[Kind] = ()) -> None:
        storage = Storage()
        Watching.__init__(self, storage, Faults())
        Pods.__init__(self, storage)
        self.requests: list[Request] = []
        self.done: list[Done] = []
        #: The Authorization header of each request that had one.
        self.authorizations: list[str] = []
        #: As with Roles in these namespaces and no ClusterRole; None: everything is allowed.
        self.allowed_namespaces: set[str] | None = None
        self.url = ""
        #: Requests being answered now, and the most there ever were.
        self.in_flight = 0
        self.most_in_flight = 0
        for kind in [*kinds, *dict.fromkeys(right.kind for right in RIGHTS)]:
            self.storage.serve(kind)

    async def __aenter__(self) -> Self:
        await self._listen(0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.go_down()

    async def _listen(self, port: int) -> None:
        app = web.Application(client_max_size=8 * 2**20)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.05, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port, reuse_address=True).start()
        host, self._port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{self._port}"

    async def go_down(self) -> None:
        """End the server's process: connections break, new ones are refused, the objects stay."""
        for task in list(self._watch_tasks):
            task.cancel()
        await self._runner.cleanup()

    async def come_up(self) -> None:
        """Start again at the same address."""
        await self._listen(self._port)

    # What tests do to the cluster

    @property
    def writes(self) -> list[Request]:
        return [request for request in self.requests if request.is_write]

    def count(self, verb: str, kind: Kind | None = None) -> int:
        return sum(r.verb == verb and (kind is None or r.kind == kind) for r in self.requests)

    def fault(self, **rule: object) -> Fault:
        return self.faults.add(Fault(**rule))  # type: ignore[arg-type]

    def add(self, kind: Kind, obj: Json, manager: str = "kubectl-create") -> Json:
        """Create an object as somebody else."""
        namespace = obj["metadata"].get("namespace", "")
        return deepcopy(self.storage.create(kind, namespace, obj, manager).full())

    def see(self, kind: Kind, name: str, namespace: str = "default") -> Json | None:
        """The object as it is stored."""
        stored = self.storage.objects[kind].get((namespace if kind.namespaced else "", name))
        return deepcopy(stored.full()) if stored else None

    def edit(
        self,
        kind: Kind,
        name: str,
        change: Callable[[Json], object],
        namespace: str = "default",
        manager: str = "kubectl-edit",
    ) -> Json:
        """Change an object as somebody else."""
        key = (namespace if kind.namespaced else "", name)
        obj = deepcopy(self.storage.get(kind, key).obj)
        change(obj)
        return deepcopy(self.storage.update(kind, key, obj, manager).full())

    def remove(self, kind: Kind, name: str, namespace: str = "default") -> None:
        self.storage.delete(kind, (namespace if kind.namespaced else "", name))

    # HTTP

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        kind, namespace, name, subresource = self._route(request.path)
        verb = _verb(request, name) if kind is not None else "get"
        body = await request.read()
        client = request.headers.get("Authorization", "").removeprefix("Bearer ")
        logged = Request(verb, kind, namespace, name, subresource, dict(request.query), request.content_type, client)
        self.requests.append(logged)
        self.authorizations += request.headers.getall("Authorization", [])
        if verb != "watch":
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            return await self._answer(request, logged, body)
        except Refusal as refusal:
            return web.json_response(refusal.status(), status=refusal.code)
        finally:
            if verb != "watch":
                self.in_flight -= 1

    async def _answer(self, request: web.Request, logged: Request, body: bytes) -> web.StreamResponse:
        fault = self.faults.match(logged.verb, logged.kind, logged.name, logged.client)
        if fault is not None:
            if fault.before is not None:
                fault.before()
            if fault.status is not None:
                headers = {} if fault.retry_after_s is None else {"Retry-After": str(fault.retry_after_s)}
                status = Refusal(fault.status, fault.reason, fault.message).status()
                return web.json_response(status, status=fault.status, headers=headers)
            if fault.stall:
                await asyncio.sleep(3600)  # cancelled when the client hangs up
            if fault.latency_s is not None:
                await asyncio.sleep(fault.latency_s)
            if fault.reset:
                return _abort(request)
        if logged.kind is None:
            return web.json_response(self._meta(request.path))
        if self.allowed_namespaces is not None and logged.namespace not in self.allowed_namespaces:
            where = f"in the namespace '{logged.namespace}'" if logged.namespace else "at the cluster scope"
            raise Refusal(403, "Forbidden", f"cannot {logged.verb} resource '{logged.kind.plural}' {where}")
        if logged.verb == "watch":
            return await self._watch(request, logged)
        if logged.subresource == "proxy":
            return self._ask_pod(request.path)
        if logged.subresource == "log":
            return await self._log(request, logged)
        if logged.verb == "list":
            answer = self._list(request, logged, as_of=fault.as_of if fault is not None else None)
        else:
            before = self.storage.version
            answer = self._do(logged, body)
            if logged.is_write and "dryRun" not in logged.query:
                self._note_done(logged, answer, changed=self.storage.version > before)
        if fault is not None and fault.after is not None:
            fault.after()
        if fault is not None and fault.lost_answer:
            return _abort(request)
        return web.json_response(answer, status=201 if logged.verb == "create" else 200)

    def _note_done(self, logged: Request, answer: Json, *, changed: bool) -> None:
        assert logged.kind is not None
        name = logged.name or answer["metadata"]["name"]
        self.done.append(
            Done(logged.verb, logged.kind, name, logged.subresource, logged.client, changed, self.storage.version)
        )

    def _route(self, path: str) -> tuple[Kind | None, str, str, str]:
        if asked := POD_PORT.fullmatch(path):
            return PODS, asked[1], asked[2], "proxy"
        for kind in self.storage.objects:
            base = kind.path(None)
            root = base.rsplit("/", 1)[0]
            found = re.fullmatch(rf"{root}(?:/namespaces/([^/]+))?/{kind.plural}(?:/([^/]+))?(?:/([^/]+))?", path)
            if found:
                return kind, found[1] or "", found[2] or "", found[3] or ""
        return None, "", "", ""

    def _meta(self, path: str) -> Json:
        if path == "/version":
            return {"major": "1", "minor": "34+", "gitVersion": "v1.34.0-fake"}
        if path == "/api":
            return {"kind": "APIVersions", "versions": ["v1"]}
        if path == "/apis":
            return {"kind": "APIGroupList", "groups": self._groups()}
        names = [
            _resource(kind.plural, kind.kind, namespaced=kind.namespaced)
            for kind in self.storage.objects
            if path in (f"/apis/{kind.api_version}", f"/api/{kind.api_version}")
        ]
        if path == "/api/v1":
            # Nobody lists these here, but kopf waits until it has seen that they exist.
            names += [_resource("namespaces", "Namespace", namespaced=False)]
        if not names:
            raise Refusal(404, "NotFound", "the server could not find the requested resource")
        return {"kind": "APIResourceList", "resources": names}

    def _groups(self) -> list[Json]:
        versions = dict.fromkeys((kind.group, kind.version) for kind in self.storage.objects if kind.group)
        return [
            {"name": group, "versions": [{"version": version}], "preferredVersion": {"version": version}}
            for group, version in versions
        ]

    def _do(self, logged: Request, body: bytes) -> Json:
        kind, key = logged.kind, (logged.namespace, logged.name)
        assert kind is not None
        manager = logged.query.get("fieldManager", "")
        match logged.verb:
            case "get":
                return self.storage.get(kind, key).full()
            case "create":
                return self.storage.create(kind, logged.namespace, json.loads(body), manager).full()
            case "update":
                return self.storage.update(kind, key, json.loads(body), manager, logged.subresource).full()
            case "delete":
                uid = (json.loads(body or b"{}").get("preconditions") or {}).get("uid")
                self.storage.delete(kind, key, uid)
                return {"kind": "Status", "status": "Success"}
            case "patch" if logged.content_type == "application/json-patch+json":
                return self._json_patch(kind, key, json.loads(body), manager, "dryRun" in logged.query)
            case "patch" if logged.content_type == "application/merge-patch+json":
                merged = merge(deepcopy(self.storage.get(kind, key).full()), json.loads(body))
                return self.storage.update(kind, key, merged, manager, logged.subresource).full()
            case "patch" if logged.content_type == "application/apply-patch+yaml":
                if not manager:
                    raise Refusal(422, "Invalid", "fieldManager: Required value: is required for apply patch")
                force = logged.query.get("force") == "true"
                intent = _read_as_yaml(body)
                return self.storage.apply(
                    kind, key, intent, manager, force=force, subresource=logged.subresource
                ).full()
        raise Refusal(415, "UnsupportedMediaType", f"{logged.verb} {logged.content_type}")

    def _json_patch(
        self, kind: Kind, key: tuple[str, str], operations: list[Json], manager: str, is_trial: bool
    ) -> Json:
        obj = deepcopy(self.storage.get(kind, key).full())
        for operation in operations:
            node = obj
            *trail, last = (s.replace("~1", "/").replace("~0", "~") for s in operation["path"].strip("/").split("/"))
            for step in trail:
                node = node[step]
            match operation["op"]:
                case "test" if node.get(last) != operation["value"]:
                    # As the real one: a failed test is not a Conflict.
                    message = "the server rejected our request due to an error in our request"
                    raise Refusal(422, "Invalid", message)
                case "test":
                    pass
                case "add" | "replace":
                    node[last] = operation["value"]
                case "remove":
                    del node[last]
                case other:
                    raise Refusal(422, "Invalid", f"the fake does not know {other}")
        if is_trial:
            if kind in self.storage.validate:
                self.storage.validate[kind](self.storage.get(kind, key).obj, obj)
            return obj
        return self.storage.update(kind, key, obj, manager).full()


def merge(obj: Json, patch: Json) -> Json:
    """RFC 7386; the resourceVersion of what was read is no precondition."""
    for key, value in patch.items():
        if value is None:
            obj.pop(key, None)
        else:
            obj[key] = merge(obj.get(key) or {}, value) if isinstance(value, dict) else value
    return obj


def _resource(plural: str, kind: str, *, namespaced: bool) -> Json:
    verbs = ["get", "list", "watch", "create", "update", "patch", "delete"]
    return {"name": plural, "singularName": kind.lower(), "kind": kind, "namespaced": namespaced, "verbs": verbs}


def _verb(request: web.Request, name: str) -> str:
    if request.method == "GET":
        return "watch" if request.query.get("watch") == "true" else "get" if name else "list"
    return {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}[request.method]


def _read_as_yaml(body: bytes) -> Json:
    """Apply bodies go through a YAML 1.1 reader: what that refuses or changes is refused or changed here."""
    if _SURROGATE_ESCAPE.search(body):
        raise Refusal(400, "BadRequest", "error decoding YAML: found invalid Unicode character escape code")
    text = body.decode()
    if _UNPRINTABLE.search(text):
        raise Refusal(400, "BadRequest", "error decoding YAML: control characters are not allowed")
    folded: Json = json.loads(re.sub("[\x85\u2028\u2029]", " ", text))
    return folded


def _abort(request: web.Request) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
