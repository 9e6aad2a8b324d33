"""What has to be asked to learn the facts of a service's model, and why it cannot be.

A question stands for the URI, the revision and what is read there: two services of the same question have the same
answer, and one that was answered is not asked again.
"""

from dataclasses import dataclass

from draftmark.api import names
from draftmark.api.inference_service import ModelSpec
from draftmark.api.model_uri import ClaimModel, HubModel, ImageModel, ModelSource, UnreadableUri, parse_model_uri
from draftmark.facts.model_answer import ModelProblem

__all__ = ["ModelQuestion", "ask_about"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelQuestion:
    """Where the facts are read."""

    uri: str
    source: ClaimModel | ImageModel | HubModel
    #: Of an hf:// model, as the spec names it; None: the hub's default.
    revision: str | None = None

    @property
    def key(self) -> str:
        """Eight hexadecimal characters, the same for the same question."""
        return names.short_hash([self.uri, self.revision])


def ask_about(model: ModelSpec) -> ModelQuestion | ModelProblem:
    """The question about a model, or why nobody can be asked."""
    try:
        source: ModelSource = parse_model_uri(model.uri)
    except UnreadableUri as error:
        return ModelProblem(code="UnreadableModelUri", message=str(error))
    match source:
        case ClaimModel() | ImageModel() | HubModel():
            return ModelQuestion(uri=model.uri, source=source, revision=model.revision)
        case _:
            return ModelProblem(
                code="NotAsked",
                message="A model behind an https:// URL is not asked about: only the administrator's hub is.",
            )
