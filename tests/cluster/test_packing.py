"""What is packed comes back, and objects that are alike take little."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from draftmark.cluster.packing import Packer
from draftmark.cluster.wire import dump
from tests.cluster.test_compare import json_values


@given(st.lists(json_values, max_size=8))
def test_everything_comes_back_whatever_was_packed_before_and_after(bodies: list[Any]) -> None:
    packer = Packer()
    packed = [packer.pack(body) for body in bodies]
    assert [packer.unpack(one) for one in packed] == bodies


def shape(number: int, kind: str, fields: int = 40) -> dict[str, Any]:
    """One of many objects that differ in a name; those of another kind have nothing in common with it."""
    return {"name": f"{kind}-{number}", **{f"{kind}{i}": f"{kind} {i * 7919}" for i in range(fields)}}


def test_objects_that_are_alike_take_a_tenth_of_their_text() -> None:
    packer = Packer()
    for number in range(5):
        for kind in ("deployment", "service", "role"):
            packed = packer.pack(shape(number, kind))
    assert len(packed) < len(dump(shape(4, "role"))) / 10


def test_objects_that_have_nothing_in_common_are_packed_too() -> None:
    """More than a dictionary holds, and one that is larger than a dictionary may be."""
    packer = Packer()
    bodies = [shape(number, f"kind{number}", fields=60) for number in range(300)]
    bodies.append(shape(0, "large", fields=4000))
    packed = [packer.pack(body) for body in bodies]
    assert [packer.unpack(one) for one in packed] == bodies
