"""The facts of a model from `spec.model.architecture`: what its user wrote where nothing can be asked."""

import json
from typing import Final

from draftmark.api.model_architecture import ArchitectureSpec
from draftmark.facts.model_json import facts_from_json
from draftmark.facts.models import ModelFacts, UnreadableConfig

__all__ = ["SOURCE", "facts_from_architecture"]

#: Where such facts are from, when their author does not say.
SOURCE: Final = "spec.model.architecture"


def facts_from_architecture(architecture: ArchitectureSpec) -> ModelFacts | UnreadableConfig:
    """The facts, or what is wrong with them, with the field; never raises.

    Single fields are checked by the schema. Here it is checked what must hold between them, and that there is no field
    that is unknown: one that is misspelt would leave the right one at its default.
    """
    written = architecture.written()
    written.setdefault("source", SOURCE)
    return facts_from_json(json.dumps(written))
