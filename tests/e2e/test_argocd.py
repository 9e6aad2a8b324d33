"""What Argo CD would see of services: their health, no difference after a sync, and what a further sync leaves alone.

Argo CD itself does not run here. A sync is what it does with `ServerSideApply=true`: a server-side apply of the manifest
under its own manager name, with force. A difference is what such an apply would change, asked as a dry run, which is its
server-side diff; and what stands in the live spec and not in the manifest, or otherwise, which is its plain one. Health
comes from the chart's scripts.
"""

import json
import os
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from draftmark.api import names
from draftmark.cluster.kinds import INFERENCE_SERVICES, MODEL_GATEWAYS
from e2e.tools import RESOURCE
from tests.chart.argocd_health import ARGOCD, PROGRESSING, RECORDED, health, record, recorded
from tests.e2e.api import Json, Namespace, eventually
from tests.e2e.flow import current_revision, revisions, standin_service, status_text
from tests.e2e.installed import Installed, make_namespace
from tests.e2e.rendered import missing, render
from tests.e2e.test_kubectl import draftmark

NAMESPACE = "e2e-argocd"
MANAGER = "argocd-controller"
#: Set to `health` to write what is told into tests/chart/recorded, in place of a comparison with it.
RECORD = "DRAFTMARK_RECORD"


@dataclass(frozen=True, slots=True)
class Application:
    """Manifests as they are in git, and the namespace that they are synced to."""

    namespace: Namespace
    git: dict[str, Json] = field(default_factory=dict)

    def commit(self, manifest: Json) -> None:
        self.git[manifest["metadata"]["name"]] = manifest

    def sync(self, *changed: str) -> None:
        """Apply all manifests, or those that are named."""
        items = [self.git[name] for name in changed or self.git]
        self._apply({"apiVersion": "v1", "kind": "List", "items": items})

    def differences(self, name: str, *, ignored: tuple[str, ...] = ()) -> set[str]:
        """JSON pointers of what differs."""
        manifest = self.git[name]
        live = self.live(manifest)
        would_be: Json = json.loads(self._apply(manifest, "--dry-run=server", "--output=json"))
        found = _paths(live["spec"], would_be["spec"], "/spec") | _paths(
            live["metadata"].get("labels"), would_be["metadata"].get("labels"), "/metadata/labels"
        )
        plain = _paths(manifest["spec"], live["spec"], "/spec")
        if "replicas" not in manifest["spec"]:
            plain.discard("/spec/replicas")  # the server's default, or whoever scales
        return (found | plain) - {*ignored}

    def live(self, manifest: Json) -> Json:
        kind = INFERENCE_SERVICES if manifest["kind"] == names.KIND else MODEL_GATEWAYS
        found = self.namespace.api.get(kind, self.namespace.name, manifest["metadata"]["name"])
        assert found is not None
        return found

    def health(self, name: str) -> str:
        item = self.live(self.git[name])
        return health(item["kind"], item)[0]

    def tell(self, step: str, name: str) -> None:
        """Compare an object with what was recorded of it at this step, and its health with what Argo CD is to show."""
        item = self.live(self.git[name])
        if os.environ.get(RECORD) == "health":
            record(step, item)
        assert health(item["kind"], item)[0] == RECORDED[step], json.dumps(item.get("status"), indent=1)
        assert _told(item) == _told(recorded(step)), f"{RECORD}=health records it anew"

    def _apply(self, item: Json, *words: str) -> str:
        return self.namespace.tools.kubectl(
            *("apply", "--server-side", "--force-conflicts", f"--field-manager={MANAGER}"),
            *(f"--namespace={self.namespace.name}", "-f", "-", *words),
            stdin=json.dumps(item),
        )


def _told(item: Json) -> dict[str, tuple[str, str]]:
    return {c["type"]: (c["status"], c["reason"]) for c in item.get("status", {}).get("conditions") or ()}


def _status(namespace: Namespace, name: str, condition: str) -> str | None:
    found = namespace.conditions(name).get(condition)
    return str(found["status"]) if found is not None else None


def _paths(one: Any, other: Any, at: str) -> set[str]:
    """Where two values differ; a field that is absent is not one that is null."""
    if isinstance(one, dict) and isinstance(other, dict):
        absent = object()
        keys = {*one, *other}
        return {p for k in keys for p in _paths(one.get(k, absent), other.get(k, absent), f"{at}/{k}")}
    return set() if one == other else {at}


