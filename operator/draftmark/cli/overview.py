"""What there is of one service and why, as plain data: what `kubectl draftmark status -o json` prints.

The status says what was decided; the Deployments and pods say what became of it. A revision is listed when one of them
knows it, so that what an operator which is down has not told yet is shown all the same.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from draftmark.api import names
from draftmark.api.conditions import READY, shorten
from draftmark.cli.spans import seconds_between, span
from draftmark.facts.pods import is_ready, pod_problem

__all__ = ["Seen", "overview", "pod_data", "role_of"]

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One service, and the objects that carry its label."""

    service: Json
    deployments: Sequence[Json] = ()
    pods: Sequence[Json] = ()


def overview(seen: Seen, now: datetime) -> dict[str, Any]:
    """The service, its gateway and its revisions, with every pod.

    Pure. Fields that an older operator does not write are None.

    Args:
        now: Aware, UTC. Times of pods that start are counted up to it.
    """
    metadata, status = seen.service["metadata"], seen.service.get("status") or {}
    plan = status.get("plan") or {}
    conditions = [
        {key: c.get(key) for key in ("type", "status", "reason", "message", "lastTransitionTime")}
        for c in status.get("conditions") or ()
    ]
    is_seen = status.get("observedGeneration") == metadata.get("generation")
    ready = next((c for c in conditions if c["type"] == READY), None)
    return {
        "name": metadata["name"],
        "namespace": metadata["namespace"],
        "ready": is_seen and ready is not None and ready["status"] == "True",
        "observed": is_seen,
        "paused": bool(seen.service.get("spec", {}).get("paused")),
        "url": status.get("url"),
        "model": status.get("model"),
        "plan": {
            key: plan.get(key) for key in ("engine", "version", "image", "layout", "maxContextLength", "concurrency")
        }
        if plan
        else None,
        "suggestion": plan.get("suggestion"),
        "conditions": conditions,
        "gateway": _workload(seen, names.ROLE_GATEWAY, None, now),
        "revisions": [_revision(seen, revision, now) for revision in revisions(seen)],
    }


def revisions(seen: Seen) -> list[dict[str, Any]]:
    """The revisions as the status has them, then those that only a Deployment or pod knows of."""
    listed = [dict(r) for r in (seen.service.get("status") or {}).get("revisions") or ()]
    known = {r.get("hash") for r in listed}
    others = {label(item, names.LABEL_REVISION) for item in (*seen.deployments, *seen.pods)} - known - {None}
    return listed + [{"hash": other} for other in sorted(str(o) for o in others)]


def label(item: Json, key: str) -> str | None:
    """The value of an object's label."""
    value = (item["metadata"].get("labels") or {}).get(key)
    return None if value is None else str(value)


def role_of(item: Json) -> str:
    """engine, router or gateway; what carries no role was made when there were only engines."""
    return label(item, names.LABEL_ROLE) or names.ROLE_ENGINE


def wanted_replicas(deployments: Iterable[Json], role: str, revision: str | None) -> int | None:
    """Replicas that a role's Deployment asks for, or None when there is no such Deployment."""
    found = [d for d in deployments if role_of(d) == role and label(d, names.LABEL_REVISION) == revision]
    return int(found[0]["spec"].get("replicas", 1)) if found else None


def _revision(seen: Seen, revision: dict[str, Any], now: datetime) -> dict[str, Any]:
    hash_ = revision["hash"]
    engine = _workload(seen, names.ROLE_ENGINE, hash_, now)
    startup = (seen.service.get("status") or {}).get("startup") or {}
    stages = ("scheduleSeconds", "imageSeconds", "loadSeconds", "totalSeconds")
    return {
        "hash": hash_,
        **{key: revision.get(key) for key in ("phase", "weight", "provenAt", "reason", "message")},
        "replicas": engine["replicas"] if engine is not None else revision.get("replicas"),
        "readyReplicas": engine["readyReplicas"] if engine is not None else revision.get("readyReplicas"),
        "startup": {key: startup.get(key) for key in stages} if startup.get("revision") == hash_ else None,
        "router": _workload(seen, names.ROLE_ROUTER, hash_, now),
        "pods": engine["pods"] if engine is not None else [],
    }


