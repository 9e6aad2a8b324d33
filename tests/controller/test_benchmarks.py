"""Benchmarks under the whole operator: end states, the writes that lead there, and none at rest."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from draftmark.api import names
from draftmark.api.defaults import BenchmarkDefaults, Defaults
from draftmark.api.times import write_time
from draftmark.cluster.kinds import BENCHMARKS, CONFIG_MAPS, EVENTS, INFERENCE_SERVICES, JOBS, PODS, ROLES
from draftmark.controller.clock import SteadyClock
from draftmark.measure.order import Order
from draftmark.measure.result import Progress
from draftmark.render.benchmark import CONTAINER, ORDER_FILE
from tests.benchmark.world import result_of
from tests.controller.conftest import Rig, service

Json = dict[str, Any]

CHILDREN = Counter(
    {"ServiceAccount": 1, "Role": 1, "RoleBinding": 1, "ConfigMap": 2, "Job": 1}
)  # fmt: skip


def benchmark(name: str = "first", **spec: Any) -> Json:
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.BENCHMARK_KIND,
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"target": {"service": "llama", "allowUserTraffic": True}, "concurrency": [1], **spec},
    }


def status(rig: Rig, name: str = "first") -> Json:
    found: Json = (rig.api.see(BENCHMARKS, name) or {}).get("status") or {}
    return found


def reason(rig: Rig, name: str = "first") -> str:
    conditions = status(rig, name).get("conditions") or ()
    return next((str(c["reason"]) for c in conditions if c["type"] == "Complete"), "")


def write(rig: Rig, key: str, text: str, name: str = "first") -> None:
    """As the Job does."""
    rig.api.edit(
        CONFIG_MAPS, f"{name}-result", lambda c: c.setdefault("data", {}).update({key: text}), manager="benchmark"
    )


def order(rig: Rig, name: str = "first") -> Order:
    config = rig.api.see(CONFIG_MAPS, status(rig, name)["job"])
    assert config is not None
    return Order.model_validate_json(config["data"][ORDER_FILE])


def finish(rig: Rig, name: str = "first", **changes: Any) -> None:
    write(rig, "result", result_of(order(rig, name), **changes).model_dump_json(by_alias=True), name)


def run_pod(rig: Rig, name: str = "first") -> None:
    """The Job's pod runs."""
    job = rig.api.see(JOBS, status(rig, name)["job"])
    assert job is not None
    running = [{"name": CONTAINER, "ready": True, "restartCount": 0, "state": {"running": {}}}]
    rig.api.add(
        PODS,
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": f"{job['metadata']['name']}-x",
                "namespace": "default",
                "labels": job["spec"]["template"]["metadata"]["labels"],
            },
            "spec": {},
            "status": {"phase": "Running", "containerStatuses": running},
        },
    )


async def measure(rig: Rig, *items: Json) -> None:
    """A service that serves, and Benchmarks of it; the first one measures."""
    rig.api.add(INFERENCE_SERVICES, service("llama"))
    await rig.start()
    await rig.until(lambda: rig.is_ready("llama"))
    await rig.quiet()
    for item in items or (benchmark(),):
        rig.api.add(BENCHMARKS, item)
        await rig.until(lambda item=item: reason(rig, item["metadata"]["name"]))  # type: ignore[misc]
    await rig.until(lambda: reason(rig) == "Starting")
    run_pod(rig)
    await rig.until(lambda: reason(rig) == "Measuring")


def since(rig: Rig, before: list[str]) -> Counter[str]:
    return Counter(rig.writes()[len(before) :])


def without_telling(written: Counter[str]) -> Counter[str]:
    return Counter({key: n for key, n in written.items() if not key.endswith(("Event", "/status"))})


