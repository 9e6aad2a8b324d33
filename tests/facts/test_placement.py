"""Which nodes a service's pods may run on, and what those nodes are together."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftmark.api.inference_service import PodTemplate, Toleration
from draftmark.facts.nodes import NodeFacts, read_node, read_nodes
from draftmark.facts.placement import LeftOut, NodePool, eligible, node_pools
from tests.facts.label_sets import LABEL_SETS, MIB, gpu_node
from tests.specs import Object

GPU = "nvidia.com/gpu"
GPU_TAINT = {"key": GPU, "value": "present", "effect": "NoSchedule"}


def gpus(name: str, count: int = 8, product: str = "NVIDIA-H100-80GB-HBM3", **fields: Any) -> Object:
    """A node with NVIDIA GPUs."""
    labels = {"nvidia.com/gpu.product": product, "kubernetes.io/hostname": name, **fields.pop("labels", {})}
    allocatable = {GPU: str(count), "cpu": "96", "memory": "1Ti", **fields.pop("allocatable", {})}
    return gpu_node(name, labels=labels, allocatable=allocatable, **fields)


def template(**fields: Any) -> PodTemplate:
    return PodTemplate.model_validate(fields)


def names_of(nodes: Sequence[NodeFacts]) -> list[str]:
    return [node.name for node in nodes]


def affinity(*terms: Object) -> PodTemplate:
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": list(terms)}}
    return template(affinity={"nodeAffinity": required})


def test_what_is_left_out_is_counted_and_said() -> None:
    nodes = read_nodes(
        [
            gpus("a", cordoned=True), gpus("b", cordoned=True), gpus("c", cordoned=True), gpus("d", ready=False),
            gpus("e", taints=[GPU_TAINT]), gpu_node("cpu-0"), gpu_node("cpu-1", cordoned=True),
        ]
    )  # fmt: skip
    found = eligible(nodes, None, GPU)
    assert names_of(found.nodes) == ["e"]
    assert found.left_out == (
        LeftOut(reason="NoDevice", count=2),
        LeftOut(reason="Cordoned", count=3),
        LeftOut(reason="NotReady", count=1),
    )
    assert found.total == 7
    assert found.explain() == "3 of 5 nodes with nvidia.com/gpu are cordoned, 1 of 5 is not ready"


@pytest.mark.parametrize(
    ("nodes", "resource", "words"),
    [
        ([], GPU, "there are no nodes"),
        ([gpu_node("a"), gpu_node("b")], GPU, "none of the 2 nodes offers nvidia.com/gpu"),
        ([gpus("a"), gpu_node("b")], GPU, ""),
        ([gpu_node("a", cordoned=True), gpu_node("b")], None, "1 of 2 nodes is cordoned"),
        (
            [gpus("a", taints=[{"key": "team", "value": "x", "effect": "NoExecute"}])],
            GPU,
            "1 of 1 nodes with nvidia.com/gpu have the taint team=x:NoExecute, which podTemplate.tolerations does not tolerate",
        ),
    ],
)
def test_words_for_what_is_left_out(nodes: list[Object], resource: str | None, words: str) -> None:
    assert eligible(read_nodes(nodes), None, resource).explain() == words


def test_a_message_names_four_reasons_and_counts_the_others() -> None:
    nodes = [gpus(f"n{i}", taints=[{"key": f"team-{i}", "effect": "NoSchedule"}]) for i in range(6)]
    assert eligible(read_nodes(nodes), None, GPU).explain().endswith(", 2 are left out for other reasons")


@pytest.mark.parametrize(
    ("taint", "tolerations", "runs"),
    [
        (GPU_TAINT, [], True),
        ({"key": GPU, "effect": "NoSchedule"}, [], True),
        ({"key": GPU, "effect": "NoExecute"}, [], False),
        ({"key": "amd.com/gpu", "effect": "NoSchedule"}, [], False),
        ({"key": "dedicated", "value": "ml", "effect": "PreferNoSchedule"}, [], True),
        ({"key": "dedicated", "value": "ml", "effect": "NoSchedule"}, [], False),
        ({"key": "dedicated", "value": "ml", "effect": "NoSchedule"}, [{"key": "dedicated", "value": "ml"}], True),
        ({"key": "dedicated", "value": "ml", "effect": "NoSchedule"}, [{"key": "dedicated", "value": "web"}], False),
        (
            {"key": "dedicated", "value": "ml", "effect": "NoSchedule"},
            [{"key": "dedicated", "operator": "Exists"}],
            True,
        ),
        ({"key": "dedicated", "value": "ml", "effect": "NoExecute"}, [{"operator": "Exists"}], True),
        (
            {"key": "dedicated", "value": "ml", "effect": "NoExecute"},
            [{"key": "dedicated", "operator": "Exists", "effect": "NoSchedule"}],
            False,
        ),
        ({"key": "dedicated", "effect": "NoSchedule"}, [{"key": "dedicated", "operator": "Equal"}], True),
        (
            {"key": "dedicated", "effect": "NoExecute"},
            [{"key": "dedicated", "operator": "Exists", "toleration_seconds": 10}],
            True,
        ),
    ],
)
def test_taints(taint: Object, tolerations: list[Object], runs: bool) -> None:
    node = read_node(gpus("a", taints=[taint]))
    found = [Toleration.model_validate(item) for item in tolerations]
    assert bool(eligible([node], template(tolerations=found), GPU).nodes) is runs
    assert bool(eligible([node], None, GPU, tolerations=found).nodes) is runs, "of the administrator"


def test_one_taint_that_is_not_tolerated_is_enough() -> None:
    node = read_node(gpus("a", taints=[GPU_TAINT, {"key": "x", "effect": "NoSchedule"}]))
    assert eligible([node], None, GPU).left_out == (LeftOut(reason="Tainted", count=1, what="x:NoSchedule"),)


def test_a_selector_needs_every_label() -> None:
    nodes = read_nodes([gpus("a", labels={"pool": "x", "zone": "1"}), gpus("b", labels={"pool": "x"}), gpus("c")])
    found = eligible(nodes, template(node_selector={"pool": "x", "zone": "1"}), GPU)
    assert names_of(found.nodes) == ["a"]
    assert found.left_out == (LeftOut(reason="NodeSelector", count=2),)


def test_a_product_is_selected_by_its_label_to_the_letter() -> None:
    nodes = read_nodes([gpus("a"), gpus("b", product="NVIDIA-H100-80GB-HBM3-SHARED"), gpus("c", product="NVIDIA-L4")])
    found = eligible(nodes, None, GPU, product="NVIDIA-H100-80GB-HBM3")
    assert names_of(found.nodes) == ["a"]
    assert found.explain() == "2 of 3 nodes with nvidia.com/gpu have another product"


NODES = read_nodes(
    [gpus("a", labels={"zone": "1", "size": "8"}), gpus("b", labels={"zone": "2", "size": "-4"}), gpus("c", labels={"size": "x"})]
)  # fmt: skip


def req(key: str, operator: str, *values: str) -> Object:
    return {"key": key, "operator": operator, **({"values": list(values)} if values else {})}


@pytest.mark.parametrize(
    ("terms", "nodes"),
    [
        ([{"matchExpressions": [req("zone", "In", "1", "3")]}], ["a"]),
        ([{"matchExpressions": [req("zone", "NotIn", "1")]}], ["b", "c"]),
        ([{"matchExpressions": [req("zone", "Exists")]}], ["a", "b"]),
        ([{"matchExpressions": [req("zone", "DoesNotExist")]}], ["c"]),
        ([{"matchExpressions": [req("size", "Gt", "-5")]}], ["a", "b"]),
        ([{"matchExpressions": [req("size", "Gt", "8")]}], []),
        ([{"matchExpressions": [req("size", "Lt", "+8")]}], ["b"]),
        ([{"matchExpressions": [req("zone", "Exists"), req("size", "Lt", "0")]}], ["b"]),
        ([{"matchExpressions": [req("zone", "In", "1")]}, {"matchExpressions": [req("size", "In", "x")]}], ["a", "c"]),
        ([{"matchFields": [req("metadata.name", "In", "b")]}], ["b"]),
        ([{"matchFields": [req("metadata.name", "NotIn", "b")]}], ["a", "c"]),
        ([{"matchFields": [req("metadata.name", "NotIn", "b")], "matchExpressions": [req("zone", "Exists")]}], ["a"]),
        # What the API server refuses matches nothing.
        ([], []),
        ([{}], []),
        ([{"matchExpressions": [req("zone", "In")]}], []),
        ([{"matchExpressions": [req("zone", "Exists", "1")]}], []),
        ([{"matchExpressions": [req("size", "Gt", "1", "2")]}], []),
        ([{"matchExpressions": [req("size", "Gt", "1_0")]}], []),
        ([{"matchExpressions": [req("size", "Near", "1")]}], []),
        ([{"matchExpressions": [req("zone", "Exists"), req("zone", "Near")]}], []),
        ([{"matchFields": [req("metadata.namespace", "NotIn", "b")]}], []),
        ([{"matchFields": [req("metadata.name", "Exists")]}], []),
        ([{"matchFields": [req("metadata.name", "In", "a", "b")]}], []),
        ([{"matchExpressions": [req("zone", "In")]}, {"matchExpressions": [req("size", "In", "x")]}], ["c"]),
    ],
)
def test_required_node_affinity(terms: list[Object], nodes: list[str]) -> None:
    found = eligible(NODES, affinity(*terms), GPU)
    assert names_of(found.nodes) == nodes
    assert found.left_out == ((LeftOut(reason="NodeAffinity", count=3 - len(nodes)),) if len(nodes) < 3 else ())


def test_preferred_affinity_and_that_of_pods_leave_no_node_out() -> None:
    wishes = {
        "nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": {}}]},
        "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": []},
    }
    assert len(eligible(NODES, template(affinity=wishes), GPU).nodes) == 3


anything: Any = st.recursive(
    st.none() | st.text(max_size=5) | st.integers() | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    affinity=st.dictionaries(
        st.just("nodeAffinity"),
        anything
        | st.dictionaries(
            st.just("requiredDuringSchedulingIgnoredDuringExecution"),
            anything | st.dictionaries(st.just("nodeSelectorTerms"), anything),
        ),
    )
)
def test_no_affinity_is_an_error(affinity: dict[str, Any]) -> None:
    eligible(NODES, template(affinity=affinity), GPU)


# A second, plain reading of the same rules, one node and one toleration at a time.


def scheduler_says(node: Object, pod: Object) -> bool:
    """Whether kube-scheduler's filters of taints, unschedulable nodes and node affinity let the pod onto the node."""
    labels: Mapping[str, str] = node["metadata"]["labels"]
    for taint in node["spec"].get("taints", []):
        tolerated = False
        for toleration in pod["tolerations"]:
            if toleration.get("effect") and toleration["effect"] != taint["effect"]:
                continue
            if toleration.get("key") and toleration["key"] != taint["key"]:
                continue
            if toleration.get("operator", "Equal") == "Exists" or toleration.get("value", "") == taint.get("value", ""):
                tolerated = True
        if taint["effect"] != "PreferNoSchedule" and not tolerated:
            return False
    for key, value in pod["nodeSelector"].items():
        if key not in labels or labels[key] != value:
            return False
    if pod["terms"] is None:
        return True
    return any(all(requirement_met(item, labels) for item in term) for term in pod["terms"])


