"""The number format of a checkpoint's weights, from `quantization_config` of config.json or from hf_quant_config.json.

Every quantizer writes its own fields: AWQ and GPTQ name bits and group, compressed-tensors groups of layers, NVIDIA's
ModelOpt an algorithm. All of them list modules that stay at 16 bit, by name, by shell pattern or by regular expression;
the patterns are searched for words and never run, for a stranger wrote them.
"""

from collections.abc import Mapping, Sequence
from re import compile as regex
from typing import Final

from draftmark.facts.json_fields import Fields, UnreadableField, shown, whole
from draftmark.facts.models import MAX_NAME, MAX_SIZE, WEIGHT_PARTS, Quantization, WeightPart

__all__ = ["quantization_of"]

#: Patterns of unquantized modules that are looked at; DeepSeek-V3.2's NVFP4 checkpoint lists about 700.
MAX_PATTERNS: Final = 20_000
MAX_PATTERN: Final = 512


def quantization_of(fields: Fields, beside: Mapping[str, object] | None, layers: int) -> Quantization | None:
    """The format of the weights, or None where they are plain 16 or 32 bit numbers.

    Args:
        fields: config.json, for its `quantization_config`.
        beside: hf_quant_config.json, where there is one.
        layers: Decoder layers of the model.

    Raises:
        UnreadableField: A field is of the wrong type or out of bounds. A format that is only unknown is no error.
    """
    found = fields.get("quantization_config")
    if found is None and beside is not None:
        found = beside.get("quantization", beside)
    if found is None:
        return None
    if not isinstance(found, Mapping):
        raise UnreadableField(f"quantization_config is {shown(found)}; it must be an object.")
    method, bits, group = _format(found)
    return Quantization(quant_method=method, bits=bits, group_size=group, parts=_quantized_parts(found, layers))


def _format(found: Mapping[str, object]) -> tuple[str, int, int]:
    """Name, bits and group size of a quantization_config, in our names."""
    method = _word(found.get("quant_method"))
    algorithm = _word(found.get("quant_algo"))
    match method:
        case "fp8":
            block = found.get("weight_block_size")
            if isinstance(block, Sequence) and not isinstance(block, str) and len(block) == 2:
                return "fp8", 8, _size(block[1])
            return "fp8", 8, 0
        case "awq" | "gptq":
            bits = found.get("bits", found.get("w_bit", 4))
            group = found.get("group_size", found.get("q_group_size", 128))
            return method, whole("quantization_config.bits", bits, least=1, most=8), _size(group)
        case "mxfp4":
            return "mxfp4", 4, 32
        case "bitsandbytes":
            return "bitsandbytes", 4 if found.get("load_in_4bit") is True else 8, 0
        case _:
            pass
    match algorithm:
        case "fp8":
            return "fp8", 8, 0
        case "nvfp4":
            return "nvfp4", 4, 16
        case "w4a16_awq":
            return "awq", 4, _size(found.get("group_size", 128))
        case _:
            pass
    if isinstance(found.get("config_groups"), Mapping) and algorithm in ("", "mixed_precision"):
        return _groups(found)
    return algorithm or method or "unknown", 0, 0


def _groups(found: Mapping[str, object]) -> tuple[str, int, int]:
    """The one format of compressed-tensors' groups; `mixed` when they differ."""
    groups = found.get("config_groups")
    formats = set()
    for group in list(groups.values())[:64] if isinstance(groups, Mapping) else ():
        weights = group.get("weights") if isinstance(group, Mapping) else None
        if isinstance(weights, Mapping):
            formats.add((_word(weights.get("type")), _size(weights.get("num_bits")), _size(weights.get("group_size"))))
    if len(formats) != 1:
        return "mixed", 0, 0
    kind, bits, size = formats.pop()
    match kind, bits:
        case "float", 8:
            return "fp8", 8, size
        case "float", 4:
            return ("nvfp4", 4, 16) if size == 16 else ("mxfp4", 4, 32)
        case "int", 8:
            return "int8", 8, size
        case "int", 4:
            return "int4", 4, size
        case _:
            return "mixed", 0, 0


def _word(value: object) -> str:
    is_word = isinstance(value, str) and 0 < len(value) <= MAX_NAME and value.isascii() and value.isprintable()
    return str(value).lower() if is_word else ""


def _size(value: object) -> int:
    """A group size; -1 and null mean one group, which is 0 here."""
    if value is None or value == -1:
        return 0
    return whole("quantization_config's group size", value, least=0, most=MAX_SIZE)


_LAYER_NUMBER: Final = regex(r"layers\\?\.([0-9]{1,4})[^0-9]")


def _quantized_parts(found: Mapping[str, object], layers: int) -> tuple[WeightPart, ...]:
    """What the list of unquantized modules leaves over.

    The lists are module names, shell patterns or regular expressions, one per layer or one for all. A part counts as
    unquantized when patterns without a layer number, or those of at least half of the layers, name it.
    """
    patterns: list[object] = []
    for name in ("modules_to_not_convert", "ignore", "ignored_layers", "exclude_modules"):
        listed = found.get(name)
        if isinstance(listed, Sequence) and not isinstance(listed, str):
            patterns.extend(listed[:MAX_PATTERNS])
    kept: dict[WeightPart, set[str]] = {part: set() for part in WEIGHT_PARTS}
    for pattern in patterns:
        if not isinstance(pattern, str) or len(pattern) > MAX_PATTERN:
            continue
        number = _LAYER_NUMBER.search(pattern + ".")
        for part in _parts_named(pattern):
            kept[part].add(number[1] if number else "all")
    return tuple(part for part in WEIGHT_PARTS if not ("all" in kept[part] or 2 * len(kept[part]) >= max(2, layers)))


def _parts_named(pattern: str) -> tuple[WeightPart, ...]:
    if "shared_expert_gate" in pattern:
        return ()
    if "shared_expert" in pattern:
        return ("sharedExperts",)
    if "experts" in pattern:
        return ("experts",)
    if "norm" in pattern or "indexer" in pattern:
        return ()
    if "attn" in pattern or "attention" in pattern:
        return ("attention",)
    bare = pattern.rstrip(".*$")
    # A router is mlp.gate, a dense layer mlp itself or its projections.
    if "mlp" in pattern and (bare.endswith("mlp") or "_proj" in pattern):
        return ("mlp",)
    # A whole layer: model.layers.0*
    if bare.rpartition(".")[2].isdigit() and "layers" in pattern:
        return WEIGHT_PARTS
    return ()
