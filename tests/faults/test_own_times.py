"""Nothing is shorter than in a cluster: the operator's own Lease, a pause of a minute, answers that take seconds (cases 1, 2,
12, 22 and 25). It is waiting, nearly all of it, so all of it is done at the same time."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import pytest
import yaml

from draftmark.api import names
from draftmark.cluster.kinds import EVENTS, INFERENCE_SERVICES
from tests.faults.cluster import Cluster, kubeconfig, service
from tests.faults.scenarios import (
    CREATE,
    ROLL,
    ROLL_IN_TIME,
    SCALE_UP,
    UPDATE_IN_TIME,
    WITHIN_S,
    Run,
    Scenario,
    Scenarios,
    each,
)

#: Seconds from the death of a leader until another one leads.
_FAILOVER_S: Final = 20.0
#: Seconds for which a leader is paused.
_PAUSE_S: Final = 60.0
#: Seconds of each answer of a slow API server. Its end state is 20 or so of them away.
_ANSWER_S: Final = 3.0
#: Writes that the change of leaders explains.
_ANEW: Final = 8
#: Statuses and Events that tell of the steps in between.
_TOLD: Final = 4


class Program:
    """`draftmark run`, as the image starts it."""

    def __init__(self, cluster: Cluster, number: int) -> None:
        #: Of its requests, and its name in the Lease.
        self.token = f"program-{number}"
        file = cluster.folder / f"program-{number}.yaml"
        file.write_text(yaml.safe_dump(kubeconfig(cluster.api.url, token=self.token)))
        self.log = (cluster.folder / f"program-{number}.log").open("w")
        arguments = ["--kubeconfig", str(file), "--identity", self.token, "--namespace", "ops", "--http-port", "0"]
        command = [sys.executable, "-m", "draftmark.cli", "run", *arguments]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        self.process = subprocess.Popen(command, stdout=self.log, stderr=subprocess.STDOUT, env=environment)

    def close(self) -> None:
        self.process.kill()
        self.process.wait(10)
        self.log.close()


@contextmanager
def programs(cluster: Cluster, count: int) -> Iterator[list[Program]]:
    started: list[Program] = []
    try:
        for number in range(count):
            started.append(Program(cluster, number))
        yield started
    finally:
        for program in started:
            program.close()


async def _a_standby_leads(scenarios: Scenarios) -> list[str]:
    """High availability and case 1: the real program, SIGKILL of the leader at a write; then SIGTERM (case 2)."""
    async with scenarios.cluster("programs") as cluster:
        with programs(cluster, 2) as both:
            await cluster.until(cluster.lease_holder)
            [leader] = [p for p in both if cluster.lease_holder().startswith(f"{p.token}_")]
            [other] = [p for p in both if p is not leader]
            await cluster.until(lambda: cluster.api.is_watched(INFERENCE_SERVICES, leader.token))
            cluster.api.fault(verb="write", client=leader.token, nth=5, after=leader.process.kill, lost_answer=True)
            cluster.api.add(INFERENCE_SERVICES, service())
            await cluster.until(lambda: leader.process.poll() is not None)
            began = time.monotonic()
            await cluster.until(lambda: cluster.api.is_watched(INFERENCE_SERVICES, other.token), _FAILOVER_S)
            assert time.monotonic() - began <= _FAILOVER_S
            # Its gateways listen on a port that is not there, so the service comes as far as that.
            await cluster.until(lambda: (cluster.see().get("status") or {}).get("readyReplicas") == 1)
            made = [(w.kind, w.name) for w in cluster.writes() if w.verb == "create" and w.kind != EVENTS]
            assert len(made) == len(set(made)) == len((await scenarios.usual(CREATE)).created)
            other.process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(other.process.wait, 15) == 0
            assert cluster.lease_holder() == ""
    return []


async def _a_paused_leader_writes_nothing(scenarios: Scenarios) -> list[str]:
    """Case 25: SIGSTOP at a write of a rollout, and SIGCONT when that is long over."""
    usual, snapshot = await scenarios.usual(ROLL), await scenarios.at_rest(ROLL)
    assert snapshot is not None
    async with scenarios.cluster("paused", lease={}) as cluster:
        cluster.restore(snapshot)
        paused = cluster.start("a")
        await cluster.settled()
        cluster.start("b")
        begun, events, proofs = len(cluster.api.done), cluster.events(), len(cluster.gateways.proofs)
        at: list[float] = []

        def pause() -> None:
            at.append(time.monotonic())
            paused.send(signal.SIGSTOP)

        cluster.api.fault(verb="write", nth=5, before=pause)
        ROLL.change(cluster)
        await cluster.until(lambda: cluster.leader() not in (paused, None), _FAILOVER_S + 5)
        assert time.monotonic() - at[0] <= _FAILOVER_S
        await cluster.settled(WITHIN_S, holds=lambda: ROLL.holds(cluster))
        run = Run.of(cluster, begun, events=events, proofs=proofs)
        # What was on its way when it was stopped is the last of it.
        clients = [w.client for w in run.writes]
        assert clients == sorted(clients)
        assert clients[4:5] == ["operator-0"]

        await asyncio.sleep(max(at[0] + _PAUSE_S - time.monotonic(), 0.0))
        ended = len(cluster.api.done)
        paused.send(signal.SIGCONT)
        assert await paused.wait(20) == 1
        await cluster.settled(holds=lambda: ROLL.holds(cluster))
        assert not [done for done in cluster.api.done[ended:] if done.client == "operator-0"]
        assert cluster.writes(ended) == []
        return run.differs_from(usual, writes=_ANEW)


async def _each_answer_takes_seconds(scenarios: Scenarios) -> list[str]:
    """Case 12: from the start of the process on; the Lease is kept, and nothing is asked twice."""
    usual = await scenarios.usual(SCALE_UP)
    async with scenarios.cluster("slow-answers") as cluster:
        run = await scenarios.run(
            cluster,
            SCALE_UP,
            arm=lambda: cluster.api.fault(times=None, latency_s=_ANSWER_S),
            at_rest=False,
            within_s=WITHIN_S,
        )
        assert len(cluster.processes) == 1
        assert cluster.api.most_in_flight <= 64
        return run.differs_from(usual, writes=4)


async def _a_candidate_starts(cluster: Cluster) -> None:
    await cluster.until(lambda: "progressedAt" in cluster.see()["status"]["revisions"][0])


async def _gateways_settle(cluster: Cluster) -> None:
    """They have reloaded, and the operator counts the time that requests from before may wait."""
    await cluster.until(lambda: any(len(state["revisions"]) == 2 for state in cluster.gateways.working_with.values()))
    await asyncio.sleep(0.4)


@dataclass(frozen=True, kw_only=True)
class _ClockIsSet:
    """Case 22: by an hour, in the middle of a rollout with a deadline of minutes. Nobody else leads, nothing is withdrawn,
    written again or waited for."""

    by_s: float
    scenario: Scenario
    moment: Callable[[Cluster], Awaitable[None]]
    #: Numbers of processes; the first leads.
    whose: tuple[int, ...]

    @property
    def name(self) -> str:
        return f"clock {self.by_s:+.0f} s, {self.scenario.name}, {self.whose}"

    async def __call__(self, scenarios: Scenarios) -> list[str]:
        usual, snapshot = await scenarios.usual(self.scenario), await scenarios.at_rest(self.scenario)
        assert snapshot is not None
        async with scenarios.cluster(self.name, waiting={names.ROLE_ENGINE}) as cluster:
            cluster.restore(snapshot)
            cluster.start("a", skew_s=0.0)
            await cluster.settled()
            cluster.start("b", skew_s=0.0)
            begun, events, proofs = len(cluster.api.done), cluster.events(), len(cluster.gateways.proofs)
            self.scenario.change(cluster)
            await self.moment(cluster)
            for number in self.whose:
                cluster.processes[number].set_clock(self.by_s)
            await asyncio.sleep(1.0)
            cluster.let_start(names.ROLE_ENGINE)
            await cluster.settled(WITHIN_S, holds=lambda: self.scenario.holds(cluster))
            # Longer than the other one would wait for a Lease that is not renewed.
            await asyncio.sleep(_FAILOVER_S)
            await cluster.settled(holds=lambda: self.scenario.holds(cluster))
            run = Run.of(cluster, begun, events=events, proofs=proofs)
            writers = {w.client for w in run.writes}
            others = [f"written by {writers}"] if writers != {"operator-0"} else []
            ends = [f"ended: {p.exit_status}" for p in cluster.processes if p.exit_status is not None]
            return [*others, *ends, *run.differs_from(usual, writes=_TOLD)]


_CLOCKS: Final = [
    _ClockIsSet(by_s=by_s, scenario=scenario, moment=moment, whose=whose)
    for by_s in (3600.0, -3600.0)
    for scenario, moment in ((ROLL_IN_TIME, _a_candidate_starts), (UPDATE_IN_TIME, _gateways_settle))
    for whose in ((0,), (1,), (0, 1))
]
_CASES: Final[Mapping[str, Callable[[Scenarios], Awaitable[list[str]]]]] = {
    "a standby leads within twenty seconds": _a_standby_leads,
    "a leader that was paused for a minute writes nothing": _a_paused_leader_writes_nothing,
    "each answer takes three seconds": _each_answer_takes_seconds,
    **{clock.name: clock for clock in _CLOCKS},
}


@pytest.mark.alone
# A pause of a minute and what follows are half of what a test has otherwise.
@pytest.mark.timeout(240)
async def test_it_takes_its_time(scenarios: Scenarios) -> None:
    problems = await each(_CASES, lambda name: _CASES[name](scenarios), at_once=len(_CASES))
    assert not problems, "\n".join(problems)
