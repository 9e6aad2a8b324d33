"""What reports say of results: nothing that was not measured, and nothing that a reader's program would run."""

import csv
from io import StringIO
from pathlib import Path

import pytest

from draftmark.measure.order import Bounds, Load, OrderedObjectives
from draftmark.measure.report import CSV_COLUMNS, TBD, csv_text, decimal, make_report, markdown
from draftmark.measure.result import Result
from tests.measure.golden_report_cases import report_files
from tests.measure.results import (
    FACTS,
    SATURATED,
    comparison,
    failed,
    hostile,
    interval,
    latency,
    one_run,
    refused,
    result,
    row,
)


@pytest.mark.parametrize(
    ("file", "text"), list(report_files()), ids=lambda value: value.name if isinstance(value, Path) else ""
)
def test_reports_are_as_reviewed(file: Path, text: str) -> None:
    assert file.read_text("utf-8") == text, "python -m tests.update_golden writes them anew"


def lines_of(*results: Result) -> list[dict[str, str]]:
    return list(csv.DictReader(StringIO(csv_text(results))))


def test_the_columns_are_those_that_were_promised() -> None:
    assert csv_text([]) == (
        "engine,version,model,quantization,hardware,concurrency,prompt_tokens,output_tokens,ttft_ms,tok_per_s,peak_mem_gb,notes\n"
    )
    assert len(CSV_COLUMNS) == 12


def test_a_row_that_was_measured() -> None:
    (line,) = lines_of(result(rows=(row(4),)))
    assert line == {
        "engine": "test-engine", "version": "1.0", "model": "test/model", "quantization": "none", "hardware": "TEST-GPU", "concurrency": "4",
        "prompt_tokens": "200", "output_tokens": "150", "ttft_ms": "100", "tok_per_s": "400", "peak_mem_gb": "10", "notes": "workload chat",
    }  # fmt: skip


def test_memory_is_told_to_the_megabyte() -> None:
    (line,) = lines_of(result(rows=(row(4, peak_memory_gb=12.3456),)))
    assert line["peak_mem_gb"] == "12.346"


def test_runs_are_told_with_what_their_goodput_holds_to() -> None:
    made = result()
    bounds = OrderedObjectives(ttft=Bounds(p50=200, p99=1500.5), e2e=Bounds(p90=4000))
    shared = made.order.workloads[0].model_copy(update={"name": "docs", "shared_prefix_tokens": 2048})
    workloads = (*made.order.workloads, shared)
    order = made.order.model_copy(
        update={"objectives": bounds, "workloads": workloads, "duration_s": None, "requests": 400}
    )
    told = {line[0]: line[1] for line in make_report([made.model_copy(update={"order": order})]).runs.rows}
    assert told["objectives"] == "TTFT p50 200 ms, TTFT p99 1500.5 ms, E2E p90 4000 ms"
    assert (told["shared prefix"], told["length of each"]) == ("docs: 2048 tokens", "400 requests")
    bare = make_report([made.model_copy(update={"order": order.model_copy(update={"objectives": None})})])
    assert ("objectives", "-") in bare.runs.rows


def test_what_was_not_measured_reads_tbd() -> None:
    bare = row(
        4,
        ttft=latency(100).model_copy(update={"p50": None}),
        output_tokens_per_second=None,
        prompt_tokens=None,
        output_tokens=None,
        peak_memory_gb=None,
    )
    measured = result(rows=(bare.model_copy(update={"target": "compared"}),), is_compared=True)
    line = next(line for line in lines_of(measured) if "test-b" in line["notes"])
    assert {key for key, cell in line.items() if cell == TBD} == set(CSV_COLUMNS) - {"model", "concurrency", "notes"}


def test_a_refused_row_has_no_number_and_says_why() -> None:
    # Also when a document holds numbers all the same.
    contradicting = row(4, refusal=SATURATED)
    for each in (refused(4), contradicting):
        (line,) = lines_of(result(rows=(each,)))
        assert {line[key] for key in ("prompt_tokens", "output_tokens", "ttft_ms", "tok_per_s", "peak_mem_gb")} == {TBD}
        assert f"REFUSED: {SATURATED.code}: {SATURATED.message}" in line["notes"]
        text = markdown([result(rows=(each,))])
        assert "**REFUSED: ClientSaturated**" in text
        assert "| TTFT p50 (ms) | TBD |" in text


def test_a_result_refused_as_a_whole_has_a_line_without_rows() -> None:
    (line,) = lines_of(failed())
    assert (line["ttft_ms"], line["concurrency"]) == (TBD, TBD)
    assert "REFUSED: TargetChanged" in line["notes"]


def test_a_refusal_of_the_whole_counts_for_rows_that_have_numbers() -> None:
    (line,) = lines_of(failed().model_copy(update={"rows": (row(4),)}))
    assert line["ttft_ms"] == TBD


