"""The golden files of reports, and what is written to them."""

from collections.abc import Iterator
from pathlib import Path

from draftmark.measure.report import csv_text, markdown
from tests.measure.results import CASES

FOLDER = Path(__file__).parent / "golden_report"


def report_files() -> Iterator[tuple[Path, str]]:
    for name, results in CASES.items():
        yield FOLDER / f"{name}.md", markdown(results)
        yield FOLDER / f"{name}.csv", csv_text(results)
