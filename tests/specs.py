"""Builders of what tests talk about: services, observations, and the world around them as an API server shows it.

Everything is plain JSON data; a builder returns new objects, so a test may change what it gets.
"""

import re
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from draftmark.api import names
from draftmark.api.inference_service import InferenceServiceSpec
from draftmark.cluster.kinds import JOBS, ROLES, child_kinds
from draftmark.decide import decide
from draftmark.decision import Decision, Manifest
from draftmark.observation import GatewayState, Observation, RevisionTraffic
from draftmark.render.gateway_config import CONFIG_FILE, MAP_FILE

Object = dict[str, Any]

#: Kinds of which a service at rest has objects. A Job that reads the facts of a model is there for a while only, and a Role
#: is a Benchmark's.
LASTING_KINDS = tuple(kind for kind in child_kinds() if kind not in (JOBS, ROLES))

#: When tests happen.
T0 = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)

NAME = "tiny"
NAMESPACE = "models"
UID = "5e9d4f0c-0000-4000-8000-000000000001"

CLAIM_URI = "pvc://weights/tiny.gguf"
HUB_URI = "hf://org/repo:Q4_K_M"

#: spec.model.architecture with every field, of no model that exists.
ARCHITECTURE: Object = {
    "architecture": "TestForCausalLM", "modelType": "test", "numHiddenLayers": 10, "hiddenSize": 64, "vocabSize": 100,
    "maxPositionEmbeddings": 1000, "numAttentionHeads": 8, "numKeyValueHeads": 4, "headDim": 16, "vHeadDim": 16,
    "numSlidingLayers": 2, "slidingWindow": 128, "swaNumAttentionHeads": 4, "swaNumKeyValueHeads": 4, "swaHeadDim": 8,
    "swaVHeadDim": 8, "numLinearLayers": 2, "linearLayerType": "mamba2", "linearNumKeyHeads": 2,
    "linearNumValueHeads": 2, "linearKeyHeadDim": 8, "linearValueHeadDim": 8, "linearConvKernelDim": 4,
    "linearStateDtype": "float32", "numLayersWithoutAttention": 1, "kvLoraRank": 8, "qLoraRank": 8,
    "qkNopeHeadDim": 8, "qkRopeHeadDim": 8, "indexNHeads": 2, "indexHeadDim": 4, "numIndexLayers": 2,
    "numMlpLayers": 4, "intermediateSize": 64, "numMoeLayers": 4, "nRoutedExperts": 8, "numExpertsPerTok": 2,
    "moeIntermediateSize": 8, "sharedExpertIntermediateSize": 8, "hasSharedExpertGate": True, "isGatedMlp": False,
    "tieWordEmbeddings": True, "hasLearnedPositions": True, "attentionBias": True, "attentionOutputBias": True,
    "mlpBias": True, "expertBias": True, "routerBias": True, "hasAttentionSinks": True, "attnOutputGate": True,
    "attentionKEqV": True, "normsPerLayer": 4, "hasNormBias": True, "qkNorm": "head", "numNextnPredictLayers": 1,
    "dtype": "float16",
    "quantizationConfig": {"quantMethod": "fp8", "bits": 8, "groupSize": 128, "parts": ["attention"]},
    "weightBytes": 100_000, "expertWeightBytes": 1000, "parameters": 50_000, "uncounted": ["vision_config"],
    "isKnownArchitecture": False, "source": "a test",
}  # fmt: skip


def spec(**parts: Any) -> Object:
    """The smallest spec, with parts of it replaced: `spec(model={"uri": …}, replicas=2)`; None removes a part."""
    whole = {"model": {"uri": CLAIM_URI}, "engine": {"name": "llama-cpp"}, "replicas": 1, **parts}
    return deepcopy({key: value for key, value in whole.items() if value is not None})


def with_field(data: Object, path: str, value: Any) -> Object:
    """A copy of the data with one field set: `with_field(spec(), "engine.env[0].name", "A")`."""
    keys = [int(key[1:-1]) if key.startswith("[") else key for key in path.replace("[", ".[").split(".")]

    def put(node: Any, keys: list[str | int]) -> Any:
        if not keys:
            return value
        first, *rest = keys
        if isinstance(first, int):
            items = list(node or ())
            items += [None] * (first + 1 - len(items))
            items[first] = put(items[first], rest)
            return items
        return {**(node or {}), first: put((node or {}).get(first), rest)}

    whole: Object = put(deepcopy(data), list(keys))
    return whole


