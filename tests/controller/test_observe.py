"""What is kept of the objects that are watched is enough for what is told of them."""

from typing import Any, cast

import pytest

from draftmark.api.defaults import Defaults
from draftmark.cluster.client import ApiClient
from draftmark.controller.observe import Key, World, slim_pod
from draftmark.facts.pods import pod_problem, startup_stages
from tests.facts.label_sets import LABEL_SETS
from tests.facts.test_gpu_failures import LOGS, REJECTED, device
from tests.facts.test_pods import PROBLEMS
from tests.facts.test_resource_slices import gpu, resource_slice
from tests.specs import Object, crashed_pod, pod, service, spec


def on_a_node(item: Object) -> Object:
    return {**item, "spec": {**item["spec"], "nodeName": "gpu-7"}}


UNHEALTHY = crashed_pod("r")
UNHEALTHY["status"]["containerStatuses"][0] |= device("Unhealthy")
PODS = [
    *(on_a_node(item) for item, _, _ in PROBLEMS),
    *(on_a_node(crashed_pod("r", log=line)) for line, _, _ in LOGS),
    on_a_node(UNHEALTHY),
    on_a_node(pod("r", phase="Failed", reason="UnexpectedAdmissionError", message=REJECTED)),
]


@pytest.mark.parametrize("item", PODS, ids=lambda item: str(getattr(pod_problem(item), "code", None)))
def test_what_is_kept_of_a_pod_tells_the_same(item: Object) -> None:
    assert pod_problem(slim_pod(item)) == pod_problem(item)
    assert startup_stages(slim_pod(item)) == startup_stages(item)


class Nodes:
    """A world that hears of nodes, and of nothing else."""

    def __init__(self) -> None:
        self.woken: list[Key] = []
        self.world = World(client=cast(ApiClient, None), defaults=Defaults(), wake=self.woken.append)
        self.world.take_service(service(spec(model={"uri": "oci://registry.example/model:1"})))
        assert self.world.nodes is not None
        self.informer = self.world.nodes
        self.informer.synced.set()
        self.version = 0

    def say(self, node: Object, **changes: Any) -> tuple[Key, ...]:
        """The API server tells of a node; back come the services that are looked at for it."""
        self.version += 1
        metadata = {**node["metadata"], "uid": "u", "resourceVersion": str(self.version), **changes}
        self.woken.clear()
        self.informer.absorb({**node, "metadata": metadata})
        return tuple(self.woken)


def heartbeat(node: Object, second: int) -> Object:
    """What a kubelet writes when nothing has happened. Source: Kubernetes, "Node status"."""
    status = node["status"]
    conditions = [{**c, "lastHeartbeatTime": f"2026-01-01T12:00:{second:02}Z"} for c in status["conditions"]]
    images = [*status["images"], {"names": [f"example/image:{second}"], "sizeBytes": second}]
    return {**node, "status": {**status, "conditions": conditions, "images": images, "volumesInUse": [str(second)]}}


def test_heartbeats_of_nodes_change_no_fact_and_wake_nobody() -> None:
    node = LABEL_SETS[1].node
    nodes = Nodes()
    assert len(nodes.say(node)) == 1
    before = nodes.world.cluster_facts().nodes
    assert before is not None
    for second in range(10):
        assert nodes.say(heartbeat(node, second), annotations={"seen": str(second)}) == ()
    assert nodes.world.cluster_facts().nodes is before, "the facts of all nodes are made once, not for every look"


def test_services_are_looked_at_when_a_node_changes_what_is_decided_by_it() -> None:
    node = LABEL_SETS[1].node
    nodes = Nodes()
    nodes.say(node)
    assert nodes.say({**node, "metadata": {**node["metadata"], "labels": {"zone": "b"}}}) == ()
    [facts] = nodes.world.cluster_facts().nodes or ()
    assert facts.labels == {"zone": "b"}
    assert len(nodes.say({**node, "spec": {"unschedulable": True}})) == 1
    runtime = {**node["status"], "nodeInfo": {"containerRuntimeVersion": "containerd://1.7.0"}}
    assert len(nodes.say({**node, "status": runtime})) == 1
    assert [n.container_runtime for n in nodes.world.cluster_facts().nodes or ()] == ["containerd://1.7.0"]


def test_a_refused_service_is_looked_at_when_anything_of_a_node_changes() -> None:
    node = LABEL_SETS[1].node
    nodes = Nodes()
    refused = {"conditions": [{"type": "Accepted", "status": "False", "reason": "DoesNotFit"}]}
    nodes.world.take_service({**service(spec(), name="refused"), "status": refused})
    nodes.say(node)
    moved = {**node, "metadata": {**node["metadata"], "labels": {"zone": "b"}}}
    assert [name for _, name in nodes.say(moved)] == ["refused"]
    assert nodes.say(heartbeat(moved, 1)) == ()


def slice_of(node: str, *devices: Object, version: int, driver: str = "gpu.nvidia.com") -> Object:
    item = resource_slice(*devices, node=node, driver=driver)
    return {**item, "metadata": {"name": f"{node}-{driver}", "uid": "s", "resourceVersion": str(version)}}


def test_gpus_of_resource_slices_are_facts_of_their_nodes_and_wake_those_that_are_refused() -> None:
    nodes = Nodes()
    refused = {"conditions": [{"type": "Accepted", "status": "False", "reason": "NoEngine"}]}
    nodes.world.take_service({**service(spec(), name="refused"), "status": refused})
    nodes.say(LABEL_SETS[1].node)
    bare = {"metadata": {"name": "bare"}, "status": {"nodeInfo": {"containerRuntimeVersion": "containerd://2.4.2"}}}
    nodes.say(bare)
    assert nodes.world.slices is not None

    def say(item: Object) -> list[str]:
        assert nodes.world.slices is not None
        nodes.woken.clear()
        nodes.world.slices.absorb(item)
        return [name for _, name in nodes.woken]

    def claimed() -> list[tuple[str, int]]:
        facts = {node.name: node for node in nodes.world.cluster_facts().nodes or ()}["bare"]
        return [(d.resource, d.gpus) for d in facts.devices if d.is_claimed]

    assert claimed() == []
    assert say(slice_of("bare", gpu(0), gpu(1), version=1)) == ["refused"]
    assert claimed() == [("gpu.nvidia.com", 2)]
    before = nodes.world.cluster_facts().nodes
    assert say(slice_of("bare", gpu(0), version=2, driver="dra.example.com")) == []
    assert nodes.world.cluster_facts().nodes is before
    assert say(slice_of("bare", gpu(0), version=3)) == ["refused"]
    assert claimed() == [("gpu.nvidia.com", 1)]


def test_nodes_that_are_not_known_are_not_none() -> None:
    nodes = Nodes()
    nodes.say(LABEL_SETS[1].node)
    nodes.informer.denied = "nodes is forbidden"
    assert nodes.world.cluster_facts().nodes is None
    nodes.informer.denied = None
    assert len(nodes.world.cluster_facts().nodes or ()) == 1
