"""Well-known models, without asking anybody."""

import pytest

from draftmark.facts.model_catalogue import catalogue_facts, catalogued
from draftmark.facts.model_parameters import parameters
from tests.facts.model_rows import rows


def test_every_file_and_alias_is_found() -> None:
    names = {name.lower() for row in rows().values() for name in (row["model"], *row.get("aliases", ()))}
    assert set(catalogued()) == names
    for name in names:
        facts = catalogue_facts(f"hf://{name}")
        assert facts is not None
        assert facts.is_known_architecture


def test_case_does_not_matter() -> None:
    facts = catalogue_facts("hf://META-llama/llama-3.1-8b-INSTRUCT")
    assert facts is not None
    assert parameters(facts) == 8_030_261_248
    assert facts.source == "catalogue: config.json of meta-llama/Llama-3.1-8B"


@pytest.mark.parametrize(
    "uri",
    [
        "hf://meta-llama/Llama-3.1-8B:Q4_K_M",
        "hf://meta-llama/Llama-3.1-8B/model.gguf",
        "hf://somebody/Llama-3.1-8B",
        "https://host/meta-llama/Llama-3.1-8B.gguf",
        "pvc://claim/meta-llama/Llama-3.1-8B",
        "meta-llama/Llama-3.1-8B",
        "",
    ],
)
def test_other_weights_are_not_guessed(uri: str) -> None:
    assert catalogue_facts(uri) is None
