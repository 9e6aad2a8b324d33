"""Golden texts, and commands against the fake API server."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from draftmark.cli import looking, main
from draftmark.cli.overview import Seen
from draftmark.cluster.kinds import DEPLOYMENTS, INFERENCE_SERVICES, PODS
from tests.cli.world import NAMESPACE
from tests.fake_api import FakeApi, fake_api

__all__ = ["fake_api"]

GOLDEN = Path(__file__).parent / "golden"


def write_kubeconfig(path: Path, server: str, *, namespace: str | None = NAMESPACE, context: str = "test") -> Path:
    inner = {"cluster": "fake", "user": "fake", **({"namespace": namespace} if namespace else {})}
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "fake", "cluster": {"server": server}}],
                "users": [{"name": "fake", "user": {}}],
                "contexts": [{"name": context, "context": inner}],
                "current-context": context,
            }
        )
    )
    return path


class Commands:
    """The program, run beside the fake API server."""

    def __init__(self, api: FakeApi, kubeconfig: Path) -> None:
        self.api = api
        self.kubeconfig = kubeconfig
        self.loop = asyncio.get_running_loop()

    def add(self, seen: Seen) -> None:
        """Put a service and what belongs to it into the cluster."""
        for kind, items in ((INFERENCE_SERVICES, [seen.service]), (DEPLOYMENTS, seen.deployments), (PODS, seen.pods)):
            for item in items:
                metadata = {
                    k: v for k, v in item["metadata"].items() if k not in ("resourceVersion", "generation", "uid")
                }
                self.api.add(kind, {**item, "metadata": metadata})

    async def run(self, *words: str) -> Result:
        """Run one command to its end."""
        environment = {"KUBECONFIG": str(self.kubeconfig), "NO_COLOR": None, "KUBERNETES_SERVICE_HOST": None}
        result = await asyncio.to_thread(CliRunner().invoke, main, list(words), env=environment)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result


@pytest.fixture
async def commands(fake_api: FakeApi, tmp_path: Path) -> Commands:
    return Commands(fake_api, write_kubeconfig(tmp_path / "kubeconfig", fake_api.url))


@pytest.fixture
def each_look(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], Any]]:
    """Called one after the other where a command would wait; after the last, Ctrl-C."""
    steps: list[Callable[[], Any]] = []

    def wait(seconds: float) -> None:
        if not steps:
            raise KeyboardInterrupt
        steps.pop(0)()

    monkeypatch.setattr(looking, "wait", wait)
    return steps
