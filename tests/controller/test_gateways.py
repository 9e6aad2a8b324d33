"""Changed configurations reach gateway pods, and what these tell is known while it is needed, and only then."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import web

from draftmark.api import names
from draftmark.api.defaults import Defaults
from draftmark.cluster.client import ApiClient
from draftmark.cluster.credentials import Credentials
from draftmark.cluster.kinds import PODS
from draftmark.controller import gateways
from draftmark.controller.gateways import Gateways, read_state
from draftmark.controller.observe import Key, World
from draftmark.decision import GatewayTarget
from tests.controller.gateways import FakeGateways
from tests.fake_api import FakeApi, fake_api
from tests.specs import T0

__all__ = ["fake_api"]

KEY: Key = ("default", "llama")
OLD = {"config": "c1", "runtime": "r1", "revisions": {"0123abcd": {"running": 1, "waiting": 0, "weight": 1}}}
NEW = {**OLD, "runtime": "r2"}
TARGET = GatewayTarget(config="c1", runtime="r2", is_awaited=True, is_decisive=True)


@dataclass
class Rig:
    """Gateway pods of one service, and who follows them."""

    api: FakeApi
    pods: FakeGateways
    world: World
    gateways: Gateways
    woken: list[Key] = field(default_factory=list)

    def add_pod(self, number: int, state: Any = None, *, is_ready: bool = True, service: str = KEY[1]) -> str:
        """A gateway pod that works with something; returns its address."""
        address = f"127.0.0.{number}"
        labels = {
            names.LABEL_MANAGED_BY: names.MANAGED_BY,
            **names.selector_labels(service, names.ROLE_GATEWAY),
        }
        pod = self.api.add(
            PODS,
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": f"gateway-{number}", "namespace": KEY[0], "labels": labels},
                "status": {"podIP": address, "conditions": [{"type": "Ready", "status": str(is_ready)}]},
            },
        )
        self.world.pods.absorb(pod)
        if state is not None:
            self.pods.working_with[address] = state
        return address

    def see(self, number: int) -> Any:
        """What is known of a pod."""
        return self.world.gateways.get(KEY, {}).get(f"gateway-{number}")

    def is_over(self) -> bool:
        """Whether nobody follows the pods any more: until then the same target is not followed anew."""
        return self.gateways._following[KEY][1].done()

    def pokes(self, number: int = 1) -> list[str]:
        """The values that a pod's annotation has had."""
        history = [c.after for c in self.api.storage.history[PODS] if c.after is not None]
        of_pod = [pod["metadata"] for pod in history if pod["metadata"]["name"] == f"gateway-{number}"]
        found = [m.get("annotations", {}).get(names.ANNOTATION_CONFIG) for m in of_pod]
        return [value for value in found if value is not None]


async def eventually(holds: Callable[[], object], within_s: float = 5.0) -> None:
    async with asyncio.timeout(within_s):
        while not holds():  # noqa: ASYNC110 - a statement has no event
            await asyncio.sleep(0.005)


