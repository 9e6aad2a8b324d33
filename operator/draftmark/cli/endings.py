"""How a command ends when it cannot do what it was asked for."""

import sys
from typing import Final, NoReturn

import click

INVALID: Final = 1
UNPLANNABLE: Final = 2
#: As a shell reports a program that SIGINT ended.
INTERRUPTED: Final = 130


def fail(message: str, code: int = INVALID) -> NoReturn:
    """Say what is wrong on stderr, in one line, and end."""
    click.echo(f"draftmark: {' '.join(message.split())}", err=True)
    sys.exit(code)
