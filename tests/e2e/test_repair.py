"""What others do to the children of a service."""

import time

from draftmark.api import names
from draftmark.cluster.kinds import CONTROLLER_REVISIONS, SERVICE_ACCOUNTS, SERVICES
from tests.e2e.api import Namespace, eventually
from tests.e2e.installed import HOME, Client
from tests.specs import LASTING_KINDS


def test_children_that_were_deleted_by_hand_come_back(
    home: Namespace, client: Client, good: str, measured: list[str]
) -> None:
    (revision,) = home.service(good)["status"]["revisions"]
    before = {key: item["metadata"]["uid"] for key, item in home.children(good).items()}
    # Older revisions are history, and nobody can write that again.
    needed = {(kind, name) for kind, name in before if kind != CONTROLLER_REVISIONS or revision["hash"] in name}
    assert {kind for kind, _ in needed} == set(LASTING_KINDS)
    began = time.monotonic()

    for kind, name in before:
        home.api.delete(kind, HOME, name)

    def are_back() -> bool:
        now = {key: item["metadata"]["uid"] for key, item in home.children(good).items()}
        return all(now.get(key, before[key]) != before[key] for key in needed)

    eventually("each child is there again, a new one", are_back, within_s=30)
    measured.append(f"all children deleted by hand until all are back: {time.monotonic() - began:.1f} s")
    home.wait_until_settled(good, within_s=90)
    # Deleted in the middle of each other's return, the parts still fit each other.
    assert ask_for_chat(home, client, good) == 200


def test_a_router_whose_account_is_deleted_is_replaced(
    home: Namespace, client: Client, good: str, measured: list[str]
) -> None:
    before = _router_pods(home, good)
    began = time.monotonic()

    # Its token is worth nothing from here on: what it watches ends, and it would never hear of a pod again.
    home.api.delete(SERVICE_ACCOUNTS, HOME, names.router_account_name(good))

    eventually("its pod is another", lambda: before.isdisjoint(_router_pods(home, good)), within_s=60)
    measured.append(f"a router's deleted ServiceAccount until its pod is replaced: {time.monotonic() - began:.1f} s")
    home.wait_until_settled(good)
    assert ask_for_chat(home, client, good) == 200


def ask_for_chat(home: Namespace, client: Client, name: str) -> int:
    """HTTP status of an answer of the model."""
    chat = {"model": name, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
    [(status, _, _)] = client.ask(home.service(name)["status"]["url"], ("/v1/chat/completions", chat))
    return status


def _router_pods(home: Namespace, name: str) -> set[str]:
    return {pod["metadata"]["uid"] for pod in home.pods(name, names.ROLE_ROUTER)}


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