@pytest.fixture(scope="module")
def application(installed: Installed) -> Iterator[Application]:
    """Services of this file, synced together so that their starts are one wait. They go at the end: the one node has room
    for those of one file at a time."""
    made = Application(make_namespace(installed, NAMESPACE))
    small = {"behaviour": {"LOAD_SECONDS": 3}, "workload": {"concurrency": 4}}
    for manifest in (
        standin_service(installed, "plain", **small),
        standin_service(installed, "sized", replicas=1, **small),
        standin_service(installed, "refused", **small),
        standin_service(installed, "withdrawn", **small),
        standin_service(installed, "stopped", **small),
        standin_service(installed, "crashing", behaviour={"CRASH": 1}),
    ):
        made.commit(manifest)
    made.sync()
    yield made
    for name in sorted(made.namespace.service_names()):
        made.namespace.api.delete(INFERENCE_SERVICES, made.namespace.name, name)


def test_a_synced_service_is_progressing_until_it_serves(application: Application) -> None:
    def conditions() -> bool:
        found = application.namespace.conditions("plain")
        return found.get("Ready", {}).get("reason") == "Starting"

    eventually("it is starting", conditions, within_s=20, every_s=0.05)
    application.tell("starting", "plain")
    application.namespace.wait_until_settled("plain")
    application.tell("serving", "plain")


@pytest.mark.parametrize("name", ["plain", "sized"])
def test_nothing_differs_after_a_sync_and_a_further_one_writes_nothing(application: Application, name: str) -> None:
    application.namespace.wait_until_settled(name)
    before = application.namespace.versions(name)
    assert application.differences(name) == set()
    application.sync(name)
    assert application.differences(name) == set()
    assert application.namespace.versions(name) == before


def test_nothing_differs_while_something_scales(application: Application, installed: Installed, tmp_path: Path) -> None:
    namespace = application.namespace
    namespace.wait_until_settled("plain")
    namespace.tools.kubectl("scale", f"{RESOURCE}/plain", "--replicas=2", f"--namespace={NAMESPACE}")
    looks = 0

    def scaled() -> bool:
        nonlocal looks
        looks += 1
        assert application.differences("plain") == set()
        service = namespace.service("plain")
        return bool(service["status"].get("readyReplicas") == 2)

    eventually("two replicas serve", scaled, within_s=60)
    assert looks > 2, "it was not seen on its way"
    application.tell("scaled", "plain")
    application.sync("plain")
    assert namespace.service("plain")["spec"]["replicas"] == 2
    # Nor do the children differ from what is rendered of the manifest that was applied, with its replicas as they are.
    service = namespace.wait_until_settled("plain")
    live = {(kind.kind, name): item for (kind, name), item in namespace.children("plain").items()}
    rendered = render(service, installed, tmp_path)
    assert set(rendered) == set(live)
    for key, wanted in rendered.items():
        if key[0] != "ConfigMap":  # it holds addresses, which come later
            assert missing(wanted, live[key], "/".join(key)) == []


def test_where_git_has_replicas_they_alone_differ_and_the_example_leaves_them(application: Application) -> None:
    namespace = application.namespace
    [example] = yaml.safe_load_all((ARGOCD / "services.yaml").read_text("utf-8"))
    [ignored] = example["spec"]["ignoreDifferences"]
    assert (ignored["group"], ignored["kind"]) == (names.GROUP, names.KIND)
    assert {"ServerSideApply=true", "RespectIgnoreDifferences=true"} <= set(
        example["spec"]["syncPolicy"]["syncOptions"]
    )
    namespace.wait_until_settled("sized")
    namespace.tools.kubectl("scale", f"{RESOURCE}/sized", "--replicas=2", f"--namespace={NAMESPACE}")
    assert application.differences("sized") == {"/spec/replicas"}
    assert application.differences("sized", ignored=tuple(ignored["jsonPointers"])) == set()
    # RespectIgnoreDifferences: what is ignored is written as it is in the cluster.
    respected = deepcopy(application.git["sized"])
    respected["spec"]["replicas"] = namespace.service("sized")["spec"]["replicas"]
    Application(namespace, {"sized": respected}).sync()
    namespace.wait_until_settled("sized")
    assert namespace.service("sized")["status"]["replicas"] == 2


def test_a_refused_edit_stays_refused_over_further_syncs(application: Application) -> None:
    namespace = application.namespace
    namespace.wait_until_settled("refused")
    lives = namespace.pod_lives("refused")
    edited = deepcopy(application.git["refused"])
    edited["spec"]["engine"]["args"] = ["--flash-atn", "on"]
    application.commit(edited)
    application.sync("refused")
    eventually(
        "it is refused",
        lambda: namespace.conditions("refused").get("Accepted", {}).get("status") == "False",
        within_s=20,
    )
    application.tell("refused", "refused")
    _sync_changes_nothing(application, "refused")
    assert namespace.pod_lives("refused") == lives


