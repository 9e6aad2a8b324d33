"""The stretches of load that an order means, in order, and how far a run is. Pure.

Row by row: a warm-up of each target, then the row's blocks. Two targets take turns within a round, in an order that is drawn
(`measure.statistics.block_order`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from draftmark.measure.order import Load, Order, OrderedTarget, OrderedWorkload
from draftmark.measure.statistics import block_order

#: Seconds that a stretch costs beside its load, until one has been seen. Measured: 1 to 2 on two busy cores.
FIRST_OVERHEAD_S: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Load on one target.

    Args:
        number: Of all stretches, from 0; prompts differ by it.
        round: From 0; None: the warm-up, whose answers do not count.
        seconds: How long load is sent; None: until `requests` have ended.
    """

    number: int
    target: OrderedTarget
    workload: OrderedWorkload
    load: Load
    round: int | None
    seconds: float | None
    requests: int | None

    @property
    def is_warm_up(self) -> bool:
        return self.round is None


def stretches_of(order: Order) -> tuple[Stretch, ...]:
    """All that is to be sent, in order."""
    return tuple(_stretches(order))


def _stretches(order: Order) -> Iterator[Stretch]:
    number = 0
    for workload in order.workloads:
        for load in order.loads:
            if order.warm_up_s > 0:
                for target in order.targets:
                    yield Stretch(
                        number=number,
                        target=target,
                        workload=workload,
                        load=load,
                        round=None,
                        seconds=order.warm_up_s,
                        requests=None,
                    )
                    number += 1
            for round_, target in _blocks(order, workload, load):
                yield Stretch(
                    number=number,
                    target=target,
                    workload=workload,
                    load=load,
                    round=round_,
                    seconds=order.duration_s if order.requests is None else None,
                    requests=order.requests,
                )
                number += 1


def _blocks(order: Order, workload: OrderedWorkload, load: Load) -> Iterator[tuple[int, OrderedTarget]]:
    """Round and target, block by block."""
    if len(order.targets) == 1:
        yield from ((number, order.targets[0]) for number in range(order.repetitions))
        return
    by_label = {target.label: target for target in order.targets}
    # Of the Benchmark and not of its Job: a second try measures in the same order.
    for number, label in block_order(order.repetitions, f"{order.uid} {workload.name} {load.label}"):
        yield number, by_label[label]


@dataclass(slots=True)
class Pace:
    """How far a run is, from how long its stretches took.

    Args:
        stretches: All of them.
    """

    stretches: Sequence[Stretch]
    done: int = 0
    #: Seconds beside the load, of the stretches so far.
    overhead_s: float = FIRST_OVERHEAD_S
    #: Seconds of the last stretch of each row that ends by its requests; of any row: key None.
    _took: dict[tuple[str, str] | None, float] | None = None

    def ended(self, stretch: Stretch, took_s: float) -> None:
        """A stretch is over; `took_s` with everything around its load."""
        self.done += 1
        if stretch.seconds is not None:
            overhead = max(0.0, took_s - stretch.seconds)
            self.overhead_s += (overhead - self.overhead_s) / min(self.done, 8)
            return
        took = self._took if self._took is not None else {}
        took[stretch.workload.name, stretch.load.label] = took[None] = took_s
        self._took = took

    def percent(self, running_s: float = 0.0) -> int:
        """Of all the time that it takes, 0 to 99: 100 is a result that is written.

        Args:
            running_s: For how long the present stretch has run.
        """
        # Where nothing is known of how long a block takes, all count alike.
        lengths = [self._expected(stretch) or 1.0 for stretch in self.stretches]
        total = sum(lengths)
        if total <= 0:
            return 0
        past = sum(lengths[: self.done])
        if self.done < len(lengths):
            past += min(running_s, lengths[self.done])
        return min(99, int(100 * past / total))

    def seconds_left(self, running_s: float = 0.0) -> int | None:
        """None: nothing is known of how long a block takes."""
        left = [self._expected(stretch) for stretch in self.stretches[self.done :]]
        known = [seconds for seconds in left if seconds is not None]
        if len(known) != len(left):
            return None
        if known:
            known[0] = max(0.0, known[0] - running_s)
        return round(sum(known))

    def _expected(self, stretch: Stretch) -> float | None:
        if stretch.seconds is not None:
            return stretch.seconds + self.overhead_s
        took = self._took or {}
        return took.get((stretch.workload.name, stretch.load.label), took.get(None))
