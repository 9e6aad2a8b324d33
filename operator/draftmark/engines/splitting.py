"""How models can be split, where engines have the same rule: attention heads over a tensor degree, layers over stages.

Sources: vLLM 0.33, config/model.py (verify_with_parallel_config) and models/llama.py (key-value heads are repeated where
there are fewer than GPUs); SGLang 0.5, models/llama.py, which asserts the same.
"""

from draftmark.api.model_uri import ClaimModel, HubModel, ImageModel, ModelSource, UrlModel
from draftmark.facts.models import ModelFacts

__all__ = ["is_gguf", "refuse_pipeline", "refuse_tensor"]


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
