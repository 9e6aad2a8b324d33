"""Watches expire, lose, repeat and delay events, and objects go meanwhile (cases 15 to 20)."""

import asyncio

import pytest

from draftmark.cluster.kinds import (
    DEPLOYMENTS,
    EVENTS,
    INFERENCE_SERVICES,
    LEASES,
    PODS,
    SERVICES,
    Kind,
    child_kinds,
)
from tests.faults.cluster import Cluster, service
from tests.faults.scenarios import CREATE, DELETE, ROLL, UPDATE, Run, Scenario, Scenarios, each
from tests.specs import LASTING_KINDS

_WATCHED = (INFERENCE_SERVICES, *child_kinds(), PODS)
#: Statuses and Events that tell of steps in between, which are seen one by one where events are late or come anew.
_TOLD = 8


@pytest.mark.parametrize("how", ["in the stream", "as a status"])
async def test_a_watch_expires(scenarios: Scenarios, how: str) -> None:
    """Case 15: 410 for one kind in the middle of a rollout. kopf cannot live with a status, so that process ends."""
    usual = await scenarios.usual(ROLL)

    async def expires(kind: Kind) -> list[str]:
        async with scenarios.cluster(f"expires-{kind.plural}") as cluster:

            async def expire() -> None:
                await cluster.until(lambda: len(cluster.writes()) > 5)
                if how == "in the stream":
                    await cluster.api.fail_watches(kind, 410, "Expired")
                else:
                    cluster.api.fault(verb="watch", kind=kind, status=410, reason="Expired")
                    cluster.api.cut_watches(kind)

            return (await scenarios.run(cluster, ROLL, expire)).differs_from(usual, writes=_TOLD)

    problems = await each(_WATCHED, expires)
    assert not problems, "\n".join(problems)


async def _gap(cluster: Cluster, kind: Kind) -> None:
    """The watches of a kind break, and are let in no more until the faults are cleared."""
    cluster.api.fault(verb="watch", kind=kind, status=503, times=None)
    cluster.api.fault(verb="list", kind=kind, status=503, times=None)
    cluster.api.cut_watches(kind)
    await asyncio.sleep(0.1)


async def _end_gap(cluster: Cluster, kind: Kind) -> None:
    """What happened meanwhile is in no history any more."""
    cluster.api.storage.compact(kind)
    cluster.api.faults.clear()


@pytest.mark.parametrize("kind", [DEPLOYMENTS, SERVICES, PODS], ids=lambda k: k.kind)
async def test_something_goes_while_nobody_watches(scenarios: Scenarios, kind: Kind) -> None:
    """Case 16: a child or a pod is deleted, and the watch goes on after that."""
    usual, snapshot = await scenarios.usual(CREATE), await scenarios.at_rest(DELETE)
    assert snapshot is not None
    async with scenarios.cluster(f"gap-{kind.plural}") as cluster:
        cluster.restore(snapshot)
        cluster.start()
        await cluster.settled()
        await _gap(cluster, kind)
        before = {obj["metadata"]["uid"] for obj in cluster.all(kind)}
        for name in [obj["metadata"]["name"] for obj in cluster.all(kind)]:
            cluster.api.remove(kind, name)
        await _end_gap(cluster, kind)

        def is_back() -> bool:
            now = {obj["metadata"]["uid"] for obj in cluster.all(kind)}
            return len(now) == len(before) and not before & now

        await cluster.settled(holds=lambda: is_back() and cluster.is_ready())
        assert Run.of(cluster).is_alike(usual) == []


async def test_a_service_goes_while_nobody_watches(scenarios: Scenarios) -> None:
    """Case 16: kopf never tells of it; the children that the garbage collector takes are not made again."""
    usual = await scenarios.usual(DELETE)
    async with scenarios.cluster("gap-parent") as cluster:
        snapshot = await scenarios.at_rest(DELETE)
        assert snapshot is not None
        cluster.restore(snapshot)
        cluster.start()
        await cluster.settled()
        begun = len(cluster.api.done)
        await _gap(cluster, INFERENCE_SERVICES)
        cluster.api.remove(INFERENCE_SERVICES, "llama")
        await cluster.until(lambda: not cluster.end_state())
        await _end_gap(cluster, INFERENCE_SERVICES)
        await cluster.settled()
        assert cluster.end_state() == usual.end_state
        assert cluster.writes(begun) == []


async def test_events_are_repeated_swapped_and_late(scenarios: Scenarios) -> None:
    """Case 17: all events of all kinds, in one way each."""

    async def faulty(point: tuple[str, Scenario]) -> list[str]:
        what, scenario = point
        usual = await scenarios.usual(scenario)
        rule = {"late_s": 0.3} if what == "late" else {what: True}
        async with scenarios.cluster(f"{scenario.name}-{what}") as cluster:
            run = await scenarios.run(cluster, scenario, arm=lambda: cluster.api.fault_events(times=None, **rule))
            # Where all are late, each step of each pod is told for itself.
            return run.differs_from(usual, writes=2 * _TOLD if what == "late" else _TOLD)

    problems = await each([(what, s) for what in ("twice", "swap", "late") for s in (CREATE, ROLL)], faulty)
    assert not problems, "\n".join(problems)


