"""What all tests share: how hard hypothesis tries (`HYPOTHESIS_PROFILE=thorough` tries harder), what is told at the end of
the run, and which processes give way to which.
"""

import os
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

from tests import measured

#: Failures that are told in short, and characters of each.
_IN_SHORT: Final = 20
_REASON_LENGTH: Final = 500
#: Tests that share a cluster, which a process makes for itself.
_OF_ONE_CLUSTER: Final = ("tests/e2e/", "tests/integration/", "tests/chart/test_release.py")
#: By how much processes with tests that compute give way to the cluster, where most of a test's time is waiting.
_GIVE_WAY: Final = 10

pytest_sessionfinish, pytest_testnodedown = measured.pytest_sessionfinish, measured.pytest_testnodedown

# A busy machine of two cores is slow at times, and that is no failure.
_QUIET = (HealthCheck.too_slow,)
settings.register_profile("quick", max_examples=60, deadline=None, suppress_health_check=_QUIET)
settings.register_profile("thorough", max_examples=2000, deadline=None, suppress_health_check=_QUIET)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was measured, and the reasons of all failures once more, last and in short: a log of a run is read from its
    end."""
    measured.pytest_terminal_summary(terminalreporter)
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


class _ByCluster(LoadScopeScheduling):  # type: ignore[misc]
    """To the processes of pytest-xdist: test after test, but all tests of one cluster to the same."""

    def _split_scope(self, nodeid: str) -> str:
        return next((part for part in _OF_ONE_CLUSTER if nodeid.startswith(part)), nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    # Its own groups (xdist_group) go by a name that pytest has computed anew since 9.1.
    return _ByCluster(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Of several processes the one with the node comes first: others compute while its tests wait."""
    is_node = item.nodeid.startswith(_OF_ONE_CLUSTER[0])
    if hasattr(item.config, "workerinput") and not is_node and os.nice(0) == 0:
        os.nice(_GIVE_WAY)
