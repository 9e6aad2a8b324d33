"""A service in the middle of a change, as an API server shows it: the current revision serves, the candidate starts."""

from copy import deepcopy
from typing import Any

from draftmark.api import names
from draftmark.api.inference_service import InferenceServiceSpec
from draftmark.cli.overview import Seen

Json = dict[str, Any]

NAME = "llama"
NAMESPACE = "models"

OLD_SPEC: Json = {
    "model": {"uri": "pvc://weights/llama.gguf", "maxContextLength": 4096},
    "engine": {"name": "llama-cpp"},
}
NEW_SPEC: Json = {**OLD_SPEC, "model": {"uri": "pvc://weights/llama.gguf", "maxContextLength": 8192}}


def hash_of(spec: Json) -> str:
    return names.short_hash(InferenceServiceSpec.model_validate(spec).pod_affecting())


OLD, NEW = hash_of(OLD_SPEC), hash_of(NEW_SPEC)


def condition(type_: str, status: str, reason: str, message: str = "") -> Json:
    return {
        "type": type_,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": "2026-01-01T11:58:00Z",
    }


def service(spec: Json | None = None, *, name: str = NAME, namespace: str = NAMESPACE, **parts: Any) -> Json:
    """The service; parts of its status by name."""
    status = {
        "observedGeneration": 1,
        "url": f"http://{name}.{namespace}.svc",
        "model": name,
        "plan": {
            "engine": "llama-cpp",
            "version": "v0.7.0",
            "image": "ghcr.io/ggml-org/llama.cpp:server-v0.7.0",
            "layout": "CPU",
            "maxContextLength": 8192,
            "concurrency": 4,
            "reasons": [],
        },
        "conditions": [
            condition("Accepted", "True", "Accepted", "The spec can be deployed."),
            condition("Available", "True", "PodsReady", "2 engine pods are ready."),
            condition("Progressing", "True", "RollingOut", f"revision {NEW}: 0 of 1 replicas are ready."),
            condition("Ready", "False", "RollingOut", f"revision {NEW}: 0 of 1 replicas are ready."),
            condition("Reconciling", "True", "RollingOut", f"revision {NEW}: 0 of 1 replicas are ready."),
            condition("Stalled", "False", "NotStalled"),
        ],
        "startup": {"revision": OLD, "scheduleSeconds": 0, "imageSeconds": 4, "loadSeconds": 71, "totalSeconds": 75},
        "revisions": [
            {
                "hash": OLD,
                "phase": "Current",
                "weight": 100,
                "replicas": 2,
                "readyReplicas": 2,
                "provenAt": "2026-01-01T09:00:00Z",
            },
            {"hash": NEW, "phase": "Candidate", "weight": 0, "replicas": 1, "readyReplicas": 0},
        ],
        **parts,
    }
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": name, "namespace": namespace, "generation": 1, "uid": "uid-1", "resourceVersion": "7"},
        "spec": deepcopy(spec or {**NEW_SPEC, "replicas": 2}),
        "status": {key: value for key, value in status.items() if value is not None},
    }


def labels(role: str, revision: str | None, service: str = NAME) -> Json:
    found = {names.LABEL_SERVICE: service, names.LABEL_ROLE: role}
    return found | ({names.LABEL_REVISION: revision} if revision else {})


def deployment(role: str, revision: str | None, replicas: int, *, service: str = NAME) -> Json:
    name = f"{service}-{role}" + (f"-{revision}" if revision else "")
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels(role, revision, service)},
        "spec": {"replicas": replicas},
    }


def pod(role: str, revision: str | None, suffix: str, *, node: str | None = "node-1", **status: Any) -> Json:
    """A pod that is ready, or whatever its status says."""
    name = f"{NAME}-{role}" + (f"-{revision}" if revision else "") + f"-{suffix}"
    annotations = {"prometheus.io/port": "8080", "prometheus.io/path": "/metrics"} if role == "engine" else {}
    ready = {
        "phase": "Running",
        "conditions": [
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T11:58:00Z"},
            {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T11:59:15Z"},
        ],
        "containerStatuses": [
            {
                "name": role,
                "ready": True,
                "started": True,
                "restartCount": 0,
                "state": {"running": {"startedAt": "2026-01-01T11:58:04Z"}},
            }
        ],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "uid": f"uid-{name}",
            "labels": labels(role, revision),
            "annotations": annotations,
            "creationTimestamp": "2026-01-01T11:58:00Z",
        },
        "spec": {"containers": [{"name": role}], **({"nodeName": node} if node else {})},
        "status": {**ready, **status},
    }


def container(role: str, **state: Any) -> list[Json]:
    return [{"name": role, "ready": False, "restartCount": 0, **state}]


def not_ready(*more: Json) -> list[Json]:
    scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T11:58:00Z"}
    return [scheduled, {"type": "Ready", "status": "False"}, *more]


