"""Two replicas: one leads, and what it is that ends that (cases 21 to 25)."""

import asyncio
import signal
from typing import Any

from draftmark.cluster.kinds import CONFIG_MAPS, LEASES, NETWORK_POLICIES, PODS
from tests.faults.cluster import Cluster
from tests.faults.operator_process import OperatorProcess
from tests.faults.scenarios import (
    CREATE,
    DELETE,
    ROLL,
    Run,
    Scenarios,
    each,
)

#: A quarter of the operator's own, so that a pause of eight seconds is one of half a minute.
_LEASE = {"duration_s": 4.0, "renew_deadline_s": 2.5, "retry_s": 0.4, "margin_s": 0.7}
#: Such a Lease is lost to a busy machine, too, before the write at which something shall happen: then it is tried anew.
_TRIES = 3
#: Writes that the change of leaders explains.
_ANEW = 8
#: Writes of a version that takes over from another one: the gateway's configuration and its pods, and what of it is told.
_OF_ANOTHER_VERSION = 8
#: Writes of two that both lead, until they back off.
_FIGHT = 40


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
        for attempt in range(_TRIES):
            async with scenarios.cluster(f"paused-{number}-{attempt}", lease=_LEASE) as cluster:
                struck: list[bool] = []

                def pause(cluster: Cluster = cluster, struck: list[bool] = struck) -> None:
                    struck.append(True)
                    cluster.processes[0].send(signal.SIGSTOP)

                run = await _roll(scenarios, cluster, number, {"before": pause}, (0.0, 0.0))
                assert await cluster.processes[0].wait(20) == 1
                # What was on its way when it was stopped is the last of it.
                clients = [w.client for w in run.writes]
                assert clients == sorted(clients)
                if struck:
                    assert clients[number - 1 : number] == ["operator-0"]
                    return run.differs_from(usual, writes=_ANEW)
        return [f"{_TRIES} times it had lost its Lease before that write"]

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


async def test_two_versions_take_turns(scenarios: Scenarios) -> None:
    """Case 24: an upgrade with a standby, a leader of before that was only paused, a way back, and the upgrade again. Each
    brings the children to its own form once, and the engines run on."""
    usual, snapshot = await scenarios.usual(CREATE), await scenarios.at_rest(DELETE)
    assert snapshot is not None
    async with scenarios.cluster("versions", lease=_LEASE) as cluster:
        cluster.restore(snapshot)
        older = cluster.start("older", is_older=True)
        await cluster.settled()
        policies = len(cluster.all(NETWORK_POLICIES))
        pods = {p["metadata"]["uid"] for p in cluster.all(PODS)}
        forms = [_form(cluster)]

        async def leads(version: OperatorProcess) -> int:
            """Writes until it has done all it wants to."""
            begun = len(cluster.api.done)
            await cluster.until(lambda: cluster.leader() is version)
            await cluster.settled(holds=cluster.is_ready)
            forms.append(_form(cluster))
            assert {w.client for w in cluster.writes(begun)} <= {cluster.client_of(version)}
            return len(cluster.writes(begun))

        newer = cluster.start("newer")
        older.send(signal.SIGSTOP)
        assert await leads(newer) <= _OF_ANOTHER_VERSION
        # It wakes up beside the other one, ends, and stands by from then on.
        begun = len(cluster.api.done)
        older.send(signal.SIGCONT)
        assert await older.wait(20) == 1
        await cluster.until(lambda: len(cluster.processes) == 3)
        await cluster.settled(holds=cluster.is_ready)
        assert cluster.writes(begun) == []

        # Who is told to stop from here on is not started again: its Deployment has the other version's pods.
        cluster.restarts, older = False, cluster.operator
        newer.send(signal.SIGTERM)
        assert await leads(older) <= _OF_ANOTHER_VERSION
        newer = cluster.start("newer")
        older.send(signal.SIGTERM)
        assert await leads(newer) <= _OF_ANOTHER_VERSION
        assert forms[0] == forms[2] != forms[1] == forms[3]
        assert len(cluster.all(NETWORK_POLICIES)) == policies, "the one before does not know them"
        assert {p["metadata"]["uid"] for p in cluster.all(PODS)} == pods
        assert Run.of(cluster).is_alike(usual) == []


def _form(cluster: Cluster) -> Any:
    """What the versions do not agree upon."""
    [config] = cluster.all(CONFIG_MAPS)
    return config["data"]


async def test_two_versions_that_both_lead_do_not_fight_without_end(scenarios: Scenarios) -> None:
    """Case 24: with a Lease each, as two installations have. After a few rounds each backs off and says so; when the older
    one has gone what the newer one wants is there."""
    usual, snapshot = await scenarios.usual(CREATE), await scenarios.at_rest(DELETE)
    assert snapshot is not None
    constants = {"draftmark.cluster.contention:_FIRST_WAIT_S": 3.0}
    async with scenarios.cluster("fight", constants=constants) as cluster:
        cluster.restore(snapshot)
        newer = cluster.start("newer")
        await cluster.settled()
        begun = len(cluster.api.done)
        older = cluster.start("older", is_older=True, namespace="elsewhere")
        await cluster.until(lambda: cluster.condition("Contended")["status"] == "True")
        await asyncio.sleep(2.0)
        fought = len(cluster.writes(begun))
        assert fought <= _FIGHT
        cluster.restarts = False
        older.send(signal.SIGTERM)
        assert await older.wait(15) == 0
        await cluster.settled(holds=lambda: cluster.leader() is newer and Run.of(cluster).is_alike(usual) == [])


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
