"""How models can be split, where engines have the same rule: attention heads over a tensor degree, layers over stages,
experts over the GPUs of a stage.

Sources: vLLM 0.33, config/model.py (verify_with_parallel_config) and models/llama.py (key-value heads are repeated where
there are fewer than GPUs), layers/fused_moe/expert_map_manager.py (experts that do not divide: some GPUs have one more);
SGLang 0.5, models/llama.py, which asserts the same of heads, and layers/moe/fused_moe_triton/layer.py, which asserts that
experts divide.
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


def refuse_experts(facts: ModelFacts, tensor: int, *, must_divide: bool) -> str | None:
    """Why the experts cannot be spread over the GPUs of a stage, or None.

    Args:
        must_divide: Whether the engine demands as many experts on each GPU.
    """
    experts = facts.n_routed_experts
    if not experts:
        return "there are no experts to spread"
    if tensor == 1:
        return "experts are spread over the GPUs of tensor, and there is one"
    if must_divide and experts % tensor:
        return f"{experts} experts of a layer are not divisible by tensor {tensor}"
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
