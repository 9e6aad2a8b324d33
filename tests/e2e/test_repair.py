"""What others do to the children of a service."""

import time

from draftmark.cluster.kinds import CONTROLLER_REVISIONS, SERVICES, child_kinds
from tests.e2e.api import Namespace, eventually
from tests.e2e.installed import HOME


def test_children_that_were_deleted_by_hand_come_back(home: Namespace, good: str, measured: list[str]) -> None:
    (revision,) = home.service(good)["status"]["revisions"]
    before = {key: item["metadata"]["uid"] for key, item in home.children(good).items()}
    # Older revisions are history, and nobody can write that again.
    needed = {(kind, name) for kind, name in before if kind != CONTROLLER_REVISIONS or revision["hash"] in name}
    assert {kind for kind, _ in needed} == set(child_kinds())
    began = time.monotonic()

    for kind, name in before:
        home.api.delete(kind, HOME, name)

    def are_back() -> bool:
        now = {key: item["metadata"]["uid"] for key, item in home.children(good).items()}
        return all(now.get(key, before[key]) != before[key] for key in needed)

    eventually("each child is there again, a new one", are_back, within_s=30)
    measured.append(f"all children deleted by hand until all are back: {time.monotonic() - began:.1f} s")
    home.wait_until_settled(good, within_s=90)


def test_an_owned_field_comes_back_and_a_foreign_one_stays(home: Namespace, good: str) -> None:
    service = home.child(good, SERVICES, "service")
    (port,) = service["spec"]["ports"]

    changed = home.api.patch(
        SERVICES,
        HOME,
        good,
        {
            "metadata": {"annotations": {"example.com/mine": "stays"}, "labels": {"example.com/mine": "stays"}},
            "spec": {"selector": {"draftmark.dev/role": "nobody"}, "ports": [{**port, "targetPort": 1}]},
        },
    )

    assert changed["spec"]["selector"]["draftmark.dev/role"] == "nobody"
    eventually("the owned fields are back", lambda: _owned(home, good) == _of(service), within_s=20)
    metadata = home.child(good, SERVICES, "service")["metadata"]
    assert metadata["annotations"]["example.com/mine"] == "stays"
    assert metadata["labels"]["example.com/mine"] == "stays"


def _owned(home: Namespace, name: str) -> object:
    return _of(home.child(name, SERVICES, "service"))


def _of(service: dict[str, object]) -> object:
    spec = service["spec"]
    assert isinstance(spec, dict)
    return spec["selector"], spec["ports"]
