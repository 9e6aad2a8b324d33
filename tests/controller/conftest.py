"""A whole operator in the test's loop, against the fake API server, with a hand-made Deployment controller."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from draftmark.api import names
from draftmark.api.defaults import Defaults
from draftmark.cluster.kinds import DEPLOYMENTS, INFERENCE_SERVICES, PODS, SERVICES, child_kinds
from draftmark.controller import reconcile
from draftmark.decision import ProveRevision
from draftmark.settings import Settings
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
            **spec,
        },
    }


@dataclass
class Rig:
    """The operator under test and the world around it."""

    api: FakeApi
    kubeconfig: Path
    proofs: list[ProveRevision]
    defaults: Defaults
    resync_s: float = 600.0
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
                self.run_deployments()
                await asyncio.sleep(for_s)
                if len(self.writes()) == before:
                    return

    def run_deployments(self) -> None:
        """Every Deployment has its pods at once, ready; pods of a Deployment that is gone are gone."""
        owners = {item["metadata"]["uid"] for item in self.all(INFERENCE_SERVICES)}
        for kind in child_kinds():  # the garbage collector also takes what was made after its owner had gone
            for child in self.all(kind):
                controllers = [o["uid"] for o in child["metadata"].get("ownerReferences", ())]
                if controllers and not owners.intersection(controllers):
                    self.api.remove(kind, child["metadata"]["name"])
        deployments = self.all(DEPLOYMENTS)
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
                            "status": {"conditions": [{"type": "Ready", "status": "True"}], "phase": "Running"},
                        },
                    )
        expected = {f"{d['metadata']['name']}-{n}" for d in deployments for n in range(int(d["spec"]["replicas"]))}
        for pod in self.all(PODS):
            if pod["metadata"]["name"] not in expected:
                self.api.remove(PODS, pod["metadata"]["name"])

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

    async def prove(request: ProveRevision, cluster_ip: str) -> None:
        proofs.append(request)

    monkeypatch.setattr(reconcile, "prove", prove)
    made = Rig(api=fake_api, kubeconfig=kubeconfig, proofs=proofs, defaults=Defaults())
    yield made
    await made.stop()
