"""The cluster layer against a real kube-apiserver: what the fake only claims."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import pytest

from draftmark.api.names import ANNOTATION_APPLIED
from draftmark.cluster.apply import Applier
from draftmark.cluster.client import ApiClient
from draftmark.cluster.credentials import Credentials
from draftmark.cluster.errors import Conflict, NamespaceTerminating
from draftmark.cluster.informer import Informer
from draftmark.cluster.kinds import (
    CONTROLLER_REVISIONS,
    DEPLOYMENTS,
    LEASES,
    SERVICE_ACCOUNTS,
    SERVICES,
    Kind,
    child_kinds,
)
from draftmark.cluster.lease import LeaseLock
from draftmark.cluster.outcomes import ObjectRef, Outcome
from draftmark.cluster.wire import encode_as_0_1_0
from e2e.cluster.cluster import Cluster
from tests.cluster.conftest import Json, eventually

NAMESPACES = Kind("", "v1", "namespaces", "Namespace", namespaced=False)
CONFIG_MAPS = Kind("", "v1", "configmaps", "ConfigMap")
ODD_TEXT = "😀\u2028\x85\x7f\ufeff\uffff é"


@dataclass
class Place:
    """A namespace with an object that owns what we write."""

    client: ApiClient
    namespace: str
    calls: list[str]
    owner: ObjectRef = field(init=False)

    def reference(self) -> Json:
        return {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": self.owner.uid, "controller": True}

    def child(self, kind: Kind, name: str, *, labels: dict[str, str] | None = None, **fields: Any) -> Json:
        metadata = {
            "name": name,
            "namespace": self.namespace,
            "labels": {"app.kubernetes.io/managed-by": "draftmark", **(labels or {})},
            "ownerReferences": [self.reference()],
        }
        return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, **fields}

    def children(self, port: int = 80, env: dict[str, str] | None = None, **labels: str) -> list[Json]:
        return [
            self.child(SERVICE_ACCOUNTS, "llama", automountServiceAccountToken=False),
            self.child(
                Kind("apps", "v1", "controllerrevisions", "ControllerRevision"),
                "llama-abc",
                revision=1,
                data={"spec": {"a": [1, 2.5, True, None, "😀"], "cpu": "0.5"}, "empty": {}},
            ),
            self.child(
                SERVICES,
                "llama",
                labels=labels,
                spec={"ports": [{"name": "http", "port": port}], "selector": {"app": "llama"}},
            ),
            self.child(DEPLOYMENTS, "llama-engine", labels=labels, spec=deployment_spec(env or {})),
        ]

    async def stored(self, kind: Kind, name: str) -> Json:
        found = await self.client.get(kind, self.namespace, name)
        assert found is not None
        return found

    async def until_observed(self, kind: Kind, name: str) -> None:
        """Wait until the controller of a Deployment has written what follows from a change: each such write between a look
        and a write of ours is a Conflict, and three of them are left to the next reconcile."""
        async with asyncio.timeout(20):
            while True:
                before = await self.stored(kind, name)
                await asyncio.sleep(0.3)
                after = await self.stored(kind, name)
                seen = after.get("status", {}).get("observedGeneration")
                if seen == after["metadata"]["generation"] and before == after:
                    return

    async def edit(
        self, kind: Kind, name: str, op: str, path: str, value: object = None, manager: str = "edit"
    ) -> None:
        operation = {"op": op, "path": path, **({"value": value} if op != "remove" else {})}
        await self.client.json_patch(kind, self.namespace, name, [operation], field_manager=manager)

    def writes(self) -> int:
        """Since the last time."""
        number = sum(verb in ("create", "update", "patch", "delete") for verb in self.calls)
        self.calls.clear()
        return number


def deployment_spec(env: dict[str, str]) -> Json:
    """As much of a pod as we write: each field is one that the API server may store in its own way."""
    container = {
        "name": "engine",
        "image": "example.com/engine:1",
        "args": ["--text", ODD_TEXT],
        "ports": [{"containerPort": 8080, "name": "http"}],
        "env": [
            {"name": "EMPTY", "value": ""},
            {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1"}}},
            *({"name": name, "value": value} for name, value in env.items()),
        ],
        "resources": {"requests": {"cpu": "0.5", "memory": "1024Mi"}, "limits": {"cpu": 2, "memory": "2048Mi"}},
        "startupProbe": {"httpGet": {"path": "/health", "port": "http"}, "failureThreshold": 60},
        "lifecycle": {"preStop": {"sleep": {"seconds": 5}}},
        "securityContext": {"readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
    return {
        "replicas": 0,
        "selector": {"matchLabels": {"app": "llama"}},
        "template": {
            "metadata": {"labels": {"app": "llama"}, "annotations": {}},
            "spec": {
                "enableServiceLinks": False,
                "hostNetwork": False,
                "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
                "tolerations": [{"key": "x", "operator": "Exists"}],
                "nodeSelector": {},
                "imagePullSecrets": [{"name": "pull"}],
                "topologySpreadConstraints": [
                    {
                        "maxSkew": 1,
                        "topologyKey": "kubernetes.io/hostname",
                        "whenUnsatisfiable": "ScheduleAnyway",
                        "labelSelector": {"matchLabels": {"app": "llama"}},
                    }
                ],
                "volumes": [
                    {"name": "tmp", "emptyDir": {}},
                    {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "1024Mi"}},
                    {"name": "model", "persistentVolumeClaim": {"claimName": "models", "readOnly": True}},
                ],
                "containers": [container],
            },
        },
    }


class Operator:
    def __init__(self, place: Place) -> None:
        self.place = place
        self.now = 1000.0
        self.informers = {
            kind: Informer(
                place.client, kind, namespace=place.namespace, label_selector="app.kubernetes.io/managed-by=draftmark"
            )
            for kind in child_kinds()
        }
        self.applier = Applier(place.client, self.informers, clock=lambda: self.now)

    async def apply(self, *desired: Json, **rest: Any) -> list[Outcome]:
        return await self.applier.apply(self.place.owner, desired, **rest)

    async def names(self, *desired: Json) -> list[str]:
        return [type(outcome).__name__ for outcome in await self.apply(*desired)]

    async def caught_up(self, kind: Kind, name: str) -> None:
        version = (await self.place.stored(kind, name))["metadata"]["resourceVersion"]

        def same() -> bool:
            cached = self.informers[kind].get(self.place.namespace, name)
            return bool(cached and cached["metadata"]["resourceVersion"] == version)

        await eventually(same, within_s=5)
        self.place.writes()


@asynccontextmanager
async def started(place: Place) -> AsyncIterator[Operator]:
    operator = Operator(place)
    async with AsyncExitStack() as stack:
        for informer in operator.informers.values():
            task = asyncio.create_task(informer.run())
            stack.callback(task.cancel)
            await asyncio.wait_for(informer.synced.wait(), 10)
        yield operator


@pytest.fixture
async def place(control_plane: Cluster) -> AsyncIterator[Place]:
    calls: list[str] = []
    async with ApiClient(
        Credentials.from_environment(str(control_plane.kubeconfig)), observe_call=lambda verb, *_: calls.append(verb)
    ) as client:
        namespace = f"cluster-{uuid4().hex[:8]}"
        body: Json = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
        created = await client.create(NAMESPACES, None, body, field_manager="test")
        made = Place(client, namespace, calls)
        owner = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "owner"}, "data": {"text": ODD_TEXT}}
        stored = await client.apply(CONFIG_MAPS, namespace, "owner", owner, field_manager="test")
        assert stored["data"]["text"] == ODD_TEXT
        made.owner = ObjectRef(CONFIG_MAPS, namespace, "owner", stored["metadata"]["uid"])
        calls.clear()
        yield made
        await client.delete(NAMESPACES, None, namespace, uid=created["metadata"]["uid"])


async def test_one_write_per_child_and_none_after_a_restart(place: Place) -> None:
    async with started(place) as operator:
        assert await operator.names(*place.children()) == ["Created"] * 4
        assert await operator.names(*place.children()) == ["Unchanged"] * 4
        assert place.writes() == 4
    # The Deployment's controller writes to it once; a write of ours that met it would be done twice, rightly.
    for _ in range(200):
        engine = await place.stored(DEPLOYMENTS, "llama-engine")
        if "deployment.kubernetes.io/revision" in engine["metadata"]["annotations"]:
            break
        await asyncio.sleep(0.05)
    async with started(place) as operator:
        assert await operator.names(*place.children()) == ["Unchanged"] * 4
        changed = place.children(port=81, env={"A": "1"}, old="yes")
        assert await operator.names(*changed) == ["Unchanged", "Unchanged", "Updated", "Updated"]
        assert place.writes() == 4, "two hand-overs, two applies"
        changed = place.children(port=82, env={"B": "1"})
        assert await operator.names(*changed) == ["Unchanged", "Unchanged", "Updated", "Updated"]
        assert place.writes() == 2
        assert await operator.names(*changed) == ["Unchanged"] * 4
    async with started(place) as operator:
        assert await operator.names(*changed) == ["Unchanged"] * 4
        assert place.writes() == 0
    engine = await place.stored(DEPLOYMENTS, "llama-engine")
    (container,) = engine["spec"]["template"]["spec"]["containers"]
    assert [item["name"] for item in container["env"]] == ["EMPTY", "POD", "CPU", "B"]
    stored = await place.stored(SERVICES, "llama")
    assert "old" not in stored["metadata"]["labels"]
    assert [port["port"] for port in stored["spec"]["ports"]] == [82]


async def test_a_change_outside_the_pods_restarts_none(place: Place) -> None:
    async with started(place) as operator:
        await operator.apply(*place.children())
        before = await place.stored(DEPLOYMENTS, "llama-engine")
        await operator.apply(*place.children(label="new"))
    # The generation is no measure: a Deployment's rises with its annotations too.
    assert (await place.stored(DEPLOYMENTS, "llama-engine"))["spec"] == before["spec"]


async def test_replicas_that_are_not_in_the_intent_stay_with_their_owner(place: Place) -> None:
    engine = place.children()[3]
    del engine["spec"]["replicas"]
    async with started(place) as operator:
        await operator.apply(engine)
        await place.edit(DEPLOYMENTS, "llama-engine", "replace", "/spec/replicas", 0, manager="autoscaler")
        await place.until_observed(DEPLOYMENTS, "llama-engine")
        await operator.caught_up(DEPLOYMENTS, "llama-engine")
        engine["metadata"]["labels"]["x"] = "y"
        assert await operator.names(engine) == ["Updated"]
    assert (await place.stored(DEPLOYMENTS, "llama-engine"))["spec"]["replicas"] == 0


async def test_drift_is_repaired_and_a_fight_is_recognised(place: Place) -> None:
    service = place.children()[2]
    async with started(place) as operator:
        await operator.apply(service)
        await place.edit(SERVICES, "llama", "add", "/metadata/labels/theirs", "yes")
        outcomes = []
        for i in range(4):
            await place.edit(SERVICES, "llama", "replace", "/spec/selector/app", f"x{i}", manager="fighter")
            await operator.caught_up(SERVICES, "llama")
            (outcome,) = await operator.apply(service)
            outcomes.append(type(outcome).__name__)
        assert outcomes == ["Repaired", "Repaired", "Repaired", "Contended"]
        assert getattr(outcome, "manager", "") == "fighter"
    assert (await place.stored(SERVICES, "llama"))["metadata"]["labels"]["theirs"] == "yes"


async def test_an_edited_key_of_a_list_comes_back(place: Place) -> None:
    service = place.children()[2]
    async with started(place) as operator:
        await operator.apply(service)
        await place.edit(SERVICES, "llama", "replace", "/spec/ports/0/port", 9999)
        await place.edit(SERVICES, "llama", "add", "/spec/ports/-", {"name": "theirs", "port": 7})
        await operator.caught_up(SERVICES, "llama")
        assert await operator.names(service) == ["Repaired"]
        assert await operator.names(service) == ["Unchanged"]
        ports = (await place.stored(SERVICES, "llama"))["spec"]["ports"]
        assert [(port["name"], port["port"]) for port in ports] == [("http", 80), ("theirs", 7)]
        # What the patch has set is ours, and can leave again.
        service["spec"]["ports"] = [{"name": "http", "port": 81}]
        assert await operator.names(service) == ["Updated"]
        ports = (await place.stored(SERVICES, "llama"))["spec"]["ports"]
        assert sorted((port["name"], port["port"]) for port in ports) == [("http", 81), ("theirs", 7)]


async def test_a_removed_owner_and_a_removed_label_come_back(place: Place) -> None:
    account = place.children()[0]
    async with started(place) as operator:
        await operator.apply(account)
        await place.edit(SERVICE_ACCOUNTS, "llama", "remove", "/metadata/ownerReferences")
        await operator.caught_up(SERVICE_ACCOUNTS, "llama")
        assert await operator.names(account) == ["Repaired"]
        await place.edit(SERVICE_ACCOUNTS, "llama", "remove", "/metadata/labels")
        await eventually(lambda: operator.informers[SERVICE_ACCOUNTS].get(place.namespace, "llama") is None)
        assert await operator.names(account) == ["Repaired"]


async def test_a_foreign_object_is_left_alone_and_a_uid_binds_an_apply(place: Place) -> None:
    theirs: Json = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "llama"},
        "spec": {"ports": [{"port": 1}]},
    }
    before = await place.client.create(SERVICES, place.namespace, theirs, field_manager="kubectl")
    async with started(place) as operator:
        assert await operator.names(place.children()[2]) == ["Foreign"]
    assert await place.stored(SERVICES, "llama") == before
    for name in ("llama", "nobody"):
        body = {**place.children()[2]}
        body["metadata"] = {**body["metadata"], "name": name, "uid": "11111111-2222-3333-4444-555555555555"}
        with pytest.raises(Conflict):
            await place.client.apply(SERVICES, place.namespace, name, body, field_manager="draftmark", force=True)


async def test_deletion_by_uid_and_pruning(place: Place) -> None:
    account = place.children()[0]
    async with started(place) as operator:
        (created,) = await operator.apply(account)
        assert not await place.client.delete(SERVICE_ACCOUNTS, place.namespace, "llama", uid="not-this-one")
        left_over = (SERVICE_ACCOUNTS, place.namespace, "llama", created.ref.uid)
        (outcome,) = await operator.apply(prune=[left_over])
        assert type(outcome).__name__ == "Pruned"
        await eventually(lambda: len(operator.informers[SERVICE_ACCOUNTS]) == 0)


async def test_a_refused_object_says_why_and_the_others_go_on(place: Place) -> None:
    bad = place.child(SERVICES, "bad", spec={"ports": [{"port": 99999}]})
    async with started(place) as operator:
        refused, created = await operator.apply(bad, place.children()[0])
    assert "must be between 1 and 65535" in str(getattr(refused, "error", ""))
    assert type(created).__name__ == "Created"


async def test_a_lease_is_taken_renewed_and_released(place: Place) -> None:
    lock = LeaseLock(place.client, namespace=place.namespace, name="leader", identity="a", retry_s=0.1)
    assert await lock.acquire(asyncio.Event())
    first = (await place.stored(LEASES, "leader"))["spec"]
    await asyncio.sleep(0.5)
    later = (await place.stored(LEASES, "leader"))["spec"]
    assert later["renewTime"] > first["renewTime"]
    await lock.release()
    assert not (await place.stored(LEASES, "leader"))["spec"].get("holderIdentity")


async def test_a_namespace_that_is_being_deleted_is_recognised(place: Place) -> None:
    namespace = await place.client.get(NAMESPACES, None, place.namespace)
    assert namespace is not None
    await place.client.delete(NAMESPACES, None, place.namespace, uid=namespace["metadata"]["uid"])
    body: Json = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "late"}}
    with pytest.raises(NamespaceTerminating):
        await place.client.create(CONFIG_MAPS, place.namespace, body, field_manager="test")


#: Of every kind that one of the writers and readers on the way treats in a manner of its own.
CHARACTERS = "<a&b> \" \\ / ' \x00\x01\b\f\n\r\t\x1f \x7f\x80\x85\x9f \u2028\u2029\ufeff\ufffe\uffff é 中 😀"


@pytest.mark.parametrize("text", ["plain", CHARACTERS], ids=["plain", "characters"])
async def test_a_pin_that_0_1_0_has_stored_gets_its_number(
    place: Place, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """The API server compares the bytes of a ControllerRevision's data. An apply sorts its keys, and an apply as well as a
    patch writes its characters as Go does."""
    data = {"b": {"z": 1, "a": [text, None, True, -1, {}, []]}, "a": 1, text: "b"}
    pin = place.child(CONTROLLER_REVISIONS, "llama-1") | {"revision": 1, "data": data}
    with monkeypatch.context() as patched:
        patched.setattr("draftmark.cluster.client.encode", encode_as_0_1_0)
        await place.client.create(CONTROLLER_REVISIONS, place.namespace, pin, field_manager="draftmark-create")
    async with started(place) as operator:
        assert await operator.names({**pin, "revision": 2}) == ["Updated"]
        assert await operator.names({**pin, "revision": 3}) == ["Updated"]
        assert await operator.names({**pin, "revision": 3}) == ["Unchanged"]
    stored = await place.stored(CONTROLLER_REVISIONS, "llama-1")
    assert (stored["revision"], stored["data"]) == (3, data)
    assert stored["metadata"]["annotations"].keys() >= {ANNOTATION_APPLIED}


async def test_a_pin_of_ours_gets_its_number_by_an_apply(place: Place) -> None:
    data = {"b": {"z": 1, "a": [CHARACTERS, None, True, -1, {}, []]}, "a": 1, CHARACTERS: "b"}
    pin = place.child(CONTROLLER_REVISIONS, "llama-1") | {"revision": 1, "data": data}
    async with started(place) as operator:
        assert await operator.names(pin) == ["Created"]
        assert await operator.names({**pin, "revision": 2}) == ["Updated"]
        assert await operator.names({**pin, "revision": 2}) == ["Unchanged"]