def _workload(seen: Seen, role: str, revision: str | None, now: datetime) -> dict[str, Any] | None:
    """The pods of a role, and how many there should be; None when there is nothing of it."""
    pods = [p for p in seen.pods if role_of(p) == role and label(p, names.LABEL_REVISION) == revision]
    wanted = wanted_replicas(seen.deployments, role, revision)
    if wanted is None and not pods:
        return None
    found = [d for d in seen.deployments if role_of(d) == role and label(d, names.LABEL_REVISION) == revision]
    return {
        "name": found[0]["metadata"]["name"] if found else None,
        "replicas": wanted if wanted is not None else 0,
        "readyReplicas": sum(is_ready(pod) for pod in pods),
        "pods": [pod_data(pod, now) for pod in sorted(pods, key=lambda p: str(p["metadata"]["name"]))],
    }


def pod_data(pod: Json, now: datetime) -> dict[str, Any]:
    """One pod: where, whether it serves, and what keeps it from that."""
    status = pod.get("status") or {}
    containers = status.get("containerStatuses") or ()
    stands = None if is_ready(pod) else _what_it_waits_for(pod, now)
    return {
        "name": pod["metadata"]["name"],
        "node": (pod.get("spec") or {}).get("nodeName"),
        "ready": is_ready(pod),
        "restarts": sum(int(c.get("restartCount", 0)) for c in containers),
        "reason": stands[0] if stands else None,
        "message": stands[1] if stands else None,
        "problem": stands is not None and stands[2],
    }


def _what_it_waits_for(pod: Json, now: datetime) -> tuple[str, str, bool]:
    """A word, a sentence, and whether something is wrong."""
    metadata, status = pod["metadata"], pod.get("status") or {}
    if metadata.get("deletionTimestamp"):
        return "Stopping", "is being stopped", False
    if (problem := pod_problem(pod)) is not None:
        if role_of(pod) == names.ROLE_ENGINE:
            return problem.code, problem.message, True
        # That function speaks of engines.
        return problem.code.replace("Engine", ""), _in_its_own_words(status), True
    scheduled = _condition(status, "PodScheduled")
    if scheduled.get("status") != "True":
        return "Pending", f"waits for a node{_since(metadata.get('creationTimestamp'), now)}", False
    for container in status.get("initContainerStatuses") or ():
        if not (container.get("state") or {}).get("terminated"):
            return "Initializing", f"runs init container {container.get('name')}", False
    for container in status.get("containerStatuses") or ():
        running = (container.get("state") or {}).get("running")
        if running is None:
            return (
                "Creating",
                f"its image and volumes are fetched{_since(scheduled.get('lastTransitionTime'), now)}",
                False,
            )
        if not container.get("started", True):
            return "Loading", f"has started and loads{_since(running.get('startedAt'), now)}", False
        if not container.get("ready"):
            return "NotReady", "runs, and does not answer its readiness probe", False
    if not status.get("containerStatuses"):
        return "Creating", f"is being set up{_since(scheduled.get('lastTransitionTime'), now)}", False
    return "NotReady", f"runs, and is not ready ({status.get('phase', 'no phase')})", False


def _in_its_own_words(status: Json) -> str:
    for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        state = container.get("state") or {}
        waiting, ended = state.get("waiting") or {}, (container.get("lastState") or {}).get("terminated") or {}
        if waiting.get("reason"):
            told = [f"{container.get('name')}: {waiting['reason']}", waiting.get("message")]
            told += [f"exit code {ended['exitCode']}" if "exitCode" in ended else None, ended.get("message")]
            return shorten(", ".join(" ".join(str(part).split()) for part in told if part), 500)
    unscheduled = _condition(status, "PodScheduled").get("message")
    return shorten(str(unscheduled or status.get("message") or status.get("reason") or "no reason given"), 500)


def _condition(status: Json, type_: str) -> Json:
    return next((c for c in status.get("conditions") or () if c.get("type") == type_), {})


def _since(start: object, now: datetime) -> str:
    seconds = seconds_between(start, now)
    return "" if seconds is None else f", for {span(seconds)} so far"
