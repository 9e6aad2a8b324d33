"""What `status` shows, from plain data."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest

from draftmark.cli.overview import Seen, overview
from draftmark.cli.status_tree import status_tree
from draftmark.cli.tree import Branch, Tone, plain_text
from tests.cli import world
from tests.cli.conftest import GOLDEN
from tests.cli.world import NEW, OLD
from tests.specs import T0


def told(seen: Seen) -> str:
    return plain_text(status_tree(overview(seen, T0), T0))


def tones(branch: Branch) -> Iterator[tuple[str, Tone]]:
    for word in branch.words:
        yield word.text, word.tone
    for child in branch.branches:
        yield from tones(child)


@pytest.mark.parametrize("name", ["changing", "serving", "first_release"])
def test_the_tree_is_as_reviewed(name: str) -> None:
    """To accept a change: write what is told to the file."""
    assert told(getattr(world, name)()) == (GOLDEN / f"status-{name}.txt").read_text("utf-8")


def test_what_keeps_a_pod_from_serving_stands_beside_it() -> None:
    text = told(world.failed())
    (line,) = [line for line in text.splitlines() if "zz9qk" in line]
    assert "EngineCrashed" in line
    assert "3 restarts" in line
    assert "unknown model architecture" in line
    (line,) = [line for line in text.splitlines() if f"revision {NEW}  " in line]
    assert line.endswith("Failed  0 %  0/1 ready")
    spoken = dict(tones(status_tree(overview(world.failed(), T0), T0)))
    assert spoken["Failed"] == "bad"
    assert spoken["not ready (EngineCrashed)"] == "bad"


@pytest.mark.parametrize(
    ("status", "reason", "message"),
    [
        ({"phase": "Pending", "conditions": [], "containerStatuses": []}, "Pending", "waits for a node, for 2 min so far"),
        ({"conditions": world.not_ready(), "containerStatuses": []}, "Creating", "is being set up, for 2 min so far"),
        (
            {"conditions": world.not_ready(), "containerStatuses": world.container("engine", state={"waiting": {"reason": "ContainerCreating"}})},
            "Creating",
            "its image and volumes are fetched, for 2 min so far",
        ),
        (
            {"conditions": world.not_ready(), "initContainerStatuses": [{"name": "wait", "state": {"running": {}}}]},
            "Initializing",
            "runs init container wait",
        ),
        (
            {"conditions": world.not_ready(), "containerStatuses": world.container("engine", state={"running": {}}, started=True)},
            "NotReady",
            "runs, and does not answer its readiness probe",
        ),
    ],
)  # fmt: skip
def test_a_pod_that_starts_says_how_far_it_is(status: dict[str, Any], reason: str, message: str) -> None:
    seen = Seen(service=world.service(), pods=[world.pod("engine", NEW, "a", **status)])
    (revision,) = [r for r in overview(seen, T0)["revisions"] if r["hash"] == NEW]
    (pod,) = revision["pods"]
    assert (pod["ready"], pod["reason"], pod["message"], pod["problem"]) == (False, reason, message, False)


def test_a_pod_on_its_way_out_is_no_problem() -> None:
    leaving = world.crashed_pod()
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T12:00:00Z"
    (revision,) = overview(Seen(service=world.service(revisions=[]), pods=[leaving]), T0)["revisions"]
    assert (revision["pods"][0]["reason"], revision["pods"][0]["problem"]) == ("Stopping", False)


def test_a_revision_that_the_status_does_not_know_is_shown() -> None:
    seen = Seen(service=world.service(revisions=None), pods=world.changing().pods)
    assert f"revision {OLD}  not in the status" in told(seen)


def test_a_service_that_nobody_has_seen_yet() -> None:
    fresh = world.service()
    fresh["status"] = {"observedGeneration": -1}
    text = told(Seen(service=fresh))
    assert "not ready (not seen yet)" in text
    assert "the operator has not seen this version of the spec yet" in text
    del fresh["status"]
    assert told(Seen(service=fresh)) == text


def test_a_newer_spec_than_the_operator_has_seen_is_not_ready() -> None:
    service = deepcopy(dict(world.serving().service))
    assert overview(Seen(service=service), T0)["ready"]
    service["metadata"]["generation"] = 2
    assert not overview(Seen(service=service), T0)["ready"]


def test_messages_cannot_move_the_cursor() -> None:
    service = world.service(conditions=[world.condition("Ready", "False", "X", "a\x1b[2Jb\nc")])
    assert "a [2Jb c" in told(Seen(service=service))
