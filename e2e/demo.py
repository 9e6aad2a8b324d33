"""`python -m e2e.demo up|down`: from nothing to an answer of a served model.

Every step says what it does and how long it took. `up` may be repeated at any
time, also after it was killed. `down` removes all that `up` started.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from e2e.cluster import binaries, cache
from e2e.cluster.choose import Given, Target, choose
from e2e.cluster.cluster import Cluster
from e2e.cluster.images import REPOSITORY
from e2e.cluster.kind import Kind, docker_answers
from e2e.cluster.progress import say, step

CLUSTER = "demo"
RELEASE = "draftmark"
SYSTEM_NAMESPACE = "draftmark-system"
NAMESPACE = "draftmark-demo"
QUICKSTART = REPOSITORY / "examples" / "quickstart.yaml"
RESOURCE = "inferenceservices.draftmark.dev"
KIND = "InferenceService"
READY_TIMEOUT_S = 300
HUB = "https://huggingface.co/api/models?limit=1"
TINY_MODEL = "tiny-model"
QUESTION = "Hello, how are you?"


def helm_values(operator: str, llama_cpp: str) -> dict[str, str]:
    """The chart's values that say which images to use: the only place that knows their names."""
    repository, _, tag = operator.rpartition(":")
    return {"image.repository": repository, "image.tag": tag, "defaults.engines.llama-cpp.images.cpu": llama_cpp}


@dataclass(frozen=True, slots=True)
class Tools:
    """kubectl and helm, pinned, against one cluster."""

    kubeconfig: Path

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return self._run(str(binaries.KUBECTL.build() / "kubectl"), *arguments, stdin=stdin)

    def helm(self, *arguments: str) -> str:
        return self._run(str(binaries.HELM.build() / "helm"), *arguments)

    def apply(self, *objects: dict[str, Any]) -> None:
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=yaml.safe_dump_all(objects))

    def tell(self, *arguments: str) -> None:
        """Print what kubectl says, for good or bad: a diagnosis must not end at its first gap."""
        say(f"$ kubectl {' '.join(arguments)}")
        try:
            say(self.kubectl(*arguments))
        except RuntimeError as error:
            say(str(error))

    def _run(self, *command: str, stdin: str | None = None) -> str:
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig)}
        done = subprocess.run(command, input=stdin, text=True, capture_output=True, env=environment)
        if done.returncode != 0:
            raise RuntimeError(f"{Path(command[0]).name} {' '.join(command[1:])} failed:\n{done.stderr.strip()}")
        return done.stdout


def up() -> None:
    began = time.monotonic()
    say("1. choose a cluster")
    with step("can the model hub be reached?"):
        hub = hub_is_reachable()
    target = choose(CLUSTER, egress=hub)
    say("2. bring it up")
    target.up()
    tools = Tools(target.kubeconfig)
    say("3. build the images and load them")
    operator, llama_cpp = target.deliver("operator"), target.deliver("llama-cpp-cpu")
    say("4. install the operator")
    with step("helm upgrade --install", slow=True):
        install(tools, operator, llama_cpp)
    say("5. apply a model")
    name, manifest = apply_quickstart(tools, target, hub=hub)
    say(f"6. wait until {name} is ready")
    url = wait_until_ready(tools, name)
    say(f"7. ask it: {QUESTION}")
    with step("a pod asks, inside the cluster"):
        answer = ask(tools, operator, url)
    say(f"  POST {url}/v1/chat/completions\n  answer: {answer!r}")
    say("8. look at it")
    say(tools.kubectl("get", RESOURCE, f"--namespace={NAMESPACE}", "-o", "wide"))
    say(explain(manifest))
    say(f"done in {time.monotonic() - began:.0f} s")
    say(f"  KUBECONFIG={target.kubeconfig} {binaries.KUBECTL.build() / 'kubectl'} get pods --all-namespaces")
    say("  'make demo-down' removes it")


