"""Replicas of several nodes: planned and explained, and refused until they can be deployed."""

from dataclasses import replace
from typing import Any

import pytest

from draftmark.api.inference_service_status import InferenceServiceStatus
from draftmark.decide import decide
from draftmark.facts.nodes import ClusterFacts, read_nodes
from draftmark.observation import Observation
from draftmark.plan import Plan, Unplannable
from draftmark.planner.explain import explain_data, explain_text
from draftmark.status import make_status
from tests.planner.plan_cases import DEEPSEEK, LLAMA_70B, LLAMA_405B, VLLM, PlanCase, many
from tests.specs import T0, observation, running, spec

TWO_NODES = ClusterFacts(nodes=read_nodes(many("H100", 2)))


def refused(model: str, **fields: Any) -> Unplannable:
    answer = PlanCase("it", model, many("H100", 2), **fields).plan()
    assert isinstance(answer, Unplannable), answer
    return answer


@pytest.mark.parametrize("model", [LLAMA_405B, DEEPSEEK])
def test_the_refusal_has_the_whole_plan(model: str) -> None:
    answer = refused(model)
    assert (answer.code, "cannot be deployed yet" in answer.message) == ("MultiNodeUnsupported", True)
    plan = answer.plan
    assert isinstance(plan, Plan)
    assert plan.layout.degrees == {
        "tensor": 8, "pipeline": 2, "data": 1, "expert": False, "nodes": 2, "gpusPerReplica": 16,
    }  # fmt: skip
    assert plan.memory is not None
    assert plan.memory.fits
    # Why this engine, this layout and this context, as of any plan.
    assert {"Engine", "Layout", "MaxContextLength"} <= {reason.code for reason in plan.reasons}


def test_both_are_explained() -> None:
    answer = refused(LLAMA_405B)
    assert answer.plan is not None
    told, planned = explain_data(answer), explain_data(answer.plan)
    assert told["accepted"] is False
    assert {key: told[key] for key in ("model", "parameters", "layout", "memory", "concurrency")} == {
        key: planned[key] for key in ("model", "parameters", "layout", "memory", "concurrency")
    }
    assert [r["code"] for r in told["reasons"]] == ["MultiNodeUnsupported", *(r["code"] for r in planned["reasons"])]
    assert told["rejected"]
    # There is no command line of something that cannot be deployed.
    assert told["engine"].keys() == {"name", "version", "image"}
    text = explain_text("it", answer)
    assert text.startswith("it: not accepted (MultiNodeUnsupported)")
    assert "16x NVIDIA-H100-80GB-HBM3 on 2 nodes (nvidia.com/gpu, tensor 8, pipeline 2)" in text
    assert "[####" in text


def test_degrees_of_the_user_are_answered_by_themselves() -> None:
    answer = refused(LLAMA_70B, engine=VLLM, parts={"parallelism": {"tensor": 8, "pipeline": 2}})
    assert (answer.code, "parallelism asks for 16 GPUs" in answer.message) == ("MultiNodeUnsupported", True)
    assert answer.plan is not None
    assert answer.plan.layout.gpus == 16


def asking(model: str) -> Observation:
    return observation(spec(model={"uri": model}, engine={"name": "vllm"}), cluster=TWO_NODES)


def test_the_status_has_the_plan_while_nothing_runs() -> None:
    seen = asking(LLAMA_405B)
    decision = decide(seen, T0)
    assert not decision.desired
    status = make_status(seen, decision, T0)
    InferenceServiceStatus.model_validate(status, extra="forbid")
    assert status["plan"]["layout"] == "16x NVIDIA-H100-80GB-HBM3 on 2 nodes"
    assert status["plan"]["parallelism"]["nodes"] == 2
    assert status["plan"]["memory"]["perGpuBytes"] > 0
    accepted = next(c for c in status["conditions"] if c["type"] == "Accepted")
    assert (accepted["status"], accepted["reason"]) == ("False", "MultiNodeUnsupported")


def test_what_runs_keeps_its_own_plan_in_the_status() -> None:
    small = spec(model={"uri": LLAMA_70B}, engine={"name": "vllm"})
    seen = running(small, cluster=TWO_NODES)
    wanted = replace(seen, service=asking(LLAMA_405B).service)
    decision = decide(wanted, T0)
    assert decision.refused is not None
    assert decision.refused.code == "MultiNodeUnsupported"
    assert make_status(wanted, decision, T0)["plan"]["layout"] == "4x NVIDIA-H100-80GB-HBM3"
