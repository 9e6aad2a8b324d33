"""The HTML page of a report: one file that fetches nothing and runs nothing.

Every text is escaped by the template's environment; only the drawings are markup already. A Content-Security-Policy in the
page forbids scripts and requests as well.
"""

from dataclasses import replace
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from draftmark.cli.report_plots import COLOURS, SERIES_COLOURS, plots
from draftmark.measure.report import DEFINITIONS, Report
from draftmark.render.templates import read_text

__all__ = ["page"]


def page(report: Report) -> str:
    """The page, the same for the same report."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    drawn: list[Any] = [replace(plot, svg=Markup(plot.svg)) for plot in plots(report)]
    runs = list(dict.fromkeys(s.name for s in report.series))
    return environment.from_string(read_text("report/page.html.j2")).render(
        title="Benchmark report" + (f": {runs[0]}" if len(runs) == 1 else ""),
        colours=COLOURS,
        series_colours=SERIES_COLOURS,
        runs=report.runs,
        remark=report.remark,
        notes=report.notes,
        refused=report.refused,
        comparisons=report.comparisons,
        plots=drawn,
        tables=report.tables,
        definitions=DEFINITIONS,
    )
