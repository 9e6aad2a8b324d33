"""The way to the API server: kubeconfig, context and namespace as kubectl's users expect, and errors one can act on."""

import re
from pathlib import Path

import pytest
import yaml

from draftmark.cli.connection import Cluster, ClusterError
from draftmark.cluster.kinds import INFERENCE_SERVICES, PODS
from tests.cli import world
from tests.cli.conftest import Commands, write_kubeconfig
from tests.fake_api import FakeApi


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_the_namespace_is_the_option_then_the_context_then_default(tmp_path: Path) -> None:
    file = str(write_kubeconfig(tmp_path / "a", "http://127.0.0.1:1", namespace="models"))
    assert Cluster.open(kubeconfig=file).namespace == "models"
    assert Cluster.open(kubeconfig=file, namespace="other").namespace == "other"
    bare = str(write_kubeconfig(tmp_path / "b", "http://127.0.0.1:1", namespace=None))
    assert Cluster.open(kubeconfig=bare).namespace == "default"


def test_kubeconfig_may_name_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = write_kubeconfig(tmp_path / "a", "http://127.0.0.1:1", namespace="a", context="one")
    second = write_kubeconfig(tmp_path / "b", "http://127.0.0.1:1", namespace="b", context="two")
    monkeypatch.setenv("KUBECONFIG", f"{first}:{tmp_path / 'missing'}:{second}")
    assert Cluster.open(context="one").namespace == "a"
    assert Cluster.open(context="two").namespace == "b"


def test_home_is_looked_at_last(tmp_path: Path) -> None:
    (tmp_path / ".kube").mkdir()
    write_kubeconfig(tmp_path / ".kube" / "config", "http://127.0.0.1:1", namespace="home")
    assert Cluster.open().namespace == "home"


@pytest.mark.parametrize(
    ("text", "context", "told"),
    [
        (None, None, "there is no kubeconfig at ~/.kube/config"),
        ("", None, "cannot be used"),
        ("a: [", None, "cannot be used"),
        ("- a", None, "cannot be used"),
        (yaml.safe_dump({"clusters": [], "contexts": [], "users": []}), None, "has no current context"),
        (yaml.safe_dump({"clusters": [], "contexts": [], "users": [], "current-context": "x"}), None, "no context 'x'. It has: none"),
    ],
)  # fmt: skip
def test_a_kubeconfig_that_is_no_good(tmp_path: Path, text: str | None, context: str | None, told: str) -> None:
    if text is not None:
        (tmp_path / ".kube").mkdir()
        (tmp_path / ".kube" / "config").write_text(text)
    with pytest.raises(ClusterError, match=re.escape(told)):
        Cluster.open(context=context)


def test_a_context_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    file = str(write_kubeconfig(tmp_path / "a", "http://127.0.0.1:1", context="one"))
    with pytest.raises(ClusterError, match=r"no context 'two'\. It has: one"):
        Cluster.open(kubeconfig=file, context="two")
    with pytest.raises(ClusterError, match="is no file"):
        Cluster.open(kubeconfig=str(tmp_path / "none"))


async def test_an_api_server_that_is_not_there(commands: Commands) -> None:
    write_kubeconfig(commands.kubeconfig, "http://127.0.0.1:1")
    result = await commands.run("status", "llama")
    assert result.exit_code == 1
    assert result.stderr.startswith(
        "draftmark: the API server of context 'test' (http://127.0.0.1:1) cannot be reached:"
    )
    assert len(result.stderr.splitlines()) == 1


async def test_a_name_that_is_not_there_names_those_that_are(commands: Commands) -> None:
    commands.add(world.changing())
    result = await commands.run("status", "lama")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "there is no InferenceService 'lama' in namespace 'models'; it has: llama." in result.stderr
    assert "it has: none." in (await commands.run("status", "llama", "-n", "other")).stderr


@pytest.mark.parametrize("name", ["", ".", ".."])
async def test_what_is_no_name_is_told_and_not_asked_for(commands: Commands, name: str) -> None:
    """A path with it would be that of all objects, and the answer a list."""
    commands.add(world.changing())
    for command in ("status", "top", "logs", "rollback", "accept", "pause", "resume", "retry", "bench", "report"):
        result = await commands.run(command, name)
        assert (result.exit_code, f"{name!r} is no name of a" in result.stderr) == (1, True), (command, result.stderr)
        assert len(result.stderr.splitlines()) == 1
    result = await commands.run("bench", name, "--watch")
    assert (result.exit_code, "is no name of a Benchmark" in result.stderr) == (1, True)
    assert commands.api.requests == []


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ({"status": 401, "reason": "Unauthorized"}, "refuses the credentials"),
        ({"status": 403, "reason": "Forbidden", "message": 'User "ada" cannot list resource "pods"'}, 'User "ada" cannot list'),
        ({"status": 404, "reason": "NotFound", "message": "the server could not find the requested resource"}, "Install the chart"),
        ({"status": 500, "reason": "InternalError", "message": "etcd is gone"}, "etcd is gone"),
        ({"reset": True}, "cannot be reached"),
    ],
)  # fmt: skip
async def test_refusals_are_one_line(commands: Commands, fault: dict[str, object], told: str) -> None:
    commands.add(world.changing())
    commands.api.fault(kind=INFERENCE_SERVICES, times=None, **fault)
    for words in (["status", "llama"], ["top"], ["logs", "llama"], ["rollback", "llama"], ["pause", "llama"]):
        result = await commands.run(*words)
        assert result.exit_code == 1
        assert told in result.stderr
        assert len(result.stderr.splitlines()) == 1


async def test_long_lists_come_in_pages(fake_api: FakeApi, commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("draftmark.cli.connection.PAGE", 2)
    commands.add(world.changing())
    result = await commands.run("status", "llama")
    assert result.stdout.count("pod llama-") == len(world.changing().pods)
    assert fake_api.count("list", PODS) == 4


async def test_the_token_is_sent(commands: Commands, fake_api: FakeApi) -> None:
    config = yaml.safe_load(commands.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": "secret"}
    commands.kubeconfig.write_text(yaml.safe_dump(config))
    commands.add(world.changing())
    assert (await commands.run("status", "llama")).exit_code == 0
    assert set(fake_api.authorizations) == {"Bearer secret"}
