"""Services on nodes, and what `draftmark explain` says of them: one file each in tests/golden_plans, for a reviewer to read.

Models are those of the catalogue, nodes those of `nodes`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from draftmark.api.defaults import Defaults
from draftmark.api.inference_service import InferenceServiceSpec
from draftmark.facts.model_catalogue import catalogue_facts
from draftmark.facts.models import ModelFacts, Quantization, weighed
from draftmark.facts.nodes import ClusterFacts, NodeFacts, read_node
from draftmark.facts.resource_slices import read_resource_slices, with_slices
from draftmark.plan import Plan, Unplannable
from draftmark.planner.explain import explain_text
from draftmark.planner.planner import make_plan

Json = dict[str, Any]

FOLDER: Final = Path(__file__).parents[1] / "golden_plans"

#: Product and MiB as GPU Feature Discovery labels them, and GPUs of a node.
GPUS: Final = {
    "H100": ("nvidia.com/gpu", "NVIDIA-H100-80GB-HBM3", 81_559, 8),
    "H200": ("nvidia.com/gpu", "NVIDIA-H200", 143_771, 8),
    "A100": ("nvidia.com/gpu", "NVIDIA-A100-SXM4-40GB", 40_960, 8),
    "L4": ("nvidia.com/gpu", "NVIDIA-L4", 23_034, 4),
    "T4": ("nvidia.com/gpu", "Tesla-T4", 15_360, 1),
}


def node(name: str, gpu: str, **changes: Any) -> Json:
    """A node with the GPUs of a row of `GPUS`; `cordoned`, `ready`, `taints`, `count` and `labels` say otherwise."""
    resource, product, mib, count = GPUS[gpu]
    count = changes.get("count", count)
    labels = {"nvidia.com/gpu.product": product, "nvidia.com/gpu.memory": str(mib), **changes.get("labels", {})}
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": {"unschedulable": changes.get("cordoned", False), "taints": changes.get("taints", [])},
        "status": {
            "allocatable": {"cpu": "64", "memory": "512Gi", resource: str(count)},
            "nodeInfo": {"containerRuntimeVersion": "containerd://2.2.0", "architecture": "amd64"},
            "conditions": [{"type": "Ready", "status": "True" if changes.get("ready", True) else "False"}],
        },
    }


def many(gpu: str, number: int, **changes: Any) -> list[Json]:
    return [node(f"{gpu.lower()}-{i}", gpu, **changes) for i in range(number)]


def by_claim(gpu: str, number: int) -> list[NodeFacts]:
    """Nodes whose GPUs a driver of Dynamic Resource Allocation publishes, and no device plugin offers."""
    _, product, mib, count = GPUS[gpu]
    names = [f"dra-{i}" for i in range(number)]
    devices = [
        {
            "name": f"gpu-{i}",
            "attributes": {
                "productName": {"string": product},
                "type": {"string": "gpu"},
                "uuid": {"string": f"GPU-{i}"},
            },
            "capacity": {"memory": {"value": f"{mib}Mi"}},
        }
        for i in range(count)
    ]
    slices = [
        {
            "spec": {
                "driver": "gpu.nvidia.com",
                "nodeName": n,
                "pool": {"name": n, "resourceSliceCount": 1},
                "devices": devices,
            }
        }
        for n in names
    ]
    nodes = [read_node({**CPU_ONLY, "metadata": {"name": name}}) for name in names]
    return list(with_slices(nodes, read_resource_slices(slices)))


CPU_ONLY: Final = {
    "metadata": {"name": "cpu-0"},
    "spec": {},
    "status": {"allocatable": {"cpu": "16", "memory": "64Gi"}, "conditions": [{"type": "Ready", "status": "True"}]},
}


@dataclass(frozen=True, slots=True)
class PlanCase:
    """A spec on nodes; None: nobody knows the nodes."""

    name: str
    model: str
    nodes: Iterable[Json | NodeFacts] | None = None
    engine: Json = field(default_factory=lambda: {"name": "auto"})
    #: Further fields of `model`.
    of_model: Json = field(default_factory=dict)
    parts: Json = field(default_factory=dict)
    #: The administrator's file.
    defaults: Json = field(default_factory=dict)
    #: Of the model; None: those of the catalogue.
    facts: ModelFacts | None = None

    @property
    def file(self) -> Path:
        return FOLDER / f"{self.name}.txt"

    def plan(self) -> Plan | Unplannable:
        spec = InferenceServiceSpec.model_validate(
            {"model": {"uri": self.model, **self.of_model}, "engine": self.engine, **self.parts}
        )
        read = None if self.nodes is None else [n if isinstance(n, NodeFacts) else read_node(n) for n in self.nodes]
        nodes = tuple(read) if read is not None else None
        return make_plan(
            spec,
            name="it",
            cluster=ClusterFacts(nodes=nodes),
            defaults=Defaults.model_validate(self.defaults),
            keep=None,
            model=self.facts or catalogue_facts(self.model),
        )

    def text(self) -> str:
        return explain_text("it", self.plan())


LLAMA_8B, LLAMA_70B, LLAMA_405B = (f"hf://meta-llama/Llama-3.1-{size}" for size in ("8B", "70B", "405B"))
DEEPSEEK, QWEN_7B, MIXTRAL = (
    "hf://deepseek-ai/DeepSeek-V3",
    "hf://Qwen/Qwen2.5-7B-Instruct",
    "hf://mistralai/Mixtral-8x7B-v0.1",
)
QWEN_32B, QWEN_06B = "hf://Qwen/Qwen3-32B", "hf://Qwen/Qwen3-0.6B"


def obtainable(*kinds: tuple[str, int, int | None], **more: Any) -> Json:
    """The administrator's file where nodes come by themselves: rows of `GPUS`, GPUs of a node, most nodes."""
    accelerators = [
        {"product": GPUS[gpu][1], "gpusPerNode": count, **({"nodes": most} if most is not None else {})}
        for gpu, count, most in kinds
    ]
    return {"nodeAutoscaling": {"enabled": True, "accelerators": accelerators, **more}}