def down() -> None:
    shutil.rmtree(cache.folder() / "demo", ignore_errors=True)
    if os.environ.get("KUBECONFIG"):
        uninstall(Tools(Path(os.environ["KUBECONFIG"])))
        return
    Cluster(CLUSTER).down()
    if docker_answers():
        Kind(CLUSTER).down()


def hub_is_reachable() -> bool:
    try:
        with urllib.request.urlopen(HUB, timeout=3) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def install(tools: Tools, operator: str, llama_cpp: str) -> None:
    values = (f"--set-string={name}={value}" for name, value in helm_values(operator, llama_cpp).items())
    chart = str(REPOSITORY / "charts" / "draftmark")
    place = (f"--namespace={SYSTEM_NAMESPACE}", "--create-namespace")
    tools.helm("upgrade", "--install", RELEASE, chart, *place, *values, "--wait", "--timeout=120s")


def uninstall(tools: Tools) -> None:
    """Remove what `up` put into a cluster that stays; the operator last, so that it can still clean up."""
    with step("removing the demo's namespace", slow=True):
        tools.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=120s")
    with step("helm uninstall"):
        tools.helm("uninstall", RELEASE, f"--namespace={SYSTEM_NAMESPACE}", "--ignore-not-found")
        tools.kubectl("delete", "namespace", SYSTEM_NAMESPACE, "--ignore-not-found", "--timeout=60s")
    say(f"  kept, as the chart keeps it: the custom resource definition {RESOURCE}")


def apply_quickstart(tools: Tools, target: Target, *, hub: bool) -> tuple[str, Path]:
    """Apply the example, with a generated model where the hub is out of reach.

    Returns:
        The service's name, and the file with the manifest as it was applied.
    """
    objects: list[dict[str, Any]] = [each for each in yaml.safe_load_all(QUICKSTART.read_text()) if each]
    service = next(each for each in objects if each["kind"] == KIND)
    tools.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    if isinstance(target, Given):
        say(f"  model: {service['spec']['model']['uri']}; whether your cluster reaches it will be seen")
    elif hub:
        say(f"  model: {service['spec']['model']['uri']}")
    else:
        service["spec"]["model"]["uri"] = serve_tiny_model(tools, target)
    for each in objects:
        each["metadata"]["namespace"] = NAMESPACE
    manifest = cache.folder() / "demo" / "quickstart.yaml"
    manifest.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_text(yaml.safe_dump_all(objects, sort_keys=False))
    with step(f"kubectl apply -f {manifest}"):
        tools.apply(*objects)
    return service["metadata"]["name"], manifest


def serve_tiny_model(tools: Tools, target: Target) -> str:
    """Put a generated model into a claim, and return its URI."""
    from e2e import tiny_gguf  # only here, since only this needs numpy

    say("  model: the hub cannot be reached from here, so a tiny model with random weights takes its place;")
    say("    its answers are noise. The manifest is the same but for model.uri")
    with step("writing the tiny model"), tempfile.TemporaryDirectory() as folder:
        where = target.place(tiny_gguf.write(Path(folder) / "tiny.gguf"))
    size, modes = {"storage": "10Mi"}, ["ReadOnlyMany"]
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"{NAMESPACE}-{TINY_MODEL}"},
        "spec": {
            "capacity": size,
            "accessModes": modes,
            "storageClassName": "",
            "persistentVolumeReclaimPolicy": "Retain",
            "claimRef": {"namespace": NAMESPACE, "name": TINY_MODEL},
            "hostPath": {"path": where, "type": "Directory"},
        },
    }
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": TINY_MODEL, "namespace": NAMESPACE},
        "spec": {
            "accessModes": modes,
            "storageClassName": "",
            "volumeName": volume["metadata"]["name"],  # type: ignore[index]
            "resources": {"requests": size},
        },
    }
    tools.apply(volume, claim)
    return f"pvc://{TINY_MODEL}/tiny.gguf"


