"""A planned layout on a node that claims to have GPUs. There are none: what is seen is that the pod is scheduled with the
devices of the plan, and started with its arguments."""

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

import pytest

from draftmark.cluster.kinds import INFERENCE_SERVICES, NODES
from tests.e2e.api import Json, Namespace, eventually
from tests.e2e.flow import status_text
from tests.e2e.installed import HOME, Installed

NAME: Final = "planned"
PRODUCT: Final = "NVIDIA-H100-80GB-HBM3"
#: As GPU Feature Discovery writes them; a node selector of the plan finds the node by the first one.
LABELS: Final = {"nvidia.com/gpu.product": PRODUCT, "nvidia.com/gpu.memory": "81559", "nvidia.com/gpu.count": "8"}
#: Tensor 4 of 80 GiB: the sum of tests/golden_plans/70b-on-h100.txt.
GPUS: Final = 4


@pytest.fixture(scope="module")
def gpu_node(home: Namespace, installed: Installed) -> Iterator[str]:
    """The node, with eight GPUs that are not there. Source of the way: Kubernetes docs, "Advertise Extended Resources for a
    Node"."""
    [node] = [item["metadata"]["name"] for item in home.api.list(NODES, None)]

    def write(labels: dict[str, str | None], count: str | None) -> None:
        kubectl = installed.tools.kubectl
        kubectl("patch", "node", node, "--type=merge", f"--patch={json.dumps({'metadata': {'labels': labels}})}")
        status = {"status": {"capacity": {"nvidia.com/gpu": count}, "allocatable": {"nvidia.com/gpu": count}}}
        kubectl("patch", "node", node, "--subresource=status", "--type=merge", f"--patch={json.dumps(status)}")

    write(dict(LABELS), "8")
    yield node
    write(dict.fromkeys(LABELS), None)


@pytest.fixture(scope="module")
def planned(gpu_node: str, home: Namespace, installed: Installed) -> Iterator[Json]:
    home.apply(
        {
            "apiVersion": INFERENCE_SERVICES.api_version,
            "kind": INFERENCE_SERVICES.kind,
            "metadata": {"name": NAME, "namespace": HOME},
            "spec": {
                "model": {"uri": "hf://meta-llama/Llama-3.1-70B"},
                "engine": {
                    "name": "vllm",
                    "version": "0.33.0",
                    "image": installed.standin,
                    "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "128Mi"}},
                },
            },
        }
    )
    yield home.wait_until_settled(NAME)
    home.api.delete(INFERENCE_SERVICES, HOME, NAME)


def test_the_plan_is_told_with_its_sum(planned: Json, home: Namespace) -> None:
    plan = planned["status"]["plan"]
    assert plan["layout"] == f"{GPUS}x {PRODUCT}"
    assert plan["parameters"] == 70_553_706_496
    assert plan["memory"]["perGpuBytes"] < plan["memory"]["gpuBytes"] == 81_559 * 2**20
    assert plan["maxContextLength"] == 131_072
    assert "Layout" in {reason["code"] for reason in plan["reasons"]}
    assert {r["code"] for r in plan["rejected"]} == {"TooLarge"}


def test_the_pod_is_scheduled_with_the_planned_devices(planned: Json, home: Namespace, gpu_node: str) -> None:
    [pod] = home.pods(NAME)
    [engine] = pod["spec"]["containers"]
    assert engine["resources"]["limits"]["nvidia.com/gpu"] == str(GPUS)
    assert pod["spec"]["nodeSelector"]["nvidia.com/gpu.product"] == PRODUCT
    assert pod["spec"]["nodeName"] == gpu_node


def test_the_engine_is_started_with_what_the_plan_says(planned: Json, home: Namespace) -> None:
    [pod] = home.pods(NAME)
    log = home.tools.kubectl("logs", pod["metadata"]["name"], f"--namespace={HOME}", "--container=engine")
    started = json.loads(next(line for line in log.splitlines() if line.startswith('{"started"')))["started"]
    argv = started["argv"]
    assert argv[:3] == ["vllm", "serve", "meta-llama/Llama-3.1-70B"]
    said = dict(pairwise(argv))
    assert said["--tensor-parallel-size"] == str(GPUS)
    assert said["--max-model-len"] == "131072"
    assert said["--gpu-memory-utilization"] == "0.92"
    assert "VLLM_ENGINE_READY_TIMEOUT_S" in {variable.partition("=")[0] for variable in started["env"]}
    assert started["devices"] == [], "nothing here is a GPU"


def test_a_service_that_does_not_fit_is_looked_at_when_a_node_comes(
    planned: Json, home: Namespace, installed: Installed, gpu_node: str
) -> None:
    """Refused with the sum on one GPU, accepted when the node has more; nobody touches the service."""
    name = "waits-for-gpus"

    def has(count: str) -> None:
        status = {"status": {"capacity": {"nvidia.com/gpu": count}, "allocatable": {"nvidia.com/gpu": count}}}
        installed.tools.kubectl(
            "patch", "node", gpu_node, "--subresource=status", "--type=merge", f"--patch={json.dumps(status)}"
        )

    has("1")
    try:
        spec = {**planned["spec"], "replicas": 0}
        home.apply(
            {
                "apiVersion": INFERENCE_SERVICES.api_version,
                "kind": INFERENCE_SERVICES.kind,
                "metadata": {"name": name, "namespace": HOME},
                "spec": spec,
            }
        )

        def accepted() -> str | None:
            condition = home.conditions(name).get("Accepted")
            return condition["reason"] if condition is not None else None

        eventually("it does not fit", lambda: accepted() == "DoesNotFit", within_s=20)
        assert "Ways out: (1) use 4 GPUs" in home.conditions(name)["Accepted"]["message"], status_text(home, name)
        has("8")
        eventually("it is accepted", lambda: accepted() == "Accepted", within_s=20)
    finally:
        has("8")
        home.api.delete(INFERENCE_SERVICES, HOME, name)
