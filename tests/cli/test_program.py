"""The program: its commands, and what an import of it costs."""

import subprocess
import sys

import pytest
from click.testing import CliRunner

from draftmark.cli import main, program

COMMANDS = [name for names in program.COMMANDS.values() for name in names]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_that_says_what_it_does(command: str) -> None:
    result = CliRunner().invoke(main, [command, "--help"])
    assert result.exit_code == 0
    assert command in CliRunner().invoke(main, ["--help"]).stdout


def test_an_unknown_command_is_refused() -> None:
    result = CliRunner().invoke(main, ["stauts"])
    assert result.exit_code == 2
    assert "stauts" in result.stderr


def test_kubectl_users_read_kubectl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/local/bin/kubectl-draftmark"])
    assert CliRunner().invoke(main, ["status", "--help"], prog_name=None).exit_code == 0
    told = subprocess.run(
        [sys.executable, "-c", "import sys; sys.argv[0] = '/x/kubectl-draftmark'; from draftmark.cli import main; main()", "top", "-h"],
        capture_output=True,
        text=True,
        check=True,
    )  # fmt: skip
    assert told.stdout.startswith("Usage: kubectl draftmark top [OPTIONS] [NAME]")


@pytest.mark.parametrize(
    ("words", "absent"),
    [
        (["render", "-f", "examples/quickstart.yaml"], {"kubernetes", "rich", "kopf", "aiohttp", "httpx"}),
        (["validate", "-f", "examples/quickstart.yaml"], {"kubernetes", "rich", "kopf", "aiohttp", "httpx"}),
        (["--help"], {"kubernetes", "rich", "kopf", "aiohttp", "httpx"}),
        (["--version"], {"kubernetes", "rich", "kopf", "pydantic", "draftmark.decide"}),
        (["status", "--help"], {"kubernetes", "rich", "draftmark.decide"}),
        (["report", "-f", "/nowhere"], {"kubernetes", "rich", "kopf", "matplotlib", "numpy"}),
        (["bench", "x", "--kubeconfig=/nowhere"], {"rich", "draftmark.decide", "kopf", "matplotlib"}),
        # No terminal, so nothing is drawn; there is no kubeconfig, so it ends before it asks anybody.
        (["status", "x", "--kubeconfig=/nowhere"], {"rich", "draftmark.decide", "kopf"}),
    ],
)
def test_a_command_imports_only_what_it_needs(words: list[str], absent: set[str]) -> None:
    code = "import sys, atexit; atexit.register(lambda: print(*sys.modules, file=sys.stderr)); from draftmark.cli import main; main()"
    ran = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    loaded = set(ran.stderr.split())
    assert "draftmark.cli" in loaded
    assert not absent & loaded
