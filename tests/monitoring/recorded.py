"""docs/dashboard.md: each query of the dashboard, and what a real cluster told."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "dashboard.md"
_BEGIN: Final = "<!-- told by {}: written by the tests that record it -->\n"
_END: Final = "<!-- until here -->\n"
#: Series of one query that are shown, those with the largest values.
_SERIES: Final = 4


def write(engine: str, told: Sequence[tuple[str, str, Sequence[Any]]]) -> None:
    """Write the table of an engine anew.

    Args:
        engine: What is asked.
        told: Title of a panel, query and samples, in the dashboard's order.
    """
    before, begin, after = _table(engine)
    rows = ["| panel | query | told |", "| --- | --- | --- |"]
    for title, query, samples in told:
        ranked = sorted(samples, key=lambda s: (-float(s["value"][1]), _sample(s)))
        shown = "<br>".join(_sample(s) for s in ranked[:_SERIES])
        more = f"<br>and {len(samples) - _SERIES} more" if len(samples) > _SERIES else ""
        rows.append(f"| {title} | {cell(query)} | {shown + more if samples else 'nothing: see above'} |")
    DOCUMENT.write_text(before + begin + "\n" + "\n".join(rows) + "\n\n" + _END + after, "utf-8")


def rows_of(engine: str) -> list[str]:
    """The rows that were written for an engine."""
    text = DOCUMENT.read_text("utf-8").partition(_BEGIN.format(engine))[2].partition(_END)[0]
    return [line for line in text.splitlines() if line.startswith("| ")][2:]


def _table(engine: str) -> tuple[str, str, str]:
    """What stands before, begins and stands behind the table of an engine."""
    before, begin, rest = DOCUMENT.read_text("utf-8").partition(_BEGIN.format(engine))
    _, end, after = rest.partition(_END)
    assert begin, f"{DOCUMENT} has no place for {engine}"
    assert end, f"{DOCUMENT} has no end for {engine}"
    return before, begin, after


def cell(query: str) -> str:
    """A query as it stands in the table."""
    return "`" + query.replace("|", "\\|") + "`"


def _sample(sample: Any) -> str:
    labels = ", ".join(
        v for k, v in sorted(sample["metric"].items()) if k not in ("__name__", "namespace", "job", "instance")
    )
    return f"{labels or 'all'}: {float(sample['value'][1]):.4g}"
