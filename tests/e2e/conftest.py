"""One cluster for all end-to-end tests, with the chart, a model and services that most tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.cluster.choose import Target
from e2e.cluster.images import standin as make_standin
from e2e.cluster.progress import step
from e2e.models import place_tiny_model
from e2e.prepare import tiny_model_image
from e2e.tools import Tools, client_pod, deliver, install
from tests.e2e import run
from tests.e2e.api import Namespace, proxied
from tests.e2e.installed import HOME, Client, Installed, inference_service, make_namespace

HERE = Path(__file__).parent
#: Seconds for the body of a test; what fixtures wait for is bounded by themselves.
TEST_TIMEOUT_S = 120


pytest_runtest_makereport = run.pytest_runtest_makereport
measured, target = run.measured, run.target


@pytest.hookimpl(tryfirst=True)  # before -m looks at the markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    run.mark_items(items, HERE, pytest.mark.e2e, TEST_TIMEOUT_S)


@pytest.fixture(scope="session")
def installed(target: Target, request: pytest.FixtureRequest) -> Iterator[Installed]:
    """The chart, installed with helm in a namespace of restricted security."""
    tools = Tools(target.kubeconfig)
    with run.speaking(request):
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