def requirement_met(item: Object, labels: Mapping[str, str]) -> bool:
    there = item["key"] in labels
    if item["operator"] == "In":
        return there and labels[item["key"]] in item["values"]
    if item["operator"] == "NotIn":
        return not there or labels[item["key"]] not in item["values"]
    if item["operator"] == "Exists":
        return there
    if item["operator"] == "DoesNotExist":
        return not there
    try:
        number = int(labels[item["key"]]) if there else None
    except ValueError:
        number = None
    if number is None:
        return False
    return number > int(item["values"][0]) if item["operator"] == "Gt" else number < int(item["values"][0])


keys = st.sampled_from(["a", "b", "c"])
values = st.sampled_from(["1", "2", "10", "x"])
effects = st.sampled_from(["NoSchedule", "NoExecute", "PreferNoSchedule"])
taints = st.fixed_dictionaries({"key": keys, "effect": effects}, optional={"value": values})
tolerations = st.fixed_dictionaries(
    {"key": keys, "operator": st.sampled_from(["Exists", "Equal"])}, optional={"value": values, "effect": effects}
)
requirements = (
    st.fixed_dictionaries(
        {"key": keys, "operator": st.sampled_from(["In", "NotIn"]), "values": st.lists(values, min_size=1, max_size=2)}
    )
    | st.fixed_dictionaries({"key": keys, "operator": st.sampled_from(["Exists", "DoesNotExist"])})
    | st.fixed_dictionaries(
        {"key": keys, "operator": st.sampled_from(["Gt", "Lt"]), "values": st.lists(st.sampled_from(["1", "5"]), min_size=1, max_size=1)}
    )
)  # fmt: skip


