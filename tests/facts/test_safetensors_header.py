"""Bytes and parameters from safetensors headers."""

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftmark.facts.models import ShortHeader, UnreadableHeader
from draftmark.facts.safetensors_header import SafetensorsTotals, index_total_bytes, read_safetensors_header


def a_file(**tensors: object) -> bytes:
    header = json.dumps({"__metadata__": {"format": "pt"}, **tensors}).encode()
    return struct.pack("<Q", len(header)) + header


def a_tensor(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


DENSE = {
    "model.embed_tokens.weight": a_tensor("BF16", [100, 8], 0, 1600),
    "model.norm.weight": a_tensor("F32", [8], 1600, 1632),
    "model.layers.0.mlp.experts.3.down_proj.weight": a_tensor("BF16", [8, 4], 1632, 1696),
    "model.layers.0.mlp.shared_experts.down_proj.weight": a_tensor("BF16", [8, 4], 1696, 1760),
}


def test_bytes_and_parameters_are_summed() -> None:
    totals = read_safetensors_header(a_file(**DENSE) + b"weights")
    assert isinstance(totals, SafetensorsTotals)
    assert totals.weight_bytes == 1760
    assert totals.expert_weight_bytes == 64
    assert totals.elements == {"BF16": 864, "F32": 8}
    assert totals.parameters == 872


def test_packed_weights_have_no_count() -> None:
    totals = read_safetensors_header(a_file(q=a_tensor("I32", [4, 4], 0, 64), s=a_tensor("F16", [4], 64, 72)))
    assert isinstance(totals, SafetensorsTotals)
    assert totals.parameters is None
    assert totals.weight_bytes == 72


def test_a_short_file_says_how_much_is_needed() -> None:
    whole = a_file(**DENSE)
    for end in range(len(whole)):
        short = read_safetensors_header(whole[:end])
        assert isinstance(short, ShortHeader)
        assert end < short.needed_bytes <= len(whole)


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("<Q", 2**63),
        struct.pack("<Q", 0),
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 2) + b"{ ",
        a_file(a=7),
        a_file(a=a_tensor("F99", [1], 0, 4)),
        a_file(a=a_tensor("F32", [-1], 0, 4)),
        a_file(a=a_tensor("F32", [2], 0, 4)),
        a_file(a=a_tensor("F32", [2**60, 2**60], 0, 4)),
        a_file(a={"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}),
        a_file(a=a_tensor("F32", [1] * 99, 0, 4)),
    ],
)
def test_nonsense_is_refused(data: bytes) -> None:
    assert isinstance(read_safetensors_header(data), UnreadableHeader)


@given(data=st.binary(max_size=300))
def test_any_bytes_are_an_answer(data: bytes) -> None:
    assert isinstance(read_safetensors_header(data), SafetensorsTotals | ShortHeader | UnreadableHeader)


def test_the_index_has_the_sum() -> None:
    assert index_total_bytes({"metadata": {"total_size": 16_060_522_496}, "weight_map": {}}) == 16_060_522_496
    assert index_total_bytes({"metadata": {"total_size": 16.0}}) == 16


@pytest.mark.parametrize("total", [None, 0, -1, "16", True, 1.5, float("nan"), float("inf"), 2**60])
def test_an_index_without_a_sum_is_refused(total: object) -> None:
    assert isinstance(index_total_bytes({"metadata": {"total_size": total}}), UnreadableHeader)
    assert isinstance(index_total_bytes({"metadata": total}), UnreadableHeader)