def wait_until_ready(tools: Tools, name: str) -> str:
    """Say each change of a condition until Ready is True, and return the service's address.

    Raises:
        RuntimeError: It was not ready in time; what the cluster knows has been said.
    """
    began = time.monotonic()
    said: dict[str, str] = {}
    while time.monotonic() - began < READY_TIMEOUT_S:
        found = json.loads(tools.kubectl("get", RESOURCE, name, f"--namespace={NAMESPACE}", "-o", "json"))
        status = found.get("status", {})
        # A status of an earlier generation says nothing about the manifest just applied.
        if status.get("observedGeneration") == found["metadata"]["generation"]:
            for each in status.get("conditions", ()):
                text = f"{each['type']}={each['status']} {each.get('reason', '')}: {each.get('message', '')}"
                if said.get(each["type"]) != text:
                    said[each["type"]] = text
                    say(f"  {time.monotonic() - began:5.1f} s  {text}")
                if each["type"] == "Ready" and each["status"] == "True" and status.get("url"):
                    return str(status["url"])
        time.sleep(0.5)
    tools.tell("describe", RESOURCE, name, f"--namespace={NAMESPACE}")
    for namespace in (NAMESPACE, SYSTEM_NAMESPACE):
        tools.tell("get", "pods,events", f"--namespace={namespace}", "-o", "wide")
        for pod in tools.kubectl("get", "pods", f"--namespace={namespace}", "-o", "name").split():
            tools.tell("logs", pod, f"--namespace={namespace}", "--all-containers", "--tail=30")
    raise RuntimeError(f"{name} is not ready after {READY_TIMEOUT_S} s; its conditions, pods and logs are above")


def ask(tools: Tools, image: str, url: str) -> str:
    """Send a chat completion from a pod: the address is one inside the cluster."""
    program = (
        "import httpx, sys\n"
        "body = {'messages': [{'role': 'user', 'content': sys.argv[2]}], 'max_tokens': 32}\n"
        "answer = httpx.post(sys.argv[1] + '/v1/chat/completions', json=body, timeout=60).raise_for_status()\n"
        "print(answer.json()['choices'][0]['message']['content'])\n"
    )
    pod = "ask"
    locked = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    container = {
        "name": pod,
        "image": image,
        "command": ["python3", "-c", program, url, QUESTION],
        "securityContext": locked,
    }
    # containerd starts no pod that has a group and no user.
    user = {"runAsNonRoot": True, "runAsUser": 65532, "runAsGroup": 65532}
    spec = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": {**user, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
    }
    delete = ("delete", "pod", pod, f"--namespace={NAMESPACE}", "--ignore-not-found", "--grace-period=1")
    tools.kubectl(*delete)
    tools.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod, "namespace": NAMESPACE}, "spec": spec})
    try:
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            phase = tools.kubectl("get", "pod", pod, f"--namespace={NAMESPACE}", "-o=jsonpath={.status.phase}")
            if phase in ("Succeeded", "Failed"):
                break
            time.sleep(0.2)
        if phase != "Succeeded":
            tools.tell("describe", "pod", pod, f"--namespace={NAMESPACE}")
            tools.tell("logs", pod, f"--namespace={NAMESPACE}")
            raise RuntimeError(f"no answer from {url}; the asking pod is {phase}, see above")
        return tools.kubectl("logs", pod, f"--namespace={NAMESPACE}").strip()
    finally:
        tools.kubectl(*delete, "--wait=false")


def explain(manifest: Path) -> str:
    draftmark = REPOSITORY / ".venv" / "bin" / "draftmark"
    if not draftmark.exists():
        return f"{draftmark} is not there: 'make setup' installs it"
    done = subprocess.run([str(draftmark), "explain", "-f", str(manifest)], text=True, capture_output=True)
    return f"$ draftmark explain -f {manifest}\n{done.stdout}{done.stderr}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m e2e.demo", description=__doc__)
    parser.add_argument("action", choices=["up", "down"])
    match parser.parse_args().action:
        case "up":
            up()
        case "down":
            down()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (RuntimeError, TimeoutError) as error:
        sys.exit(f"error: {error}")
