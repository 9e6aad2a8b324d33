"""What results say, for people: tables, CSV and Markdown, of one run or of several side by side.

Nothing is computed here that was not measured. A cell without a measurement reads `TBD`; a refusal stands where its numbers
would stand. Text in a result comes from users and servers, so it is cleaned of control characters once, here, and escaped
where it is written.
"""

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Final, Literal
from urllib.parse import quote

from draftmark.measure.order import Order, OrderedObjectives
from draftmark.measure.result import METRIC_NAMES, Difference, Interval, Latency, MeasuredTarget, Refusal, Result, Row

__all__ = [
    "CSV_COLUMNS",
    "DEFINITIONS",
    "LATENCIES",
    "NOT_COMPARED",
    "PERCENTILES",
    "TBD",
    "Comparison",
    "Refused",
    "Report",
    "Series",
    "Table",
    "csv_text",
    "decimal",
    "difference_text",
    "interval_text",
    "make_report",
    "markdown",
    "plain",
]

#: What a cell reads that was not measured.
TBD: Final = "TBD"
CSV_COLUMNS: Final = (
    "engine", "version", "model", "quantization", "hardware", "concurrency", "prompt_tokens", "output_tokens", "ttft_ms",
    "tok_per_s", "peak_mem_gb", "notes",
)  # fmt: skip

LatencyName = Literal["ttft", "itl", "tpot", "e2e"]
Percentile = Literal["p50", "p90", "p99"]
LATENCIES: Final[tuple[tuple[LatencyName, str], ...]] = (
    ("ttft", "TTFT"),
    ("itl", "ITL"),
    ("tpot", "TPOT"),
    ("e2e", "E2E"),
)
PERCENTILES: Final[tuple[Percentile, ...]] = ("p50", "p90", "p99")

#: Words of the tables, in the sense of vLLM's benchmarks.
DEFINITIONS: Final = (
    ("TTFT", "Time to first token: from sending a request to the first token of its answer, in milliseconds."),
    ("ITL", "Inter-token latency: the time between two pieces of an answer as they came, in milliseconds; percentiles over all gaps."),
    ("TPOT", "Time per output token, as vLLM means it: (E2E - TTFT) / (output tokens - 1) of one request, in milliseconds."),
    ("E2E", "End-to-end latency: from sending a request to the last token of its answer, in milliseconds."),
    ("p50, p90, p99", "Percentiles over requests: half, 90 % and 99 % of them took at most this long."),
    ("(low to high)", "95 % confidence interval over repetitions; left out where there are too few to say. Of p99 it is 80 to 95 % only (simulated): slow stretches that no repetition had are not in it."),
    ("goodput", "Requests per second that held all objectives of the Benchmark."),
    ("scatter", "Range of the repetitions' medians, as a share of the median of all; the largest of TTFT, ITL and E2E."),
    ("TBD", "Not measured. A percentile reads TBD where there are too few samples for it. Nothing is estimated."),
    ("refused", "It was tried, and a number would not be honest or something broke; the reason stands with it."),
)  # fmt: skip