def service(wanted: Object | None = None, *, name: str = NAME, generation: int = 1, **metadata: Any) -> Object:
    """An InferenceService as the API server has it."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": name, "namespace": NAMESPACE, "uid": UID, "generation": generation, **metadata},
        "spec": spec() if wanted is None else wanted,
    }


def observation(wanted: Object | None = None, *, status: Object | None = None, **fields: Any) -> Observation:
    """What is seen of the service; fields of Observation by their names."""
    item = fields.pop("service", None) or service(wanted)
    return Observation(service=item | ({"status": status} if status is not None else {}), **fields)


def parse(wanted: Object) -> InferenceServiceSpec:
    return InferenceServiceSpec.model_validate(wanted)


def stored(manifest: Manifest, before: Mapping[str, Any] | None = None) -> Object:
    """A child as the API server returns it after it was applied: with uid, generation, for a Service its address, and
    for a Deployment the status of one whose pods are still to come."""
    child = deepcopy(dict(manifest))
    metadata = child["metadata"]
    old = before["metadata"] if before is not None else {}
    changed = before is None or before.get("spec") != child.get("spec")
    metadata["uid"] = old.get("uid", f"uid-{child['kind']}-{metadata['name']}")
    metadata["generation"] = old.get("generation", 0) + (1 if changed else 0)
    metadata["resourceVersion"] = str(int(old.get("resourceVersion", "100")) + 1)
    if child["kind"] in ("Deployment", "Job"):
        child["status"] = deepcopy(before["status"]) if before is not None else {}
    if child["kind"] == "Service":
        child["spec"]["clusterIP"] = cluster_ip(metadata["name"])
    return child


def cluster_ip(service: str) -> str:
    """The address that the API server gives to a Service; here it follows from the name."""
    return "10.96." + ".".join(str(byte) for byte in bytes.fromhex(names.short_hash(service)[:4]))


def children(*manifests: Manifest) -> dict[str, tuple[Object, ...]]:
    """Applied manifests by kind, as an observation has them."""
    found: dict[str, tuple[Object, ...]] = {}
    for manifest in manifests:
        found[manifest["kind"]] = (*found.get(manifest["kind"], ()), stored(manifest))
    return found


def applied(decision: Decision) -> dict[str, tuple[Object, ...]]:
    """The children after a decision was carried out in an empty cluster."""
    return children(*decision.pins, *decision.desired)


def serving(deployment: Mapping[str, Any], ready: int | None = None) -> Object:
    """A Deployment whose pods are ready, all of them unless a number is given."""
    wanted = deployment["spec"]["replicas"]
    count = wanted if ready is None else ready
    status = {"observedGeneration": deployment["metadata"]["generation"], "replicas": wanted, "readyReplicas": count}
    return {**deployment, "status": status}


def running(wanted: Object | None = None, *, ready: int | None = None, **fields: Any) -> Observation:
    """A service some time after it was applied: its children are there, its pods are ready (engine pods: as many as is
    said), and its gateway works with the configuration. No request was answered yet."""
    seen = observation(wanted, **fields)
    # Once more, now that the router's Service has an address.
    for _ in range(2):
        made = applied(decide(seen, T0))
        made["Deployment"] = tuple(
            serving(d, ready if role_of(d) == names.ROLE_ENGINE else None) for d in made["Deployment"]
        )
        seen = replace(seen, children=made, **pods_of(made["Deployment"]))
    [config] = made["ConfigMap"]
    return replace(seen, gateways={p["metadata"]["name"]: gateway_state(config) for p in seen.gateway_pods})


def pods_of(deployments: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The ready pods of Deployments, by the names of Observation's fields."""
    found: dict[str, list[Object]] = {"pods": [], "router_pods": [], "gateway_pods": []}
    fields = {names.ROLE_ENGINE: "pods", names.ROLE_ROUTER: "router_pods", names.ROLE_GATEWAY: "gateway_pods"}
    for deployment in deployments:
        role, labels = role_of(deployment), deployment["metadata"]["labels"]
        found[fields[role]] += [
            ready_pod(labels.get(names.LABEL_REVISION, ""), f"{deployment['metadata']['name']}-{i}", role=role)
            for i in range(deployment["status"].get("readyReplicas") or 0)
        ]
    return {name: tuple(pods) for name, pods in found.items()}


