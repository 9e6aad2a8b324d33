"""A real etcd, kube-apiserver and controller-manager for the session, and an operator in the test's own loop.

There is no node: pods stay Pending until a test plays the kubelet. Everything else is real: schema, CEL, server-side
apply, Deployments, garbage collection.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import yaml

from draftmark.api import names
from draftmark.api.defaults import Defaults
from draftmark.cluster import kinds
from draftmark.cluster.client import ApiClient
from draftmark.cluster.credentials import Credentials
from draftmark.cluster.errors import ApiError, NotFound
from draftmark.cluster.kinds import Kind
from draftmark.controller import main, reconcile
from draftmark.controller.gateways import Gateways
from draftmark.controller.telemetry import Telemetry
from draftmark.decision import ProveRevision
from draftmark.facts.model_answer import ModelAnswer, write_answer
from draftmark.package_data import data_folder
from draftmark.settings import Settings
from e2e.cluster.cluster import Cluster
from tests.controller.gateways import FakeGateways
from tests.facts.model_rows import a_llama
from tests.operator_thread import OperatorThread

Json = dict[str, Any]

NAMESPACES = Kind("", "v1", "namespaces", "Namespace", namespaced=False)
CRDS = Kind("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False)
_numbers = count(1)
_addresses = count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.integration)


def cluster_name(prefix: str) -> str:
    """A name that two checkouts, and a demo beside them, do not share."""
    return f"{prefix}{names.short_hash(str(Path(__file__).resolve()))[:6]}"


@pytest.fixture(scope="session")
def control_plane() -> Iterator[Cluster]:
    with Cluster(cluster_name("cp"), control_plane_only=True).running() as cluster:
        asyncio.run(_install_crds(cluster.kubeconfig))
        yield cluster


async def _install_crds(kubeconfig: Path) -> None:
    async with ApiClient(Credentials.from_environment(str(kubeconfig))) as api:
        for file in data_folder("crds").iterdir():
            crd = yaml.safe_load(file.read_text("utf-8"))
            await api.apply(CRDS, None, crd["metadata"]["name"], crd, field_manager="helm")
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(ApiError):
                    async for _ in api.list_pages(kinds.INFERENCE_SERVICES):
                        pass
                    return
                await asyncio.sleep(0.1)


@pytest.fixture
async def api(control_plane: Cluster) -> AsyncIterator[ApiClient]:
    async with ApiClient(Credentials.from_environment(str(control_plane.kubeconfig))) as client:
        yield client


@pytest.fixture
async def namespace(api: ApiClient) -> AsyncIterator[str]:
    name = f"t{next(_numbers)}"
    await api.create(
        NAMESPACES, None, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}, field_manager="test"
    )
    yield name
    # The operator of a later test looks at all namespaces, and its writes are counted.
    for kind in (kinds.INFERENCE_SERVICES, kinds.MODEL_GATEWAYS, kinds.BENCHMARKS):
        async for page in api.list_pages(kind, name):
            for item in page.items:
                await api.delete(kind, name, item["metadata"]["name"], uid=item["metadata"]["uid"])


def service(name: str = "llama", **spec: Any) -> Json:
    """An InferenceService as a user would apply it."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": name},
        "spec": {
            "model": {"uri": "pvc://models/tiny.gguf"},
            "engine": {"name": "llama-cpp"},
            # An old revision is stopped after so long: what came to a gateway before a reload may wait until then.
            "traffic": {"queueTimeout": "1s"},
            **spec,
        },
    }


