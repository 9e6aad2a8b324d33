"""The schema of ModelGateway at a real API server: the same table that the Python types are held to."""

from copy import deepcopy
from typing import Any

import pytest

from draftmark.cluster import kinds
from draftmark.cluster.client import ApiClient
from draftmark.cluster.errors import Invalid
from tests.api.cases import Case
from tests.api.test_model_gateway import GATEWAY_CASES, gateway


def _in(namespace: str, item: Any) -> dict[str, Any]:
    placed = deepcopy(dict(item))
    placed["metadata"] = {"name": placed["metadata"]["name"], "namespace": namespace}
    return placed


@pytest.mark.parametrize("case", GATEWAY_CASES, ids=lambda case: case.name)
async def test_the_api_server_accepts_and_refuses_what_the_types_do(api: ApiClient, namespace: str, case: Case) -> None:
    stored = await api.create(kinds.MODEL_GATEWAYS, namespace, _in(namespace, case.accepted), field_manager="test")
    await api.delete(kinds.MODEL_GATEWAYS, namespace, stored["metadata"]["name"], uid=stored["metadata"]["uid"])
    with pytest.raises(Invalid) as refused:
        await api.create(kinds.MODEL_GATEWAYS, namespace, _in(namespace, case.rejected), field_manager="test")
    assert case.fragment.lower() in str(refused.value).lower()


async def test_nothing_is_defaulted_but_the_observed_generation(api: ApiClient, namespace: str) -> None:
    stored = await api.create(kinds.MODEL_GATEWAYS, namespace, _in(namespace, gateway()), field_manager="test")
    assert stored.get("spec") in (None, {})
    assert stored["status"] == {"observedGeneration": -1}
