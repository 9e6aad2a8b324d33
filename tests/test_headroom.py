"""What a service's status concludes from Benchmarks."""

from typing import Any

import pytest

from draftmark.api.benchmark import MAX_WORKLOADS
from draftmark.api.defaults import PriceDefaults
from draftmark.headroom import contradiction, cost, headroom

REVISION = "1f2e3d4c"
OTHER = "00000000"
H100 = "NVIDIA-H100-80GB-HBM3"


def row(
    load: int, *, holds: bool | None = True, rate: float | None = None, workload: str = "chat", target: str = "target"
) -> Any:
    found = {"workload": workload, "load": f"concurrency {load}", "target": target, "samples": 100}
    rate = float(load) if rate is None else rate
    found |= {"requestsPerSecond": rate, "outputTokensPerSecond": rate * 150, "promptTokens": 200.0}
    return found if holds is None else {**found, "holdsObjectives": holds}


def benchmark(*rows: Any, name: str = "bench", at: str = "2026-11-01T10:00:00Z", **status: Any) -> Any:
    target = {"service": "llama", "revision": REVISION, "replicas": 1, "model": "llama", "hardware": H100}
    told = {"phase": "Succeeded", "finishedAt": at, "target": target, "results": list(rows), **status}
    return {"metadata": {"name": name, "namespace": "default"}, "status": told}


def seen_of(*benchmarks: Any, revision: str | None = REVISION, before: Any = None) -> dict[str, Any]:
    return headroom("llama", revision, benchmarks, before)


def with_target(item: Any, **fields: Any) -> Any:
    return {**item, "status": {**item["status"], "target": {**item["status"]["target"], **fields}}}


def test_the_highest_load_that_held_the_objectives_is_the_capacity() -> None:
    found = seen_of(benchmark(row(1), row(4), row(8, holds=False)))
    assert found == {
        "state": "Measured",
        "benchmark": "bench",
        "measuredAt": "2026-11-01T10:00:00Z",
        "revision": REVISION,
        "hardware": H100,
        "rows": [
            {
                "workload": "chat", "isCarried": True, "load": "concurrency 4", "requestsPerSecond": 4.0,
                "outputTokensPerSecond": 600.0, "promptTokens": 200.0, "isLowerBound": False,
            }
        ],
    }  # fmt: skip


def test_where_the_highest_load_held_them_more_may_be_possible() -> None:
    assert seen_of(benchmark(row(1), row(4)))["rows"][0]["isLowerBound"] is True


def test_whether_more_is_possible_is_not_told_where_rows_were_left_out() -> None:
    rows = (row(1), row(4), row(1, workload="long-context"))
    item = {**benchmark(*rows, resultsCut=True), "spec": {"concurrency": [1, 4, 4]}}
    chat, long = seen_of(item)["rows"]
    assert (chat["isLowerBound"], long.get("isLowerBound")) == (True, None)
    assert long["load"] == "concurrency 1"
    # Nothing is said of which loads: the default ones.
    assert all("isLowerBound" not in r for r in seen_of(benchmark(*rows, resultsCut=True))["rows"])


def test_a_load_that_carries_less_is_not_the_capacity() -> None:
    """Beyond saturation more requests under way are fewer answers."""
    assert seen_of(benchmark(row(4, rate=9.0), row(8, rate=7.0)))["rows"][0]["load"] == "concurrency 4"


def test_where_no_load_held_them_nothing_is_carried() -> None:
    found = seen_of(benchmark(row(1, holds=False), row(4, holds=False)))
    assert found["rows"] == [{"workload": "chat", "isCarried": False}]


def test_each_workload_has_its_own() -> None:
    found = seen_of(benchmark(row(4), row(1, workload="long-context")))
    assert [(r["workload"], r["load"]) for r in found["rows"]] == [
        ("chat", "concurrency 4"),
        ("long-context", "concurrency 1"),
    ]


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (benchmark(row(4, holds=None)), "no objectives"),
        # A comparison's rows stand although an objective's percentile has too few samples.
        ({**benchmark(row(4, holds=None)), "spec": {"objectives": {"ttft": {"p99": "2s"}}}}, "too few samples"),
        (with_target(benchmark(row(4)), replicas=3), "measured 3 replicas together"),
        (with_target(benchmark(row(4)), replicas=None), "an unknown number of replicas"),
    ],
)
def test_what_says_nothing_of_one_replica_at_objectives_says_why(item: Any, words: str) -> None:
    found = seen_of(item)
    assert found.keys() == {"state", "message"}
    assert found["state"] == "Unmeasured"
    assert words in found["message"]


@pytest.mark.parametrize(
    "item",
    [
        benchmark(row(4), phase="Inconclusive"),
        benchmark(row(4), phase="Failed"),
        benchmark(row(4), phase="Running"),
        with_target(benchmark(row(4)), service="other"),
        {"metadata": {"name": "new"}},
    ],
)
def test_other_benchmarks_do_not_count(item: Any) -> None:
    assert seen_of(item) == {"state": "Unmeasured"}


def test_the_compared_one_has_its_own_rows() -> None:
    compared = {"service": "llama", "revision": REVISION, "replicas": 1, "model": "llama"}
    item = benchmark(row(4), row(2, target="compared"), compared=compared)
    found = seen_of(with_target(item, service="other"))
    assert [r["load"] for r in found["rows"]] == ["concurrency 2"]


def test_the_latest_counts() -> None:
    early, late = benchmark(row(4), name="early"), benchmark(row(1), name="late", at="2026-11-02T10:00:00Z")
    assert seen_of(early, late)["benchmark"] == seen_of(late, early)["benchmark"] == "late"


