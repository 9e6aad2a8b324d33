"""What the tests see of the cluster: objects read over `kubectl proxy`, and waiting for what must come."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx
import pytest

from draftmark.api import names
from draftmark.cluster.kinds import DEPLOYMENTS, INFERENCE_SERVICES, PODS, Kind, child_kinds
from e2e.tools import RESOURCE, Tools, kubectl_program

Json = dict[str, Any]
T = TypeVar("T")

#: Kinds that others make for a child of ours, and that must go with it.
GRANDCHILDREN: Final = (
    PODS,
    Kind("apps", "v1", "replicasets", "ReplicaSet"),
    Kind("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice"),
)


def eventually(what: str, look: Callable[[], T], *, within_s: float, every_s: float = 0.3) -> T:
    """Wait until `look` returns something true, and return it.

    Args:
        what: The statement that is waited for; a failure says it, with what was seen last.
    """
    deadline = time.monotonic() + within_s
    while not (seen := look()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {within_s:g} s: {what}; last seen: {seen!r}")
        time.sleep(every_s)
    return seen


@dataclass(frozen=True, slots=True)
class Api:
    """The API server, as the administrator."""

    http: httpx.Client

    def get(self, kind: Kind, namespace: str | None, name: str) -> Json | None:
        """One object, or None when there is none of that name."""
        answer = self.http.get(kind.path(namespace, name))
        return None if answer.status_code == 404 else _json(answer)

    def list(self, kind: Kind, namespace: str | None, **labels: str) -> list[Json]:
        """Objects by namespace and labels."""
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        items: list[Json] = _json(self.http.get(kind.path(namespace), params={"labelSelector": selector}))["items"]
        # In a list the API server leaves these two out.
        return [{"apiVersion": kind.api_version, "kind": kind.kind, **item} for item in items]

    def create(self, kind: Kind, namespace: str | None, body: Json) -> Json:
        return _json(self.http.post(kind.path(namespace), json=body))

    def patch(self, kind: Kind, namespace: str, name: str, body: Json) -> Json:
        """Merge a patch into an object, as a user's `kubectl edit` does."""
        headers = {"Content-Type": "application/merge-patch+json"}
        path = kind.path(namespace, name)
        return _json(
            self.http.patch(path, content=json.dumps(body), headers=headers, params={"fieldManager": "somebody"})
        )

    def delete(self, kind: Kind, namespace: str, name: str) -> None:
        _json(self.http.delete(kind.path(namespace, name)))

    def to_pod(self, pod: Json, port: int, path: str, body: Json | None = None) -> httpx.Response:
        """Send a request to one pod, whatever its Service says: a GET, or a POST when there is a body."""
        at = f"{PODS.path(pod['metadata']['namespace'], pod['metadata']['name'])}:{port}/proxy{path}"
        return self.http.get(at) if body is None else self.http.post(at, json=body)

    def may(self, user: str, verb: str, kind: Kind) -> bool:
        """Whether RBAC lets a user do something with all objects of a kind: `kubectl auth can-i --as`."""
        wanted = {"verb": verb, "group": kind.group, "resource": kind.plural}
        review = Kind("authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", namespaced=False)
        body = {
            "apiVersion": review.api_version,
            "kind": review.kind,
            "spec": {"user": user, "resourceAttributes": wanted},
        }
        return bool(self.create(review, None, body)["status"]["allowed"])


def _json(answer: httpx.Response) -> Json:
    assert answer.is_success, f"{answer.request.method} {answer.request.url}: {answer.status_code} {answer.text[:500]}"
    read: Json = answer.json()
    return read


