"""How one replica spreads over GPUs: which product, how many, and split how.

    for each kind of node:  pipeline across nodes × pipeline inside a node × tensor inside a fast link
    the first that fits, in this order: on one node, fewest GPUs, fewest nodes, fewest stages, smallest GPU

A split that the user gives is respected, or refused with its sum. What lost is kept, with why. Experts are divided like all
else unless the user wants them whole, or a split can be had only so.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from draftmark.plan import Memory
from draftmark.planner.memory import gib

#: GPUs of one replica beyond which no layout is looked for: the largest models of 2026 are served on 16 to 64.
MAX_GPUS: Final = 64
#: GPUs of a node where neither nodes nor the product tell.
UNKNOWN_NODE: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """One kind of node, or one product where there is no node to look at."""

    resource_name: str
    #: As the node label has it; None: whatever there is.
    product: str | None
    #: Of one GPU; None: not known, and then nothing can be summed up.
    gpu_bytes: int | None
    #: GPUs of one node; None: not known.
    gpus_per_node: int | None = None
    #: GPUs of a node that a fast link connects; None: not known, and then the whole node is taken for one.
    link_domain: int | None = None
    #: Nodes of the kind; None: not known, or there can be more.
    nodes: int | None = None

    @property
    def node_size(self) -> int:
        return self.gpus_per_node if self.gpus_per_node is not None else UNKNOWN_NODE

    @property
    def tensor_limit(self) -> int:
        return min(self.link_domain, self.node_size) if self.link_domain is not None else self.node_size

    def __str__(self) -> str:
        return self.product or self.resource_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Degrees of one replica, at least 1."""

    tensor: int = 1
    #: Stages, of which `nodes` or more stages are on as many nodes.
    pipeline: int = 1
    nodes: int = 1
    #: Whether whole experts are spread over the GPUs of tensor, and not each of them divided among all.
    expert: bool = False

    @property
    def gpus(self) -> int:
        return self.tensor * self.pipeline

    @property
    def gpus_per_node(self) -> int:
        return self.gpus // self.nodes

    @property
    def expert_degree(self) -> int:
        """GPUs of a stage that whole experts are spread over; 1: each expert is divided instead."""
        return self.tensor if self.expert else 1

    def __str__(self) -> str:
        if self.gpus == 1:
            return "1 GPU"
        parts = [f"tensor {self.tensor}"] if self.tensor > 1 else []
        parts += [f"pipeline {self.pipeline}"] if self.pipeline > 1 else []
        experts = f", expert {self.expert_degree}" if self.expert else ""
        where = f" on {self.nodes} nodes" if self.nodes > 1 else ""
        return f"{self.gpus} GPUs ({' × '.join(parts)}{experts}){where}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the user said of the split; None: left open."""

    tensor: int | None = None
    pipeline: int | None = None
    expert: bool | None = None
    #: GPUs of one replica.
    gpus: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One split on one kind of node, with its sum or with what forbids it."""

    hardware: Hardware
    split: Split
    memory: Memory | None
    #: CamelCase, and why it cannot be; None: it can.
    code: str | None = None
    why: str = ""

    @property
    def fits(self) -> bool:
        return self.code is None

    def __str__(self) -> str:
        return f"{self.split} of {self.hardware}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layouts:
    """What was looked at."""

    chosen: Candidate | None
    #: Best first, as they would have been taken.
    rejected: tuple[Candidate, ...]


def choose_layout(
    hardware: Sequence[Hardware],
    wish: Wish,
    *,
    forbids: Callable[[Split], str | None],
    sum_of: Callable[[Hardware, Split], Memory | None],
) -> Layouts:
    """The layout with the fewest GPUs that fits.

    Args:
        hardware: Kinds of nodes.
        forbids: Why the model or the engine cannot be split so, such as heads that do not divide; None: it can.
        sum_of: The sum of a layout; None: it cannot be made, and then the layout is taken as it is.
    """
    rejected: list[Candidate] = []
    for one, wanted in _in_order(hardware, wish):
        split = _with_whole_experts(wanted, forbids) if wish.expert is None else wanted
        if (why := _beyond(one, split)) is not None:
            rejected.append(Candidate(hardware=one, split=split, memory=None, code="NoSuchNodes", why=why))
        elif (why := forbids(split)) is not None:
            rejected.append(Candidate(hardware=one, split=split, memory=None, code="Indivisible", why=why))
        else:
            memory = sum_of(one, split)
            if memory is None or memory.fits:
                return Layouts(chosen=Candidate(hardware=one, split=split, memory=memory), rejected=tuple(rejected))
            rejected.append(
                Candidate(hardware=one, split=split, memory=memory, code="TooLarge", why=_too_large(memory))
            )
    return Layouts(chosen=None, rejected=tuple(rejected))


def _with_whole_experts(split: Split, forbids: Callable[[Split], str | None]) -> Split:
    """The split with whole experts where it can be had only so."""
    if forbids(split) is None:
        return split
    whole = replace(split, expert=True)
    return whole if forbids(whole) is None else split


def _in_order(hardware: Sequence[Hardware], wish: Wish) -> Iterator[tuple[Hardware, Split]]:
    found = {(one, split) for one in hardware for split in _splits(one, wish)}

    def rank(item: tuple[Hardware, Split]) -> tuple[object, ...]:
        one, split = item
        return (
            # What cannot be deployed yet is only taken where nothing else fits: a further node must not make it the choice.
            split.nodes > 1, split.gpus, split.nodes, split.pipeline, one.gpu_bytes or 0, str(one.product), one.resource_name,
            -(one.link_domain or 0), -(one.gpus_per_node or 0), -(one.nodes or 0),
        )  # fmt: skip

    yield from sorted(found, key=rank)


def _splits(one: Hardware, wish: Wish) -> Iterator[Split]:
    """The splits that are looked at. What is left open is a power of two inside a node, as engines and nodes are mostly
    made for; several nodes are taken whole."""
    if wish.tensor is not None:
        tensors: Iterable[int] = (wish.tensor,)
    elif wish.gpus is not None:
        tensors = (t for t in range(1, min(wish.gpus, one.tensor_limit) + 1) if wish.gpus % t == 0)
    else:
        tensors = _powers(one.tensor_limit)
    for tensor in tensors:
        for pipeline in _stages(one, wish, tensor):
            nodes = _nodes(tensor, pipeline, one.node_size)
            if nodes is not None and wish.gpus in (None, tensor * pipeline):
                yield Split(tensor=tensor, pipeline=pipeline, nodes=nodes, expert=bool(wish.expert))


def _stages(one: Hardware, wish: Wish, tensor: int) -> Iterable[int]:
    if wish.pipeline is not None:
        return (wish.pipeline,)
    if wish.gpus is not None:
        return (wish.gpus // tensor,) if wish.gpus % tensor == 0 else ()
    if tensor > one.node_size:
        return (1,)  # the user's own word, which is refused with what a node has
    inside = _powers(one.node_size // tensor)
    most = inside[-1]
    return (*inside, *(most * nodes for nodes in range(2, MAX_GPUS // (most * tensor) + 1)))


def _powers(most: int) -> tuple[int, ...]:
    return tuple(2**n for n in range(most.bit_length()))


def _nodes(tensor: int, pipeline: int, size: int) -> int | None:
    """Nodes that a split takes, each with as many stages; None: it does not divide."""
    if tensor > size:
        return 1
    stages = size // tensor
    if pipeline <= stages:
        return 1
    return next((pipeline // s for s in range(stages, 0, -1) if pipeline % s == 0), None)


def _beyond(one: Hardware, split: Split) -> str | None:
    if one.gpus_per_node is not None and split.gpus_per_node > one.gpus_per_node:
        return f"a node with {one} has {one.gpus_per_node} of them"
    if one.nodes is not None and split.nodes > one.nodes:
        nodes = "1 node" if one.nodes == 1 else f"{one.nodes} nodes"
        return f"there {'is' if one.nodes == 1 else 'are'} {nodes} with {one}"
    return None


def _too_large(memory: Memory) -> str:
    return (
        f"needs {gib(memory.needed_bytes)} of the {gib(memory.usable_bytes)} that the engine takes of a GPU: "
        f"{gib(memory.missing_bytes)} too much"
    )
