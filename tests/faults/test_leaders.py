"""Two replicas: one leads, and what it is that ends that (cases 2, 21 to 25, and high availability)."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import yaml

from draftmark.cluster.kinds import EVENTS, INFERENCE_SERVICES, LEASES
from tests.faults.cluster import Cluster, kubeconfig, service
from tests.faults.scenarios import CREATE, ROLL, Run, Scenarios, each

#: A quarter of the operator's own, so that a pause of eight seconds is one of half a minute.
_LEASE = {"duration_s": 4.0, "renew_deadline_s": 2.5, "retry_s": 0.4, "margin_s": 0.7}
#: Writes that the change of leaders explains.
_ANEW = 8
#: Seconds from the death of a leader until another one leads, with the operator's own Lease.
_FAILOVER_S = 20.0


async def _roll(scenarios: Scenarios, cluster: Cluster, number: int, strike: Any, skews: tuple[float, float]) -> Run:
    """A rollout with two replicas; the first leads. `strike` is called at a write of it."""
    snapshot = await scenarios.at_rest(ROLL)
    assert snapshot is not None
    cluster.restore(snapshot)
    cluster.start("a", skew_s=skews[0])
    await cluster.settled()
    cluster.start("b", skew_s=skews[1])
    begun, events, proofs = len(cluster.api.done), cluster.events(), len(cluster.gateways.proofs)
    cluster.api.fault(verb="write", client="operator-0", nth=number, **strike)
    ROLL.change(cluster)
    await cluster.until(lambda: (leader := cluster.leader()) is not None and leader is not cluster.processes[0])
    cluster.processes[0].send(signal.SIGCONT)
    await cluster.settled(45, holds=lambda: ROLL.holds(cluster))
    return Run.of(cluster, begun, events=events, proofs=proofs)


async def test_a_paused_leader_that_wakes_up_writes_nothing(scenarios: Scenarios) -> None:
    """Case 25: SIGSTOP at a write until another one leads and longer; it ends without one more write."""
    usual = await scenarios.usual(ROLL)

    async def paused_at(number: int) -> list[str]:
        async with scenarios.cluster(f"paused-{number}", lease=_LEASE) as cluster:
            strike = {"before": lambda: cluster.processes[0].send(signal.SIGSTOP)}
            run = await _roll(scenarios, cluster, number, strike, (0.0, 0.0))
            assert await cluster.processes[0].wait(20) == 1
            # The write that was on its way when it was stopped is the last one of it.
            assert [w for w in run.writes if w.client == "operator-0"] == list(run.writes[:number])
            return run.differs_from(usual, writes=_ANEW)

    problems = await each((2, 5, 7), paused_at)
    assert not problems, "\n".join(problems)


async def test_clocks_differ(scenarios: Scenarios) -> None:
    """Case 22: the second replica's clock is ten minutes ahead or behind; it takes over in the middle of a rollout."""
    usual = await scenarios.usual(ROLL)

    async def differ_by(skew_s: float) -> list[str]:
        async with scenarios.cluster(f"skew-{skew_s}", lease=_LEASE) as cluster:

            def kill() -> None:
                cluster.processes[0].kill()

            run = await _roll(scenarios, cluster, 7, {"before": kill, "reset": True}, (0.0, skew_s))
            return run.differs_from(usual, writes=_ANEW)

    problems = await each((600.0, -600.0), differ_by)
    assert not problems, "\n".join(problems)


async def test_only_the_other_replica_reaches_the_api_server(scenarios: Scenarios) -> None:
    """Case 23: the leader is cut off, ends, and the standby goes on."""
    usual = await scenarios.usual(ROLL)
    async with scenarios.cluster("cut-off", lease=_LEASE) as cluster:

        def cut_off() -> None:
            cluster.api.faults.clear()
            cluster.api.fault(client="operator-0", times=None, reset=True)

        run = await _roll(scenarios, cluster, 7, {"before": cut_off, "reset": True}, (0.0, 0.0))
        assert await cluster.processes[0].wait(20) == 1
        assert run.differs_from(usual, writes=_ANEW) == []


async def test_the_lease_is_taken_while_writing(scenarios: Scenarios) -> None:
    """Case 21: somebody else holds it from one write to the next; the process ends at its next renewal."""
    usual = await scenarios.usual(ROLL)
    async with scenarios.cluster("taken", lease=_LEASE) as cluster:

        def take() -> None:
            cluster.api.edit(
                LEASES, "draftmark-operator", lambda lease: lease["spec"].update(holderIdentity="somebody"), "ops"
            )

        async def wait() -> None:
            assert await cluster.processes[0].wait(10) == 1

        run = await scenarios.run(
            cluster, ROLL, wait, arm=lambda: cluster.api.fault(verb="write", nth=7, before=take, latency_s=3.0)
        )
        assert run.differs_from(usual, writes=_ANEW) == []


# The program itself


class Program:
    """`draftmark run`, as the image starts it, with the operator's own Lease."""

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


async def test_a_standby_leads_within_twenty_seconds(scenarios: Scenarios) -> None:
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
