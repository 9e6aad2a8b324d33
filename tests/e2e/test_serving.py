"""From an applied object to answers of its model."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from draftmark.api import names
from draftmark.cluster.kinds import INFERENCE_SERVICES, Kind, child_kinds
from e2e.cluster.choose import Own
from e2e.cluster.images import REPOSITORY
from e2e.tools import SYSTEM_NAMESPACE
from tests.e2e.api import Namespace
from tests.e2e.installed import HOME, Client, Installed
from tests.e2e.processes import command_in
from tests.e2e.rendered import missing, render

COMPLETE = """
import httpx, json, sys
body = {"model": sys.argv[1].removeprefix("http://").partition(".")[0], "messages": [{"role": "user", "content": "How are you?"}], "max_tokens": 8, "stream": sys.argv[2] == "streamed"}
with httpx.stream("POST", sys.argv[1] + "/v1/chat/completions", json=body, timeout=60) as answer:
    print(answer.status_code, answer.headers["content-type"].partition(";")[0])
    print(answer.read().decode())
"""


def test_an_applied_service_becomes_ready_and_answers_at_its_url(home: Namespace, client: Client, good: str) -> None:
    service = home.service(good)
    status = service["status"]
    assert status["url"] == f"http://{good}.{HOME}.svc"
    assert status["observedGeneration"] == service["metadata"]["generation"]
    assert status["readyReplicas"] == 1

    first, _, body = client.python(COMPLETE, status["url"], "whole").partition("\n")

    assert first == "200 application/json"
    answer = json.loads(body)
    assert answer["model"] == good
    assert answer["usage"]["completion_tokens"] == 8


def test_a_streamed_answer_arrives_in_chunks(home: Namespace, client: Client, good: str) -> None:
    url = home.service(good)["status"]["url"]

    first, _, body = client.python(COMPLETE, url, "streamed").partition("\n")

    assert first == "200 text/event-stream"
    events = [line.removeprefix("data: ") for line in body.splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    deltas = [choice for event in events[:-1] for choice in json.loads(event)["choices"]]
    assert len(deltas) > 4


def test_a_model_in_an_image_is_served(home: Namespace, client: Client, installed: Installed) -> None:
    url = home.wait_until_ready("picture")["status"]["url"]
    (pod,) = home.pods("picture")
    assert [v["image"]["reference"] for v in pod["spec"]["volumes"] if "image" in v] == [
        installed.image_uri.removeprefix("oci://").partition("#")[0]
    ]
    assert client.python(COMPLETE, url, "whole").startswith("200 ")


def test_engine_pods_carry_service_role_and_revision(home: Namespace, good: str) -> None:
    (revision,) = home.service(good)["status"]["revisions"]
    for pod in home.pods(good):
        labels = pod["metadata"]["labels"]
        assert labels[names.LABEL_SERVICE] == good
        assert labels[names.LABEL_ROLE] == "engine"
        assert labels[names.LABEL_REVISION] == revision["hash"]


def test_the_engine_tells_its_metrics(home: Namespace, installed: Installed, good: str) -> None:
    (pod,) = home.pods(good)
    annotations = pod["metadata"]["annotations"]
    assert annotations["prometheus.io/scrape"] == "true"
    answer = installed.api.to_pod(pod, int(annotations["prometheus.io/port"]), annotations["prometheus.io/path"])
    assert "llamacpp:requests_processing" in answer.text


def test_arguments_are_checked_against_the_version_that_runs(home: Namespace, installed: Installed, good: str) -> None:
    assert "ArgsUnchecked" not in home.conditions(good)
    (pod,) = home.pods(good)
    said = installed.tools.kubectl(
        "exec", pod["metadata"]["name"], f"--namespace={HOME}", "--", "sh", "-c", "llama-server --version 2>&1"
    )
    version = home.service(good)["status"]["plan"]["version"]
    assert f"version: {version.removeprefix('v')} " in said


def test_the_flag_table_is_what_the_program_in_the_image_says(home: Namespace, installed: Installed, good: str) -> None:
    if not isinstance(installed.target, Own):
        pytest.skip("the program is only in reach on a node that we made")
    (pod,) = home.pods(good)
    version = home.service(good)["status"]["plan"]["version"]
    table = REPOSITORY / "operator" / "draftmark" / "engines" / "flags" / f"llama-cpp-{version}.json"
    program = command_in(pod, "llama-server")
    checked = subprocess.run(
        [sys.executable, "-m", "e2e.flag_tables", "--check", "--program", program, "--out", str(table)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stderr


def test_render_prints_what_runs(home: Namespace, installed: Installed, tmp_path: Path) -> None:
    service = home.wait_until_ready("picture")
    live = {(kind.kind, name): item for (kind, name), item in home.children("picture").items()}

    rendered = render(service, installed, tmp_path)

    assert set(rendered) == set(live)
    for key, wanted in rendered.items():
        if key[0] == "ConfigMap":
            continue  # the gateway's configuration holds the router's address and what is ready: both come later
        assert missing(wanted, live[key], "/".join(key)) == []


def test_the_operator_may_not_read_secrets(installed: Installed) -> None:
    user = f"system:serviceaccount:{SYSTEM_NAMESPACE}:draftmark"
    secrets = Kind("", "v1", "secrets", "Secret")
    assert not [verb for verb in ("get", "list", "watch", "create", "patch") if installed.api.may(user, verb, secrets)]
    # The question is put to the right user: what it needs it may do.
    assert all(installed.api.may(user, "create", kind) for kind in child_kinds())
    assert installed.api.may(user, "list", INFERENCE_SERVICES)
    assert not installed.api.may(user, "patch", INFERENCE_SERVICES)
