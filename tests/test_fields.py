"""Every field of an InferenceService does something: change it, and what the operator would do changes."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from draftmark.api import names
from draftmark.decide import decide
from draftmark.decision import Decision
from draftmark.facts.model_json import facts_to_json
from draftmark.facts.pods import is_ready
from tests.schemas import spec_leaves
from tests.simulation import HANGS, Edit, Reconcile, Rest, World, empty_world, minutes, simulate
from tests.specs import (
    ARCHITECTURE,
    CLAIM_URI,
    HUB_URI,
    NAME,
    T0,
    Object,
    current,
    deployments,
    named,
    observation,
    of_role,
    spec,
    unschedulable_pod,
    with_field,
)


def _pod(decision: Decision) -> Any:
    return deployments(decision.desired)[current(decision)]["spec"]["template"]


def _container(decision: Decision) -> Any:
    return _pod(decision)["spec"]["containers"][0]


def args(*words: str) -> Callable[[Decision], bool]:
    def follow(decision: Decision) -> bool:
        argv = _container(decision)["args"]
        return any(argv[i : i + len(words)] == list(words) for i in range(len(argv)))

    return follow


def container(field: str, value: Any) -> Callable[[Decision], bool]:
    return lambda decision: bool(_container(decision).get(field) == value)


def pod_spec(field: str, value: Any) -> Callable[[Decision], bool]:
    return lambda decision: bool(_pod(decision)["spec"].get(field) == value)


def env(item: Object) -> Callable[[Decision], bool]:
    return lambda decision: item in _container(decision)["env"]


def volume(item: Object) -> Callable[[Decision], bool]:
    return lambda decision: item in _pod(decision)["spec"]["volumes"]


def mount(item: Object) -> Callable[[Decision], bool]:
    return lambda decision: item in _container(decision)["volumeMounts"]


def security(field: str, value: Any) -> Callable[[Decision], bool]:
    return lambda decision: bool(_pod(decision)["spec"]["securityContext"].get(field) == value)


def selects(key: str, value: str) -> Callable[[Decision], bool]:
    return lambda decision: _pod(decision)["spec"].get("nodeSelector", {}).get(key) == value


def gpus(resource: str, count: str) -> Callable[[Decision], bool]:
    return lambda decision: _container(decision)["resources"]["limits"].get(resource) == count


def tolerates(**fields: Any) -> Callable[[Decision], bool]:
    return lambda decision: any(fields.items() <= t.items() for t in _pod(decision)["spec"]["tolerations"])


def spreads(**fields: Any) -> Callable[[Decision], bool]:
    return lambda decision: fields.items() <= _pod(decision)["spec"]["topologySpreadConstraints"][0].items()


def metadata(part: str, key: str, value: str) -> Callable[[Decision], bool]:
    return lambda decision: _pod(decision)["metadata"][part].get(key) == value


def router_args(*words: str) -> Callable[[Decision], bool]:
    def follow(decision: Decision) -> bool:
        [router] = of_role(decision.desired, names.ROLE_ROUTER).values()
        argv = router["spec"]["template"]["spec"]["containers"][0]["args"]
        return any(argv[i : i + len(words)] == list(words) for i in range(len(argv)))

    return follow


def gateway_says(file: str, words: str) -> Callable[[Decision], bool]:
    config = names.gateway_name(NAME)
    return lambda decision: words in named(decision.desired, "ConfigMap", config)["data"][file]


@dataclass(frozen=True, slots=True)
class Change:
    """One field, what it is set to, and what must be so afterwards and not before."""

    #: As in the schema, with an index or a key for `[]` and `{}`.
    path: str
    value: Any
    follows: Callable[[Decision], bool]
    #: Spec before the change; the field may be in it with another value.
    base: Object | None = None

    @property
    def schema_path(self) -> str:
        path = self.path.replace("[0]", "[]")
        for parent in ("requests", "limits", "labels", "annotations", "nodeSelector"):
            head, found, _ = path.partition(f".{parent}.")
            path = f"{head}.{parent}{{}}" if found else path
        return path


REVISION = current(decide(observation(), T0))
HUB = spec(model={"uri": HUB_URI, "authSecretRef": {"name": "hub", "key": "token"}})
GPU = spec(accelerator={"product": "NVIDIA-L4", "resourceName": "nvidia.com/gpu", "count": 1})
ENV = spec(engine={"name": "llama-cpp", "env": [{"name": "A", "value": "1"}]})
SECRET = {"secretKeyRef": {"name": "s", "key": "k"}}
CONFIG = {"configMapKeyRef": {"name": "c", "key": "k"}}
ENV_SECRET = with_field(spec(), "engine.env", [{"name": "A", "valueFrom": SECRET}])
ENV_CONFIG = with_field(spec(), "engine.env", [{"name": "A", "valueFrom": CONFIG}])
SPREAD = with_field(
    spec(), "podTemplate.topologySpread",
    [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
)  # fmt: skip


def with_volume(**source: Any) -> Object:
    return with_field(spec(), "podTemplate.volumes", [{"name": "v", "mountPath": "/v", **source}])


VLLM = spec(model={"uri": "hf://org/repo"}, engine={"name": "vllm"})
VLLM_GPU = {**VLLM, "accelerator": {"product": "NVIDIA-L4"}}
VLLM_8B = {
    **VLLM,
    "model": {"uri": "hf://meta-llama/Llama-3.1-8B", "maxContextLength": 8192},
    "accelerator": {"product": "NVIDIA-H100-80GB-HBM3"},
}
AUTO_8B = {**VLLM_8B, "engine": {"name": "auto"}}
VLLM_LORA = with_field(VLLM, "model.adapters", [{"name": "a", "uri": "hf://org/lora"}])
GUESS = "engine.options.speculative"
VLLM_NGRAM = with_field(VLLM, GUESS, {"method": "mtp", "tokens": 2})
VLLM_EAGLE = with_field(VLLM, GUESS, {"method": "eagle", "tokens": 2, "uri": "hf://org/draft"})


def must_hold(tokens: int) -> Callable[[Decision], bool]:
    """The cache that must fit, of Llama-3.1-8B."""
    needed = tokens * 131_072
    return lambda d: d.plan is not None and d.plan.memory is not None and d.plan.memory.kv_needed_bytes == needed


def adapter(**fields: Any) -> str:
    return json.dumps({"base_model_name": "tiny", "name": "a", "path": "org/lora", **fields}, separators=(",", ":"))


def guesses(**fields: Any) -> Callable[[Decision], bool]:
    config = json.dumps(fields, separators=(",", ":"), sort_keys=True)
    return args("--speculative-config", config)


TOLERATION = with_field(spec(), "podTemplate.tolerations", [{"key": "a", "operator": "Equal", "value": "b"}])


def known(path: str, value: Any) -> Callable[[Decision], bool]:
    """What is known of the model follows what is written of it."""

    def follow(decision: Decision) -> bool:
        assert decision.model is not None
        node = json.loads(facts_to_json(decision.model))
        for step in path.split("."):
            node = node.get(step)
        return bool(node == value)

    return follow


WRITTEN = spec(model={"uri": CLAIM_URI, "architecture": ARCHITECTURE})
#: Other values than in `ARCHITECTURE` that fit it as well, where it is not the next number or the other truth.
OTHERWISE: Object = {
    "numAttentionHeads": 16, "numKeyValueHeads": 2, "linearLayerType": "gatedDeltaNet", "linearStateDtype": "bfloat16",
    "dtype": "float32", "qkNorm": "projection", "modelType": "other", "architecture": "OtherForCausalLM",
    "source": "another test", "numLayersWithoutAttention": 2, "isGatedMlp": None, "isKnownArchitecture": None,
}  # fmt: skip


def architecture_changes() -> Iterator[Change]:
    written: Object = {k: v for k, v in ARCHITECTURE.items() if k not in ("uncounted", "quantizationConfig")}
    for field, before in written.items():
        after = OTHERWISE[field] if field in OTHERWISE else not before if isinstance(before, bool) else before + 1
        # A default leaves no trace where facts are written down.
        shown = None if after is False else after
        yield Change(f"model.architecture.{field}", after, known(field, shown), WRITTEN)
    quantization = "quantizationConfig"
    for field, value in (("quantMethod", "int8"), ("bits", 4), ("groupSize", 64), ("parts[0]", "mlp")):
        shown = ["mlp"] if field == "parts[0]" else value
        follows = known(f"{quantization}.{field.removesuffix('[0]')}", shown)
        yield Change(f"model.architecture.{quantization}.{field}", value, follows, WRITTEN)
    yield Change("model.architecture.uncounted[0]", "audio", known("uncounted", ["audio"]), WRITTEN)


CHANGES = [
    *architecture_changes(),
    Change("model.uri", "pvc://weights/other.gguf", args("--model", "/models/other.gguf")),
    Change("model.name", "served/as:this", args("--alias", "served/as:this")),
    Change("model.maxContextLength", 8192, args("--ctx-size", str(4 * 8192))),
    Change("model.authSecretRef.name", "other", env({"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "other", "key": "token"}}}), HUB),
    Change("model.authSecretRef.key", "other", env({"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "other"}}}), HUB),
    Change("engine.name", "no-such-engine", lambda d: d.refused is not None and d.refused.code == "UnknownEngine"),
    Change("engine.version", "b1", lambda d: str(_container(d)["image"]).endswith("-b1")),
    Change("engine.image", "example.com/other:1", container("image", "example.com/other:1")),
    Change("engine.args[0]", "--verbose", args("--verbose")),
    Change("engine.env[0].name", "B", env({"name": "B", "value": "1"}), ENV),
    Change("engine.env[0].value", "2", env({"name": "A", "value": "2"}), ENV),
    Change("engine.env[0].valueFrom.secretKeyRef.name", "x", env({"name": "A", "valueFrom": {"secretKeyRef": {"name": "x", "key": "k"}}}), ENV_SECRET),
    Change("engine.env[0].valueFrom.secretKeyRef.key", "x", env({"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "x"}}}), ENV_SECRET),
    Change("engine.env[0].valueFrom.configMapKeyRef.name", "x", env({"name": "A", "valueFrom": {"configMapKeyRef": {"name": "x", "key": "k"}}}), ENV_CONFIG),
    Change("engine.env[0].valueFrom.configMapKeyRef.key", "x", env({"name": "A", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "x"}}}), ENV_CONFIG),
    Change("engine.resources.requests.memory", "2Gi", container("resources", {"requests": {"memory": "2Gi"}})),
    Change("engine.resources.limits.memory", "2Gi", container("resources", {"limits": {"memory": "2Gi"}})),
    Change("engine.resources.limits.cpu", "1500m", args("--threads", "2")),
    Change("engine.options.prefixCaching", False, args("--no-cache-prompt")),
    Change("engine.options.kvCacheDType", "q8_0", args("--cache-type-k", "q8_0", "--cache-type-v", "q8_0")),
    Change("model.revision", "v1", args("--revision", "v1"), VLLM),
    Change("model.quantization", "fp8", args("--quantization", "fp8"), VLLM),
    Change("model.adapters[0].name", "b", args("--lora-modules", adapter(name="b")), VLLM_LORA),
    Change("model.adapters[0].uri", "hf://org/b", args("--lora-modules", adapter(path="org/b")), VLLM_LORA),
    Change("model.adapters[0].rank", 33, args("--max-lora-rank", "64"), VLLM_LORA),
    Change("engine.options.chunkedPrefill", False, args("--no-enable-chunked-prefill"), VLLM),
    Change("engine.options.structuredOutput", True, args("--structured-outputs-config", '{"backend":"auto"}'), VLLM),
    Change("engine.options.kvOffload", "2Gi", args("--kv-offloading-size", "2"), VLLM_GPU),
    Change("engine.options.apiServerCount", 2, args("--api-server-count", "2"), VLLM),
    Change(f"{GUESS}.method", "ngram", guesses(method="ngram", num_speculative_tokens=2, prompt_lookup_max=5, prompt_lookup_min=5), VLLM_NGRAM),
    Change(f"{GUESS}.tokens", 3, guesses(method="mtp", num_speculative_tokens=3), VLLM_NGRAM),
    Change(f"{GUESS}.uri", "hf://o/d", guesses(method="eagle", num_speculative_tokens=2, model="o/d"), VLLM_EAGLE),
    Change(f"{GUESS}.revision", "v1", guesses(method="eagle", num_speculative_tokens=2, model="org/draft", revision="v1"), VLLM_EAGLE),
    Change("parallelism.tensor", 2, args("--tensor-parallel-size", "2"), VLLM_GPU),
    Change("parallelism.tensor", 2, gpus("nvidia.com/gpu", "2"), VLLM_GPU),
    Change("parallelism.pipeline", 2, args("--pipeline-parallel-size", "2"), VLLM_GPU),
    Change("parallelism.data", 2, lambda d: d.refused is not None and "set replicas: 2" in d.refused.message, VLLM_GPU),
    Change("parallelism.expert", True, args("--enable-expert-parallel"), with_field(VLLM_GPU, "parallelism.tensor", 2)),
    Change("workload.inputTokens", 8000, must_hold(8192 + 16 * 8000), VLLM_8B),
    Change("workload.outputTokens", 8000, must_hold(8192 + 16 * 8000), VLLM_8B),
    Change("workload.sharedPrefixTokens", 1000, lambda d: d.plan is not None and d.plan.engine == "sglang", AUTO_8B),
    Change("workload.kind", "interactive", args("--max-num-seqs", "64"), VLLM_GPU),
    Change("workload.kind", "batch", args("--max-num-batched-tokens", "16384"), VLLM_GPU),
    Change("accelerator.product", "NVIDIA-H100-80GB-HBM3", selects("nvidia.com/gpu.product", "NVIDIA-H100-80GB-HBM3"), GPU),
    Change("accelerator.resourceName", "amd.com/gpu", gpus("amd.com/gpu", "1"), GPU),
    Change("accelerator.count", 2, gpus("nvidia.com/gpu", "2"), GPU),
    Change("replicas", 3, lambda d: deployments(d.desired)[current(d)]["spec"]["replicas"] == 3),
    Change("workload.concurrency", 8, args("--parallel", "8")),
    Change("paused", True, lambda d: d.is_paused and not (d.pins or d.desired or d.prune or d.prove)),
    Change("traffic.policy", "leastLoad", router_args("--policy", "power_of_two")),
    Change("traffic.requestTimeout", "1h1m1s", router_args("--request-timeout-secs", "3661")),
    Change("traffic.requestTimeout", "1h", gateway_says("haproxy.cfg", "timeout client 3615s")),
    Change("traffic.requestTimeout", "1h", pod_spec("terminationGracePeriodSeconds", 3630)),
    Change("traffic.maxConcurrent", 7, gateway_says("limits.cfg", "default-server maxconn 7\n")),
    Change("traffic.maxQueue", 7, gateway_says("weights.map", f"room.{REVISION} 11\n")),
    Change("traffic.queueTimeout", "7s", gateway_says("haproxy.cfg", "for this request within 7 s")),
    Change("podTemplate.metadata.labels.team", "x", metadata("labels", "team", "x")),
    Change("podTemplate.metadata.annotations.note", "x", metadata("annotations", "note", "x")),
    Change("podTemplate.nodeSelector.disk", "ssd", pod_spec("nodeSelector", {"disk": "ssd"})),
    Change("podTemplate.tolerations[0].key", "c", tolerates(key="c"), TOLERATION),
    Change("podTemplate.tolerations[0].operator", "Exists", tolerates(operator="Exists"), TOLERATION),
    Change("podTemplate.tolerations[0].value", "c", tolerates(value="c"), TOLERATION),
    Change("podTemplate.tolerations[0].effect", "NoExecute", tolerates(effect="NoExecute"), TOLERATION),
    Change("podTemplate.tolerations[0].tolerationSeconds", 5, tolerates(tolerationSeconds=5), TOLERATION),
    Change("podTemplate.affinity", {"podAffinity": {}}, pod_spec("affinity", {"podAffinity": {}})),
    Change("podTemplate.topologySpread[0].maxSkew", 2, spreads(maxSkew=2), SPREAD),
    Change("podTemplate.topologySpread[0].topologyKey", "host", spreads(topologyKey="host"), SPREAD),
    Change("podTemplate.topologySpread[0].whenUnsatisfiable", "ScheduleAnyway", spreads(whenUnsatisfiable="ScheduleAnyway"), SPREAD),
    Change("podTemplate.priorityClassName", "high", pod_spec("priorityClassName", "high")),
    Change("podTemplate.runtimeClassName", "nvidia", pod_spec("runtimeClassName", "nvidia")),
    Change("podTemplate.imagePullSecrets[0].name", "pull", pod_spec("imagePullSecrets", [{"name": "pull"}])),
    Change("podTemplate.securityContext.runAsUser", 1234, security("runAsUser", 1234)),
    Change("podTemplate.securityContext.runAsGroup", 1234, security("runAsGroup", 1234)),
    Change("podTemplate.securityContext.fsGroup", 1234, security("fsGroup", 1234)),
    Change("podTemplate.securityContext.supplementalGroups[0]", 1234, security("supplementalGroups", [1234])),
    Change("podTemplate.volumes[0].name", "w", volume({"name": "w", "emptyDir": {}}), with_volume(emptyDir={})),
    Change("podTemplate.volumes[0].mountPath", "/w", mount({"name": "v", "mountPath": "/w"}), with_volume(emptyDir={})),
    Change("podTemplate.volumes[0].emptyDir.medium", "Memory", volume({"name": "v", "emptyDir": {"medium": "Memory"}}), with_volume(emptyDir={})),
    Change("podTemplate.volumes[0].emptyDir.sizeLimit", "1Gi", volume({"name": "v", "emptyDir": {"sizeLimit": "1Gi"}}), with_volume(emptyDir={})),
    Change("podTemplate.volumes[0].persistentVolumeClaim.claimName", "d", volume({"name": "v", "persistentVolumeClaim": {"claimName": "d"}}), with_volume(persistentVolumeClaim={"claimName": "c"})),
    Change("podTemplate.volumes[0].persistentVolumeClaim.readOnly", True, volume({"name": "v", "persistentVolumeClaim": {"claimName": "c", "readOnly": True}}), with_volume(persistentVolumeClaim={"claimName": "c"})),
    Change("podTemplate.volumes[0].configMap.name", "d", volume({"name": "v", "configMap": {"name": "d"}}), with_volume(configMap={"name": "c"})),
]  # fmt: skip

#: Fields whose tests are in machines/test_revisions.py.
ELSEWHERE = {"rollout.accept"}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: f"{change.path} {change.value}"[:60])
def test_a_changed_field_changes_what_is_done(change: Change) -> None:
    base = spec() if change.base is None else change.base
    before = decide(observation(base), T0)
    after = decide(observation(with_field(base, change.path, change.value)), T0)
    assert before.refused is None
    assert not change.follows(before)
    assert change.follows(after)


# --- what only an edit shows ---


def edited(rollout: Object, model: str = "other") -> World:
    """Two replicas, some minutes after another name was asked for."""
    world = simulate(empty_world(spec(replicas=2)), Rest())
    world.wanted.clear()
    wanted = spec(replicas=2, model={"uri": CLAIM_URI, "name": model}, rollout=rollout)
    return simulate(world, Edit(wanted), *minutes(8), Reconcile())


def most_pods(rollout: Object) -> int:
    return max(edited(rollout).wanted)


def stopped_at_once(rollout: Object) -> int:
    wanted = spec(replicas=2, model={"uri": CLAIM_URI, "name": "other"}, rollout=rollout)
    world = simulate(empty_world(spec(replicas=2)), Rest(), Edit(wanted), Reconcile())
    return 2 - int(world.deployments[REVISION]["spec"]["replicas"])


def stopped_to_make_room(rollout: Object) -> int:
    seen = edited(rollout, model=HANGS).observe()
    hung = next(p["metadata"]["labels"][names.LABEL_REVISION] for p in seen.pods if not is_ready(p))
    pods = (*(p for p in seen.pods if is_ready(p)), unschedulable_pod(hung, "no node"))
    return 2 - int(deployments(decide(replace(seen, pods=pods), T0).desired)[REVISION]["spec"]["replicas"])


def is_withdrawn(rollout: Object) -> bool:
    return "Failed" in {r["phase"] for r in edited(rollout, model=HANGS).item["status"]["revisions"]}


def pins(rollout: Object) -> int:
    return sum(kind == "ControllerRevision" for kind, _ in simulate(edited(rollout), Rest()).children)


#: A field, its value, what shows it, and that without the field and with it; the other fields are there both times.
ROLLOUTS: list[tuple[str, Any, Callable[[Object], object], object, object, Object]] = [
    ("strategy", "recreate", most_pods, 3, 2, {}),
    ("maxSurge", "100%", most_pods, 3, 4, {}),
    ("maxSurge", 0, most_pods, 3, 2, {"maxUnavailable": 1}),
    ("maxUnavailable", "50%", stopped_at_once, 0, 1, {}),
    ("whenNoCapacity", "inPlace", stopped_to_make_room, 0, 1, {}),
    ("progressDeadline", "1m", is_withdrawn, False, True, {}),
    ("revisionHistoryLimit", 0, pins, 2, 1, {}),
]


@pytest.mark.parametrize(("field", "value", "told", "before", "after", "base"), ROLLOUTS, ids=lambda x: str(x)[:20])
def test_a_changed_field_changes_the_way_of_an_edit(
    field: str, value: Any, told: Callable[[Object], object], before: object, after: object, base: Object
) -> None:
    assert told(base) == before
    assert told({**base, field: value}) == after


def test_every_field_of_the_schema_is_in_the_table() -> None:
    in_an_edit = {f"rollout.{field}" for field, *_ in ROLLOUTS}
    assert {change.schema_path for change in CHANGES} | in_an_edit | ELSEWHERE == spec_leaves()
