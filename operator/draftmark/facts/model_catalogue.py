"""The facts of well-known models, for a cluster that cannot ask the hub.

One file per model in `model_configs/`: the fields of its config.json that the sums here use, where that config was
read, and, where one was found, the published count of parameters, which tests compare with the formula. `aliases` are repositories of the
same shape, such as the instruction-tuned model beside its base.

A URI that names one quantization or file of a repository is not looked up: the format of its weights is not the one
that the config says.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Final

from draftmark.api.model_uri import HubModel, UnreadableUri, parse_model_uri
from draftmark.facts.hf_config import facts_from_config
from draftmark.facts.models import ModelFacts

__all__ = ["catalogue_facts", "catalogued"]

_FOLDER: Final = "model_configs"


def catalogue_facts(uri: str) -> ModelFacts | None:
    """The facts of the model at this URI, or None when it is not in the catalogue.

    Args:
        uri: As in `spec.model.uri`; only hf://ORG/REPO is found. Upper and lower case are the same, as on the hub.
    """
    try:
        source = parse_model_uri(uri)
    except UnreadableUri:
        return None
    if not isinstance(source, HubModel) or source.quantization or source.file:
        return None
    return _catalogue().get(source.repository.lower())


def catalogued() -> tuple[str, ...]:
    """Repositories that the catalogue has, in lower case, sorted."""
    return tuple(sorted(_catalogue()))


@lru_cache(maxsize=1)
def _catalogue() -> Mapping[str, ModelFacts]:
    facts: dict[str, ModelFacts] = {}
    folder = files("draftmark.facts") / _FOLDER
    for entry in sorted(folder.iterdir(), key=lambda item: item.name):
        if not entry.name.endswith(".json"):
            continue
        row = json.loads(entry.read_text())
        found = facts_from_config(row["config"], source=f"catalogue: config.json of {row['model']}")
        # A row that cannot be read is a bug of ours; tests read every one.
        assert isinstance(found, ModelFacts), f"{entry.name}: {found.reason}"
        for name in (row["model"], *row.get("aliases", ())):
            assert name.lower() not in facts, f"{name} is in the catalogue twice"
            facts[name.lower()] = found
    return facts
