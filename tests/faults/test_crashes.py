"""The operator's process ends at the worst moments (cases 1 to 4)."""

import asyncio
import signal
import time
from collections import Counter
from dataclasses import dataclass

import pytest

from draftmark.cluster.kinds import EVENTS, INFERENCE_SERVICES, Kind
from tests.fake_api import Done
from tests.fake_api.faults import WRITES, Fault
from tests.faults.cluster import Cluster
from tests.faults.operator_process import OperatorProcess
from tests.faults.scenarios import (
    BENCHMARK,
    CREATE,
    DELETE,
    ROLL,
    SCALE_DOWN,
    SCALE_UP,
    UPDATE,
    WITHIN_S,
    WRITING,
    Run,
    Scenario,
    Scenarios,
    each,
)

#: Writes that each end of a process explains: what it would have kept in mind it asks for again, so a status that is on its
#: way may be told in other steps.
_ANEW = 4
#: Writes of one more step of the traffic: the gateway's configuration, its two pods and the status. Replicas that become
#: ready one after the other are two steps, and together they are one.
_A_STEP = 4
#: Cases that run at the same time. Each starts three processes, which is computing: more cases are no sooner done (of 24 tests
#: in two processes, 4 took 116 s and 16 took 123 s), but each of them is late then where other tests have the CPU.
_AT_ONCE = 4
#: Seconds from SIGTERM to SIGKILL, as the chart's pod has them.
_STOPS_WITHIN_S = 30.0


@pytest.mark.parametrize("scenario", WRITING, ids=lambda s: s.name)
async def test_killed_at_any_write(scenarios: Scenarios, scenario: Scenario) -> None:
    """Case 1: SIGKILL before each write is done; the next process tries it again, and is killed when it is done and not
    answered. A third one goes on from there."""
    usual = await scenarios.usual(scenario)
    hit: list[int] = []

    async def killed_at(number: int) -> list[str]:
        async with scenarios.cluster(f"{scenario.name}-{number}") as cluster:

            def kill() -> None:
                cluster.kill()
                cluster.api.fault(verb="write", after=kill_again, lost_answer=True)

            def kill_again() -> None:
                hit.append(number)
                cluster.kill()

            def arm() -> None:
                cluster.api.fault(verb="write", nth=number, before=kill, reset=True)

            run = await scenarios.run(cluster, scenario, arm=arm, at_rest=False)
            return run.differs_from(usual, writes=2 * _ANEW + _A_STEP)

    problems = await each(range(1, len(usual.writes) + 1), killed_at, at_once=_AT_ONCE)
    assert not problems, "\n".join(problems)
    assert len(hit) >= len(_in_every_run(usual))


async def test_killed_at_any_write_of_a_benchmark(scenarios: Scenarios) -> None:
    """Case 1: SIGKILL before every other write is done, and after the others are, before their answer."""
    usual = await scenarios.usual(BENCHMARK)
    hit: list[int] = []

    async def killed_at(number: int) -> list[str]:
        async with scenarios.cluster(f"benchmark-{number}") as cluster:

            def kill() -> None:
                hit.append(number)
                cluster.kill()

            def arm() -> None:
                if number % 2:
                    cluster.api.fault(verb="write", nth=number, before=kill, reset=True)
                else:
                    cluster.api.fault(verb="write", nth=number, after=kill, lost_answer=True)

            run = await scenarios.run(cluster, BENCHMARK, arm=arm, at_rest=False)
            return run.differs_from(usual, writes=_ANEW)

    problems = await each(range(1, len(usual.writes) + 1), killed_at, at_once=_AT_ONCE)
    assert not problems, "\n".join(problems)
    assert len(hit) >= len(_in_every_run(usual))


def _in_every_run(usual: Run) -> list[Done]:
    """The writes that a run is sure to have. Statuses may fall together, and then one of them tells what several would."""
    return [write for write in usual.writes if write.kind != EVENTS and write.subresource != "status"]


async def test_killed_at_any_step_of_a_deletion(scenarios: Scenarios) -> None:
    """Case 1: a deletion is the garbage collector's, so the operator dies at each object that it takes."""
    usual = await scenarios.usual(DELETE)
    assert usual.writes == ()
    steps = len((await scenarios.at_rest(DELETE)).objects)  # type: ignore[union-attr]

    async def killed_after(number: int) -> list[str]:
        async with scenarios.cluster(f"delete-{number}") as cluster:

            async def kill() -> None:
                begun = cluster.api.storage.version
                while cluster.api.storage.version < begun + number:  # noqa: ASYNC110 - each step is a turn of this loop
                    await asyncio.sleep(0)
                cluster.kill()

            return (await scenarios.run(cluster, DELETE, kill)).differs_from(usual, writes=0)

    problems = await each(range(steps), killed_after, at_once=_AT_ONCE)
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("scenario", [CREATE, UPDATE, SCALE_UP, SCALE_DOWN, ROLL], ids=lambda s: s.name)
async def test_told_to_stop_at_any_write(scenarios: Scenarios, scenario: Scenario) -> None:
    """Case 2: SIGTERM while each write is under way; the Lease is free afterwards, and the next process goes on."""
    usual = await scenarios.usual(scenario)
    hit: list[int] = []

    async def stopped_at(number: int) -> list[str]:
        asked: list[float] = []
        ended: list[tuple[int | None, bool, str]] = []

        def stop() -> None:
            asked.append(time.monotonic())
            cluster.operator.send(signal.SIGTERM)

        def see_end(process: OperatorProcess) -> None:
            is_in_time = time.monotonic() - asked[0] < _STOPS_WITHIN_S
            ended.append((process.exit_status, is_in_time, cluster.lease_holder()))

        async with scenarios.cluster(f"{scenario.name}-stop-{number}", at_end=see_end) as cluster:

            def arm() -> None:
                cluster.api.fault(verb="write", nth=number, before=stop, latency_s=0.05)

            run = await scenarios.run(cluster, scenario, arm=arm, at_rest=False)
            hit.extend(number for _ in asked)
            ends = [f"ended so: {found}" for found in ended if found != (0, True, "")]
            return [*ends, *run.differs_from(usual, writes=_ANEW + _A_STEP)]

    problems = await each(range(1, len(usual.writes) + 1), stopped_at, at_once=_AT_ONCE)
    assert not problems, "\n".join(problems)
    assert len(hit) >= len(_in_every_run(usual))


