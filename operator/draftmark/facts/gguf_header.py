"""The header of a GGUF file, and the facts of the model in it.

A GGUF file begins with a magic number, a version, two counts, the metadata (typed key-value pairs) and one record per
tensor (name, shape, type, offset); then come the weights, which are never read here. Source: docs/gguf.md of ggml.

The bytes come from strangers: every length is checked against a bound before it is followed, and large arrays (the
vocabulary) are stepped over. The reader works on the beginning of a file; when that ends too early it says so, and the
caller reads more, up to `MAX_HEADER_BYTES`.
"""

import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Final

from draftmark.facts.model_parameters import is_absurd
from draftmark.facts.models import (
    MAX_EXPERTS,
    MAX_HEAD_DIM,
    MAX_HEADS,
    MAX_LAYERS,
    MAX_NAME,
    MAX_POSITIONS,
    MAX_SIZE,
    MAX_SOURCE,
    MAX_VOCABULARY,
    ModelFacts,
    Quantization,
    ShortHeader,
    UnreadableConfig,
    UnreadableHeader,
    problem_of,
)

__all__ = ["GgufHeader", "GgufTensor", "facts_from_gguf", "read_gguf_header"]

MAGIC: Final = b"GGUF"
#: Versions with 64 bit counts; version 1 is from August 2023 and nothing writes it. Source: ggml, docs/gguf.md.
VERSIONS: Final = (2, 3)
#: Bounds of ours. A vocabulary of 262,144 pieces with its merges takes about 12 MB; DeepSeek-V3 has 1,100 tensors.
MAX_HEADER_BYTES: Final = 64 * 2**20
MAX_PAIRS: Final = 4096
MAX_TENSORS: Final = 2**16
MAX_KEY_BYTES: Final = 1024
MAX_STRING_BYTES: Final = 2**20
MAX_ITEMS: Final = 2**22
#: Items of a numeric array that are kept: one per layer.
MAX_KEPT_ITEMS: Final = MAX_LAYERS
#: Dimensions of a tensor. Source: GGML_MAX_DIMS in ggml.h.
MAX_DIMENSIONS: Final = 4
MAX_ELEMENTS: Final = 2**50

#: struct codes of metadata's scalar types by number. Source: enum gguf_metadata_value_type in ggml, docs/gguf.md.
_SCALARS: Final[Mapping[int, str]] = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d",
}  # fmt: skip
_STRING: Final = 8
_ARRAY: Final = 9

#: Tensor types by number: name, elements of a block, bytes of a block. Source: enum ggml_type in ggml.h and the block
#: structures in ggml-common.h, as of July 2026; tests/facts compare it with the `gguf` package.
TENSOR_TYPES: Final[Mapping[int, tuple[str, int, int]]] = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 40), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17), 40: ("NVFP4", 64, 36), 41: ("Q1_0", 128, 18),
}  # fmt: skip

#: Names of `general.file_type`. Source: enum llama_ftype in llama.h.
FILE_TYPES: Final[Mapping[int, str]] = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M",
    13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS",
    21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S",
    29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4_MOE", 39: "NVFP4", 40: "Q1_0",
}  # fmt: skip

