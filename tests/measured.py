"""Lines that tests with a cluster measured, for the end of the run, also where other processes run the tests.

Hooks that a conftest takes over.
"""

from typing import Any, Final

import pytest

_LINES: Final = pytest.StashKey[list[str]]()
_SENT: Final = "draftmark_measured"


def lines_of(config: pytest.Config) -> list[str]:
    """The lines so far, to be added to."""
    return config.stash.setdefault(_LINES, [])


def pytest_sessionfinish(session: pytest.Session) -> None:
    output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if output is not None:  # a process of pytest-xdist, whose terminal is another one's
        output[_SENT] = lines_of(session.config)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    lines_of(node.config).extend(getattr(node, "workeroutput", {}).get(_SENT, ()))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if lines := lines_of(terminalreporter.config):
        terminalreporter.section("measured in the cluster")
        for line in lines:
            terminalreporter.write_line(line)