async def test_a_very_late_event_brings_nothing_back(scenarios: Scenarios) -> None:
    """Case 17: each object as it was long ago, once more, when it has changed or gone."""
    usual = await scenarios.usual(ROLL)
    async with scenarios.cluster("very-late") as cluster:
        snapshot = await scenarios.at_rest(ROLL)
        assert snapshot is not None
        old = {kind: [stored.full() for stored in snapshot.objects[kind].values()] for kind in _WATCHED}
        run = await scenarios.run(cluster, ROLL)
        before = len(cluster.api.done)
        for kind in _WATCHED:
            for obj in old[kind]:
                await cluster.api.inject(kind, "MODIFIED", obj)
        await cluster.settled()
        assert cluster.writes(before) == []
        assert Run.of(cluster).is_alike(usual) == run.is_alike(usual) == []


@pytest.mark.parametrize("number", [1, 2])
async def test_an_edit_is_lost_by_the_watch(scenarios: Scenarios, number: int) -> None:
    """Cases 17 and 20: no event of the edit ever comes; the list that is made now and then shows it."""
    usual = await scenarios.usual(UPDATE)
    constants = {"draftmark.controller.main:_WATCH_GRACE_S": 3.0}
    async with scenarios.cluster(f"lost-edit-{number}", resync_s=1.0, constants=constants) as cluster:
        run = await scenarios.run(
            cluster,
            UPDATE,
            arm=lambda: cluster.api.fault_events(kind=INFERENCE_SERVICES, drop=True, times=number),
        )
        assert run.differs_from(usual, writes=_TOLD) == []


async def test_the_same_name_again(scenarios: Scenarios) -> None:
    """Case 18: deleted and made again at once, while events come late."""
    usual = await scenarios.usual(CREATE)
    async with scenarios.cluster("again") as cluster:
        snapshot = await scenarios.at_rest(DELETE)
        assert snapshot is not None
        cluster.restore(snapshot)
        cluster.start()
        await cluster.settled()
        begun = len(cluster.api.done)
        cluster.api.fault_events(times=None, late_s=0.2)
        cluster.api.remove(INFERENCE_SERVICES, "llama")
        cluster.api.add(INFERENCE_SERVICES, service(replicas=2))
        await cluster.settled(holds=cluster.is_ready)
        assert Run.of(cluster).is_alike(usual) == []
        made = [w for w in cluster.writes(begun) if w.verb == "create" and w.kind != EVENTS]
        assert len(made) == len({(w.kind, w.name) for w in made}) == len(usual.created)


async def test_caches_are_behind_all_the_time(scenarios: Scenarios) -> None:
    """Case 19: the operator's own writes come back a second later, and are not done twice meanwhile."""
    usual = await scenarios.usual(CREATE)

    async def behind(kind: Kind) -> list[str]:
        async with scenarios.cluster(f"behind-{kind.plural}") as cluster:
            cluster.api.fault_events(kind=kind, times=None, late_s=1.0)
            run = await scenarios.run(cluster, CREATE, at_rest=False)
            return run.differs_from(usual, writes=_TOLD)

    problems = await each((INFERENCE_SERVICES, *child_kinds()), behind)
    assert not problems, "\n".join(problems)


async def test_a_new_process_lists_an_api_server_that_is_behind(scenarios: Scenarios) -> None:
    """Case 19: it sees the children as they were before the last ones were made, and its watch catches up."""
    usual = await scenarios.usual(CREATE)

    async def behind(kind: Kind) -> list[str]:
        async with scenarios.cluster(f"stale-{kind.plural}") as cluster:
            empty = cluster.api.storage.version

            async def start_again() -> None:
                await cluster.until(lambda: any(w.kind == kind for w in cluster.writes()))
                cluster.api.fault(verb="list", kind=kind, as_of=empty)
                cluster.kill()

            return (await scenarios.run(cluster, CREATE, start_again)).differs_from(usual, writes=_TOLD)

    problems = await each(LASTING_KINDS, behind)
    assert not problems, "\n".join(problems)


async def test_at_rest_nothing_is_asked(scenarios: Scenarios) -> None:
    """Case 20: many bookmarks and nothing else."""
    async with scenarios.cluster("bookmarks") as cluster:
        await scenarios.run(cluster, CREATE)
        cluster.api.bookmark_interval_s = 0.02
        before = len([r for r in cluster.api.requests if r.kind != LEASES])
        await asyncio.sleep(2.0)
        assert len([r for r in cluster.api.requests if r.kind != LEASES]) == before
