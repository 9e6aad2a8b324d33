"""A whole operator in the test's loop, against the fake API server, with a hand-made Deployment controller and kubelet."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from draftmark.api import names
from draftmark.api.defaults import Defaults
from draftmark.cluster.kinds import (
    BENCHMARKS,
    CONFIG_MAPS,
    DEPLOYMENTS,
    INFERENCE_SERVICES,
    JOBS,
    MODEL_GATEWAYS,
    PODS,
    SERVICES,
    child_kinds,
)
from draftmark.controller import main, reconcile
from draftmark.controller.gateways import Gateways
from draftmark.decision import ProveRevision
from draftmark.settings import Settings
from tests.controller.gateways import FakeGateways
from tests.fake_api import FakeApi, fake_api
from tests.operator_thread import OperatorThread

__all__ = ["fake_api"]

Json = dict[str, Any]


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


@dataclass
class Rig:
    """The operator under test and the world around it."""

    api: FakeApi
    kubeconfig: Path
    proofs: list[ProveRevision]
    gateways: FakeGateways
    defaults: Defaults
    #: The annotation of each gateway pod that the kubelet has acted upon.
    brought: dict[str, str] = field(default_factory=dict)
    resync_s: float = 600.0
    watch_namespaces: tuple[str, ...] = ()
    #: Roles whose Deployments get no pods yet.
    waiting: set[str] = field(default_factory=set)
    #: How many addresses were given to pods.
    addresses: int = 0
    _running: OperatorThread | None = None

    async def start(self) -> None:
        self._running = OperatorThread(
            Settings(
                defaults=self.defaults,
                namespace="default",
                identity="test",
                http_port=0,
                workers=4,
                kubeconfig=str(self.kubeconfig),
                resync_s=self.resync_s,
                watch_namespaces=self.watch_namespaces,
            )
        )

    async def ended(self) -> int | None:
        """Wait for the operator to end by itself."""
        assert self._running is not None
        return await self._running.ended()

    async def stop(self) -> int | None:
        running, self._running = self._running, None
        return await running.stop() if running is not None else None

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    async def until(self, holds: Callable[[], object], within_s: float = 15.0) -> None:
        """Wait until a statement is true, playing the Deployment controller meanwhile."""
        deadline = asyncio.get_running_loop().time() + within_s
        while not holds():
            assert asyncio.get_running_loop().time() < deadline, self.describe()
            assert self._running is None or self._running.is_running, "the operator has ended"
            self.run_deployments()
            self.run_kubelet()
            await asyncio.sleep(0.02)

    def describe(self) -> str:
        """What there is, for the message of a test that waited in vain."""
        services = {s["metadata"]["name"]: s.get("status") for s in self.all(INFERENCE_SERVICES)}
        deployments = {d["metadata"]["name"]: d.get("status") for d in self.all(DEPLOYMENTS)}
        return yaml.safe_dump(
            {
                "services": services,
                "deployments": deployments,
                "writes": self.writes()[-20:],
                "requests": [f"{r.verb} {r.kind and r.kind.plural} {r.query}" for r in self.api.requests[-25:]],
            }
        )

    async def quiet(self, for_s: float = 1.0) -> None:
        """Let the operator do whatever it still wants to."""
        async with asyncio.timeout(30):
            while True:
                before = len(self.writes())
                end = asyncio.get_running_loop().time() + for_s
                while asyncio.get_running_loop().time() < end:
                    self.run_deployments()
                    self.run_kubelet()
                    await asyncio.sleep(0.02)
                if len(self.writes()) == before:
                    return

    def run_deployments(self) -> None:
        """Every Deployment has its pods at once, ready; pods of a Deployment that is gone are gone."""
        owners = {
            i["metadata"]["uid"] for kind in (INFERENCE_SERVICES, MODEL_GATEWAYS, BENCHMARKS) for i in self.all(kind)
        }
        for kind in child_kinds():  # the garbage collector also takes what was made after its owner had gone
            for child in self.all(kind):
                controllers = [o["uid"] for o in child["metadata"].get("ownerReferences", ())]
                if controllers and not owners.intersection(controllers):
                    self.api.remove(kind, child["metadata"]["name"])
        deployments = [
            d for d in self.all(DEPLOYMENTS) if d["metadata"]["labels"][names.LABEL_ROLE] not in self.waiting
        ]
        for deployment in deployments:
            wanted = int(deployment["spec"]["replicas"])
            status = {
                "observedGeneration": deployment["metadata"]["generation"],
                "replicas": wanted,
                "readyReplicas": wanted,
            }
            if deployment.get("status") != status:
                self.api.storage.update(
                    DEPLOYMENTS,
                    ("default", deployment["metadata"]["name"]),
                    {**deployment, "status": status},
                    "kube-controller-manager",
                    "status",
                )
            template = deployment["spec"]["template"]
            for number in range(wanted):
                name = f"{deployment['metadata']['name']}-{number}"
                if self.api.see(PODS, name) is None:
                    self.api.add(
                        PODS,
                        {
                            "apiVersion": "v1",
                            "kind": "Pod",
                            "metadata": {
                                "name": name,
                                "namespace": "default",
                                "labels": template["metadata"]["labels"],
                            },
                            "spec": template["spec"],
                            "status": {
                                "conditions": [{"type": "Ready", "status": "True"}],
                                "phase": "Running",
                                "podIP": self.next_address(),
                            },
                        },
                    )
        expected = {f"{d['metadata']['name']}-{n}" for d in deployments for n in range(int(d["spec"]["replicas"]))}
        for pod in self.all(PODS):
            job = pod["metadata"]["labels"].get(names.LABEL_JOB)
            if (job is None and pod["metadata"]["name"] not in expected) or (
                job is not None and not self.api.see(JOBS, job)
            ):
                self.api.remove(PODS, pod["metadata"]["name"])

    def next_address(self) -> str:
        """An address that no pod had before: a gateway is known by it."""
        self.addresses += 1
        return f"127.1.{self.addresses // 250}.{1 + self.addresses % 250}"

    def run_kubelet(self) -> None:
        """A gateway's pod works with the ConfigMap of its start until its annotation changes, then with the present one."""
        configs = {c["metadata"]["name"]: c for c in self.all(CONFIG_MAPS)}
        for pod in self.all(PODS):
            labels, annotations = pod["metadata"]["labels"], pod["metadata"].get("annotations") or {}
            if labels[names.LABEL_ROLE] != names.ROLE_GATEWAY:
                continue
            config = configs.get(
                names.gateway_name(labels.get(names.LABEL_SERVICE) or labels[names.LABEL_MODEL_GATEWAY])
            )
            asked = str(annotations.get(names.ANNOTATION_CONFIG, ""))
            if config is not None and self.brought.get(pod["metadata"]["uid"]) != asked:
                self.brought[pod["metadata"]["uid"]] = asked
                self.gateways.take_over(pod["status"]["podIP"], config)

    def deployments(self, role: str = names.ROLE_ENGINE) -> list[Json]:
        return [d for d in self.all(DEPLOYMENTS) if d["metadata"]["labels"][names.LABEL_ROLE] == role]

    def all(self, kind: Any) -> list[Json]:
        return [stored.full() for stored in list(self.api.storage.objects[kind].values())]

    def see(self, name: str = "llama") -> Json:
        found = self.api.see(INFERENCE_SERVICES, name)
        assert found is not None
        return found

    def condition(self, type_: str, name: str = "llama") -> Json:
        conditions = self.see(name).get("status", {}).get("conditions") or []
        found: Json = next((c for c in conditions if c["type"] == type_), {"status": "", "reason": "", "message": ""})
        return found

    def is_ready(self, name: str = "llama") -> bool:
        status = self.see(name).get("status", {})
        is_current: bool = status.get("observedGeneration") == self.see(name)["metadata"]["generation"]
        is_true: bool = self.condition("Ready", name)["status"] == "True"
        return is_current and is_true

    def writes(self) -> list[str]:
        """Writes so far, as `verb kind`, without Leases."""
        return [
            f"{r.verb} {r.kind.kind}{'/' + r.subresource if r.subresource else ''}"
            for r in self.api.writes
            if r.kind is not None and r.kind.plural != "leases"
        ]


@pytest.fixture
async def rig(fake_api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    """An operator that is not started yet. Proving requests are answered, and kept."""
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "fake", "cluster": {"server": fake_api.url}}],
                "users": [{"name": "fake", "user": {}}],
                "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
                "current-context": "fake",
            }
        )
    )
    fake_api.storage.default[SERVICES] = lambda item: item["spec"].setdefault("clusterIP", "10.0.0.1")
    proofs: list[ProveRevision] = []

    async def prove(request: ProveRevision) -> None:
        proofs.append(request)

    monkeypatch.setattr(reconcile, "prove", prove)
    async with FakeGateways() as gateways:
        monkeypatch.setattr(main, "Gateways", partial(Gateways, port=gateways.port))
        made = Rig(api=fake_api, kubeconfig=kubeconfig, proofs=proofs, gateways=gateways, defaults=Defaults())
        yield made
        await made.stop()
