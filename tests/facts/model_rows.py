"""The catalogue's files, as the tests of models read them."""

import json
from functools import lru_cache
from importlib.resources import files
from typing import Any

from draftmark.facts.hf_config import facts_from_config
from draftmark.facts.models import ModelFacts


@lru_cache(maxsize=1)
def rows() -> dict[str, dict[str, Any]]:
    """Every file of model_configs by the model's name."""
    folder = files("draftmark.facts") / "model_configs"
    found = [json.loads(entry.read_text()) for entry in folder.iterdir() if entry.name.endswith(".json")]
    return {row["model"]: row for row in sorted(found, key=lambda row: str(row["model"]))}


def facts_of(model: str) -> ModelFacts:
    facts = facts_from_config(rows()[model]["config"], source=model)
    assert isinstance(facts, ModelFacts), facts.reason
    return facts


def a_llama(**changes: object) -> ModelFacts:
    """A small Llama of no model that exists; sizes are made up."""
    config: dict[str, object] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "num_hidden_layers": 4,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "vocab_size": 100,
        "max_position_embeddings": 512,
    }
    facts = facts_from_config({**config, **changes})
    assert isinstance(facts, ModelFacts), facts.reason
    return facts