def gateway_state(config: Mapping[str, Any], *, at: datetime = T0, since: datetime | None = None) -> GatewayState:
    """What a gateway tells that works with a ConfigMap, without any request.

    Args:
        since: When the gateway took over the configuration; None: a day before.
    """
    # The gateway over several models has no values that change without a reload.
    shape, values = config["data"][CONFIG_FILE], config["data"].get(MAP_FILE)
    [version] = re.findall(r"^  description (\w+)$", shape, re.MULTILINE)
    [runtime] = re.findall(r"^version (\w+)$", values, re.MULTILINE) if values is not None else [version]
    weights = re.findall(r"^weight\.(\w+) (\d+)$", values or "", re.MULTILINE)
    return GatewayState(
        config=version,
        runtime=runtime,
        revisions={r: RevisionTraffic(running=0, waiting=0, weight=int(weight)) for r, weight in weights},
        at=at,
        config_since=since if since is not None else at - timedelta(days=1),
    )


def role_of(item: Mapping[str, Any]) -> str:
    return str(item["metadata"]["labels"][names.LABEL_ROLE])


def revision_of(item: Mapping[str, Any]) -> str:
    return str(item["metadata"]["labels"][names.LABEL_REVISION])


def of_role(manifests: Iterable[Manifest], role: str) -> dict[str, Manifest]:
    """The Deployments of one role among manifests, by their revision (a gateway has none)."""
    return {
        str(m["metadata"]["labels"].get(names.LABEL_REVISION, "")): m
        for m in manifests
        if m["kind"] == "Deployment" and role_of(m) == role
    }


def deployments(manifests: Iterable[Manifest]) -> dict[str, Manifest]:
    """The engines' Deployments among manifests, by their revision."""
    return of_role(manifests, names.ROLE_ENGINE)


def named(manifests: Iterable[Manifest], kind: str, name: str) -> Manifest:
    """The one manifest of a kind and a name."""
    [found] = [m for m in manifests if (m["kind"], m["metadata"]["name"]) == (kind, name)]
    return found


def current(decision: Decision) -> str:
    """The revision that a decision wants."""
    return next(r.hash for r in decision.revisions if r.is_current)


# --- pods ---


def pod(
    revision: str,
    *,
    name: str = "pod-0",
    role: str = names.ROLE_ENGINE,
    state: Object | None = None,
    conditions: tuple[Object, ...] = (),
    **status: Any,
) -> Object:
    """A pod with one container in some state; without one it is still to be scheduled."""
    container = {
        "name": _CONTAINERS[role],
        "image": "example/engine:1",
        "ready": False,
        "restartCount": 0,
        **(state or {}),
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "labels": {**names.selector_labels(NAME, role), **({names.LABEL_REVISION: revision} if revision else {})},
        },
        "spec": {"containers": [{"name": _CONTAINERS[role]}]},
        "status": {
            "phase": "Pending",
            "conditions": list(conditions),
            **({"containerStatuses": [container]} if state is not None else {}),
            **status,
        },
    }


_CONTAINERS = {names.ROLE_ENGINE: "engine", names.ROLE_ROUTER: "router", names.ROLE_GATEWAY: "haproxy"}


def ready_pod(revision: str, name: str = "pod-0", *, role: str = names.ROLE_ENGINE) -> Object:
    state = {"ready": True, "state": {"running": {}}}
    conditions = ({"type": "Ready", "status": "True"},)
    return pod(revision, name=name, role=role, state=state, conditions=conditions, phase="Running", podIP="10.0.0.1")


def waiting_pod(revision: str, reason: str, message: str = "", *, role: str = names.ROLE_ENGINE) -> Object:
    return pod(revision, role=role, state={"state": {"waiting": {"reason": reason, "message": message}}})


def crashed_pod(
    revision: str,
    *,
    name: str = "pod-0",
    reason: str = "Error",
    exit_code: int = 1,
    log: str = "",
    restarts: int = 3,
) -> Object:
    ended = {"terminated": {"reason": reason, "exitCode": exit_code, "message": log}}
    state = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s restarting failed container"}}
    crashed = {"state": state, "lastState": ended, "restartCount": restarts}
    return pod(revision, name=name, state=crashed, phase="Running")


def unschedulable_pod(
    revision: str, message: str, *, name: str = "pod-0", since: datetime | None = None, reason: str = "Unschedulable"
) -> Object:
    at = {"lastTransitionTime": since.isoformat()} if since is not None else {}
    condition = {"type": "PodScheduled", "status": "False", "reason": reason, "message": message, **at}
    return pod(revision, name=name, conditions=(condition,))


def node(runtime: str = "containerd://2.4.2", *, name: str = "node-0", **fields: Any) -> Object:
    nodes = {"metadata": {"name": name}, "status": {"nodeInfo": {"containerRuntimeVersion": runtime}}}
    return {"apiVersion": "v1", "kind": "Node", **nodes, **fields}
