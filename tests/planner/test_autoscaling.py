"""Plans where nodes come by themselves."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from draftmark.api.defaults import Defaults
from draftmark.api.inference_service import InferenceServiceSpec
from draftmark.facts.model_catalogue import catalogue_facts, catalogued
from draftmark.facts.nodes import ClusterFacts, NodeFacts
from draftmark.plan import Plan, Unplannable
from draftmark.planner.autoscaling import AUTOSCALED
from draftmark.planner.planner import make_plan
from tests.planner.plan_cases import (
    GPUS,
    H100_PRODUCT,
    L4_THEN_H100,
    LLAMA_8B,
    LLAMA_70B,
    LLAMA_405B,
    Json,
    obtainable,
)
from tests.planner.test_whole_plans import NODES, PARTS, read


def plan_of(
    uri: str,
    nodes: tuple[NodeFacts, ...] | None,
    defaults: Json | None = None,
    *,
    keep: Plan | None = None,
    engine: str = "auto",
    **parts: Any,
) -> Plan | Unplannable:
    spec = InferenceServiceSpec.model_validate({"model": {"uri": uri}, "engine": {"name": engine}, **parts})
    configured = Defaults.model_validate(defaults or {})
    cluster = ClusterFacts(nodes=nodes)
    return make_plan(spec, name="it", cluster=cluster, defaults=configured, keep=keep, model=catalogue_facts(uri))


def planned(*args: Any, **more: Any) -> Plan:
    plan = plan_of(*args, **more)
    assert isinstance(plan, Plan), plan
    return plan


CPU = read([])
H100, L4 = GPUS["H100"][1], GPUS["L4"][1]


#: SGLang suits best, and only vLLM fits on the four.
FOUR_A100: Json = {"gpu": "A100", "count": 4, "cordoned": False}


@given(st.sampled_from(catalogued()), NODES, PARTS)
@example("meta-llama/meta-llama-3.1-70b", [FOUR_A100], {"workload": {"concurrency": 1, "sharedPrefixTokens": 1}})
def test_what_fits_on_present_nodes_is_planned_there(
    model: str, nodes: list[dict[str, Any]], parts: dict[str, Any]
) -> None:
    uri = f"hf://{model}"
    now = plan_of(uri, read(nodes), **parts)
    later = plan_of(uri, read(nodes), L4_THEN_H100, **parts)
    if isinstance(now, Plan):
        assert later == now
    elif isinstance(later, Plan):
        assert AUTOSCALED in [r.code for r in later.reasons]
        assert later.layout.product in (L4, H100)


def test_the_first_of_the_list_that_the_model_fits_on_is_taken() -> None:
    assert planned(LLAMA_8B, CPU, L4_THEN_H100).layout.product == L4
    assert planned(LLAMA_8B, CPU, obtainable(("H100", 8, None), ("L4", 4, None))).layout.product == H100
    assert planned(LLAMA_70B, CPU, L4_THEN_H100).layout.product == H100


def test_a_number_of_gpus_that_no_present_node_has_is_obtained() -> None:
    asked: Json = {"accelerator": {"product": H100, "count": 8}}
    small = read([{"gpu": "H100", "count": 4, "cordoned": False}])
    refused = plan_of(LLAMA_70B, small, engine="vllm", **asked)
    assert isinstance(refused, Unplannable)
    plan = planned(LLAMA_70B, small, L4_THEN_H100, engine="vllm", **asked)
    assert (plan.layout.gpus, plan.layout.product) == (8, H100)


def test_a_product_that_the_administrator_does_not_list_is_waited_for_as_without_the_setting() -> None:
    nodes = read([{"gpu": "L4", "count": 4, "cordoned": False}])
    plan = planned(LLAMA_70B, nodes, obtainable(("L4", 4, None)), engine="vllm", **H100_PRODUCT)
    assert plan == planned(LLAMA_70B, nodes, engine="vllm", **H100_PRODUCT)
    assert "NoNodeYet" in [r.code for r in plan.reasons]


def test_a_setting_that_is_off_changes_nothing() -> None:
    off = {"nodeAutoscaling": {**L4_THEN_H100["nodeAutoscaling"], "enabled": False}}
    assert plan_of(LLAMA_8B, CPU, off) == plan_of(LLAMA_8B, CPU)


@pytest.mark.parametrize("nodes", [CPU, None], ids=["no GPU node", "nodes are not known"])
def test_an_engine_by_name_is_planned_for_what_can_be_had(nodes: tuple[NodeFacts, ...] | None) -> None:
    assert planned(LLAMA_8B, nodes, L4_THEN_H100, engine="vllm").layout.product == L4
    assert planned(LLAMA_8B, nodes, L4_THEN_H100, engine="vllm", accelerator={"count": 0}).layout.gpus == 0


def test_nothing_known_of_the_model_is_no_reason_to_order_a_node() -> None:
    answer = plan_of("hf://org/unknown", CPU, L4_THEN_H100)
    assert isinstance(answer, Unplannable)
    assert answer.code == "ModelUnknown"
    assert planned("hf://org/unknown", CPU, L4_THEN_H100, engine="vllm", **H100_PRODUCT).layout.product == H100


def test_an_edit_keeps_the_kind_of_node_that_is_on_its_way() -> None:
    before = planned(LLAMA_8B, CPU, obtainable(("H100", 8, None)))
    edited = planned(LLAMA_8B, CPU, L4_THEN_H100, keep=before, workload={"inputTokens": 500})
    assert (before.layout.product, edited.layout) == (H100, before.layout)


def test_memory_of_an_unheard_of_product_is_the_administrators() -> None:
    one = {"product": "NVIDIA-Unheard-Of", "gpusPerNode": 2, "memory": "24Gi"}
    plan = planned(LLAMA_8B, CPU, {"nodeAutoscaling": {"enabled": True, "accelerators": [one]}})
    assert plan.memory is not None
    assert (plan.memory.gpu_bytes, plan.layout.product) == (24 * 2**30, "NVIDIA-Unheard-Of")


def test_what_is_nowhere_to_be_had_is_refused_with_what_is_missing() -> None:
    answer = plan_of(LLAMA_70B, read([{"gpu": "T4", "count": 1, "cordoned": False}]), obtainable(("L4", 4, 1)))
    assert isinstance(answer, Unplannable)
    assert answer.code == "DoesNotFit"
    assert "are missing" in answer.message


def test_nodes_that_may_not_have_the_pods_are_no_obstacle_where_others_can_be_had() -> None:
    assert isinstance(plan_of(LLAMA_70B, read_cordoned()), Unplannable)
    plan = planned(LLAMA_70B, read_cordoned(), L4_THEN_H100)
    [why] = [r.message for r in plan.reasons if r.code == AUTOSCALED]
    assert "2 of 2 nodes with nvidia.com/gpu are cordoned" in why
    assert "8 NVIDIA-H100-80GB-HBM3, at most 4 of them (choice 2 of 2" in why
    assert "up to 15 min" in why


def read_cordoned() -> tuple[NodeFacts, ...]:
    return read([{"gpu": "H100", "count": 8, "cordoned": True}] * 2)


def test_a_layout_that_cannot_be_deployed_yet_gives_way_to_a_node_that_can_be_had() -> None:
    two = read([{"gpu": "H100", "count": 8, "cordoned": False}] * 2)
    several_nodes = plan_of(LLAMA_405B, two)
    assert isinstance(several_nodes, Unplannable)
    assert several_nodes.code == "MultiNodeUnsupported"
    plan = planned(LLAMA_405B, two, obtainable(("L4", 4, None), ("H200", 8, None)))
    assert (plan.layout.product, plan.layout.gpus, plan.layout.nodes) == (GPUS["H200"][1], 8, 1)
