"""What we send is what its reader reads, and what Go would write."""

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from draftmark.cluster.wire import encode, encode_as_0_1_0, encode_for_yaml


@given(st.text(st.characters(codec="utf-8")))
def test_a_yaml_reader_and_a_json_reader_see_the_same_text(text: str) -> None:
    for write in (encode_for_yaml, encode_as_0_1_0):
        body = write({"text": text})
        assert json.loads(body) == {"text": text}
        assert yaml.safe_load(body) == {"text": text}
    assert json.loads(encode({"text": text})) == {"text": text}


@pytest.mark.parametrize("text", ["😀", "é中", "\x7f", "\x85", "\u2028", "\ufeff", "\uffff", "\\ud83d", "\x00"])
def test_characters_that_have_broken_an_apply(text: str) -> None:
    assert yaml.safe_load(encode_for_yaml([text])) == [text]


def test_keys_and_characters_are_as_go_writes_them() -> None:
    """Its json.Marshal of the same map, tried with an API server in tests/integration."""
    body = {"b": "<a&b>\u2028\x7f", "a": [None, True, -1]}
    assert encode(body) == b'{"a":[null,true,-1],"b":"\\u003ca\\u0026b\\u003e\\u2028\x7f"}'
    assert encode_as_0_1_0(body).startswith(b'{"b":"<a&b>')


def test_half_a_surrogate_pair_does_no_harm() -> None:
    assert json.loads(encode({"log": "a\ud83d"})) == {"log": "a?"}
