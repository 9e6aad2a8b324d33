"""A small cluster behind the fake API server: Deployments get pods, pods become ready, gateways answer, garbage is
collected, and pods of the operator are started again when they end.

It moves when an object changes and at no other time, so that a run costs little and ends as soon as nothing is left to
do.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml
from aiohttp import web

from draftmark.api import names
from draftmark.api.defaults import Defaults
from draftmark.cluster.kinds import (
    BENCHMARKS,
    CONFIG_MAPS,
    DEPLOYMENTS,
    EVENTS,
    INFERENCE_SERVICES,
    JOBS,
    LEASES,
    MODEL_GATEWAYS,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    SERVICES,
    Kind,
    child_kinds,
)
from draftmark.controller.main import LEASE_NAME
from draftmark.facts.model_answer import ModelAnswer, write_answer
from draftmark.measure.order import Order
from draftmark.render.benchmark import ORDER_FILE
from draftmark.settings import Settings
from tests.benchmark.world import result_of
from tests.controller.gateways import FakeGateways
from tests.facts.model_rows import a_llama
from tests.fake_api import Done, FakeApi
from tests.faults.operator_process import OperatorProcess, Tuning

Json = dict[str, Any]

OPERATOR_NAMESPACE = "ops"
_OWNERS = (INFERENCE_SERVICES, MODEL_GATEWAYS, BENCHMARKS)
#: Of one case. More means that it ends again and again.
_MOST_PROCESSES = 60

#: Nothing that is tested here depends on how long these are; the lists, leases and back-offs that do have their own tests.
_CONSTANTS = {
    "draftmark.cluster.informer:_SHORTEST_BACKOFF_S": 0.05,
    "draftmark.cluster.informer:_LONGEST_BACKOFF_S": 0.5,
    "draftmark.cluster.client:_READ_BACKOFF_S": 0.02,
}
#: Outlasts seconds in which the test's own process is not scheduled, and with it the API server of all its cases.
#: Whoever ends, leaves the Lease free; cases about the Lease bring their own.
_LASTING_LEASE = {"duration_s": 60.0, "renew_deadline_s": 50.0}
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)")
_COUNTED = ("resourceVersion", "creationTimestamp", "generation", "managedFields")


def service(name: str = "llama", **spec: Any) -> Json:
    """An InferenceService as a user would apply it."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "model": {"uri": "pvc://models/tiny.gguf"},
            "engine": {"name": "llama-cpp"},
            "replicas": 1,
            # An old revision is stopped after so long: what came to a gateway before its last reload may wait until then.
            "traffic": {"queueTimeout": "1s"},
            **spec,
        },
    }


@dataclass(frozen=True)
class Snapshot:
    """Everything that outlives the operator."""

    objects: Mapping[Kind, Any]
    version: int
    lives: Counter[Any]
    brought: Mapping[str, str]
    addresses: int
    working_with: Mapping[str, Json]


