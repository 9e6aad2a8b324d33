"""The plots of a report: SVG that stands in the page, or beside Markdown.

matplotlib draws them, and nothing else imports it. Its colours are replaced by variables of the page's style, which has
light and dark ones, and its ids get a prefix, because several drawings share one page. Series differ by colour, mark and
dash, so that no colour has to be told from another. Text stays text: it is escaped by matplotlib, can be searched, and is
never read as a formula.
"""

import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any, Final
from xml.sax.saxutils import escape

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from draftmark.measure.report import (
    PERCENTILES,
    Comparison,
    LatencyName,
    Percentile,
    Report,
    Series,
    plain,
)
from draftmark.measure.result import METRIC_NAMES, Difference, Interval, Row

__all__ = ["COLOURS", "SERIES_COLOURS", "Plot", "alone", "plots"]

#: Light and dark colour of what is no series.
COLOURS: Final = {
    "ink": ("#1b1b1b", "#ececec"),
    "paper": ("#ffffff", "#161616"),
    "grid": ("#d9d9d9", "#3a3a3a"),
    "band": ("#e8e8e8", "#2e2e2e"),
}

#: Light and dark colour of each series. Okabe and Ito's palette, whose colours differ for all kinds of colour blindness, without its yellow, which is too pale on white; the dark ones are the same hues, lighter. Source: "Color Universal
#: Design", 2008.
SERIES_COLOURS: Final = (
    ("#0072b2", "#56b4e9"),
    ("#d55e00", "#ff9a4d"),
    ("#009e73", "#3ddbb0"),
    ("#aa4488", "#e59cc9"),
    ("#8a6500", "#f0c040"),
    ("#555555", "#bbbbbb"),
)
_MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X", "*")
_DASHES: Final = ("-", "--", "-.", ":")
_MARKER_SIZE: Final = 4.5
#: What matplotlib is told to draw in, and what the page's style makes of it.
_INK: Final = "#010203"
_GRID: Final = "#010204"
_BAND: Final = "#010205"
_STYLE: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "legend.frameon": False,
    "figure.constrained_layout.w_pad": 0.1,
}
_METRICS: Final[tuple[tuple[LatencyName, str], ...]] = (("ttft", "TTFT"), ("itl", "ITL"), ("e2e", "E2E"))
_VERDICT_MARKS: Final = {"Better": ("^", 2), "Worse": ("v", 1), "Equal": ("s", 0), "Inconclusive": ("o", 5)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """A drawing, and the same in words."""

    title: str
    caption: str
    """What is drawn, for those who see it and those who do not."""
    svg: str
    """An element `svg` with role and label."""


@dataclass(frozen=True, slots=True)
class _Line:
    """Points of one series, each with the bounds of its interval."""

    style: int
    name: str
    points: list[tuple[Interval, Interval]]


def plots(report: Report) -> list[Plot]:
    """Of each workload latency against throughput, latency and throughput against the load, and of each comparison its
    differences. What has no numbers has no plot: its refusal stands above."""
    found: list[Plot] = []
    for workload in report.workloads:
        for unit, rows_of in _loads(report, workload):
            found += _latency_against_throughput(report, workload, unit, rows_of, len(found))
            found += _latency_against_load(report, workload, unit, rows_of, len(found))
            found += _throughput_against_load(report, workload, unit, rows_of, len(found))
    for comparison in report.comparisons:
        for workload in dict.fromkeys(plain(d.workload) for d in comparison.differences):
            chosen = [d for d in comparison.differences if plain(d.workload) == workload]
            found.append(_differences(comparison, workload, chosen, len(found)))
    return found


def alone(plot: Plot) -> str:
    """A drawing as a file of its own, in light colours on a paper that it brings: what shows it may be dark, and an image
    is not told."""
    text = plot.svg
    for name, (light, _) in COLOURS.items():
        text = text.replace(f"var(--{name})", light)
    for i, (light, _) in enumerate(SERIES_COLOURS):
        text = text.replace(f"var(--series-{i})", light)
    start = text.index(">") + 1
    label = re.search(r'aria-labelledby="([^"]+)"', text[:start])
    assert label is not None, "each drawing has one"
    paper = f'<rect width="100%" height="100%" fill="{COLOURS["paper"][0]}"/>'
    return f'{text[:start]}<title id="{label[1]}">{escape(plain(plot.caption))}</title>{paper}{text[start:]}'


_RowsOf = Callable[[Series], list[Row]]


def _loads(report: Report, workload: str) -> Iterable[tuple[str, _RowsOf]]:
    """The kinds of load that a workload was measured under: they share no axis."""
    kinds: tuple[tuple[str, Callable[[Row], bool]], ...] = (
        ("concurrency (requests)", lambda row: row.concurrency is not None),
        ("request rate (requests/s)", lambda row: row.concurrency is None),
    )
    for unit, is_kind in kinds:

        def rows_of(series: Series, is_kind: Callable[[Row], bool] = is_kind) -> list[Row]:
            rows = [r for r in series.rows if plain(r.workload) == workload and is_kind(r)]
            return sorted((r for r in rows if series.refusal_of(r) is None), key=_load)

        if any(rows_of(series) for series in report.series):
            yield unit, rows_of


def _load(row: Row) -> float:
    return float(row.concurrency if row.concurrency is not None else row.request_rate or 0)


def _latency(row: Row, metric: LatencyName, percentile: Percentile) -> Interval | None:
    latency = getattr(row, metric)
    found: Interval | None = getattr(latency, percentile) if latency is not None else None
    return found


def _lines(
    report: Report, rows_of: _RowsOf, x: Callable[[Row], Interval | None], y: Callable[[Row], Interval | None]
) -> list[_Line]:
    lines = []
    for style, series in enumerate(report.series):
        found = [(x(row), y(row)) for row in rows_of(series)]
        points = [(a, b) for a, b in found if a is not None and b is not None]
        if points:
            lines.append(_Line(style, series.name, points))
    return lines


def _latency_against_throughput(
    report: Report, workload: str, unit: str, rows_of: _RowsOf, number: int
) -> Iterable[Plot]:
    def panel(metric: LatencyName, percentile: Percentile) -> list[_Line]:
        return _lines(report, rows_of, lambda r: r.output_tokens_per_second, lambda r: _latency(r, metric, percentile))

    yield from _grid(
        f"{workload}: latency against throughput",
        "Each point is one load, each line one run, with the loads in rising order.",
        panel,
        "output tokens/s",
        None,
        number,
    )


def _latency_against_load(report: Report, workload: str, unit: str, rows_of: _RowsOf, number: int) -> Iterable[Plot]:
    def panel(metric: LatencyName, percentile: Percentile) -> list[_Line]:
        return _lines(report, rows_of, _load_point, lambda r: _latency(r, metric, percentile))

    what = f"{workload}: latency against {unit.partition(' (')[0]}"
    yield from _grid(what, "Each line is one run.", panel, unit, _load_ticks(report, rows_of), number)


def _load_point(row: Row) -> Interval:
    return Interval(value=_load(row))


def _load_ticks(report: Report, rows_of: _RowsOf) -> list[float]:
    return sorted({_load(row) for series in report.series for row in rows_of(series)})


def _throughput_against_load(report: Report, workload: str, unit: str, rows_of: _RowsOf, number: int) -> Iterable[Plot]:
    panels: tuple[tuple[str, Callable[[Row], Interval | None]], ...] = (
        ("output tokens/s", lambda r: r.output_tokens_per_second),
        ("requests/s", lambda r: r.requests_per_second),
        ("goodput (requests/s)", lambda r: r.goodput_per_second),
    )
    drawn = [(name, lines) for name, of in panels if (lines := _lines(report, rows_of, _load_point, of))]
    if not drawn:
        return
    title = f"{workload}: throughput against {unit.partition(' (')[0]}"
    caption = f"{title}. Panels: {', '.join(name for name, _ in drawn)}. Each line is one run. {_BARS}"
    with rc_context(_STYLE):
        figure = Figure(figsize=(3.3 * len(drawn), 2.6), layout="constrained")
        axes = figure.subplots(1, len(drawn), squeeze=False)[0]
        for ax, (name, lines) in zip(axes, drawn, strict=True):
            _draw(ax, lines, _load_ticks(report, rows_of))
            ax.set(xlabel=unit, ylabel=name)
        _add_legend(figure, (lines for _, lines in drawn))
        yield Plot(title=title, caption=caption, svg=_svg(figure, caption, number))


_BARS: Final = "Bars are 95 % confidence intervals. The tables have the same numbers."


def _grid(
    title: str,
    words: str,
    panel: Callable[[LatencyName, Percentile], list[_Line]],
    x_label: str,
    ticks: list[float] | None,
    number: int,
) -> Iterable[Plot]:
    """A row per percentile and a column per latency; a percentile that nothing has enough samples for has no row."""
    cells = {(m, p): panel(m, p) for m, _ in _METRICS for p in PERCENTILES}
    shown = [p for p in PERCENTILES if any(cells[m, p] for m, _ in _METRICS)]
    metrics = [(m, name) for m, name in _METRICS if any(cells[m, p] for p in shown)]
    if not shown:
        return
    absent = [p for p in PERCENTILES if p not in shown]
    caption = f"{title}. Columns: {', '.join(name for _, name in metrics)}. Rows: {', '.join(shown)}. {words} {_BARS}"
    if absent:
        caption += f" Too few samples for {' and '.join(absent)}."
    with rc_context(_STYLE):
        figure = Figure(figsize=(3.3 * len(metrics), 2.2 * len(shown) + 0.4), layout="constrained")
        axes = figure.subplots(len(shown), len(metrics), squeeze=False)
        for row, percentile in zip(axes, shown, strict=True):
            for ax, (metric, name) in zip(row, metrics, strict=True):
                _draw(ax, cells[metric, percentile], ticks)
                ax.set(xlabel=x_label, ylabel=f"{name} {percentile} (ms)")
                if not cells[metric, percentile]:
                    ax.set(xticks=[], yticks=[])
                    ax.text(0.5, 0.5, "TBD: too few samples", transform=ax.transAxes, ha="center")
        _add_legend(figure, cells.values())
        yield Plot(title=title, caption=caption, svg=_svg(figure, caption, number))


def _draw(ax: Axes, lines: Sequence[_Line], ticks: list[float] | None) -> None:
    for line in lines:
        x, y = ([point[i].value for point in line.points] for i in (0, 1))
        ax.errorbar(
            x,
            y,
            xerr=_bars(point[0] for point in line.points),
            yerr=_bars(point[1] for point in line.points),
            markersize=_MARKER_SIZE,
            **_look(line.style),
            linewidth=1.4,
            elinewidth=1.0,
            capsize=2.5,
        )
    # From zero: a cut axis makes small differences large.
    highest = max((max(y.value, y.high or 0) for line in lines for _, y in line.points), default=0)
    ax.set_ylim(0, 1.1 * highest if highest > 0 else 1)
    if ticks is None:
        ax.set_xlim(left=0)
        return
    if len(ticks) > 1 and ticks[-1] >= 8 * ticks[0] > 0:
        ax.set_xscale("log", base=2)
        ax.minorticks_off()
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])


