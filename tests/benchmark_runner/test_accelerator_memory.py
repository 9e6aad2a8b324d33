"""DCGM's figures from Prometheus to the peak of a block."""

import time
from typing import Any

import pytest
from aiohttp import web

from draftmark.benchmark_runner import accelerator_memory
from draftmark.benchmark_runner.accelerator_memory import (
    MOST_FAILURES,
    MemoryUnknown,
    PeakMemory,
    Scraped,
    Span,
    peak_bytes,
    queries,
    scraped_of,
)
from draftmark.measure.order import AcceleratorMemory
from tests.benchmark_runner.prometheus import FakePrometheus, answer, series

MIB = 2**20
BLOCK = Span(began=1000.0, ended=1060.0)


def source(url: str = "http://prometheus:9090", **changes: Any) -> AcceleratorMemory:
    fields = {"prometheus": url, "namespace": "models", "pods": ("tiny-0", "tiny-1"), "accelerators": 2}
    return AcceleratorMemory(**(fields | changes))


def test_both_ways_of_labels_are_asked_for() -> None:
    assert queries(source(), 61) == (
        'DCGM_FI_DEV_FB_USED{namespace="models",pod=~"tiny\\\\-0|tiny\\\\-1",UUID!="",vgpu=""}[61s]',
        'DCGM_FI_DEV_FB_USED{exported_namespace="models",exported_pod=~"tiny\\\\-0|tiny\\\\-1",UUID!="",vgpu=""}[61s]',
    )


def test_no_value_ends_its_string() -> None:
    own, _ = queries(source(namespace='a"} or up{x="\n', pods=('b"|.*', "c\\")), 1)
    assert own.startswith('DCGM_FI_DEV_FB_USED{namespace="a\\"} or up{x=\\"\\n",pod=~"b\\"\\\\|\\\\.\\\\*|c\\\\\\\\",')


def scraped(gpu: str, *values: tuple[float, float], part: str = "") -> list[Scraped]:
    return [Scraped(at, (gpu, part), used) for at, used in values]


@pytest.mark.parametrize(
    ("what", "peak"),
    [
        # Not 900 + 900: their highest were not at one moment.
        ([*scraped("a", (1010, 900), (1020, 100)), *scraped("b", (1010, 100), (1020, 900))], 1000),
        ([*scraped("a", (1010, 900), (1020, 900)), *scraped("b", (1010, 100), (1020, 900))], 1800),
        # Two nodes are scraped at different moments: what was seen last stands.
        ([*scraped("a", (1010, 100), (1040, 700)), *scraped("b", (1025, 200), (1055, 100))], 900),
        # Of the rows before and after.
        ([*scraped("a", (999, 900), (1060, 100)), *scraped("b", (1010, 100), (1061, 900))], 200),
        ([*scraped("a", (999, 900)), *scraped("b", (999, 100))], None),
        # One of the two was not scraped in the block.
        ([*scraped("a", (1010, 900)), *scraped("b", (999, 100))], None),
        # Two servers, or two jobs, scrape the same GPU.
        ([*scraped("a", (1010, 900), (1011, 901)), *scraped("b", (1010, 100), (1011, 100))], 1001),
        # Parts of one GPU are two.
        ([*scraped("a", (1010, 900), part="1"), *scraped("a", (1010, 100), part="2")], 1000),
        # Others have the pods' names.
        ([*scraped("a", (1010, 900)), *scraped("b", (1010, 100)), *scraped("c", (1010, 1))], None),
        ([], None),
    ],
)
def test_the_peak_is_of_all_gpus_at_one_moment_of_the_block(what: list[Scraped], peak: float | None) -> None:
    assert peak_bytes(what, BLOCK, accelerators=2) == peak
    assert peak_bytes(what[::-1], BLOCK, accelerators=2) == peak


def test_samples_are_bytes_of_gpus() -> None:
    told = answer(series("a", (1, 1024), (2.5, 80_000)), series("a", (1, 7), GPU_I_ID="3"), infos=["only said"])
    assert scraped_of(told) == [
        Scraped(1, ("a", ""), 1024 * MIB),
        Scraped(2.5, ("a", ""), 80_000 * MIB),
        Scraped(1, ("a", "3"), 7 * MIB),
    ]