#: Every n-th layer has full attention, the others slide. Source: llama.cpp, src/llama-model.cpp, set_swa_pattern.
#: Other architectures count as full attention, which is never too little.
_FULL_EVERY: Final[Mapping[str, int]] = {"gemma2": 2, "gemma3": 6, "gpt-oss": 2, "cohere2": 4, "llama4": 4}
#: Feed-forward parts of two matrices. Source: llama.cpp, src/models.
_NOT_GATED: Final = ("falcon", "gpt2", "mpt", "starcoder", "starcoder2", "phi2", "bloom", "gptneox")


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufTensor:
    name: str
    shape: tuple[int, ...]
    """As the file has it: the fastest dimension first."""
    type: str
    n_bytes: int

    @property
    def elements(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufHeader:
    """What a header says. Arrays too long to keep are in `lengths` only."""

    version: int
    metadata: Mapping[str, int | float | bool | str | tuple[int | float | bool, ...]]
    lengths: Mapping[str, int]
    tensors: tuple[GgufTensor, ...]
    header_bytes: int
    arrays: Mapping[str, tuple[int | float | bool | str, ...]] = field(default_factory=dict)
    """Those that were asked for, whole."""

    @property
    def parameters(self) -> int:
        return sum(tensor.elements for tensor in self.tensors)

    @property
    def weight_bytes(self) -> int:
        return sum(tensor.n_bytes for tensor in self.tensors)

    @property
    def expert_weight_bytes(self) -> int:
        """Routed experts have `_exps` in their name. Source: gguf-py, constants.py, TENSOR_NAMES."""
        return sum(tensor.n_bytes for tensor in self.tensors if "_exps" in tensor.name)


def read_gguf_header(data: bytes, *, arrays: Collection[str] = ()) -> GgufHeader | ShortHeader | UnreadableHeader:
    """Read the header from the beginning of a GGUF file; never raises.

    Args:
        data: The file's first bytes; more than the header does no harm.
        arrays: Keys of arrays that are kept whole, such as the vocabulary.

    Returns:
        The header; or that more bytes are needed; or why these cannot be a header.
    """
    try:
        return _read(_Bytes(data), arrays)
    except _Short as short:
        if short.needed > MAX_HEADER_BYTES:
            return UnreadableHeader(reason=f"the header is longer than {MAX_HEADER_BYTES} bytes.")
        return ShortHeader(needed_bytes=short.needed)
    except _Unreadable as error:
        return UnreadableHeader(reason=str(error))


class _Unreadable(Exception):
    """Ends the reading; never leaves this module."""


class _Short(Exception):
    def __init__(self, needed: int) -> None:
        self.needed = needed


@dataclass(slots=True)
class _Bytes:
    data: bytes
    at: int = field(default=0)

    def take(self, count: int) -> bytes:
        end = self.at + count
        if end > len(self.data):
            raise _Short(end)
        taken = self.data[self.at : end]
        self.at = end
        return taken

    def skip(self, count: int) -> None:
        if self.at + count > len(self.data):
            raise _Short(self.at + count)
        self.at += count

    def number(self, code: str) -> int:
        value = struct.unpack(code, self.take(struct.calcsize(code)))[0]
        return int(value)

    def count(self, what: str, most: int) -> int:
        value = self.number("<Q")
        if value > most:
            raise _Unreadable(f"{what}: {value}, at byte {self.at - 8}; at most {most} are read.")
        return value

    def text(self, what: str, most: int) -> str:
        raw = self.take(self.count(f"bytes of {what}", most))
        return raw.decode("utf-8", errors="replace")


def _read(data: _Bytes, arrays: Collection[str]) -> GgufHeader:
    if data.take(4) != MAGIC:
        raise _Unreadable("the file does not begin with GGUF.")
    version = data.number("<I")
    if version not in VERSIONS:
        known = " and ".join(str(known) for known in VERSIONS)
        raise _Unreadable(f"the file has GGUF version {version}; versions {known} in little-endian order are read.")
    n_tensors = data.count("tensors", MAX_TENSORS)
    n_pairs = data.count("metadata pairs", MAX_PAIRS)
    metadata: dict[str, int | float | bool | str | tuple[int | float | bool, ...]] = {}
    lengths: dict[str, int] = {}
    whole: dict[str, tuple[int | float | bool | str, ...]] = {}
    for _ in range(n_pairs):
        key = data.text("a key", MAX_KEY_BYTES)
        if key in metadata or key in lengths:
            raise _Unreadable(f"the key {key[:80]!r} is there twice.")
        if key in arrays:
            start, whole[key] = data.at, _whole_array(data, key)
            data.at = start
        _pair(data, key, metadata, lengths)
    tensors = tuple(_tensor(data) for _ in range(n_tensors))
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise _Unreadable("two tensors have the same name.")
    return GgufHeader(
        version=version, metadata=metadata, lengths=lengths, tensors=tensors, header_bytes=data.at, arrays=whole
    )


def _pair(
    data: _Bytes,
    key: str,
    metadata: dict[str, int | float | bool | str | tuple[int | float | bool, ...]],
    lengths: dict[str, int],
) -> None:
    kind = data.number("<I")
    if kind in _SCALARS:
        metadata[key] = _scalar(data, kind)
    elif kind == _STRING:
        metadata[key] = data.text(f"{key[:80]!r}", MAX_STRING_BYTES)
    elif kind == _ARRAY:
        item = data.number("<I")
        length = data.count(f"items of {key[:80]!r}", MAX_ITEMS)
        lengths[key] = length
        if item == _STRING:
            for _ in range(length):
                data.skip(data.count(f"bytes of an item of {key[:80]!r}", MAX_STRING_BYTES))
        elif item in _SCALARS:
            if length <= MAX_KEPT_ITEMS:
                metadata[key] = tuple(_scalar(data, item) for _ in range(length))
            else:
                data.skip(length * struct.calcsize(_SCALARS[item]))
        else:
            raise _Unreadable(f"{key[:80]!r} is an array of type {item}; numbers and strings are read.")
    else:
        raise _Unreadable(f"{key[:80]!r} has type {kind}, which GGUF does not have.")


def _whole_array(data: _Bytes, key: str) -> tuple[int | float | bool | str, ...]:
    """All items; none of what is no array of numbers or strings: reading the pair says what is wrong with it."""
    if data.number("<I") != _ARRAY:
        return ()
    item = data.number("<I")
    length = data.count(f"items of {key[:80]!r}", MAX_ITEMS)
    if item == _STRING:
        return tuple(data.text(f"an item of {key[:80]!r}", MAX_STRING_BYTES) for _ in range(length))
    if item in _SCALARS:
        code = f"<{length}{_SCALARS[item][1]}"
        return struct.unpack(code, data.take(struct.calcsize(code)))
    return ()


def _scalar(data: _Bytes, kind: int) -> int | float | bool:
    code = _SCALARS[kind]
    value: int | float | bool = struct.unpack(code, data.take(struct.calcsize(code)))[0]
    return value


def _tensor(data: _Bytes) -> GgufTensor:
    name = data.text("a tensor's name", MAX_KEY_BYTES)
    dimensions = data.number("<I")
    if dimensions > MAX_DIMENSIONS:
        raise _Unreadable(f"tensor {name[:80]!r} has {dimensions} dimensions; ggml has at most {MAX_DIMENSIONS}.")
    shape = tuple(data.number("<Q") for _ in range(dimensions))
    kind = data.number("<I")
    data.skip(8)
    if kind not in TENSOR_TYPES:
        raise _Unreadable(f"tensor {name[:80]!r} has type {kind}, which is not known here.")
    type_name, block, size = TENSOR_TYPES[kind]
    elements = prod(shape)
    if not 0 < elements <= MAX_ELEMENTS:
        raise _Unreadable(f"tensor {name[:80]!r} has no size that can be.")
    if shape and shape[0] % block:
        raise _Unreadable(
            f"tensor {name[:80]!r} has rows of {shape[0]}, no multiple of {type_name}'s block of {block}."
        )
    return GgufTensor(name=name, shape=shape, type=type_name, n_bytes=elements // block * size)


def facts_from_gguf(header: GgufHeader, *, source: str = "GGUF header") -> ModelFacts | UnreadableConfig:
    """The facts of the model that this header describes; never raises.

    Weights are measured by the header's own tensors, unless it is one part of several (`split.count`): then their
    bytes are not known from it. Architectures with a state (`*.ssm.*`, RWKV) are refused: their cache is not counted
    here from a GGUF file.
    """
    try:
        facts = _facts(_Metadata(header), header, source)
    except _Unreadable as error:
        return UnreadableConfig(reason=str(error))
    problem = problem_of(facts)
    if problem:
        return UnreadableConfig(reason=problem)
    if is_absurd(facts):
        return UnreadableConfig(reason="the sizes make a model of over 10^14 parameters; no such model is served.")
    return facts


class _Metadata:
    """Metadata under the architecture's prefix, each checked as it is read."""

    def __init__(self, header: GgufHeader) -> None:
        self.header = header
        architecture = header.metadata.get("general.architecture")
        if (
            not isinstance(architecture, str)
            or not 0 < len(architecture) <= MAX_NAME
            or not (architecture.isascii() and architecture.isprintable())
        ):
            raise _Unreadable("general.architecture is missing or no name.")
        self.architecture = architecture

    def whole(self, name: str, *, most: int, least: int = 0, default: int | None = None) -> int:
        """A number, or the largest of an array with one per layer."""
        key = f"{self.architecture}.{name}"
        value = self.header.metadata.get(key)
        if value is None and default is not None:
            return default
        values = value if isinstance(value, tuple) and value else (value,)
        found = [item for item in values if isinstance(item, int) and not isinstance(item, bool)]
        if len(found) != len(values) or not all(0 <= item <= most for item in found) or max(found) < least:
            shown = "missing" if value is None else "no whole number" if not found else str(max(found))
            raise _Unreadable(f"{key} is {shown}; it must be from {least} to {most}.")
        return max(found)

    def per_layer(self, name: str) -> tuple[int | float | bool, ...]:
        value = self.header.metadata.get(f"{self.architecture}.{name}")
        return value if isinstance(value, tuple) else ()

    def has(self, beginning: str) -> bool:
        return any(key.startswith(f"{self.architecture}.{beginning}") for key in self.header.metadata)


def _facts(metadata: _Metadata, header: GgufHeader, source: str) -> ModelFacts:
    architecture = metadata.architecture
    if metadata.has("ssm.") or metadata.has("wkv."):
        raise _Unreadable(f"{architecture} keeps a state, whose size is not counted here from a GGUF file.")
    names = {tensor.name for tensor in header.tensors}
    layers = metadata.whole("block_count", least=1, most=MAX_LAYERS)
    predicting = metadata.whole("nextn_predict_layers", most=MAX_LAYERS, default=0)
    if predicting >= layers:
        raise _Unreadable(f"{architecture}.nextn_predict_layers is {predicting}, of {layers} blocks.")
    # GGUF counts the prediction layers among its blocks. Source: llama.cpp, src/llama-hparams.h, nextn_predict_layers.
    layers -= predicting
    h = metadata.whole("embedding_length", least=1, most=MAX_SIZE)
    heads = metadata.whole("attention.head_count", least=1, most=MAX_HEADS)
    kv_heads = metadata.whole("attention.head_count_kv", least=1, most=MAX_HEADS, default=heads)
    key_length = metadata.whole("attention.key_length", least=1, most=MAX_HEAD_DIM, default=max(1, h // heads))
    value_length = metadata.whole("attention.value_length", least=1, most=MAX_HEAD_DIM, default=max(1, h // heads))
    latent = _latent(metadata, heads)
    experts = metadata.whole("expert_count", most=MAX_EXPERTS, default=0)
    dense_first = metadata.whole("leading_dense_block_count", most=MAX_LAYERS, default=0) if experts else layers
    dense_layers = min(layers, dense_first)
    moe_layers = layers - dense_layers
    size = metadata.whole("feed_forward_length", most=MAX_SIZE, default=0)
    expert_size = metadata.whole("expert_feed_forward_length", most=MAX_SIZE, default=size) if moe_layers else 0
    window = metadata.whole("attention.sliding_window", most=MAX_POSITIONS, default=0)
    positions = metadata.whole("context_length", least=1, most=MAX_POSITIONS)
    sliding = _sliding_layers(metadata, layers) if 0 < window < positions else 0
    is_whole = metadata.header.metadata.get("split.count", 1) in (0, 1)
    is_measured = is_whole and bool(header.tensors)
    vocabulary = header.lengths.get("tokenizer.ggml.tokens", 0)
    return ModelFacts(
        architecture=architecture,
        model_type=architecture,
        num_hidden_layers=layers,
        hidden_size=h,
        vocab_size=metadata.whole("vocab_size", least=1, most=MAX_VOCABULARY, default=vocabulary or None),
        max_position_embeddings=positions,
        num_attention_heads=heads,
        num_key_value_heads=heads if latent else kv_heads,
        head_dim=latent.nope + latent.rope if latent else key_length,
        v_head_dim=latent.value if latent else value_length,
        num_sliding_layers=sliding,
        sliding_window=window if sliding else 0,
        swa_head_dim=metadata.whole("attention.key_length_swa", most=MAX_HEAD_DIM, default=0) if sliding else 0,
        swa_v_head_dim=metadata.whole("attention.value_length_swa", most=MAX_HEAD_DIM, default=0) if sliding else 0,
        kv_lora_rank=latent.rank if latent else 0,
        q_lora_rank=metadata.whole("attention.q_lora_rank", most=MAX_SIZE, default=0) if latent else 0,
        qk_nope_head_dim=latent.nope if latent else 0,
        qk_rope_head_dim=latent.rope if latent else 0,
        num_mlp_layers=dense_layers,
        intermediate_size=size if dense_layers else 0,
        num_moe_layers=moe_layers,
        n_routed_experts=experts if moe_layers else 0,
        num_experts_per_tok=metadata.whole("expert_used_count", most=MAX_EXPERTS, default=0) if moe_layers else 0,
        moe_intermediate_size=expert_size,
        shared_expert_intermediate_size=_shared_size(metadata, expert_size) if moe_layers else 0,
        is_gated_mlp=architecture not in _NOT_GATED,
        tie_word_embeddings=bool(names) and is_whole and "output.weight" not in names,
        attention_bias="blk.0.attn_q.bias" in names or "blk.0.attn_qkv.bias" in names,
        num_nextn_predict_layers=predicting,
        dtype="bfloat16",
        quantization_config=Quantization(quant_method="gguf", bits=0),
        weight_bytes=header.weight_bytes if is_measured else None,
        expert_weight_bytes=(header.expert_weight_bytes or None) if is_measured else None,
        parameters=header.parameters if is_measured else None,
        source=f"{source} ({_file_type(header)})"[:MAX_SOURCE],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Latent:
    rank: int
    rope: int
    nope: int
    value: int


def _latent(metadata: _Metadata, heads: int) -> _Latent | None:
    """Files without `key_length_mla` are from before April 2025 and keep full keys and values of every head. Source:
    llama.cpp, pull request 12801."""
    rank = metadata.whole("attention.kv_lora_rank", most=MAX_SIZE, default=0)
    key = metadata.whole("attention.key_length_mla", most=MAX_HEAD_DIM, default=0)
    if not rank or not key:
        return None
    rope = metadata.whole("rope.dimension_count", least=1, most=MAX_HEAD_DIM)
    if rope >= key:
        raise _Unreadable(f"{metadata.architecture}.rope.dimension_count is {rope}, of a key of {key}.")
    value = metadata.whole("attention.value_length_mla", least=1, most=MAX_HEAD_DIM)
    return _Latent(rank=rank, rope=rope, nope=key - rope, value=value)


def _sliding_layers(metadata: _Metadata, layers: int) -> int:
    pattern = metadata.per_layer("attention.sliding_window_pattern")
    if len(pattern) == layers:
        return sum(bool(is_sliding) for is_sliding in pattern)
    every = _FULL_EVERY.get(metadata.architecture)
    return layers - layers // every if every else 0


def _shared_size(metadata: _Metadata, expert_size: int) -> int:
    direct = metadata.whole("expert_shared_feed_forward_length", most=MAX_SIZE, default=0)
    return direct or expert_size * metadata.whole("expert_shared_count", most=MAX_EXPERTS, default=0)


def _file_type(header: GgufHeader) -> str:
    number = header.metadata.get("general.file_type")
    if isinstance(number, int) and not isinstance(number, bool):
        return FILE_TYPES.get(number, f"file type {number}")
    return "no file type"
