"""Contained, in the sense of server-side apply."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftmark.cluster.compare import differences, path_text


def where(intent: dict[str, Any], live: dict[str, Any]) -> list[str]:
    return [path_text(difference.path) for difference in differences(intent, live)]


def pod(**container: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "engine", **container}]}}


@pytest.mark.parametrize(
    ("intent", "live"),
    [
        ({"spec": {"replicas": 1}}, {"spec": {"replicas": 1, "paused": False}, "status": {}}),
        (pod(image="a"), {"spec": {"containers": [{"name": "istio"}, {"name": "engine", "image": "a", "tty": False}]}}),
        (pod(env=[{"name": "A", "value": ""}]), pod(env=[{"name": "A"}])),
        (
            pod(resources={"limits": {"cpu": "0.5", "memory": "1024Mi"}}),
            pod(resources={"limits": {"cpu": "500m", "memory": "1Gi"}}),
        ),
        (pod(resources={"limits": {"cpu": 2}}), pod(resources={"limits": {"cpu": "2"}})),
        (pod(ports=[{"containerPort": 80}]), pod(ports=[{"containerPort": 80, "protocol": "TCP"}])),
        ({"spec": {"tolerations": []}}, {"spec": {}}),
        ({"spec": {"hostNetwork": False, "x": None}}, {"spec": {}}),
        (
            {"spec": {"volumes": [{"name": "t", "emptyDir": {}}]}},
            {"spec": {"volumes": [{"name": "t", "emptyDir": {}}]}},
        ),
        ({"spec": {"terms": [{"key": "a"}]}}, {"spec": {"terms": [{"key": "a", "defaulted": "x"}]}}),
    ],
)
def test_contained(intent: dict[str, Any], live: dict[str, Any]) -> None:
    assert where(intent, live) == []


@pytest.mark.parametrize(
    ("intent", "live", "expected"),
    [
        ({"spec": {"replicas": 1}}, {"spec": {"replicas": 2}}, ["spec.replicas"]),
        ({"spec": {"replicas": 1}}, {}, ["spec"]),
        ({"spec": {"replicas": 1}}, {"spec": {"replicas": True}}, ["spec.replicas"]),
        (pod(image="a"), pod(image="b"), ["spec.containers[engine].image"]),
        (pod(image="a"), {"spec": {"containers": []}}, ["spec.containers[engine]"]),
        (pod(args=["-c", "1000"]), pod(args=["-c", "1k"]), ["spec.containers[engine].args"]),
        (pod(args=["a"]), pod(args=["a", "b"]), ["spec.containers[engine].args"]),
        (
            pod(env=[{"name": "A", "value": "1"}]),
            pod(env=[{"name": "A", "value": "1.0"}]),
            ["spec.containers[engine].env[A].value"],
        ),
        (
            pod(resources={"limits": {"cpu": "1"}}),
            pod(resources={"limits": {"cpu": "2"}}),
            ["spec.containers[engine].resources.limits.cpu"],
        ),
        (
            {"spec": {"ports": [{"port": 80, "name": "http"}]}},
            {"spec": {"ports": [{"port": 80, "protocol": "TCP", "name": "x"}]}},
            ["spec.ports[80,TCP].name"],
        ),
        ({"spec": {"selector": {"app": "x"}}}, {"spec": {"selector": {"app": "x", "more": "y"}}}, ["spec.selector"]),
        (
            {"spec": {"volumes": [{"name": "t", "emptyDir": {}}]}},
            {"spec": {"volumes": [{"name": "t"}]}},
            ["spec.volumes[t].emptyDir"],
        ),
        ({"metadata": {"labels": {"a/b": "1"}}}, {"metadata": {"labels": {"a/b": "2"}}}, ["metadata.labels[a/b]"]),
        ({"kind": "ControllerRevision", "data": {"a": 1}}, {"data": {"a": 1, "b": 2}}, ["data"]),
    ],
)
def test_not_contained(intent: dict[str, Any], live: dict[str, Any], expected: list[str]) -> None:
    assert where(intent, live) == expected


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), json_values))
def test_everything_contains_itself(obj: dict[str, Any]) -> None:
    assert differences(obj, obj) == ()


@given(st.dictionaries(st.text(), json_values), json_values)
def test_no_shape_of_the_live_object_is_an_error(obj: dict[str, Any], other: Any) -> None:
    differences(obj, other if isinstance(other, dict) else {"spec": other})