async def test_a_benchmark_runs_to_its_result_with_one_write_per_child(rig: Rig) -> None:
    rig.api.add(INFERENCE_SERVICES, service("llama"))
    await rig.start()
    await rig.until(lambda: rig.is_ready("llama"))
    await rig.quiet()
    before = rig.writes()
    rig.api.add(BENCHMARKS, benchmark())
    await rig.until(lambda: reason(rig) == "Starting")
    run_pod(rig)
    await rig.until(lambda: reason(rig) == "Measuring")
    await rig.quiet(0.5)
    assert without_telling(since(rig, before)) == Counter({f"create {kind}": n for kind, n in CHILDREN.items()})
    assert since(rig, before)["patch Benchmark/status"] <= 4

    told = Progress(
        job=status(rig)["job"], stage="Measuring", percent=40, seconds_left=60, at=write_time(SteadyClock()())
    )
    write(rig, "progress", told.model_dump_json(by_alias=True))
    await rig.until(lambda: status(rig)["progress"]["percent"] == 40)
    finish(rig)
    await rig.until(lambda: status(rig).get("phase") == "Succeeded")
    await rig.until(lambda: not rig.all(ROLES))
    assert [r["load"] for r in status(rig)["results"]] == ["concurrency 1"]
    assert {"Starting", "Measuring", "Succeeded"} <= {
        e["reason"] for e in rig.all(EVENTS) if e["involvedObject"]["kind"] == "Benchmark"
    }

    await rig.quiet(0.5)  # what else it needed goes after the right
    before = rig.writes()
    write(rig, "result", "{}")
    await rig.restart()
    await rig.quiet()
    assert since(rig, before) == {}


async def test_a_restart_while_it_measures_writes_nothing(rig: Rig) -> None:
    await measure(rig)
    before = rig.writes()
    for _ in range(2):
        await rig.restart()
        await rig.quiet(0.5)
    assert since(rig, before) == {}
    assert len(rig.all(JOBS)) == 1


async def test_its_target_may_come_later(rig: Rig) -> None:
    rig.api.add(BENCHMARKS, benchmark())
    await rig.start()
    await rig.until(lambda: reason(rig) == "TargetNotFound")
    rig.api.add(INFERENCE_SERVICES, service("llama"))
    await rig.until(lambda: reason(rig) == "Starting")
    assert rig.is_ready("llama")


async def test_one_at_a_time_and_the_oldest_first(rig: Rig) -> None:
    await measure(rig, benchmark("first"), benchmark("second"), benchmark("third"))
    await rig.quiet(0.5)
    assert [reason(rig, name) for name in ("second", "third")] == ["TargetBusy", "TargetBusy"]
    assert len(rig.all(JOBS)) == 1
    finish(rig)
    await rig.until(lambda: reason(rig, "second") == "Starting")
    await rig.quiet(0.5)
    assert (status(rig)["phase"], reason(rig, "third")) == ("Succeeded", "TargetBusy")
    assert len(rig.all(JOBS)) == 2


async def test_two_that_may_begin_at_the_same_moment_do_not(rig: Rig) -> None:
    for number in range(6):
        rig.api.add(BENCHMARKS, benchmark(f"b{number}"))
    rig.api.add(INFERENCE_SERVICES, service("llama"))
    await rig.start()
    await rig.until(lambda: rig.all(JOBS))
    await rig.quiet()
    assert len(rig.all(JOBS)) == 1
    assert Counter(reason(rig, f"b{n}") for n in range(6)) == {"Starting": 1, "TargetBusy": 5}


async def test_one_whose_job_is_refused_holds_nobody_up(rig: Rig) -> None:
    rig.api.add(INFERENCE_SERVICES, service("llama"))
    await rig.start()
    await rig.until(lambda: rig.is_ready("llama"))
    other = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "first-result", "namespace": "default"}}
    rig.api.add(CONFIG_MAPS, other)
    for name in ("first", "second"):
        rig.api.add(BENCHMARKS, benchmark(name))
    await rig.until(lambda: reason(rig, "second") == "Starting")
    rig.api.remove(CONFIG_MAPS, "first-result")
    await rig.until(lambda: reason(rig) == "TargetBusy", within_s=30)
    assert len(rig.all(JOBS)) == 1


