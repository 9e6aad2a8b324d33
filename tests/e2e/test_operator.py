"""What happens to the operator itself, and that its services do not feel it."""

import json
import time
from collections.abc import Mapping

import pytest

from draftmark.cluster.kinds import EVENTS, INFERENCE_SERVICES, PODS
from e2e.cluster.choose import Own
from e2e.tools import SYSTEM_NAMESPACE
from tests.e2e.api import Json, Namespace, eventually
from tests.e2e.installed import HOME, Installed, leader, metrics
from tests.e2e.processes import kill_nine

#: Seconds within which a standby must lead after the leader has died.
TAKEOVER_S = 20


def test_a_restart_of_the_operator_writes_nothing(
    home: Namespace, installed: Installed, good: str, measured: list[str]
) -> None:
    home.wait_until_settled("picture")
    before, events = _state(home), _told(home)
    old = _leader(installed)

    with installed.log_of(old) as log:
        began = time.monotonic()
        installed.api.delete(PODS, SYSTEM_NAMESPACE, old["metadata"]["name"])
        after = _wait_for_another_leader(installed, old, within_s=TAKEOVER_S)
        measured.append(f"leader's pod deleted until another leads: {time.monotonic() - began:.1f} s")

    assert json.loads(log[-1])["message"] == "Stopped"
    assert [line for line in log if json.loads(line)["level"] in ("error", "critical")] == []
    _wait_until_all_was_looked_at(installed, after)
    assert _state(home) == before
    assert _told(home) == events
    assert _verbs(installed, after) == {"get", "list", "watch"}


def test_a_standby_takes_over_from_a_killed_leader_and_nothing_else_happens(
    home: Namespace, installed: Installed, good: str, measured: list[str]
) -> None:
    if not isinstance(installed.target, Own):
        pytest.skip("the process is only in reach on a node that we made")
    home.wait_until_settled("picture")
    before, lives = _state(home), {name: home.pod_lives(name) for name in ("good", "picture")}
    old, holder = _leader(installed), installed.lease_holder()
    began = time.monotonic()

    kill_nine(old)

    eventually("the Lease has another holder", lambda: installed.lease_holder() != holder, within_s=TAKEOVER_S)
    measured.append(f"leader killed with SIGKILL until the standby holds the Lease: {time.monotonic() - began:.1f} s")
    after = _wait_for_another_leader(installed, old, within_s=5)
    _wait_until_all_was_looked_at(installed, after)
    assert _state(home) == before
    assert {name: home.pod_lives(name) for name in ("good", "picture")} == lives
    assert _verbs(installed, after) == {"get", "list", "watch"}


def _leader(installed: Installed) -> Json:
    pod = leader(installed)
    assert pod is not None
    return pod


def _state(home: Namespace) -> Mapping[str, Mapping[str, str]]:
    return {name: home.versions(name) for name in ("good", "picture")}


def _told(home: Namespace) -> set[tuple[str, str]]:
    """Each Event of our own kinds, and its version; the kubelet tells of pods at any time."""
    return {
        (event["metadata"]["name"], event["metadata"]["resourceVersion"])
        for event in home.api.list(EVENTS, HOME)
        if event["involvedObject"]["apiVersion"] == INFERENCE_SERVICES.api_version
    }


def _wait_for_another_leader(installed: Installed, old: Json, *, within_s: float) -> Json:
    def another() -> Json | None:
        found = leader(installed)
        is_other = found is not None and found["metadata"]["uid"] != old["metadata"]["uid"]
        return found if found and is_other and metrics(installed, found).get("draftmark_leader") == 1 else None

    found = eventually("another replica leads", another, within_s=within_s)
    assert found is not None
    return found


def _wait_until_all_was_looked_at(installed: Installed, pod: Json) -> None:
    services = len(installed.api.list(INFERENCE_SERVICES, None))

    def done() -> bool:
        now = metrics(installed, pod)
        looked = sum(value for name, value in now.items() if name.startswith("draftmark_reconcile_seconds_count"))
        return looked >= services and now["draftmark_queue_depth"] == 0

    eventually("each service was looked at", done, within_s=20)


def _verbs(installed: Installed, pod: Json) -> set[str]:
    """What the process has done at the API server; the Lease's client is not counted."""
    calls = [name for name in metrics(installed, pod) if name.startswith("draftmark_api_calls_total")]
    return {name.partition('verb="')[2].partition('"')[0] for name in calls}
