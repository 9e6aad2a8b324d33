"""GPUs that a driver publishes in ResourceSlices, as a real API server has them."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from draftmark.cluster import kinds
from draftmark.cluster.client import ApiClient
from tests.facts.test_resource_slices import gpu, resource_slice
from tests.integration.conftest import Json, Rig, service

NODE = "dra-0"


@pytest.fixture
async def node(api: ApiClient) -> AsyncIterator[str]:
    """A node without a device plugin, gone afterwards: the operators of other tests look at all nodes."""
    body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}}
    await api.create(kinds.NODES, None, body, field_manager="test")
    yield NODE
    for kind in (kinds.RESOURCE_SLICES, kinds.NODES):
        async for page in api.list_pages(kind):
            for item in page.items:
                await api.delete(kind, None, item["metadata"]["name"], uid=item["metadata"]["uid"])


def slice_of(name: str, *devices: Json, **fields: Any) -> Json:
    item = resource_slice(*devices, node=NODE, **fields)
    return {**item, "metadata": {"name": name}}


async def test_a_refusal_tells_of_gpus_that_only_claims_get(rig: Rig, api: ApiClient, node: str) -> None:
    model = {"uri": "hf://meta-llama/Llama-3.1-8B"}
    await rig.apply(service(model=model, engine={"name": "auto"}))
    await rig.start()

    async def message() -> str:
        accepted = await rig.condition("Accepted")
        return str(accepted["message"]) if accepted["reason"] == "NoEngine" else ""

    async def says(text: str) -> bool:
        return text in await message()

    await rig.until(lambda: says("there is no GPU for it"))
    assert "by DRA" not in await message()

    await api.create(kinds.RESOURCE_SLICES, None, slice_of("gpus", gpu(0), gpu(1)), field_manager="driver")
    told = f"Node {node} offers 2 NVIDIA-A100-80GB-PCIe by DRA (ResourceSlices of driver gpu.nvidia.com)"
    await rig.until(lambda: says(told))
    await rig.quiet()

    before = rig.writes()
    other = slice_of("network", gpu(0), driver="dra.example.com")
    await api.create(kinds.RESOURCE_SLICES, None, other, field_manager="driver")
    await rig.quiet()
    assert rig.writes() == before, "what another driver publishes is nothing to us"

    live = await api.get(kinds.RESOURCE_SLICES, None, "gpus")
    assert live is not None
    await api.delete(kinds.RESOURCE_SLICES, None, "gpus", uid=live["metadata"]["uid"])

    async def forgotten() -> bool:
        return "by DRA" not in (await message() or "by DRA")

    await rig.until(forgotten)
