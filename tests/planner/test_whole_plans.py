"""What must hold for every plan, whatever is asked and whatever there is."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftmark.api.defaults import Defaults
from draftmark.api.inference_service import InferenceServiceSpec
from draftmark.engines.registry import ENGINES
from draftmark.facts.model_catalogue import catalogue_facts, catalogued
from draftmark.facts.model_memory import WeightBytes, expert_bytes, weight_bytes, weight_bytes_per_gpu
from draftmark.facts.nodes import ClusterFacts, NodeFacts, read_nodes
from draftmark.plan import Plan, Unplannable
from draftmark.planner.planner import make_plan
from tests.planner.plan_cases import CASES, GPUS, MIXTRAL, VLLM, many, node

NODES = st.lists(
    st.builds(
        lambda gpu, count, cordoned: {"gpu": gpu, "count": count, "cordoned": cordoned},
        st.sampled_from(sorted(GPUS)), st.integers(1, 8), st.booleans(),
    ),
    min_size=1, max_size=4,
)  # fmt: skip
PARTS = st.fixed_dictionaries(
    {},
    optional={
        "workload": st.fixed_dictionaries(
            {},
            optional={
                "concurrency": st.integers(1, 256),
                "inputTokens": st.integers(1, 16_384),
                "kind": st.sampled_from(["chat", "batch", "interactive"]),
                "sharedPrefixTokens": st.integers(0, 4096),
            },
        ),
        "parallelism": st.fixed_dictionaries(
            {}, optional={"tensor": st.integers(1, 8), "pipeline": st.integers(1, 4), "expert": st.booleans()}
        ),
    },
)
ENGINE_NAMES = st.sampled_from(["auto", "vllm", "sglang"])


def read(nodes: list[dict[str, Any]]) -> tuple[NodeFacts, ...]:
    return read_nodes(node(f"n{i}", n["gpu"], count=n["count"], cordoned=n["cordoned"]) for i, n in enumerate(nodes))


def plan_of(
    model: str,
    nodes: tuple[NodeFacts, ...],
    engine: str = "auto",
    parts: dict[str, Any] | None = None,
    context: int | None = None,
    keep: Plan | None = None,
) -> Plan | Unplannable:
    uri = f"hf://{model}"
    wanted = {"uri": uri, **({"maxContextLength": context} if context else {})}
    spec = InferenceServiceSpec.model_validate({"model": wanted, "engine": {"name": engine}, **(parts or {})})
    return make_plan(
        spec, name="it", cluster=ClusterFacts(nodes=nodes), defaults=Defaults(), keep=keep, model=catalogue_facts(uri)
    )


@given(st.sampled_from(catalogued()), NODES, ENGINE_NAMES, PARTS)
def test_a_plan_fits_by_its_own_sum_and_divides_the_model(
    model: str, nodes: list[dict[str, Any]], engine: str, parts: dict[str, Any]
) -> None:
    facts = catalogue_facts(f"hf://{model}")
    assert facts is not None
    plan = plan_of(model, read(nodes), engine, parts)
    assert plan == plan_of(model, read(nodes), engine, parts)
    if isinstance(plan, Unplannable) or plan.memory is None:
        return
    layout, memory = plan.layout, plan.memory
    assert memory.needed_bytes <= memory.usable_bytes <= memory.gpu_bytes
    assert layout.tensor_degree * layout.pipeline == layout.gpus
    split = {"tensor": layout.tensor_degree, "pipeline": layout.pipeline}
    assert ENGINES[plan.engine].refuse_split(facts, **split, expert=layout.expert) is None
    product = [n for n in nodes if GPUS[n["gpu"]][1] == layout.product and not n["cordoned"]]
    assert layout.gpus <= max(n["count"] for n in product)
    degrees = parts.get("parallelism") or {}
    assert layout.expert == degrees.get("expert", layout.expert)
    weights = weight_bytes(facts)
    assert isinstance(weights, WeightBytes)
    spread = layout.tensor_degree if layout.expert else 1
    assert memory.weight_bytes == weight_bytes_per_gpu(facts, weights, **split, expert=spread)
    if degrees.keys() - {"expert"}:
        assert (layout.tensor_degree, layout.pipeline) == (degrees.get("tensor", 1), degrees.get("pipeline", 1))


@given(st.sampled_from(catalogued()), NODES, NODES, ENGINE_NAMES, st.none() | st.booleans())
def test_more_nodes_never_make_a_service_unplannable(
    model: str, nodes: list[dict[str, Any]], more: list[dict[str, Any]], engine: str, expert: bool | None
) -> None:
    parts = {"parallelism": {"expert": expert}}
    if isinstance(plan_of(model, read(nodes), engine, parts), Plan):
        assert isinstance(plan_of(model, read([*nodes, *more]), engine, parts), Plan)


def test_the_sum_has_the_gpu_with_the_most_experts() -> None:
    """A shape that is made up: eight experts on three GPUs are 3, 3 and 2."""
    mixtral = catalogue_facts(MIXTRAL)
    assert mixtral is not None
    facts = replace(mixtral, num_attention_heads=30, num_key_value_heads=6)

    def weights(expert: bool) -> int:
        spec = InferenceServiceSpec.model_validate(
            {"model": {"uri": MIXTRAL}, "engine": VLLM, "parallelism": {"tensor": 3, "expert": expert}}
        )
        nodes = ClusterFacts(nodes=read_nodes(many("H100", 1)))
        plan = make_plan(spec, name="it", cluster=nodes, defaults=Defaults(), keep=None, model=facts)
        assert isinstance(plan, Plan), plan
        assert plan.memory is not None
        return plan.memory.weight_bytes

    experts = expert_bytes(facts)
    assert isinstance(experts, int)
    assert weights(expert=True) - weights(expert=False) == pytest.approx(experts * (3 / 8 - 1 / 3), abs=2)


def test_an_edit_keeps_layout_and_context_while_they_fit() -> None:
    nodes = read_nodes(many("H100", 1))
    before = plan_of("meta-llama/Llama-3.1-70B", nodes)
    assert isinstance(before, Plan)
    # Smaller GPUs that would do came meanwhile, and the workload is another one.
    both = read_nodes([*many("H100", 1), *many("H200", 1)])
    assert isinstance(fresh := plan_of("meta-llama/Llama-3.1-70B", both), Plan)
    assert fresh.layout != before.layout
    edited = plan_of("meta-llama/Llama-3.1-70B", both, parts={"workload": {"inputTokens": 4000}}, keep=before)
    assert isinstance(edited, Plan)
    assert (edited.engine, edited.layout, edited.max_context_length) == (
        before.engine, before.layout, before.max_context_length,
    )  # fmt: skip
    # What does not fit any more is chosen anew.
    larger = plan_of("meta-llama/Llama-3.1-70B", both, parts={"workload": {"inputTokens": 60_000}}, keep=before)
    assert isinstance(larger, Plan)
    assert larger.layout != before.layout


def test_a_kept_plan_is_one_that_was_stored() -> None:
    """Plans without degrees are from versions that had none."""
    before = plan_of("meta-llama/Llama-3.1-70B", read_nodes(many("H100", 1)))
    assert isinstance(before, Plan)
    older = replace(before, layout=replace(before.layout, tensor=None))
    assert older.layout.tensor_degree == before.layout.tensor_degree


def test_every_refusal_of_the_planner_is_in_the_documentation() -> None:
    text = (Path(__file__).parents[2] / "docs" / "conditions.md").read_text("utf-8")
    plans = [case.plan() for case in CASES]
    refused = {plan.code for plan in plans if isinstance(plan, Unplannable)}
    assert len(refused) > 4
    assert {code for code in refused if f"`{code}`" not in text} == set()
