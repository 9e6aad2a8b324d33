"""One URL over the models of a namespace: who answers for which name, what is refused, and services that come and go."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from draftmark.api import names
from draftmark.cluster.kinds import MODEL_GATEWAYS, PODS
from e2e.models import URI
from e2e.tools import RESOURCE
from tests.e2e.api import Json, Namespace, eventually, restarts
from tests.e2e.flow import standin_service, times_seen
from tests.e2e.installed import Client, Installed, make_namespace
from tests.e2e.load import Load, send, sending

#: A name as the hub has them; its service is called `right`.
RIGHT = "org/Right-1B:Q4_K_M"

_ASK = """
import concurrent.futures, contextlib, http.client, json, sys, urllib.parse
url, count, size, models = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4])
host = urllib.parse.urlsplit(url).netloc

long = b"x" * size

def ask(n):
    model = models[n % len(models)]
    # The name stands behind everything else. The long part is one for all: the pod is small.
    body = {"max_tokens": 2, "user": f"{size}-{n}", "messages": [{"role": "user", "content": "..."}], "model": model}
    head, tail = json.dumps(body).encode().split(b"...")
    connection = http.client.HTTPConnection(host, timeout=110)
    try:
        headers = {"Content-Type": "application/json", "Content-Length": str(len(head) + size + len(tail))}
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # an answer may come before the end
            connection.request("POST", "/v1/chat/completions", iter((head, long, tail)), headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        return model, answer.status, answer.headers.get("x-draftmark-service"), "" if answer.status == 200 else text[:3000]
    except OSError as error:
        return model, 0, None, repr(error)
    finally:
        connection.close()

with concurrent.futures.ThreadPoolExecutor(count) as pool:
    for line in pool.map(ask, range(count)):
        print(json.dumps(line))
"""

_GET = """
import json, sys, urllib.request
print(urllib.request.urlopen(sys.argv[1] + "/v1/models", timeout=30).read().decode())
"""


def ask(
    client: Client, url: str, *models: str, count: int = 1, size: int = 10
) -> list[tuple[str, int, str | None, str]]:
    """Send requests at once, for the models in turn: model, status, the service that answered, and what was said."""
    out = client.python(_ASK, url, str(count), str(size), json.dumps(models))
    return [tuple(json.loads(line)) for line in out.splitlines()]


def listed(client: Client, url: str) -> list[str]:
    return [model["id"] for model in json.loads(client.python(_GET, url))["data"]]


def standin(installed: Installed, name: str, *, model: str | None = None, **more: Any) -> Json:
    spec = {"uri": URI, "maxContextLength": 256} | ({"name": model} if model is not None else {})
    # A hundred bodies of 1 MiB at once, and what is read of them, do not fit into the 128 MiB of the others.
    engine = {"resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "1Gi"}}}
    return standin_service(installed, name, model=spec, workload={"concurrency": 256}, engine=engine, **more)


@pytest.fixture(scope="module")
def space(installed: Installed) -> Iterator[Namespace]:
    """A namespace with two services and a gateway over them, applied at once."""
    namespace = make_namespace(installed, "one-url")
    namespace.apply(
        {
            "apiVersion": names.API_VERSION,
            "kind": names.MODEL_GATEWAY_KIND,
            "metadata": {"name": "all"},
            "spec": {"maxBodyBytes": "2Mi"},
        },
        standin(installed, "left", behaviour={"TOKEN_MS": 100}),
        standin(installed, "right", model=RIGHT),
    )
    namespace.wait_until_ready("left")
    namespace.wait_until_ready("right")
    wait_until_listed(namespace, "left", RIGHT)
    yield namespace
    # First what the operator looks after: it would be written to as long as the namespace waits for its pods to drain.
    for kind in (RESOURCE, "modelgateways.draftmark.dev"):
        installed.tools.kubectl("delete", kind, "--all", "--namespace=one-url")
    installed.tools.kubectl("delete", "namespace", "one-url", "--wait=false")


def gateway(namespace: Namespace) -> Json:
    found = namespace.api.get(MODEL_GATEWAYS, namespace.name, "all")
    assert found is not None
    return found


def pods(namespace: Namespace) -> list[Json]:
    return namespace.api.list(PODS, namespace.name, **{names.LABEL_MODEL_GATEWAY: "all"})


def wait_until_listed(namespace: Namespace, *models: str, within_s: float = 60.0) -> float:
    """Wait until these are the models and every pod has them, and return the seconds that it took."""
    start = time.monotonic()

    def is_there() -> bool:
        status = gateway(namespace).get("status") or {}
        conditions = {c["type"]: c["status"] for c in status.get("conditions") or ()}
        found = {model["name"] for model in status.get("models") or ()}
        return found == {*models} and (conditions["Ready"], conditions["Reconciling"]) == ("True", "False")

    eventually(f"the gateway has {', '.join(models)}", is_there, within_s=within_s)
    return time.monotonic() - start


def test_one_url_reaches_each_model(space: Namespace, client: Client) -> None:
    url = gateway(space)["status"]["url"]
    assert url == "http://all.one-url.svc"
    assert listed(client, url) == sorted(("left", RIGHT))
    assert ask(client, url, "left", RIGHT, count=4) == [
        ("left", 200, "left", ""),
        (RIGHT, 200, "right", ""),
        ("left", 200, "left", ""),
        (RIGHT, 200, "right", ""),
    ]
    columns = space.tools.kubectl("get", "mgw", "--namespace=one-url").splitlines()
    assert columns[0].split() == ["NAME", "MODELS", "READY", "REASON", "URL", "AGE"]
    assert columns[1].split()[:5] == ["all", "2", "True", "Serving", url]


def test_an_unknown_model_is_a_404_with_the_known_ones(space: Namespace, client: Client) -> None:
    [(_, status, _, text)] = ask(client, gateway(space)["status"]["url"], "nobody")
    error = json.loads(text)["error"]
    assert (status, error["code"]) == (404, "model_not_found")
    assert f"Served are: left, {RIGHT}." in error["message"]


def test_two_hundred_clients_with_a_mebibyte_each(space: Namespace, client: Client, measured: list[str]) -> None:
    url = gateway(space)["status"]["url"]
    start = time.monotonic()
    answers = ask(client, url, "left", RIGHT, count=200, size=1024 * 1024)
    took = time.monotonic() - start
    assert [(status, service, text) for _, status, service, text in answers] == [
        (200, service, "") for service in ("left", "right") * 100
    ]
    assert [restarts(pod) for pod in pods(space)] == [0, 0]
    measured.append(f"200 requests of 1 MiB at once through the gateway over two models: {took:.1f} s")
    for name, first in (("left", 0), ("right", 1)):
        seen = times_seen(space, name)
        assert {seen[f"{1024 * 1024}-{n}"] for n in range(first, 200, 2)} == {1}


def test_a_longer_body_is_a_413(space: Namespace, client: Client) -> None:
    [(_, status, _, text)] = ask(client, gateway(space)["status"]["url"], "left", size=2 * 1024 * 1024)
    assert (status, json.loads(text)["error"]["code"]) == (413, "request_too_large")


def test_streams_go_on_while_services_come_and_go(
    space: Namespace, installed: Installed, client: Client, measured: list[str]
) -> None:
    url = gateway(space)["status"]["url"]
    lives = {pod["metadata"]["uid"]: restarts(pod) for pod in pods(space)}
    # Streams of 15 s, twice as many as run at once; requestTimeout would end them after 20 s.
    load = Load(url=url, model="left", ids="held", count=40, workers=20, tokens=150, pause_s=0.1)
    with sending(installed.tools, load) as told:
        space.apply(standin(installed, "third"))
        came = wait_until_listed(space, "left", RIGHT, "third")
        space.wait_until_ready("third")
        assert ask(client, url, "third") == [("third", 200, "third", "")]
        space.tools.kubectl("delete", "inferenceservices.draftmark.dev", "third", "--namespace=one-url")
        went = wait_until_listed(space, "left", RIGHT)
        assert ask(client, url, "third")[0][1] == 404
    assert told[0].count() == {"whole": 40}, told[0].others()[:5]
    assert {pod["metadata"]["uid"]: restarts(pod) for pod in pods(space)} == lives
    measured.append(f"a service is listed by every pod of the gateway after {came:.1f} s, and gone after {went:.1f} s")


def test_two_services_of_one_name_are_told(space: Namespace, installed: Installed, client: Client) -> None:
    space.apply(standin(installed, "twin", model=RIGHT))

    def condition() -> Json:
        return next(c for c in gateway(space)["status"]["conditions"] if c["type"] == "NamesUnique")

    eventually("the twin is told", lambda: condition()["status"] == "False", within_s=30)
    assert "'right' and 'twin' both serve" in condition()["message"]
    assert ask(client, gateway(space)["status"]["url"], RIGHT) == [(RIGHT, 200, "right", "")]
    space.tools.kubectl("delete", "inferenceservices.draftmark.dev", "twin", "--namespace=one-url")
    eventually("the twin is gone", lambda: condition()["status"] == "True", within_s=30)


def test_nothing_is_written_at_rest(space: Namespace) -> None:
    space.wait_until_settled("left")
    wait_until_listed(space, "left", RIGHT)

    def versions() -> tuple[str, ...]:
        children = space.tools.kubectl(
            *("get", "deployments,services,configmaps,serviceaccounts,networkpolicies", "--namespace=one-url"),
            *("--selector=draftmark.dev/model-gateway=all", "--output=jsonpath={.items[*].metadata.resourceVersion}"),
        )
        return (gateway(space)["metadata"]["resourceVersion"], *children.split())

    before = versions()
    assert len(before) == 6
    time.sleep(10)
    assert versions() == before


def test_a_load_of_short_requests_is_answered_in_full(space: Namespace, installed: Installed) -> None:
    url = gateway(space)["status"]["url"]
    told = send(installed.tools, Load(url=url, model=RIGHT, ids="short", count=300, workers=50, tokens=2))
    assert told.count() == {"whole": 300}, told.others()[:5]
