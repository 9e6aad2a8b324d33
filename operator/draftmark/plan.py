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
class Rejected:
    """An option that was looked at and not taken."""

    option: str
    #: CamelCase, for machines.
    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The GPUs of one replica, and how the model is split over them. Zero GPUs is CPU."""

    gpus: int
    resource_name: str | None = None
    product: str | None = None
    #: GPUs that share every layer; None: all of them.
    tensor: int | None = None
    #: Stages of layers, one after another.
    pipeline: int = 1
    #: Nodes of one replica.
    nodes: int = 1
    #: Whether experts are whole, each on one of the GPUs of tensor.
    expert: bool = False

    @property
    def tensor_degree(self) -> int:
        return self.tensor if self.tensor is not None else max(1, self.gpus // self.pipeline)

    @property
    def degrees(self) -> dict[str, int]:
        """How one replica is split, as JSON data; the keys are part of the interface. Copies are replicas: `data` is 1."""
        return {
            "tensor": self.tensor_degree,
            "pipeline": self.pipeline,
            "data": 1,
            "expert": self.expert,
            "nodes": self.nodes,
            "gpusPerReplica": self.gpus,
        }

    @property
    def parts(self) -> tuple[str, ...]:
        """How it is split, in words; empty: it is not."""
        degrees = (("tensor", self.tensor_degree), ("pipeline", self.pipeline))
        experts = (f"expert {self.tensor_degree}",) if self.expert else ()
        return (*(f"{name} {degree}" for name, degree in degrees if degree > 1), *experts)

    def __str__(self) -> str:
        where = f" on {self.nodes} nodes" if self.nodes > 1 else ""
        return f"{self.gpus}x {self.product or self.resource_name}{where}"[:64] if self.gpus else "CPU"


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """The memory sum of the fullest GPU, in bytes."""

    gpu_bytes: int
    #: What the engine takes of it, by its own fraction flag.
    usable_bytes: int
    weight_bytes: int
    #: Adapters, and weights of a model that guesses.
    further_bytes: int
    #: Activations, graphs, buffers: an estimate of the engine's file.
    overhead_bytes: int
    #: Cache of what must fit at once.
    kv_needed_bytes: int
    #: Cache that a further token takes; 0: tokens do not add to it (every layer has a window or a state).
    kv_bytes_per_token: int
    #: Whether the weights were measured, and not counted from the model's shape.
    is_measured: bool

    @property
    def kv_bytes(self) -> int:
        """Left for the cache; below 0: not even the weights fit."""
        return self.usable_bytes - self.weight_bytes - self.further_bytes - self.overhead_bytes

    @property
    def needed_bytes(self) -> int:
        return self.weight_bytes + self.further_bytes + self.overhead_bytes + self.kv_needed_bytes

    @property
    def fits(self) -> bool:
        return self.needed_bytes <= self.usable_bytes

    @property
    def missing_bytes(self) -> int:
        return max(0, self.needed_bytes - self.usable_bytes)

    @property
    def kv_tokens(self) -> int | None:
        """Tokens for which there is cache; None: it does not depend on them."""
        return max(0, self.kv_bytes // self.kv_bytes_per_token) if self.kv_bytes_per_token else None


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
    #: Elements of the model's weights; None: not known.
    parameters: int | None = None
    #: None: not known, and why is among the reasons.
    memory: Memory | None = None
    #: Best first.
    rejected: tuple[Rejected, ...] = ()
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
    #: What was looked at on the way, best first.
    rejected: tuple[Rejected, ...] = ()
    #: What would run if this version could deploy it; None: there is no such plan.
    plan: Plan | None = None