@given(
    labels=st.dictionaries(keys, values),
    node_taints=st.lists(taints, max_size=3),
    given_tolerations=st.lists(tolerations, max_size=3),
    selector=st.dictionaries(keys, values, max_size=1),
    terms=st.none() | st.lists(st.lists(requirements, min_size=1, max_size=2), min_size=1, max_size=2),
)
def test_eligibility_is_what_the_scheduler_does(
    labels: dict[str, str],
    node_taints: list[Object],
    given_tolerations: list[Object],
    selector: dict[str, str],
    terms: list[list[Object]] | None,
) -> None:
    node = gpu_node("n", labels=labels, taints=node_taints)
    wish = affinity(*({"matchExpressions": term} for term in terms)) if terms is not None else template()
    pods = wish.model_copy(
        update={
            "tolerations": tuple(Toleration.model_validate(item) for item in given_tolerations),
            "node_selector": selector,
        }
    )
    found = eligible([read_node(node)], pods, None)
    pod = {"tolerations": given_tolerations, "nodeSelector": selector, "terms": terms}
    assert bool(found.nodes) is scheduler_says(node, pod)
    assert found.total == 1


# Pools


def test_a_thousand_nodes_of_one_shape_are_one_pool() -> None:
    nodes = read_nodes(
        [gpus(f"n{i:04}", allocatable={"cpu": str(90 + i % 3)}, labels={"zone": str(i % 3)}) for i in range(1000)]
    )
    [pool] = node_pools(nodes, GPU)
    assert (pool.nodes, pool.gpus_per_node, pool.link_domain) == (1000, 8, 8)
    assert pool.devices is not None
    assert pool.devices.memory_bytes == 81559 * MIB
    assert (pool.cpu_millicores, pool.memory_bytes) == (90_000, 1024**4)