@dataclass
class Cluster:
    """Use as `async with`."""

    folder: Path
    label: str = "case"
    constants: Mapping[str, float] = field(default_factory=dict)
    lease: Mapping[str, float] = field(default_factory=_LASTING_LEASE.copy)
    resync_s: float = 600.0
    #: Roles whose pods do not become ready.
    waiting: set[str] = field(default_factory=set)
    #: Whether an operator's pod that ends is started again, as the kubelet does.
    restarts: bool = True
    #: Called with a process that has ended, before the next one starts.
    at_end: Callable[[OperatorProcess], object] = lambda _: None
    #: Processes of the operator, the latest last.
    processes: list[OperatorProcess] = field(default_factory=list)
    #: The annotation of each gateway pod that the kubelet has acted upon, by uid.
    _brought: dict[str, str] = field(default_factory=dict)
    _addresses: int = 0
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    #: Of the writes that were done: how many were looked at for Leases, and who did the last one.
    _leases_seen: int = 0
    _lease_writer: str = ""

    async def __aenter__(self) -> Self:
        self.api = await FakeApi().__aenter__()
        self.gateways = await Gateways().__aenter__()
        self.api.bookmark_interval_s = 0.5
        self.api.storage.default[SERVICES] = lambda item: item["spec"].setdefault("clusterIP", "10.0.0.1")
        claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "status": {"phase": "Bound"}}
        self.api.add(PERSISTENT_VOLUME_CLAIMS, {**claim, "metadata": {"name": "models", "namespace": "default"}})
        self._tasks.append(asyncio.create_task(self._move(), name="cluster"))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.restarts = False
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for process in self.processes:
            process.close()
        await self.gateways.__aexit__(kind, error, trace)
        await self.api.__aexit__(kind, error, trace)

    # The operator

    @property
    def operator(self) -> OperatorProcess:
        return self.processes[-1]

    def start(
        self,
        identity: str = "operator",
        *,
        skew_s: float | None = None,
        is_older: bool = False,
        namespace: str = OPERATOR_NAMESPACE,
    ) -> OperatorProcess:
        """Start an operator; its requests carry its number as their token."""
        number = len(self.processes)
        file = self.folder / f"{self.label}-{number}.yaml"
        file.write_text(yaml.safe_dump(kubeconfig(self.api.url, token=f"operator-{number}")))
        process = OperatorProcess(
            Settings(
                defaults=Defaults(),
                namespace=namespace,
                identity=identity,
                http_port=0,
                workers=4,
                kubeconfig=str(file),
                resync_s=self.resync_s,
            ),
            Tuning(
                pod_port=self.gateways.port,
                lease=self.lease,
                constants={**_CONSTANTS, **self.constants},
                skew_s=skew_s,
                is_older=is_older,
            ),
            self.folder / f"{self.label}-{number}.log",
        )
        self.processes.append(process)
        again = partial(self.start, identity, skew_s=skew_s, is_older=is_older, namespace=namespace)
        self._tasks.append(asyncio.create_task(self._keep(process, again), name=f"kubelet {number}"))
        return process

    async def _keep(self, process: OperatorProcess, start_again: Callable[[], OperatorProcess]) -> None:
        await process.ended.wait()
        self.at_end(process)
        if self.restarts and len(self.processes) < _MOST_PROCESSES:
            start_again()

    def client_of(self, process: OperatorProcess) -> str:
        """The token of its requests."""
        return f"operator-{self.processes.index(process)}"

    def leader(self) -> OperatorProcess | None:
        """The process that wrote its name into the Lease, if it runs."""
        for done in self.api.done[self._leases_seen :]:
            if done.kind == LEASES:
                self._lease_writer = done.client
        self._leases_seen = len(self.api.done)
        if not self._lease_writer or not self.lease_holder():
            return None
        found = self.processes[int(self._lease_writer.rpartition("-")[2])]
        return found if found.exit_status is None else None

    def kill(self) -> None:
        """SIGKILL the operator and give its Lease to nobody: that it expires is tested elsewhere, and takes 15 s."""
        self.operator.kill()
        self.free_lease()

    def lease_holder(self) -> str:
        lease = self.api.storage.objects[LEASES].get((OPERATOR_NAMESPACE, LEASE_NAME))
        return str(lease.obj["spec"]["holderIdentity"]) if lease is not None else ""

    def free_lease(self) -> None:
        if self.lease_holder():
            self.api.edit(LEASES, LEASE_NAME, lambda lease: lease["spec"].update(holderIdentity=""), OPERATOR_NAMESPACE)

    def let_start(self, role: str) -> None:
        """Pods of a role become ready from now on."""
        self.waiting.discard(role)
        self._run_kubelet()

    # Waiting

    async def until(self, holds: Callable[[], object], within_s: float = 30.0) -> None:
        """Wait until a statement is true."""
        async with asyncio.timeout(within_s) as limit:
            try:
                while not holds():  # noqa: ASYNC110 - a statement has no event
                    await asyncio.sleep(0.02)
            finally:
                assert not limit.expired(), self.describe()

    async def settled(self, within_s: float = 30.0, holds: Callable[[], object] = lambda: True) -> None:
        """Wait until the operator leads, has heard of everything and means to do nothing any more, and a statement is
        true."""
        deadline = asyncio.get_running_loop().time() + within_s
        quiet_since, version = asyncio.get_running_loop().time(), -1
        news = _News(self.api)
        while True:
            now = asyncio.get_running_loop().time()
            assert now < deadline, self.describe()
            present = news.count()
            if present != version:
                quiet_since, version = now, present
                for process in self.processes:
                    process.not_idle()
            leader = self.leader()
            is_heard = leader is not None and self.api.is_watched(INFERENCE_SERVICES, self.client_of(leader))
            if leader is not None and is_heard and leader.is_idle and now - quiet_since >= 0.2 and holds():
                return
            await asyncio.sleep(0.02)

    def describe(self) -> str:
        """What there is, for the message of a test that waited in vain."""
        return yaml.safe_dump(
            {
                "services": {s["metadata"]["name"]: s.get("status") for s in self.all(INFERENCE_SERVICES)},
                "deployments": {d["metadata"]["name"]: d.get("status") for d in self.all(DEPLOYMENTS)},
                "processes": [p.exit_status for p in self.processes],
                "done": [text_of(done) for done in self.api.done[-20:] if done.kind != LEASES],
                "requests": [f"{r.verb} {r.kind and r.kind.plural} {r.name}" for r in self.api.requests[-20:]],
                "log": self._end_of_log(),
            }
        )

    def _end_of_log(self) -> list[str]:
        """Of the operator, where the test has started it here, and it has said something."""
        log = self.operator.log if self.processes else None
        return log.read_text().splitlines()[-25:] if log is not None and log.exists() else []

    # What there is

    def all(self, kind: Kind) -> list[Json]:
        return [stored.obj for stored in list(self.api.storage.objects.get(kind, {}).values())]

    def see(self, name: str = "llama") -> Json:
        found = self.api.see(INFERENCE_SERVICES, name)
        assert found is not None
        return found

    def condition(self, type_: str, name: str = "llama") -> Json:
        conditions = self.see(name).get("status", {}).get("conditions") or []
        found: Json = next((c for c in conditions if c["type"] == type_), {"status": "", "reason": "", "message": ""})
        return found

    def is_ready(self, name: str = "llama") -> bool:
        """Whether the present generation serves and nothing else does, as its status says."""
        item = self.api.see(INFERENCE_SERVICES, name) or {"metadata": {}}
        is_current = (item.get("status") or {}).get("observedGeneration") == item["metadata"].get("generation")
        is_complete = self.condition("Progressing", name)["reason"] == "Complete"
        return bool(is_current and is_complete and self.condition("Ready", name)["status"] == "True")

    def writes(self, since: int = 0) -> list[Done]:
        """What operators have changed, Leases aside."""
        return [done for done in self.api.done[since:] if done.kind != LEASES and done.changed]

    def end_state(self) -> dict[str, Any]:
        """All objects that a user sees, without what is counted and dated. Events are told beside."""
        kinds = (*_OWNERS, *child_kinds(), PODS)
        return {
            f"{kind.kind} {obj['metadata']['name']}": _plain(obj)
            for kind in kinds
            for obj in sorted(self.all(kind), key=lambda o: str(o["metadata"]["name"]))
        }

    def events(self) -> Counter[str]:
        return Counter(str(event["reason"]) for event in self.all(EVENTS))

    # Snapshots

    def snapshot(self) -> Snapshot:
        storage = self.api.storage
        objects = {kind: dict(table) for kind, table in storage.objects.items() if kind != LEASES}
        return Snapshot(
            objects=objects,
            version=storage.version,
            lives=Counter(storage._lives),
            brought=dict(self._brought),
            addresses=self._addresses,
            working_with=deepcopy(self.gateways.working_with),
        )

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from a snapshot. Watches of before would not be told: to be called before the operator starts."""
        storage = self.api.storage
        storage.version = snapshot.version
        for kind, table in snapshot.objects.items():
            storage.objects[kind] = dict(table)
            storage.compact(kind)
        storage._lives = Counter(snapshot.lives)
        self._brought, self._addresses = dict(snapshot.brought), snapshot.addresses
        self.gateways.working_with = deepcopy(dict(snapshot.working_with))

    # Controllers

    async def _move(self) -> None:
        storage, seen = self.api.storage, -1
        while True:
            async with storage.changed:
                await storage.changed.wait_for(lambda: storage.version != seen)  # noqa: B023
            seen = storage.version
            self._collect_garbage()
            self._run_deployments()
            self._run_jobs()
            self._run_kubelet()
            # So that what one controller does can be seen before the next one goes on from it.
            await asyncio.sleep(0.005)

    def _collect_garbage(self) -> None:
        """Children that were made after their owner had gone; the others go with it."""
        owners = {o["metadata"]["uid"] for kind in _OWNERS for o in self.all(kind)}
        for kind in child_kinds():
            for child in self.all(kind):
                controllers = [o["uid"] for o in child["metadata"].get("ownerReferences", ())]
                if controllers and not owners.intersection(controllers):
                    self.api.remove(kind, child["metadata"]["name"])

    def _run_deployments(self) -> None:
        expected: dict[str, Json] = {}
        ready: Counter[str] = Counter()
        pods = [pod for pod in self.all(PODS) if "deployment" in pod["metadata"]["annotations"]]
        for pod in pods:
            ready[pod["metadata"]["annotations"]["deployment"]] += is_ready_pod(pod)
        for deployment in self.all(DEPLOYMENTS):
            name, template = deployment["metadata"]["name"], deployment["spec"]["template"]
            if deployment["metadata"].get("deletionTimestamp"):
                continue
            wanted = int(deployment["spec"]["replicas"])
            hashed = names.short_hash(template)[:5]
            mine = {f"{name}-{hashed}-{n}": template for n in range(wanted)}
            expected |= mine
            for pod_name in mine:
                if self.api.storage.objects[PODS].get(("default", pod_name)) is None:
                    self.api.add(PODS, _pod(pod_name, name, template), manager="kube-controller-manager")
            present = sum(p["metadata"]["name"] in mine for p in pods)
            status = {
                "observedGeneration": deployment["metadata"]["generation"],
                "replicas": present,
                "readyReplicas": min(ready[name], present),
            }
            if deployment.get("status") != status:
                key = (deployment["metadata"]["namespace"], name)
                body = {**deployment, "status": status}
                self.api.storage.update(DEPLOYMENTS, key, body, "kube-controller-manager", "status")
        for pod in pods:
            if pod["metadata"]["name"] not in expected:
                self.api.remove(PODS, pod["metadata"]["name"])
                self.gateways.working_with.pop(pod.get("status", {}).get("podIP", ""), None)

    def _run_jobs(self) -> None:
        """A Job has a pod that has told the facts of a model, and ended; one whose Job is gone goes, too."""
        jobs = {job["metadata"]["name"]: job for job in self.all(JOBS)}
        for name, job in jobs.items():
            if names.LABEL_BENCHMARK in job["metadata"]["labels"]:
                self._measure(name, job)
            elif self.api.storage.objects[PODS].get(("default", name)) is None:
                pod = _pod(name, name, job["spec"]["template"])
                del pod["metadata"]["annotations"]["deployment"]
                ended = {"exitCode": 0, "message": write_answer(ModelAnswer(facts=a_llama()))}
                told = [{"name": "reader", "state": {"terminated": ended}}]
                pod["status"] = {"phase": "Succeeded", "containerStatuses": told}
                self.api.add(PODS, pod, manager="kube-controller-manager")
        for pod in self.all(PODS):
            job_name = pod["metadata"]["labels"].get(names.LABEL_JOB)
            if job_name is not None and job_name not in jobs:
                self.api.remove(PODS, pod["metadata"]["name"])

    def _measure(self, name: str, job: Json) -> None:
        """The Job of a Benchmark writes its result, when it finds its order and the ConfigMap for it."""
        config_maps = self.api.storage.objects[CONFIG_MAPS]
        benchmark = job["metadata"]["labels"][names.LABEL_BENCHMARK]
        order, result = config_maps.get(("default", name)), config_maps.get(("default", f"{benchmark}-result"))
        if order is None or result is None or "data" in result.obj:
            return
        told = result_of(Order.model_validate_json(order.obj["data"][ORDER_FILE])).model_dump_json(by_alias=True)
        self.api.edit(CONFIG_MAPS, f"{benchmark}-result", lambda c: c.update(data={"result": told}), manager="job")

    def _run_kubelet(self) -> None:
        """A pod becomes ready; a gateway's works with the ConfigMap of its start until its annotation changes, then with
        the present one."""
        for pod in self.all(PODS):
            labels, name = pod["metadata"]["labels"], pod["metadata"]["name"]
            if names.LABEL_JOB in labels:
                continue
            if not is_ready_pod(pod):
                if labels[names.LABEL_ROLE] not in self.waiting:
                    self._addresses += 1
                    address = f"127.1.{self._addresses // 250}.{1 + self._addresses % 250}"
                    status = {
                        "conditions": [{"type": "Ready", "status": "True"}],
                        "phase": "Running",
                        "podIP": address,
                    }
                    self.api.storage.update(PODS, ("default", name), {**pod, "status": status}, "kubelet", "status")
                continue
            if labels[names.LABEL_ROLE] == names.ROLE_GATEWAY:
                owner = labels.get(names.LABEL_SERVICE) or labels[names.LABEL_MODEL_GATEWAY]
                config = self.api.storage.objects[CONFIG_MAPS].get(("default", names.gateway_name(owner)))
                asked = str(pod["metadata"]["annotations"].get(names.ANNOTATION_CONFIG, ""))
                if config is not None and self._brought.get(pod["metadata"]["uid"]) != asked:
                    self._brought[pod["metadata"]["uid"]] = asked
                    self.gateways.take_over(pod["status"]["podIP"], config.obj)


class _News:
    """Counts what happens at the API server, Leases aside, without counting anything twice."""

    def __init__(self, api: FakeApi) -> None:
        self._api = api
        self._seen = self._requests = 0

    def count(self) -> int:
        """Requests and versions of objects."""
        requests = self._api.requests
        self._requests += sum(r.kind != LEASES for r in requests[self._seen :])
        self._seen = len(requests)
        history = self._api.storage.history
        return self._requests + sum(len(changes) for kind, changes in history.items() if kind != LEASES)


class Gateways(FakeGateways):
    """Gateway pods that also answer the request which proves a revision.

    Attributes:
        proofs: Revisions that were asked, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.proofs: list[str] = []

    def _routes(self) -> Sequence[web.RouteDef]:
        return [*super()._routes(), web.post("/v1/chat/completions", self._complete)]

    async def _complete(self, request: web.Request) -> web.Response:
        self.proofs.append(request.headers[names.HEADER_REVISION])
        return web.json_response({"choices": [{"message": {"content": "Hello"}}]})


