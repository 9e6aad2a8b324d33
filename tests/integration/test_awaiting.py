"""Pods that wait for a node, with the times that a real API server keeps."""

import asyncio
from datetime import UTC, datetime, timedelta

from draftmark.api import names
from draftmark.api.defaults import Defaults
from draftmark.api.times import write_time
from draftmark.cluster import kinds
from tests.integration.conftest import Json, Rig, service

NO_GPU = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."


async def engine_pod(rig: Rig) -> Json:
    """The one that the Deployment makes."""
    async with asyncio.timeout(20):
        while True:
            for pod in await rig.all(kinds.PODS):
                if pod["metadata"]["labels"][names.LABEL_ROLE] == names.ROLE_ENGINE:
                    return pod
            await asyncio.sleep(0.1)


async def schedule(rig: Rig, pod: Json, *, status: str, since: datetime) -> None:
    """As the scheduler does: whether it has found a node."""
    condition = {"type": "PodScheduled", "status": status, "lastTransitionTime": write_time(since)}
    if status == "False":
        condition |= {"reason": "Unschedulable", "message": NO_GPU}
    name = pod["metadata"]["name"]
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "status": {"conditions": [condition]}}
    await rig.api.apply_status(kinds.PODS, rig.namespace, name, body, field_manager="scheduler")


async def becomes(rig: Rig, reason: str) -> str:
    """The message of Ready once it has this reason; nobody plays the kubelet meanwhile."""
    async with asyncio.timeout(20):
        while (ready := await rig.condition("Ready"))["reason"] != reason:  # noqa: ASYNC110 - a condition has no event
            await asyncio.sleep(0.1)
    return str(ready["message"])


async def test_pods_wait_for_a_node_until_the_bound_and_a_late_node_is_taken(rig: Rig) -> None:
    rig.defaults = Defaults.model_validate({"nodeAutoscaling": {"enabled": True, "timeout": "1h"}})
    # All that a plan depends on is written, so that no Job asks for facts of the model first.
    model = {"uri": "hf://org/repo:Q4_K_M", "maxContextLength": 4096}
    await rig.apply(service(model=model, accelerator={"product": "NVIDIA-L4", "count": 1}))
    await rig.start()
    pod = await engine_pod(rig)
    since = datetime.now(UTC) - timedelta(minutes=10)
    await schedule(rig, pod, status="False", since=since)
    message = await becomes(rig, "AwaitingNodes")
    assert (
        f"a node with 1x NVIDIA-L4 since {write_time(since)}, until {write_time(since + timedelta(hours=1))}" in message
    )
    assert NO_GPU in message
    assert (await rig.condition("Accepted"))["status"] == "True"

    before = rig.writes()
    await asyncio.sleep(3)
    assert rig.writes() == before, "waiting writes nothing"

    # The bound is 3 s away: nothing but the clock brings the operator to look.
    since = datetime.now(UTC) - timedelta(hours=1) + timedelta(seconds=3)
    await schedule(rig, pod, status="False", since=since)
    assert "kubectl describe pod" in await becomes(rig, "NoNodeCame")
    assert datetime.now(UTC) >= since.replace(microsecond=0) + timedelta(hours=1)
    stalled, accepted = await rig.condition("Stalled"), await rig.condition("Accepted")
    assert (stalled["status"], stalled["reason"], accepted["status"]) == ("True", "NoNodeCame", "True")

    await schedule(rig, pod, status="True", since=datetime.now(UTC))
    await rig.until(rig.is_ready)
