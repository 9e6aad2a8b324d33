"""One cluster for all end-to-end tests, with the chart, a model and services that most tests share."""

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from e2e.cluster.choose import Target
from e2e.cluster.images import standin as make_standin
from e2e.cluster.progress import step
from e2e.models import place_tiny_model
from e2e.prepare import tiny_model_image
from e2e.tools import Tools, client_pod, deliver, install
from tests.e2e.api import Namespace, proxied
from tests.e2e.installed import HOME, Client, Installed, inference_service, make_namespace
from tests.e2e.run import add_diagnosis, measured_lines, own_cluster, print_measured, speaking

HERE = Path(__file__).parent
#: Seconds for the body of a test; what fixtures wait for is bounded by themselves.
TEST_TIMEOUT_S = 120


@pytest.hookimpl(tryfirst=True)  # before -m looks at the markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(TEST_TIMEOUT_S, func_only=True))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    add_diagnosis(item, report)
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    print_measured(terminalreporter)


@pytest.fixture(scope="session")
def measured(request: pytest.FixtureRequest) -> list[str]:
    """Lines for the end of the run."""
    return measured_lines(request.config)


@pytest.fixture(scope="session")
def target(request: pytest.FixtureRequest) -> Iterator[Target]:
    """The cluster."""
    with own_cluster(request) as chosen:
        yield chosen


@pytest.fixture(scope="session")
def installed(target: Target, request: pytest.FixtureRequest) -> Iterator[Installed]:
    """The chart, installed with helm in a namespace of restricted security."""
    tools = Tools(target.kubeconfig)
    with speaking(request):
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