def is_ready_pod(pod: Json) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod.get("status", {}).get("conditions") or ())


def text_of(done: Done) -> str:
    """A write in words."""
    return f"{done.verb} {done.kind.kind}{'/' + done.subresource if done.subresource else ''} {done.name}"


def _pod(name: str, deployment: str, template: Json) -> Json:
    metadata = template["metadata"]
    annotations = {**(metadata.get("annotations") or {}), "deployment": deployment}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": metadata["labels"], "annotations": annotations},
        "spec": deepcopy(template["spec"]),
        "status": {"phase": "Pending"},
    }


def kubeconfig(server: str, token: str) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "fake", "cluster": {"server": server}}],
        "users": [{"name": "fake", "user": {"token": token}}],
        "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
        "current-context": "fake",
    }


def _plain(obj: Json) -> Any:
    metadata = {k: v for k, v in obj["metadata"].items() if k not in _COUNTED}
    if obj["kind"] == "Pod":
        metadata["annotations"] = {k: v for k, v in metadata["annotations"].items() if k != names.ANNOTATION_CONFIG}
        return {"metadata": _undated(metadata), "spec": obj["spec"]}
    return _undated({**obj, "metadata": metadata} | ({"status": obj.get("status")} if "status" in obj else {}))


def _undated(value: Any) -> Any:
    match value:
        case dict():
            return {k: _undated(v) for k, v in value.items() if not (k == "observedGeneration" and isinstance(v, int))}
        case list():
            return [_undated(item) for item in value]
        case str():
            return _TIME.sub("(time)", value)
        case _:
            return value