def loading_pod() -> Json:
    running = {"running": {"startedAt": "2026-01-01T11:59:20Z"}}
    statuses = container("engine", state=running, started=False)
    return pod("engine", NEW, "k8x2p", node="node-2", conditions=not_ready(), containerStatuses=statuses)


def crashed_pod() -> Json:
    ended = {"terminated": {"reason": "Error", "exitCode": 1, "message": "error: unknown model architecture [foo]"}}
    waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s restarting failed container"}}
    statuses = container("engine", state=waiting, lastState=ended, restartCount=3)
    return pod("engine", NEW, "zz9qk", node="node-2", conditions=not_ready(), containerStatuses=statuses)


def unscheduled_router() -> Json:
    message = "0/3 nodes are available: 3 Insufficient cpu."
    scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    status = {"phase": "Pending", "conditions": [scheduled], "containerStatuses": []}
    return pod("router", NEW, "q7d5f", node=None, **status)


def changing() -> Seen:
    """In the middle of a change."""
    return Seen(
        service=service(),
        deployments=[
            deployment("gateway", None, 2),
            deployment("router", OLD, 1),
            deployment("engine", OLD, 2),
            deployment("router", NEW, 1),
            deployment("engine", NEW, 1),
        ],
        pods=[
            pod("gateway", None, "6c7f8-aaaaa"),
            pod("gateway", None, "6c7f8-bbbbb", node="node-2"),
            pod("router", OLD, "w4x9z"),
            pod("engine", OLD, "hh2mm"),
            pod("engine", OLD, "jj3nn", node="node-3"),
            loading_pod(),
            unscheduled_router(),
        ],
    )


def failed() -> Seen:
    """The candidate was withdrawn; its last pod is still to be seen."""
    why = "The engine ended with exit code 1 (restarted 3 times)."
    revisions = service()["status"]["revisions"]
    revisions[1] |= {"phase": "Failed", "reason": "EngineCrashed", "message": why, "failedAt": "2026-01-01T11:59:30Z"}
    message = f"Revision {NEW} was withdrawn: {why}"
    conditions = [
        condition("Accepted", "True", "Accepted", "The spec can be deployed."),
        condition("Available", "True", "PodsReady", "2 engine pods are ready."),
        condition("Progressing", "False", "EngineCrashed", message),
        condition("Ready", "False", "EngineCrashed", message),
        condition("Reconciling", "False", "Settled"),
        condition("Stalled", "True", "EngineCrashed", message),
    ]
    seen = changing()
    return Seen(
        service=service(revisions=revisions, conditions=conditions),
        deployments=seen.deployments,
        pods=[*seen.pods[:5], crashed_pod()],
    )


def serving(**parts: Any) -> Seen:
    """At rest, with a suggestion."""
    message = "A revision made today would differ: engine version v0.7.0 → v0.8.0. Nothing changes by itself."
    plan = service()["status"]["plan"] | {"suggestion": {"id": "3f2a1b4c", "message": message}}
    plan["maxContextLength"] = 4096
    text = f"2 of 2 replicas serve revision {OLD}."
    return Seen(
        service=service(
            {**OLD_SPEC, "replicas": 2},
            plan=plan,
            revisions=service()["status"]["revisions"][:1],
            conditions=[
                condition("Accepted", "True", "Accepted", "The spec can be deployed."),
                condition("Available", "True", "PodsReady", "2 engine pods are ready."),
                condition("Progressing", "False", "Complete", f"revision {OLD}: 2 of 2 replicas are ready."),
                condition("Ready", "True", "Serving", text),
                condition("Reconciling", "False", "Settled"),
                condition("Stalled", "False", "NotStalled"),
            ],
            **parts,
        ),
        deployments=changing().deployments[:3],
        pods=changing().pods[:5],
    )


def first_release() -> Seen:
    """A service of 0.1.0: no gateway, no router, no weights."""
    status = service()["status"]
    revision = {key: value for key, value in status["revisions"][0].items() if key != "weight"}
    return Seen(
        service=service({**OLD_SPEC, "replicas": 2}, revisions=[revision], startup=None),
        deployments=[deployment("engine", OLD, 2)],
        pods=[pod("engine", OLD, "hh2mm"), pod("engine", OLD, "jj3nn")],
    )


def controller_revision(spec: Json, number: int, **metadata: Any) -> Json:
    hash_ = names.short_hash(spec)
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": names.revision_name(NAME, hash_),
            "namespace": NAMESPACE,
            "labels": labels("engine", hash_),
            "creationTimestamp": "2026-01-01T09:00:00Z",
            **metadata,
        },
        "data": {"spec": deepcopy(spec), "plan": {}, "podTemplate": {}},
        "revision": number,
    }
