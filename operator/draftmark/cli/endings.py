"""How a command ends when it cannot do what it was asked for."""

import sys
from typing import Final, NoReturn

import click

INVALID: Final = 1
UNPLANNABLE: Final = 2
#: What is looked at has not ended yet.
UNFINISHED: Final = 3
#: As a shell reports a program that SIGINT ended.
INTERRUPTED: Final = 130


class ClusterError(Exception):
    """What a user reads: what is, what is needed, and the way out.

    Attributes:
        status: HTTP status of the answer; 0 when there was none.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status

    @property
    def may_pass(self) -> bool:
        """Whether the same request may succeed a moment later."""
        return self.status in (0, 429) or self.status >= 500


def fail(message: str, code: int = INVALID) -> NoReturn:
    """Say what is wrong on stderr, in one line, and end."""
    click.echo(f"draftmark: {' '.join(message.split())}", err=True)
    sys.exit(code)
