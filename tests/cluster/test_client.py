"""The client against a server that misbehaves."""

import asyncio
import time
from pathlib import Path

import pytest

from draftmark.cluster.client import ApiClient
from draftmark.cluster.credentials import Access, Credentials
from draftmark.cluster.errors import (
    AlreadyExists,
    Conflict,
    FieldConflict,
    Gone,
    Invalid,
    NotFound,
    TooManyRequests,
    Unauthorized,
    Unavailable,
)
from draftmark.cluster.kinds import DEPLOYMENTS, INFERENCE_SERVICES, PODS, SERVICES, Kind
from tests.cluster.conftest import Json, service
from tests.fake_api import FakeApi

MANAGER = "draftmark"


async def test_an_absent_object_is_none(client: ApiClient) -> None:
    assert await client.get(SERVICES, "default", "nobody") is None


async def test_a_list_comes_in_pages_and_names_the_kind(client: ApiClient, fake_api: FakeApi) -> None:
    for i in range(7):
        fake_api.add(SERVICES, service(f"s{i}"))
    pages = [page async for page in client.list_pages(SERVICES, limit=3)]
    assert [len(page.items) for page in pages] == [3, 3, 1]
    assert {page.resource_version for page in pages} == {str(fake_api.storage.version)}
    assert pages[0].items[0]["kind"] == "Service"


async def test_later_pages_show_the_same_moment_as_the_first(client: ApiClient, fake_api: FakeApi) -> None:
    for i in range(4):
        fake_api.add(SERVICES, service(f"s{i}"))
    names = []
    async for page in client.list_pages(SERVICES, limit=2):
        names += [item["metadata"]["name"] for item in page.items]
        if len(names) == 2:
            fake_api.remove(SERVICES, "s3")
            fake_api.add(SERVICES, service("s9"))
    assert names == ["s0", "s1", "s2", "s3"]


async def test_a_list_can_be_selected_and_reduced_to_metadata(client: ApiClient, fake_api: FakeApi) -> None:
    fake_api.add(SERVICES, service("mine", role="engine"))
    fake_api.add(SERVICES, service("other"))
    pages = [p async for p in client.list_pages(SERVICES, "default", label_selector="role=engine", metadata_only=True)]
    assert [item["metadata"]["name"] for page in pages for item in page.items] == ["mine"]
    assert "spec" not in pages[0].items[0]


async def test_reads_are_repeated(client: ApiClient, fake_api: FakeApi) -> None:
    fake_api.add(SERVICES, service())
    fake_api.fault(verb="get", status=503, times=2)
    assert await client.get(SERVICES, "default", "llama") is not None
    assert fake_api.count("get") == 3


async def test_a_read_is_not_repeated_for_ever(client: ApiClient, fake_api: FakeApi) -> None:
    fake_api.fault(verb="get", status=500, times=None)
    with pytest.raises(Unavailable, match="injected"):
        await client.get(SERVICES, "default", "llama")
    assert fake_api.count("get") == 4


async def test_a_read_waits_as_long_as_the_server_asks(client: ApiClient, fake_api: FakeApi) -> None:
    fake_api.fault(verb="get", status=429, retry_after_s=1)
    started = time.monotonic()
    await client.get(SERVICES, "default", "llama")
    assert time.monotonic() - started >= 1.0


async def test_a_long_wait_is_left_to_the_caller(client: ApiClient, fake_api: FakeApi) -> None:
    fake_api.fault(verb="get", status=429, retry_after_s=30)
    with pytest.raises(TooManyRequests) as raised:
        await client.get(SERVICES, "default", "llama")
    assert raised.value.retry_after_s == 30
    assert fake_api.count("get") == 1


@pytest.mark.parametrize("fault", [{"status": 500}, {"lost_answer": True}, {"reset": True}])
async def test_a_write_is_sent_once_whatever_happens(
    client: ApiClient, fake_api: FakeApi, fault: dict[str, object]
) -> None:
    fake_api.fault(verb="create", **fault)
    with pytest.raises(Unavailable):
        await client.create(SERVICES, "default", service(), field_manager=MANAGER)
    assert fake_api.count("create") == 1
    assert (fake_api.see(SERVICES, "llama") is not None) == ("lost_answer" in fault)