def test_of_several_revisions_the_current_one_counts_whatever_was_measured_later() -> None:
    first = benchmark(row(4), name="first")
    later = with_target(benchmark(row(1), name="later", at="2026-11-02T10:00:00Z"), revision=OTHER)
    for benchmarks in ((first, later), (later, first)):
        assert seen_of(*benchmarks)["benchmark"] == "first"
        assert seen_of(*benchmarks)["state"] == "Measured"
        assert seen_of(*benchmarks, revision=OTHER)["benchmark"] == "later"
        # Of neither: the latest.
        stale = seen_of(*benchmarks, revision="11111111")
        assert (stale["state"], stale["benchmark"]) == ("Stale", "later")
    # Also against what was kept of one that is gone.
    kept = seen_of(later, revision=OTHER)
    assert seen_of(first, before=kept)["benchmark"] == "first"
    assert seen_of(later, before=seen_of(first))["benchmark"] == "first"


def test_a_comparison_of_two_revisions_tells_of_the_current_one() -> None:
    other = {"service": "llama", "revision": OTHER, "replicas": 1, "model": "llama"}
    item = benchmark(row(4), row(2, target="compared"), compared=other)
    assert [r["load"] for r in seen_of(item)["rows"]] == ["concurrency 4"]
    assert [r["load"] for r in seen_of(item, revision=OTHER)["rows"]] == ["concurrency 2"]


def test_all_workloads_of_a_benchmark_are_told() -> None:
    rows = [row(1, workload=f"w{n}") for n in range(MAX_WORKLOADS)]
    assert len(seen_of(benchmark(*rows))["rows"]) == MAX_WORKLOADS == 8


def test_a_later_one_that_says_nothing_takes_nothing_away() -> None:
    late = benchmark(row(4, holds=None), name="late", at="2026-11-02T10:00:00Z")
    assert seen_of(benchmark(row(4)), late)["benchmark"] == "bench"


def test_what_was_measured_is_kept_when_the_benchmark_is_gone() -> None:
    found = seen_of(benchmark(row(4)))
    assert seen_of(before=found) == found
    older = benchmark(row(1), name="older", at="2026-10-01T10:00:00Z")
    assert seen_of(older, before=found) == found


def test_another_revision_makes_it_stale_and_the_measured_one_fresh_again() -> None:
    fresh = seen_of(benchmark(row(4)))
    stale = seen_of(revision=OTHER, before=fresh)
    assert stale["state"] == "Stale"
    assert REVISION in stale["message"]
    assert OTHER in stale["message"]
    assert stale["rows"] == fresh["rows"]
    assert seen_of(before=stale) == fresh
    # While nothing runs, nothing has taken its place.
    assert seen_of(revision=None, before=fresh) == fresh


def price(measured: Any, *, product: str | None = H100, gpus: int = 2, per_hour: float = 3.6) -> Any:
    return cost(measured, product, gpus, PriceDefaults(currency="EUR", per_hour={H100: per_hour}))


def test_the_cost_is_the_price_of_a_replica_over_what_it_carries() -> None:
    # 7.20 EUR an hour are 0.002 EUR a second; 4 requests a second read 800 tokens and write 600.
    assert price(seen_of(benchmark(row(1), row(4), row(8, holds=False)))) == {
        "currency": "EUR",
        "perReplicaHour": 7.2,
        "rows": [{"workload": "chat", "perMillionInputTokens": 2.5, "perMillionOutputTokens": 3.333}],
    }


def test_without_a_measurement_or_a_price_there_is_no_cost() -> None:
    measured = seen_of(benchmark(row(4)))
    assert price({"state": "Unmeasured"}) is None
    assert price(seen_of(revision=OTHER, before=measured)) is None
    assert price(measured, product="NVIDIA-L4") is None
    assert price(measured, product=None) is None
    assert price(measured, gpus=0) is None
    assert price({**measured, "hardware": "NVIDIA-L4"}) is None
    assert price({key: value for key, value in measured.items() if key != "hardware"}) is not None
    assert cost(measured, H100, 2, None) is None
    assert price(seen_of(benchmark(row(4, holds=False)))) is None


@pytest.mark.parametrize(
    "wrong", [{"currency": "euro"}, {"per_hour": {H100: 0}}, {"per_hour": {}}, {"per_hour": {H100: -1}}]
)
def test_a_price_that_is_none_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="validation error"):
        PriceDefaults(**{"currency": "EUR", "per_hour": {H100: 3.6}, **wrong})


def full(percent: float, **more: Any) -> Any:
    return benchmark({**row(8), "outputTokens": 150.0, "kvUsePercent": percent, **more})


def test_a_cache_that_is_fuller_than_its_sum_is_told() -> None:
    # 8 requests of 350 tokens are 28 % of 10,000.
    assert contradiction("llama", REVISION, 10_000, [full(38)]) is None
    words = contradiction("llama", REVISION, 10_000, [full(39)])
    assert words is not None
    assert "39 % full" in words
    assert "at most 28 %" in words


@pytest.mark.parametrize(
    ("item", "tokens", "revision"),
    [
        (full(90), None, REVISION),
        (full(90), 10_000, OTHER),
        (with_target(full(90), replicas=2), 10_000, REVISION),
        (with_target(full(90), service="other"), 10_000, REVISION),
        (full(90, load="2.5 requests/s"), 10_000, REVISION),
        (benchmark(row(8)), 10_000, REVISION),
        # More requests than there is room for wait, and the cache is full.
        (full(100), 2_000, REVISION),
    ],
)
def test_what_cannot_be_compared_contradicts_nothing(item: Any, tokens: int | None, revision: str) -> None:
    assert contradiction("llama", revision, tokens, [item]) is None
