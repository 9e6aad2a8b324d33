"""A complete llama model as Hugging Face stores one, with random weights, and a LoRA adapter for it.

`python -m e2e.tiny_llama FOLDER`. An engine that takes folders of safetensors loads it and answers like with any model,
but the answers are noise: they show that the plumbing works, nothing else. The same seed writes the same bytes, so that an
image made from them stays the same.

The vocabulary is that of a byte-level BPE tokenizer: special tokens, all 256 bytes, and some words. The answers are
printable ASCII and end only when they have their length: the output rows of all other tokens are zero, and some other
logit is always larger.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How large a model is, in the words of its config.json."""

    layers: int
    width: int
    heads: int
    key_heads: int
    feed_forward: int

    @property
    def head(self) -> int:
        """Width of one head."""
        return self.width // self.heads


TINY: Final = Shape(layers=2, width=128, heads=4, key_heads=2, feed_forward=256)
#: 25 million weights, 51 MB: a token takes one core some milliseconds. Those of the tiny one come faster than a client on
#: the same two cores can read them.
SMALL: Final = Shape(layers=8, width=512, heads=8, key_heads=4, feed_forward=1536)
CONTEXT: Final = 32768
#: Rank of the adapter.
RANK: Final = 8
_SPECIAL: Final = ("<s>", "</s>", "<unk>")
_WORDS: Final = ("a", "and", "are", "can", "hello", "how", "i", "is", "it", "of", "tell", "the", "to", "what", "you")
_CHAT_TEMPLATE: Final = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def write(folder: Path, *, shape: Shape = TINY, seed: int = 0) -> Path:
    """Write the model and return its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary, merges = _vocabulary()
    texts: Mapping[str, Any] = {
        "config.json": {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": len(vocabulary),
            "hidden_size": shape.width,
            "intermediate_size": shape.feed_forward,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.key_heads,
            "head_dim": shape.head,
            "hidden_act": "silu",
            "max_position_embeddings": CONTEXT,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "tie_word_embeddings": False,
            "bos_token_id": 0,
            "eos_token_id": 1,
            "torch_dtype": "bfloat16",
        },
        "generation_config.json": {"bos_token_id": 0, "eos_token_id": 1},
        "tokenizer.json": _tokenizer(vocabulary, merges),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<s>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
            "model_max_length": CONTEXT,
            "clean_up_tokenization_spaces": False,
            "chat_template": _CHAT_TEMPLATE,
        },
    }
    for name, content in texts.items():
        (folder / name).write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
    _save(folder / "model.safetensors", dict(_tensors(np.random.default_rng(seed), shape, vocabulary)))
    return folder


def write_adapter(folder: Path, *, seed: int = 1) -> Path:
    """Write an adapter that changes what the model of shape `TINY` answers, and return its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": RANK,
        "lora_alpha": 4 * RANK,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": ["q_proj", "v_proj"],
        "base_model_name_or_path": "tiny-llama",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=1))
    random = np.random.default_rng(seed)
    tensors = {}
    for layer in range(TINY.layers):
        for name, rows in (("q_proj", TINY.width), ("v_proj", TINY.key_heads * TINY.head)):
            module = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            tensors[f"{module}.lora_A.weight"] = _weights(random, RANK, TINY.width)
            tensors[f"{module}.lora_B.weight"] = _weights(random, rows, RANK)
    _save(folder / "adapter_model.safetensors", tensors)
    return folder


def _weights(random: np.random.Generator, rows: int, columns: int) -> NDArray[np.float32]:
    # Scaled so that values neither grow nor vanish from layer to layer.
    scaled: NDArray[np.float32] = (random.standard_normal((rows, columns)) / np.sqrt(columns)).astype(np.float32)
    return scaled


def _tensors(
    random: np.random.Generator, shape: Shape, vocabulary: Mapping[str, int]
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    width, keys = shape.width, shape.key_heads * shape.head
    ones = np.ones(width, dtype=np.float32)
    yield "model.embed_tokens.weight", _weights(random, len(vocabulary), width)
    for layer in range(shape.layers):
        block = f"model.layers.{layer}"
        yield f"{block}.input_layernorm.weight", ones
        yield f"{block}.self_attn.q_proj.weight", _weights(random, width, width)
        yield f"{block}.self_attn.k_proj.weight", _weights(random, keys, width)
        yield f"{block}.self_attn.v_proj.weight", _weights(random, keys, width)
        yield f"{block}.self_attn.o_proj.weight", _weights(random, width, width)
        yield f"{block}.post_attention_layernorm.weight", ones
        yield f"{block}.mlp.gate_proj.weight", _weights(random, shape.feed_forward, width)
        yield f"{block}.mlp.up_proj.weight", _weights(random, shape.feed_forward, width)
        yield f"{block}.mlp.down_proj.weight", _weights(random, width, shape.feed_forward)
    yield "model.norm.weight", ones
    out = 4 * _weights(random, len(vocabulary), width)
    printable = {letter(byte) for byte in range(ord(" "), ord("~") + 1)}
    out[[number for piece, number in vocabulary.items() if not set(piece) <= printable or piece in _SPECIAL]] = 0
    yield "lm_head.weight", out


def _save(file: Path, tensors: Mapping[str, NDArray[np.float32]]) -> None:
    """Write bfloat16 in the format of safetensors: the length of a header, the header as JSON, the numbers."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    numbers = list[bytes]()
    length = 0
    for name, values in tensors.items():
        bits = values.astype(np.float32).view(np.uint32)
        rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()
        header[name] = {
            "dtype": "BF16",
            "shape": list(values.shape),
            "data_offsets": [length, length + len(rounded)],
        }
        numbers.append(rounded)
        length += len(rounded)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write_bytes(b"".join((len(text).to_bytes(8, "little"), text, *numbers)))


def letter(byte: int) -> str:
    """How byte-level BPE writes a byte: as itself where that is visible, else as a letter from 256 on."""
    visible = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return chr(byte) if byte in visible else chr(256 + [b for b in range(256) if b not in visible].index(byte))


def _vocabulary() -> tuple[dict[str, int], list[list[str]]]:
    """Number of every token, and the pairs that are joined, the first ones first."""
    pieces = [*_SPECIAL, *(letter(byte) for byte in range(256))]
    merges = list[list[str]]()
    for word in _WORDS:
        joined = letter(ord(" "))
        for sign in word:
            if joined + sign not in pieces:
                pieces.append(joined + sign)
                merges.append([joined, sign])
            joined += sign
    return {piece: number for number, piece in enumerate(pieces)}, merges


def _tokenizer(vocabulary: Mapping[str, int], merges: list[list[str]]) -> dict[str, Any]:
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    token = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": number, "content": text, **token} for number, text in enumerate(_SPECIAL)],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": dict(vocabulary),
            "merges": merges,
        },
    }


if __name__ == "__main__":
    print(write(Path(sys.argv[1])))
