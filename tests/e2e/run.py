"""What a run has besides its tests: a cluster, progress on the terminal, what is told of failures, and measurements.

Hooks and fixtures are for every folder of tests with a cluster; its conftest.py takes them over.
"""

import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from e2e.cluster import cache
from e2e.cluster.choose import Target, choose_for_tests
from e2e.cluster.images import REPOSITORY
from e2e.tools import Tools
from tests.e2e.diagnosis import diagnose
from tests.measured import lines_of

#: Failures whose diagnosis is shown: later ones mostly follow from the first.
DIAGNOSES: Final = 3

_TOOLS = pytest.StashKey[Tools]()
_DIAGNOSED = pytest.StashKey[int]()


@contextmanager
def speaking(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let progress be seen while it happens: bringing a cluster up takes longer than people wait in silence."""
    capture: Any = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        yield


@contextmanager
def own_cluster(request: pytest.FixtureRequest) -> Iterator[Target]:
    """A cluster of this checkout's own, up, and removed whatever happens.

    `DRAFTMARK_KEEP=1` leaves it up for a look at it; the next run removes it and begins afresh.
    """
    with speaking(request):
        print()
        chosen = choose_for_tests()
    # A second run of the same checkout waits: it would have the same cluster.
    with cache.lock(f"tests-{cache.key(str(REPOSITORY))}"):
        try:
            with speaking(request):
                chosen.down()
                chosen.up()
            request.config.stash[_TOOLS] = Tools(chosen.kubeconfig)
            yield chosen
        finally:
            if _TOOLS in request.config.stash:
                del request.config.stash[_TOOLS]
            if not os.environ.get("DRAFTMARK_KEEP"):
                with speaking(request):
                    chosen.down()


def add_diagnosis(item: pytest.Item, report: pytest.TestReport) -> None:
    """Add what the cluster knows to the report of a failure."""
    stash = item.config.stash
    shown = stash.get(_DIAGNOSED, 0)
    if report.failed and (tools := stash.get(_TOOLS, None)) is not None and shown < DIAGNOSES:
        stash[_DIAGNOSED] = shown + 1
        report.sections.append(("what the cluster knows", diagnose(tools)))


def mark_items(items: Iterable[pytest.Item], folder: Path, mark: pytest.MarkDecorator, timeout_s: float) -> None:
    """Give the tests below a folder their mark, and the bodies of those that do not say one themselves a time; what fixtures
    wait for is bounded by itself."""
    for item in items:
        if item.path.is_relative_to(folder):
            item.add_marker(mark)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(timeout_s, func_only=True))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    add_diagnosis(item, report)
    return report


@pytest.fixture(scope="session")
def measured(request: pytest.FixtureRequest) -> list[str]:
    """Lines for the end of the run: times that the documentation quotes."""
    return lines_of(request.config)


@pytest.fixture(scope="session")
def target(request: pytest.FixtureRequest) -> Iterator[Target]:
    """The cluster."""
    with own_cluster(request) as chosen:
        yield chosen
