"""The status of a Benchmark: bounded, and of the shape of its schema."""

import json
from typing import Any

import pytest

from draftmark.api.benchmark import MAX_ROWS, MAX_WORKLOADS, BenchmarkStatus
from draftmark.benchmark.decide import decide_benchmark, tell_target
from draftmark.benchmark.observation import BenchmarkDecision
from draftmark.benchmark.results import tell_result
from draftmark.benchmark.status import MOST_BYTES, make_benchmark_status
from draftmark.measure.order import TargetFacts
from draftmark.measure.result import Refusal
from draftmark.status import transitions
from tests.benchmark.world import World, benchmark, difference, result_of, row, winner
from tests.specs import T0

LONG = "w" * 63
REFUSED = Refusal(code="R" * 64, message="m" * 2000, is_failure=False)


def full(*, refused: bool) -> dict[str, Any]:
    """A status with every list full, and every text at its bound."""
    world = World(item=benchmark(compare={"target": {"service": "tiny", "allowUserTraffic": True}})).started()
    result = result_of(
        world.order(),
        rows=tuple(row(LONG, "concurrency 1024", refusal=REFUSED if refused else None) for _ in range(200)),
        differences=tuple(difference("Equal" if n % 2 else "Better", "concurrency 1024") for n in range(200)),
        winners=tuple(winner().model_copy(update={"workload": LONG, "message": "m" * 2000}) for _ in range(20)),
    )
    facts = TargetFacts(
        service="s" * 63, revision="r" * 8, engine="e" * 64, version="v" * 64, quantization="q" * 64, layout="l" * 64,
        hardware="h" * 512, replicas=8, images=("i" * 512,) * 8,
    )  # fmt: skip
    target = tell_target("http://" + "u" * 500, "m" * 512, facts)
    told = {
        **World().started().result().settle().status,
        "target": target,
        "compared": target,
        **tell_result(result),
        "report": {"configMap": "c" * 47, "claim": "c" * 1024, "sha256": "0" * 64},
    }
    decision = BenchmarkDecision(told=told, reason=("R" * 64, "m" * 3000), needs_human=True, refused=("R", "m" * 3000))
    return make_benchmark_status(world.observe(), decision, T0)


@pytest.mark.parametrize("refused", [False, True], ids=["numbers", "refused"])
def test_a_status_with_every_list_full_is_bounded(refused: bool) -> None:
    status = full(refused=refused)
    assert len(json.dumps(status, ensure_ascii=False, separators=(",", ":")).encode()) <= MOST_BYTES == 24 * 1024
    assert status["resultsCut"] is True
    BenchmarkStatus.model_validate(status, extra="forbid")
    assert 0 < len(status["results"]) <= MAX_ROWS
    assert len(status["winners"]) == MAX_WORKLOADS


def test_rows_of_every_cell_have_room_beside_what_is_usual() -> None:
    world = World().started()
    rows = tuple(row(f"long-context-{w}", f"concurrency {2**c}") for w in range(8) for c in range(8))
    status = world.result(rows=rows).settle().status
    assert len(status["results"]) == MAX_ROWS
    assert len(json.dumps(status, separators=(",", ":")).encode()) <= MOST_BYTES
    assert all({"p50", "p99"} <= r["ttft"].keys() for r in status["results"])


def cells(order: Any, workloads: int, *, refused: int = 0, **more: Any) -> Any:
    """A result with so many workloads of eight loads, the first rows without numbers."""
    rows = [row(f"{'w' * 50}-{w}", f"concurrency {2**c}") for w in range(workloads) for c in range(8)]
    without = [row(r.workload, r.load, refusal=REFUSED) for r in rows[:refused]]
    return result_of(order, rows=(*without, *rows[refused:]), **more)


@pytest.mark.parametrize(
    ("workloads", "refused", "gone", "is_cut"),
    [
        (6, 0, (), None),
        (6, 8, ("tpot", "p90"), None),
        (6, 16, ("tpot", "p90"), True),  # their messages are shortened
        (8, 0, ("tpot", "p90", "tokens"), None),
        (8, 8, ("tpot", "p90", "tokens"), True),  # the last rows are gone
    ],
)
def test_rows_lose_first_what_nothing_is_made_from(
    workloads: int, refused: int, gone: tuple[str, ...], is_cut: bool | None
) -> None:
    world = World().started()
    result = cells(world.order(), workloads, refused=refused)
    status = world.tell("result", result.model_dump_json(by_alias=True)).settle().status
    first = next(r for r in status["results"] if "ttft" in r)
    kept = {"tpot": "tpot" in first, "p90": "p90" in first["ttft"], "tokens": "promptTokens" in first}
    assert tuple(key for key, is_there in kept.items() if not is_there) == gone
    assert status.get("resultsCut") is is_cut
    assert all(r["message"] for r in status["results"] if "reason" in r)
    assert (len(status["results"]) < 8 * workloads) == ((workloads, refused) == (8, 8))


def test_differences_that_have_no_room_are_not_left_out_in_silence() -> None:
    world = World(item=benchmark(compare={"target": {"service": "tiny", "allowUserTraffic": True}})).started()
    differences = tuple(difference("Better", f"concurrency {n}") for n in range(MAX_ROWS + 1))
    assert tell_result(result_of(world.order(), differences=differences))["resultsCut"] is True
    assert "resultsCut" not in tell_result(result_of(world.order(), differences=differences[:-1]))


def test_differences_that_are_shown_come_first() -> None:
    told = tell_result(
        result_of(World().started().order(), differences=(difference("Equal"), difference("Worse"), difference()))
    )
    assert [d["verdict"] for d in told["differences"]] == ["Worse", "Better", "Equal"]
    assert told["differences"][0]["percent"] == -12.35


def test_every_status_on_the_way_fits_the_schema() -> None:
    world = World()
    seen = []
    for event in (lambda: None, world.run_pods, world.progress, world.result):
        event()
        seen.append(world.settle().status)
    for status in seen:
        BenchmarkStatus.model_validate(status, extra="forbid")
    assert [s["phase"] for s in seen] == ["Running", "Running", "Running", "Succeeded"]


def test_events_tell_each_step_once() -> None:
    world = World()
    told: list[tuple[str, str]] = []
    for event in (lambda: None, world.run_pods, world.progress, world.restart_target):
        event()
        for _ in range(3):
            before = world.status
            world.reconcile()
            told += [(t.type, t.reason) for t in transitions(before, world.status)]
    assert told == [("Normal", "Starting"), ("Normal", "Measuring"), ("Warning", "TargetChanged")]


def test_a_spec_of_another_version_is_refused_and_what_runs_is_left_alone() -> None:
    world = World().started()
    written = dict(world.status)
    world.item["spec"] = {"target": {}}
    decision = decide_benchmark(world.observe(), T0)
    assert (decision.needed, decision.job, decision.prune) == ((), None, ())
    status = world.settle().status
    assert world.condition("Accepted")["reason"] == "InvalidSpec"
    assert {k: v for k, v in status.items() if k != "conditions"} == {
        k: v for k, v in written.items() if k != "conditions"
    }