def test_what_stands_for_no_number_is_none() -> None:
    blanks = ("NaN", "+Inf", "-1", str(0x7FFFFFF0), str(0x7FFFFFFFFFFFFFF0))
    told = {**series("a"), "values": [[1, text] for text in blanks]}
    assert scraped_of(answer(told)) == []


@pytest.mark.parametrize(
    "told",
    [
        {"status": "error", "errorType": "bad_data", "error": "parse error"},
        {"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}, "value": [1, "2"]}]}},
        {"status": "success", "data": {"resultType": "scalar", "result": [1, "2"]}},
        {"status": "success"},
        answer({"metric": {"gpu": "0"}, "values": [[1, "2"]]}),
        answer({"metric": {"UUID": "a"}, "values": [[1, "many"]]}),
        answer(series("a", (1, 2)), warnings=["a store did not answer"]),
        ["success"],
        None,
    ],
)
def test_other_answers_tell_nothing(told: Any) -> None:
    with pytest.raises(MemoryUnknown):
        scraped_of(told)


LATER = Span(began=1100.0, ended=1160.0)


async def test_a_row_is_asked_for_as_a_whole(capsys: pytest.CaptureFixture[str]) -> None:
    """A block without a sample has no peak, whatever the others have."""
    two = [series("a", (1030, 1000)), series("b", (1030, 500.5))]
    for way in ("own", "exported"):
        async with FakePrometheus(**{way: lambda at: two}).serving() as server, PeakMemory() as memory:
            assert await memory.of(source(server.url), [BLOCK, LATER]) == [1500.5 * MIB, None]
            assert [(form["time"], form["query"].rpartition("[")[2]) for form in server.asked] == [
                ("1160.000", "161s]")
            ] * 2
            assert await memory.of(source(server.url), []) == []
            assert len(server.asked) == 2
    assert capsys.readouterr().out == ""


async def test_what_is_missing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    def own(at: float) -> list[Any]:
        return [series("a", (1030, 1000))]

    async with FakePrometheus(own).serving() as server, PeakMemory() as memory:
        assert await memory.of(source(server.url), [BLOCK]) == [None]
    assert "1 samples of DCGM_FI_DEV_FB_USED of 1 GPUs of tiny-0, tiny-1" in capsys.readouterr().out


def failures() -> dict[str, web.Response | None]:
    return {
        "did not answer within": None,
        "an error: query timed out": web.json_response({"status": "error", "error": "query timed out"}, status=503),
        "answered 404, and no JSON": web.Response(status=404, text="404 page not found"),
        "answered 302, and no JSON": web.Response(status=302, headers={"Location": "http://elsewhere"}),
        "longer than": web.Response(body=b" " * 5000),
    }


@pytest.mark.parametrize("why", failures())
async def test_a_server_that_fails_costs_a_cell_and_little_time(
    why: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(accelerator_memory, "ANSWER_S", 0.2 if failures()[why] is None else 30)
    monkeypatch.setattr(accelerator_memory, "MAX_BYTES", 4096)
    async with FakePrometheus().serving() as server, PeakMemory() as memory:
        server.instead = [failures()[why]]
        began = time.monotonic()
        assert await memory.of(source(server.url), [BLOCK, LATER]) == [None, None]
        assert time.monotonic() - began < 20
    assert why in capsys.readouterr().out


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://nowhere.invalid", "http://[x", "http://127.0.0.1:70000"])
async def test_a_server_that_is_not_there_is_soon_left_alone(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    async with PeakMemory() as memory:
        for _ in range(MOST_FAILURES + 2):
            assert await memory.of(source(url), [BLOCK]) == [None]
    said = capsys.readouterr().out.splitlines()
    assert len(said) == MOST_FAILURES
    assert [line.endswith("is not asked again.") for line in said] == [*[False] * (MOST_FAILURES - 1), True]


async def test_an_answer_makes_up_for_failures() -> None:
    async with FakePrometheus().serving() as server, PeakMemory() as memory:
        for _ in range(2):
            server.instead = [web.Response(status=500) for _ in range(MOST_FAILURES - 1)]
            for _ in range(MOST_FAILURES):
                await memory.of(source(server.url), [BLOCK])
        assert len(server.asked) == 2 * (MOST_FAILURES - 1 + 2)
