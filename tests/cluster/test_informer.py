"""The cache ends up right, whatever the watch does, and never stops."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftmark.cluster import informer as informer_module
from draftmark.cluster.client import ApiClient, WatchEvent
from draftmark.cluster.informer import Informer
from draftmark.cluster.kinds import INFERENCE_SERVICES, SERVICES
from tests.cluster.conftest import Json, eventually, service
from tests.fake_api import FakeApi


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(informer_module, "_SHORTEST_BACKOFF_S", 0.01)
    monkeypatch.setattr(informer_module, "_LONGEST_BACKOFF_S", 0.05)
    monkeypatch.setattr(informer_module, "_SHORT_WATCH_S", 0.01)


@asynccontextmanager
async def running(informer: Informer[Any], *, synced: bool = True) -> AsyncIterator[None]:
    task = asyncio.create_task(informer.run())
    try:
        if synced:
            await asyncio.wait_for(informer.synced.wait(), 3)
            await asyncio.sleep(0.02)
        yield
        assert not task.done(), "an informer never ends by itself"
    finally:
        task.cancel()


class Changes:
    """Records what the informer tells."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def __call__(self, old: Json | None, new: Json | None) -> None:
        what = "changed" if old and new else "added" if new else "deleted"
        self.seen.append((what, (new or old or {})["metadata"]["name"]))


def test_a_note_is_forgotten_with_the_version_that_it_was_made_for(client: ApiClient) -> None:
    informer = Informer(client, SERVICES)
    first = {**service("a"), "metadata": {**service("a")["metadata"], "uid": "u", "resourceVersion": "1"}}
    second = {**first, "metadata": {**first["metadata"], "resourceVersion": "2"}}
    where = (first["metadata"]["namespace"], "a")
    informer.note(first, b"too early: it is not known")
    informer.absorb(first)
    assert informer.noted(*where) == b""
    informer.note(first, b"agreed")
    assert informer.noted(*where) == b"agreed"
    informer.absorb(second)
    assert informer.noted(*where) == b""
    informer.note(first, b"too late: it has changed since")
    assert informer.noted(*where) == b""


async def test_it_lists_in_pages_and_then_follows(client: ApiClient, fake_api: FakeApi) -> None:
    for i in range(5):
        fake_api.add(SERVICES, service(f"s{i}"))
    changes = Changes()
    informer = Informer(client, SERVICES, on_change=changes, page_size=2)
    async with running(informer):
        assert len(informer) == 5
        fake_api.edit(SERVICES, "s1", lambda obj: obj["spec"].update(type="NodePort"))
        fake_api.remove(SERVICES, "s2")
        fake_api.add(SERVICES, service("s9"))
        await eventually(lambda: ("added", "s9") in changes.seen)
        edited = informer.get("default", "s1")
        assert edited is not None
        assert edited["spec"]["type"] == "NodePort"
        assert informer.get("default", "s2") is None
    assert changes.seen[5:] == [("changed", "s1"), ("deleted", "s2"), ("added", "s9")]
    assert fake_api.count("list") == 3
    assert fake_api.count("watch") == 1


async def test_objects_are_found_by_their_controller(client: ApiClient, fake_api: FakeApi) -> None:
    fake_api.add(SERVICES, service("b", owner_uid="one"))
    fake_api.add(SERVICES, service("a", owner_uid="one"))
    fake_api.add(SERVICES, service("c", owner_uid="two"))
    informer = Informer(client, SERVICES)
    async with running(informer):
        assert [obj["metadata"]["name"] for obj in informer.owned_by("one")] == ["a", "b"]
        fake_api.edit(SERVICES, "b", lambda obj: obj["metadata"]["ownerReferences"][0].update(uid="two"))
        await eventually(lambda: len(informer.owned_by("two")) == 2)
        assert [obj["metadata"]["name"] for obj in informer.owned_by("one")] == ["a"]
        fake_api.remove(SERVICES, "a")
        await eventually(lambda: not informer.owned_by("one"))


async def test_the_cache_is_kept_without_managed_fields(client: ApiClient, fake_api: FakeApi) -> None:
    fake_api.add(SERVICES, service())
    informer = Informer(client, SERVICES)
    async with running(informer):
        obj = informer.get("default", "llama")
        assert obj is not None
        assert "managedFields" not in obj["metadata"]


