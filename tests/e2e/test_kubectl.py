"""`kubectl draftmark` against the real cluster, as a user runs it."""

import re
import subprocess
import sys

import pytest

from draftmark.api import names
from tests.e2e.api import Namespace
from tests.e2e.flow import current_revision, revisions, standin_service
from tests.e2e.installed import Client, Installed
from tests.e2e.load import Load, sending


@pytest.fixture(scope="module")
def told(home: Namespace, installed: Installed) -> Namespace:
    # A pod of another image waits as long as a request may take before it stops.
    home.apply(
        standin_service(
            installed,
            "told",
            behaviour={"TOKEN_MS": 200},
            workload={"concurrency": 2},
            traffic={"requestTimeout": "10s"},
        )
    )
    home.wait_until_settled("told")
    return home


def draftmark(namespace: Namespace, *words: str, status: int = 0) -> str:
    command = [sys.executable, "-m", "draftmark.cli", *words, f"--namespace={namespace.name}"]
    command += [f"--kubeconfig={namespace.tools.kubeconfig}"]
    done = subprocess.run(command, text=True, capture_output=True, timeout=60)
    assert done.returncode == status, done.stderr
    return done.stdout if status == 0 else done.stderr


def test_status_shows_what_exists_and_that_it_is_ready(told: Namespace) -> None:
    text = draftmark(told, "status", "told")
    assert f"{told.name}/told  Ready" in text
    for role in (names.ROLE_ENGINE, names.ROLE_ROUTER, names.ROLE_GATEWAY):
        [pod] = told.pods("told", role)
        assert pod["metadata"]["name"] in text
    assert current_revision(told, "told") in text


def test_top_shows_what_runs_and_waits(told: Namespace, installed: Installed, client: Client) -> None:
    url = told.service("told")["status"]["url"]
    load = Load(url=url, model="told", ids="told", count=6, workers=6, tokens=40, retry_s=1)
    with sending(installed.tools, load) as sent:
        header, row = draftmark(told, "top", "told").splitlines()[:2]
    found = dict(zip(re.split(r"  +", header), re.split(r"  +", row), strict=True))
    assert (found["RUNNING"], found["WAITING"]) == ("2", "4"), (header, row)
    assert sent[0].count()["whole"] >= 2


def test_logs_come_from_every_part(told: Namespace) -> None:
    text = draftmark(told, "logs", "told", "--tail=5")
    assert "engine" in text
    assert "gateway" in text
    assert "standin request" in draftmark(told, "logs", "told", "--engine")


def test_a_revision_comes_back_as_it_was(told: Namespace) -> None:
    first = current_revision(told, "told")
    told.edit("told", engine={"env": [{"name": "STANDIN_TOKEN_MS", "value": "1"}]})
    told.wait_until_settled("told", within_s=60)
    assert current_revision(told, "told") != first

    out = draftmark(told, "rollback", "told")

    assert 'engine.env[0].value: "1" → "200"' in out
    told.wait_until_settled("told", within_s=60)
    assert list(revisions(told, "told")) == [first]


def test_pause_and_resume(told: Namespace) -> None:
    draftmark(told, "pause", "told")
    assert told.service("told")["spec"]["paused"] is True
    draftmark(told, "resume", "told")
    assert "paused" not in told.service("told")["spec"]
    assert "no suggestion" in draftmark(told, "accept", "told", status=1).lower()
