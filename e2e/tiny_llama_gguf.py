"""A folder of `e2e.tiny_llama` as GGUF: the same weights and the same tokenizer for engines that take no safetensors.

`python -m e2e.tiny_llama_gguf FOLDER FILE`. Matrices stay bfloat16, bit by bit. The converter of llama.cpp does the same, and
needs torch; what it does for this architecture is little: other names, and another order of the rows of two matrices.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import gguf
import numpy as np
from numpy.typing import NDArray

#: What splits texts as the ByteLevel of tokenizer.json does with its own expression. Source: llama.cpp, src/llama-vocab.cpp,
#: and tokenizers, pre_tokenizers/byte_level.rs: both have that of GPT-2.
_PRE: Final = "gpt-2"


def write(file: Path, folder: Path) -> Path:
    """Write the model of a folder, and return the file."""
    config, tokenizer, described = (
        json.loads((folder / name).read_text("utf-8"))
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json")
    )
    out = gguf.GGUFWriter(str(file), "llama")
    out.add_name(file.stem)
    out.add_license("CC0-1.0")
    out.add_context_length(config["max_position_embeddings"])
    out.add_embedding_length(config["hidden_size"])
    out.add_block_count(config["num_hidden_layers"])
    out.add_feed_forward_length(config["intermediate_size"])
    out.add_head_count(config["num_attention_heads"])
    out.add_head_count_kv(config["num_key_value_heads"])
    out.add_rope_dimension_count(config["head_dim"])
    out.add_rope_freq_base(config["rope_theta"])
    out.add_layer_norm_rms_eps(config["rms_norm_eps"])
    out.add_vocab_size(config["vocab_size"])
    out.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    _add_tokenizer(out, config, tokenizer)
    out.add_chat_template(described["chat_template"])
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    turned = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    for name, bits in _tensors(folder / "model.safetensors"):
        theirs = names.get_name(name, try_suffixes=(".weight",))
        assert theirs is not None, f"llama.cpp knows no {name}"
        if bits.ndim == 1:
            # It takes vectors of 32 bits only.
            out.add_tensor(theirs, (bits.astype(np.uint32) << 16).view(np.float32))
            continue
        heads = turned.get(name.split(".")[-2])
        ordered = bits if heads is None else _paired(bits, heads)
        out.add_tensor(theirs, ordered.view(np.uint8), raw_dtype=gguf.GGMLQuantizationType.BF16)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return file


def _add_tokenizer(out: gguf.GGUFWriter, config: dict[str, Any], tokenizer: dict[str, Any]) -> None:
    special = {token["id"]: token["content"] for token in tokenizer["added_tokens"]}
    pieces = sorted(tokenizer["model"]["vocab"].items(), key=lambda item: item[1])
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre(_PRE)
    out.add_token_list([piece.encode() for piece, _ in pieces])
    out.add_token_types([gguf.TokenType.CONTROL if n in special else gguf.TokenType.NORMAL for _, n in pieces])
    out.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    out.add_bos_token_id(config["bos_token_id"])
    out.add_eos_token_id(config["eos_token_id"])
    out.add_unk_token_id(next(number for number, text in special.items() if text == "<unk>"))
    # It has no post_processor, so nothing is put before a text or behind it.
    out.add_add_bos_token(False)
    out.add_add_eos_token(False)


def _tensors(file: Path) -> Iterator[tuple[str, NDArray[np.uint16]]]:
    """Name and bfloat16 bits of each tensor of a file of safetensors."""
    data = file.read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    for name, told in json.loads(data[8:begin]).items():
        if name != "__metadata__":
            first, end = told["data_offsets"]
            yield name, np.frombuffer(data[begin + first : begin + end], "<u2").reshape(told["shape"])


def _paired(bits: NDArray[np.uint16], heads: int) -> NDArray[np.uint16]:
    """Rows of a projection in the order of llama.cpp's rope for this architecture: it turns neighbours, where that of
    transformers turns a row and the one half a head further. Source: LlamaModel.permute of llama.cpp's converter."""
    rows, columns = bits.shape
    halves = bits.reshape(heads, 2, rows // heads // 2, columns)
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows, columns)


if __name__ == "__main__":
    print(write(Path(sys.argv[2]), Path(sys.argv[1])))
