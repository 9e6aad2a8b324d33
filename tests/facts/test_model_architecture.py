"""Facts as a user writes them."""

import json

import pytest

from draftmark.api.crd import structural
from draftmark.api.model_architecture import ArchitectureSpec
from draftmark.facts.model_architecture import facts_from_architecture
from draftmark.facts.model_json import facts_from_json, facts_to_json
from draftmark.facts.models import ModelFacts, UnreadableConfig
from tests.facts.model_rows import a_llama, facts_of, rows
from tests.schemas import walk
from tests.specs import ARCHITECTURE, Object


def read(written: Object) -> ModelFacts | UnreadableConfig:
    return facts_from_architecture(ArchitectureSpec.model_validate(written))


@pytest.mark.parametrize("model", rows())
def test_facts_of_any_model_can_be_copied_into_the_spec(model: str) -> None:
    facts = facts_of(model)
    assert read(json.loads(facts_to_json(facts))) == facts


def test_the_spec_has_every_field_of_the_facts() -> None:
    known = {path for path, _ in walk(structural(ArchitectureSpec)) if path and "." not in path and "[" not in path}
    assert known == set(ARCHITECTURE)
    facts = read(ARCHITECTURE)
    assert isinstance(facts, ModelFacts), facts
    assert json.loads(facts_to_json(facts)) == ARCHITECTURE


def test_without_a_source_the_spec_is_told_as_it() -> None:
    facts = read({k: v for k, v in ARCHITECTURE.items() if k != "source"})
    assert isinstance(facts, ModelFacts)
    assert facts.source == "spec.model.architecture"


def bounds() -> list[tuple[str, int, int]]:
    schema = structural(ArchitectureSpec)["properties"]
    return [(name, node["minimum"], node["maximum"]) for name, node in schema.items() if "minimum" in node]


@pytest.mark.parametrize(("field", "least", "most"), bounds())
def test_the_schema_has_the_bounds_of_the_facts(field: str, least: int, most: int) -> None:
    written = json.loads(facts_to_json(a_llama()))
    for value in (least - 1, most + 1):
        facts = facts_from_json(json.dumps({**written, field: value}))
        assert isinstance(facts, UnreadableConfig)
        assert f"must be from {least} to {most}." in facts.reason


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("hiddenSise", 64, "'hiddenSise' is no field of a model's facts."),
        ("quantizationConfig", {"quantMethod": "fp8", "bits": 8, "bit": 8}, "'bit' is no field of a model's facts."),
        ("numKeyValueHeads", 3, "num_key_value_heads (3) must divide num_attention_heads (8)."),
        ("expertWeightBytes", 10**6, "expert_weight_bytes is more than weight_bytes."),
        ("hiddenSize", 2**20, "the sizes make a model of over 10^14 parameters; no such model is served."),
    ],
)
def test_what_the_schema_cannot_see_is_said_with_the_field(field: str, value: object, said: str) -> None:
    written = {**ARCHITECTURE, field: value}
    if field == "hiddenSize":
        written |= {"intermediateSize": 2**20, "numHiddenLayers": 1024, "numMlpLayers": 1024}
    facts = read(written)
    assert isinstance(facts, UnreadableConfig)
    assert facts.reason == said
