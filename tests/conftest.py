"""What all tests share: how hard hypothesis tries (`HYPOTHESIS_PROFILE=thorough` tries harder), and what is told of
failures."""

import os
from typing import Final

import pytest
from hypothesis import HealthCheck, settings

#: Failures that are told in short, and characters of each.
_IN_SHORT: Final = 20
_REASON_LENGTH: Final = 500

# A busy machine of two cores is slow at times, and that is no failure.
_QUIET = (HealthCheck.too_slow,)
settings.register_profile("quick", max_examples=60, deadline=None, suppress_health_check=_QUIET)
settings.register_profile("thorough", max_examples=2000, deadline=None, suppress_health_check=_QUIET)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The reasons of all failures once more, last and in short: a log of a run is read from its end."""
    failed = [
        r
        for key in ("failed", "error")
        for r in terminalreporter.stats.get(key, [])
        if isinstance(r, pytest.TestReport)
    ]
    if failed:
        terminalreporter.section("what failed, in short")
    for report in failed[:_IN_SHORT]:
        crash = getattr(report.longrepr, "reprcrash", None)
        reason = crash.message if crash is not None else str(report.longrepr)
        terminalreporter.write_line(f"{report.nodeid} ({report.when}): {reason[:_REASON_LENGTH]}")
