"""GGUF headers, written by the `gguf` package and by strangers."""

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftmark.facts.gguf_header import (
    FILE_TYPES,
    TENSOR_TYPES,
    GgufHeader,
    facts_from_gguf,
    read_gguf_header,
)
from draftmark.facts.model_memory import WeightBytes, kv_bytes_per_token, weight_bytes
from draftmark.facts.model_parameters import parameters
from draftmark.facts.models import ModelFacts, ShortHeader, UnreadableConfig, UnreadableHeader

LAYERS, H, HEADS, KV_HEADS, INNER, VOCABULARY, EXPERTS = 2, 256, 4, 2, 512, 300, 4
Q4_K = gguf.GGMLQuantizationType.Q4_K


def write(
    path: Path,
    architecture: str = "llama",
    *,
    experts: bool = False,
    more: Mapping[str, int | list[bool]] | None = None,
) -> bytes:
    """A file with random weights, some of them Q4_K; `more` are keys under the architecture."""
    random = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("tiny")
    writer.add_context_length(8192)
    writer.add_embedding_length(H)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_K_M)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([f"token {i}" for i in range(VOCABULARY)])
    writer.add_token_scores([0.0] * VOCABULARY)
    if experts:
        writer.add_expert_count(EXPERTS)
        writer.add_expert_used_count(2)
    for name, value in (more or {}).items():
        key = f"{architecture}.{name}"
        if isinstance(value, list):
            writer.add_array(key, value)
        else:
            writer.add_uint32(key, value)

    def full(name: str, *shape: int) -> None:
        writer.add_tensor(name, random.standard_normal(shape).astype(np.float32))

    def quantized(name: str, *shape: int) -> None:
        rows = gguf.quants.quant_shape_to_byte_shape(shape, Q4_K)
        writer.add_tensor(name, random.integers(0, 255, rows, dtype=np.uint8), raw_dtype=Q4_K)

    full("token_embd.weight", VOCABULARY, H)
    for layer in range(LAYERS):
        block = f"blk.{layer}."
        full(block + "attn_norm.weight", H)
        full(block + "ffn_norm.weight", H)
        quantized(block + "attn_q.weight", H, H)
        quantized(block + "attn_k.weight", KV_HEADS * H // HEADS, H)
        quantized(block + "attn_v.weight", KV_HEADS * H // HEADS, H)
        quantized(block + "attn_output.weight", H, H)
        if experts:
            full(block + "ffn_gate_inp.weight", EXPERTS, H)
            quantized(block + "ffn_gate_exps.weight", EXPERTS, INNER, H)
            quantized(block + "ffn_up_exps.weight", EXPERTS, INNER, H)
            quantized(block + "ffn_down_exps.weight", EXPERTS, H, INNER)
        else:
            quantized(block + "ffn_gate.weight", INNER, H)
            quantized(block + "ffn_up.weight", INNER, H)
            quantized(block + "ffn_down.weight", H, INNER)
    full("output_norm.weight", H)
    full("output.weight", VOCABULARY, H)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write(path)
    return path


def header_of(data: bytes) -> GgufHeader:
    header = read_gguf_header(data)
    assert isinstance(header, GgufHeader), header
    return header


def facts_of(data: bytes) -> ModelFacts:
    facts = facts_from_gguf(header_of(data))
    assert isinstance(facts, ModelFacts), facts.reason
    return facts


def test_the_header_is_what_the_gguf_package_reads(tiny: Path) -> None:
    ours, theirs = header_of(tiny.read_bytes()), gguf.GGUFReader(tiny)
    assert ours.version == 3
    assert [
        (tensor.name, list(tensor.shape), tensor.type, tensor.elements, tensor.n_bytes) for tensor in ours.tensors
    ] == [
        (t.name, [int(size) for size in t.shape], t.tensor_type.name, int(t.n_elements), int(t.n_bytes))
        for t in theirs.tensors
    ]
    for key in ("general.architecture", "llama.block_count", "llama.attention.head_count_kv", "general.file_type"):
        field = theirs.fields[key]
        assert ours.metadata[key] == field.contents()
    assert ours.lengths["tokenizer.ggml.tokens"] == VOCABULARY


def test_the_header_is_enough_and_the_weights_are_not_needed(tiny: Path) -> None:
    data = tiny.read_bytes()
    header = header_of(data)
    assert header.header_bytes < len(data) - header.weight_bytes + 1
    assert read_gguf_header(data[: header.header_bytes]) == header


def test_every_shorter_beginning_asks_for_more(tiny: Path) -> None:
    data = tiny.read_bytes()
    end = header_of(data).header_bytes
    for length in [*range(64), *range(64, end, 97)]:
        short = read_gguf_header(data[:length])
        assert isinstance(short, ShortHeader)
        assert length < short.needed_bytes <= end


def test_facts_of_a_llama(tiny: Path) -> None:
    facts = facts_of(tiny.read_bytes())
    assert (facts.architecture, facts.num_hidden_layers, facts.hidden_size) == ("llama", LAYERS, H)
    assert (facts.num_attention_heads, facts.num_key_value_heads, facts.head_dim) == (HEADS, KV_HEADS, H // HEADS)
    assert (facts.vocab_size, facts.max_position_embeddings, facts.intermediate_size) == (VOCABULARY, 8192, INNER)
    assert not facts.tie_word_embeddings
    assert facts.source == "GGUF header (Q4_K_M)"
    # The tensors of a Llama are the formula's parameters.
    assert facts.parameters == parameters(facts)
    assert kv_bytes_per_token(facts, "f16") == LAYERS * 2 * KV_HEADS * (H // HEADS) * 2


def test_weights_are_measured_by_the_header(tiny: Path) -> None:
    header = header_of(tiny.read_bytes())
    weights = weight_bytes(facts_of(tiny.read_bytes()))
    assert isinstance(weights, WeightBytes)
    assert weights.is_measured
    assert weights.total == header.weight_bytes < tiny.stat().st_size
    assert weights.experts == 0


def test_experts_are_apart(tmp_path: Path) -> None:
    facts = facts_of(write(tmp_path / "moe.gguf", experts=True))
    assert (facts.num_moe_layers, facts.num_mlp_layers) == (LAYERS, 0)
    assert (facts.n_routed_experts, facts.num_experts_per_tok, facts.moe_intermediate_size) == (EXPERTS, 2, INNER)
    assert facts.expert_weight_bytes == LAYERS * 3 * EXPERTS * INNER * H // 256 * 144
    assert facts.parameters == parameters(facts)


def test_sliding_layers(tmp_path: Path) -> None:
    by_rule = facts_of(write(tmp_path / "a.gguf", "gemma2", more={"attention.sliding_window": 1024}))
    assert (by_rule.num_sliding_layers, by_rule.num_full_layers, by_rule.sliding_window) == (1, 1, 1024)
    listed = write(
        tmp_path / "b.gguf", more={"attention.sliding_window": 1024, "attention.sliding_window_pattern": [True, True]}
    )
    assert facts_of(listed).num_sliding_layers == 2
    # An architecture whose rule is not known here counts as full attention: never too little.
    assert (
        facts_of(write(tmp_path / "c.gguf", "newcomer", more={"attention.sliding_window": 1024})).num_full_layers == 2
    )


def test_latent_attention(tmp_path: Path) -> None:
    more = {"attention.kv_lora_rank": 128, "attention.q_lora_rank": 64, "rope.dimension_count": 32}
    old = facts_of(write(tmp_path / "old.gguf", "deepseek2", more=more))
    assert not old.is_mla
    lengths = {"attention.key_length_mla": 96, "attention.value_length_mla": 64}
    new = facts_of(write(tmp_path / "new.gguf", "deepseek2", more=more | lengths))
    assert (new.kv_lora_rank, new.qk_rope_head_dim, new.qk_nope_head_dim, new.v_head_dim) == (128, 32, 64, 64)
    assert kv_bytes_per_token(new, "f16") == LAYERS * (128 + 32) * 2


def test_a_part_of_a_split_model_does_not_weigh_it(tmp_path: Path) -> None:
    path = tmp_path / "part.gguf"
    data = write(path)
    header = header_of(data)
    part = GgufHeader(
        version=3,
        metadata={**header.metadata, "split.count": 3},
        lengths=header.lengths,
        tensors=header.tensors,
        header_bytes=header.header_bytes,
    )
    facts = facts_from_gguf(part)
    assert isinstance(facts, ModelFacts)
    assert facts.weight_bytes is None
    assert facts.parameters is None


def test_a_state_is_refused(tmp_path: Path) -> None:
    facts = facts_from_gguf(header_of(write(tmp_path / "mamba.gguf", "jamba", more={"ssm.state_size": 16})))
    assert facts == UnreadableConfig(reason="jamba keeps a state, whose size is not counted here from a GGUF file.")


def test_tensor_types_are_those_of_the_gguf_package() -> None:
    for number, (name, block, size) in TENSOR_TYPES.items():
        kind = gguf.GGMLQuantizationType(number)
        assert (kind.name, *gguf.GGML_QUANT_SIZES[kind]) == (name, block, size)
    assert {kind.value for kind in gguf.GGMLQuantizationType} <= set(TENSOR_TYPES)


def test_file_types_are_those_of_the_gguf_package() -> None:
    for number, name in FILE_TYPES.items():
        assert gguf.LlamaFileType(number).name.removeprefix("MOSTLY_").removeprefix("ALL_") == name


def a_header(*, magic: bytes = b"GGUF", version: int = 3, tensors: int = 0, pairs: int = 0, rest: bytes = b"") -> bytes:
    return magic + struct.pack("<IQQ", version, tensors, pairs) + rest


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"PK\x03\x04" + bytes(100), "the file does not begin with GGUF."),
        (a_header(version=1), "the file has GGUF version 1; versions 2 and 3 in little-endian order are read."),
        (a_header(version=3 << 24), "the file has GGUF version 50331648; versions 2 and 3 in little-endian order are read."),
        (a_header(tensors=2**60), f"tensors: {2**60}, at byte 8; at most 65536 are read."),
        (a_header(pairs=2**60), f"metadata pairs: {2**60}, at byte 16; at most 4096 are read."),
        (a_header(pairs=1, rest=struct.pack("<Q", 2**62)), f"bytes of a key: {2**62}, at byte 24; at most 1024 are read."),
        (a_header(pairs=1, rest=text(b"k") + struct.pack("<I", 99)), "'k' has type 99, which GGUF does not have."),
        (a_header(pairs=1, rest=text(b"k") + struct.pack("<IIQ", 9, 9, 1)), "'k' is an array of type 9; numbers and strings are read."),
        (a_header(pairs=1, rest=text(b"k") + struct.pack("<IIQ", 9, 4, 2**40)), f"items of 'k': {2**40}, at byte 41; at most 4194304 are read."),
        (a_header(pairs=2, rest=(text(b"k") + struct.pack("<IB", 0, 1)) * 2), "the key 'k' is there twice."),
        (a_header(tensors=1, rest=text(b"t") + struct.pack("<I", 5)), "tensor 't' has 5 dimensions; ggml has at most 4."),
        (a_header(tensors=1, rest=text(b"t") + struct.pack("<IQIQ", 1, 32, 999, 0)), "tensor 't' has type 999, which is not known here."),
        (a_header(tensors=1, rest=text(b"t") + struct.pack("<IQQIQ", 2, 2**60, 2**60, 0, 0)), "tensor 't' has no size that can be."),
        (a_header(tensors=1, rest=text(b"t") + struct.pack("<IQIQ", 1, 33, 12, 0)), "tensor 't' has rows of 33, no multiple of Q4_K's block of 256."),
        (a_header(tensors=2, rest=(text(b"t") + struct.pack("<IQIQ", 1, 32, 0, 0)) * 2), "two tensors have the same name."),
    ],
)  # fmt: skip
def test_nonsense_is_refused(data: bytes, reason: str) -> None:
    assert read_gguf_header(data) == UnreadableHeader(reason=reason)


def test_a_header_without_end_is_refused() -> None:
    # Pieces of a vocabulary that together pass the bound, announced and not sent.
    pair = text(b"k") + struct.pack("<IIQ", 9, 10, 2**22)
    short = read_gguf_header(a_header(pairs=1, rest=pair))
    assert isinstance(short, ShortHeader)
    many = b"".join(text(b"k%d" % i) + struct.pack("<IIQ", 9, 0, 2**22) + bytes(2**22) for i in range(16))
    assert isinstance(read_gguf_header(a_header(pairs=17, rest=many + pair)), UnreadableHeader)


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({}, "general.architecture is missing or no name."),
        ({"general.architecture": 7}, "general.architecture is missing or no name."),
        ({"general.architecture": "llama"}, "llama.block_count is missing; it must be from 1 to 1024."),
        ({"general.architecture": "llama", "llama.block_count": 2**40}, f"llama.block_count is {2**40}; it must be from 1 to 1024."),
        ({"general.architecture": "llama", "llama.block_count": "many"}, "llama.block_count is no whole number; it must be from 1 to 1024."),
        ({"general.architecture": "llama", "llama.block_count": (1, 2.5)}, "llama.block_count is 1; it must be from 1 to 1024."),
    ],
)  # fmt: skip
def test_metadata_is_checked(metadata: dict[str, Any], reason: str) -> None:
    header = GgufHeader(version=3, metadata=metadata, lengths={}, tensors=(), header_bytes=0)
    assert facts_from_gguf(header) == UnreadableConfig(reason=reason)


