"""Bytes and parameters from safetensors files, without reading a weight.

A model of several files has an index beside them, whose `metadata.total_size` is the sum of the tensors' bytes. Every
file begins with the length of its header (64 bit, little-endian) and the header: a JSON object with dtype, shape and
place of each tensor. Source: README.md of huggingface/safetensors, "Format".
"""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Final

from draftmark.facts.models import MAX_BYTES, ShortHeader, UnreadableHeader

__all__ = ["SafetensorsTotals", "index_total_bytes", "read_safetensors_header"]

#: Longest header. Source: safetensors, src/tensor.rs, MAX_HEADER_SIZE.
MAX_HEADER_BYTES: Final = 100_000_000
MAX_TENSORS: Final = 2**20
MAX_DIMENSIONS: Final = 16
#: Bits of an element. Source: safetensors, src/tensor.rs, Dtype.
DTYPE_BITS: Final[Mapping[str, int]] = {
    "BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "C64": 64, "F64": 64, "I64": 64, "U64": 64,
}  # fmt: skip
#: Formats pack weights of 4 bits into these, so that elements are not parameters.
_MAY_PACK: Final = ("U8", "I8", "I32", "U32", "I16", "U16", "I64", "U64", "BOOL", "F8_E8M0")


@dataclass(frozen=True, slots=True, kw_only=True)
class SafetensorsTotals:
    """Sums over the tensors of one file."""

    weight_bytes: int
    expert_weight_bytes: int
    """Tensors of routed experts: `experts` is a part of their name, and `shared` is not."""
    elements: Mapping[str, int]
    """By dtype, as the hub counts them."""

    @property
    def parameters(self) -> int | None:
        """Elements, where each is a weight; None where a dtype may hold several weights, or scales."""
        return None if any(dtype in _MAY_PACK for dtype in self.elements) else sum(self.elements.values())


def index_total_bytes(index: Mapping[str, object]) -> int | UnreadableHeader:
    """`metadata.total_size` of a model.safetensors.index.json, in bytes."""
    metadata = index.get("metadata")
    total = metadata.get("total_size") if isinstance(metadata, Mapping) else None
    # Some writers leave a float.
    if isinstance(total, float) and total.is_integer():
        total = int(total)
    if isinstance(total, bool) or not isinstance(total, int) or not 0 < total <= MAX_BYTES:
        return UnreadableHeader(reason=f"metadata.total_size of the index must be a whole number up to {MAX_BYTES}.")
    return total


def read_safetensors_header(data: bytes) -> SafetensorsTotals | ShortHeader | UnreadableHeader:
    """Read the header from the beginning of a safetensors file; never raises.

    Returns:
        The sums; or that more bytes are needed; or why these cannot be a header.
    """
    if len(data) < 8:
        return ShortHeader(needed_bytes=8)
    length: int = struct.unpack("<Q", data[:8])[0]
    if not 2 <= length <= MAX_HEADER_BYTES:
        return UnreadableHeader(reason=f"the header says that it has {length} bytes; 2 to {MAX_HEADER_BYTES} are read.")
    if len(data) < 8 + length:
        return ShortHeader(needed_bytes=8 + length)
    try:
        header = json.loads(data[8 : 8 + length])
    except (ValueError, RecursionError):
        return UnreadableHeader(reason="the header is not JSON.")
    if not isinstance(header, dict) or len(header) > MAX_TENSORS:
        return UnreadableHeader(reason=f"the header is no JSON object of at most {MAX_TENSORS} tensors.")
    weight_bytes = expert_bytes = 0
    elements: dict[str, int] = {}
    for name, tensor in header.items():
        if name == "__metadata__":
            continue
        size = _size(tensor)
        if size is None:
            return UnreadableHeader(reason=f"tensor {name[:80]!r} has no dtype and shape that can be.")
        dtype, count, n_bytes = size
        elements[dtype] = elements.get(dtype, 0) + count
        weight_bytes += n_bytes
        words = name.split(".")
        if "experts" in words and "shared" not in name:
            expert_bytes += n_bytes
    if weight_bytes > MAX_BYTES:
        return UnreadableHeader(reason=f"the tensors have {weight_bytes} bytes together; at most {MAX_BYTES} are read.")
    return SafetensorsTotals(weight_bytes=weight_bytes, expert_weight_bytes=expert_bytes, elements=elements)


def _size(tensor: object) -> tuple[str, int, int] | None:
    """Dtype, elements and bytes; None when they are not there, or do not agree with the place in the file."""
    if not isinstance(tensor, dict):
        return None
    dtype, shape, offsets = tensor.get("dtype"), tensor.get("shape"), tensor.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        return None
    if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS or not all(_is_size(item) for item in shape):
        return None
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_is_size(item) for item in offsets):
        return None
    elements = prod(shape)
    n_bytes = -(-elements * DTYPE_BITS[dtype] // 8)
    if n_bytes > MAX_BYTES or offsets[1] - offsets[0] != n_bytes:
        return None
    return dtype, elements, n_bytes


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_BYTES