async def test_killed_in_any_of_the_first_lists(scenarios: Scenarios) -> None:
    """Case 3: out of memory while the caches are filled, with an edit to carry out."""
    usual = await scenarios.usual(UPDATE)
    hit: list[int] = []

    async def killed_at(number: int) -> list[str]:
        async with scenarios.cluster(f"list-{number}") as cluster:

            def kill() -> None:
                hit.append(number)
                cluster.kill()

            async def start_again() -> None:
                cluster.kill()
                cluster.api.fault(verb="list", nth=number, after=kill, lost_answer=True)

            return (await scenarios.run(cluster, UPDATE, start_again)).differs_from(usual, writes=_ANEW)

    async with scenarios.cluster("lists") as cluster:
        cluster.start()
        await cluster.settled()
        lists = cluster.api.count("list")
    problems = await each(range(1, lists + 1), killed_at, at_once=_AT_ONCE)
    assert not problems, "\n".join(problems)
    assert len(hit) == lists


async def test_a_crash_loop_writes_nothing(scenarios: Scenarios) -> None:
    """Case 4: killed ever later in its start, with nothing to do."""
    snapshot = await scenarios.at_rest(ROLL)
    assert snapshot is not None
    async with scenarios.cluster("crash-loop") as cluster:
        cluster.restore(snapshot)
        for number in (2, 5, 10, 15, 20, 25, 30):
            fault = cluster.api.fault(nth=number, before=cluster.kill, reset=True)
            if not cluster.processes:
                cluster.start()
            starts = len(cluster.processes)
            await cluster.until(lambda n=starts: len(cluster.processes) > n)  # type: ignore[misc]
            assert fault.seen >= number
            cluster.api.faults.clear()
        await cluster.settled(holds=cluster.is_ready)
        assert cluster.writes() == []


@dataclass(kw_only=True)
class OfTheDead(Fault):
    """Requests that were under way when their process was killed do not arrive any more."""

    dead: set[str]

    def hits(self, verb: str, kind: Kind | None, name: str | None, client: str = "") -> bool:
        return verb in WRITES and client in self.dead


@pytest.mark.parametrize("scenario", WRITING, ids=lambda s: s.name)
async def test_each_process_lives_for_one_write(scenarios: Scenarios, scenario: Scenario) -> None:
    """Cases 1 and 4: killed when its first write is done and not answered. So each write must bring the next process
    further: nothing may be taken back, and nothing that only one process knows may be waited for again and again."""
    usual = await scenarios.usual(scenario)
    async with scenarios.cluster(f"one-each-{scenario.name}") as cluster:
        dead: set[str] = set()

        def kill() -> None:
            dead.add(cluster.client_of(cluster.operator))
            cluster.kill()

        def arm() -> None:
            cluster.api.faults.add(OfTheDead(dead=dead, reset=True))
            cluster.api.fault(verb="write", times=None, after=kill, lost_answer=True)

        run = await scenarios.run(cluster, scenario, arm=arm, at_rest=False, within_s=WITHIN_S)
        assert Counter(w.client for w in run.writes) == dict.fromkeys(dead, 1)
        assert run.differs_from(usual, writes=_ANEW) == []


async def test_the_scenarios_are_what_they_say(scenarios: Scenarios) -> None:
    """A run without a fault: each object once, and nothing at all for the same once more."""
    for scenario in (*WRITING, DELETE):
        usual = await scenarios.usual(scenario)
        assert max([0, *usual.created.values(), *usual.deleted.values()]) <= 1
        assert max([0, *usual.proofs.values()]) <= 1
    assert len((await scenarios.usual(CREATE)).writes) >= 20
    assert (await scenarios.usual(ROLL)).deleted
    async with scenarios.cluster("again") as cluster:
        await scenarios.run(cluster, ROLL)
        before = len(cluster.api.done)
        cluster.kill()
        await cluster.settled()
        assert cluster.writes(before) == []
        assert _observed(cluster) == 2


def _observed(cluster: Cluster) -> int:
    found: int = (cluster.api.see(INFERENCE_SERVICES, "llama") or {})["status"]["observedGeneration"]
    return found
