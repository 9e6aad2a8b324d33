"""Children become what they should be, with as few writes as that takes."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from copy import deepcopy
from typing import Any

import pytest

from draftmark.api.names import ANNOTATION_APPLIED
from draftmark.cluster.apply import Applier
from draftmark.cluster.client import ApiClient
from draftmark.cluster.errors import Forbidden, QuotaExceeded, Unavailable
from draftmark.cluster.informer import Informer
from draftmark.cluster.kinds import DEPLOYMENTS, SERVICE_ACCOUNTS, SERVICES, Kind, child_kinds
from draftmark.cluster.lease import LeadershipLost
from draftmark.cluster.outcomes import (
    Contended,
    Created,
    Foreign,
    Outcome,
    Pruned,
    Refused,
    Repaired,
    Terminating,
    Unchanged,
    Updated,
)
from tests.cluster.conftest import OWNER, Json, deployment, eventually, reference, service
from tests.fake_api import FakeApi
from tests.fake_api.storage import Refusal


class Operator:
    """An applier with its caches, as one process of the operator has them."""

    def __init__(self, client: ApiClient) -> None:
        self.now = 1000.0
        self.informers = {kind: Informer(client, kind) for kind in child_kinds()}
        self.applier = Applier(client, self.informers, clock=lambda: self.now)

    async def apply(self, *desired: Json, prune: Sequence[tuple[Kind, str, str, str]] = ()) -> list[Outcome]:
        return await self.applier.apply(OWNER, desired, prune)

    async def one(self, manifest: Json) -> Outcome:
        (outcome,) = await self.apply(manifest)
        return outcome


@asynccontextmanager
async def started(client: ApiClient, *, wait_for: Sequence[Kind] = child_kinds()) -> AsyncIterator[Operator]:
    operator = Operator(client)
    async with AsyncExitStack() as stack:
        for informer in operator.informers.values():
            task = asyncio.create_task(informer.run())
            stack.callback(task.cancel)
        for kind in wait_for:
            await asyncio.wait_for(operator.informers[kind].synced.wait(), 3)
        yield operator


@pytest.fixture
async def operator(client: ApiClient) -> AsyncIterator[Operator]:
    async with started(client) as running:
        yield running


async def caught_up(operator: Operator, fake_api: FakeApi, kind: Kind = SERVICES, name: str = "llama") -> None:
    """Wait until the cache shows what is stored."""

    def same() -> bool:
        stored, cached = fake_api.see(kind, name), operator.informers[kind].get("default", name)
        if stored is None or cached is None:
            return stored is cached
        return bool(stored["metadata"]["resourceVersion"] == cached["metadata"]["resourceVersion"])

    await eventually(same)


def set_port(port: int) -> Callable[[Json], object]:
    return lambda obj: obj["spec"]["ports"][0].update(port=port)


# Writes, and none


async def test_a_child_costs_one_write_in_its_life_when_it_never_changes(
    client: ApiClient, fake_api: FakeApi, operator: Operator
) -> None:
    desired = [service(), deployment()]
    assert [type(outcome) for outcome in await operator.apply(*desired)] == [Created, Created]
    assert [type(outcome) for outcome in await operator.apply(*desired)] == [Unchanged, Unchanged]
    assert len(fake_api.writes) == 2
    async with started(client) as restarted:
        assert [type(outcome) for outcome in await restarted.apply(*desired)] == [Unchanged, Unchanged]
    assert len(fake_api.writes) == 2


async def test_the_own_write_is_known_before_the_watch_tells(fake_api: FakeApi, operator: Operator) -> None:
    fake_api.mute_watches(SERVICES)
    for port in (80, 81, 80, 80):
        await operator.one(service(port=port))
    # Create; hand over and apply; apply; nothing.
    assert [request.verb for request in fake_api.writes] == ["create", "patch", "patch", "patch"]


async def test_a_field_that_leaves_the_intent_leaves_the_object(fake_api: FakeApi, operator: Operator) -> None:
    await operator.one(service(first="1", second="2"))
    fake_api.edit(SERVICES, "llama", lambda obj: obj["metadata"]["labels"].update(theirs="yes"))
    await caught_up(operator, fake_api)
    assert isinstance(await operator.one(service(first="1")), Updated)
    stored = fake_api.see(SERVICES, "llama")
    assert stored is not None
    assert stored["metadata"]["labels"] == {"app.kubernetes.io/managed-by": "draftmark", "first": "1", "theirs": "yes"}
    managers = [(entry["manager"], entry["operation"]) for entry in stored["metadata"]["managedFields"]]
    assert ("draftmark", "Apply") in managers
    assert "draftmark-create" not in [manager for manager, _ in managers]


async def test_an_item_that_leaves_a_list_leaves_the_object_also_after_a_restart(
    client: ApiClient, fake_api: FakeApi, operator: Operator
) -> None:
    await operator.one(deployment(env={"A": "1", "B": "2"}))
    fake_api.edit(DEPLOYMENTS, "llama-engine", lambda obj: env_of(obj).append({"name": "C", "value": "theirs"}))
    async with started(client) as restarted:
        assert isinstance(await restarted.one(deployment(env={"A": "1"})), Updated)
    stored = fake_api.see(DEPLOYMENTS, "llama-engine")
    assert stored is not None
    assert [item["name"] for item in env_of(stored)] == ["A", "C"]


def env_of(obj: Json) -> list[Json]:
    env: list[Json] = obj["spec"]["template"]["spec"]["containers"][0]["env"]
    return env


async def test_the_later_writes_of_a_child_are_one_each(fake_api: FakeApi, operator: Operator) -> None:
    await operator.one(service(port=80))
    await operator.one(service(port=81))
    before = len(fake_api.writes)
    await operator.one(service(port=82))
    await operator.one(service(port=83))
    assert len(fake_api.writes) - before == 2


async def test_what_the_server_fills_in_is_no_difference(fake_api: FakeApi, operator: Operator) -> None:
    def defaults(obj: Json) -> None:
        obj["spec"].setdefault("type", "ClusterIP")
        for port in obj["spec"]["ports"]:
            port.setdefault("protocol", "TCP")

    fake_api.storage.default[SERVICES] = defaults
    await operator.one(service())
    assert isinstance(await operator.one(service()), Unchanged)
    await operator.one(service(port=81))
    assert isinstance(await operator.one(service(port=81)), Unchanged)


async def test_text_that_yaml_readers_stumble_over(fake_api: FakeApi, operator: Operator) -> None:
    text = {"a": "😀\u2028\x85", "b": "broken \ud83d"}
    assert isinstance(await operator.one(deployment(env=text)), Created)
    assert isinstance(await operator.one(deployment(image="engine:2", env=text)), Updated)
    assert isinstance(await operator.one(deployment(image="engine:2", env=text)), Unchanged)


# Faults


@pytest.mark.parametrize("first", [True, False])
async def test_a_lost_answer_costs_no_second_write(fake_api: FakeApi, operator: Operator, first: bool) -> None:
    if not first:
        await operator.one(service(port=79))
        await operator.one(service(port=80))
    before = len(fake_api.writes)
    fake_api.fault(verb="create" if first else "patch", lost_answer=True)
    outcome = await operator.one(service(port=81))
    assert isinstance(outcome, Refused)
    assert isinstance(outcome.error, Unavailable)
    await caught_up(operator, fake_api)
    assert isinstance(await operator.one(service(port=81)), Unchanged)
    assert len(fake_api.writes) - before == 1


async def test_a_lost_answer_of_a_create_that_the_cache_does_not_show_yet(
    fake_api: FakeApi, operator: Operator
) -> None:
    fake_api.mute_watches(SERVICES)
    fake_api.fault(verb="create", lost_answer=True)
    await operator.one(service())
    assert isinstance(await operator.one(service()), Unchanged)
    assert [request.verb for request in fake_api.writes] == ["create", "create"]


async def test_a_missing_permission_on_one_kind_does_not_stop_the_others(fake_api: FakeApi, operator: Operator) -> None:
    fake_api.fault(verb="create", kind=SERVICES, status=403, reason="Forbidden", times=None)
    outcomes = await operator.apply(service(), deployment())
    assert isinstance(outcomes[0], Refused)
    assert isinstance(outcomes[0].error, Forbidden)
    assert isinstance(outcomes[1], Created)


async def test_a_kind_that_cannot_be_listed_is_read_one_by_one(client: ApiClient, fake_api: FakeApi) -> None:
    fake_api.fault(verb="list", kind=SERVICES, status=403, reason="Forbidden", times=None)
    rest = [kind for kind in child_kinds() if kind != SERVICES]
    for expected in (Created, Unchanged):
        async with started(client, wait_for=rest) as operator:
            assert isinstance(await operator.one(service()), expected)
    assert len(fake_api.writes) == 1


async def test_a_quota_that_refuses_is_told(fake_api: FakeApi, operator: Operator) -> None:
    message = 'services "llama" is forbidden: exceeded quota: small, requested: services=1, used: services=5'
    fake_api.fault(verb="create", status=403, reason="Forbidden", message=message)
    outcome = await operator.one(service())
    assert isinstance(outcome, Refused)
    assert isinstance(outcome.error, QuotaExceeded)


async def test_nothing_is_written_without_leadership(client: ApiClient, fake_api: FakeApi, operator: Operator) -> None:
    def guard() -> None:
        raise LeadershipLost

    client.write_guard = guard
    with pytest.raises(LeadershipLost):
        await operator.apply(service())
    assert fake_api.writes == []


# Whose is it


async def test_a_foreign_object_is_never_touched(fake_api: FakeApi, operator: Operator) -> None:
    foreign = service()
    foreign["metadata"]["ownerReferences"] = []
    before = fake_api.add(SERVICES, foreign)
    await caught_up(operator, fake_api)
    outcome = await operator.one(service())
    assert isinstance(outcome, Foreign)
    assert 'Service "llama" in namespace "default" exists already and was not created by Draftmark' in outcome.message
    assert fake_api.see(SERVICES, "llama") == before
    assert fake_api.writes == []


async def test_a_foreign_object_that_appeared_a_moment_ago_is_never_touched(
    fake_api: FakeApi, operator: Operator
) -> None:
    fake_api.mute_watches(SERVICES)
    foreign = service()
    foreign["metadata"]["ownerReferences"] = [reference("another", "mistral")]
    before = fake_api.add(SERVICES, foreign)
    for _ in range(2):
        outcome = await operator.one(service())
        assert isinstance(outcome, Foreign)
        assert outcome.controller == 'InferenceService "mistral"'
    assert fake_api.see(SERVICES, "llama") == before
    assert [request.verb for request in fake_api.writes] == ["create"]


async def test_a_foreign_successor_of_our_object_is_never_touched(fake_api: FakeApi, operator: Operator) -> None:
    await operator.one(service(port=80))
    await operator.one(service(port=81))
    fake_api.mute_watches(SERVICES)
    fake_api.remove(SERVICES, "llama")
    foreign = service()
    foreign["metadata"]["ownerReferences"] = []
    before = fake_api.add(SERVICES, foreign)
    assert isinstance(await operator.one(service(port=82)), Foreign)
    assert fake_api.see(SERVICES, "llama") == before


async def test_a_foreign_object_that_the_cache_still_shows_is_gone(fake_api: FakeApi, operator: Operator) -> None:
    foreign = service()
    foreign["metadata"]["ownerReferences"] = []
    fake_api.add(SERVICES, foreign)
    await caught_up(operator, fake_api)
    fake_api.mute_watches(SERVICES)
    fake_api.remove(SERVICES, "llama")
    assert isinstance(await operator.one(service()), Created)


async def test_an_object_that_was_deleted_by_hand_comes_back(fake_api: FakeApi, operator: Operator) -> None:
    await operator.one(service(port=80))
    await operator.one(service(port=81))
    fake_api.mute_watches(SERVICES)
    fake_api.remove(SERVICES, "llama")
    # The cache still shows it, and it must not come back as an object of the Apply alone.
    assert isinstance(await operator.one(service(port=82)), Created)


async def test_a_removed_owner_reference_comes_back(fake_api: FakeApi, operator: Operator) -> None:
    await operator.one(service())
    fake_api.edit(SERVICES, "llama", lambda obj: obj["metadata"].pop("ownerReferences"))
    await caught_up(operator, fake_api)
    assert isinstance(await operator.one(service()), Repaired)
    stored = fake_api.see(SERVICES, "llama")
    assert stored is not None
    assert stored["metadata"]["ownerReferences"] == [reference()]


async def test_a_removed_label_of_the_cache_comes_back(client: ApiClient, fake_api: FakeApi) -> None:
    operator = Operator(client)
    operator.informers[SERVICES] = Informer(client, SERVICES, label_selector="app.kubernetes.io/managed-by=draftmark")
    operator.applier = Applier(client, operator.informers)
    task = asyncio.create_task(operator.informers[SERVICES].run())
    await operator.informers[SERVICES].synced.wait()
    await operator.one(service())
    fake_api.edit(SERVICES, "llama", lambda obj: obj["metadata"].pop("labels"))
    await eventually(lambda: len(operator.informers[SERVICES]) == 0)
    assert isinstance(await operator.one(service()), Repaired)
    assert isinstance(await operator.one(service()), Unchanged)
    task.cancel()


async def test_an_object_that_is_being_deleted_is_left_alone(fake_api: FakeApi, operator: Operator) -> None:
    await operator.one(service())
    fake_api.edit(SERVICES, "llama", lambda obj: obj["metadata"].update(finalizers=["example.com/hold"]))
    fake_api.remove(SERVICES, "llama")
    await caught_up(operator, fake_api)
    writes = len(fake_api.writes)
    outcome = await operator.one(service(port=81))
    assert isinstance(outcome, Terminating)
    assert "example.com/hold" in outcome.message
    assert len(fake_api.writes) == writes


# Drift


async def test_an_owned_field_comes_back_and_a_foreign_field_stays(fake_api: FakeApi, operator: Operator) -> None:
    await operator.one(service())

    def change(obj: Json) -> None:
        obj["metadata"]["labels"]["theirs"] = "yes"
        obj["metadata"]["labels"]["app.kubernetes.io/managed-by"] = "me"
        obj["spec"]["sessionAffinity"] = "ClientIP"

    fake_api.edit(SERVICES, "llama", change)
    await caught_up(operator, fake_api)
    outcome = await operator.one(service())
    assert isinstance(outcome, Repaired)
    assert outcome.paths == ("metadata.labels[app.kubernetes.io/managed-by]",)
    stored = fake_api.see(SERVICES, "llama")
    assert stored is not None
    assert stored["metadata"]["labels"] == {"app.kubernetes.io/managed-by": "draftmark", "theirs": "yes"}
    assert stored["spec"]["sessionAffinity"] == "ClientIP"
    assert isinstance(await operator.one(service()), Unchanged)


async def test_a_changed_key_of_a_list_comes_back(fake_api: FakeApi, operator: Operator) -> None:
    def unique_names(_: Json | None, obj: Json) -> None:
        names = [port["name"] for port in obj["spec"]["ports"]]
        if len(set(names)) < len(names):
            raise Refusal(422, "Invalid", "spec.ports[1].name: Duplicate value")

    def change(obj: Json) -> None:
        obj["spec"]["ports"][0]["port"] = 9999
        obj["spec"]["ports"].append({"name": "theirs", "port": 7})

    fake_api.storage.validate[SERVICES] = unique_names
    await operator.one(service(port=80))
    fake_api.edit(SERVICES, "llama", change)
    await caught_up(operator, fake_api)
    outcome = await operator.one(service(port=80))
    assert isinstance(outcome, Repaired)
    assert outcome.paths == ("spec.ports[80,TCP]",)
    stored = fake_api.see(SERVICES, "llama")
    assert stored is not None
    assert [(port["name"], port["port"]) for port in stored["spec"]["ports"]] == [("http", 80), ("theirs", 7)]
    assert isinstance(await operator.one(service(port=80)), Unchanged)
    assert isinstance(await operator.one(service(port=81)), Updated)
    stored = fake_api.see(SERVICES, "llama")
    assert stored is not None
    assert sorted(port["port"] for port in stored["spec"]["ports"]) == [7, 81]


async def test_two_writers_that_fight_are_told_and_waited_for(fake_api: FakeApi, operator: Operator) -> None:
    await operator.one(service())

    async def fight() -> Outcome:
        fake_api.edit(SERVICES, "llama", lambda o: o["spec"]["selector"].update(app="theirs"), manager="other-operator")
        await caught_up(operator, fake_api)
        operator.now += 1
        return await operator.one(service())

    assert [type(await fight()) for _ in range(3)] == [Repaired] * 3
    before = len(fake_api.writes)
    outcome = await fight()
    assert isinstance(outcome, Contended)
    assert (outcome.paths, outcome.manager, outcome.retry_after_s) == (("spec.selector.app",), "other-operator", 10.0)
    assert 'The field manager "other-operator" keeps changing spec.selector.app of Service "llama"' in outcome.message
    operator.now += 9
    assert isinstance(await operator.one(service()), Contended)
    assert len(fake_api.writes) == before
    operator.now += 1
    assert isinstance(await operator.one(service()), Repaired)
    again = await fight()
    assert isinstance(again, Contended)
    assert again.retry_after_s == 20.0
    # A new intent is a matter of the user, and does not wait.
    assert isinstance(await operator.one(service(port=81)), Updated)


async def test_a_writer_that_removes_our_annotation_is_a_fight_too(fake_api: FakeApi, operator: Operator) -> None:
    await operator.one(service())
    outcomes = []
    for _ in range(4):
        fake_api.edit(SERVICES, "llama", lambda obj: obj["metadata"].pop("annotations"))
        await caught_up(operator, fake_api)
        outcomes.append(type(await operator.one(service())))
    assert outcomes == [Repaired, Repaired, Repaired, Contended]


async def test_a_server_that_stores_another_value_is_not_written_to_for_ever(
    client: ApiClient, fake_api: FakeApi, operator: Operator
) -> None:
    fake_api.storage.default[SERVICES] = lambda obj: obj["spec"].update(selector={"app": "webhook"})
    await operator.one(service())
    outcome = await operator.one(service())
    assert isinstance(outcome, Unchanged)
    assert outcome.stored_differently == ("spec.selector.app",)
    assert len(fake_api.writes) == 1
    # A live value that changes, and an intent that changes, are each worth another attempt.
    fake_api.storage.default[SERVICES] = lambda obj: obj["spec"].update(selector={"app": "webhook2"})
    fake_api.edit(SERVICES, "llama", lambda obj: None)
    await caught_up(operator, fake_api)
    assert isinstance(await operator.one(service()), Repaired)
    assert isinstance(await operator.one(service()), Unchanged)
    assert isinstance(await operator.one(service(port=81)), Updated)
    assert isinstance(await operator.one(service(port=81)), Unchanged)


# Prune


async def test_what_is_left_over_is_deleted_once(fake_api: FakeApi, operator: Operator) -> None:
    await operator.one(service())
    stored = fake_api.see(SERVICES, "llama")
    assert stored is not None
    left_over = (SERVICES, "default", "llama", stored["metadata"]["uid"])
    fake_api.mute_watches(SERVICES)
    outcomes = [(await operator.apply(prune=[left_over]))[0] for _ in range(2)]
    assert [type(outcome) for outcome in outcomes] == [Pruned, Unchanged]
    assert fake_api.see(SERVICES, "llama") is None
    assert fake_api.count("delete") == 1


async def test_a_foreign_object_is_never_pruned(fake_api: FakeApi, operator: Operator) -> None:
    foreign = service(owner_uid="another")
    uid = fake_api.add(SERVICES, foreign)["metadata"]["uid"]
    await caught_up(operator, fake_api)
    (outcome,) = await operator.apply(prune=[(SERVICES, "default", "llama", uid)])
    assert isinstance(outcome, Foreign)
    assert fake_api.see(SERVICES, "llama") is not None


async def test_a_successor_is_never_pruned(fake_api: FakeApi, operator: Operator) -> None:
    await operator.one(service())
    stored = fake_api.see(SERVICES, "llama")
    assert stored is not None
    fake_api.mute_watches(SERVICES)
    fake_api.remove(SERVICES, "llama")
    fake_api.add(SERVICES, service())
    (outcome,) = await operator.apply(prune=[(SERVICES, "default", "llama", stored["metadata"]["uid"])])
    assert isinstance(outcome, Unchanged)
    assert fake_api.see(SERVICES, "llama") is not None


# Any prefix of the work, then a restart


@pytest.mark.parametrize("killed_after", range(1, 7))
async def test_a_restart_after_any_write_ends_in_the_same_state(
    client: ApiClient, fake_api: FakeApi, killed_after: int
) -> None:
    account = {**service("llama"), "kind": "ServiceAccount"}
    account.pop("spec")
    first = [account, service(port=80, old="1"), deployment(env={"OLD": "1"})]
    second = [account, service(port=81), deployment(env={"NEW": "1"})]

    class Killed(Exception):
        pass

    left = killed_after

    def guard() -> None:
        nonlocal left
        if left == 0:
            raise Killed
        left -= 1

    client.write_guard = guard
    for desired in (first, second):
        while True:
            async with started(client) as operator:
                try:
                    await operator.apply(*deepcopy(desired))
                    break
                except Killed:
                    client.write_guard = None
    stored: Any = fake_api.see(SERVICES, "llama")
    assert [port["port"] for port in stored["spec"]["ports"]] == [81]
    assert "old" not in stored["metadata"]["labels"]
    assert [item["name"] for item in env_of(fake_api.see(DEPLOYMENTS, "llama-engine") or {})] == ["NEW"]
    assert fake_api.see(SERVICE_ACCOUNTS, "llama") is not None
    # Three creates; then two hand-overs and two applies. The one that was forbidden was not sent.
    assert len(fake_api.writes) == 7
    assert stored["metadata"]["annotations"][ANNOTATION_APPLIED]
