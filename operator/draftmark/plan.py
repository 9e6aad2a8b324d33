"""What was decided about one service, and why: plain data between the planner, the renderer and the status."""

from dataclasses import dataclass
from typing import Literal

#: What a model does with a request.
ModelKind = Literal["generate", "embed", "rerank"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One decision and why it fell this way."""

    #: CamelCase, for machines.
    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The GPUs of one replica. Zero GPUs is CPU."""

    gpus: int
    resource_name: str | None = None
    product: str | None = None

    def __str__(self) -> str:
        return f"{self.gpus}x {self.product}"[:64] if self.gpus else "CPU"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a service is deployed. These are the inputs that a revision pins."""

    engine: str
    version: str
    image: str
    layout: Layout
    served_name: str
    #: Tokens of prompt and answer that one request may hold.
    max_context_length: int
    #: Requests that one replica serves at once, each with the whole context.
    concurrency: int
    #: Tokens that one step of the engine may take; None where the engine or the user says.
    max_batched_tokens: int | None = None
    kind: ModelKind = "generate"
    reasons: tuple[Reason, ...] = ()
    #: Names under which LoRA adapters of the model answer; None: it has none.
    adapters: tuple[str, ...] | None = None
    #: Why the arguments could not be checked, or None when they were.
    args_unchecked: str | None = None

    @property
    def is_routed(self) -> bool:
        """Whether requests go through a router.

        smg 1.13 reads the answers to /v1/rerank of SGLang only, a bare list, and answers 500 to those of llama.cpp and vLLM
        (seen with llama-server v0.7.0); no argument of SGLang tells that its model reranks. And it takes the first model that
        a pod lists for its only one, so that a request for an adapter is a 404 (seen with a server that lists a model and an
        adapter).
        """
        return self.kind != "rerank" and not self.adapters


@dataclass(frozen=True, slots=True, kw_only=True)
class Unplannable:
    """The first thing that stands in the way, with its numbers and the way out."""

    code: str
    message: str