def test_pools_are_ordered_by_what_they_can_hold() -> None:
    nodes = read_nodes(
        [gpus("a", product="NVIDIA-L4", count=4), gpus("b", count=4), gpus("c"), gpus("d"), gpus("e", product="unheard-of"), gpu_node("f")]
    )  # fmt: skip
    seen = [
        (p.devices.product if p.devices else None, p.gpus_per_node, p.nodes, p.link_domain)
        for p in node_pools(nodes, GPU)
    ]
    assert seen == [
        ("NVIDIA-H100-80GB-HBM3", 8, 2, 8),
        ("NVIDIA-H100-80GB-HBM3", 4, 1, 4),
        ("NVIDIA-L4", 4, 1, 1),
        ("unheard-of", 8, 1, None),
    ]


def test_without_a_device_nodes_are_told_apart_by_their_processor() -> None:
    arm = gpu_node("b", allocatable={"cpu": "4"})
    arm["status"]["nodeInfo"]["architecture"] = "arm64"
    nodes = read_nodes(
        [gpu_node("a", allocatable={"cpu": "8", "memory": "1Gi"}), arm, gpu_node("c", allocatable={"cpu": "2"})]
    )
    assert node_pools(nodes, None) == (
        NodePool(nodes=2, host_architecture="amd64", cpu_millicores=2000, memory_bytes=None),
        NodePool(nodes=1, host_architecture="arm64", cpu_millicores=4000, memory_bytes=None),
    )


def test_shared_gpus_count_once_and_slices_have_no_link() -> None:
    nodes = read_nodes([case.node for case in LABEL_SETS if case.name in ("time-sliced", "mig, single strategy")])
    assert [(p.gpus_per_node, p.link_domain, p.devices is not None and p.devices.is_shared) for p in node_pools(nodes, GPU)] == [
        (1, 1, True),
        (56, 1, False),
    ]  # fmt: skip
