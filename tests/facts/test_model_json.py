"""The text form of a model's facts."""

import json
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftmark.facts.model_json import MAX_JSON_BYTES, facts_from_json, facts_to_json
from draftmark.facts.models import WEIGHT_PARTS, ModelFacts, Quantization, UnreadableConfig, problem_of
from tests.facts.model_rows import a_llama, facts_of, rows


def refused(text: str | bytes) -> str:
    facts = facts_from_json(text)
    assert isinstance(facts, UnreadableConfig)
    return facts.reason


def test_the_text_is_short_and_has_config_jsons_names() -> None:
    assert facts_to_json(facts_of("meta-llama/Llama-3.1-8B")) == (
        '{"architecture":"LlamaForCausalLM","modelType":"llama","numHiddenLayers":32,"hiddenSize":4096,'
        '"vocabSize":128256,"maxPositionEmbeddings":131072,"numAttentionHeads":32,"numKeyValueHeads":8,"headDim":128,'
        '"vHeadDim":128,"numMlpLayers":32,"intermediateSize":14336,"source":"meta-llama/Llama-3.1-8B"}'
    )


@pytest.mark.parametrize("model", rows())
def test_every_catalogued_model_comes_back(model: str) -> None:
    facts = facts_of(model)
    assert facts_from_json(facts_to_json(facts)) == facts
    assert len(facts_to_json(facts)) < 1024


NAME = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=96)
QUANTIZATION = st.builds(
    Quantization,
    quant_method=NAME,
    bits=st.integers(0, 32),
    group_size=st.integers(0, 2**20),
    parts=st.sets(st.sampled_from(WEIGHT_PARTS)).map(lambda parts: tuple(p for p in WEIGHT_PARTS if p in parts)),
)


@st.composite
def possible_facts(draw: st.DrawFn) -> ModelFacts:
    """Facts of real models with fields drawn anew, as far as they stay possible."""
    facts = facts_of(draw(st.sampled_from(sorted(rows()))))
    changes: dict[str, Any] = {}
    for field in fields(ModelFacts):
        if field.type is int and draw(st.booleans()):
            changes[field.name] = draw(st.integers(0, 2**17))
        elif field.type is bool:
            changes[field.name] = draw(st.booleans())
    changes |= {
        "source": draw(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=200)),
        "uncounted": tuple(draw(st.lists(NAME, max_size=8))),
        "quantization_config": draw(st.none() | QUANTIZATION),
        "weight_bytes": draw(st.none() | st.integers(1, 2**50)),
        "parameters": draw(st.none() | st.integers(1, 2**50)),
    }
    for name, value in changes.items():
        changed = replace(facts, **{name: value})
        if problem_of(changed) is None:
            facts = changed
    return facts


@given(facts=possible_facts())
def test_what_is_written_is_read_and_fits(facts: ModelFacts) -> None:
    text = facts_to_json(facts)
    assert len(text.encode()) <= MAX_JSON_BYTES
    again = facts_from_json(text)
    assert again == facts or (isinstance(again, UnreadableConfig) and "10^14" in again.reason)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"hiddenSise": 4096}, "'hiddenSise' is no field of a model's facts."),
        ({"hidden_size": 4096}, "'hidden_size' is no field of a model's facts."),
        ({"hiddenSize": "64"}, "hiddenSize must be a whole number."),
        ({"hiddenSize": 64.0}, "hiddenSize must be a whole number."),
        ({"hiddenSize": True}, "hiddenSize must be a whole number."),
        ({"hiddenSize": None}, "hiddenSize must be a whole number."),
        ({"weightBytes": "1"}, "weightBytes must be a whole number."),
        ({"tieWordEmbeddings": 1}, "tieWordEmbeddings must be true or false."),
        ({"modelType": 1}, "modelType must be a string."),
        ({"dtype": "int3"}, "dtype must be one of float32, bfloat16, float16, float8_e4m3fn."),
        ({"qkNorm": "all"}, "qkNorm must be one of head, projection."),
        ({"uncounted": "vision"}, "uncounted must be a list of strings."),
        ({"quantizationConfig": []}, "quantizationConfig must be an object."),
        ({"quantizationConfig": {"quantMethod": "fp8"}}, "bits is missing."),
        ({"quantizationConfig": {"quantMethod": "fp8", "bits": 8, "parts": ["lmHead"]}}, "parts must be among attention, mlp, sharedExperts, experts, each once."),
        ({"numSlidingLayers": 9, "slidingWindow": 5}, "sliding-window, linear and attention-free layers are 9 together, of 4 layers."),
        ({"numSlidingLayers": 1}, "num_sliding_layers and sliding_window must both be given, or neither."),
        ({"hiddenSize": 0}, "hidden_size is 0; it must be from 1 to 1048576."),
        ({"source": "\n"}, "source must be at most 200 printable ASCII characters."),
    ],
)  # fmt: skip
def test_reading_is_strict(change: dict[str, object], reason: str) -> None:
    assert refused(json.dumps(json.loads(facts_to_json(a_llama())) | change)) == reason


def test_a_missing_field_is_named() -> None:
    written = json.loads(facts_to_json(a_llama()))
    del written["headDim"]
    assert refused(json.dumps(written)) == "headDim is missing."


@pytest.mark.parametrize(
    "text", ["", "[", "[]", "7", "null", "[" * 4000, "\ud800", b"\xff", '{"a":' + "9" * 4080 + "}"]
)
def test_what_is_no_object_is_refused(text: str | bytes) -> None:
    assert refused(text)


def test_long_texts_are_not_parsed() -> None:
    assert refused(" " * 5000) == "the facts have 5000 bytes; at most 4096 are read."


@given(text=st.text(max_size=200) | st.binary(max_size=200))
def test_any_text_is_facts_or_a_reason(text: str | bytes) -> None:
    assert isinstance(facts_from_json(text), ModelFacts | UnreadableConfig)