def test_a_withdrawn_revision_stays_withdrawn_over_further_syncs(application: Application) -> None:
    namespace = application.namespace
    namespace.wait_until_settled("withdrawn")
    before = current_revision(namespace, "withdrawn")
    edited = deepcopy(application.git["withdrawn"])
    edited["spec"]["engine"]["env"] = [{"name": "STANDIN_CRASH", "value": "1"}]
    application.commit(edited)
    application.sync("withdrawn")
    eventually(
        "the new revision is on its way",
        lambda: namespace.conditions("withdrawn").get("Ready", {}).get("reason") == "RollingOut",
        within_s=20,
        every_s=0.05,
    )
    application.tell("rolling-out", "withdrawn")

    def is_withdrawn() -> bool:
        return namespace.conditions("withdrawn").get("Ready", {}).get("reason") == "CandidateCrashed"

    eventually("it is withdrawn", is_withdrawn, within_s=100)
    eventually("only what serves has pods", lambda: len(namespace.pods("withdrawn")) == 1, within_s=40)
    application.tell("withdrawn", "withdrawn")
    _sync_changes_nothing(application, "withdrawn")
    assert revisions(namespace, "withdrawn")[before]["weight"] == 100, status_text(namespace, "withdrawn")


def test_a_pause_by_hand_and_one_in_git_survive_further_syncs(application: Application) -> None:
    namespace = application.namespace
    namespace.wait_until_settled("stopped")
    # By hand, as kubectl draftmark does it: git does not have the field.
    draftmark(namespace, "pause", "stopped")
    assert application.differences("stopped") <= {"/spec/paused"}
    application.sync("stopped")
    assert namespace.service("stopped")["spec"]["paused"] is True
    draftmark(namespace, "resume", "stopped")
    # In git: an edit that comes with it is not carried out.
    edited = deepcopy(application.git["stopped"])
    edited["spec"]["paused"] = True
    edited["spec"]["engine"]["args"] = ["--temp", "0.5"]
    application.commit(edited)
    application.sync("stopped")
    eventually("it is paused", lambda: application.health("stopped") != PROGRESSING, within_s=20)
    application.tell("paused", "stopped")
    _sync_changes_nothing(application, "stopped")
    assert "0.5" not in str(namespace.pods("stopped")[0]["spec"]["containers"][0]["args"])


def test_a_service_at_zero_is_suspended(application: Application) -> None:
    namespace = application.namespace
    namespace.tools.kubectl("scale", f"{RESOURCE}/plain", "--replicas=0", f"--namespace={NAMESPACE}")
    eventually("it is at zero", lambda: _reason(namespace, "plain") == "ScaledToZero", within_s=40)
    eventually("nothing runs", lambda: not namespace.pods("plain"), within_s=40)
    # The pods are gone a moment before the status has counted them.
    eventually("it has settled", lambda: _status(namespace, "plain", "Reconciling") == "False", within_s=20)
    application.tell("scaled-to-zero", "plain")
    application.sync("plain")
    assert application.differences("plain") == set()
    assert namespace.service("plain")["spec"]["replicas"] == 0


def test_a_service_that_crashes_at_its_first_start_is_degraded(application: Application) -> None:
    namespace = application.namespace
    eventually("it crashes", lambda: _reason(namespace, "crashing") == "EngineCrashed", within_s=60)
    application.tell("crashing", "crashing")


def test_a_model_gateway_is_healthy_and_does_not_differ(application: Application) -> None:
    manifest = {
        "apiVersion": names.API_VERSION,
        "kind": names.MODEL_GATEWAY_KIND,
        "metadata": {"name": "all"},
        "spec": {},
    }
    application.commit(manifest)
    application.sync("all")

    def settled() -> bool:
        item = application.live(manifest)
        return _told(item).get("Reconciling") == ("False", "Settled")

    eventually("it is ready, with all its pods", settled, within_s=60)
    application.tell("model-gateway", "all")
    assert application.differences("all") <= {"/spec/replicas"}
    _sync_changes_nothing(application, "all")


def _reason(namespace: Namespace, name: str) -> str | None:
    return namespace.conditions(name).get("Ready", {}).get("reason")


def _sync_changes_nothing(application: Application, name: str) -> None:
    """Three further syncs: no difference, no write, the same status and health."""
    before = application.live(application.git[name])
    for _ in range(3):
        assert application.differences(name) <= {"/spec/replicas"}
        application.sync(name)
    after = application.live(application.git[name])
    assert after["metadata"]["generation"] == before["metadata"]["generation"]
    assert _told(after) == _told(before)
    assert health(after["kind"], after) == health(before["kind"], before)