@given(data=st.binary(max_size=200))
def test_any_bytes_are_an_answer(data: bytes) -> None:
    assert isinstance(read_gguf_header(b"GGUF\x03\x00\x00\x00" + data), GgufHeader | ShortHeader | UnreadableHeader)


@given(st.data())
def test_a_damaged_header_is_an_answer(tiny: Path, data: st.DataObject) -> None:
    whole = tiny.read_bytes()
    damaged = bytearray(whole[: header_of(whole).header_bytes])
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(4, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    header = read_gguf_header(bytes(damaged))
    if isinstance(header, GgufHeader):
        assert isinstance(facts_from_gguf(header), ModelFacts | UnreadableConfig)


def test_arrays_that_are_asked_for_are_kept_whole_and_nothing_else_changes(tmp_path: Path) -> None:
    data = write(tmp_path / "tiny.gguf")
    wanted = ("tokenizer.ggml.tokens", "tokenizer.ggml.scores", "general.name", "none")
    header, plain = read_gguf_header(data, arrays=wanted), read_gguf_header(data)
    assert isinstance(header, GgufHeader)
    assert isinstance(plain, GgufHeader)
    assert header.arrays["tokenizer.ggml.tokens"] == tuple(f"token {i}" for i in range(VOCABULARY))
    assert header.arrays["tokenizer.ggml.scores"] == (0.0,) * VOCABULARY
    assert header.arrays["general.name"] == ()
    assert plain.arrays == {}
    assert (header.metadata, header.lengths, header.tensors) == (plain.metadata, plain.lengths, plain.tensors)
    short = read_gguf_header(data[: data.index(b"token 7")], arrays=wanted)
    assert isinstance(short, ShortHeader)
