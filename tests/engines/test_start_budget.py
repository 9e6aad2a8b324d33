"""How long a pod may take until it answers."""

from hypothesis import given
from hypothesis import strategies as st

from draftmark.api.model_uri import parse_model_uri
from draftmark.engines.start_budget import START_MAX_S, START_UNKNOWN_S, start_budget_s

CLAIM, HUB = parse_model_uri("pvc://c/m.gguf"), parse_model_uri("hf://o/r")


@given(small=st.integers(0, 2**63), more=st.integers(0, 2**63), base=st.integers(1, 1000))
def test_the_budget_grows_with_the_model_and_ends(small: int, more: int, base: int) -> None:
    for source in (CLAIM, HUB):
        budget = start_budget_s(source, small, base_s=base)
        assert 0 < budget <= start_budget_s(source, small + more, base_s=base) <= START_MAX_S
    assert start_budget_s(HUB, small, base_s=base) >= start_budget_s(CLAIM, small, base_s=base)


def test_a_model_of_unknown_size_has_an_hour() -> None:
    assert start_budget_s(CLAIM, None, base_s=1) == START_UNKNOWN_S
