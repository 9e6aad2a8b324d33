"""From all that was seen to the result: rows, what stands against them, differences and winners."""

from collections.abc import Mapping, Sequence

from draftmark.measure.order import Order, TargetFacts
from draftmark.measure.result import METRIC_NAMES, Difference, Refusal, Result, Row, Winner, measured_targets
from draftmark.measure.rows import METRICS, Metric, errors, make_row, medians_and_rate, read_block
from draftmark.measure.samples import Block
from draftmark.measure.statistics import MIN_ROUNDS, Paired, choose_winner, compare
from draftmark.measure.validity import Cell, refuse_row, refuse_run, unchecked

__all__ = ["evaluate"]

_Where = tuple[str, str]


def evaluate(
    order: Order,
    blocks: Sequence[Block],
    *,
    began: str,
    ended: str,
    tool: str,
    notes: Sequence[str] = (),
    facts: Mapping[str, TargetFacts] | None = None,
) -> Result:
    """The result of an order, as it is kept.

    Pure: the same blocks give the same result, in whichever sequence they are given.

    Args:
        order: What was asked.
        blocks: All that were measured; of one that was broken off nothing.
        began, ended: RFC 3339, UTC.
        tool: The load generator and its version.
        notes: Sentences for the result, after the user's own.
        facts: Of targets of which more is known than the order says, by their labels.

    Raises:
        ValueError: A block whose requests have times out of order, or that belongs to nothing in the order.
    """
    cells = _cells(order, blocks)
    refusal = refuse_run(cells)
    not_checked = unchecked(cells)
    rows = [_row(cell, refusal) for cell in cells]
    differences, winners, more = _compare(order, cells, rows) if len(order.targets) == 2 else ((), (), ())
    return Result(
        benchmark=order.benchmark,
        namespace=order.namespace,
        uid=order.uid,
        job=order.job,
        tool=tool,
        began=began,
        ended=ended,
        order=order,
        targets=measured_targets(order, facts or {}),
        rows=tuple(rows),
        differences=differences,
        winners=winners,
        refusal=refusal,
        unchecked=not_checked,
        notes="\n".join(part for part in (order.notes, *notes, *not_checked, *more) if part),
    )


def _cells(order: Order, blocks: Sequence[Block]) -> list[Cell]:
    by_place: dict[tuple[str, str, str], list[Block]] = {}
    for block in blocks:
        by_place.setdefault((block.workload, block.load, block.target), []).append(block)
    cells = [
        Cell(
            order=order,
            target=target,
            workload=workload,
            load=load,
            blocks=tuple(
                sorted(by_place.pop((workload.name, load.label, target.label), ()), key=lambda block: block.round)
            ),
        )
        for workload in order.workloads
        for load in order.loads
        for target in order.targets
    ]
    if by_place:
        raise ValueError(f"blocks of {next(iter(by_place))} were not ordered")
    for cell in cells:
        if len({block.round for block in cell.blocks}) < len(cell.blocks):
            raise ValueError(f"a round of {cell.workload.name} under {cell.load.label} has two blocks of one target")
    return cells


def _row(cell: Cell, of_the_run: Refusal | None) -> Row:
    refusal = of_the_run or refuse_row(cell)
    if refusal is None:
        return make_row(cell.blocks, load=cell.load, objectives=cell.order.objectives)
    return Row(
        target=cell.target.label,
        workload=cell.workload.name,
        load=cell.load.label,
        concurrency=cell.load.concurrency,
        request_rate=cell.load.request_rate,
        samples=len(cell.answered),
        errors=errors(cell.blocks),
        refusal=refusal,
    )


def _compare(
    order: Order, cells: Sequence[Cell], rows: Sequence[Row]
) -> tuple[tuple[Difference, ...], tuple[Winner, ...], tuple[str, ...]]:
    """Differences, winners and notes. A workload of which a row is refused has no winner."""
    refused = {(row.workload, row.load): row.refusal for row in rows if row.refusal is not None}
    values: dict[_Where, dict[str, dict[int, dict[Metric, float]]]] = {}
    for cell in cells:
        where = (cell.workload.name, cell.load.label)
        if where not in refused:
            by_round = {block.round: medians_and_rate(read_block(block), cell.load) for block in cell.blocks}
            values.setdefault(where, {})[cell.target.label] = by_round
    pairs: list[Paired] = []
    notes: list[str] = []
    is_enough = order.repetitions >= MIN_ROUNDS
    for (workload, load), of_targets in values.items() if is_enough else ():
        target, compared = of_targets["target"], of_targets["compared"]
        rounds = sorted(target.keys() & compared.keys())
        for metric in METRICS:
            one = tuple(target[round_].get(metric, 0.0) for round_ in rounds)
            other = tuple(compared[round_].get(metric, 0.0) for round_ in rounds)
            if min(*one, *other) > 0:
                pairs.append(Paired(workload=workload, load=load, metric=metric, target=one, compared=other))
            else:
                notes.append(f"{METRIC_NAMES[metric]} of {workload} at {load} was not compared: a block has none.")
    differences = compare(pairs, equal_within_percent=order.equal_within_percent) if pairs else ()
    winners: list[Winner] = []
    for name in (workload.name for workload in order.workloads):
        reasons = [(load, refusal) for (workload, load), refusal in refused.items() if workload == name]
        of_workload = [difference for difference in differences if difference.workload == name]
        message = None
        if reasons:
            message = f"no winner: {reasons[0][0]} has no numbers ({reasons[0][1].code})"
        elif not is_enough:
            message = f"no winner: {order.repetitions} rounds show nothing, {MIN_ROUNDS} are needed"
        elif not of_workload:
            message = "no winner: nothing could be compared"
        winners.append(
            Winner(workload=name, winner="none", message=message)
            if message is not None
            else choose_winner(name, of_workload, equal_within_percent=order.equal_within_percent)
        )
    return differences, tuple(winners), tuple(notes)