async def test_a_server_that_never_answers_is_left(fake_api: FakeApi) -> None:
    fake_api.fault(verb="create", stall=True)
    async with ApiClient(Credentials.plain(fake_api.url), request_timeout_s=0.1) as client:
        with pytest.raises(Unavailable, match=r"no answer within 0.1 s"):
            await client.create(SERVICES, "default", service(), field_manager=MANAGER)


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    async with ApiClient(Credentials.plain("http://127.0.0.1:9")) as client:
        with pytest.raises(Unavailable, match=r"no usable answer from the API server"):
            await client.create(SERVICES, "default", service(), field_manager=MANAGER)


async def test_requests_in_flight_are_bounded(fake_api: FakeApi) -> None:
    fake_api.fault(verb="get", latency_s=0.02, times=None)
    async with ApiClient(Credentials.plain(fake_api.url), max_connections=4) as client:
        await asyncio.gather(*(client.get(SERVICES, "default", "x") for _ in range(40)))
    assert fake_api.most_in_flight == 4


async def test_apply_merges_and_removes_only_what_it_set(client: ApiClient, fake_api: FakeApi) -> None:
    await client.apply(SERVICES, "default", "llama", service(a="1", b="2"), field_manager=MANAGER)
    fake_api.edit(SERVICES, "llama", lambda obj: obj["metadata"]["labels"].update(theirs="yes"))
    stored = await client.apply(SERVICES, "default", "llama", service(a="1"), field_manager=MANAGER)
    assert stored["metadata"]["labels"] == {"app.kubernetes.io/managed-by": "draftmark", "a": "1", "theirs": "yes"}


