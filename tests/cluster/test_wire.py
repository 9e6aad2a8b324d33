"""What we send is what a YAML reader reads."""

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from draftmark.cluster.wire import encode


@given(st.text(st.characters(codec="utf-8")))
def test_a_yaml_reader_and_a_json_reader_see_the_same_text(text: str) -> None:
    body = encode({"text": text})
    assert json.loads(body) == {"text": text}
    assert yaml.safe_load(body) == {"text": text}


@pytest.mark.parametrize("text", ["😀", "é中", "\x7f", "\x85", "\u2028", "\ufeff", "\uffff", "\\ud83d", "\x00"])
def test_characters_that_have_broken_an_apply(text: str) -> None:
    assert yaml.safe_load(encode([text])) == [text]


def test_half_a_surrogate_pair_does_no_harm() -> None:
    assert json.loads(encode({"log": "a\ud83d"})) == {"log": "a?"}
