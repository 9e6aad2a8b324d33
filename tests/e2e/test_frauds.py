"""Servers that lie to a Benchmark on the real node: none gets a number. tests/benchmark_runner has the same without a cluster, and
those that a server's own metrics tell of."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

from draftmark.cluster.kinds import INFERENCE_SERVICES, PODS, SERVICES
from e2e.models import CLAIM, URI, VOCABULARY
from e2e.tools import client_pod
from tests.e2e.api import Json, Namespace, eventually, is_ready
from tests.e2e.benchmarks import benchmark, refusals, told, wait_until_ended, with_cpu
from tests.e2e.flow import standin_service
from tests.e2e.installed import Installed

#: Benchmarks at the same time: each waits most of the time, but its Job starts with some seconds of imports.
SIDE_BY_SIDE: Final = 3
#: Slow enough that a client on a busy node is not late by the measure of this target.
PACE: Final = {"FIRST_TOKEN_MS": 400, "TOKEN_MS": 5, "TOKENIZER": f"/models/{VOCABULARY}"}
MODEL: Final = "liar"
PORT: Final = 8080
#: What a row without numbers has.
NO_NUMBERS: Final = {"workload", "load", "target", "samples", "errorPercent", "reason", "message"}

pytestmark = [pytest.mark.alone, pytest.mark.timeout(400, func_only=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Liar:
    """A server without metrics that anybody asks for.

    Args:
        lies: Its environment variables, without `STANDIN_`.
        spec: What its Benchmark has beside the others'.
    """

    code: str
    lies: Mapping[str, object] = field(default_factory=dict)
    spec: Mapping[str, Any] = field(default_factory=dict)


LIARS: Final = {
    "errors": Liar(code="TooManyErrors", lies={"ERROR_SHARE": 0.2}),
    "inside": Liar(code="TooManyErrors", lies={"STREAM_ERROR_SHARE": 0.2}),
    "hanging": Liar(code="TooManyErrors", lies={"HANG_SHARE": 0.2}, spec={"duration": "4s"}),
    "cut": Liar(code="StreamsCut", lies={"CUT_SHARE": 0.2}),
    "other-model": Liar(code="ModelMismatch", lies={"ANSWERING_MODEL": "smaller"}),
    "short": Liar(code="OutputLengths", lies={"OUTPUT_SHARE": 0.5}),
    "cached": Liar(code="PrefixCacheHits", lies={"CACHED_SHARE": 0.8}),
    "cold": Liar(
        code="NotWarmedUp", lies={"COLD_REQUESTS": 12}, spec={"warmUp": "0s", "duration": "6s", "concurrency": [4]}
    ),
    "scatter": Liar(code="ScatterTooLarge", lies={"SLOW_FACTOR": 1.6, "SLOW_TURN": 20}),
    "late": Liar(
        code="ClientSaturated",
        lies={"FIRST_TOKEN_MS": 2, "TOKEN_MS": 0.2},
        spec={"concurrency": [16], "repetitions": 1},
    ),
    "few": Liar(code="TooFewSamples", spec={"duration": None, "requests": 1, "concurrency": [1], "warmUp": "0s"}),
}


def _server(namespace: Namespace, installed: Installed, name: str, lies: Mapping[str, object]) -> list[Json]:
    """A pod and its Service."""
    command = [
        "/llama-server",
        "--host",
        "0.0.0.0",
        "--port",
        str(PORT),
        "--alias",
        MODEL,
        "--model",
        "/models/tiny.gguf",
    ]
    pod = client_pod(name, namespace.name, installed.standin, [*command, "--parallel", "16"])
    pod["metadata"]["labels"] = {"liar": name}
    pod["spec"]["volumes"] = [{"name": "models", "persistentVolumeClaim": {"claimName": CLAIM, "readOnly": True}}]
    (container,) = pod["spec"]["containers"]
    container["env"] = [{"name": f"STANDIN_{key}", "value": str(value)} for key, value in {**PACE, **lies}.items()]
    container["volumeMounts"] = [{"name": "models", "mountPath": "/models", "readOnly": True}]
    container["readinessProbe"] = {"httpGet": {"path": "/health", "port": PORT}, "periodSeconds": 1}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace.name},
        "spec": {"selector": {"liar": name}, "ports": [{"port": PORT}]},
    }
    return [pod, service]


def _short(name: str, target: Mapping[str, Any], spec: Mapping[str, Any]) -> Json:
    asked = {"concurrency": [2], "warmUp": "1s", "duration": "2s", **spec}
    made = benchmark(name, target, resources={"requests": {"cpu": "100m", "memory": "256Mi"}}, **asked)
    made["spec"] = {key: value for key, value in made["spec"].items() if value is not None}
    return made


@contextmanager
def _serving(namespace: Namespace, installed: Installed, name: str, lies: Mapping[str, object]) -> Iterator[Json]:
    """A liar, as the target of a Benchmark. Each try has one of its own: what it does at its beginning is over after the first."""
    installed.tools.apply(*_server(namespace, installed, name, lies))
    try:

        def is_serving() -> bool:
            pod = namespace.api.get(PODS, namespace.name, name)
            return pod is not None and is_ready(pod)

        eventually(f"{name} serves", is_serving, within_s=60)
        yield {"url": f"http://{name}.{namespace.name}.svc:{PORT}", "model": MODEL, "tokenizer": URI}
    finally:
        namespace.api.delete(PODS, namespace.name, name)
        namespace.api.delete(SERVICES, namespace.name, name)


@pytest.fixture
def shared(home: Namespace, installed: Installed) -> Iterator[Json]:
    """The target of a Benchmark: a service whose engine counts tokens of somebody who is not there."""
    home.apply(standin_service(installed, "shared", behaviour={**PACE, "OTHER_TOKENS": 1000}))
    home.wait_until_settled("shared")
    yield {"service": "shared", "allowUserTraffic": True}
    home.api.delete(INFERENCE_SERVICES, home.name, "shared")


def test_servers_that_lie_get_no_number(home: Namespace, installed: Installed, shared: Json) -> None:
    def measured(called: str, target: Json, liar: Liar) -> Json:
        home.apply(_short(called, target, liar.spec))
        return wait_until_ended(home, called, within_s=120)

    def caught(name: str, liar: Liar) -> Json:
        def run(number: int) -> Json:
            called = f"liar-{name}-{number}"
            with _serving(home, installed, called, liar.lies) as target:
                return measured(called, target, liar)

        return with_cpu(run, meant={liar.code})

    other_load = Liar(code="OtherLoad")
    with ThreadPoolExecutor(SIDE_BY_SIDE) as threads:
        # First what takes longest: its program waits for rest.
        runs = {"shared": threads.submit(measured, "shared", shared, other_load)}
        runs |= {name: threads.submit(caught, name, liar) for name, liar in LIARS.items()}
    seen = {name: run.result() for name, run in runs.items()}

    expected = {"shared": {other_load.code}, **{name: {liar.code} for name, liar in LIARS.items()}}
    assert {name: refusals(status) for name, status in seen.items()} == expected
    for status in seen.values():
        assert status["phase"] in ("Failed", "Inconclusive"), told(status)
        for row in status.get("results") or ():
            assert row.keys() <= NO_NUMBERS, told(status)