async def test_an_apply_that_changes_nothing_leaves_the_version(client: ApiClient) -> None:
    first = await client.apply(SERVICES, "default", "llama", service(), field_manager=MANAGER)
    again = await client.apply(SERVICES, "default", "llama", service(), field_manager=MANAGER)
    assert again["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


async def test_an_unforced_apply_names_who_owns_the_field(client: ApiClient) -> None:
    await client.apply(SERVICES, "default", "llama", service(port=80), field_manager="helm")
    with pytest.raises(FieldConflict) as raised:
        await client.apply(
            SERVICES, "default", "llama", {**service(), "spec": {"selector": {"app": "x"}}}, field_manager=MANAGER
        )
    assert raised.value.managers == ("helm",)
    assert raised.value.fields == (".spec.selector",)


async def test_text_above_the_basic_plane_survives_an_apply(client: ApiClient) -> None:
    body = service()
    body["metadata"]["annotations"] = {"text": "😀 \u2028 \x7f é"}
    stored = await client.apply(SERVICES, "default", "llama", body, field_manager=MANAGER)
    assert stored["metadata"]["annotations"]["text"] == "😀 \u2028 \x7f é"


async def test_a_status_reaches_only_the_status_of_that_very_object(client: ApiClient, fake_api: FakeApi) -> None:
    parent: Json = {"apiVersion": INFERENCE_SERVICES.api_version, "kind": "InferenceService"}
    created = fake_api.add(
        INFERENCE_SERVICES, {**parent, "metadata": {"name": "llama", "namespace": "default"}, "spec": {"a": 1}}
    )
    body: Json = {
        **parent,
        "metadata": {"name": "llama", "uid": created["metadata"]["uid"]},
        "spec": {"a": 2},
        "status": {"url": "x"},
    }
    stored = await client.apply_status(INFERENCE_SERVICES, "default", "llama", body, field_manager="draftmark-status")
    assert (stored["spec"], stored["status"], stored["metadata"]["generation"]) == ({"a": 1}, {"url": "x"}, 1)
    body["metadata"]["uid"] = "another"
    with pytest.raises(Conflict):
        await client.apply_status(INFERENCE_SERVICES, "default", "llama", body, field_manager="draftmark-status")


async def test_create_meets_an_object_that_exists(client: ApiClient, fake_api: FakeApi) -> None:
    fake_api.add(SERVICES, service())
    with pytest.raises(AlreadyExists):
        await client.create(SERVICES, "default", service(), field_manager=MANAGER)


async def test_replace_only_if_nobody_was_faster(client: ApiClient, fake_api: FakeApi) -> None:
    stored = fake_api.add(SERVICES, service())
    fake_api.edit(SERVICES, "llama", lambda obj: obj["metadata"]["labels"].update(x="y"))
    with pytest.raises(Conflict):
        await client.replace(SERVICES, "default", "llama", stored, field_manager=MANAGER)


async def test_delete_means_this_object_and_no_successor(client: ApiClient, fake_api: FakeApi) -> None:
    uid = fake_api.add(SERVICES, service())["metadata"]["uid"]
    fake_api.remove(SERVICES, "llama")
    assert not await client.delete(SERVICES, "default", "llama", uid=uid)
    successor = fake_api.add(SERVICES, service())["metadata"]["uid"]
    assert not await client.delete(SERVICES, "default", "llama", uid=uid)
    assert fake_api.see(SERVICES, "llama") is not None
    assert await client.delete(SERVICES, "default", "llama", uid=successor)
    assert fake_api.see(SERVICES, "llama") is None


async def test_discovery_tells_what_is_served(client: ApiClient) -> None:
    absent = Kind("leaderworkerset.x-k8s.io", "v1", "leaderworkersets", "LeaderWorkerSet")
    assert await client.discover([PODS, DEPLOYMENTS, absent]) == {PODS, DEPLOYMENTS}


async def test_the_version_is_a_number(client: ApiClient) -> None:
    version = await client.server_version()
    assert (version.major, version.minor) == (1, 34)


async def test_a_watch_delivers_changes_and_bookmarks(client: ApiClient, fake_api: FakeApi) -> None:
    version = str(fake_api.storage.version)
    fake_api.add(SERVICES, service("early"))
    types = []
    async for event in client.watch(SERVICES, resource_version=version, timeout_s=1):
        types.append(event.type)
        if types == ["ADDED"]:
            fake_api.remove(SERVICES, "early")
        if event.type == "BOOKMARK":
            break
    assert types == ["ADDED", "DELETED", "BOOKMARK"]


async def test_an_event_may_be_long(client: ApiClient, fake_api: FakeApi) -> None:
    version = str(fake_api.storage.version)
    big = service()
    big["metadata"]["annotations"] = {"big": "x" * 1_000_000}
    fake_api.add(SERVICES, big)
    async for event in client.watch(SERVICES, resource_version=version):
        assert len(event.object["metadata"]["annotations"]["big"]) == 1_000_000
        break


async def test_an_old_version_is_gone_by_status_and_in_the_stream(client: ApiClient, fake_api: FakeApi) -> None:
    fake_api.add(SERVICES, service())
    fake_api.storage.compact(SERVICES)
    with pytest.raises(Gone):
        await anext(client.watch(SERVICES, resource_version="1"))
    events = client.watch(SERVICES, resource_version=str(fake_api.storage.version))
    assert (await anext(events)).type == "BOOKMARK"
    await fake_api.fail_watches(SERVICES, 410, "Expired")
    with pytest.raises(Gone):
        await anext(events)


async def test_a_silent_watch_counts_as_dead(client: ApiClient, fake_api: FakeApi) -> None:
    version = str(fake_api.storage.version)
    events = client.watch(SERVICES, resource_version=version, inactivity_timeout_s=0.3)
    await anext(events)
    fake_api.mute_watches(SERVICES)
    with pytest.raises(Unavailable, match=r"no answer within 0.3 s"):
        await anext(events)


async def test_calls_are_counted_by_verb_kind_and_code(fake_api: FakeApi) -> None:
    calls: list[tuple[str, str, int]] = []

    def observe(verb: str, kind: str, code: int, seconds: float) -> None:
        assert seconds >= 0
        calls.append((verb, kind, code))

    async with ApiClient(Credentials.plain(fake_api.url), observe_call=observe) as client:
        fake_api.fault(verb="create", reset=True)
        with pytest.raises(Unavailable):
            await client.create(SERVICES, "default", service(), field_manager=MANAGER)
        await client.create(SERVICES, "default", service(), field_manager=MANAGER)
        await client.get(SERVICES, "default", "nobody")
    assert calls == [("create", "Service", 0), ("create", "Service", 201), ("get", "Service", 404)]


async def test_the_guard_stands_before_every_write_and_no_read(fake_api: FakeApi) -> None:
    class Stop(Exception):
        pass

    def guard() -> None:
        raise Stop

    async with ApiClient(Credentials.plain(fake_api.url), write_guard=guard) as client:
        await client.get(SERVICES, "default", "llama")
        body = service()
        for write in (
            client.create(SERVICES, "default", body, field_manager=MANAGER),
            client.apply(SERVICES, "default", "llama", body, field_manager=MANAGER),
            client.apply_status(SERVICES, "default", "llama", body, field_manager=MANAGER),
            client.replace(SERVICES, "default", "llama", body, field_manager=MANAGER),
            client.json_patch(SERVICES, "default", "llama", [], field_manager=MANAGER),
            client.delete(SERVICES, "default", "llama", uid="x"),
        ):
            with pytest.raises(Stop):
                await write
    assert fake_api.writes == []


async def test_the_guard_is_asked_after_the_wait_for_a_connection(fake_api: FakeApi) -> None:
    asked_at: list[float] = []
    async with ApiClient(
        Credentials.plain(fake_api.url), max_connections=1, write_guard=lambda: asked_at.append(time.monotonic())
    ) as client:
        fake_api.fault(verb="create", name="", latency_s=0.2)
        await asyncio.gather(
            *(client.create(SERVICES, "default", service(name), field_manager=MANAGER) for name in ("a", "b"))
        )
    assert asked_at[1] - asked_at[0] >= 0.2


async def test_a_refused_token_is_read_again_and_the_request_repeated_once(fake_api: FakeApi) -> None:
    tokens = iter(["old", "new", "newer"])
    credentials = Credentials(lambda _: Access(server=fake_api.url, authorization=f"Bearer {next(tokens)}"))
    async with ApiClient(credentials) as client:
        fake_api.fault(verb="create", status=401)
        await client.create(SERVICES, "default", service(), field_manager=MANAGER)
        assert (await credentials.access()).authorization == "Bearer new"
        fake_api.fault(verb="create", status=401, times=2)
        with pytest.raises(Unauthorized):
            await client.create(SERVICES, "default", service("b"), field_manager=MANAGER)


async def test_a_token_is_read_again_after_five_minutes_and_kept_when_that_fails(fake_api: FakeApi) -> None:
    clock = [0.0]
    loads = 0

    def load(_: Access | None) -> Access:
        nonlocal loads
        loads += 1
        if loads == 2:
            raise OSError("the file is being replaced")
        return Access(server=fake_api.url, authorization=f"Bearer {loads}")

    credentials = Credentials(load, clock=lambda: clock[0])
    seen = []
    for clock[0] in (0.0, 299.0, 301.0, 302.0, 700.0):
        seen.append((await credentials.access()).authorization)
    assert seen == ["Bearer 1", "Bearer 1", "Bearer 1", "Bearer 1", "Bearer 3"]


async def test_a_kubeconfig_is_read_by_the_official_package(fake_api: FakeApi, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    config = tmp_path / "config"
    config.write_text(
        f"""
        {{apiVersion: v1, kind: Config, current-context: here,
          contexts: [{{name: here, context: {{cluster: c, user: u}}}}],
          clusters: [{{name: c, cluster: {{server: "{fake_api.url}/"}}}}],
          users: [{{name: u, user: {{tokenFile: token}}}}]}}
        """
    )
    access = await Credentials.from_environment(str(config)).access()
    assert (access.server, access.authorization, access.tls) == (fake_api.url, "Bearer secret", None)


async def test_an_object_that_the_server_cannot_read_is_invalid(client: ApiClient) -> None:
    with pytest.raises(Invalid):
        await client.apply(SERVICES, "default", "llama", service(), field_manager="")


async def test_deleting_the_parent_collects_its_children(client: ApiClient, fake_api: FakeApi) -> None:
    parent = fake_api.add(INFERENCE_SERVICES, {"metadata": {"name": "llama", "namespace": "default"}})
    uid = parent["metadata"]["uid"]
    fake_api.add(SERVICES, service(owner_uid=uid))
    assert await client.delete(INFERENCE_SERVICES, "default", "llama", uid=uid)
    await asyncio.sleep(0.01)
    assert fake_api.see(SERVICES, "llama") is None


async def test_status_of_an_absent_object_is_not_found(client: ApiClient) -> None:
    with pytest.raises(NotFound):
        await client.apply_status(SERVICES, "default", "nobody", service(), field_manager=MANAGER)