def test_a_request_rate_is_no_concurrency() -> None:
    rate = row(1).model_copy(update={"concurrency": None, "request_rate": 2.5, "load": Load(request_rate=2.5).label})
    (line,) = lines_of(result(rows=(rate,)))
    assert line["concurrency"] == TBD
    assert line["notes"] == "workload chat; load 2.5 requests/s"


def test_no_cell_is_a_formula() -> None:
    cells = [cell for line in lines_of(hostile()) for cell in line.values()]
    assert [cell for cell in cells if cell[:1] in tuple("=+-@\t\r")] == []
    assert any(cell.startswith("'=") for cell in cells)
    assert all("\n" not in cell and "\x1b" not in cell for cell in cells)


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("a; =1+1", "a; '=1+1"),
        ("a;=1;+2+3 ;  @SUM(A1)", "a;'=1;'+2+3 ; '@SUM(A1)"),
        ('"=1+1"', '"\'=1+1"'),
        ('a;"=1+1"', 'a;"\'=1+1"'),
        ("a\t;\r\n\u2028=1", "a ; '=1"),
        ("a\n=1", "a =1"),
        ("a\t=1", "a =1"),
        ("a; ＝1", "a; '＝1"),
        ("a; -5; +1.5 ; -5 % of it", "a; -5; +1.5 ; '-5 % of it"),
        ("a; b = c - 1; x=2", "a; b = c - 1; x=2"),
    ],
)
def test_no_part_of_a_cell_is_a_formula(text: str, cell: str) -> None:
    """A server that is measured words its errors, and they are in the notes; where a semicolon separates cells, each part of them is
    one."""
    lines = csv_text([result(rows=(row(4),)).model_copy(update={"notes": text})])
    (line,) = csv.DictReader(StringIO(lines))
    assert line["notes"] == f"workload chat; {cell}"
    for delimiter in ";\t":
        cells = [each for read in csv.reader(StringIO(lines), delimiter=delimiter) for each in read]
        assert [each for each in cells if each.strip(' "').startswith(("=", "@", "＝"))] == []


@pytest.mark.parametrize(
    ("text", "cell"), [("-5", "-5"), ("+1.5", "+1.5"), ("-5+1", "'-5+1"), ("＝1", "'＝1"), ("\t=1", "'=1")]
)
def test_numbers_stay_numbers(text: str, cell: str) -> None:
    facts = FACTS["target"].model_copy(update={"version": text})
    base = result(rows=(row(1),))
    target = base.targets[0].model_copy(update={"facts": facts})
    (line,) = lines_of(base.model_copy(update={"targets": (target,)}))
    assert line["version"] == cell


def test_no_markup_survives_in_markdown() -> None:
    text = markdown([hostile()])
    assert "<script" not in text.replace("\\<script", "")
    assert "<img" not in text.replace("\\<img", "")
    assert "\x1b" not in text
    assert "\u202e" not in text
    heads = [line for line in text.splitlines() if line.startswith("#")]
    assert all(line.startswith(("# Benchmark report", "## ", "### ")) for line in heads)
    # A bar that is not escaped would be a cell of its own.
    for table in text.split("\n\n"):
        if table.startswith("|"):
            assert len({line.replace("\\|", "").count("|") for line in table.splitlines()}) == 1


def test_runs_of_one_name_are_told_apart() -> None:
    first, second = result(), result(began="2026-01-02T12:00:00Z")
    assert [s.name for s in make_report([first, second]).series] == [
        "models/test-run of 2026-01-01T12:00:00Z",
        "models/test-run of 2026-01-02T12:00:00Z",
    ]
    assert len({s.name for s in make_report([first, first]).series}) == 2
    assert [s.name for s in make_report([first, result(namespace="other")]).series] == [
        "models/test-run",
        "other/test-run",
    ]


def test_two_revisions_of_one_service_are_told_apart() -> None:
    both = comparison()
    facts = FACTS["target"].model_copy(update={"revision": "bbbbbbbb"})
    targets = (both.targets[0], both.targets[1].model_copy(update={"facts": facts}))
    report = make_report([both.model_copy(update={"targets": targets})])
    assert [s.name for s in report.series] == ["test-a aaaaaaaa", "test-a bbbbbbbb"]


def test_runs_side_by_side_are_called_no_comparison() -> None:
    assert "spec.compare" in markdown([one_run(), result("other")])
    assert "spec.compare" not in markdown([one_run()])


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, TBD), (0.0, "0"), (0.1234, "0.123"), (12.345, "12.35"), (123.45, "123.5"), (12345.6, "12346")],
)
def test_numbers_have_four_digits(value: float | None, text: str) -> None:
    assert decimal(value) == text


def test_an_interval_without_bounds_is_a_number() -> None:
    text = markdown([result(rows=(row(1, requests_per_second=interval(7, by=None)),))])
    assert "| requests/s | 7.000 |" in text
