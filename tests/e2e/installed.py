"""The installed operator, the services that tests apply, and a pod that sends requests."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Timer
from typing import Any, Final

import httpx

from draftmark.api import names
from draftmark.cluster.kinds import LEASES, PODS
from e2e.cluster.choose import Target
from e2e.models import URI, claim_folder
from e2e.tools import SYSTEM_NAMESPACE, Tools, kubectl_program, restricted_namespace
from tests.e2e.api import Api, Json, Namespace, eventually, is_ready

#: Namespace of the services that work.
HOME: Final = "e2e"


@dataclass(frozen=True, slots=True)
class Installed:
    """A cluster with the operator in it."""

    target: Target
    tools: Tools
    api: Api
    #: References of the images.
    operator: str
    llama_cpp: str
    #: The engine that answers without a model: `e2e/standin`. It is given to a service as its own image.
    standin: str
    #: URI of the model as an image, and folder of the node with the model as a file.
    image_uri: str
    model_folder: str

    def operators(self) -> list[Json]:
        """The operator's pods, without those on their way out."""
        component = {"app.kubernetes.io/component": "operator"}
        found = self.api.list(PODS, SYSTEM_NAMESPACE, **component)
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def lease_holder(self) -> str:
        """Who leads, as the Lease says: the pod's name, `_`, and a random suffix of the process."""
        (lease,) = self.api.list(LEASES, SYSTEM_NAMESPACE)
        return str(lease["spec"]["holderIdentity"])

    @contextmanager
    def log_of(self, pod: Json) -> Iterator[list[str]]:
        """Follow the log of a pod that will end; afterwards the list holds its lines."""
        lines: list[str] = []
        command = [str(kubectl_program()), f"--kubeconfig={self.tools.kubeconfig}", "logs", "--follow"]
        metadata = pod["metadata"]
        command += [metadata["name"], f"--namespace={metadata['namespace']}"]
        with subprocess.Popen(command, text=True, stdout=subprocess.PIPE) as process:
            late = Timer(40, process.kill)
            try:
                assert process.stdout is not None
                lines.append(process.stdout.readline())  # it is followed from here on
                yield lines
                late.start()
                # Not communicate(): it knows nothing of what readline() has read ahead.
                lines += process.stdout.read().splitlines()
            finally:
                late.cancel()
                process.kill()

    def wait_until_both_replicas_are_ready(self) -> None:
        """Wait until the operator is as it was installed."""
        eventually(
            "two replicas of the operator are ready",
            lambda: len(self.operators()) == 2 and all(is_ready(pod) for pod in self.operators()),
            within_s=60,
        )


def leader(installed: Installed) -> Json | None:
    """The operator's pod that holds the Lease, as far as it is there."""
    name = installed.lease_holder().rpartition("_")[0]
    return next((pod for pod in installed.operators() if pod["metadata"]["name"] == name), None)


def metrics(installed: Installed, pod: Json) -> dict[str, float]:
    """The operator's metrics by name and labels, as its pod tells them; empty while it does not answer."""
    try:
        answer = installed.api.to_pod(pod, 8080, "/metrics")
    except httpx.HTTPError:
        return {}
    lines = (line.rpartition(" ") for line in answer.text.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in lines} if answer.is_success else {}


def inference_service(name: str, *, uri: str = URI, **spec: Any) -> Json:
    """A small service."""
    resources = {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "512Mi"}}
    engine = {"name": "llama-cpp", "resources": resources, **spec.pop("engine", {})}
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": name},
        "spec": {
            "model": {"uri": uri, "maxContextLength": 256},
            "engine": engine,
            "workload": {"concurrency": 2},
            # The last pod of a revision waits as long at most, and tests wait for it.
            "traffic": {"queueTimeout": "5s"},
            **spec,
        },
    }


def make_namespace(installed: Installed, name: str) -> Namespace:
    """A namespace of restricted security, with the model's claim."""
    installed.tools.apply(restricted_namespace(name))
    claim_folder(installed.tools, folder=installed.model_folder, namespace=name)
    return Namespace(name, installed.api, installed.tools)


@dataclass(frozen=True, slots=True)
class Client:
    """A pod that sends requests inside the cluster."""

    tools: Tools
    pod: str

    def python(self, program: str, *arguments: str) -> str:
        """Run a program in the pod and return what it prints."""
        return self.tools.kubectl("exec", self.pod, f"--namespace={HOME}", "--", "python3", "-c", program, *arguments)

    def ask(self, url: str, *requests: tuple[str, Any]) -> list[tuple[int, str, str]]:
        """Send requests, each a path and a body, or None for a GET; each answer is status, content type and text."""
        out = self.python(_ASK, url, json.dumps(requests))
        return [tuple(json.loads(line)) for line in out.splitlines()]

    @contextmanager
    def asking(self, url: str) -> Iterator[dict[str, int]]:
        """Ask again and again, each time over a new connection; afterwards the dict counts the answers by what they
        were: an HTTP status, or an error."""
        answers: dict[str, int] = {}
        command = [str(kubectl_program()), f"--kubeconfig={self.tools.kubeconfig}", "exec", "-i", self.pod]
        command += [f"--namespace={HOME}", "--", "python3", "-c", _ASK_UNTIL_STDIN_ENDS, url]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(command, text=True, **pipes) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "asking\n"
            try:
                yield answers
            finally:
                out, errors = process.communicate(timeout=60)  # closes stdin first
                assert process.returncode == 0, errors
                answers.update(json.loads(out))


_ASK = """
import httpx, json, sys
for path, body in json.loads(sys.argv[2]):
    answer = httpx.request("POST" if body is not None else "GET", sys.argv[1] + path, json=body, timeout=60)
    print(json.dumps([answer.status_code, answer.headers.get("content-type", ""), answer.text[:3000]]))
"""

_ASK_UNTIL_STDIN_ENDS = """
import collections, http.client, json, select, sys, urllib.parse
host = urllib.parse.urlsplit(sys.argv[1]).hostname
body = json.dumps({"model": host.partition(".")[0], "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4})
answers = collections.Counter()
print("asking", flush=True)
while not select.select([sys.stdin], [], [], 0.03)[0]:
    try:
        connection = http.client.HTTPConnection(host, timeout=20)
        connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        answers[str(answer.status)] += 1
    except OSError as error:
        answers[f"{type(error).__name__}: {error}"] += 1
    finally:
        connection.close()
print(json.dumps(answers))
"""
