"""The schema at a real API server: the same table that the Python types are held to."""

from copy import deepcopy
from typing import Any

import pytest

from draftmark.cluster import kinds
from draftmark.cluster.client import ApiClient
from draftmark.cluster.errors import Invalid
from tests.api.cases import CASES, Case


def _in(namespace: str, item: Any) -> dict[str, Any]:
    placed = deepcopy(dict(item))
    placed["metadata"] = {"name": placed["metadata"]["name"], "namespace": namespace}
    return placed


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_the_api_server_accepts_and_refuses_what_the_types_do(api: ApiClient, namespace: str, case: Case) -> None:
    accepted = _in(namespace, case.accepted)
    stored = await api.create(kinds.INFERENCE_SERVICES, namespace, accepted, field_manager="test")
    await api.delete(kinds.INFERENCE_SERVICES, namespace, stored["metadata"]["name"], uid=stored["metadata"]["uid"])
    with pytest.raises(Invalid) as refused:
        await api.create(kinds.INFERENCE_SERVICES, namespace, _in(namespace, case.rejected), field_manager="test")
    assert case.fragment.lower() in str(refused.value).lower()


async def test_nothing_is_defaulted_but_replicas_and_the_observed_generation(api: ApiClient, namespace: str) -> None:
    sent = _in(namespace, CASES[0].accepted)
    stored = await api.create(kinds.INFERENCE_SERVICES, namespace, sent, field_manager="test")
    assert stored["spec"] == {"replicas": 1, **sent["spec"]}
    assert stored["status"] == {"observedGeneration": -1}


async def test_a_pod_field_that_is_not_allowed_is_kept_to_be_named(api: ApiClient, namespace: str) -> None:
    sent = _in(namespace, CASES[0].accepted)
    sent["spec"]["podTemplate"] = {"hostNetwork": True}
    stored = await api.create(kinds.INFERENCE_SERVICES, namespace, sent, field_manager="test")
    assert stored["spec"]["podTemplate"] == {"hostNetwork": True}
