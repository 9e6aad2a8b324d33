"""Changes under load: what goes on, what takes over, and what is withdrawn."""

import time

import pytest

from draftmark.api import names
from draftmark.cluster.kinds import DEPLOYMENTS
from tests.e2e.api import Json, Namespace, eventually
from tests.e2e.flow import current_revision, revisions, standin_service, status_text, times_seen
from tests.e2e.installed import Client, Installed
from tests.e2e.load import Load, send, sending


def alone(name: str) -> Json:
    """A pod template of which no two pods go to one node; and there is one node."""
    labels = {"example.com/alone": name}
    term = {"labelSelector": {"matchLabels": labels}, "topologyKey": "kubernetes.io/hostname"}
    return {
        "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}},
        "metadata": {"labels": labels},
    }


@pytest.fixture(scope="module")
def flow(home: Namespace, installed: Installed) -> Namespace:
    """Services of this file, applied together so that their starts are one wait."""
    home.apply(
        standin_service(
            installed,
            "slow",
            behaviour={"TOKEN_MS": 400, "FIRST_TOKEN_MS": 100},
            workload={"concurrency": 128},
            replicas=3,
            traffic={"requestTimeout": "90s"},
        ),
        standin_service(
            installed, "share", behaviour={"TOKEN_MS": 40}, workload={"concurrency": 2}, replicas=9,
            rollout={"progressDeadline": "40s"},
        ),
        standin_service(installed, "crash", workload={"concurrency": 4}, behaviour={"FIRST_TOKEN_MS": 100}),
        standin_service(
            installed, "again", workload={"concurrency": 4}, rollout={"strategy": "recreate"},
            traffic={"requestTimeout": "4s", "queueTimeout": "15s"}, behaviour={"FIRST_TOKEN_MS": 200},
        ),
        standin_service(
            installed, "tight", workload={"concurrency": 4}, rollout={"whenNoCapacity": "inPlace"},
            traffic={"requestTimeout": "4s", "queueTimeout": "20s"}, podTemplate=alone("tight"),
        ),
    )  # fmt: skip
    return home


def test_no_stream_is_cut_by_a_rolling_update_a_router_restart_and_a_scale_down(
    flow: Namespace, installed: Installed, client: Client, measured: list[str]
) -> None:
    url = flow.wait_until_settled("slow")["status"]["url"]
    before = current_revision(flow, "slow")
    # 200 streams of 50 s each, all open when the changes begin.
    load = Load(url=url, model="slow", ids="slow", count=200, workers=200, tokens=125, pause_s=0.05)
    with sending(installed.tools, load) as told:
        time.sleep(12)
        began = time.monotonic()
        flow.edit("slow", engine={"env": [{"name": "STANDIN_TOKEN_MS", "value": "399"}]})
        eventually(
            "the new revision serves alone",
            lambda: [(r["hash"] != before, r["weight"]) for r in revisions(flow, "slow").values()] == [(True, 100)],
            within_s=45,
        )
        measured.append(f"rolling update of 3 replicas under 200 streams: {time.monotonic() - began:.1f} s")
        after = current_revision(flow, "slow")
        router = names.router_name("slow", after)
        flow.tools.kubectl("rollout", "restart", f"deployment/{router}", f"--namespace={flow.name}")
        time.sleep(3)
        flow.tools.kubectl("scale", "inferenceservices.draftmark.dev/slow", "--replicas=1", f"--namespace={flow.name}")

    assert told[0].count() == {"whole": 200}, told[0].others()[:5]
    assert set(told[0].count("revision")) == {before}
    seen = times_seen(flow, "slow")
    assert [i for i, count in seen.items() if count > 1] == []


def test_shares_hold_at_saturation_and_a_candidate_without_room_is_withdrawn(
    flow: Namespace, installed: Installed, client: Client, measured: list[str]
) -> None:
    url = flow.wait_until_settled("share")["status"]["url"]
    before = current_revision(flow, "share")

    flow.edit("share", podTemplate=alone("share"))

    def shares() -> dict[str, int]:
        return {r["hash"]: r["weight"] for r in revisions(flow, "share").values()}

    # One pod of the candidate finds the node, the second one does not: 1 of 10 ready replicas, then 1 of 9.
    eventually("the candidate has its share", lambda: sorted(shares().values()) == [11, 89], within_s=30)
    candidate = current_revision(flow, "share")
    # 60 workers for 18 places: whatever is drawn waits.
    told = send(installed.tools, Load(url=url, model="share", ids="share", count=1200, workers=60, tokens=4))
    assert told.count() == {"whole": 1200}, told.others()[:5]
    counted = told.count("revision")
    measured.append(f"1,200 requests at saturation, weights {shares()}: {counted}")
    # 1 of 9 of 1,200 is 133; four standard deviations are 44.
    assert abs(counted[candidate] - 1200 / 9) < 44, counted

    def withdrawn() -> bool:
        found = revisions(flow, "share")
        return bool(found[candidate]["phase"] == "Failed" and found[before]["weight"] == 100)

    eventually("the candidate is withdrawn", withdrawn, within_s=60)
    conditions = flow.conditions("share")
    assert conditions["Ready"]["reason"] == "NoCapacity", status_text(flow, "share")
    assert before in conditions["Ready"]["message"]
    assert conditions["Stalled"]["status"] == "True"
    assert conditions["Available"]["status"] == "True"
    eventually(
        "the revision before has all replicas",
        lambda: revisions(flow, "share")[before]["readyReplicas"] == 9,
        within_s=30,
    )
    eventually(
        "the candidate's pods are gone",
        lambda: [d["metadata"]["labels"][names.LABEL_REVISION] for d in _engines(flow, "share")] == [before],
        within_s=30,
    )