@contextmanager
def proxied(kubeconfig: Path) -> Iterator[Api]:
    """The API server behind `kubectl proxy`, which knows every way to log in that a kubeconfig can hold."""
    # Its arguments name the cluster's folder: should we be killed, the next removal of the cluster ends it too.
    command = [str(kubectl_program()), f"--kubeconfig={kubeconfig}", "proxy", "--port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as proxy:
        try:
            assert proxy.stdout is not None
            address = proxy.stdout.readline().split()[-1]
            with httpx.Client(base_url=f"http://{address}", timeout=30, trust_env=False) as http:
                yield Api(http)
        finally:
            proxy.kill()


@dataclass(frozen=True, slots=True)
class Namespace:
    """One namespace with InferenceServices in it."""

    name: str
    api: Api
    tools: Tools

    def apply(self, *services: Json) -> None:
        """Apply as a user does."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(services)})
        self.tools.kubectl("apply", "--server-side", f"--namespace={self.name}", "-f", "-", stdin=text)

    def service_names(self) -> list[str]:
        """Names of all InferenceServices."""
        return [item["metadata"]["name"] for item in self.api.list(INFERENCE_SERVICES, self.name)]

    def service(self, name: str) -> Json:
        """The InferenceService."""
        found = self.api.get(INFERENCE_SERVICES, self.name, name)
        assert found is not None, f"there is no {RESOURCE} {name}"
        return found

    def edit(self, name: str, **spec: Any) -> Json:
        """Change fields of the spec."""
        return self.api.patch(INFERENCE_SERVICES, self.name, name, {"spec": spec})

    def conditions(self, name: str) -> dict[str, Json]:
        """Conditions by type, as far as they were written for the spec as it is now."""
        service = self.service(name)
        generation = service["metadata"]["generation"]
        found = service.get("status", {}).get("conditions") or ()
        return {c["type"]: c for c in found if c["observedGeneration"] == generation}

    def is_ready(self, name: str) -> bool:
        return self.conditions(name).get("Ready", {}).get("status") == "True"

    def wait_until_ready(self, name: str, within_s: float = 60.0) -> Json:
        """Wait for Ready=True of the spec as it is now, and return the service."""
        eventually(f"{name} is Ready", lambda: self.is_ready(name), within_s=within_s)
        return self.service(name)

    def wait_until_settled(self, name: str, within_s: float = 60.0) -> Json:
        """Wait until it is ready, with one revision and as many pods as wanted: nothing of it changes any more."""

        def settled() -> bool:
            if not self.is_ready(name):
                return False
            service = self.service(name)
            wanted, status = service["spec"]["replicas"], service["status"]
            is_alone = [r["hash"] for r in status["revisions"]] == [self.child_revision(name)]
            # A router goes after the last pod of its revision.
            is_alone = is_alone and len(self.pods(name, names.ROLE_ROUTER)) == 1
            return is_alone and wanted == status["replicas"] == status["readyReplicas"] == len(self.pods(name))

        eventually(f"{name} is settled", settled, within_s=within_s)
        return self.service(name)

    def children(self, name: str) -> dict[tuple[Kind, str], Json]:
        """What the operator has made for a service."""
        labels = {names.LABEL_SERVICE: name}
        found = ((kind, item) for kind in child_kinds() for item in self.api.list(kind, self.name, **labels))
        return {(kind, item["metadata"]["name"]): item for kind, item in found}

    def child(self, name: str, kind: Kind, role: str) -> Json:
        """The only child of a kind and a role."""
        (found,) = (
            item
            for (each, _), item in self.children(name).items()
            if each == kind and item["metadata"]["labels"][names.LABEL_ROLE] == role
        )
        return found

    def child_revision(self, name: str) -> str | None:
        """The revision that has an engine Deployment, if it is the only one."""
        found = [
            item
            for (kind, _), item in self.children(name).items()
            if kind == DEPLOYMENTS and item["metadata"]["labels"][names.LABEL_ROLE] == names.ROLE_ENGINE
        ]
        return found[0]["metadata"]["labels"][names.LABEL_REVISION] if len(found) == 1 else None

    def versions(self, name: str) -> Mapping[str, str]:
        """resourceVersions of a service and its children: equal before and after means that nobody wrote anything."""
        objects = {f"{kind.kind}/{child}": item for (kind, child), item in self.children(name).items()}
        objects[names.KIND] = self.service(name)
        return {which: item["metadata"]["resourceVersion"] for which, item in objects.items()}

    def pods(self, name: str, role: str = names.ROLE_ENGINE) -> list[Json]:
        """The pods of one role, without those on their way out."""
        found = self.api.list(PODS, self.name, **{names.LABEL_SERVICE: name, names.LABEL_ROLE: role})
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def pod_lives(self, name: str) -> dict[str, int]:
        """uid and number of restarts of each engine pod."""
        return {pod["metadata"]["uid"]: restarts(pod) for pod in self.pods(name)}


def restarts(pod: Json) -> int:
    """How often the containers of a pod were started again."""
    return sum(int(c["restartCount"]) for c in pod.get("status", {}).get("containerStatuses") or ())


def is_ready(pod: Json) -> bool:
    conditions = pod.get("status", {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
