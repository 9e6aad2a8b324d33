"""Real vLLM on CPU, in a cluster of this checkout's own, behind the gateway and the router.

No plain run of pytest comes here (norecursedirs): the image has gigabytes, and every start of the engine takes minutes.
`make e2e-vllm` names the folder.
"""

import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pytest

from draftmark.api import names
from e2e import tiny_llama, tiny_llama_gguf
from e2e.cluster import images
from e2e.cluster.choose import Target
from e2e.cluster.progress import step
from e2e.tools import Tools, client_pod, deliver, install, restricted_namespace
from tests.e2e import run
from tests.e2e.api import Json, Namespace, eventually, proxied
from tests.e2e.installed import HOME, Client, Installed

HERE: Final = Path(__file__).parent
#: What is installed in the image: images/vllm-cpu/requirements.in.
VERSION: Final = "0.32.0"
#: Seconds for the body of a test, in which the engine may have to start twice.
TEST_TIMEOUT_S: Final = 1500
#: Seconds for one start on two cores that others use as well.
START_S: Final = 600
#: The service that most tests use.
PLAIN: Final = "plain"
#: A larger model in the same image: as Hugging Face stores one, and the same as GGUF.
SMALL, SMALL_GGUF = "small-llama", "small-llama-BF16.gguf"


pytest_runtest_makereport = run.pytest_runtest_makereport
measured, target = run.measured, run.target


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    run.mark_items(items, HERE, pytest.mark.e2e_vllm, TEST_TIMEOUT_S)


@pytest.fixture(scope="session")
def vllm(target: Target, request: pytest.FixtureRequest, measured: list[str]) -> str:
    """Reference of the image, on the node."""
    with run.speaking(request):
        image = images.vllm_cpu()
        began = time.monotonic()
        reference = target.deliver("vllm-cpu")
    measured.append(f"image: {image.archive.stat().st_size / 1e9:.2f} GB, loaded in {time.monotonic() - began:.0f} s")
    return reference


@pytest.fixture(scope="session")
def installed(target: Target, vllm: str, request: pytest.FixtureRequest) -> Iterator[Installed]:
    """The chart, and an image of all models."""
    tools = Tools(target.kubeconfig)
    with run.speaking(request):
        delivered = deliver(target)
        model = target.bring(model_image())
        with step("helm upgrade --install", slow=True):
            install(tools, delivered)
    with proxied(target.kubeconfig) as api:
        yield Installed(
            target,
            tools,
            api,
            delivered.operator,
            delivered.llama_cpp,
            standin="",
            image_uri=f"oci://{model}#tiny-llama",
            model_folder="",
        )


def model_image() -> images.Image:
    """`tiny-llama` with its `adapter`, and `SMALL` in both forms, as an image for image volumes."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        tiny_llama.write(root / "tiny-llama")
        tiny_llama.write_adapter(root / "adapter")
        tiny_llama_gguf.write(root / SMALL_GGUF, tiny_llama.write(root / SMALL, shape=tiny_llama.SMALL))
        files = {str(file.relative_to(root)): file for file in sorted(root.rglob("*")) if file.is_file()}
        return images.scratch("tiny-llama", files, entrypoint=[])


def vllm_service(installed: Installed, image: str, name: str, **spec: Any) -> Json:
    """A service of the tiny model.

    Args:
        spec: Parts of the spec.
    """
    resources = {"requests": {"cpu": "50m", "memory": "1Gi"}, "limits": {"memory": "6Gi"}}
    # Two pods would bind their threads to the same core, and each waits for all of its own.
    env = [{"name": "VLLM_CPU_OMP_THREADS_BIND", "value": "nobind"}, {"name": "OMP_NUM_THREADS", "value": "1"}]
    common = {"name": "vllm", "version": VERSION, "image": image, "resources": resources, "env": env}
    engine = {**common, **spec.pop("engine", {})}
    model = {"uri": installed.image_uri, "maxContextLength": 16384, **spec.pop("model", {})}
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": name},
        "spec": {
            "model": model,
            "engine": engine,
            "workload": {"concurrency": 8},
            "traffic": {"requestTimeout": "3m", "queueTimeout": "20s"},
            **spec,
        },
    }


@pytest.fixture(scope="session")
def home(installed: Installed) -> Namespace:
    """The namespace of the services: of restricted security."""
    installed.tools.apply(restricted_namespace(HOME))
    return Namespace(HOME, installed.api, installed.tools)


@pytest.fixture(scope="session")
def client(installed: Installed, home: Namespace) -> Client:
    """The pod `client`, running."""
    wait = "import signal; signal.signal(signal.SIGTERM, lambda *_: exit()); signal.pause()"
    installed.tools.apply(client_pod("client", HOME, installed.operator, ["python3", "-c", wait]))
    installed.tools.kubectl("wait", "pod/client", f"--namespace={HOME}", "--for=condition=Ready", "--timeout=60s")
    return Client(installed.tools, "client")


@pytest.fixture(scope="session")
def started(
    home: Namespace,
    installed: Installed,
    client: Client,
    vllm: str,
    measured: list[str],
    request: pytest.FixtureRequest,
) -> Namespace:
    """The namespace with `PLAIN`, ready."""
    began = time.monotonic()
    home.apply(vllm_service(installed, vllm, PLAIN))
    with run.speaking(request), step("starting vLLM", slow=True):
        home.wait_until_ready(PLAIN, within_s=START_S)
    measured.append(f"vLLM {VERSION} from apply to Ready: {time.monotonic() - began:.0f} s")
    measured.append(f"  of that, {seconds_to_ready(home.pods(PLAIN)[0])} s from the container's start to readiness")
    return home


@pytest.fixture
def plain(started: Namespace) -> Namespace:
    """The namespace with `PLAIN`, settled."""
    eventually("plain is Ready", lambda: started.is_ready(PLAIN), within_s=START_S)
    return started


def seconds_to_ready(pod: Json) -> int:
    """Seconds from the start of a pod's container until it was ready."""
    [container] = pod["status"]["containerStatuses"]
    [ready] = [c for c in pod["status"]["conditions"] if c["type"] == "Ready"]
    times = (ready["lastTransitionTime"], container["state"]["running"]["startedAt"])
    until, since = (datetime.fromisoformat(text) for text in times)
    return round((until - since).total_seconds())
