"""`draftmark report`: what Benchmarks measured, as Markdown, as CSV, or as a page with plots."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from draftmark.cli.endings import fail
from draftmark.cli.on_cluster import perhaps_on_cluster

if TYPE_CHECKING:
    from draftmark.cli.connection import Cluster
    from draftmark.measure.report import Report


@click.command()
@click.argument("benchmarks", nargs=-1, metavar="[NAME]...")
@click.option("-f", "--filename", "files", multiple=True, help="Result as JSON, or - for stdin; may be repeated.")
@click.option("--csv", "as_csv", is_flag=True, help="CSV instead of Markdown.")
@click.option("--html", "page", metavar="FILE", help="Write a page with plots, or - for stdout.")
@perhaps_on_cluster
def report(
    open_cluster: "Callable[[], Cluster]",
    benchmarks: tuple[str, ...],
    *,
    files: tuple[str, ...],
    as_csv: bool,
    page: str | None,
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
    draw = _drawing() if page is not None else None
    results = []
    if benchmarks:
        cluster = open_cluster()
        results += [from_cluster(cluster, name) for name in benchmarks]
    results += [from_file(name) for name in files]
    if as_csv:
        click.echo(csv_text(results), nl=False)
    if draw is not None and page is not None:
        _write(page, draw(make_report(results)))
    elif not as_csv:
        click.echo(markdown(results), nl=False)


def _drawing() -> "Callable[[Report], str]":
    """What makes the page; the one thing that needs a library of its own."""
    try:
        from draftmark.cli.report_page import page
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("draftmark"):
            raise
        fail(
            f"--html draws its plots with matplotlib, and {error.name} is not installed. Install it with: pip install "
            "'draftmark[report]'. Markdown and --csv do without."
        )
    return page


def _write(file: str, text: str) -> None:
    if file == "-":
        click.echo(text, nl=False)
        return
    try:
        Path(file).write_text(text, "utf-8")
    except OSError as error:
        fail(f"--html {file}: {error.strerror}. Name a file that can be written.")
    click.echo(f"wrote {file}", err=True)
