"""What the nodes can do."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftmark.facts.nodes import ClusterFacts, mounts_images, read_nodes
from tests.specs import Object, node


@pytest.mark.parametrize(
    ("runtime", "able"),
    [
        ("containerd://2.4.2", True), ("containerd://v2.1.0-rc.1", True), ("containerd://2.0.9", False), ("containerd://1.7.30", False),
        ("cri-o://1.31.0", True), ("cri-o://1.30.5", False), ("docker://28.0.0", True), ("something-new://1", True), ("", False),
    ],
)  # fmt: skip
def test_runtimes_that_mount_image_volumes(runtime: str, able: bool) -> None:
    assert mounts_images(runtime) is able


@pytest.mark.parametrize(
    ("nodes", "version", "supported", "why"),
    [
        (None, None, None, "not known"),
        ([], None, None, "0 of 0 nodes"),
        ([node("containerd://2.4.2")], "v1.35.4", True, "1 of 1 nodes"),
        ([node("containerd://2.4.2"), node("containerd://1.6.0", name="b")], None, True, "1 of 2 nodes"),
        ([node("containerd://1.6.0")], None, False, "containerd://1.6.0"),
        ([node("containerd://2.4.2")], "v1.34.1", False, "v1.34.1, 1.35 is needed"),
        ([node("containerd://2.4.2")], "v1.36+cloud", True, "1 of 1 nodes"),
        ([node("containerd://2.4.2")], "unreadable", True, "1 of 1 nodes"),
    ],
)
def test_image_volumes(nodes: list[Object] | None, version: str | None, supported: bool | None, why: str) -> None:
    facts = ClusterFacts(nodes=None if nodes is None else read_nodes(nodes), server_version=version)
    assert facts.image_volumes().supported is supported
    assert why in facts.image_volumes().why


def test_nodes_are_ordered_and_cordoned_ones_left_out() -> None:
    nodes = [node(name="b"), node(name="c", spec={"unschedulable": True}), node(name="a")]
    assert [facts.name for facts in read_nodes(nodes)] == ["a", "b"]


anything: Any = st.recursive(
    st.none() | st.text(max_size=5) | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


@given(metadata=anything, status=anything, spec=anything)
def test_no_node_is_an_error(metadata: Any, status: Any, spec: Any) -> None:
    read_nodes([{"kind": "Node", "metadata": metadata, "status": status, "spec": spec}])
    read_nodes([{"kind": "Node", "status": {"nodeInfo": status}}])
