"""Beginnings of a model's files, made up."""

import json
import struct
from typing import Any

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": 4, "hidden_size": 64,
    "intermediate_size": 128, "num_attention_heads": 8, "num_key_value_heads": 2, "vocab_size": 100,
    "max_position_embeddings": 512,
}  # fmt: skip


def config(**changes: object) -> bytes:
    return json.dumps({**CONFIG, **changes}).encode()


def index(total: object = 123_456) -> bytes:
    return json.dumps({"metadata": {"total_size": total}, "weight_map": {"a": "model-00001.safetensors"}}).encode()


def safetensors(*tensors: tuple[str, int], padding: int = 0) -> bytes:
    """A file of bf16 tensors, each with so many elements; its weights are missing."""
    header: dict[str, Any] = {"__metadata__": {"pad": " " * padding}}
    end = 0
    for name, elements in tensors:
        header[name] = {"dtype": "BF16", "shape": [elements], "data_offsets": [end, end + 2 * elements]}
        end += 2 * elements
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text
