"""The commands against the fake API server: what they read, write, print, and how they end."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from draftmark.api import names
from draftmark.cli import log_lines
from draftmark.cluster.kinds import CONTROLLER_REVISIONS, DEPLOYMENTS, INFERENCE_SERVICES, PODS, Kind
from tests.cli import world
from tests.cli.conftest import Commands
from tests.cli.test_load_table import PAGE
from tests.cli.world import NAMESPACE, NEW, NEW_SPEC, OLD, OLD_SPEC
from tests.fake_api import PodLog
from tests.fake_api.storage import Stored

Looks = list[Callable[[], Any]]


# status


async def test_status_prints_the_tree(commands: Commands) -> None:
    commands.add(world.serving())
    result = await commands.run("status", "llama")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines()[0] == "models/llama  Ready  http://llama.models.svc"
    assert "└─ take it with  kubectl draftmark accept llama -n models" in result.stdout
    assert "\x1b" not in result.stdout


async def test_status_as_json_has_these_keys(commands: Commands) -> None:
    commands.add(world.changing())
    told = json.loads((await commands.run("status", "llama", "-o", "json")).stdout)
    assert list(told) == [
        "name", "namespace", "ready", "observed", "paused", "url", "model", "plan", "suggestion", "conditions", "gateway", "revisions",
    ]  # fmt: skip
    assert [r["hash"] for r in told["revisions"]] == [OLD, NEW]
    assert list(told["revisions"][0]) == [
        "hash", "phase", "weight", "provenAt", "reason", "message", "replicas", "readyReplicas", "startup", "router", "pods",
    ]  # fmt: skip
    assert list(told["revisions"][0]["pods"][0]) == [
        "name",
        "node",
        "ready",
        "restarts",
        "reason",
        "message",
        "problem",
    ]


async def test_watch_prints_what_changes_and_ends_when_ready(commands: Commands, each_look: Looks) -> None:
    commands.add(world.changing())

    def becomes_ready() -> None:
        status = dict(world.serving().service)["status"]
        commands.api.edit(INFERENCE_SERVICES, "llama", lambda s: None, NAMESPACE)
        key = (NAMESPACE, "llama")
        stored = commands.api.storage.get(INFERENCE_SERVICES, key)
        commands.api.storage.update(INFERENCE_SERVICES, key, {**stored.obj, "status": status}, "x", "status")

    each_look += [lambda: None, lambda: _in_loop(commands, becomes_ready)]
    result = await commands.run("status", "llama", "--watch")
    assert result.exit_code == 0
    first, *changed = result.stdout.split("\n+")
    assert first.startswith("models/llama  not ready (RollingOut)")
    assert [line.partition("  ")[2].strip() for line in changed][:2] == [
        "models/llama  Ready  http://llama.models.svc",
        "plan  llama-cpp v0.7.0, CPU, 4096 tokens per request, 4 requests at once, ghcr.io/ggml-org/llama.cpp:server-v0.7.0",
    ]


def _in_loop(commands: Commands, change: Callable[[], object]) -> None:
    """The fake's own loop is the only one that may touch its storage; commands run in a thread."""

    async def run() -> None:
        change()

    asyncio.run_coroutine_threadsafe(run(), commands.loop).result(10)


async def test_watch_outlives_an_answer_that_fails(commands: Commands, each_look: Looks) -> None:
    commands.add(world.changing())
    each_look += [
        lambda: commands.api.fault(kind=PODS, status=503, reason="ServiceUnavailable", message="gone"),
        lambda: None,
    ]
    result = await commands.run("status", "llama", "--watch")
    assert result.exit_code == 130  # Ctrl-C, behind the last look
    assert "gone. Trying again." in result.stderr


async def test_watch_ends_when_the_service_is_deleted(commands: Commands, each_look: Looks) -> None:
    commands.add(world.changing())
    each_look += [lambda: _in_loop(commands, lambda: commands.api.remove(INFERENCE_SERVICES, "llama", NAMESPACE))]
    result = await commands.run("status", "llama", "-w")
    assert result.exit_code == 1
    assert "there is no InferenceService 'llama'" in result.stderr


# top


def say(commands: Commands, pod: str, waiting: int, running: int) -> None:
    revisions = {OLD: {"running": running, "waiting": waiting, "weight": 100}}
    text = json.dumps({"config": "c", "runtime": "r", "revisions": revisions})
    commands.api.pod_answers[pod, names.GATEWAY_INNER_PORT, names.GATEWAY_STATE_PATH] = text


