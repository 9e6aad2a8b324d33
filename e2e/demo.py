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
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from e2e.cluster import cache
from e2e.cluster.choose import Given, Target, choose, users_kubeconfig
from e2e.cluster.cluster import Cluster
from e2e.cluster.images import REPOSITORY
from e2e.cluster.kind import Kind, docker_answers
from e2e.cluster.progress import say, step
from e2e.models import URI, claim_folder, place_tiny_model
from e2e.tools import (
    RESOURCE,
    SYSTEM_NAMESPACE,
    Tools,
    client_pod,
    deliver,
    install,
    kubectl_program,
    read_defaults,
    restricted_namespace,
    uninstall,
)

CLUSTER = "demo"
NAMESPACE = "draftmark-demo"
QUICKSTART = REPOSITORY / "examples" / "quickstart.yaml"
#: What one replica of it carries: four minutes, so the user is told how to begin it.
BENCHMARK = REPOSITORY / "examples" / "benchmark.yaml"
KIND = "InferenceService"
READY_TIMEOUT_S = 300
HUB = "https://huggingface.co/api/models?limit=1"
QUESTION = "Hello, how are you?"
#: Conditions whose changes are worth a line.
TOLD = ("Accepted", "Available", "Progressing", "Ready")
_DRAFTMARK = REPOSITORY / ".venv" / "bin" / "draftmark"


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
    images = deliver(target)
    say("4. install the operator")
    with step("helm upgrade --install", slow=True):
        install(tools, images)
    say("5. apply a model")
    name, manifest = apply_quickstart(tools, target, hub=hub)
    say(f"6. wait until {name} is ready")
    url = wait_until_ready(tools, name)
    say(f"7. ask it: {QUESTION}")
    with step("a pod asks, inside the cluster"):
        answer = ask(tools, images.operator, url)
    say(f"  POST {url}/v1/chat/completions\n  answer: {answer!r}")
    say("8. look at it")
    say(f"$ kubectl get {RESOURCE} --namespace={NAMESPACE} -o wide")
    say(tools.kubectl("get", RESOURCE, f"--namespace={NAMESPACE}", "-o", "wide"))
    say(explain(tools, manifest))
    say(f"done in {time.monotonic() - began:.0f} s")
    say(f"  KUBECONFIG={target.kubeconfig} {kubectl_program()} get pods --all-namespaces")
    say(f"  KUBECONFIG={target.kubeconfig} {_DRAFTMARK} bench -f {BENCHMARK} -n {NAMESPACE} --watch")
    say("  'make demo-down' removes it")


def down() -> None:
    shutil.rmtree(_folder(), ignore_errors=True)
    if given := users_kubeconfig():
        tools = Tools(Path(given))
        with step("removing the demo's namespace", slow=True):
            tools.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=120s")
        uninstall(tools)
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


def apply_quickstart(tools: Tools, target: Target, *, hub: bool) -> tuple[str, Path]:
    """Apply the example, with a generated model where the hub is out of reach.

    Returns:
        The service's name, and the file with the manifest as it was applied.
    """
    objects: list[dict[str, Any]] = [each for each in yaml.safe_load_all(QUICKSTART.read_text()) if each]
    service = next(each for each in objects if each["kind"] == KIND)
    tools.apply(restricted_namespace(NAMESPACE))
    if isinstance(target, Given):
        say(f"  model: {service['spec']['model']['uri']}; whether your cluster reaches it will be seen")
    elif hub:
        say(f"  model: {service['spec']['model']['uri']}")
    else:
        say("  model: the hub cannot be reached from here, so a tiny model with random weights takes its place;")
        say("    its answers are noise. Of the manifest, model.uri is another one")
        with step("writing the tiny model, and making a claim of it"):
            claim_folder(tools, folder=place_tiny_model(target), namespace=NAMESPACE)
        service["spec"]["model"]["uri"] = URI
    if not isinstance(target, Given):
        leave_a_cpu(service, cpus=os.cpu_count() or 1)
    for each in objects:
        each["metadata"]["namespace"] = NAMESPACE
    manifest = _folder() / "quickstart.yaml"
    manifest.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_text(yaml.safe_dump_all(objects, sort_keys=False))
    with step(f"kubectl apply -f {manifest}"):
        tools.apply(*objects)
    return service["metadata"]["name"], manifest


def leave_a_cpu(service: dict[str, Any], *, cpus: int) -> None:
    """Let the engine have a CPU less than the machine, where its limit is all of them.

    Its threads wait for each other, each on a CPU, and what sends it load or measures it waits as well: on two CPUs medians of
    30 s were 26 to 68 % apart, with one for the engine 4 and 9 %.
    """
    limits = service["spec"]["engine"]["resources"]["limits"]
    if 1 < cpus <= int(limits["cpu"]):
        say(f"  limits.cpu: {cpus - 1} instead of {limits['cpu']}: this machine has {cpus}, and a Benchmark needs one")
        limits["cpu"] = str(cpus - 1)