def _bars(values: Iterable[Interval]) -> list[list[float]]:
    """How far intervals reach below and above; nothing where there are none."""
    bounds = [(v.value if v.low is None else v.low, v.value, v.value if v.high is None else v.high) for v in values]
    return [[max(v - low, 0.0) for low, v, _ in bounds], [max(high - v, 0.0) for _, v, high in bounds]]


def _add_legend(figure: Figure, panels: Iterable[Sequence[_Line]]) -> None:
    """One for all panels; none for one line, which the caption names."""
    names = {line.style: line.name for lines in panels for line in lines}
    if len(names) < 2:
        return
    handles = [Line2D([], [], markersize=_MARKER_SIZE, **_look(style)) for style in sorted(names)]
    # A label that begins with an underscore is left out of a legend.
    labels = [names[style].lstrip("_") for style in sorted(names)]
    figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 3))


def _differences(comparison: Comparison, workload: str, differences: Sequence[Difference], number: int) -> Plot:
    """A row per load and metric; the band is what makes no difference."""
    band = comparison.equal_within_percent
    title = f"{workload}: {comparison.compared} against {comparison.target}"
    caption = (
        f"{title}: difference in percent, with the interval that holds for all metrics and loads together. The band is "
        f"±{band:g} %, which makes no difference. Marks: triangle up is better, down worse, square equal, circle "
        "inconclusive. The table has the same numbers."
    )
    with rc_context(_STYLE):
        figure = Figure(figsize=(7.5, 1.0 + 0.26 * len(differences)), layout="constrained")
        ax = figure.subplots()
        ax.axvspan(-band, band, color=_BAND, linewidth=0)
        ax.axvline(0, color=_INK, linewidth=0.8)
        for place, d in enumerate(differences):
            marker, style = _VERDICT_MARKS[d.verdict]
            bars = _bars([Interval(value=d.percent, low=d.low_percent, high=d.high_percent)])
            ax.errorbar([d.percent], [place], xerr=bars, marker=marker, color=_colour(style), markersize=6, capsize=2.5)
        names = [f"{plain(d.load)}, {METRIC_NAMES[d.metric]}: {d.verdict.lower()}" for d in differences]
        ax.set_yticks(range(len(names)), names)
        ax.invert_yaxis()
        ax.set_xlabel(f"difference of {comparison.compared} from {comparison.target} (%)")
        return Plot(title=title, caption=caption, svg=_svg(figure, caption, number))


