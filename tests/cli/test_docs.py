"""docs/kubectl.md shows what the commands print."""

from pathlib import Path

import pytest

from tests.cli import world
from tests.cli.conftest import GOLDEN, Commands
from tests.cli.test_commands import ENGINE, log, pinned

PAGE = (Path(__file__).parents[2] / "docs" / "kubectl.md").read_text("utf-8")


@pytest.mark.parametrize(
    "name", ["status-changing", "top-changing", "bench-running", "bench-inconclusive", "bench-compared"]
)
def test_the_golden_texts_stand_in_the_page(name: str) -> None:
    assert (GOLDEN / f"{name}.txt").read_text("utf-8") in PAGE


async def test_the_other_examples_are_what_is_printed(commands: Commands) -> None:
    pinned(commands)
    result = await commands.run("rollback", "llama")
    assert result.stdout + result.stderr in PAGE


async def test_the_examples_of_a_service_at_rest(commands: Commands) -> None:
    commands.add(world.serving())
    commands.api.logs = {(ENGINE, "engine"): log("a", "b"), ("llama-gateway-6c7f8-aaaaa", "gateway"): log("c")}
    for command in ("logs", "pause"):
        assert (await commands.run(command, "llama")).stdout in PAGE


async def test_the_example_of_accept(commands: Commands) -> None:
    commands.add(world.serving())
    assert (await commands.run("accept", "llama")).stdout in PAGE