def test_a_candidate_that_crashes_rolls_back_and_is_tried_again_when_asked(
    flow: Namespace, installed: Installed, client: Client
) -> None:
    url = flow.wait_until_settled("crash")["status"]["url"]
    before = current_revision(flow, "crash")
    load = Load(url=url, model="crash", ids="crash", count=0, workers=2, tokens=2, pause_s=0.1)
    with sending(installed.tools, load) as told:
        good = flow.service("crash")["spec"]["engine"]["env"]
        flow.edit("crash", engine={"env": [*good, {"name": "STANDIN_CRASH", "value": "1"}]})
        eventually(
            "the candidate is withdrawn",
            lambda: flow.conditions("crash").get("Ready", {}).get("reason") == "CandidateCrashed",
            within_s=100,
        )
    assert told[0].count().keys() == {"whole"}, told[0].others()[:5]
    assert set(told[0].count("revision")) == {before}
    failed = current_revision(flow, "crash")
    assert revisions(flow, "crash")[before]["weight"] == 100

    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 1))
    flow.tools.kubectl(
        "annotate",
        "inferenceservices.draftmark.dev/crash",
        f"{names.ANNOTATION_RETRY}={now}",
        f"--namespace={flow.name}",
    )
    eventually("it is tried again", lambda: revisions(flow, "crash")[failed]["phase"] == "Candidate", within_s=10)
    flow.edit("crash", engine={"env": good})
    flow.wait_until_settled("crash", within_s=60)
    assert current_revision(flow, "crash") == before


def test_requests_wait_while_a_service_is_recreated(flow: Namespace, installed: Installed, client: Client) -> None:
    url = flow.wait_until_settled("again")["status"]["url"]
    before = current_revision(flow, "again")
    load = Load(url=url, model="again", ids="again", count=0, workers=2, tokens=1, pause_s=0.1)
    with sending(installed.tools, load) as told:
        flow.edit("again", model={"maxContextLength": 128})
        most = 0

        def is_done() -> bool:
            nonlocal most
            most = max(most, len({p["metadata"]["labels"][names.LABEL_REVISION] for p in flow.pods("again")}))
            return [r["hash"] != before and r["weight"] == 100 for r in revisions(flow, "again").values()] == [True]

        eventually("the new revision serves", is_done, within_s=45)
        assert most == 1
    assert told[0].count().keys() == {"whole"}, told[0].others()[:5]
    assert told[0].count("revision").keys() == {before, current_revision(flow, "again")}


def test_a_full_node_is_changed_in_place(flow: Namespace, installed: Installed, client: Client) -> None:
    """No pod of the new revision finds room beside the old one, which makes room for it while requests wait."""
    url = flow.wait_until_settled("tight")["status"]["url"]
    before = current_revision(flow, "tight")
    load = Load(url=url, model="tight", ids="tight", count=0, workers=2, tokens=1, pause_s=0.1, gap_s=0.2)
    with sending(installed.tools, load) as told:
        flow.edit("tight", model={"maxContextLength": 128})

        def is_done() -> bool:
            return [r["hash"] != before and r["weight"] == 100 for r in revisions(flow, "tight").values()] == [True]

        eventually("the new revision serves", is_done, within_s=60)
    assert told[0].count().keys() == {"whole"}, told[0].others()[:5]
    assert told[0].count("revision").keys() == {before, current_revision(flow, "tight")}


def _engines(namespace: Namespace, name: str) -> list[Json]:
    return [
        item
        for (kind, _), item in namespace.children(name).items()
        if kind == DEPLOYMENTS and item["metadata"]["labels"][names.LABEL_ROLE] == names.ROLE_ENGINE
    ]
