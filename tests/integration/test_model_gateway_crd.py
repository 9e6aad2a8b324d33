"""The schema of ModelGateway at a real API server: the same table that the Python types are held to."""

from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

import pytest

from draftmark.cluster import kinds
from draftmark.cluster.client import ApiClient
from draftmark.cluster.compare import differences
from draftmark.cluster.errors import Invalid
from draftmark.model_gateway.decide import decide_model_gateway
from draftmark.model_gateway.observation import ModelGatewayObservation
from draftmark.model_gateway.status import make_model_gateway_status
from tests.api.cases import Case
from tests.api.test_model_gateway import GATEWAY_CASES, gateway
from tests.golden_model_gateway import service


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


async def test_the_api_server_takes_the_status_and_the_objects(api: ApiClient, namespace: str) -> None:
    stored = await api.create(kinds.MODEL_GATEWAYS, namespace, _in(namespace, gateway()), field_manager="test")
    services = tuple(service(f"s{n:03}", model=f"org/{'x' * 240}{n:03}") for n in range(250))
    addresses = {str(s["metadata"]["name"]): "10.96.0.20" for s in services}
    seen = ModelGatewayObservation(gateway=stored, services=services, addresses=addresses)
    decision = decide_model_gateway(seen)
    body = {
        "apiVersion": stored["apiVersion"],
        "kind": stored["kind"],
        "metadata": {"name": "all", "namespace": namespace, "uid": stored["metadata"]["uid"]},
        "status": make_model_gateway_status(seen, decision, datetime.now(UTC)),
    }
    written = await api.apply_status(kinds.MODEL_GATEWAYS, namespace, "all", body, field_manager="test")
    assert written["status"] == body["status"]
    by_kind = {(kind.api_version, kind.kind): kind for kind in kinds.child_kinds()}
    for manifest in decision.desired:
        kind = by_kind[manifest["apiVersion"], manifest["kind"]]
        made = await api.create(kind, namespace, dict(manifest), field_manager="test")
        # What the API server adds must be no difference: it would be repaired for ever.
        assert differences(dict(manifest), made) == ()