async def test_top_asks_gateways_and_engines_through_the_api_server(commands: Commands, each_look: Looks) -> None:
    commands.add(world.changing())
    say(commands, "llama-gateway-6c7f8-aaaaa", 3, 5)
    say(commands, "llama-gateway-6c7f8-bbbbb", 4, 2)
    for suffix in ("hh2mm", "jj3nn"):
        commands.api.pod_answers[f"llama-engine-{OLD}-{suffix}", 8080, "/metrics"] = PAGE
    each_look += [lambda: None]
    result = await commands.run("top", "llama")
    assert result.exit_code == 0
    rows = [line.split() for line in result.stdout.splitlines()[1:]]
    assert rows[0] == ["llama", OLD, "Current", "100", "%", "2/2", "7", "7", "6", "2", "0"]
    assert rows[1] == ["llama", NEW, "Candidate", "0", "%", "0/1", "0", "0", "?", "?", "?"]
    assert f"models/llama-engine-{NEW}-k8x2p does not answer: error trying to reach service" in result.stderr


async def test_top_says_which_gateway_is_silent(commands: Commands, each_look: Looks) -> None:
    commands.add(world.changing())
    say(commands, "llama-gateway-6c7f8-aaaaa", 3, 5)
    each_look += [lambda: None]
    result = await commands.run("top")
    assert "3+?" in result.stdout
    assert "models/llama-gateway-6c7f8-bbbbb does not answer" in result.stderr
    commands.api.pod_answers["llama-gateway-6c7f8-bbbbb", names.GATEWAY_INNER_PORT, names.GATEWAY_STATE_PATH] = "<html>"
    each_look += [lambda: None]
    assert "its state page cannot be read" in (await commands.run("top")).stderr


async def test_many_silent_pods_are_told_in_a_few_lines(commands: Commands, each_look: Looks) -> None:
    commands.add(world.first_release())
    for number in range(20):
        more = world.pod("engine", OLD, f"more-{number}")
        del more["metadata"]["uid"]
        commands.api.add(PODS, more)
    each_look += [lambda: None]
    result = await commands.run("top")
    assert len(result.stderr.splitlines()) == 6
    assert result.stderr.endswith("and 17 more pods do not answer.\n")


async def test_top_of_all_namespaces(commands: Commands, each_look: Looks) -> None:
    commands.add(world.first_release())
    other = world.service(name="other", namespace="apps", revisions=None)
    del other["metadata"]["resourceVersion"]
    commands.api.add(INFERENCE_SERVICES, other)
    each_look += [lambda: None]
    result = await commands.run("top", "-A")
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[0][:2] == ["NAMESPACE", "NAME"]
    assert lines[1] == ["apps", "other", "-", "-", "-", "0/0", "-", "-", "-", "-", "-"]
    assert lines[2][:6] == ["models", "llama", OLD, "Current", "-", "2/2"]
    assert (await commands.run("top", "llama", "-A")).exit_code == 1
    empty = await commands.run("top", "-n", "empty")
    assert "there is no InferenceService in namespace 'empty'" in empty.stderr


async def test_top_watches_until_it_is_stopped(commands: Commands, each_look: Looks) -> None:
    commands.add(world.first_release())
    each_look += [lambda: None, lambda: None]
    result = await commands.run("top", "--watch")
    assert result.exit_code == 130
    assert result.stdout.count("NAME ") == 2


# logs

ENGINE = f"llama-engine-{OLD}-hh2mm"


def log(*texts: str, is_open: bool = False, minute: int = 0) -> PodLog:
    return PodLog([(f"2026-01-01T12:{minute:02d}:{i:02d}.5Z", text) for i, text in enumerate(texts)], is_open=is_open)


async def test_logs_of_all_pods_with_their_names(commands: Commands) -> None:
    commands.add(world.serving())
    commands.api.logs = {(ENGINE, "engine"): log("a", "b"), ("llama-gateway-6c7f8-aaaaa", "gateway"): log("c")}
    result = await commands.run("logs", "llama")
    assert result.stdout.splitlines() == [
        "gateway/llama-gateway-6c7f8-aaaaa  c",
        f"engine/{ENGINE}  a",
        f"engine/{ENGINE}  b",
    ]
    assert f'engine/llama-engine-{OLD}-jj3nn: container "engine" in pod' in result.stderr


async def test_logs_of_a_role_a_revision_and_the_last_lines(commands: Commands) -> None:
    commands.add(world.changing())
    for pod in world.changing().pods:
        commands.api.logs[pod["metadata"]["name"], pod["spec"]["containers"][0]["name"]] = log("a", "b")
    result = await commands.run("logs", "llama", "--engine", "--revision", OLD[:4], "--tail", "1")
    assert result.stdout.splitlines() == [f"engine/{ENGINE}  b", f"engine/llama-engine-{OLD}-jj3nn  b"]
    both = await commands.run("logs", "llama", "--router", "--gateway", "--since", "1h30m")
    assert {line.partition("/")[0] for line in both.stdout.splitlines()} == {"gateway", "router"}
    assert {r.query.get("sinceSeconds") for r in commands.api.requests if r.subresource == "log"} == {None, "5400"}
    assert (
        "there is no engine pod of revision ffff"
        in (await commands.run("logs", "llama", "--engine", "--revision=ffff")).stderr
    )
    assert (await commands.run("logs", "llama", "--since", "soon")).exit_code == 2
    assert (await commands.run("logs", "llama", "-f", "-p")).exit_code == 1