async def test_what_is_kept_packed_comes_back_the_same(
    client: ApiClient, fake_api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("draftmark.cluster.informer._RECENT", 2)
    for name in "abcd":
        fake_api.add(SERVICES, service(name))
    changes: list[tuple[Any, Any]] = []
    informer = Informer(client, SERVICES, on_change=lambda old, new: changes.append((old, new)))
    async with running(informer):
        first = {name: informer.get("default", name) for name in "abcd"}
        assert [item and item["metadata"]["name"] for item in first.values()] == list("abcd")
        # The first of them were packed meanwhile.
        assert {name: informer.get("default", name) for name in "abcd"} == first
        fake_api.edit(SERVICES, "a", lambda obj: obj["spec"].update(type="NodePort"))
        await eventually(lambda: len(changes) == 5)
        old, new = changes[-1]
        assert old == first["a"]
        assert new["spec"]["type"] == "NodePort"
        assert informer.get("default", "a") == new


async def test_only_what_is_projected_is_kept(client: ApiClient, fake_api: FakeApi) -> None:
    fake_api.add(SERVICES, service(port=8080))
    informer = Informer(client, SERVICES, project=lambda obj: int(obj["spec"]["ports"][0]["port"]))
    async with running(informer):
        assert informer.get("default", "llama") == 8080
        assert list(informer.values()) == [8080]


async def test_only_selected_objects_are_seen(client: ApiClient, fake_api: FakeApi) -> None:
    fake_api.add(SERVICES, service("mine", role="engine"))
    fake_api.add(SERVICES, service("other"))
    informer = Informer(client, SERVICES, label_selector="role=engine")
    async with running(informer):
        assert len(informer) == 1
        fake_api.edit(SERVICES, "mine", lambda obj: obj["metadata"]["labels"].pop("role"))
        await eventually(lambda: len(informer) == 0)
        fake_api.edit(SERVICES, "mine", lambda obj: obj["metadata"]["labels"].update(role="engine"))
        await eventually(lambda: len(informer) == 1)


async def expire_in_stream(fake_api: FakeApi) -> None:
    await fake_api.fail_watches(SERVICES, 410, "Expired")


async def expire_by_status(fake_api: FakeApi) -> None:
    fake_api.storage.compact(SERVICES)
    fake_api.cut_watches(SERVICES)


@pytest.mark.parametrize("expire", [expire_in_stream, expire_by_status])
async def test_deletions_in_the_gap_of_an_expired_version_are_found(
    client: ApiClient, fake_api: FakeApi, expire: Callable[[FakeApi], Any]
) -> None:
    for name in ("stays", "goes", "recreated"):
        fake_api.add(SERVICES, service(name))
    changes = Changes()
    informer = Informer(client, SERVICES, on_change=changes)
    async with running(informer):
        changes.seen.clear()
        fake_api.drop_events(SERVICES, 4)
        fake_api.remove(SERVICES, "goes")
        fake_api.remove(SERVICES, "recreated")
        fake_api.add(SERVICES, service("recreated", port=81))
        fake_api.add(SERVICES, service("new"))
        await asyncio.sleep(0.02)
        assert changes.seen == []
        await expire(fake_api)
        await eventually(lambda: len(changes.seen) == 4)
    assert sorted(changes.seen) == [
        ("added", "new"),
        ("added", "recreated"),
        ("deleted", "goes"),
        ("deleted", "recreated"),
    ]


async def test_what_no_watch_delivered_is_found_by_the_next_list(client: ApiClient, fake_api: FakeApi) -> None:
    informer = Informer(client, SERVICES, resync_s=1.5)
    async with running(informer):
        fake_api.drop_events(SERVICES, 1)
        fake_api.add(SERVICES, service())
        await asyncio.sleep(0.1)
        assert len(informer) == 0
        await eventually(lambda: len(informer) == 1, within_s=5)


@pytest.mark.parametrize("code", [500, 504, 429, 403])
async def test_an_error_in_the_stream_is_waited_out_without_a_new_list(
    client: ApiClient, fake_api: FakeApi, code: int
) -> None:
    informer = Informer(client, SERVICES)
    async with running(informer):
        await fake_api.fail_watches(SERVICES, code, "Broken")
        fake_api.add(SERVICES, service())
        await eventually(lambda: len(informer) == 1)
    assert fake_api.count("list") == 1


async def test_a_cut_connection_is_resumed_where_it_was(client: ApiClient, fake_api: FakeApi) -> None:
    changes = Changes()
    informer = Informer(client, SERVICES, on_change=changes)
    async with running(informer):
        for name in ("a", "b", "c"):
            fake_api.add(SERVICES, service(name))
            await eventually(partial(informer.get, "default", name))
            fake_api.cut_watches(SERVICES)
    assert changes.seen == [("added", "a"), ("added", "b"), ("added", "c")]
    assert fake_api.count("list") == 1


async def test_a_silent_connection_is_replaced(client: ApiClient, fake_api: FakeApi) -> None:
    informer = Informer(client, SERVICES, inactivity_timeout_s=0.2)
    async with running(informer):
        fake_api.mute_watches(SERVICES)
        fake_api.add(SERVICES, service())
        await eventually(lambda: len(informer) == 1)


async def test_a_missing_permission_is_told_and_tried_again(client: ApiClient, fake_api: FakeApi) -> None:
    fake_api.add(SERVICES, service())
    fault = fake_api.fault(verb="list", kind=SERVICES, status=403, reason="Forbidden", times=None)
    informer = Informer(client, SERVICES)
    async with running(informer, synced=False):
        await eventually(lambda: informer.denied)
        assert 'Grant the verb "list" on services' in str(informer.denied)
        assert not informer.is_synced
        fake_api.faults.rules.remove(fault)
        await eventually(lambda: informer.is_synced)
        assert informer.denied is None


async def test_a_kind_that_is_not_installed_is_told_and_found_later(client: ApiClient, fake_api: FakeApi) -> None:
    fake_api.storage.remove_kind(INFERENCE_SERVICES)
    informer = Informer(client, INFERENCE_SERVICES)
    async with running(informer, synced=False):
        await eventually(lambda: informer.absent)
        fake_api.storage.serve(INFERENCE_SERVICES)
        fake_api.add(INFERENCE_SERVICES, {"metadata": {"name": "llama", "namespace": "default"}})
        await eventually(lambda: len(informer) == 1)
        assert informer.absent is None


@pytest.mark.parametrize(("code", "reason"), [(404, "NotFound"), (403, "Forbidden")])
async def test_an_optional_kind_is_done_without_and_seldom_asked_for(
    client: ApiClient, fake_api: FakeApi, caplog: pytest.LogCaptureFixture, code: int, reason: str
) -> None:
    fake_api.add(SERVICES, service("a"))
    fault = fake_api.fault(verb="list", kind=SERVICES, status=code, reason=reason, times=None)
    informer = Informer(client, SERVICES, is_optional=True, resync_s=0.3)
    with caplog.at_level("INFO", logger=informer_module.__name__):
        async with running(informer):
            assert len(informer) == 0
            assert informer.absent or informer.denied
            assert fake_api.count("list") == 1
            fake_api.faults.rules.remove(fault)
            await eventually(lambda: len(informer) == 1)
    assert {record.levelname for record in caplog.records} == {"INFO"}


async def test_what_cannot_be_read_is_not_deleted(client: ApiClient, fake_api: FakeApi) -> None:
    fake_api.add(SERVICES, service())
    changes = Changes()
    informer = Informer(client, SERVICES, on_change=changes)
    async with running(informer):
        fake_api.fault(kind=SERVICES, status=403, reason="Forbidden", times=None)
        await fake_api.fail_watches(SERVICES, 410, "Expired")
        await eventually(lambda: informer.denied)
        assert len(informer) == 1
    assert changes.seen == [("added", "llama")]


async def test_a_continue_token_that_expires_is_followed_by_one_whole_list(
    client: ApiClient, fake_api: FakeApi
) -> None:
    for i in range(4):
        fake_api.add(SERVICES, service(f"s{i}"))
    fake_api.fault(verb="list", nth=2, status=410, reason="Expired")
    informer = Informer(client, SERVICES, page_size=2)
    async with running(informer):
        assert len(informer) == 4
    assert [request.query.get("limit") for request in fake_api.requests if request.verb == "list"] == ["2", "2", None]


async def test_bookmarks_keep_it_alive_and_move_the_version(client: ApiClient, fake_api: FakeApi) -> None:
    informer = Informer(client, SERVICES)
    async with running(informer):
        heard = informer.last_heard
        fake_api.add(INFERENCE_SERVICES, {"metadata": {"name": "other", "namespace": "default"}})
        await eventually(lambda: informer.last_heard > heard)
        await asyncio.sleep(0.1)
        # Expires every version from before the bookmark.
        fake_api.storage.compact(SERVICES)
        fake_api.cut_watches(SERVICES)
        await eventually(lambda: fake_api.count("watch") == 2)
        await asyncio.sleep(0.05)
    assert fake_api.count("list") == 1


async def test_an_own_write_is_seen_at_once_and_a_late_event_does_not_undo_it(
    client: ApiClient, fake_api: FakeApi
) -> None:
    changes = Changes()
    informer = Informer(client, SERVICES, on_change=changes)
    async with running(informer):
        fake_api.mute_watches(SERVICES)
        first = await client.apply(SERVICES, "default", "llama", service(port=80), field_manager="draftmark")
        second = await client.apply(SERVICES, "default", "llama", service(port=81), field_manager="draftmark")
        informer.absorb(second)
        informer.absorb(first)
        seen = informer.get("default", "llama")
        assert seen is not None
        assert seen["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"]
    assert changes.seen == [("added", "llama")]


async def test_a_listener_that_fails_does_not_end_the_watch(client: ApiClient, fake_api: FakeApi) -> None:
    listener = Mock(side_effect=RuntimeError("a bug"))
    informer = Informer(client, SERVICES, on_change=listener)
    async with running(informer):
        fake_api.add(SERVICES, service("a"))
        fake_api.add(SERVICES, service("b"))
        await eventually(lambda: listener.call_count == 2)


async def test_an_event_that_makes_no_sense_leads_to_a_new_list(client: ApiClient, fake_api: FakeApi) -> None:
    informer = Informer(client, SERVICES)
    async with running(informer):
        await fake_api.inject(SERVICES, "ADDED", {"metadata": {"resourceVersion": "9"}})
        await eventually(lambda: fake_api.count("list") == 2)


async def test_a_restored_backup_is_noticed(client: ApiClient, fake_api: FakeApi) -> None:
    fake_api.storage.version = 5000
    fake_api.add(SERVICES, service(port=80))
    fake_api.add(SERVICES, service("newer"))
    informer = Informer(client, SERVICES)
    async with running(informer):
        fake_api.storage.objects[SERVICES].clear()
        fake_api.storage.history[SERVICES].clear()
        fake_api.storage.version = 1000
        fake_api.add(SERVICES, service(port=81))
        await fake_api.fail_watches(SERVICES, 410, "Expired")
        await eventually(lambda: len(informer) == 1)
        seen = informer.get("default", "llama")
        assert seen is not None
        assert seen["spec"]["ports"][0]["port"] == 81


# Whatever the order and number of events, the newest state wins.

Life = list[tuple[str, int, str]]


@st.composite
def lives(draw: st.DrawFn) -> tuple[Life, Life]:
    """The true history of one name, as (type, version, uid), and how it is delivered."""
    history: Life = []
    version, uid = 0, 0
    alive = False
    for _ in range(draw(st.integers(1, 8))):
        version += draw(st.integers(1, 3))
        if not alive:
            uid += 1
            history.append(("ADDED", version, str(uid)))
            alive = True
        elif draw(st.booleans()):
            history.append(("MODIFIED", version, str(uid)))
        else:
            history.append(("DELETED", version, str(uid)))
            alive = False
    delivered = draw(st.permutations(history + draw(st.lists(st.sampled_from(history), max_size=6))))
    return history, delivered


@given(lives())
def test_any_order_and_repetition_of_events_ends_in_the_newest_state(life: tuple[Life, Life]) -> None:
    history, delivered = life
    known: dict[str, int] = {}

    def on_change(old: Json | None, new: Json | None) -> None:
        if old is not None:
            known.pop(old["metadata"]["uid"])
        if new is not None:
            known[new["metadata"]["uid"]] = int(new["metadata"]["resourceVersion"])

    informer = Informer(Mock(), SERVICES, on_change=on_change)
    for type_, version, uid in delivered:
        metadata = {"name": "x", "namespace": "ns", "uid": uid, "resourceVersion": str(version)}
        informer._take(WatchEvent(type_, {"metadata": metadata}))
    type_, version, uid = history[-1]
    assert known == ({} if type_ == "DELETED" else {uid: version})
    assert len(informer) == len(known)


def test_tombstones_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    informer = Informer(Mock(), SERVICES)
    order = list(range(1000))
    random.Random(1).shuffle(order)
    for i in order:
        now[0] += 1
        metadata = {"name": f"s{i}", "uid": str(i), "resourceVersion": str(i + 1)}
        informer._take(WatchEvent("DELETED", {"metadata": metadata}))
    assert len(informer._tombstones) <= 301


async def test_an_accepted_watch_is_a_sign_of_life(client: ApiClient, fake_api: FakeApi) -> None:
    # A kind of which nothing is ever told, not even a bookmark, must not look dead.
    fake_api.bookmark_interval_s = 60.0
    informer = Informer(client, SERVICES, inactivity_timeout_s=0.2)
    task = asyncio.create_task(informer.run())
    await asyncio.wait_for(informer.synced.wait(), 3)
    first = informer.last_heard
    await eventually(lambda: fake_api.count("watch", SERVICES) >= 3, within_s=6.0)
    await eventually(lambda: informer.last_heard > first + 0.2)
    task.cancel()
