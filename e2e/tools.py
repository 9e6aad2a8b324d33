"""kubectl and helm against one cluster, and the chart installed with them."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from e2e.cluster import binaries, cache, processes
from e2e.cluster.choose import Target
from e2e.cluster.images import REPOSITORY
from e2e.cluster.progress import say, step

RELEASE: Final = "draftmark"
SYSTEM_NAMESPACE: Final = "draftmark-system"
CHART: Final = REPOSITORY / "charts" / "draftmark"
#: Plural and group, as kubectl wants it: other operators have a kind of the same name.
RESOURCE: Final = "inferenceservices.draftmark.dev"
_DEFAULTS: Final = f"{RELEASE}-defaults"


@dataclass(frozen=True, slots=True)
class Tools:
    """kubectl and helm, pinned, against one cluster."""

    kubeconfig: Path

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl and return what it prints.

        Raises:
            RuntimeError: It failed; the message holds what it said.
        """
        return _run(str(kubectl_program()), f"--kubeconfig={self.kubeconfig}", *arguments, stdin=stdin)

    def helm(self, *arguments: str) -> str:
        """Run helm like kubectl."""
        return _run(str(binaries.HELM.build() / "helm"), f"--kubeconfig={self.kubeconfig}", *arguments)

    def apply(self, *objects: dict[str, Any]) -> None:
        """Apply objects as the administrator."""
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=yaml.safe_dump_all(objects))

    def tell(self, *arguments: str) -> None:
        """Print what kubectl says, for good or bad: a diagnosis must not end at its first gap."""
        say(f"$ kubectl {' '.join(arguments)}")
        try:
            say(self.kubectl(*arguments))
        except RuntimeError as error:
            say(str(error))


def _run(*command: str, stdin: str | None = None) -> str:
    done = subprocess.run(command, input=stdin, text=True, capture_output=True)
    if done.returncode != 0:
        raise RuntimeError(f"{Path(command[0]).name} {' '.join(command[1:])} failed:\n{done.stderr.strip()}")
    return done.stdout


def kubectl_program() -> Path:
    """The pinned kubectl."""
    return binaries.KUBECTL.build() / "kubectl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """References of our images, where a cluster finds them."""

    operator: str
    gateway: str
    router: str
    benchmark: str
    llama_cpp: str


def deliver(target: Target) -> Delivered:
    """Build our images and bring them to a cluster."""
    return Delivered(
        operator=target.deliver("operator"),
        gateway=target.deliver("gateway"),
        router=target.deliver("router"),
        benchmark=target.deliver("benchmark"),
        llama_cpp=target.deliver("llama-cpp-cpu"),
    )


def install(tools: Tools, images: Delivered) -> None:
    """Install the chart, or upgrade it, and wait until the operator is ready."""
    repository, _, tag = images.operator.rpartition(":")
    values = {
        "image.repository": repository,
        "image.tag": tag,
        "defaults.engines.llama-cpp.images.cpu": images.llama_cpp,
        "defaults.traffic.gatewayImage": images.gateway,
        "defaults.traffic.routerImage": images.router,
        "defaults.benchmarks.image": images.benchmark,
    }
    _mend_release(tools)
    # A namespace of restricted security: the chart keeps to it.
    tools.apply(restricted_namespace(SYSTEM_NAMESPACE))
    tools.helm(
        *("upgrade", "--install", RELEASE, str(CHART), f"--namespace={SYSTEM_NAMESPACE}"),
        *(f"--set-string={name}={value}" for name, value in values.items()),
        *("--wait", "--timeout=120s"),
    )


def _mend_release(tools: Tools) -> None:
    """Deal with a release that a killed run left half installed: helm refuses to touch it.

    In a cluster that somebody else made, somebody else may be installing; there helm's refusal is the right answer.
    """
    if not tools.kubeconfig.is_relative_to(cache.folder()) or not _is_half_installed(tools):
        return
    # A killed run's helm lives on. Killed itself, it leaves the release as it is.
    left = processes.belonging(binaries.HELM.folder, [tools.kubeconfig.parent])
    processes.kill(left)
    processes.wait_for_end(left, timeout_s=10)
    if not _is_half_installed(tools):  # it was just done
        return
    with step("helm uninstall of what a killed run left half installed"):
        tools.helm("uninstall", RELEASE, f"--namespace={SYSTEM_NAMESPACE}", "--ignore-not-found")


def _is_half_installed(tools: Tools) -> bool:
    found = json.loads(tools.helm("list", f"--namespace={SYSTEM_NAMESPACE}", "--pending", "--output=json"))
    return any(release["name"] == RELEASE for release in found)


def uninstall(tools: Tools) -> None:
    """Remove the chart from a cluster that stays. What the chart keeps is kept."""
    with step("helm uninstall"):
        tools.helm("uninstall", RELEASE, f"--namespace={SYSTEM_NAMESPACE}", "--ignore-not-found")
        tools.kubectl("delete", "namespace", SYSTEM_NAMESPACE, "--ignore-not-found", "--timeout=60s")
    say(f"  kept, as the chart keeps them: the custom resource definition {RESOURCE}, and the routers' ClusterRole")


def read_defaults(tools: Tools) -> str:
    """The administrator's defaults that the installed operator works with, as YAML."""
    path = r"-o=jsonpath={.data.defaults\.yaml}"
    return tools.kubectl("get", "configmap", _DEFAULTS, f"--namespace={SYSTEM_NAMESPACE}", path)


def restricted_namespace(name: str) -> dict[str, Any]:
    """A namespace that refuses every pod that is not of restricted security."""
    labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def client_pod(name: str, namespace: str, image: str, command: list[str]) -> dict[str, Any]:
    """A pod that sends requests from inside the cluster, with the Python and the httpx of the operator's image."""
    locked = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    # containerd starts no pod that has a group and no user.
    user = {"runAsNonRoot": True, "runAsUser": 65532, "runAsGroup": 65532}
    spec = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 1,
        "securityContext": {**user, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "client", "image": image, "command": command, "securityContext": locked}],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace}, "spec": spec}
