"""What users do to a running service: scale, edit, pause, delete."""

import time

from draftmark.api import names
from draftmark.cluster.kinds import CONTROLLER_REVISIONS, DEPLOYMENTS, INFERENCE_SERVICES, child_kinds
from e2e.tools import RESOURCE
from tests.e2e.api import GRANDCHILDREN, Namespace, eventually, is_ready
from tests.e2e.installed import HOME, Client, Installed

ASK = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}


def test_scaling_changes_the_number_of_pods_and_no_revision(
    home: Namespace, installed: Installed, good: str, measured: list[str]
) -> None:
    revisions = set(home.children(good))
    began = time.monotonic()

    installed.tools.kubectl("scale", f"{RESOURCE}/{good}", "--replicas=2", f"--namespace={HOME}")

    eventually("two replicas serve", lambda: home.service(good)["status"]["readyReplicas"] == 2, within_s=60)
    measured.append(f"kubectl scale 1→2 until two replicas serve: {time.monotonic() - began:.1f} s")
    pods = home.pods(good)
    assert [installed.api.to_pod(pod, 8080, "/v1/chat/completions", ASK).status_code for pod in pods] == [200, 200]
    assert set(home.children(good)) == revisions

    installed.tools.kubectl("scale", f"{RESOURCE}/{good}", "--replicas=1", f"--namespace={HOME}")

    service = home.wait_until_settled(good)
    assert (service["spec"]["replicas"], service["status"]["replicas"]) == (1, 1)
    assert set(home.children(good)) == revisions


def test_an_edit_replaces_the_revision_and_no_request_fails(
    home: Namespace, client: Client, good: str, measured: list[str]
) -> None:
    before = home.service(good)
    old = before["status"]["revisions"][0]["hash"]
    began = time.monotonic()
    served: list[bool] = []

    def is_new() -> bool:
        served.append(any(is_ready(pod) for pod in home.pods(good)))
        return home.is_ready(good)

    with client.asking(before["status"]["url"]) as answers:
        edited = home.edit(good, engine={"args": ["--temp", "0.5"]})
        eventually("the new revision serves", is_new, within_s=90)
        measured.append(f"edit until the new revision alone serves: {time.monotonic() - began:.1f} s")

    measured.append(f"answers to a client during the edit, by HTTP status: {answers}")
    assert set(answers) == {"200"}
    assert all(served), "at some time no pod was ready"
    after = home.wait_until_settled(good)
    (revision,) = after["status"]["revisions"]
    assert revision["hash"] != old
    assert after["status"]["observedGeneration"] == edited["metadata"]["generation"] > 1
    assert {pod["metadata"]["labels"][names.LABEL_REVISION] for pod in home.pods(good)} == {revision["hash"]}
    assert (
        home.child(good, DEPLOYMENTS, names.ROLE_ENGINE)["metadata"]["labels"][names.LABEL_REVISION] == revision["hash"]
    )
    pinned = [item for (kind, _), item in home.children(good).items() if kind == CONTROLLER_REVISIONS]
    numbers = {item["metadata"]["labels"][names.LABEL_REVISION]: item["revision"] for item in pinned}
    assert numbers[revision["hash"]] > numbers[old]


def test_a_paused_service_is_left_alone_until_it_goes_on(home: Namespace, good: str) -> None:
    running = home.service(good)["status"]["revisions"][0]["hash"]
    home.edit(good, paused=True)
    try:
        eventually("it is paused", lambda: _progress(home, good) == "Paused", within_s=20)
        before = _children(home, good)

        home.edit(good, engine={"args": ["--temp", "0.7"]})

        eventually("the edit was seen", lambda: _progress(home, good) == "Paused", within_s=20)
        assert home.conditions(good)["Available"]["status"] == "True"
        assert _children(home, good) == before
    finally:
        home.edit(good, paused=None)

    assert home.wait_until_settled(good)["status"]["revisions"][0]["hash"] != running
    assert "0.7" in str(home.pods(good)[0]["spec"]["containers"][0]["args"])


def test_a_deleted_service_takes_everything_along_and_needs_no_finalizer(
    home: Namespace, installed: Installed, measured: list[str]
) -> None:
    service = home.wait_until_ready("doomed")
    everything = (*child_kinds(), *GRANDCHILDREN)
    assert "finalizers" not in service["metadata"]
    assert not [each for each in home.children("doomed").values() if "finalizers" in each["metadata"]]
    assert _left(home, "doomed") != []

    began = time.monotonic()
    home.api.delete(INFERENCE_SERVICES, HOME, "doomed")

    assert home.api.get(INFERENCE_SERVICES, HOME, "doomed") is None, "something holds it back"
    eventually("its children are gone", lambda: not home.children("doomed"), within_s=30)
    measured.append(f"delete until all children are gone: {time.monotonic() - began:.1f} s")
    eventually(f"of {len(everything)} kinds nothing is left", lambda: not _left(home, "doomed"), within_s=60)
    measured.append(f"delete until the last pod is gone: {time.monotonic() - began:.1f} s")


def _left(home: Namespace, name: str) -> list[str]:
    kinds = (*child_kinds(), *GRANDCHILDREN)
    labels = {names.LABEL_SERVICE: name}
    return [f"{k.kind}/{item['metadata']['name']}" for k in kinds for item in home.api.list(k, HOME, **labels)]


def _progress(home: Namespace, name: str) -> str | None:
    """Reason of Progressing, once it is about the spec as it is now."""
    return home.conditions(name).get("Progressing", {}).get("reason")


def _children(home: Namespace, name: str) -> dict[str, str]:
    """resourceVersions of the children."""
    return {which: version for which, version in home.versions(name).items() if which != names.KIND}
