"""Pairs of specs of which one is accepted and the other refused, for every rule and bound of the API.

Plain data, so that the same table runs against the Python types and against a real API server. A fragment is a part
that both have in their messages, whatever the case of its letters.
"""

from dataclasses import dataclass
from typing import Any

from tests.specs import ARCHITECTURE, CLAIM_URI, HUB_URI, Object, service, spec, with_field


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Two whole objects and what is said of the second."""

    name: str
    accepted: Object
    rejected: Object
    fragment: str


def _field(path: str, good: Any, bad: Any, fragment: str, *, base: Object | None = None, name: str = "") -> Case:
    wanted = spec() if base is None else base
    return Case(
        name=name or f"{path} {fragment}",
        accepted=service(with_field(wanted, path, good)),
        rejected=service(with_field(wanted, path, bad)),
        fragment=fragment,
    )


def _named(good: str, bad: str, fragment: str) -> Case:
    return Case(
        name=f"metadata.name {bad[:20]}",
        accepted=service(name=good),
        rejected=service(name=bad),
        fragment=fragment,
    )


def _bounds(path: str, low: int, high: int, *, base: Object | None = None) -> list[Case]:
    return [
        _field(path, low, low - 1, f"should be greater than or equal to {low}", base=base),
        _field(path, high, high + 1, f"should be less than or equal to {high}", base=base),
    ]


def _items(path: str, most: int, item: Any, *, base: Object | None = None) -> Case:
    """A list at its bound; `item` is a value, or makes one from a number."""
    make = item if callable(item) else lambda _: item
    full, over = [make(i) for i in range(most)], [make(i) for i in range(most + 1)]
    return _field(path, full, over, f"at most {most} items", base=base)


def _entries(path: str, most: int, value: str, *, base: Object | None = None) -> Case:
    full, over = ({f"key-{i}": value for i in range(count)} for count in (most, most + 1))
    return _field(path, full, over, f"at most {most} items", base=base)


def _longest(path: str, most: int, *, character: str = "a", prefix: str = "", base: Object | None = None) -> Case:
    full = prefix + character * (most - len(prefix))
    # API servers call the unit of this bound bytes or characters, by their version.
    return _field(path, full, full + character, f"{most}", base=base, name=f"{path} longer than {most}")


def _duration(path: str, shortest: str, longest: str, *, too_short: str, too_long: str) -> list[Case]:
    said = f"{path} is out of bounds"
    return [
        _field(path, shortest, too_short, said, name=f"{path} too short"),
        _field(path, longest, too_long, said, name=f"{path} too long"),
        *(
            _field(path, "1m", text, _DURATION, name=f"{path} {text}")
            for text in ("90", "1.5s", "1s1m", "500ms", "-1s")
        ),
        _field(path, "0h0m10s", "s", "at least 2 char", name=f"{path} without a number"),
        _field(path, "0000h00010m000010s", "0000h00010m000010s0", _DURATION, name=f"{path} with all its digits"),
    ]


def _numbers(path: str, base: Object, low: int, bounds: dict[int, tuple[str, ...]]) -> list[Case]:
    """Fields of one lower bound, by their upper one."""
    return [
        case
        for high, fields in bounds.items()
        for field in fields
        for case in _bounds(f"{path}.{field}", low, high, base=base)
    ]


_ENV = "engine.env[0]"
_VOLUME = "podTemplate.volumes[0]"
_WITH_ENV = with_field(spec(), _ENV, {"name": "A"})
_WITH_VOLUME = with_field(spec(), _VOLUME, {"name": "v", "mountPath": "/v", "emptyDir": {}})
_WITH_CLAIM = with_field(spec(), _VOLUME, {"name": "v", "mountPath": "/v", "persistentVolumeClaim": {"claimName": "c"}})
_WITH_CONFIG = with_field(spec(), _VOLUME, {"name": "v", "mountPath": "/v", "configMap": {"name": "c"}})
_SECRET, _CONFIG = {"secretKeyRef": {"name": "s", "key": "k"}}, {"configMapKeyRef": {"name": "c", "key": "k"}}
_WITH_SECRET = with_field(_WITH_ENV, f"{_ENV}.valueFrom", _SECRET)
_WITH_CONFIG_KEY = with_field(_WITH_ENV, f"{_ENV}.valueFrom", _CONFIG)
_WITH_TOKEN = spec(model={"uri": HUB_URI, "authSecretRef": {"name": "hub", "key": "token"}})
_WITH_GPU = spec(accelerator={"product": "NVIDIA-L4"})
_HUB = spec(model={"uri": "hf://org/repo"})
_WITH_REVISION = spec(model={"uri": "hf://org/repo", "revision": "main"})
_ADAPTER = {"name": "a", "uri": "hf://org/lora"}
_WITH_ADAPTER = spec(model={"uri": "pvc://claim/folder", "adapters": [_ADAPTER]})
_SPECULATIVE = "engine.options.speculative"
_NGRAM, _EAGLE = {"method": "ngram", "tokens": 2}, {"method": "eagle", "tokens": 2, "uri": "hf://org/draft"}
_WITH_NGRAM, _WITH_EAGLE = (with_field(spec(), _SPECULATIVE, value) for value in (_NGRAM, _EAGLE))
_WITH_ARCHITECTURE = spec(model={"uri": CLAIM_URI, "architecture": ARCHITECTURE})
_ARCHITECTURE = "model.architecture"
_PRINTABLE = "[ -~]*$"
_SPREAD = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
_WITH_SPREAD = with_field(spec(), "podTemplate.topologySpread[0]", _SPREAD)
_LABEL, _NAME = "[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"
_KEY, _LABEL_VALUE = "[-._a-zA-Z0-9]+$", "[-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"
_QUANTITY = "[eEinumkKMGTP]*"
_DURATION, _COUNT = "([0-9]{1,6}s)?$", "is no number of pods"

CASES: tuple[Case, ...] = (
    # metadata
    _named("a" * 40, "a" * 41, "longer than 40 characters"),
    _named("llama-3", "3-llama", "begin with a letter"),
    _named("llama-3", "llama.3", "begin with a letter"),
    # what must be there
    Case(name="spec", accepted=service(), rejected={k: v for k, v in service().items() if k != "spec"}, fragment="required"),
    Case(name="model", accepted=service(), rejected=service(spec(model=None)), fragment="required"),
    Case(name="engine", accepted=service(), rejected=service(spec(engine=None)), fragment="required"),
    # model
    _field("model.uri", "hf://org/repo", "", "at least 1 char", name="model.uri empty"),
    _longest("model.uri", 1024, prefix="pvc://claim/"),
    _field("model.uri", "oci://host/image:1", "s3://bucket/key", "model.uri needs a scheme"),
    _field("model.uri", "https://host/m.gguf", "http://host/m.gguf", "model.uri needs a scheme", name="model.uri http"),
    _field("model.name", "org/model:Q4", "no blanks", "[A-Za-z0-9._:/-]*$"),
    _longest("model.name", 253),
    *_bounds("model.maxContextLength", 16, 16_777_216),
    _field("model.uri", HUB_URI, "https://host/m.gguf", "authSecretRef is used for hf:// models only", base=_WITH_TOKEN),
    _field("model.authSecretRef.name", "hf.token", "Token", _NAME, base=_WITH_TOKEN),
    _longest("model.authSecretRef.name", 253, base=_WITH_TOKEN),
    _field("model.authSecretRef.key", "a.b_C", "a b", _KEY, base=_WITH_TOKEN),
    _longest("model.authSecretRef.key", 253, base=_WITH_TOKEN),
    _field("model.revision", "refs/pr/1", "-x", "[A-Za-z0-9._/-]*$", base=_HUB),
    _longest("model.revision", 128, base=_HUB),
    _field("model.uri", "hf://org/repo", "pvc://claim/m", "model.revision is used for hf:// models only", base=_WITH_REVISION),
    _field("model.quantization", "compressed-tensors", "FP8", "[a-z0-9_-]*$"),
    _longest("model.quantization", 48),
    _items("model.adapters", 16, lambda i: {"name": f"a{i}", "uri": "hf://org/lora"}),
    _field("model.adapters", [_ADAPTER, {**_ADAPTER, "name": "b"}], [_ADAPTER, _ADAPTER], "duplicate value"),
    _field("model.adapters[0].name", "org/a:1", "a b", "[A-Za-z0-9._:/-]*$", base=_WITH_ADAPTER),
    _longest("model.adapters[0].name", 253, base=_WITH_ADAPTER),
    _field("model.adapters[0].uri", "pvc://claim/a", "", "at least 1 char", base=_WITH_ADAPTER),
    _longest("model.adapters[0].uri", 1024, prefix="pvc://claim/", base=_WITH_ADAPTER),
    _field("model.adapters[0].uri", "oci://image:1", "https://host/a.gguf", "an adapter's uri needs a scheme", base=_WITH_ADAPTER),
    *_bounds("model.adapters[0].rank", 1, 512, base=_WITH_ADAPTER),
    _field("model.adapters[0].uri", "hf://org/lora", "pvc://claim/a", "authSecretRef is used for hf:// models only",
           base=with_field(_WITH_ADAPTER, "model.authSecretRef", {"name": "hub", "key": "token"})),
    # model.architecture
    _field(_ARCHITECTURE, ARCHITECTURE, {k: v for k, v in ARCHITECTURE.items() if k != "headDim"}, "required"),
    *_numbers(_ARCHITECTURE, _WITH_ARCHITECTURE, 1, {
        1024: ("numHiddenLayers",), 2**20: ("hiddenSize",), 2**22: ("vocabSize",), 2**30: ("maxPositionEmbeddings",),
        4096: ("numAttentionHeads", "numKeyValueHeads"), 2**14: ("headDim", "vHeadDim"),
        2**50: ("weightBytes", "expertWeightBytes", "parameters"),
    }),
    *_numbers(_ARCHITECTURE, _WITH_ARCHITECTURE, 0, {
        1024: ("numSlidingLayers", "numLinearLayers", "numLayersWithoutAttention", "numIndexLayers", "numMlpLayers",
               "numMoeLayers", "numNextnPredictLayers"),
        2**30: ("slidingWindow",),
        4096: ("swaNumAttentionHeads", "swaNumKeyValueHeads", "linearNumKeyHeads", "linearNumValueHeads", "indexNHeads"),
        2**14: ("swaHeadDim", "swaVHeadDim", "linearKeyHeadDim", "linearValueHeadDim", "linearConvKernelDim",
                "qkNopeHeadDim", "qkRopeHeadDim", "indexHeadDim", "nRoutedExperts", "numExpertsPerTok"),
        2**20: ("kvLoraRank", "qLoraRank", "intermediateSize", "moeIntermediateSize", "sharedExpertIntermediateSize",
                "quantizationConfig.groupSize"),
        16: ("normsPerLayer",), 32: ("quantizationConfig.bits",),
    }),
    *(case for field in ("architecture", "modelType", "uncounted[0]", "quantizationConfig.quantMethod") for case in (
        _field(f"{_ARCHITECTURE}.{field}", "a b", "ä", _PRINTABLE, base=_WITH_ARCHITECTURE),
        _field(f"{_ARCHITECTURE}.{field}", "a", "", "at least 1 char", base=_WITH_ARCHITECTURE),
        _longest(f"{_ARCHITECTURE}.{field}", 96, base=_WITH_ARCHITECTURE),
    )),
    _items(f"{_ARCHITECTURE}.uncounted", 8, "a", base=_WITH_ARCHITECTURE),
    _items(f"{_ARCHITECTURE}.quantizationConfig.parts", 4, "mlp", base=_WITH_ARCHITECTURE),
    _field(f"{_ARCHITECTURE}.quantizationConfig.parts[0]", "experts", "norms", "sharedExperts", base=_WITH_ARCHITECTURE),
    _field(f"{_ARCHITECTURE}.linearLayerType", "gatedDeltaNet", "rwkv", "mamba2", base=_WITH_ARCHITECTURE),
    _field(f"{_ARCHITECTURE}.qkNorm", "projection", "rms", "head", base=_WITH_ARCHITECTURE),
    _field(f"{_ARCHITECTURE}.dtype", "bfloat16", "int8", "float8_e4m3fn", base=_WITH_ARCHITECTURE),
    _field(f"{_ARCHITECTURE}.linearStateDtype", "bfloat16", "int8", "float8_e4m3fn", base=_WITH_ARCHITECTURE),
    _field(f"{_ARCHITECTURE}.source", "a person", "ä", _PRINTABLE, base=_WITH_ARCHITECTURE),
    _longest(f"{_ARCHITECTURE}.source", 200, base=_WITH_ARCHITECTURE),
    # engine
    _field("engine.name", "llama-cpp", "ollama", "llama-cpp"),
    _field("engine.version", "b11669", "-b", "[A-Za-z0-9._+-]*$"),
    _longest("engine.version", 64),
    _field("engine.image", "host:5000/a/b@sha256:0", "a b", "[a-zA-Z0-9._:/@-]*$"),
    _longest("engine.image", 512),
    _items("engine.args", 128, "--verbose"),
    _longest("engine.args[0]", 4096),
    _items("engine.env", 64, lambda i: {"name": f"A{i}"}),
    _field("engine.env", [{"name": "A"}, {"name": "B"}], [{"name": "A"}, {"name": "A"}], "duplicate value"),
    _field(f"{_ENV}.name", "_A1", "1A", "[A-Za-z0-9_]*$", base=_WITH_ENV),
    _longest(f"{_ENV}.name", 256, base=_WITH_ENV),
    _longest(f"{_ENV}.value", 4096, base=_WITH_ENV),
    _field(f"{_ENV}.valueFrom", _SECRET, {}, "exactly one of secretKeyRef and configMapKeyRef", base=_WITH_ENV),
    _field(f"{_ENV}.valueFrom", _CONFIG, _SECRET | _CONFIG, "exactly one of secretKeyRef and configMapKeyRef",
           base=_WITH_ENV, name=f"{_ENV}.valueFrom both"),
    _field(_ENV, {"name": "A", "value": ""}, {"name": "A", "value": "", "valueFrom": _SECRET}, "either value or valueFrom"),
    _field(f"{_ENV}.valueFrom.secretKeyRef.key", "k", "a/b", _KEY, base=_WITH_SECRET),
    _field(f"{_ENV}.valueFrom.configMapKeyRef.name", "c", "C", _NAME, base=_WITH_CONFIG_KEY),
    _longest(f"{_ENV}.valueFrom.configMapKeyRef.key", 253, base=_WITH_CONFIG_KEY),
    _field("engine.resources.limits.cpu", "1500m", "much", _QUANTITY),
    _field("engine.resources.requests.memory", 1024, "1 Gi", _QUANTITY),
    _field("engine.resources.requests.cpu", 2, 0.5, "string", name="a quantity is a whole number or text"),
    _longest("engine.resources.limits.memory", 32, character="1"),
    _entries("engine.resources.limits", 16, "1"),
    _entries("engine.resources.requests", 16, "1"),
    _field("engine.options.kvCacheDType", "q8_0", "Q8", "[a-z0-9_]+$"),
    _longest("engine.options.kvCacheDType", 32),
    _field("engine.options.kvOffload", "32Gi", "much", _QUANTITY),
    _longest("engine.options.kvOffload", 32, character="1"),
    *_bounds("engine.options.apiServerCount", 1, 16),
    _field(f"{_SPECULATIVE}.method", "mtp", "guess", "draftModel", base=_WITH_NGRAM),
    *_bounds(f"{_SPECULATIVE}.tokens", 1, 32, base=_WITH_NGRAM),
    _field(f"{_SPECULATIVE}.uri", "pvc://claim/d", "", "at least 1 char", base=_WITH_EAGLE),
    _longest(f"{_SPECULATIVE}.uri", 1024, prefix="pvc://claim/", base=_WITH_EAGLE),
    _field(f"{_SPECULATIVE}.uri", "oci://image:1", "s3://bucket/d", "speculative.uri needs a scheme", base=_WITH_EAGLE),
    _field(_SPECULATIVE, _EAGLE, {**_EAGLE, "method": "mtp"}, "speculative needs a uri for"),
    _field(_SPECULATIVE, _NGRAM, {**_NGRAM, "method": "draftModel"}, "speculative needs a uri for", name=f"{_SPECULATIVE} without"),
    _field(f"{_SPECULATIVE}.revision", "v1", "", "[A-Za-z0-9._/-]*$", base=_WITH_EAGLE),
    _longest(f"{_SPECULATIVE}.revision", 128, base=_WITH_EAGLE),
    _field(f"{_SPECULATIVE}.uri", "hf://org/draft", "pvc://claim/d", "speculative.revision is used for an hf:// uri only",
           base=with_field(_WITH_EAGLE, f"{_SPECULATIVE}.revision", "v1")),
    # accelerator
    _field("accelerator", {"product": "NVIDIA-L4"}, {}, "accelerator needs product"),
    _field("accelerator", {"count": 0}, {"count": 1}, "accelerator needs product", name="accelerator.count alone"),
    _field("accelerator.product", "NVIDIA-L4", "", "at least 1 char", base=_WITH_GPU),
    _field("accelerator.product", "NVIDIA-L4", "NVIDIA L4", _LABEL_VALUE, base=_WITH_GPU),
    _longest("accelerator.product", 63, base=_WITH_GPU),
    _field("accelerator.resourceName", "amd.com/gpu", "gpu", "[A-Za-z0-9._-]+$", base=_WITH_GPU),
    _longest("accelerator.resourceName", 253, prefix="amd.com/", base=_WITH_GPU),
    *_bounds("accelerator.count", 0, 16, base=_WITH_GPU),
    _field("engine", {"name": "auto", "options": {"prefixCaching": True}}, {"name": "auto", "args": ["--verbose"]},
           "engine.version, image and args belong to one engine", base=spec(model={"uri": "hf://org/repo"})),
    _field("engine", {"name": "auto"}, {"name": "auto", "version": "1"}, "engine.version, image and args belong to one engine",
           base=spec(model={"uri": "hf://org/repo"}), name="engine auto with a version"),
    _field("engine", {"name": "auto"}, {"name": "auto", "image": "a:1"}, "engine.version, image and args belong to one engine",
           base=spec(model={"uri": "hf://org/repo"}), name="engine auto with an image"),
    # parallelism
    *_bounds("parallelism.tensor", 1, 16, base=_WITH_GPU),
    *_bounds("parallelism.pipeline", 1, 64, base=_WITH_GPU),
    *_bounds("parallelism.data", 1, 64, base=_WITH_GPU),
    _field("accelerator", {"product": "a"}, {"count": 0}, "parallelism.tensor and pipeline above 1 need GPUs",
           base=spec(accelerator={"product": "a"}, parallelism={"tensor": 2}), name="accelerator.count 0 with tensor"),
    _field("accelerator", {"product": "a"}, {"count": 0}, "parallelism.tensor and pipeline above 1 need GPUs",
           base=spec(accelerator={"product": "a"}, parallelism={"pipeline": 2}), name="accelerator.count 0 with pipeline"),
    _field("accelerator.count", 2, 3, "accelerator.count differs from parallelism.tensor",
           base=spec(accelerator={"product": "a"}, parallelism={"tensor": 2})),
    _field("accelerator.count", 4, 2, "accelerator.count differs from parallelism.tensor",
           base=spec(accelerator={"product": "a"}, parallelism={"tensor": 2, "pipeline": 2}), name="accelerator.count with pipeline"),
    # replicas, workload
    _field("workload.kind", "batch", "training", "interactive"),
    *_bounds("replicas", 0, 1000),
    *_bounds("workload.concurrency", 1, 1024),
    *_bounds("workload.inputTokens", 1, 16_777_216),
    *_bounds("workload.outputTokens", 1, 16_777_216),
    *_bounds("workload.sharedPrefixTokens", 0, 16_777_216),
    # traffic
    _field("traffic.policy", "sessionAffinity", "random", "cacheAware"),
    *_bounds("traffic.maxConcurrent", 1, 100_000),
    *_bounds("traffic.maxQueue", 0, 100_000),
    *_duration("traffic.requestTimeout", "1s", "24h", too_short="0s", too_long="24h1s"),
    *_duration("traffic.queueTimeout", "1s", "1h", too_short="0m", too_long="60m1s"),
    # rollout
    _field("rollout.strategy", "recreate", "blueGreen", "recreate"),
    _field("rollout.maxSurge", "25%", "25.5%", _COUNT),
    _field("rollout.maxSurge", 1, "1 ", _COUNT, name="rollout.maxSurge with a blank"),
    _field("rollout.maxSurge", "9999", "10000", _COUNT, name="rollout.maxSurge too many"),
    _field("rollout.maxSurge", "999%", "1000%", _COUNT, name="rollout.maxSurge too large a share"),
    _field("rollout.maxUnavailable", "1", "all", _COUNT),
    _field("rollout.maxUnavailable", 0, "00", _COUNT, name="rollout.maxUnavailable with zeros in front"),
    _field("rollout.maxSurge", 9999, 10000, _COUNT, name="rollout.maxSurge as a number too large"),
    _field("rollout.maxSurge", 0, -1, _COUNT, name="rollout.maxSurge below none", base=spec(rollout={"maxUnavailable": 1})),
    _field("rollout.maxUnavailable", 0, -1, _COUNT, name="rollout.maxUnavailable below none"),
    _field("rollout", {"maxSurge": 0, "maxUnavailable": 1}, {"maxSurge": 0, "maxUnavailable": "0%"}, "are both 0"),
    _field("rollout", {"maxUnavailable": "0%"}, {"maxSurge": "0%", "maxUnavailable": 0}, "are both 0", name="rollout of shares"),
    _field("rollout", {"maxSurge": 1}, {"maxSurge": 0}, "maxUnavailable is not set", name="rollout.maxSurge 0 alone"),
    _field("rollout", {"maxSurge": "1%"}, {"maxSurge": "0%"}, "maxUnavailable is not set", name="rollout.maxSurge 0% alone"),
    _field("rollout.whenNoCapacity", "inPlace", "panic", "inPlace"),
    *_duration("rollout.progressDeadline", "10s", "24h", too_short="9s", too_long="1440m1s"),
    *_bounds("rollout.revisionHistoryLimit", 0, 10),
    _field("rollout.accept", "0123abcd", "0123abc", "[0-9a-f]{8}$"),
    # podTemplate
    _entries("podTemplate.metadata.labels", 64, "v"),
    _field("podTemplate.metadata.labels.a", "", "-", _LABEL_VALUE),
    _longest("podTemplate.metadata.labels.a", 63),
    _entries("podTemplate.metadata.annotations", 64, "v"),
    _longest("podTemplate.metadata.annotations.a", 4096),
    _entries("podTemplate.nodeSelector", 64, "v"),
    _field("podTemplate.nodeSelector.a", "b", "b c", _LABEL_VALUE),
    _items("podTemplate.tolerations", 16, {"operator": "Exists"}),
    _longest("podTemplate.tolerations[0].key", 317),
    _field("podTemplate.tolerations[0].operator", "Equal", "In", "Exists"),
    _field("podTemplate.tolerations[0].value", "a", "a b", _LABEL_VALUE),
    _field("podTemplate.tolerations[0].effect", "NoExecute", "Never", "PreferNoSchedule"),
    *_bounds("podTemplate.tolerations[0].tolerationSeconds", 0, 2_147_483_647),
    _items("podTemplate.topologySpread", 8, _SPREAD),
    *_bounds("podTemplate.topologySpread[0].maxSkew", 1, 1000, base=_WITH_SPREAD),
    _longest("podTemplate.topologySpread[0].topologyKey", 317, base=_WITH_SPREAD),
    _field("podTemplate.topologySpread[0].whenUnsatisfiable", "ScheduleAnyway", "Maybe", "ScheduleAnyway", base=_WITH_SPREAD),
    _field("podTemplate.priorityClassName", "high", "High", _NAME),
    _field("podTemplate.runtimeClassName", "nvidia", "Nvidia", _NAME),
    _items("podTemplate.imagePullSecrets", 8, lambda i: {"name": f"s{i}"}),
    _field("podTemplate.imagePullSecrets", [{"name": "a"}, {"name": "b"}], [{"name": "a"}, {"name": "a"}], "duplicate value"),
    _field("podTemplate.imagePullSecrets[0].name", "a", "A", _NAME),
    *_bounds("podTemplate.securityContext.runAsUser", 1, 2_147_483_647),
    *_bounds("podTemplate.securityContext.runAsGroup", 1, 2_147_483_647),
    *_bounds("podTemplate.securityContext.fsGroup", 1, 2_147_483_647),
    *_bounds("podTemplate.securityContext.supplementalGroups[0]", 1, 2_147_483_647),
    _items("podTemplate.securityContext.supplementalGroups", 16, 1),
    _items("podTemplate.volumes", 16, lambda i: {"name": f"v{i}", "mountPath": f"/v{i}", "emptyDir": {}}),
    _field("podTemplate.volumes",
           [{"name": name, "mountPath": f"/{name}", "emptyDir": {}} for name in ("a", "b")],
           [{"name": "a", "mountPath": f"/{path}", "emptyDir": {}} for path in ("a", "b")], "duplicate value"),
    _field(f"{_VOLUME}.name", "v", "V", _LABEL, base=_WITH_VOLUME),
    _longest(f"{_VOLUME}.name", 63, base=_WITH_VOLUME),
    _field(f"{_VOLUME}.name", "v", "draftmark-v", "volume names that begin with draftmark-", base=_WITH_VOLUME),
    _field(f"{_VOLUME}.mountPath", "/v", "v", "^/[A-Za-z0-9._/-]*$", base=_WITH_VOLUME),
    _longest(f"{_VOLUME}.mountPath", 255, prefix="/", base=_WITH_VOLUME),
    _field(_VOLUME, {"name": "v", "mountPath": "/v", "emptyDir": {}}, {"name": "v", "mountPath": "/v"},
           "a volume needs exactly one of"),
    _field(_VOLUME, {"name": "v", "mountPath": "/v", "configMap": {"name": "c"}},
           {"name": "v", "mountPath": "/v", "configMap": {"name": "c"}, "emptyDir": {}},
           "a volume needs exactly one of", name=f"{_VOLUME} of two kinds"),
    _field(f"{_VOLUME}.emptyDir.medium", "Memory", "Disk", "Memory", base=_WITH_VOLUME),
    _field(f"{_VOLUME}.emptyDir.sizeLimit", "1Gi", "large", _QUANTITY, base=_WITH_VOLUME),
    _field(f"{_VOLUME}.persistentVolumeClaim.claimName", "c", "C", _NAME, base=_WITH_CLAIM),
    _field(f"{_VOLUME}.configMap.name", "c", "C", _NAME, base=_WITH_CONFIG),
)  # fmt: skip
