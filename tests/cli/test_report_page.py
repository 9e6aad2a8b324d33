"""The page in a real Chromium, and as text. The browser needs a Debian package, so its test is no unit test."""

import re
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from draftmark.cli.report_page import page
from draftmark.cli.report_plots import alone, plots
from draftmark.measure.report import make_report, plain
from draftmark.measure.result import Result
from e2e.browser import browser
from tests.measure.results import comparison, failed, hostile, one_run, result, row

#: How many drawings have marks on them, how many texts they hold, and whether anything sticks out of its drawing.
_DRAWINGS = """
[...document.querySelectorAll('figure svg')].map(svg => ({
  label: document.getElementById(svg.getAttribute('aria-labelledby'))?.textContent ?? '',
  marks: svg.querySelectorAll('use, path').length,
  texts: [...svg.querySelectorAll('text')].map(t => t.textContent),
  width: svg.getBoundingClientRect().width,
  height: svg.getBoundingClientRect().height,
}))
"""
_COLOURS = """
(() => {
  const line = document.querySelector('figure svg [style*="--series-0"]');
  return [getComputedStyle(document.body).backgroundColor, getComputedStyle(line).stroke];
})()
"""


@cache
def html(*results: Result) -> str:
    """Drawing takes a second of processor time."""
    return page(make_report(results))


@pytest.mark.integration
async def test_a_browser_shows_the_page_and_asks_for_nothing(tmp_path: Path) -> None:
    """One browser for all of it: it takes seconds to start."""
    file = tmp_path / "report.html"
    async with browser() as tab:
        for document in (one_run(), comparison(), failed(), hostile()):
            name = document.benchmark
            file.write_text(html(document), "utf-8")
            seen = await tab.open(file)
            assert seen.complaints == (), name
            assert seen.requests == (file.as_uri(),), name
            assert await tab.evaluate("document.querySelectorAll('script, img, iframe, link, object').length") == 0, (
                name
            )
            # Nothing of a result has become an attribute that runs.
            assert await tab.evaluate(
                "[...document.querySelectorAll('*')].every(e => e.getAttributeNames().every(n => !n.startsWith('on')))"
            )
            drawings = await tab.evaluate(_DRAWINGS)
            assert bool(drawings) is (document != failed())
            for drawing in drawings:
                assert drawing["label"]
                assert drawing["marks"] > 10
                assert drawing["width"] > 200
                assert drawing["height"] > 100
                assert any("(ms)" in t or "/s" in t or "(%)" in t for t in drawing["texts"]), "an axis has its unit"
        file.write_text(html(one_run()), "utf-8")
        colours = []
        for scheme in ("light", "dark"):
            seen = await tab.open(file, scheme=scheme)
            assert seen.complaints == ()
            colours.append(await tab.evaluate(_COLOURS))
        assert colours == [["rgb(255, 255, 255)", "rgb(0, 114, 178)"], ["rgb(22, 22, 22)", "rgb(86, 180, 233)"]]
        assert (await tab.screenshot()).startswith(b"\x89PNG")
        # Drawings that stand beside Markdown, as those that show it do: by themselves, and as images.
        drawing, shown = tmp_path / "drawing.svg", tmp_path / "shown.html"
        shown.write_text('<body style="background: black"><img src="drawing.svg">', "utf-8")
        for plot in plots(make_report([hostile()])):
            drawing.write_text(alone(plot), "utf-8")
            seen = await tab.open(drawing, scheme="dark")
            assert (seen.complaints, seen.requests) == ((), (drawing.as_uri(),))
            paper = "getComputedStyle(document.querySelector('svg > rect')).fill"
            ink = "getComputedStyle(document.querySelector('text')).fill"
            assert [await tab.evaluate(of) for of in (paper, ink)] == ["rgb(255, 255, 255)", "rgb(27, 27, 27)"]
            assert await tab.evaluate("document.querySelector('svg > title').textContent") == plain(plot.caption)
            await tab.open(shown)
            assert await tab.evaluate("document.querySelector('img').naturalWidth") > 200
        # That such a test can fail.
        file.write_text("<script>console.log('x'); fetch('https://example.invalid/')</script>", "utf-8")
        seen = await tab.open(file)
        assert "x" in seen.complaints[0]
        assert "https://example.invalid/" in seen.requests


def test_there_is_a_drawing_of_everything_that_was_measured() -> None:
    text = html(comparison())
    captions = [re.sub(r"<[^>]*>", "", c) for c in re.findall(r"<figcaption[^>]*>(.*?)</figcaption>", text, re.DOTALL)]
    assert [caption.partition(".")[0].partition(": difference")[0] for caption in captions] == [
        "chat: latency against throughput",
        "chat: latency against concurrency",
        "chat: throughput against concurrency",
        "long-context: latency against throughput",
        "long-context: latency against concurrency",
        "long-context: throughput against concurrency",
        "chat: test-b:8000 against test-a",
        "long-context: test-b:8000 against test-a",
    ]


@pytest.mark.parametrize("document", [one_run(), comparison(), hostile()], ids=lambda result: result.benchmark)
def test_a_drawing_that_stands_alone_needs_no_page(document: Result) -> None:
    drawn = [alone(plot) for plot in plots(make_report([document]))]
    assert drawn
    for text in drawn:
        root = ElementTree.fromstring(text)
        assert root[0].tag.endswith("}title")
        assert root[0].attrib["id"] == root.attrib["aria-labelledby"]
        assert "var(" not in text
        assert not [each for each in root.iter() if each.tag.endswith(("}script", "}image", "}foreignObject"))]


def test_ids_are_unique_and_what_is_referred_to_is_there() -> None:
    text = html(comparison())
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    referred = re.findall(r'(?:url\(#|href="#|aria-labelledby=")([^")]+)', text)
    assert referred
    assert set(referred) <= set(ids)


def test_a_page_has_no_address_and_no_script() -> None:
    text = html(comparison())
    # Names of namespaces are no addresses, and the server that was measured is named.
    assert set(re.findall(r"https?://[^\"<\s]+", text)) == {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
        "http://test-b:8000",
    }
    assert "<script" not in text
    assert "default-src 'none'" in text


def test_texts_of_a_result_are_texts_of_the_page() -> None:
    text = html(hostile())
    assert "<script" not in text
    assert "<img" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_a_refusal_is_as_loud_as_a_number() -> None:
    text = html(failed())
    assert '<div class="loud"><span class="refused">Failed: TargetChanged</span>' in text
    assert "<svg" not in text
    text = html(one_run())
    assert '<td class="refused">REFUSED: ClientSaturated</td>' in text
    assert text.index("Inconclusive: ClientSaturated") < text.index("<svg")


def test_what_was_refused_is_not_drawn() -> None:
    # Also when a document holds numbers all the same.
    assert "<svg" not in html(failed().model_copy(update={"rows": (row(1), row(4))}))


def test_the_same_result_gives_the_same_page() -> None:
    assert page(make_report([one_run()])) == html(one_run())


def test_many_runs_share_a_page() -> None:
    """More than there are colours."""
    bare: dict[str, Any] = {"itl": None, "e2e": None, "goodput_per_second": None}
    text = html(*(result(f"run-{i}", rows=(row(1, **bare),)) for i in range(9)))
    assert all(f"run-{i}" in text for i in range(9))
