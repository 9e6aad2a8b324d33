"""A complete llama model of 2 MB with random weights, where no real model can be fetched.

`python -m e2e.tiny_gguf FILE`. The server loads it and answers like with any
model, but the answers are noise: it shows that the plumbing works and how long
it takes, nothing else. The same seed writes the same bytes, so that an image
or a cache key made from them stays the same.

The vocabulary is that of a SentencePiece ("llama") tokenizer: control tokens,
all 256 bytes, so that any text can be encoded, printable ASCII, and some words.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

from e2e.tiny_llama import letter

CONTEXT = 8192
_WORDS = ("a", "and", "are", "can", "hello", "how", "i", "is", "it", "of", "tell", "the", "to", "what", "you")
#: SentencePiece writes a space as this character.
_SPACE = "\u2581"
_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How large the model is. By itself it is as small as can be."""

    layers: int = 2
    width: int = 128
    heads: int = 4
    feed_forward: int = 256


def write(path: Path, *, seed: int = 0, shape: Shape | None = None) -> Path:
    """Write the model and return its path."""
    shape = shape or Shape()
    pieces = list(_pieces())
    out = gguf.GGUFWriter(str(path), "llama")
    out.add_name("tiny-random-llama")
    out.add_license("CC0-1.0")
    out.add_context_length(CONTEXT)
    out.add_embedding_length(shape.width)
    out.add_block_count(shape.layers)
    out.add_feed_forward_length(shape.feed_forward)
    out.add_head_count(shape.heads)
    out.add_head_count_kv(shape.heads)
    out.add_rope_dimension_count(shape.width // shape.heads)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_vocab_size(len(pieces))
    out.add_file_type(gguf.LlamaFileType.ALL_F32)
    out.add_tokenizer_model("llama")
    out.add_token_list([text.encode() for text, _, _ in pieces])
    out.add_token_scores([score for _, score, _ in pieces])
    out.add_token_types([kind for _, _, kind in pieces])
    out.add_unk_token_id(0)
    out.add_bos_token_id(1)
    out.add_eos_token_id(2)
    out.add_add_bos_token(True)
    out.add_add_eos_token(False)
    out.add_chat_template(_CHAT_TEMPLATE)
    for name, tensor in _tensors(np.random.default_rng(seed), len(pieces), shape):
        out.add_tensor(name, tensor)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return path


def write_vocabulary(path: Path) -> Path:
    """Write the same tokens in the shape of a tokenizer.json as the stand-in reads it, and return its path.

    SentencePiece begins every text with a space, and so does this.
    """
    vocabulary = dict[str, int]()
    for number, (text, _, kind) in enumerate(_pieces()):
        if kind == gguf.TokenType.BYTE:
            vocabulary.setdefault(letter(int(text[3:5], 16)), number)
        elif kind == gguf.TokenType.NORMAL:
            vocabulary["".join(map(letter, text.replace(_SPACE, " ").encode()))] = number
    described = {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True}, "model": {"vocab": vocabulary}}
    path.write_text(json.dumps(described))
    return path


def _pieces() -> Iterator[tuple[str, float, int]]:
    """Text, score and type of every token; higher scores are merged first."""
    kinds = gguf.TokenType
    yield "<unk>", 0.0, kinds.UNKNOWN
    yield "<s>", 0.0, kinds.CONTROL
    yield "</s>", 0.0, kinds.CONTROL
    for byte in range(256):
        yield f"<0x{byte:02X}>", 0.0, kinds.BYTE
    yield _SPACE, -1.0, kinds.NORMAL
    for code in range(ord("!"), ord("~") + 1):
        yield chr(code), -1000.0 - code, kinds.NORMAL
    # The tokenizer joins two neighbours at a time: every beginning of a word must be a piece, or it is never reached.
    beginnings = dict.fromkeys(f"{_SPACE}{word}"[:end] for word in _WORDS for end in range(2, len(word) + 2))
    for rank, text in enumerate(beginnings):
        yield text, -2.0 - (0.0 if text[1:] in _WORDS else 20.0) - rank / 100, kinds.NORMAL


def _tensors(random: np.random.Generator, vocabulary: int, shape: Shape) -> Iterator[tuple[str, NDArray[np.float32]]]:
    width, feed_forward = shape.width, shape.feed_forward

    def weights(rows: int, columns: int) -> NDArray[np.float32]:
        # Scaled so that values neither grow nor vanish from layer to layer.
        scaled: NDArray[np.float32] = (random.standard_normal((rows, columns)) / np.sqrt(columns)).astype(np.float32)
        return scaled

    ones = np.ones(width, dtype=np.float32)
    yield "token_embd.weight", weights(vocabulary, width)
    for layer in range(shape.layers):
        block = f"blk.{layer}"
        yield f"{block}.attn_norm.weight", ones
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            yield f"{block}.{name}.weight", weights(width, width)
        yield f"{block}.ffn_norm.weight", ones
        yield f"{block}.ffn_gate.weight", weights(feed_forward, width)
        yield f"{block}.ffn_up.weight", weights(feed_forward, width)
        yield f"{block}.ffn_down.weight", weights(width, feed_forward)
    yield "output_norm.weight", ones
    yield "output.weight", weights(vocabulary, width)


if __name__ == "__main__":
    print(write(Path(sys.argv[1])))