def _look(style: int) -> dict[str, Any]:
    """Colour, mark and dash of a series."""
    dash = _DASHES[style // len(SERIES_COLOURS) % len(_DASHES)]
    return {"color": _colour(style), "marker": _MARKERS[style % len(_MARKERS)], "linestyle": dash}


def _colour(style: int) -> str:
    return SERIES_COLOURS[style % len(SERIES_COLOURS)][0]


def _svg(figure: Figure, label: str, number: int) -> str:
    """The drawing as an element of the page."""
    canvas, out = FigureCanvasSVG(figure), StringIO()
    with rc_context({"svg.hashsalt": "draftmark"}), warnings.catch_warnings():
        # Text stays text, so what matplotlib's own font lacks is the reader's font's matter.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        # savefig would draw twice.
        canvas.print_svg(out, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))  # type: ignore[no-untyped-call]
    text = out.getvalue()
    # matplotlib repeats texts in comments.
    text = re.sub(r"<!--.*?-->", "", text[text.index("<svg") :], flags=re.DOTALL)
    for name, colour in ((_INK, "ink"), (_GRID, "grid"), (_BAND, "band")):
        text = text.replace(name, f"var(--{colour})")
    for i, (light, _) in enumerate(SERIES_COLOURS):
        text = text.replace(light, f"var(--series-{i})")
    text = re.sub(r'\bid="', f'id="plot{number}-', text)
    text = text.replace("url(#", f"url(#plot{number}-").replace('href="#', f'href="#plot{number}-')
    return text.replace("<svg ", f'<svg role="img" aria-labelledby="plot{number}-caption" ', 1)
