"""Orders, and blocks as a well-behaved target and client give them; tests change what they are about."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, Literal

from draftmark.measure.order import (
    Counters,
    FromClaim,
    Lengths,
    Load,
    Order,
    OrderedTarget,
    OrderedWorkload,
    TargetFacts,
)
from draftmark.measure.samples import Block, Client, Reading, Sample
from draftmark.measure.validity import Cell

PROMPT: Final = 200
OUTPUT: Final = 50
OVERHEAD: Final = 12
TTFT_S: Final = 0.2
ITL_S: Final = 0.02
CHAT: Final = OrderedWorkload(name="chat", prompt=Lengths(mean=PROMPT), output=Lengths(mean=OUTPUT))
TWO: Final = Load(concurrency=2)
BLOCK_S: Final = 60.0

Label = Literal["target", "compared"]


def target(label: Label = "target") -> OrderedTarget:
    return OrderedTarget(
        label=label,
        url=f"http://{label}:8000",
        model="tiny",
        tokenizer=FromClaim(path="/model"),
        counters=Counters(running="running"),
        facts=TargetFacts(engine="vllm"),
    )


def order(**changes: Any) -> Order:
    """Of one target, or with `compared=True` of two."""
    is_comparison = changes.pop("compared", False)
    fields: dict[str, Any] = {
        "benchmark": "it",
        "namespace": "models",
        "uid": "u",
        "job": "it-1",
        "targets": (target(), target("compared")) if is_comparison else (target(),),
        "workloads": (CHAT,),
        "loads": (TWO,),
        "warm_up_s": 10,
        "duration_s": BLOCK_S,
        "repetitions": 6 if is_comparison else 3,
        "result_config_map": "it-result",
    }
    return Order(**(fields | changes))


def sample(sent: float = 0.0, *, ttft_s: float = TTFT_S, itl_s: float = ITL_S, **changes: Any) -> Sample:
    """Answered as asked."""
    tokens = changes.get("output_tokens", OUTPUT) or OUTPUT
    first = sent + ttft_s
    fields: dict[str, Any] = {
        "due": sent,
        "sent": sent,
        "first": first,
        "last": first + itl_s * (tokens - 1),
        "prompt_tokens": PROMPT + OVERHEAD,
        "output_tokens": OUTPUT,
        "asked_tokens": OUTPUT,
        "sent_tokens": PROMPT,
        "model": "tiny",
        "finish": "length",
    }
    return Sample(**(fields | changes))


def block(
    round_: int = 0,
    *,
    label: Label = "target",
    workload: str = "chat",
    load: Load = TWO,
    ttft_s: float = TTFT_S,
    itl_s: float = ITL_S,
    began: float | None = None,
) -> Block:
    """A block of two slots, one request after the other in each, with the engine's metrics before, during and after it."""
    start = 100.0 * round_ + (50.0 if label == "compared" else 0.0) if began is None else began
    slots = load.concurrency or 1
    took = ttft_s + itl_s * (OUTPUT - 1)
    samples = tuple(
        sample(start + i * took, ttft_s=ttft_s, itl_s=itl_s) for i in range(int(BLOCK_S // took)) for _ in range(slots)
    )

    def reading(at: float, *, is_busy: bool) -> Reading:
        done = sum(s.last <= at for s in samples)
        return Reading(
            at=at,
            running=slots if is_busy else 0,
            waiting=0,
            prompt_tokens=(10_000 * round_ + done) * (PROMPT + OVERHEAD),
            cached_prompt_tokens=(10_000 * round_ + done) * 8,
            output_tokens=(10_000 * round_ + done) * OUTPUT,
            kv_use=0.25 if is_busy else 0.0,
            started=5.0,
        )

    return Block(
        target=label,
        workload=workload,
        load=load.label,
        round=round_,
        began=start,
        ended=start + BLOCK_S,
        samples=samples,
        readings=(
            reading(start - 1, is_busy=False),
            *(reading(start + at, is_busy=True) for at in (5.0, 20.0, 35.0, 50.0)),
            reading(start + BLOCK_S + 1, is_busy=False),
        ),
        client=Client(cpu_share=0.3, throttled_s=0.0),
        peak_memory_bytes=1.5e9,
    )


def cell(change: Callable[[Block], Block] = lambda block: block, *, asked: Order | None = None, **changes: Any) -> Cell:
    """Three blocks, each of them changed."""
    fields: dict[str, Any] = {
        "order": asked or order(),
        "target": target(),
        "workload": CHAT,
        "load": TWO,
        "blocks": tuple(change(block(i)) for i in range(3)),
    }
    return Cell(**(fields | changes))


def each_sample(change: Callable[[Sample], Sample], *, every: int = 1) -> Callable[[Block], Block]:
    """Changes one of `every` samples."""
    return lambda block: replace(
        block, samples=tuple(change(s) if i % every == 0 else s for i, s in enumerate(block.samples))
    )


def each_reading(change: Callable[[Reading], Reading]) -> Callable[[Block], Block]:
    return lambda block: replace(block, readings=tuple(change(r) for r in block.readings))
