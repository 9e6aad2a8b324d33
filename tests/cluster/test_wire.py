"""What we send is what its reader reads, and what Go would write."""

import json
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from draftmark.cluster.wire import decode, digest_of, dump, encode, encode_as_0_1_0, encode_for_yaml
from tests.cluster.test_compare import json_values


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


@given(json_values)
def test_what_is_written_is_what_the_standard_library_writes(body: Any) -> None:
    """Digests and bytes that earlier versions have stored stay what they are."""
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    assert dump(body).decode("utf-8", "surrogatepass") == text
    assert encode_as_0_1_0(body) == encode_as_0_1_0(json.loads(json.dumps(body)))
    ascii_text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    assert digest_of(body) == sha256(ascii_text.encode()).hexdigest()[:16]


def test_the_digest_of_an_intent_is_the_one_that_version_0_1_0_has_stored() -> None:
    assert digest_of({"b": "é\x7f", "a": [1, None, True, "<&>"]}) == "34d385db7501f493"


@given(json_values)
def test_what_was_sent_is_read(body: Any) -> None:
    assert decode(json.dumps(body).encode()) == body


@pytest.mark.parametrize("text", [b"", b"{", b"<html>", b'{"a":1}}', b"\xff"])
def test_what_is_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - orjson's and the standard library's own
        decode(text)


def test_what_only_the_standard_library_takes_is_read_and_written() -> None:
    assert decode(b'"x\\ud800"') == "x\ud800"
    assert encode({"a": 2**70}) == b'{"a":1180591620717411303424}'


@dataclass
class NotJson:
    """What only orjson would write."""

    field: int = 1


@pytest.mark.parametrize("body", [NotJson(), {"a": NotJson()}, {1, 2}])
def test_what_is_not_json_data_is_not_written(body: object) -> None:
    with pytest.raises(TypeError):
        encode(body)
