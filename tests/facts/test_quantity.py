"""Quantities, read into numbers."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftmark.facts.quantity import parse_quantity

GOOD = {
    "0": 0, "2": 2, "2.": 2, ".5": "0.5", "+1": 1, "-1": -1, "500m": "0.5", "1500m": "1.5", "1e3": 1000, "1E3": 1000, "1e-3": "0.001",
    "1k": 1000, "1Ki": 1024, "1M": 10**6, "1Mi": 2**20, "16Gi": 2**34, "1E": 10**18, "1Ei": 2**60, "5u": "0.000005", "1n": "1e-9",
}  # fmt: skip
BAD = [
    "",
    " ",
    "1 Gi",
    "Gi",
    "1gi",
    "1KI",
    "1e",
    "1e3Gi",
    "much",
    "1.2.3",
    "0x10",
    "1_000",
    "١",
    "1\n",
    "NaN",
    "inf",
    "8Ei",
    "1e999",
]


@pytest.mark.parametrize(("text", "number"), GOOD.items())
def test_a_quantity_is_a_number(text: str, number: int | str) -> None:
    assert parse_quantity(text) == Decimal(number)


@pytest.mark.parametrize("text", BAD)
def test_any_other_text_is_none(text: str) -> None:
    assert parse_quantity(text) is None


@given(text=st.text(max_size=32) | st.from_regex(r"[+-]?[0-9.]{1,9}[eEinumkKMGTP]{0,2}[-+]?[0-9]{0,9}", fullmatch=True))
def test_no_text_is_an_error_and_no_number_is_endless(text: str) -> None:
    number = parse_quantity(text)
    assert number is None or abs(int(number)) < 2**63