async def test_logs_from_before_a_restart(commands: Commands) -> None:
    commands.add(world.serving())
    commands.api.logs[ENGINE, "engine"] = PodLog(previous=[("2026-01-01T12:00:00Z", "out of memory")])
    result = await commands.run("logs", "llama", "--engine", "--previous")
    assert result.stdout == f"engine/{ENGINE}  out of memory\n"


async def test_followed_logs_pick_up_new_pods_and_broken_streams(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_lines, "LOOK_AGAIN_S", 0.05)
    commands.add(world.first_release())
    first = commands.api.logs[ENGINE, "engine"] = log("old", "a", is_open=True)
    running = asyncio.create_task(commands.run("logs", "llama", "-f", "--tail", "1"))
    await _until(lambda: _followed(commands) == 1)

    # The stream breaks off and the container says more: nothing is lost, nothing is told twice.
    first.is_open = False
    await asyncio.sleep(0.1)
    first.lines += log("b", minute=1).lines
    first.is_open = True
    # A pod comes while we watch: all that it says, whatever --tail was.
    fresh = world.pod("engine", OLD, "new")
    del fresh["metadata"]["uid"]
    commands.api.add(PODS, fresh)
    commands.api.logs[f"llama-engine-{OLD}-new", "engine"] = log("x", "y", minute=2)
    await _until(lambda: _followed(commands) > 3)
    await asyncio.sleep(0.2)

    for kind in (INFERENCE_SERVICES, DEPLOYMENTS, PODS):
        for _, name in list(commands.api.storage.objects[kind]):
            commands.api.remove(kind, name, NAMESPACE)
    result = await asyncio.wait_for(running, 20)
    assert result.exit_code == 0
    assert sorted(result.stdout.splitlines()) == [
        f"engine/{ENGINE}  a",
        f"engine/{ENGINE}  b",
        f"engine/llama-engine-{OLD}-new  x",
        f"engine/llama-engine-{OLD}-new  y",
    ]
    assert "InferenceService 'llama' and its pods are gone." in result.stderr


def _followed(commands: Commands) -> int:
    return sum(r.subresource == "log" and r.name in (ENGINE, f"llama-engine-{OLD}-new") for r in commands.api.requests)


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - nothing tells us
            await asyncio.sleep(0.02)


# rollback


def spec_of(commands: Commands) -> Any:
    found = commands.api.see(INFERENCE_SERVICES, "llama", NAMESPACE)
    assert found is not None
    return found["spec"]


def pinned(commands: Commands) -> None:
    commands.add(world.changing())
    for number, spec in enumerate((OLD_SPEC, NEW_SPEC)):
        commands.api.add(CONTROLLER_REVISIONS, world.controller_revision(spec, number + 1))


async def test_rollback_goes_back_and_says_what_changes(commands: Commands) -> None:
    pinned(commands)
    trial = await commands.run("rollback", "llama", "--dry-run")
    assert trial.stdout.splitlines()[-1] == "The API server accepts this. Nothing was written (--dry-run)."
    assert spec_of(commands) == {**NEW_SPEC, "replicas": 2}
    result = await commands.run("rollback", "llama")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        f"models/llama: from revision {NEW} to {OLD}",
        "  ~ model.maxContextLength: 8192 → 4096",
        "Written. See kubectl draftmark status llama --watch.",
    ]
    assert "the next apply would undo this" in result.stderr
    assert spec_of(commands) == {**OLD_SPEC, "replicas": 2}
    again = await commands.run("rollback", "llama")
    assert (again.exit_code, "no revision before" in again.stderr) == (1, True)


async def test_rollback_warns_of_gitops(commands: Commands) -> None:
    pinned(commands)
    mark = {"kustomize.toolkit.fluxcd.io/name": "serving"}
    commands.api.edit(INFERENCE_SERVICES, "llama", lambda s: s["metadata"].update(labels=mark), NAMESPACE)
    result = await commands.run("rollback", "llama", "--to", OLD[:5])
    assert "Flux (serving) manages this object and will put its own spec back." in result.stderr


async def test_rollback_lists_what_is_kept(commands: Commands) -> None:
    pinned(commands)
    result = await commands.run("rollback", "llama", "--list")
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[1][:3] == [NEW, "2", "Candidate"]
    assert lines[1][-3:] == ["(this", "is", "it)"]
    assert lines[2][:3] == [OLD, "1", "Current"]
    assert lines[2][-4:] == ["model.maxContextLength:", "8192", "→", "4096"]


