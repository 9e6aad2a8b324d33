"""A draft model in the memory sum: against a count of its own, and where nothing is known of it."""

from typing import Any

import pytest

from draftmark.facts.model_catalogue import catalogue_facts
from draftmark.facts.model_parameters import parameters
from draftmark.plan import Plan, Unplannable
from tests.planner.plan_cases import CPU_ONLY, DEEPSEEK, QWEN_06B, QWEN_7B, QWEN_32B, PlanCase, guessed_by, many

#: Qwen3-0.6B: 28 layers with 8 key-value heads of 128, keys and values of 16 bit.
_CACHE_OF_A_TOKEN = 28 * 8 * (128 + 128) * 2


def plan(engine: dict[str, Any], gpu: str = "H200", model: str = QWEN_32B, **parts: Any) -> Plan | Unplannable:
    return PlanCase("it", model, many(gpu, 1, count=8), engine, parts=parts).plan()


def with_and_without(tensor: int) -> tuple[Plan, Plan]:
    split = {"tensor": tensor}
    guessed = plan(guessed_by("draftModel", QWEN_06B), parallelism=split)
    alone = plan({"name": "vllm"}, parallelism=split)
    assert isinstance(guessed, Plan)
    assert isinstance(alone, Plan)
    return guessed, alone


@pytest.mark.parametrize("tensor", [1, 2, 8])
def test_its_weights_and_cache_are_divided_by_tensor(tensor: int) -> None:
    guessed, alone = with_and_without(tensor)
    assert guessed.memory is not None
    assert alone.memory is not None
    facts = catalogue_facts(QWEN_06B)
    assert facts is not None
    # All of it divides evenly by 8, but for the norms, of which each GPU has a copy.
    norms = (28 * (2 * 1024 + 2 * 128) + 1024) * 2
    divided = (parameters(facts) * 2 - norms) / tensor
    assert guessed.memory.further_bytes == pytest.approx(divided + norms, abs=2)
    assert guessed.memory.kv_bytes_per_token - alone.memory.kv_bytes_per_token == _CACHE_OF_A_TOKEN // tensor
    assert guessed.memory.weight_bytes == alone.memory.weight_bytes
    assert [r.code for r in guessed.reasons if "Draft" in r.code] == ["DraftModel"]


def test_it_is_whole_on_the_fullest_stage() -> None:
    split = {"tensor": 1, "pipeline": 2}
    guessed, whole = plan(guessed_by("draftModel", QWEN_06B), parallelism=split), with_and_without(1)[0]
    assert isinstance(guessed, Plan)
    assert guessed.memory is not None
    assert whole.memory is not None
    assert guessed.memory.further_bytes == whole.memory.further_bytes


def test_what_fits_alone_may_not_fit_with_it() -> None:
    """61 GiB of weights on a GPU of 80, and 14 more."""
    alone = plan({"name": "vllm"}, "H100", workload={"concurrency": 4})
    guessed = plan(guessed_by("draftModel", QWEN_7B), "H100", workload={"concurrency": 4})
    assert isinstance(alone, Plan)
    assert isinstance(guessed, Plan)
    assert (alone.layout.gpus, guessed.layout.gpus) == (1, 2)


@pytest.mark.parametrize(
    ("model", "engine", "word"),
    [
        (QWEN_32B, guessed_by("eagle3", "hf://org/eagle3"), "hf://org/eagle3"),
        (QWEN_32B, guessed_by("draftModel", "hf://org/unknown"), "hf://org/unknown"),
        (DEEPSEEK, guessed_by("mtp"), "no part of the model's shape"),
    ],
    ids=["eagle3", "draft model", "mtp"],
)
def test_what_is_not_known_is_not_in_the_sum_and_it_is_said(model: str, engine: dict[str, Any], word: str) -> None:
    made = plan(engine, "H200", model)
    assert isinstance(made, Plan)
    assert made.memory is not None
    assert made.memory.further_bytes == 0
    [reason] = [r for r in made.reasons if r.code == "DraftMemoryUnknown"]
    assert word in reason.message


def test_ngram_needs_nothing() -> None:
    made = plan(guessed_by("ngram"))
    assert isinstance(made, Plan)
    assert [r.code for r in made.reasons if "Draft" in r.code] == []


def test_a_split_that_the_draft_model_cannot_have_is_refused() -> None:
    made = plan(guessed_by("draftModel", QWEN_7B), parallelism={"tensor": 8})
    assert isinstance(made, Unplannable)
    assert "the draft model: " in made.message
    assert "28" in made.message


def test_it_is_in_the_sum_of_a_container_on_cpu() -> None:
    def on_cpu(engine: dict[str, Any]) -> Plan:
        limited = {**engine, "resources": {"limits": {"memory": "64Gi"}}}
        found = PlanCase("it", "hf://Qwen/Qwen3-8B", [CPU_ONLY], limited).plan()
        assert isinstance(found, Plan)
        assert found.memory is not None
        return found

    guessed, alone = on_cpu(guessed_by("draftModel", QWEN_06B)), on_cpu({"name": "vllm"})
    facts = catalogue_facts(QWEN_06B)
    assert facts is not None
    assert guessed.memory is not None
    assert alone.memory is not None
    assert guessed.memory.further_bytes - alone.memory.further_bytes == parameters(facts) * 2
    assert guessed.memory.kv_bytes_per_token - alone.memory.kv_bytes_per_token == _CACHE_OF_A_TOKEN
    assert "DraftModel" in [r.code for r in guessed.reasons]
