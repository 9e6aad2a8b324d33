"""docs/dashboard.md: each query of the dashboard, and what a real cluster told."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "dashboard.md"
_MARK: Final = "<!-- what was told: written by tests/e2e/test_monitoring.py -->\n"
#: Series of one query that are shown.
_SERIES: Final = 4


def write(told: Sequence[tuple[str, str, Sequence[Any]]], *, is_untold: Callable[[str], bool]) -> None:
    """Write the table anew below the mark.

    Args:
        told: Title of a panel, query and samples, in the dashboard's order.
        is_untold: Whether a query has no answer in that cluster.
    """
    before, mark, _ = DOCUMENT.read_text("utf-8").partition(_MARK)
    assert mark, f"{DOCUMENT} has no mark"
    rows = ["| panel | query | told |", "| --- | --- | --- |"]
    for title, query, samples in told:
        ranked = sorted(samples, key=lambda s: (-float(s["value"][1]), _sample(s)))
        shown = "<br>".join(_sample(s) for s in ranked[:_SERIES])
        more = f"<br>and {len(samples) - _SERIES} more" if len(samples) > _SERIES else ""
        answer = shown + more if samples else ("nothing: see above" if is_untold(query) else "nothing")
        rows.append(f"| {title} | {cell(query)} | {answer} |")
    DOCUMENT.write_text(before + mark + "\n" + "\n".join(rows) + "\n", "utf-8")


def cell(query: str) -> str:
    """A query as it stands in the table."""
    return "`" + query.replace("|", "\\|") + "`"


def _sample(sample: Any) -> str:
    labels = ", ".join(
        v for k, v in sorted(sample["metric"].items()) if k not in ("__name__", "namespace", "job", "instance")
    )
    return f"{labels or 'all'}: {float(sample['value'][1]):.4g}"
