"""The API server refuses, is away, is slow, or answers nothing (cases 5 to 14)."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from draftmark.cluster.kinds import (
    CONTROLLER_REVISIONS,
    EVENTS,
    INFERENCE_SERVICES,
    LEASES,
    MODEL_GATEWAYS,
    Kind,
    child_kinds,
)
from tests.fake_api.faults import WRITES, Fault
from tests.faults.cluster import Cluster
from tests.faults.scenarios import CREATE, GATEWAY, ROLL, UPDATE, Scenario, Scenarios, each
from tests.specs import LASTING_KINDS

#: Writes that failures in the middle of a scenario explain: statuses that tell of them, and Events.
_TOLD = 12
_NOT_LEADING_FOR_LONG = {"duration_s": 4.0, "renew_deadline_s": 2.5, "retry_s": 0.3, "margin_s": 0.7}


@dataclass(kw_only=True)
class FirstOfEach(Fault):
    """Happens to the first write of each verb to each object; to the first create of each kind."""

    met: set[tuple[str, Kind | None, str | None]] = field(default_factory=set)

    def hits(self, verb: str, kind: Kind | None, name: str | None, client: str = "") -> bool:
        if verb not in WRITES or kind == LEASES or (verb, kind, name) in self.met:
            return False
        self.met.add((verb, kind, name))
        return True


_ANSWERS: dict[str, dict[str, Any]] = {
    "409": {"status": 409, "reason": "Conflict"},
    "429": {"status": 429, "reason": "TooManyRequests", "retry_after_s": 1},
    "500": {"status": 500, "reason": "InternalError"},
    "503": {"status": 503, "reason": "ServiceUnavailable"},
    "504": {"status": 504, "reason": "Timeout"},
    "reset": {"reset": True},
    "lost": {"lost_answer": True},
}


async def test_every_write_fails_once(scenarios: Scenarios) -> None:
    """Cases 5, 6, 7, 8 and 9: each write is refused, cut off, or done and not answered, and is tried again."""

    async def fails(point: tuple[str, Scenario]) -> list[str]:
        answer, scenario = point
        usual = await scenarios.usual(scenario)
        async with scenarios.cluster(f"{scenario.name}-{answer}") as cluster:
            rule = FirstOfEach(**_ANSWERS[answer])
            run = await scenarios.run(cluster, scenario, arm=lambda: cluster.api.faults.add(rule))
            assert rule.met
            assert len(cluster.processes) == 1
            return run.differs_from(usual, writes=_TOLD)

    problems = await each([(answer, scenario) for answer in _ANSWERS for scenario in (CREATE, ROLL)], fails)
    assert not problems, "\n".join(problems)


async def test_an_answer_is_lost_at_any_write(scenarios: Scenarios) -> None:
    """Case 9, the important one: one lost answer, at each write of the creation."""
    usual = await scenarios.usual(CREATE)

    async def lost_at(number: int) -> list[str]:
        async with scenarios.cluster(f"lost-{number}") as cluster:
            cluster.api.fault(verb="write", nth=number, lost_answer=True)
            run = await scenarios.run(cluster, CREATE, at_rest=False)
            return run.differs_from(usual, writes=4)

    problems = await each(range(1, len(usual.writes) + 1), lost_at)
    assert not problems, "\n".join(problems)


async def _all_fail(cluster: Cluster, seconds: float, **answer: Any) -> None:
    cluster.api.fault(times=None, **answer)
    await asyncio.sleep(seconds)
    cluster.api.faults.clear()


async def test_everything_fails_for_a_second(scenarios: Scenarios) -> None:
    """Cases 6, 7, 8 and 10: every request, watches and the Lease too; the process lives on."""
    answers = {**_ANSWERS, "401": {"status": 401, "reason": "Unauthorized"}}
    usual = await scenarios.usual(ROLL)

    async def fails(answer: str) -> list[str]:
        async with scenarios.cluster(f"second-{answer}") as cluster:
            run = await scenarios.run(cluster, ROLL, lambda: _all_fail(cluster, 1.0, **answers[answer]))
            assert len(cluster.processes) == 1
            return run.differs_from(usual, writes=_TOLD)

    problems = await each(("429", "500", "503", "reset", "401"), fails)
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("answer", ["429", "503"])
async def test_watches_fail_from_the_start(scenarios: Scenarios, answer: str) -> None:
    """Cases 6 and 7: lists are answered, and the first watches are not."""
    usual = await scenarios.usual(CREATE)
    async with scenarios.cluster(f"watches-{answer}") as cluster:
        fault = cluster.api.fault(verb="watch", times=25, **_ANSWERS[answer])
        run = await scenarios.run(cluster, CREATE, at_rest=False)
        assert fault.seen > 25
        assert run.differs_from(usual, writes=_TOLD) == []


async def test_an_outage_longer_than_the_lease(scenarios: Scenarios) -> None:
    """Case 7: nobody may lead without the API server, so the process ends; the next one waits for it and goes on."""
    usual = await scenarios.usual(ROLL)
    async with scenarios.cluster("outage", lease=_NOT_LEADING_FOR_LONG) as cluster:
        run = await scenarios.run(cluster, ROLL, lambda: _all_fail(cluster, 6.0, status=503))
        assert run.differs_from(usual, writes=_TOLD) == []
        assert cluster.processes[0].exit_status == 1


async def test_the_api_server_starts_again(scenarios: Scenarios) -> None:
    """Case 7 and high availability: connections break and are refused for two seconds."""
    usual = await scenarios.usual(ROLL)
    async with scenarios.cluster("restart") as cluster:

        async def restart() -> None:
            await cluster.until(lambda: cluster.writes())
            await cluster.api.go_down()
            await asyncio.sleep(2.0)
            await cluster.api.come_up()

        run = await scenarios.run(cluster, ROLL, restart)
        assert run.differs_from(usual, writes=_TOLD) == []
        assert len(cluster.processes) == 1


def _forbidden(verb: str, kind: Kind) -> dict[str, Any]:
    message = (
        f'{kind.resource} is forbidden: User "system:serviceaccount:ops:draftmark" cannot {verb} resource '
        f'"{kind.plural}" in API group "{kind.group}" in the namespace "default"'
    )
    return {"verb": verb, "kind": kind, "status": 403, "reason": "Forbidden", "message": message, "times": None}


async def test_one_kind_may_not_be_created(scenarios: Scenarios) -> None:
    """Case 11: the others go on, the condition names the permission, and with the permission all is well."""
    usual = await scenarios.usual(CREATE)

    async def refused(kind: Kind) -> list[str]:
        async with scenarios.cluster(f"forbidden-{kind.plural}") as cluster:

            async def grant() -> None:
                await cluster.until(lambda: cluster.condition("Stalled")["reason"] == "Forbidden")
                assert f'Grant the verb "create" on {kind.resource}' in cluster.condition("Stalled")["message"]
                made = {done.kind for done in cluster.writes() if done.verb == "create"}
                # Pods never run unpinned: without pins nothing else is made.
                others = set(LASTING_KINDS) - {kind} if kind != CONTROLLER_REVISIONS else set()
                assert others <= made
                cluster.api.faults.clear()

            run = await scenarios.run(
                cluster, CREATE, grant, arm=lambda: cluster.api.fault(**_forbidden("create", kind)), at_rest=False
            )
            # The Event about the refusal, and what else it was told with, come on top.
            found = run.differs_from(usual, writes=_TOLD)
            return [f for f in found if not f.endswith("told 1 times: Forbidden")]

    problems = await each(LASTING_KINDS, refused)
    assert not problems, "\n".join(problems)


async def test_one_kind_may_not_be_listed(scenarios: Scenarios) -> None:
    """Case 11: what cannot be seen is not pruned and not made twice, and what is missing is told."""
    usual = await scenarios.usual(ROLL)

    async def unseen(kind: Kind) -> list[str]:
        async with scenarios.cluster(f"unlisted-{kind.plural}") as cluster:

            async def grant() -> None:
                await asyncio.sleep(2.0)
                cluster.api.faults.clear()

            def arm() -> None:
                for verb in ("list", "watch"):
                    cluster.api.fault(**_forbidden(verb, kind))

            return (await scenarios.run(cluster, ROLL, grant, arm=arm, at_rest=False)).differs_from(usual, writes=_TOLD)

    problems = await each(child_kinds(), unseen)
    assert not problems, "\n".join(problems)


async def test_a_slow_api_server(scenarios: Scenarios) -> None:
    """Case 12: every answer takes a while; no more requests than connections."""
    usual = await scenarios.usual(UPDATE)
    async with scenarios.cluster("slow") as cluster:
        run = await scenarios.run(cluster, UPDATE, arm=lambda: cluster.api.fault(times=None, latency_s=0.1))
        assert run.differs_from(usual, writes=4) == []
        assert cluster.api.most_in_flight <= 64


@pytest.mark.parametrize("kind", [INFERENCE_SERVICES, CONTROLLER_REVISIONS], ids=lambda k: k.kind)
async def test_a_list_has_expired(scenarios: Scenarios, kind: Kind) -> None:
    """Case 13: kopf gives up at a list that is gone, and the process starts again; our own caches list once more."""
    usual = await scenarios.usual(UPDATE)
    async with scenarios.cluster(f"expired-{kind.plural}") as cluster:
        run = await scenarios.run(
            cluster,
            UPDATE,
            arm=lambda: cluster.api.fault(verb="list", kind=kind, status=410, reason="Expired"),
            at_rest=False,
        )
        assert run.differs_from(usual, writes=4) == []


async def test_a_definition_goes_and_comes(scenarios: Scenarios) -> None:
    """Case 14: without ModelGateways all else works; when they are installed again they do, too."""
    usual, snapshot = await scenarios.usual(GATEWAY), await scenarios.at_rest(GATEWAY)
    assert snapshot is not None
    async with scenarios.cluster("definition") as cluster:
        cluster.restore(snapshot)
        cluster.start()
        await cluster.settled()
        cluster.api.storage.remove_kind(MODEL_GATEWAYS)
        cluster.api.storage.wake()
        for replicas in (2, 1):
            cluster.api.edit(INFERENCE_SERVICES, "llama", lambda s, n=replicas: s["spec"].update(replicas=n))  # type: ignore[misc]
            await cluster.until(lambda n=replicas: cluster.see()["status"].get("readyReplicas") == n)  # type: ignore[misc]
        cluster.api.storage.serve(MODEL_GATEWAYS)
        begun = len(cluster.api.done)
        GATEWAY.change(cluster)
        await cluster.settled(holds=lambda: GATEWAY.holds(cluster))
        assert {w.name for w in cluster.writes(begun) if w.verb == "create" and w.kind != EVENTS} == {
            name.rpartition(" ")[2] for name in usual.created
        }
        assert len(cluster.processes) == 1
