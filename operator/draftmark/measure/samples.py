"""What one block of load saw, request by request, and what the engine and the client told meanwhile. Times in seconds on
one clock (time.monotonic of the client), lengths in tokens."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One request.

    Args:
        due: When it was to be sent.
        sent: When it was sent.
        first: When its first token came; None: none came.
        last: When its last token came, or it failed.
        prompt_tokens: As the server counted (`usage`); None: it did not say.
        output_tokens: As the server counted; None: it did not say.
        cached_tokens: Of those of the prompt, how many came from a prefix cache, as the server says; None: it did not say.
        asked_tokens: How long the answer was to be.
        sent_tokens: Tokens of the prompt by our tokenizer.
        model: The name that the answer bears; None: it bears none.
        finish: finish_reason of the last choice; None: the stream ended without one.
        error: Why it failed; None: it did not. An `error` inside the stream is one.
    """

    due: float
    sent: float
    first: float | None
    last: float
    prompt_tokens: int | None
    output_tokens: int | None
    asked_tokens: int
    sent_tokens: int
    cached_tokens: int | None = None
    model: str | None = None
    finish: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """A request that was under way when its block ended, and is no sample: nobody knows how long it would have taken.

    Args:
        sent: When it was sent.
        asked_tokens: How long the answer was to be.
    """

    sent: float
    asked_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """An engine's metrics at one moment, summed over its pods (`kv_use`: the highest). None: not told."""

    at: float
    running: float | None = None
    waiting: float | None = None
    prompt_tokens: float | None = None
    computed_prompt_tokens: float | None = None
    cached_prompt_tokens: float | None = None
    output_tokens: float | None = None
    kv_use: float | None = None
    started: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """What the load generator had of the machine during a block.

    Args:
        cpu_share: Busiest second: CPU time over the CPU it may use, 0 to 1; None: not known.
        throttled_s: Time in which the kernel held it back (cpu.stat of its cgroup).
    """

    cpu_share: float | None
    throttled_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A stretch of load on one target.

    Args:
        round: From 0; in a comparison both targets have a block in each.
        began: When load began to count, after the warm-up.
        samples: Of requests that were sent and ended between `began` and `ended`, failures included.
        unfinished: Requests that were sent in it and had not ended at its end.
        gaps_ms: Times between pieces of the answers in `samples` as they came, in milliseconds of four digits, and how often
            each; None: not known one by one.
        readings: Before the block (at rest), during it, and after it (at rest again), in order.
        peak_memory_bytes: The most that all accelerators of the target held at one moment of the block, as scraped; None: not known.
    """

    target: Literal["target", "compared"]
    workload: str
    load: str
    round: int
    began: float
    ended: float
    samples: tuple[Sample, ...]
    unfinished: tuple[Unfinished, ...] = ()
    gaps_ms: Mapping[float, int] | None = None
    readings: tuple[Reading, ...] = ()
    client: Client = field(default_factory=lambda: Client(cpu_share=None, throttled_s=None))
    peak_memory_bytes: float | None = None