#: What is said of several runs side by side.
NOT_COMPARED: Final = (
    "These runs were not measured in turns, so what differs between them may be the hour and not the server. A comparison, with a "
    "verdict, is a Benchmark with spec.compare."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One target of one run: a line in a plot, a column in a table."""

    name: str
    """Unique in a report."""
    result: Result
    target: MeasuredTarget

    @property
    def rows(self) -> tuple[Row, ...]:
        return tuple(row for row in self.result.rows if row.target == self.target.label)

    def refusal_of(self, row: Row) -> Refusal | None:
        """Why a row's numbers do not count, whatever else the document holds."""
        return self.result.refusal or row.refusal

    def row(self, workload: str, load: str) -> Row | None:
        """The row of a workload and a load; None: it was not asked for."""
        return next((row for row in self.rows if (row.workload, row.load) == (workload, load)), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A refusal, and of what."""

    where: str
    refusal: Refusal

    @property
    def word(self) -> str:
        return "Failed" if self.refusal.is_failure else "Inconclusive"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Cells of text; the first column names the rows."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What one run says of its two targets."""

    run: str
    target: str
    compared: str
    equal_within_percent: float
    winners: tuple[tuple[str, str, str], ...]
    """Workload, who won (or "no winner"), why: such as that no difference was shown."""
    differences: tuple[Difference, ...]
    table: Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All that is written, whatever the format."""

    series: tuple[Series, ...]
    refused: tuple[Refused, ...]
    comparisons: tuple[Comparison, ...]
    runs: Table
    tables: tuple[Table, ...]
    notes: tuple[tuple[str, str], ...]
    """Run, and what its author noted."""
    workloads: tuple[str, ...]
    remark: str
    """What the tables do not say; empty: nothing."""


def plain(text: str) -> str:
    """Text of others on one line, without control characters and marks that turn the direction of writing."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def decimal(value: float | None) -> str:
    """A number as tables show it: four digits that count, at most three of them behind the point."""
    if value is None:
        return TBD
    if value == 0:
        return "0"
    size = abs(value)
    return f"{value:.{0 if size >= 1000 else 1 if size >= 100 else 2 if size >= 10 else 3}f}"


def interval_text(value: Interval | None) -> str:
    """A number with its interval."""
    if value is None:
        return TBD
    if value.low is None or value.high is None:
        return decimal(value.value)
    return f"{decimal(value.value)} ({decimal(value.low)} to {decimal(value.high)})"


def difference_text(difference: Difference) -> str:
    """A difference with its interval, in percent."""
    return f"{difference.percent:+.1f} % ({difference.low_percent:+.1f} to {difference.high_percent:+.1f})"


def make_report(results: Sequence[Result]) -> Report:
    """Everything that results say, in the order in which they are given.

    Pure. A run is named like its Benchmark; where that is not unique, with its namespace and when it began.
    """
    runs = list(zip(_run_names(results), results, strict=True))
    series = tuple(s for name, result in runs for s in _series(name, result, is_alone=len(runs) == 1))
    workloads = tuple(dict.fromkeys(plain(row.workload) for s in series for row in s.rows))
    return Report(
        series=series,
        refused=tuple(r for name, result in runs for r in _refused(name, result, is_alone=len(runs) == 1)),
        comparisons=tuple(_comparison(name, result) for name, result in runs if result.winners or result.differences),
        runs=_runs_table(series),
        tables=tuple(_tables(series)),
        notes=tuple((name, plain(result.notes)) for name, result in runs if result.notes.strip()),
        workloads=workloads,
        remark=NOT_COMPARED if len(runs) > 1 else "",
    )


def _run_names(results: Sequence[Result]) -> list[str]:
    """The shortest name of each that tells it from all others."""
    ways = (
        [plain(r.benchmark) for r in results],
        [plain(f"{r.namespace}/{r.benchmark}") for r in results],
        [plain(f"{r.namespace}/{r.benchmark} of {r.began}") for r in results],
        [plain(f"{r.namespace}/{r.benchmark} of {r.began} ({i})") for i, r in enumerate(results, 1)],
    )
    return next(names for names in ways if len(set(names)) == len(names))


def _series(run: str, result: Result, *, is_alone: bool) -> list[Series]:
    if len(result.targets) == 1:
        return [Series(name=run, result=result, target=result.targets[0])]
    names = [_target_name(result, t) for t in result.targets]
    if len(set(names)) < len(names):
        names = [f"{name} ({t.label})" for name, t in zip(names, result.targets, strict=True)]
    prefix = "" if is_alone else f"{run}: "
    return [Series(name=prefix + n, result=result, target=t) for n, t in zip(names, result.targets, strict=True)]


def _target_name(result: Result, target: MeasuredTarget) -> str:
    """Service, and revision where two of one service are compared; else the address."""
    facts = target.facts
    if not facts.service:
        return plain(target.url.removeprefix("http://"))
    is_twice = sum(t.facts.service == facts.service for t in result.targets) > 1
    return plain(f"{facts.service} {facts.revision}" if is_twice and facts.revision else facts.service)


def _refused(run: str, result: Result, *, is_alone: bool) -> Iterable[Refused]:
    if result.refusal is not None:
        yield Refused(where=run, refusal=_plain_refusal(result.refusal))
    for row in result.rows:
        if row.refusal is not None and row.refusal != result.refusal:
            target = next((t for t in result.targets if t.label == row.target), None)
            parts = [] if is_alone else [run]
            parts += [plain(row.workload), plain(row.load)]
            if len(result.targets) > 1 and target is not None:
                parts.append(_target_name(result, target))
            yield Refused(where=", ".join(parts), refusal=_plain_refusal(row.refusal))


def _plain_refusal(refusal: Refusal) -> Refusal:
    return refusal.model_copy(update={"code": plain(refusal.code), "message": plain(refusal.message)})


def _comparison(run: str, result: Result) -> Comparison:
    names = {t.label: _target_name(result, t) for t in result.targets}
    target, compared = names.get("target", "target"), names.get("compared", "compared")
    told = {"target": target, "compared": compared, "none": "no winner"}
    rows = tuple(
        (
            plain(d.workload),
            plain(d.load),
            METRIC_NAMES[d.metric],
            difference_text(d),
            d.verdict if d.verdict != "Equal" else f"Equal within {result.order.equal_within_percent:g} %",
        )
        for d in result.differences
    )
    return Comparison(
        run=run,
        target=target,
        compared=compared,
        equal_within_percent=result.order.equal_within_percent,
        winners=tuple((plain(w.workload), told[w.winner], plain(w.message)) for w in result.winners),
        differences=result.differences,
        table=Table(
            title=f"{compared} against {target}",
            heads=("workload", "load", "metric", "difference (interval)", f"{compared} is"),
            rows=rows,
        ),
    )


def _runs_table(series: Sequence[Series]) -> Table:
    """What was measured, and with what."""
    columns = []
    for s in series:
        facts, result = s.target.facts, s.result
        columns.append(
            (
                ("target", _or_tbd(facts.service) if facts.service else plain(s.target.url)),
                ("revision", _or_tbd(facts.revision) if facts.service else "-"),
                ("engine", _or_tbd(facts.engine)),
                ("version", _or_tbd(facts.version)),
                ("model", plain(s.target.model)),
                ("quantization", _or_tbd(facts.quantization)),
                ("layout", _or_tbd(facts.layout)),
                ("hardware", _or_tbd(facts.hardware)),
                ("replicas", TBD if facts.replicas is None else str(facts.replicas)),
                ("images", ", ".join(map(plain, facts.images)) or TBD),
                ("load generator", plain(result.tool)),
                ("repetitions", str(result.order.repetitions)),
                ("length of each", _length(result.order)),
                ("shared prefix", _shared_prefixes(result.order)),
                ("objectives", _objectives(result.order.objectives)),
                ("began", plain(result.began)),
                ("ended", plain(result.ended)),
                ("result", _whole(result)),
            )
        )
    return Table(
        title="Runs",
        heads=("", *(s.name for s in series)),
        rows=tuple((name, *(column[i][1] for column in columns)) for i, (name, _) in enumerate(columns[0]))
        if columns
        else (),
    )


def _length(order: Order) -> str:
    return f"{order.requests} requests" if order.duration_s is None else f"{order.duration_s:g} s"


def _shared_prefixes(order: Order) -> str:
    """Of which workload, and how long."""
    found = [(plain(w.name), w.shared_prefix_tokens) for w in order.workloads if w.shared_prefix_tokens]
    return ", ".join(f"{name}: {tokens} tokens" for name, tokens in found) or "-"


def _objectives(objectives: OrderedObjectives | None) -> str:
    """Their bounds: goodput and what is held say nothing without them."""
    latencies = (
        () if objectives is None else (("TTFT", objectives.ttft), ("ITL", objectives.itl), ("E2E", objectives.e2e))
    )
    told = []
    for name, bounds in latencies:
        for percentile in PERCENTILES:
            bound: float | None = getattr(bounds, percentile)
            if bound is not None:
                told.append(f"{name} {percentile} {bound:g} ms")
    return ", ".join(told) or "-"


def _whole(result: Result) -> str:
    if result.refusal is not None:
        return _refusal_cell(result.refusal)
    refused = sum(row.refusal is not None for row in result.rows)
    return f"{len(result.rows) - refused} of {len(result.rows)} rows measured" + (
        f", {refused} REFUSED" if refused else ""
    )


def _refusal_cell(refusal: Refusal) -> str:
    return f"REFUSED: {plain(refusal.code)}"


def _or_tbd(text: str | None) -> str:
    return plain(text) if text and text.strip() else TBD


def _tables(series: Sequence[Series]) -> Iterable[Table]:
    """One of each workload with a column per load; of several series one of each workload and load, with a column per
    series, so that what is to be compared stands side by side."""
    cells = list(dict.fromkeys((row.workload, row.load) for s in series for row in s.rows))
    if len(series) == 1:
        (only,) = series
        for workload in dict.fromkeys(workload for workload, _ in cells):
            loads = [load for w, load in cells if w == workload]
            yield _table(plain(workload), [(plain(load), only, only.row(workload, load)) for load in loads])
        return
    for workload in dict.fromkeys(workload for workload, _ in cells):
        for load in (load for w, load in cells if w == workload):
            yield _table(f"{plain(workload)}, {plain(load)}", [(s.name, s, s.row(workload, load)) for s in series])


def _table(title: str, columns: Sequence[tuple[str, Series, Row | None]]) -> Table:
    has_objectives = any(s.result.order.objectives is not None for _, s, _ in columns)
    lines = [_lines(s, row, has_objectives=has_objectives) for _, s, row in columns]
    return Table(
        title=title,
        heads=("", *(name for name, _, _ in columns)),
        rows=tuple((name, *(cells[i][1] for cells in lines)) for i, (name, _) in enumerate(lines[0])),
    )


def _lines(series: Series, row: Row | None, *, has_objectives: bool) -> list[tuple[str, str]]:
    refusal = None if row is None else series.refusal_of(row)
    lines = [("result", "not asked" if row is None else "measured" if refusal is None else _refusal_cell(refusal))]
    lines.append(("samples", TBD if row is None else str(row.samples)))
    lines.append(("errors", TBD if row is None else str(row.errors)))
    row = row if refusal is None else None
    for key, name in LATENCIES:
        latency: Latency | None = getattr(row, key, None)
        for percentile in PERCENTILES:
            lines.append((f"{name} {percentile} (ms)", interval_text(getattr(latency, percentile, None))))
        lines.append((f"{name} mean (ms)", decimal(getattr(latency, "mean", None))))
    lines.append(("requests/s", interval_text(row.requests_per_second if row else None)))
    lines.append(("output tokens/s", interval_text(row.output_tokens_per_second if row else None)))
    if has_objectives:
        lines.append(("goodput (requests/s)", interval_text(row.goodput_per_second if row else None)))
        lines.append(("objectives held", _yes_no(row.holds_objectives if row else None)))
    lines.append(("prompt tokens (mean)", decimal(row.prompt_tokens if row else None)))
    lines.append(("output tokens (mean)", decimal(row.output_tokens if row else None)))
    lines.append(("scatter (%)", decimal(row.scatter_percent if row else None)))
    lines.append(("KV cache in use, highest (%)", decimal(row.kv_use_percent if row else None)))
    lines.append(("peak memory (GB)", decimal(row.peak_memory_gb if row else None)))
    lines.append(("CPU of the load generator (%)", decimal(row.client_cpu_percent if row else None)))
    return lines


def _yes_no(value: bool | None) -> str:
    return TBD if value is None else "yes" if value else "NO"


# CSV


def csv_text(results: Sequence[Result]) -> str:
    """One line per row of each result, under `CSV_COLUMNS`.

    ttft_ms is the median, tok_per_s are output tokens per second. Of a result that was refused as a whole and has no rows
    there is one line per target, so that a refusal is never just absent.
    """
    report = make_report(results)
    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for series in report.series:
        for row in series.rows or (None,):
            if row is None and series.result.refusal is None:
                continue
            writer.writerow([_spreadsheet_cell(cell) for cell in _csv_cells(series, row, len(report.series))])
    return out.getvalue()


def _csv_cells(series: Series, row: Row | None, count: int) -> list[str]:
    facts = series.target.facts
    refusal = series.result.refusal if row is None else series.refusal_of(row)
    numbers = row if refusal is None else None
    ttft = numbers.ttft.p50 if numbers is not None and numbers.ttft is not None else None
    rate = numbers.output_tokens_per_second if numbers is not None else None
    notes = []
    if row is not None:
        notes.append(f"workload {row.workload}")
        if row.concurrency is None:
            notes.append(f"load {row.load}")
    if count > 1:
        notes.append(f"target {series.name}")
    if refusal is not None:
        notes.append(f"REFUSED: {refusal.code}: {refusal.message}")
    if series.result.notes:
        notes.append(series.result.notes)
    return [
        _or_tbd(facts.engine),
        _or_tbd(facts.version),
        _or_tbd(series.target.model),
        _or_tbd(facts.quantization),
        _or_tbd(facts.hardware),
        TBD if row is None or row.concurrency is None else str(row.concurrency),
        _csv_number(numbers.prompt_tokens if numbers else None),
        _csv_number(numbers.output_tokens if numbers else None),
        _csv_number(ttft.value if ttft else None),
        _csv_number(rate.value if rate else None),
        _csv_number(numbers.peak_memory_gb if numbers else None),
        plain("; ".join(notes)),
    ]


def _csv_number(value: float | None) -> str:
    """Three digits behind the point, as far as they say something."""
    return TBD if value is None else f"{value:.3f}".rstrip("0").rstrip(".")


#: What makes a formula of a cell, in spreadsheets, and is no number. Source: OWASP, "CSV Injection"; the wide forms count in some. Where
#: a semicolon or a tab separates cells, another one begins there, whatever quotes are around ours; its blanks and quotes may go.
_FORMULA: Final = re.compile(
    r"""(?P<start>(?:^|[;\t])[ "]*)(?=[=+\-@＝＋－＠])(?![-+]?[0-9]+(?:\.[0-9]+)?[ "]*(?:[;\t]|$))"""
)


def _spreadsheet_cell(cell: str) -> str:
    """A cell of which no spreadsheet takes any part for a formula."""
    return _FORMULA.sub(r"\g<start>'", cell)


# Markdown


def markdown(results: Sequence[Result], plots: Sequence[tuple[str, str, str]] = ()) -> str:
    """The whole report as Markdown with tables, as GitHub reads it.

    Args:
        results: As in `make_report`.
        plots: Title, caption and file of each, the file as seen from where the Markdown is.
    """
    report = make_report(results)
    parts = ["# Benchmark report", _markdown_table(report.runs)]
    if report.remark:
        parts.append(report.remark)
    if report.notes:
        parts.append("\n".join(f"- Notes on {_escaped(run)}: {_escaped(text)}" for run, text in report.notes))
    if report.refused:
        parts.append("## Refused")
        parts.append("\n".join(f"- **{_escaped(r.where)}: {r.word}, {_escaped(r.refusal.code)}**. {_escaped(r.refusal.message)}" for r in report.refused))  # fmt: skip
    for comparison in report.comparisons:
        parts.append(f"## Comparison: {_escaped(comparison.run)}")
        if comparison.winners:
            parts.append("\n".join(f"- {_escaped(workload)}: **{_escaped(winner)}**: {_escaped(message)}" for workload, winner, message in comparison.winners))  # fmt: skip
        if comparison.table.rows:
            parts.append(_markdown_table(comparison.table))
    if plots:
        parts.append("## Plots")
    for title, caption, file in plots:
        parts += [f"![{_escaped(plain(title))}]({quote(file)})", _escaped(plain(caption))]
    if report.tables:
        parts.append("## Results")
    for table in report.tables:
        parts += [f"### {_escaped(table.title)}", _markdown_table(table)]
    parts += ["## Words", "\n".join(f"- **{_escaped(word)}**: {_escaped(text)}" for word, text in DEFINITIONS)]
    return "\n\n".join(parts) + "\n"


def _markdown_table(table: Table) -> str:
    lines = [table.heads, tuple("---" if i == 0 else "---:" for i in range(len(table.heads))), *table.rows]
    head, rule, *rows = lines
    written = [_markdown_line(map(_escaped, head)), _markdown_line(rule)]
    written += [_markdown_line(_bold_refusal(cell) for cell in row) for row in rows]
    return "\n".join(written)


def _markdown_line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _bold_refusal(cell: str) -> str:
    return f"**{_escaped(cell)}**" if "REFUSED" in cell else _escaped(cell)


#: What means something inside a line of Markdown. An underscore inside a word means nothing.
_MARKS: Final = re.compile(r"[\\`*\[\]<|~]|(?<![^\W_])_|_(?![^\W_])")


def _escaped(text: str) -> str:
    return _MARKS.sub(lambda found: f"\\{found[0]}", text.replace("&", "&amp;"))
