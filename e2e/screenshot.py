"""`python -m e2e.screenshot RESULT... PICTURE`: the page that `draftmark report --html` makes, as a PNG.

The picture in docs/ comes from here, from results that were measured. `kubectl get configmap NAME-result
-o jsonpath={.data.result}` prints one.
"""

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Final

from draftmark.cli.report_page import page
from draftmark.cli.results import from_file
from draftmark.measure.report import make_report
from e2e.browser import browser

_WIDTH: Final = 1200


async def take(page_file: Path) -> bytes:
    """The picture of a page.

    Raises:
        RuntimeError: The browser complains about the page.
    """
    async with browser() as tab:
        seen = await tab.open(page_file, width=_WIDTH)
        if seen.complaints:
            raise RuntimeError(f"the page is not as it should be: {'; '.join(seen.complaints)}")
        return await tab.screenshot()


def main(results: list[str], picture: Path) -> None:
    """Draw the page of some results, and take its picture."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "report.html"
        file.write_text(page(make_report([from_file(name) for name in results])), "utf-8")
        picture.write_bytes(asyncio.run(take(file)))


if __name__ == "__main__":
    *results, picture = sys.argv[1:] or [""]
    if not results:
        sys.exit("usage: python -m e2e.screenshot RESULT... PICTURE.png")
    main(results, Path(picture))
