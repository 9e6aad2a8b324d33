"""How models can be split, where engines have the same rule: attention heads over a tensor degree, layers over stages,
experts over the GPUs of a stage.

Sources: vLLM 0.33, config/model.py (verify_with_parallel_config) and models/llama.py (key-value heads are repeated where
there are fewer than GPUs), layers/fused_moe/expert_map_manager.py (experts that do not divide: some GPUs have one more);
SGLang 0.5, models/llama.py, which asserts the same of heads, and layers/moe/fused_moe_triton/layer.py, which asserts that
experts divide. Blocks of fp8: SGLang 0.5, layers/quantization/fp8.py; vLLM's guide to MiniMax-M2, "pure TP8 is not supported",
and its own error, "is not divisible by weight quantization block_n" (vLLM issue 17569).
"""

from draftmark.api.model_uri import ClaimModel, HubModel, ImageModel, ModelSource, UrlModel
from draftmark.facts.models import ModelFacts

__all__ = ["is_gguf", "refuse_experts", "refuse_pipeline", "refuse_tensor"]


def refuse_tensor(facts: ModelFacts, tensor: int) -> str | None:
    """Why a tensor degree does not divide the model, or None."""
    heads, kv_heads = facts.num_attention_heads, facts.num_key_value_heads
    if heads % tensor:
        return f"{heads} attention heads are not divisible by tensor {tensor}"
    if not facts.is_mla and kv_heads % tensor and tensor % kv_heads:
        return f"{kv_heads} key-value heads neither divide tensor {tensor} nor are divided by it"
    if facts.n_routed_experts and tensor > facts.n_routed_experts:
        return f"tensor {tensor} is more than the {facts.n_routed_experts} experts of a layer"
    return None


def refuse_pipeline(facts: ModelFacts, pipeline: int) -> str | None:
    """Why the model has fewer layers than stages, or None."""
    layers = facts.num_hidden_layers
    return f"{layers} layers are fewer than {pipeline} stages" if pipeline > layers else None


def refuse_experts(facts: ModelFacts, tensor: int, *, expert: bool, must_divide: bool) -> str | None:
    """Why the experts cannot be shared among the GPUs of a stage, or None.

    Args:
        expert: Whether each is whole on one of them; else each is divided among all.
        must_divide: Whether the engine demands as many whole experts on each GPU.
    """
    experts = facts.n_routed_experts
    if not expert:
        return _refuse_cut_blocks(facts, tensor)
    if not experts:
        return "there are no experts to spread"
    if tensor == 1:
        return "experts are spread over the GPUs of tensor, and there is one"
    if must_divide and experts % tensor:
        return f"{experts} experts of a layer are not divisible by tensor {tensor}"
    return None


def _refuse_cut_blocks(facts: ModelFacts, tensor: int) -> str | None:
    """Experts in blocks of fp8 are divided between blocks, and never through one."""
    size, quantization = facts.moe_intermediate_size, facts.quantization_config
    if not facts.num_moe_layers or quantization is None or "experts" not in quantization.parts:
        return None
    block = quantization.group_size if quantization.quant_method == "fp8" else 0
    if block and tensor > 1 and size % (tensor * block):
        return f"experts of {size} cannot be divided by tensor {tensor} into whole blocks of {block} weights of fp8"
    return None


def is_gguf(source: ModelSource) -> bool:
    """Whether a model is a GGUF file, as far as its URI says so."""
    match source:
        case UrlModel():
            return True
        case HubModel(quantization=quantization, file=file):
            return quantization is not None or (file or "").endswith(".gguf")
        case ClaimModel(path=path):
            return path.endswith(".gguf")
        case ImageModel(path=path):
            return (path or "").endswith(".gguf")
