"""One cluster for all end-to-end tests, with the chart, a model and services that most tests share.

`DRAFTMARK_KEEP=1` leaves the cluster up for a look at it; the next run removes it and begins afresh.
"""

import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster import cache
from e2e.cluster.choose import Target, choose_for_tests
from e2e.cluster.images import standin as make_standin
from e2e.cluster.progress import step
from e2e.models import place_tiny_model
from e2e.prepare import tiny_model_image
from e2e.tools import Tools, client_pod, deliver, install
from tests.e2e.api import Namespace, proxied
from tests.e2e.diagnosis import diagnose
from tests.e2e.installed import HOME, Client, Installed, inference_service, make_namespace

HERE = Path(__file__).parent
#: Seconds for the body of a test; what fixtures wait for is bounded by themselves.
TEST_TIMEOUT_S = 120
#: Failures whose diagnosis is shown: later ones mostly follow from the first.
DIAGNOSES = 3

_TOOLS = pytest.StashKey[Tools]()
_DIAGNOSED = pytest.StashKey[int]()
_MEASURED = pytest.StashKey[list[str]]()


@pytest.hookimpl(tryfirst=True)  # before -m looks at the markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(TEST_TIMEOUT_S, func_only=True))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add what the cluster knows to the report of a failure."""
    report = yield
    stash = item.config.stash
    shown = stash.get(_DIAGNOSED, 0)
    if report.failed and (tools := stash.get(_TOOLS, None)) is not None and shown < DIAGNOSES:
        stash[_DIAGNOSED] = shown + 1
        report.sections.append(("what the cluster knows", diagnose(tools)))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if measured := terminalreporter.config.stash.get(_MEASURED, []):
        terminalreporter.section("measured in the cluster")
        for line in measured:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def measured(request: pytest.FixtureRequest) -> list[str]:
    """Lines for the end of the run: times that the documentation quotes."""
    return request.config.stash.setdefault(_MEASURED, [])


@contextmanager
def _speaking(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let progress be seen while it happens: bringing a cluster up takes longer than people wait in silence."""
    capture: Any = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        yield


@pytest.fixture(scope="session")
def target(request: pytest.FixtureRequest) -> Iterator[Target]:
    """A cluster of this checkout's own, up, and removed whatever happens."""
    with _speaking(request):
        print()
        chosen = choose_for_tests()
    # A second run of the same checkout waits: it would have the same cluster.
    with cache.lock(f"tests-{cache.key(str(HERE))}"):
        try:
            with _speaking(request):
                chosen.down()
                chosen.up()
            yield chosen
        finally:
            if _TOOLS in request.config.stash:
                del request.config.stash[_TOOLS]
            if not os.environ.get("DRAFTMARK_KEEP"):
                with _speaking(request):
                    chosen.down()


@pytest.fixture(scope="session")
def installed(target: Target, request: pytest.FixtureRequest) -> Iterator[Installed]:
    """The chart, installed with helm in a namespace of restricted security."""
    tools = Tools(target.kubeconfig)
    request.config.stash[_TOOLS] = tools
    with _speaking(request):
        images = deliver(target)
        standin = target.bring(make_standin())
        model = target.bring(tiny_model_image())
        folder = place_tiny_model(target)
        with step("helm upgrade --install", slow=True):
            install(tools, images)
    with proxied(target.kubeconfig) as api:
        yield Installed(
            target,
            tools,
            api,
            images.operator,
            images.llama_cpp,
            standin,
            image_uri=f"oci://{model}#tiny.gguf",
            model_folder=folder,
        )


@pytest.fixture(scope="session")
def home(installed: Installed) -> Namespace:
    """The namespace of the services that work: `good`, `picture` (its model is an image) and `doomed`.

    Applied together, so that their starts are one wait.
    """
    namespace = make_namespace(installed, HOME)
    namespace.apply(
        inference_service("good"), inference_service("picture", uri=installed.image_uri), inference_service("doomed")
    )
    return namespace


@pytest.fixture
def good(home: Namespace, installed: Installed) -> str:
    """Name of a service that is settled, under an operator that is."""
    installed.wait_until_both_replicas_are_ready()
    home.wait_until_settled("good")
    return "good"


@pytest.fixture(scope="session")
def client(installed: Installed, home: Namespace) -> Client:
    """The pod `client`, running."""
    wait = "import signal; signal.signal(signal.SIGTERM, lambda *_: exit()); signal.pause()"
    installed.tools.apply(client_pod("client", HOME, installed.operator, ["python3", "-c", wait]))
    installed.tools.kubectl("wait", "pod/client", f"--namespace={HOME}", "--for=condition=Ready", "--timeout=60s")
    return Client(installed.tools, "client")
