"""What a plan made today gains over the one that runs, and what it loses, by the numbers that both have.

Where the memory of one of them was not summed up, only GPUs and context are compared.
"""

from dataclasses import dataclass

from draftmark.plan import Layout, Plan

__all__ = ["Gain", "compare_plans"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """In words, each with both numbers."""

    gained: tuple[str, ...]
    lost: tuple[str, ...]
    #: Whether other GPUs would be taken, or another number of them.
    is_other_layout: bool
    #: Whether another engine, version or image would run: worth a look whatever the numbers say.
    is_other_engine: bool

    @property
    def is_only_loss(self) -> bool:
        """Whether nobody would want it: today's cluster offers less than what runs has. On the same GPUs it is this version of
        the operator that would do otherwise, and whoever reads of it may have a reason to follow."""
        return self.is_other_layout and bool(self.lost) and not self.gained and not self.is_other_engine

    def __str__(self) -> str:
        told = [
            f"It {verb}: {'; '.join(parts)}." for verb, parts in (("gains", self.gained), ("loses", self.lost)) if parts
        ]
        return " ".join(told)


def compare_plans(running: Plan, today: Plan) -> Gain:
    """What somebody who takes today's plan instead of the running one has of it."""
    gained: list[str] = []
    lost: list[str] = []
    if running.engine != today.engine:
        gained += [reason.message for reason in today.reasons if reason.code == "Engine"]
    was, now = running.layout.gpus, today.layout.gpus
    if was and now and was != now:
        (gained if now < was else lost).append(f"{_gpus(now)} per replica instead of {was}")
    longer = today.max_context_length - running.max_context_length
    if longer:
        (gained if longer > 0 else lost).append(
            f"{today.max_context_length:,} tokens per request instead of {running.max_context_length:,}"
        )
    room, had = _cache_tokens(today), _cache_tokens(running)
    # More GPUs have more of it always, so that it is no gain of the plan.
    if room is not None and had is not None and room != had and (room < had or now <= was):
        (gained if room > had else lost).append(f"cache for {room:,} tokens instead of {had:,}")
    other = (running.engine, running.version, running.image) != (today.engine, today.version, today.image)
    return Gain(
        gained=tuple(gained),
        lost=tuple(lost),
        is_other_layout=_gpus_of(running.layout) != _gpus_of(today.layout),
        is_other_engine=other,
    )


def _gpus_of(layout: Layout) -> tuple[object, ...]:
    return layout.gpus, layout.resource_name, layout.product


def _cache_tokens(plan: Plan) -> int | None:
    return plan.memory.kv_tokens if plan.memory is not None else None


def _gpus(count: int) -> str:
    return "1 GPU" if count == 1 else f"{count} GPUs"
