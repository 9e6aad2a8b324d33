"""What runs of one service, read from its objects, in the words of the machines."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from draftmark.api import names
from draftmark.api.times import read_time
from draftmark.facts.addresses import cluster_ip
from draftmark.facts.pods import has_ended, is_ready, most_crashes, unscheduled, worst_problem
from draftmark.machines.revisions import Revision
from draftmark.machines.rollout import GatewaysSeen, RevisionSeen
from draftmark.observation import GatewayState, Json, Observation
from draftmark.render.gateway_config import read_weights

#: Age of a gateway's word that a pod may still be stopped upon.
_FRESH = timedelta(seconds=10)


def deployments_by_revision(seen: Observation) -> dict[str, Json]:
    """The engine Deployments that are not being deleted."""
    return _by_revision(seen, names.ROLE_ENGINE)


def routers_by_revision(seen: Observation) -> dict[str, Json]:
    """The router Deployments that are not being deleted."""
    return _by_revision(seen, names.ROLE_ROUTER)


def _by_revision(seen: Observation, role: str) -> dict[str, Json]:
    return {
        str(d["metadata"].get("labels", {}).get(names.LABEL_REVISION, "")): d
        for d in seen.owned("Deployment")
        # An older version has labelled nothing but engines.
        if d["metadata"].get("labels", {}).get(names.LABEL_ROLE, names.ROLE_ENGINE) == role
        and not d["metadata"].get("deletionTimestamp")
    }


def is_listed(seen: Observation, name: str) -> bool:
    """Whether there is a ControllerRevision of this name."""
    return any(item["metadata"]["name"] == name for item in seen.owned("ControllerRevision"))


def ready_replicas(deployment: Json | None) -> int:
    return int((deployment or {}).get("status", {}).get("readyReplicas") or 0)


def wanted_replicas(deployment: Json) -> int:
    return int(deployment["spec"].get("replicas", 1))


def engine_port(pod_template: Mapping[str, Any]) -> int:
    """Where the engine of a pinned template answers."""
    return int(pod_template["spec"]["containers"][0]["ports"][0]["containerPort"])


def pods_of(pods: Iterable[Json], revision: str) -> list[Json]:
    """The pods of one revision."""
    return [p for p in pods if p["metadata"].get("labels", {}).get(names.LABEL_REVISION) == revision]


def has_ready(pods: Iterable[Json]) -> bool:
    return any(is_ready(pod) for pod in pods)


def told(seen: Observation, revision: str) -> Json:
    """What the status remembers of a revision; empty: nothing."""
    return next((r for r in seen.status.get("revisions") or () if r.get("hash") == revision), {})


def see_revision(seen: Observation, revision: Revision, deployment: Json | None, *, is_current: bool) -> RevisionSeen:
    """One revision, for the rollout."""
    pods = pods_of(seen.pods, revision.hash)
    memory = told(seen, revision.hash)
    ready = ready_replicas(deployment)
    # What serves although the status knows nothing of it was made before the status was lost.
    is_adopted = not is_current and not memory and ready > 0
    problem = worst_problem(pods)
    proof = seen.proof
    unproven = proof.problem if proof is not None and proof.revision == revision.hash else None
    failed_at = read_time(memory.get("failedAt")) if memory.get("phase") == "Failed" else None
    if failed_at is not None and is_retried(seen, failed_at):
        failed_at = None
    return RevisionSeen(
        hash=revision.hash,
        number=revision.number,
        desired=wanted_replicas(deployment) if deployment is not None else None,
        ready=ready,
        pods=sum(not has_ended(pod) for pod in pods),
        is_proven=is_proven(seen, revision.hash) or is_adopted,
        crashes=most_crashes(pods),
        is_unschedulable=problem is not None and problem.code == "Unschedulable",
        unschedulable_since=next((one.since for one in unscheduled(pods)), None),
        problem=problem.message if problem is not None else unproven,
        progressed_at=read_time(memory.get("progressedAt")),
        progress=int(memory.get("progress") or 0),
        drained_since=read_time(memory.get("drainedSince")),
        is_closing=configured_weight(seen, revision.hash) == 0,
        failed_at=failed_at,
        failure=(str(memory.get("reason")), str(memory.get("message"))) if failed_at is not None else None,
    )


def is_proven(seen: Observation, revision: str) -> bool:
    """Whether a request was answered by the revision once."""
    proof = seen.proof
    is_fresh = proof is not None and proof.revision == revision and proof.problem is None
    return is_fresh or told(seen, revision).get("provenAt") is not None


def is_retried(seen: Observation, failed_at: datetime) -> bool:
    """Whether the user has asked to try a withdrawn candidate again since."""
    annotations = seen.service["metadata"].get("annotations") or {}
    asked = read_time(annotations.get(names.ANNOTATION_RETRY))
    return asked is not None and asked > failed_at


def live_gateways(seen: Observation) -> list[tuple[Json, GatewayState | None]]:
    """The gateway pods that take requests, each with what it told last."""
    return [(p, seen.gateways.get(str(p["metadata"]["name"]))) for p in seen.gateway_pods if is_ready(p)]


def see_gateways(seen: Observation, revisions: Sequence[str], queue_timeout: timedelta, now: datetime) -> GatewaysSeen:
    """What all gateways together tell of these revisions."""
    states = [state for _, state in live_gateways(seen)]
    # After the clock was set back, what was told before it seems to be told in the future.
    fresh = [s for s in states if s is not None and abs(now - s.at) <= _FRESH]
    if not fresh or len(fresh) < len(states):
        return GatewaysSeen()
    closed = {r for r in revisions if all(r not in s.revisions or s.revisions[r].weight == 0 for s in fresh)}
    # A process from before a reload may hold what came before it, and ends that after the queue's time-out. A revision
    # that a gateway does not know yet is a reload to come.
    know_all = all(s.revisions.keys() >= {*revisions} for s in fresh)
    settles_in = max(max(s.config_since + queue_timeout - now for s in fresh), timedelta(0)) if know_all else None
    empty = {r for r in closed if all(r not in s.revisions or s.revisions[r].waiting == 0 for s in fresh)}
    return GatewaysSeen(
        closed=frozenset(closed),
        empty=frozenset(empty) if settles_in == timedelta(0) else frozenset(),
        settles_in=settles_in,
    )


def configured_weight(seen: Observation, revision: str) -> int | None:
    """What the gateways are told to send to a revision, as its weight; None: nothing is said of it."""
    name = names.gateway_name(seen.name)
    config = next((c for c in seen.owned("ConfigMap") if c["metadata"]["name"] == name), None)
    return read_weights((config or {}).get("data") or {}).get(revision)


def router_address(seen: Observation, revision: str) -> str | None:
    """The cluster IP of a router's Service, or None before it has one."""
    name = names.router_name(seen.name, revision)
    return cluster_ip(next((s for s in seen.owned("Service") if s["metadata"]["name"] == name), None))


def router_account(seen: Observation) -> str | None:
    """uid of the routers' ServiceAccount, or None before it is there."""
    name = names.router_account_name(seen.name)
    found = (a["metadata"] for a in seen.owned("ServiceAccount") if a["metadata"]["name"] == name)
    return next((str(a["uid"]) for a in found if a.get("uid") and not a.get("deletionTimestamp")), None)
