"""`draftmark report`: what Benchmarks measured, as Markdown, as CSV, or as a page with plots."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from draftmark.cli.endings import fail
from draftmark.cli.on_cluster import perhaps_on_cluster

if TYPE_CHECKING:
    from draftmark.cli.connection import Cluster
    from draftmark.measure.report import Report
    from draftmark.measure.result import Result


@click.command()
@click.argument("benchmarks", nargs=-1, metavar="[NAME]...")
@click.option("-f", "--filename", "files", multiple=True, help="Result as JSON, or - for stdin; may be repeated.")
@click.option("--csv", "as_csv", is_flag=True, help="CSV instead of Markdown.")
@click.option("--html", "page", metavar="FILE", help="Write a page with plots, or - for stdout.")
@click.option(
    "--markdown", "text_file", metavar="FILE", help="Write Markdown with plots, which are SVG files beside it."
)
@perhaps_on_cluster
def report(
    open_cluster: "Callable[[], Cluster]",
    benchmarks: tuple[str, ...],
    *,
    files: tuple[str, ...],
    as_csv: bool,
    page: str | None,
    text_file: str | None,
) -> None:
    """Show what Benchmarks measured, several side by side.

    NAME is a Benchmark of the cluster that has ended. What was not measured reads TBD, and refusals stand where their numbers would.
    """
    from draftmark.cli.results import from_cluster, from_file  # the API types are slow to import
    from draftmark.measure.report import csv_text, make_report, markdown

    if not benchmarks and not files:
        raise click.UsageError("Name Benchmarks of the cluster, or give results with --filename.")
    if as_csv and page == "-":
        raise click.UsageError("--csv and --html - would both be written to stdout.")
    if text_file == "-":
        raise click.UsageError(
            "--markdown puts its plots beside its file, and stdout has no place for them. Name a file; Markdown without "
            "plots is what is written to stdout without --markdown."
        )
    if text_file is not None and _names_no_file(text_file):
        raise click.UsageError(
            f"--markdown {text_file!r} names no file: write one, such as report.md or out/report.md."
        )
    if page is not None or text_file is not None:
        _need_plots()
    results = []
    if benchmarks:
        cluster = open_cluster()
        results += [from_cluster(cluster, name) for name in benchmarks]
    results += [from_file(name) for name in files]
    if as_csv:
        click.echo(csv_text(results), nl=False)
    made = make_report(results)
    if text_file is not None:
        _write_with_plots(text_file, made, results)
    if page is not None:
        from draftmark.cli.report_page import page as page_of

        _write("--html", page, page_of(made))
    elif not as_csv and text_file is None:
        click.echo(markdown(results), nl=False)


def _names_no_file(path: str) -> bool:
    """Whether a path is, or is written like, that of a folder. The plots would be written beside it before that is found out."""
    try:
        return Path(path).name in ("", "..") or path.endswith("/") or Path(path).is_dir()
    except OSError:
        return False  # whoever writes it says why it cannot be


def _need_plots() -> None:
    """Fail where the one thing is missing that needs a library of its own."""
    try:
        import draftmark.cli.report_plots  # noqa: F401
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("draftmark"):
            raise
        fail(
            f"Plots are drawn with matplotlib, and {error.name} is not installed. Install it from a checkout: pip install "
            '".[report]", or make setup, which has it. Markdown on stdout and --csv do without.'
        )


def _write_with_plots(file: str, report: "Report", results: "Sequence[Result]") -> None:
    """The plots first: what is written never shows one that is not there."""
    from draftmark.cli.report_plots import alone, plots
    from draftmark.measure.report import markdown

    beside = []
    for number, plot in enumerate(plots(report), 1):
        drawn = Path(file).with_name(f"{Path(file).stem}-{number}.svg")
        _write("--markdown", str(drawn), alone(plot))
        beside.append((plot.title, plot.caption, drawn.name))
    _write("--markdown", file, markdown(results, beside))


def _write(option: str, file: str, text: str) -> None:
    if file == "-":
        click.echo(text, nl=False)
        return
    try:
        Path(file).write_text(text, "utf-8")
    except OSError as error:
        fail(f"{option} {file}: {error.strerror}. Name a file that can be written.")
    click.echo(f"wrote {file}", err=True)