L4_THEN_H100: Final = obtainable(("L4", 4, None), ("H100", 8, 4))


def gguf_of(repository: str, size: int) -> ModelFacts:
    """A model as a GGUF file of so many bytes."""
    facts = catalogue_facts(repository)
    assert facts is not None
    return weighed(replace(facts, quantization_config=Quantization(quant_method="gguf", bits=0)), weight_bytes=size)


def limited(memory: str, **engine: Any) -> Json:
    return {**engine, "resources": {"limits": {"memory": memory}}}


#: Llama 3.1 8B with four bits, as such files are: 4.58 GiB.
GGUF_8B: Final = gguf_of(LLAMA_8B, 4_920_739_232)
GGUF_URI: Final = "hf://org/llama-3.1-8b-gguf:Q4_K_M"
H100_PRODUCT: Final = {"accelerator": {"product": GPUS["H100"][1]}}
VLLM: Final = {"name": "vllm"}
EXPERTS: Final = {"parallelism": {"expert": True}}


def guessed_by(method: str, uri: str | None = None) -> Json:
    """vLLM, with something that guesses three tokens."""
    source = {"uri": uri} if uri is not None else {}
    return {"name": "vllm", "options": {"speculative": {"method": method, "tokens": 3, **source}}}


CASES: Final = (
    PlanCase("8b-on-h100", LLAMA_8B, many("H100", 1)),
    PlanCase("8b-whole-context-on-one-gpu", LLAMA_8B, many("H100", 1, count=1), VLLM, {"maxContextLength": 131_072}),
    PlanCase("8b-on-l4", LLAMA_8B, many("L4", 1)),
    PlanCase("8b-on-l4-few-requests", LLAMA_8B, many("L4", 1), parts={"workload": {"concurrency": 4}}),
    PlanCase("8b-on-one-t4", LLAMA_8B, many("T4", 1)),
    PlanCase("8b-on-h100-and-l4", LLAMA_8B, [*many("H100", 1), *many("L4", 2)]),
    PlanCase("7b-28-heads-on-l4", QWEN_7B, many("L4", 1)),
    PlanCase("7b-28-heads-tensor-8", QWEN_7B, many("H100", 1), VLLM, parts={"parallelism": {"tensor": 8}}),
    PlanCase("70b-on-h100", LLAMA_70B, many("H100", 1)),
    PlanCase("70b-fp8-on-h100", LLAMA_70B, many("H100", 1), VLLM, {"quantization": "fp8"}),
    PlanCase("70b-on-l4", LLAMA_70B, many("L4", 4)),
    PlanCase("70b-tensor-2-refused", LLAMA_70B, many("H100", 1), VLLM, parts={"parallelism": {"tensor": 2}}),
    PlanCase("70b-tensor-8-given", LLAMA_70B, many("H100", 1), VLLM, parts={"parallelism": {"tensor": 8}}),
    PlanCase("70b-pipeline-given", LLAMA_70B, many("H100", 1), VLLM, parts={"parallelism": {"tensor": 2, "pipeline": 2}}),
    PlanCase("70b-prefix-reuse", LLAMA_70B, many("H100", 1), parts={"workload": {"sharedPrefixTokens": 2048}}),
    PlanCase("70b-structured-output", LLAMA_70B, many("H100", 1), {"name": "auto", "options": {"structuredOutput": True}}),
    PlanCase("70b-offline-by-product", LLAMA_70B, None, VLLM, parts=H100_PRODUCT),
    PlanCase("70b-product-without-node", LLAMA_70B, many("L4", 1), VLLM, parts=H100_PRODUCT),
    PlanCase("70b-nodes-cordoned", LLAMA_70B, [*many("H100", 2, cordoned=True), *many("A100", 1)]),
    PlanCase("70b-nodes-tainted", LLAMA_70B, many("H100", 1, taints=[{"key": "team", "value": "a", "effect": "NoSchedule"}])),
    PlanCase("70b-long-context-refused", LLAMA_70B, many("A100", 1), of_model={"maxContextLength": 4_000_000}),
    PlanCase("405b-on-one-h100-node", LLAMA_405B, many("H100", 1)),
    PlanCase("405b-on-two-h100-nodes", LLAMA_405B, many("H100", 2)),
    PlanCase("405b-product-without-node", LLAMA_405B, many("L4", 1), VLLM, parts=H100_PRODUCT),
    PlanCase("mixtral-on-h100", MIXTRAL, many("H100", 1)),
    PlanCase("deepseek-v3-on-h200", DEEPSEEK, many("H200", 1)),
    PlanCase("deepseek-v3-whole-experts-on-h200", DEEPSEEK, many("H200", 1), parts=EXPERTS),
    PlanCase("deepseek-v3-on-h100", DEEPSEEK, many("H100", 2)),
    PlanCase("mixtral-whole-experts-on-l4-refused", MIXTRAL, many("L4", 4), {"name": "sglang"}, parts=EXPERTS),
    PlanCase("minimax-m2-on-a100", "hf://MiniMaxAI/MiniMax-M2.5", many("A100", 1)),
    PlanCase("minimax-m2-divided-refused", "hf://MiniMaxAI/MiniMax-M2.5", many("H100", 1), VLLM,
             parts={"parallelism": {"tensor": 8, "expert": False}}),
    PlanCase("8b-without-experts-refused", LLAMA_8B, many("H100", 1), parts=EXPERTS),
    PlanCase("gpt-oss-120b-on-h100", "hf://openai/gpt-oss-120b", many("H100", 1)),
    PlanCase("qwen3-next-on-h100", "hf://Qwen/Qwen3-Next-80B-A3B-Thinking", many("H100", 1)),
    PlanCase("gemma-3-27b-on-a100", "hf://google/gemma-3-27b-it", many("A100", 1)),
    PlanCase("lacking-cache-type", LLAMA_8B, many("H100", 1), {"name": "vllm", "options": {"kvCacheDType": "q8_0"}}),
    PlanCase("lacking-in-an-older-version", LLAMA_8B, many("H100", 1), {"name": "vllm", "version": "0.32.0", "options": {"kvCacheDType": "octave_k3v3"}}),
    PlanCase("lacking-quantization-of-an-engine-that-is-not-deployed", LLAMA_8B, many("H100", 1), of_model={"quantization": "eetq"}),
    PlanCase("lacking-in-the-engine-that-suits-best", LLAMA_8B, many("H100", 1), {"name": "auto", "options": {"kvCacheDType": "fp8"}}, parts={"workload": {"sharedPrefixTokens": 2048}}),
    PlanCase("lacking-in-an-engine-that-suits-less", LLAMA_8B, many("H100", 1), of_model={"quantization": "fp8"}, engine={"name": "auto", "options": {"kvCacheDType": "fp8"}}),
    PlanCase("lacking-api-servers", LLAMA_8B, many("H100", 1), {"name": "sglang", "options": {"apiServerCount": 4}}),
    PlanCase("lacking-speculation", "hf://org/repo:Q4_K_M", [CPU_ONLY], {"name": "llama-cpp", "options": {"speculative": {"method": "ngram", "tokens": 3}}}),
    PlanCase("lacking-adapters", "hf://org/repo:Q4_K_M", [CPU_ONLY], {"name": "llama-cpp"}, {"adapters": [{"name": "sql", "uri": "hf://org/sql"}]}),
    PlanCase("32b-with-a-draft-model-on-h100", QWEN_32B, many("H100", 1), guessed_by("draftModel", QWEN_06B)),
    PlanCase("32b-with-an-unknown-draft-on-h100", QWEN_32B, many("H100", 1), guessed_by("eagle3", "hf://org/eagle3")),
    PlanCase("deepseek-v3-with-mtp-on-h200", DEEPSEEK, many("H200", 1), guessed_by("mtp")),
    PlanCase("32b-with-an-indivisible-draft", QWEN_32B, many("L4", 2, count=8), guessed_by("draftModel", QWEN_7B),
             parts={"parallelism": {"tensor": 8}}),
    PlanCase("safetensors-without-gpu", LLAMA_8B, [CPU_ONLY]),
    PlanCase("gguf-without-gpu", "hf://org/repo:Q4_K_M", [CPU_ONLY]),
    PlanCase("8b-obtainable-without-gpus", LLAMA_8B, [CPU_ONLY], defaults=L4_THEN_H100),
    PlanCase("70b-obtainable-beside-l4", LLAMA_70B, many("L4", 1), defaults=L4_THEN_H100),
    PlanCase("70b-present-before-obtainable", LLAMA_70B, many("H200", 1), defaults=L4_THEN_H100),
    PlanCase("70b-obtainable-by-product", LLAMA_70B, many("L4", 1), VLLM, parts=H100_PRODUCT, defaults=L4_THEN_H100),
    PlanCase("70b-obtainable-too-small", LLAMA_70B, [CPU_ONLY], defaults=obtainable(("L4", 4, 1))),
    PlanCase("gguf-before-a-node-is-ordered", "hf://org/repo:Q4_K_M", [CPU_ONLY], defaults=L4_THEN_H100),
    PlanCase("8b-gpus-by-claim-only", LLAMA_8B, [*by_claim("H100", 2), CPU_ONLY]),
    PlanCase("70b-gpus-by-claim-beside-l4", LLAMA_70B, [*by_claim("H100", 1), *many("L4", 1)]),
    PlanCase("8b-product-by-claim-only", LLAMA_8B, by_claim("H100", 1), VLLM, parts=H100_PRODUCT),
    PlanCase("gguf-beside-gpus-by-claim", "hf://org/repo:Q4_K_M", by_claim("H100", 1)),
    PlanCase("8b-gguf-on-cpu", GGUF_URI, [CPU_ONLY], limited("8Gi", name="auto"), facts=GGUF_8B),
    PlanCase("8b-gguf-on-cpu-refused", GGUF_URI, [CPU_ONLY], limited("8Gi", name="llama-cpp"), {"maxContextLength": 16_384}, facts=GGUF_8B),
    PlanCase("8b-gguf-on-cpu-without-limit", GGUF_URI, [CPU_ONLY], facts=GGUF_8B),
    PlanCase("8b-vllm-on-cpu", LLAMA_8B, [CPU_ONLY], limited("64Gi", name="vllm")),
    PlanCase("8b-vllm-on-cpu-refused", LLAMA_8B, [CPU_ONLY], limited("16Gi", name="vllm")),
    PlanCase("unknown-model-by-product", "hf://org/unknown", many("H100", 1), VLLM, parts=H100_PRODUCT),
    PlanCase("unknown-model-auto", "hf://org/unknown", many("H100", 1)),
)  # fmt: skip