async def test_a_target_that_is_deleted_ends_it(rig: Rig) -> None:
    await measure(rig)
    rig.api.remove(INFERENCE_SERVICES, "llama")
    await rig.until(lambda: status(rig).get("phase") == "Failed")
    assert reason(rig) in ("TargetGone", "TargetChanged")  # its pods may be seen to go first
    await rig.until(lambda: not rig.all(JOBS))


async def test_a_benchmark_that_is_deleted_leaves_nothing(rig: Rig) -> None:
    await measure(rig)
    rig.api.remove(BENCHMARKS, "first")
    await rig.until(lambda: not rig.all(JOBS) and not rig.all(ROLES))
    await rig.quiet()
    mine = [c for c in rig.all(CONFIG_MAPS) if names.LABEL_BENCHMARK in c["metadata"]["labels"]]
    assert mine == []


@pytest.mark.parametrize("how", ["deleted", "its target changed"])
async def test_a_job_that_is_on_its_way_out_still_loads_its_target(rig: Rig, how: str) -> None:
    await measure(rig)
    job = status(rig)["job"]
    # Its pod needs a moment to end.
    rig.api.edit(JOBS, job, lambda j: j["metadata"].update(finalizers=["foregroundDeletion"]), manager="kubectl")
    if how == "deleted":
        rig.api.remove(BENCHMARKS, "first")
    else:
        (pod,) = (p for p in rig.all(PODS) if p["metadata"]["labels"][names.LABEL_ROLE] == names.ROLE_ENGINE)
        rig.api.remove(PODS, pod["metadata"]["name"])
        await rig.until(lambda: reason(rig) == "TargetChanged")
    await rig.until(lambda: "deletionTimestamp" in (rig.api.see(JOBS, job) or {"metadata": {}})["metadata"])
    rig.api.add(BENCHMARKS, benchmark("second"))
    await rig.until(lambda: reason(rig, "second") == "TargetBusy")
    await rig.quiet(0.5)
    assert [j["metadata"]["name"] for j in rig.all(JOBS)] == [job]
    rig.api.edit(JOBS, job, lambda j: j["metadata"].update(finalizers=[]), manager="kubectl")
    await rig.until(lambda: reason(rig, "second") == "Starting")


async def test_a_job_that_has_told_its_result_holds_nobody_up(rig: Rig) -> None:
    """A container beside it, such as a service mesh's, may keep its pod alive."""
    await measure(rig)
    finish(rig)
    await rig.until(lambda: status(rig)["phase"] == "Succeeded")
    rig.api.add(BENCHMARKS, benchmark("second"))
    await rig.until(lambda: reason(rig, "second") == "Starting")
    assert len(rig.all(JOBS)) == 2


async def test_a_second_one_of_its_name_begins_anew(rig: Rig) -> None:
    await measure(rig)
    first = order(rig)
    rig.api.remove(BENCHMARKS, "first")
    await rig.until(lambda: not rig.all(JOBS))
    rig.api.add(BENCHMARKS, benchmark())
    await rig.until(lambda: reason(rig) == "Starting")
    assert order(rig).job != first.job
    write(rig, "result", result_of(first).model_dump_json(by_alias=True))
    await rig.quiet(0.5)
    assert status(rig)["phase"] == "Running"
    finish(rig)
    await rig.until(lambda: status(rig)["phase"] == "Succeeded")


async def test_a_config_map_of_somebody_else_is_left_alone_and_nothing_is_measured(rig: Rig) -> None:
    other = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "first-result", "namespace": "default"}}
    rig.api.add(CONFIG_MAPS, other)
    rig.api.add(INFERENCE_SERVICES, service("llama"))
    rig.api.add(BENCHMARKS, benchmark())
    await rig.start()
    await rig.until(lambda: reason(rig) == "NameConflict")
    await rig.quiet(0.5)
    assert rig.all(JOBS) == []
    rig.api.remove(CONFIG_MAPS, "first-result")
    await rig.until(lambda: rig.all(JOBS), within_s=30)