@dataclass
class Rig:
    """The operator under test, in one namespace of the real control plane."""

    api: ApiClient
    namespace: str
    kubeconfig: str
    gateways: FakeGateways
    defaults: Defaults = field(default_factory=Defaults)
    calls: list[tuple[str, str]] = field(default_factory=list)
    #: The annotation of each gateway pod that the kubelet has acted upon.
    brought: dict[str, str] = field(default_factory=dict)
    _running: OperatorThread | None = None

    async def start(self) -> None:
        self._running = OperatorThread(
            Settings(
                defaults=self.defaults,
                namespace=self.namespace,
                identity="test",
                http_port=0,
                workers=4,
                kubeconfig=self.kubeconfig,
            )
        )

    async def stop(self) -> int | None:
        running, self._running = self._running, None
        return await running.stop() if running is not None else None

    async def apply(self, obj: Json, manager: str = "kubectl") -> Json:
        """As `kubectl apply --server-side` does."""
        kind = {k.kind: k for k in (kinds.INFERENCE_SERVICES, *kinds.child_kinds())}[obj["kind"]]
        return dict(await self.api.apply(kind, self.namespace, obj["metadata"]["name"], obj, field_manager=manager))

    async def get(self, kind: Kind, name: str) -> Json:
        found = await self.api.get(kind, self.namespace, name)
        assert found is not None, f"{kind.kind} {name} is not there"
        return dict(found)

    async def all(self, kind: Kind) -> list[Json]:
        selector = None if kind == kinds.INFERENCE_SERVICES else f"{names.LABEL_MANAGED_BY}={names.MANAGED_BY}"
        return [
            i async for page in self.api.list_pages(kind, self.namespace, label_selector=selector) for i in page.items
        ]

    async def condition(self, type_: str, name: str = "llama") -> Json:
        status = (await self.get(kinds.INFERENCE_SERVICES, name)).get("status", {})
        found = (c for c in status.get("conditions") or () if c["type"] == type_)
        return next(found, {"status": "", "reason": "", "message": ""})

    async def is_ready(self, name: str = "llama") -> bool:
        item = await self.get(kinds.INFERENCE_SERVICES, name)
        acted = item.get("status", {}).get("observedGeneration") == item["metadata"]["generation"]
        return bool(acted and (await self.condition("Ready", name))["status"] == "True")

    async def until(self, holds: Callable[[], Any], within_s: float = 20.0) -> None:
        """Wait until a coroutine's answer is true, playing the kubelet meanwhile."""
        deadline = asyncio.get_running_loop().time() + within_s
        while not await holds():
            assert asyncio.get_running_loop().time() < deadline, yaml.safe_dump(
                [i.get("status") for i in await self.all(kinds.INFERENCE_SERVICES)]
            )
            assert self._running is None or self._running.is_running, "the operator has ended"
            await self.run_pods()
            await asyncio.sleep(0.1)

    async def deployments(self, role: str = names.ROLE_ENGINE) -> list[Json]:
        return [d for d in await self.all(kinds.DEPLOYMENTS) if d["metadata"]["labels"][names.LABEL_ROLE] == role]

    async def run_pods(self) -> None:
        """Every pod that was created is ready, and a gateway's works with the ConfigMap that the kubelet brought last."""
        for pod in await self.all(kinds.PODS):
            conditions = pod.get("status", {}).get("conditions") or ()
            if names.LABEL_JOB in pod["metadata"]["labels"]:
                if names.LABEL_BENCHMARK not in pod["metadata"]["labels"]:
                    await self._answer(pod)
                continue
            if any(c["type"] == "Ready" for c in conditions):
                await self._bring_config(pod)
                continue
            number = next(_addresses)
            address = f"127.1.{number // 250}.{number % 250 + 1}"
            body = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": pod["metadata"]["name"]},
                "status": {
                    "phase": "Running",
                    "podIP": address,
                    "podIPs": [{"ip": address}],
                    "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
                },
            }
            with contextlib.suppress(NotFound):
                await self.api.apply_status(
                    kinds.PODS, self.namespace, pod["metadata"]["name"], body, field_manager="kubelet"
                )

    async def _answer(self, pod: Json) -> None:
        """The pod of a Job has told the facts of a model, and ended."""
        if pod.get("status", {}).get("phase") == "Succeeded":
            return
        ended = {"exitCode": 0, "reason": "Completed", "message": write_answer(ModelAnswer(facts=a_llama()))}
        reader = {"name": "reader", "image": "i", "imageID": "", "ready": False, "restartCount": 0}
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": pod["metadata"]["name"]},
            "status": {"phase": "Succeeded", "containerStatuses": [{**reader, "state": {"terminated": ended}}]},
        }
        with contextlib.suppress(NotFound):
            await self.api.apply_status(
                kinds.PODS, self.namespace, pod["metadata"]["name"], body, field_manager="kubelet"
            )

    async def _bring_config(self, pod: Json) -> None:
        metadata = pod["metadata"]
        asked = str((metadata.get("annotations") or {}).get(names.ANNOTATION_CONFIG, ""))
        if metadata["labels"][names.LABEL_ROLE] != names.ROLE_GATEWAY or self.brought.get(metadata["uid"]) == asked:
            return
        name = names.gateway_name(metadata["labels"][names.LABEL_SERVICE])
        config = await self.api.get(kinds.CONFIG_MAPS, self.namespace, name)
        if config is not None:
            self.brought[metadata["uid"]] = asked
            self.gateways.take_over(pod["status"]["podIP"], config)

    def writes(self) -> list[tuple[str, str]]:
        """Writes of the operator so far, as (verb, kind), without Leases."""
        return [call for call in self.calls if call[0] in {"create", "update", "patch", "delete"}]

    async def quiet(self, for_s: float = 1.5) -> None:
        """Let the operator do whatever it still wants to."""
        async with asyncio.timeout(30):
            while True:
                before = len(self.writes())
                end = asyncio.get_running_loop().time() + for_s
                while asyncio.get_running_loop().time() < end:
                    await self.run_pods()
                    await asyncio.sleep(0.1)
                if len(self.writes()) == before:
                    return


@pytest.fixture
async def rig(
    api: ApiClient, namespace: str, control_plane: Cluster, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Rig]:
    """An operator that is not started yet. Its calls are counted, and proving requests are answered: there is no node
    that could."""

    async def prove(request: ProveRevision) -> None:
        return None

    monkeypatch.setattr(reconcile, "prove", prove)
    calls: list[tuple[str, str]] = []
    observe = Telemetry.observe_call

    def count_call(self: Any, verb: str, kind: str, code: int, seconds: float) -> None:
        calls.append((verb, kind))
        observe(self, verb, kind, code, seconds)

    monkeypatch.setattr(Telemetry, "observe_call", count_call)
    async with FakeGateways() as gateways:
        monkeypatch.setattr(main, "Gateways", partial(Gateways, port=gateways.port))
        rig = Rig(
            api=api, namespace=namespace, kubeconfig=str(control_plane.kubeconfig), gateways=gateways, calls=calls
        )
        yield rig
        await rig.stop()