async def test_a_status_that_is_written_meanwhile_is_no_conflict(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned(commands)
    _meddle(commands, monkeypatch, lambda s: s["metadata"].update(annotations={"a": "b"}), times=2)
    assert (await commands.run("rollback", "llama")).exit_code == 0
    assert spec_of(commands) == {**OLD_SPEC, "replicas": 2}


async def test_a_spec_that_is_changed_meanwhile_is_left_alone(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned(commands)
    _meddle(commands, monkeypatch, lambda s: s["spec"].update(replicas=3), times=1)
    result = await commands.run("rollback", "llama")
    assert result.exit_code == 1
    assert "changed by somebody else meanwhile" in result.stderr
    assert spec_of(commands) == {**NEW_SPEC, "replicas": 3}


def _meddle(
    commands: Commands, monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], object], *, times: int
) -> None:
    """Somebody writes between our read and our write."""
    original = commands.api.storage.get
    left = [times]

    def get(kind: Kind, key: tuple[str, str]) -> Stored:
        if left[0] and commands.api.requests[-1].verb == "patch" and kind == INFERENCE_SERVICES:
            left[0] -= 1
            with monkeypatch.context() as undone:
                undone.setattr(commands.api.storage, "get", original)
                commands.api.edit(INFERENCE_SERVICES, "llama", change, NAMESPACE)
        return original(kind, key)

    monkeypatch.setattr(commands.api.storage, "get", get)


async def test_an_object_that_the_api_server_refuses(commands: Commands) -> None:
    pinned(commands)
    commands.api.fault(verb="patch", status=422, reason="Invalid", message="spec.model: Invalid value")
    result = await commands.run("rollback", "llama")
    assert (result.exit_code, "spec.model: Invalid value" in result.stderr) == (1, True)


# accept, pause, resume, retry


async def test_accept_takes_the_present_suggestion(commands: Commands) -> None:
    commands.add(world.serving())
    wrong = await commands.run("accept", "llama", "00000000")
    assert (wrong.exit_code, "which is 3f2a1b4c" in wrong.stderr) == (1, True)
    assert "rollout" not in spec_of(commands)
    result = await commands.run("accept", "llama", "3f2a1b4c")
    assert result.exit_code == 0
    assert "engine version v0.7.0 → v0.8.0" in result.stdout
    assert spec_of(commands)["rollout"] == {"accept": "3f2a1b4c"}
    # The operator has not seen the new spec yet.
    assert "has not seen the newest spec" in (await commands.run("accept", "llama")).stderr


async def test_accept_without_a_suggestion_is_refused(commands: Commands) -> None:
    commands.add(world.changing())
    result = await commands.run("accept", "llama")
    assert (result.exit_code, "there is no suggestion" in result.stderr) == (1, True)
    assert commands.api.writes == []


async def test_pause_and_resume(commands: Commands) -> None:
    commands.add(world.serving())
    assert (await commands.run("resume", "llama")).stdout == "models/llama is not paused.\n"
    assert (await commands.run("pause", "llama")).exit_code == 0
    assert spec_of(commands)["paused"] is True
    assert (await commands.run("pause", "llama")).stdout == "models/llama is paused already.\n"
    assert (await commands.run("resume", "llama")).exit_code == 0
    assert spec_of(commands) == {**OLD_SPEC, "replicas": 2}
    assert len(commands.api.writes) == 2


async def test_retry_sets_the_annotation(commands: Commands) -> None:
    commands.add(world.failed())
    result = await commands.run("retry", "llama")
    assert f"revision {NEW} is tried again" in result.stdout
    found = commands.api.see(INFERENCE_SERVICES, "llama", NAMESPACE)
    assert found is not None
    assert found["metadata"]["annotations"][names.ANNOTATION_RETRY] > "2026-01-01T11:59:30Z"


async def test_retry_asks_again_about_a_model_that_could_not_be_read(commands: Commands) -> None:
    commands.add(world.serving(modelFacts={"state": "Failed", "question": "q", "at": "2099-01-01T00:00:00Z"}))
    result = await commands.run("retry", "llama")
    assert "the facts of the model are asked for again" in result.stdout
    assert result.stderr == ""
    found = commands.api.see(INFERENCE_SERVICES, "llama", NAMESPACE)
    assert found is not None
    assert found["metadata"]["annotations"][names.ANNOTATION_RETRY] > "2099-01-01T00:00:00Z"


async def test_retry_without_a_failure_says_so(commands: Commands) -> None:
    commands.add(world.serving())
    result = await commands.run("retry", "llama")
    assert (result.exit_code, "no revision that failed" in result.stderr) == (0, True)