def wait_until_ready(tools: Tools, name: str) -> str:
    """Say each change of a condition until Ready is True, and return the service's address.

    Raises:
        RuntimeError: It was not ready in time; what the cluster knows has been said.
    """
    began = time.monotonic()
    said: set[str] = set()
    while time.monotonic() - began < READY_TIMEOUT_S:
        found = json.loads(tools.kubectl("get", RESOURCE, name, f"--namespace={NAMESPACE}", "-o", "json"))
        for line in news(found, said):
            say(f"  {time.monotonic() - began:5.1f} s  {line}")
        if is_ready(found):
            return str(found["status"]["url"])
        time.sleep(0.3)
    tools.tell("describe", RESOURCE, name, f"--namespace={NAMESPACE}")
    for namespace in (NAMESPACE, SYSTEM_NAMESPACE):
        tools.tell("get", "pods,events", f"--namespace={namespace}", "-o", "wide")
        for pod in tools.kubectl("get", "pods", f"--namespace={namespace}", "-o", "name").split():
            tools.tell("logs", pod, f"--namespace={namespace}", "--all-containers", "--tail=30")
    raise RuntimeError(f"{name} is not ready after {READY_TIMEOUT_S} s; its conditions, pods and logs are above")


def current_conditions(service: dict[str, Any]) -> list[dict[str, Any]]:
    """The conditions, unless they speak of an earlier generation than the manifest that was just applied."""
    status = service.get("status", {})
    return status.get("conditions", []) if status.get("observedGeneration") == service["metadata"]["generation"] else []


def is_ready(service: dict[str, Any]) -> bool:
    return any(each["type"] == "Ready" and each["status"] == "True" for each in current_conditions(service))


def news(service: dict[str, Any], said: set[str]) -> Iterator[str]:
    """One line for each condition that changed; a message that several have is said once, and nothing twice."""
    for each in current_conditions(service):
        headline = f"{each['type']}={each['status']} {each['reason']}"
        message = each.get("message", "")
        if each["type"] not in TOLD or f"{headline}: {message}" in said:
            continue
        line = headline if message in said else f"{headline}: {message}"
        said |= {message, f"{headline}: {message}"}
        yield line


def ask(tools: Tools, image: str, url: str) -> str:
    """Send a chat completion from a pod: the address is one inside the cluster."""
    program = (
        "import httpx, sys\n"
        "model = httpx.get(sys.argv[1] + '/v1/models', timeout=60).raise_for_status().json()['data'][0]['id']\n"
        "message = {'role': 'user', 'content': sys.argv[2]}\n"
        "body = {'model': model, 'messages': [message], 'max_tokens': 32}\n"
        "answer = httpx.post(sys.argv[1] + '/v1/chat/completions', json=body, timeout=60).raise_for_status()\n"
        "print(answer.json()['choices'][0]['message']['content'])\n"
    )
    pod, here = "ask", f"--namespace={NAMESPACE}"
    tools.kubectl("delete", "pod", pod, here, "--ignore-not-found", "--now")
    tools.apply(client_pod(pod, NAMESPACE, image, ["python3", "-c", program, url, QUESTION]))
    try:
        deadline = time.monotonic() + 90
        phase = ""
        while phase not in ("Succeeded", "Failed") and time.monotonic() < deadline:
            time.sleep(0.2)
            phase = tools.kubectl("get", "pod", pod, here, "-o=jsonpath={.status.phase}")
        if phase != "Succeeded":
            tools.tell("describe", "pod", pod, here)
            tools.tell("logs", pod, here)
            raise RuntimeError(f"no answer from {url}; the asking pod is {phase}, see above")
        return tools.kubectl("logs", pod, here).strip()
    finally:
        tools.kubectl("delete", "pod", pod, here, "--ignore-not-found", "--now", "--wait=false")


def explain(tools: Tools, manifest: Path) -> str:
    """What `draftmark explain` says with the defaults that the chart has installed."""
    if not _DRAFTMARK.exists():
        return f"{_DRAFTMARK} is not there: 'make setup' installs it"
    defaults = manifest.with_name("defaults.yaml")
    defaults.write_text(read_defaults(tools))
    command = [str(_DRAFTMARK), "explain", f"--defaults={defaults}", "-f", str(manifest)]
    done = subprocess.run(command, text=True, capture_output=True)
    return f"$ {' '.join(['draftmark', *command[1:]])}\n{done.stdout}{done.stderr}"


def _folder() -> Path:
    """What the demo writes for the user to look at."""
    return cache.folder() / CLUSTER


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m e2e.demo", description=__doc__)
    parser.add_argument("action", choices=["up", "down"])
    action = {"up": up, "down": down}[parser.parse_args().action]
    with cache.lock("demo"):  # a second run waits; the kernel lets go of the lock of one that was killed
        action()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (RuntimeError, TimeoutError) as error:
        sys.exit(f"error: {error}")