@pytest.fixture
async def rig(fake_api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    monkeypatch.setattr(gateways, "_ASK_AGAIN_S", 0.02)
    monkeypatch.setattr(gateways, "_POKES_S", (0.0, 0.2, 0.2))
    monkeypatch.setattr(gateways, "SILENT_AFTER_S", 1.0)
    monkeypatch.setattr(gateways, "_TIMEOUT_S", 0.5)
    async with FakeGateways() as pods, ApiClient(Credentials.plain(fake_api.url)) as client:
        woken: list[Key] = []
        world = World(client=client, defaults=Defaults(), wake=woken.append)
        world.services[KEY] = {"metadata": {"name": KEY[1], "namespace": KEY[0], "uid": "u"}}
        following = Gateways(world, client, port=pods.port)
        yield Rig(api=fake_api, pods=pods, world=world, gateways=following, woken=woken)
        await following.stop()


async def test_a_pod_that_is_behind_is_hurried_once_and_the_service_is_looked_at_when_it_has_followed(rig: Rig) -> None:
    address = rig.add_pod(1, OLD)
    rig.woken.clear()
    rig.gateways.follow(KEY, TARGET)
    await eventually(rig.pokes)
    assert rig.woken == [], "nothing to decide yet"
    rig.pods.working_with[address] = NEW
    await eventually(lambda: rig.woken)
    assert rig.woken == [KEY]
    assert rig.see(1).runtime == "r2"
    assert rig.pokes() == ["c1.r2.0"]


async def test_services_that_can_wait_are_asked_one_after_another_and_others_at_once(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a restart, when nothing is known of any gateway."""
    monkeypatch.setattr(gateways, "_EVERY_S", 2.0)
    at_rest = replace(TARGET, is_decisive=False)
    addresses = {name: rig.add_pod(n, NEW, service=name) for n, name in enumerate(("a", "b", "c", "d", "changes"), 1)}
    for name in addresses:
        rig.world.services[KEY[0], name] = {"metadata": {"name": name, "namespace": KEY[0], "uid": name}}
        rig.gateways.follow((KEY[0], name), TARGET if name == "changes" else at_rest)
    await asyncio.sleep(0.2)
    assert sorted(rig.pods.asked) == sorted([addresses["a"], addresses["changes"]])
    # What is asked of it changes: somebody waits for that.
    rig.gateways.follow((KEY[0], "c"), replace(at_rest, runtime="r3"))
    await eventually(lambda: addresses["c"] in rig.pods.asked, within_s=1.0)
    # What is asked of it stays, and now something is decided by the answer.
    rig.gateways.follow((KEY[0], "d"), TARGET)
    await eventually(lambda: addresses["d"] in rig.pods.asked, within_s=1.0)
    assert addresses["b"] not in rig.pods.asked
    await eventually(lambda: addresses["b"] in rig.pods.asked)


async def test_a_pod_that_stays_behind_is_hurried_again_and_not_for_ever(rig: Rig) -> None:
    """The kubelet may have looked a moment before it heard of the change; a pod that cannot follow is no reason to write
    for ever."""
    rig.add_pod(1, OLD)
    rig.gateways.follow(KEY, TARGET)
    await eventually(lambda: len(rig.pokes()) >= 3)
    asked = len(rig.pods.asked)
    await eventually(lambda: len(rig.pods.asked) >= asked + 15)
    assert rig.pokes() == ["c1.r2.0", "c1.r2.1", "c1.r2.2"]
    for _ in range(3):  # the service is looked at again and again meanwhile
        rig.gateways.follow(KEY, TARGET)
    assert len(rig.api.writes) == 3


async def test_a_pod_that_stays_behind_is_asked_more_and_more_seldom(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateways, "_ASK_AGAIN_S", 0.001)
    monkeypatch.setattr(gateways, "_ASK_AT_MOST_S", 0.05)
    rig.add_pod(1, OLD)
    rig.gateways.follow(KEY, TARGET)
    await asyncio.sleep(1.1)  # from here on 0.05 s lie between two questions
    asked = len(rig.pods.asked)
    await asyncio.sleep(0.5)
    assert 0 < len(rig.pods.asked) - asked <= 10


async def test_only_the_pod_that_is_behind_is_hurried(rig: Rig) -> None:
    rig.add_pod(1, NEW)
    rig.add_pod(2, OLD)
    rig.gateways.follow(KEY, TARGET)
    await eventually(lambda: rig.pokes(2))
    assert rig.pokes(1) == []


async def test_pods_that_work_with_it_are_asked_once(rig: Rig) -> None:
    for number in (1, 2):
        rig.add_pod(number, NEW)
    rig.gateways.follow(KEY, TARGET)
    await eventually(lambda: rig.see(1) and rig.see(2))
    await asyncio.sleep(0.2)
    assert sorted(rig.pods.asked) == ["127.0.0.1", "127.0.0.2"]
    assert not rig.api.writes


async def test_an_answer_that_tells_nothing_new_wakes_nobody(rig: Rig) -> None:
    """Otherwise a service that waits for a drain would be looked at as fast as the machine can."""
    rig.add_pod(1, NEW)
    rig.gateways.follow(KEY, TARGET)
    await eventually(lambda: rig.woken and rig.is_over())
    rig.woken.clear()
    first = rig.see(1)
    for count in (2, 3):
        rig.gateways.follow(KEY, TARGET)
        await eventually(lambda count=count: len(rig.pods.asked) == count and rig.is_over())  # type: ignore[misc]
    assert rig.woken == []
    assert rig.see(1).at > first.at
    rig.pods.working_with["127.0.0.1"] = {**NEW, "revisions": {}}
    rig.gateways.follow(KEY, TARGET)
    await eventually(lambda: rig.woken)


async def test_the_same_target_is_followed_once(rig: Rig) -> None:
    rig.add_pod(1, OLD)
    for _ in range(10):
        rig.gateways.follow(KEY, TARGET)
    await asyncio.sleep(0.3)
    # One question per round, and 0.3 s have room for fifteen rounds.
    assert len(rig.pods.asked) <= 16


async def test_a_new_target_takes_the_place_of_the_one_before(rig: Rig) -> None:
    rig.add_pod(1, OLD)
    rig.gateways.follow(KEY, TARGET)
    await eventually(rig.pokes)
    rig.gateways.follow(KEY, GatewayTarget(config="c2", runtime="r3", is_awaited=True, is_decisive=True))
    await eventually(lambda: len(rig.pokes()) > 2)
    assert {value.rsplit(".", 1)[0] for value in rig.pokes()[1:]} == {"c2.r3"}


async def test_what_decides_nothing_wakes_nobody(rig: Rig) -> None:
    rig.add_pod(1, NEW)
    rig.woken.clear()
    rig.gateways.follow(KEY, replace(TARGET, is_decisive=False))
    await eventually(rig.is_over)
    assert rig.see(1).runtime == "r2"
    assert rig.woken == []


async def test_what_begins_to_matter_on_the_way_wakes(rig: Rig) -> None:
    address = rig.add_pod(1, OLD)
    rig.gateways.follow(KEY, replace(TARGET, is_decisive=False))
    await eventually(rig.pokes)
    rig.gateways.follow(KEY, TARGET)
    rig.woken.clear()
    rig.pods.working_with[address] = NEW
    await eventually(lambda: rig.woken)


async def test_a_target_that_nobody_waits_for_ends_the_following_of_another(rig: Rig) -> None:
    rig.add_pod(1, OLD)
    rig.gateways.follow(KEY, TARGET)
    await eventually(rig.pokes)
    rig.gateways.follow(KEY, GatewayTarget(config="c0", runtime="r0", is_awaited=False, is_decisive=False))
    asked = len(rig.pods.asked)
    await asyncio.sleep(0.5)
    assert len(rig.pods.asked) == asked


@pytest.mark.parametrize(
    "answer",
    [None, "no JSON", "[]", "{}", '{"config": "c1", "runtime": "r2"}',
     '{"config": "c1", "runtime": "r2", "revisions": {"a": {"running": "x", "waiting": 0, "weight": 0}}}',
     '{"config": "c1", "runtime": "r2", "revisions": []}', "[" * 200_000, json.dumps({**NEW, "more": "x" * 300_000}), web.Response(status=302, headers={"Location": "/"})],
    ids=["closes", "text", "list", "empty", "no revisions", "no number", "list of revisions", "nested", "long", "redirect"],
)  # fmt: skip
async def test_a_pod_that_does_not_answer_is_forgotten_and_told_of(rig: Rig, answer: web.Response | str | None) -> None:
    address = rig.add_pod(1, OLD)
    rig.gateways.follow(KEY, TARGET)
    await eventually(lambda: rig.see(1))
    del rig.pods.working_with[address]
    if answer is not None:
        rig.pods.answers[address] = answer
    await eventually(lambda: rig.see(1) is None)
    rig.woken.clear()
    assert rig.world.silent.get(KEY, frozenset()) == frozenset()
    await eventually(lambda: "gateway-1" in rig.world.silent.get(KEY, ()))
    assert rig.woken == [KEY]
    rig.pods.answers.clear()
    rig.pods.working_with[address] = NEW
    await eventually(lambda: rig.is_over())
    assert rig.world.silent[KEY] == frozenset()


async def test_a_pod_that_is_not_ready_is_not_asked(rig: Rig) -> None:
    rig.add_pod(1, OLD, is_ready=False)
    rig.add_pod(2, NEW)
    rig.gateways.follow(KEY, TARGET)
    await eventually(lambda: rig.see(2))
    assert rig.pods.asked == ["127.0.0.2"]


async def test_a_pod_that_tells_nothing_is_not_hurried(rig: Rig) -> None:
    """Whether it has followed would not be known, so each further write would be followed by the next."""
    rig.add_pod(1)
    rig.gateways.follow(KEY, TARGET)
    await eventually(lambda: len(rig.pods.asked) >= 25)
    assert rig.pokes() == []


async def test_a_pod_that_waits_for_its_turn_is_not_silent(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.gateways._turns = asyncio.Semaphore(0)
    monkeypatch.setattr(gateways, "_TIMEOUT_S", 0.05)
    rig.add_pod(1, NEW)
    rig.gateways.follow(KEY, TARGET)
    await asyncio.sleep(0.5)
    assert (rig.pods.asked, rig.world.silent) == ([], {})
    rig.gateways._turns.release()
    await eventually(lambda: rig.see(1))


async def test_the_service_is_looked_at_when_one_of_its_pods_has_followed(rig: Rig) -> None:
    """What is decided may need one pod only, and the other one may never answer."""
    address = rig.add_pod(1, OLD)
    rig.add_pod(2)
    rig.gateways.follow(KEY, TARGET)
    await eventually(lambda: rig.world.silent.get(KEY))
    rig.woken.clear()
    rig.pods.working_with[address] = NEW
    await eventually(lambda: rig.woken)
    assert rig.see(1).runtime == "r2"


async def test_requests_that_come_and_go_wake_nobody_meanwhile(rig: Rig) -> None:
    address = rig.add_pod(1, OLD)
    rig.gateways.follow(KEY, TARGET)
    await eventually(lambda: rig.see(1))
    await asyncio.sleep(0.05)
    rig.woken.clear()
    for running in (5, 6, 7):
        asked = len(rig.pods.asked)
        busy = {"0123abcd": {"running": running, "waiting": 0, "weight": 1}}
        rig.pods.working_with[address] = {**OLD, "revisions": busy}
        await eventually(lambda asked=asked: len(rig.pods.asked) >= asked + 2)  # type: ignore[misc]
    assert rig.woken == []


@pytest.mark.parametrize("status", [403, 404, 409, 500])
async def test_a_pod_that_cannot_be_hurried_is_asked_on(rig: Rig, status: int) -> None:
    rig.api.fault(verb="patch", kind=PODS, times=None, status=status, reason="Forbidden", message="no")
    address = rig.add_pod(1, OLD)
    rig.gateways.follow(KEY, TARGET)
    await eventually(lambda: len(rig.pods.asked) > 3)
    rig.pods.working_with[address] = NEW
    await eventually(lambda: rig.see(1) is not None and rig.see(1).runtime == "r2")


async def test_a_service_that_is_left_is_asked_no_more(rig: Rig) -> None:
    rig.add_pod(1, OLD)
    rig.gateways.follow(KEY, TARGET)
    await eventually(lambda: len(rig.pods.asked) > 2)
    rig.gateways.leave(KEY)
    await asyncio.sleep(0.05)
    asked = len(rig.pods.asked)
    await asyncio.sleep(0.1)
    assert len(rig.pods.asked) == asked


async def test_a_service_that_is_gone_is_asked_no_more(rig: Rig) -> None:
    rig.add_pod(1, OLD)
    rig.gateways.follow(KEY, TARGET)
    await eventually(lambda: len(rig.pods.asked) > 2)
    rig.world.drop_service(KEY, "u")
    await asyncio.sleep(0.1)
    asked = len(rig.pods.asked)
    await asyncio.sleep(0.1)
    assert len(rig.pods.asked) == asked
    assert KEY not in rig.world.gateways or not rig.world.gateways[KEY]


async def test_after_a_stop_nobody_is_asked(rig: Rig) -> None:
    """A reconcile that is still under way must not begin anew what was just ended."""
    rig.add_pod(1, OLD)
    await rig.gateways.stop()
    rig.gateways.follow(KEY, TARGET)
    await asyncio.sleep(0.05)
    assert rig.pods.asked == []


async def test_what_a_pod_told_outlives_a_change_of_the_pod(rig: Rig) -> None:
    """Our own annotation is such a change: forgotten each time, the configuration would never be old enough."""
    rig.add_pod(1, NEW)
    rig.gateways.follow(KEY, TARGET)
    await eventually(lambda: rig.see(1))
    told = rig.see(1)
    pod = rig.api.see(PODS, "gateway-1")
    assert pod is not None
    rig.world._on_pod(pod, {**pod, "status": {**pod["status"], "phase": "Running"}})
    assert rig.see(1) is told


async def test_what_a_pod_told_goes_with_the_pod(rig: Rig) -> None:
    rig.add_pod(1, NEW)
    rig.gateways.follow(KEY, TARGET)
    await eventually(lambda: rig.see(1))
    rig.world._on_pod(rig.api.see(PODS, "gateway-1"), None)
    assert rig.see(1) is None


def test_the_time_of_a_configuration_is_when_it_was_first_heard_of() -> None:
    first = read_state(OLD, None, T0)
    later = read_state(NEW, first, T0 + timedelta(seconds=5))
    reloaded = read_state({**NEW, "config": "c2"}, later, T0 + timedelta(seconds=9))
    assert [(s.at - T0, s.config_since - T0) for s in (first, later, reloaded)] == [
        (timedelta(0), timedelta(0)),
        (timedelta(seconds=5), timedelta(0)),
        (timedelta(seconds=9), timedelta(seconds=9)),
    ]
