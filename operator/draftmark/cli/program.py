"""The program itself: its commands by name, each imported when it is called.

Planner, clients and terminal libraries take longer to import than most commands to run, so a command imports what it
needs and nothing else.
"""

import os
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final

import click

__all__ = ["main"]

#: Where each command is defined, by the heading that the help shows it under.
COMMANDS: Final[Mapping[str, Mapping[str, str]]] = {
    "Files": {
        "explain": "draftmark.cli.offline",
        "images": "draftmark.cli.images",
        "render": "draftmark.cli.offline",
        "validate": "draftmark.cli.offline",
    },
    "Services in a cluster": {
        "status": "draftmark.cli.watching",
        "top": "draftmark.cli.watching",
        "logs": "draftmark.cli.watching",
        "rollback": "draftmark.cli.changing",
        "accept": "draftmark.cli.changing",
        "retry": "draftmark.cli.changing",
        "pause": "draftmark.cli.changing",
        "resume": "draftmark.cli.changing",
    },
    "Benchmarks": {
        "bench": "draftmark.cli.measuring",
        "compare": "draftmark.cli.measuring",
        "report": "draftmark.cli.report",
    },
    "The operator": {
        "generate": "draftmark.cli.generate",
        "run": "draftmark.cli.run",
    },
}


class _Program(click.Group):
    """A group that imports a command when it is asked for."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        if os.path.basename(sys.argv[0]).startswith("kubectl-"):
            # kubectl runs its plugins by file name; what a user typed has a space.
            kwargs.setdefault("prog_name", "kubectl draftmark")
        return super().main(*args, **kwargs)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for names in COMMANDS.values() for name in names]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for names in COMMANDS.values():
            if cmd_name in names:
                command = getattr(import_module(names[cmd_name]), cmd_name)
                assert isinstance(command, click.Command)
                return command
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for heading, names in COMMANDS.items():
            with formatter.section(heading):
                found = [(name, self.get_command(ctx, name)) for name in names]
                formatter.write_dl([(name, command.get_short_help_str(80)) for name, command in found if command])


@click.group(cls=_Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="draftmark", prog_name="draftmark")
def main() -> None:
    """Serve LLMs on Kubernetes: explained decisions, honest numbers, safe changes."""
