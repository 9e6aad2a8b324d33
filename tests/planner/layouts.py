"""What tests of layouts need: GPUs, an engine that is like others, and a plan of a model on some nodes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from draftmark.engines.engine import MemoryUse
from draftmark.facts.model_catalogue import catalogue_facts
from draftmark.facts.model_memory import WeightBytes, weight_bytes
from draftmark.facts.models import ModelFacts
from draftmark.plan import Memory
from draftmark.planner.layout import Candidate, Hardware, Layouts, Split, Wish, choose_layout
from draftmark.planner.memory import (
    LEAST_CONTEXT,
    Demand,
    Share,
    largest_context,
    memory_of,
)

_MIB: Final = 2**20

H100: Final = Hardware(
    resource_name="nvidia.com/gpu", product="NVIDIA-H100-80GB-HBM3", gpu_bytes=81_559 * _MIB,
    gpus_per_node=8, link_domain=8, nodes=4,
)  # fmt: skip
L4: Final = Hardware(
    resource_name="nvidia.com/gpu", product="NVIDIA-L4", gpu_bytes=23_034 * _MIB,
    gpus_per_node=8, link_domain=1, nodes=4,
)  # fmt: skip

#: As vLLM: its default share of the GPU, and three GiB for everything else.
SHARE: Final = 0.92
OVERHEAD_BYTES: Final = 3 * 2**30


def facts_of(repository: str) -> ModelFacts:
    facts = catalogue_facts(f"hf://{repository}")
    assert facts is not None, repository
    return facts


def forbids(facts: ModelFacts, split: Split) -> str | None:
    if facts.num_attention_heads % split.tensor:
        return f"{facts.num_attention_heads} heads are not divisible by {split.tensor}"
    if split.pipeline > facts.num_hidden_layers:
        return f"{facts.num_hidden_layers} layers are fewer than {split.pipeline} stages"
    return None


def sum_of(facts: ModelFacts, hardware: Hardware, split: Split, context: int, demand: Demand) -> Memory | None:
    weights = weight_bytes(facts)
    assert isinstance(weights, WeightBytes)
    if hardware.gpu_bytes is None:
        return None
    return memory_of(
        (Share(facts=facts, weights=weights, kv_dtype="bfloat16"),),
        MemoryUse(usable_bytes=int(SHARE * hardware.gpu_bytes), overhead_bytes=OVERHEAD_BYTES),
        gpu_bytes=hardware.gpu_bytes,
        tensor=split.tensor,
        pipeline=split.pipeline,
        expert=split.expert_degree,
        context=context,
        demand=demand,
    )


@dataclass(frozen=True, kw_only=True)
class Laid:
    layouts: Layouts
    context: int | None
    memory: Memory | None

    @property
    def chosen(self) -> Candidate:
        assert self.layouts.chosen is not None, [f"{c}: {c.why}" for c in self.layouts.rejected]
        return self.layouts.chosen


def lay_out(
    facts: ModelFacts,
    hardware: Sequence[Hardware],
    *,
    wish: Wish | None = None,
    context: int | None = None,
    demand: Demand | None = None,
) -> Laid:
    demand = demand or Demand()
    least = context or min(LEAST_CONTEXT, facts.max_position_embeddings)
    layouts = choose_layout(
        hardware,
        wish or Wish(),
        forbids=lambda split: forbids(facts, split),
        sum_of=lambda one, split: sum_of(facts, one, split, least, demand),
    )
    chosen = layouts.chosen
    if chosen is None or chosen.memory is None:
        return Laid(layouts=layouts, context=context, memory=None)

    def at(tokens: int) -> Memory:
        memory = sum_of(facts, chosen.hardware, chosen.split, tokens, demand)
        assert memory is not None
        return memory

    found = context or largest_context(lambda tokens: at(tokens).fits, most=facts.max_position_embeddings)
    return Laid(layouts=layouts, context=found, memory=at(found or least))
