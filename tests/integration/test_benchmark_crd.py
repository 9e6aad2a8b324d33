"""The schema of Benchmark at a real API server: the same table that the Python types are held to."""

from copy import deepcopy
from typing import Any

import pytest

from draftmark.cluster import kinds
from draftmark.cluster.client import ApiClient
from draftmark.cluster.errors import Invalid
from tests.api.cases import Case
from tests.api.test_benchmark import BENCHMARK_CASES, URL, benchmark


def _in(namespace: str, item: Any) -> dict[str, Any]:
    placed = deepcopy(dict(item))
    placed["metadata"] = {"name": placed["metadata"]["name"], "namespace": namespace}
    return placed


@pytest.mark.parametrize("case", BENCHMARK_CASES, ids=lambda case: case.name)
async def test_the_api_server_accepts_and_refuses_what_the_types_do(api: ApiClient, namespace: str, case: Case) -> None:
    stored = await api.create(kinds.BENCHMARKS, namespace, _in(namespace, case.accepted), field_manager="test")
    await api.delete(kinds.BENCHMARKS, namespace, stored["metadata"]["name"], uid=stored["metadata"]["uid"])
    with pytest.raises(Invalid) as refused:
        await api.create(kinds.BENCHMARKS, namespace, _in(namespace, case.rejected), field_manager="test")
    assert case.fragment.lower() in str(refused.value).lower()


async def test_nothing_is_defaulted_but_the_observed_generation(api: ApiClient, namespace: str) -> None:
    stored = await api.create(kinds.BENCHMARKS, namespace, _in(namespace, benchmark()), field_manager="test")
    assert stored["spec"] == benchmark()["spec"]
    assert stored["status"] == {"observedGeneration": -1}


async def test_the_spec_cannot_be_changed_and_all_else_can(api: ApiClient, namespace: str) -> None:
    sent = _in(namespace, benchmark(concurrency=[1, 4]))
    stored = dict(await api.create(kinds.BENCHMARKS, namespace, sent, field_manager="test"))
    for operation in (
        {"op": "replace", "path": "/spec/concurrency", "value": [1, 8]},
        {"op": "add", "path": "/spec/notes", "value": "more"},
        {"op": "remove", "path": "/spec/concurrency"},
    ):
        with pytest.raises(Invalid, match="make one of another name"):
            await api.json_patch(kinds.BENCHMARKS, namespace, "first", [operation], field_manager="test")
    # As somebody who applies the same file again does, with a label more.
    labelled = {**sent, "metadata": {**sent["metadata"], "labels": {"team": "a"}}}
    written = await api.apply(kinds.BENCHMARKS, namespace, "first", labelled, field_manager="kubectl", force=True)
    assert written["spec"] == stored["spec"]
    assert written["metadata"]["labels"] == {"team": "a"}


@pytest.mark.parametrize(("target", "told"), [({"service": "llama"}, "llama"), (URL, URL["url"])])
async def test_columns_name_the_target(api: ApiClient, namespace: str, target: Any, told: str) -> None:
    sent = _in(namespace, benchmark(target=target))
    await api.create(kinds.BENCHMARKS, namespace, sent, field_manager="test")
    table = await _table(api, namespace)
    names = [column["name"] for column in table["columnDefinitions"]]
    (row,) = table["rows"]
    assert dict(zip(names, row["cells"], strict=True))["Target"] == told


async def _table(api: ApiClient, namespace: str) -> Any:
    """A list as kubectl asks for it."""
    headers = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    return await api._read("list", kinds.BENCHMARKS, kinds.BENCHMARKS.path(namespace), headers=headers)