async def test_an_order_that_was_written_before_its_target_changed_is_written_anew(rig: Rig) -> None:
    rig.api.add(INFERENCE_SERVICES, service("llama"))
    await rig.start()
    await rig.until(lambda: rig.is_ready("llama"))
    rig.api.fault(verb="create", kind=JOBS, times=None, status=403, reason="Forbidden", message="exceeded quota: jobs")
    rig.api.add(BENCHMARKS, benchmark())
    await rig.until(lambda: reason(rig) == "QuotaExceeded")
    written = status(rig)["job"]

    def asked() -> Any:
        return Order.model_validate_json((rig.api.see(CONFIG_MAPS, written) or {})["data"][ORDER_FILE]).targets[0]

    before = asked().metrics_urls
    for pod in rig.all(PODS):
        rig.api.remove(PODS, pod["metadata"]["name"])  # others come, with other addresses
    await rig.until(lambda: asked().metrics_urls != before and reason(rig) == "QuotaExceeded")
    rig.api.faults.clear()
    await rig.until(lambda: rig.all(JOBS), within_s=30)
    assert [job["metadata"]["name"] for job in rig.all(JOBS)] == [written]


async def test_what_its_job_needs_comes_back_and_what_it_wrote_is_never_taken_back(rig: Rig) -> None:
    await measure(rig)
    write(rig, "progress", "kept")
    rig.api.remove(ROLES, "first-benchmark")
    await rig.until(lambda: rig.all(ROLES))
    await rig.quiet(0.5)
    config = rig.api.see(CONFIG_MAPS, "first-result")
    assert config is not None
    assert config["data"] == {"progress": "kept"}
    assert config["metadata"]["labels"][names.LABEL_ROLE] == names.ROLE_BENCHMARK


@pytest.mark.parametrize("kept", [1, 2])
async def test_the_oldest_go_when_there_are_more_than_are_kept(rig: Rig, kept: int) -> None:
    rig.defaults = Defaults(benchmarks=BenchmarkDefaults(history_limit=kept))
    await measure(rig)
    finish(rig)
    await rig.until(lambda: status(rig)["phase"] == "Succeeded")
    for name in ("second", "third"):
        await asyncio.sleep(1)  # times are told in whole seconds
        rig.api.add(BENCHMARKS, benchmark(name))
        await rig.until(lambda name=name: reason(rig, name) == "Starting")  # type: ignore[misc]
        finish(rig, name)
        await rig.until(lambda name=name: status(rig, name).get("phase") == "Succeeded")  # type: ignore[misc]
    await rig.until(lambda: len(rig.all(BENCHMARKS)) == kept)
    await rig.quiet(0.5)
    assert sorted(b["metadata"]["name"] for b in rig.all(BENCHMARKS)) == sorted(["third", "second"][:kept])


async def test_one_goes_when_its_time_is_over(rig: Rig) -> None:
    await measure(rig, benchmark(ttlAfterFinished="1s"))
    finish(rig)
    await rig.until(lambda: rig.api.see(BENCHMARKS, "first") is None)


async def test_without_the_definition_services_work_and_with_it_later_benchmarks_do(rig: Rig) -> None:
    rig.api.add(INFERENCE_SERVICES, service("llama"))
    rig.api.fault(verb="list", kind=BENCHMARKS, times=None, status=404, reason="NotFound", message="no such kind")
    await rig.start()
    await rig.until(lambda: rig.is_ready("llama"))
    rig.api.faults.clear()
    rig.api.add(BENCHMARKS, benchmark())
    await rig.until(lambda: reason(rig) == "Starting", within_s=30)
