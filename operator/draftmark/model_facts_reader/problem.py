"""How reading ends when there are no facts."""

import json
from collections.abc import Mapping
from typing import Final

from draftmark.facts.model_answer import ModelProblem

#: Longest files that are parsed, in bytes. DeepSeek-V3.2's config with its quantization has about 30 KB, an index of 90,000
#: tensors 9 MB; the header of one safetensors file has a tenth of that. Bounds of ours, well above.
MAX_CONFIG_BYTES: Final = 2 * 2**20
MAX_INDEX_BYTES: Final = 16 * 2**20
MAX_SAFETENSORS_HEADER_BYTES: Final = 16 * 2**20


class ReadingEnds(Exception):
    """There are no facts; says why, for the termination message."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.problem = ModelProblem(code=code, message=message)


def json_object(name: str, text: bytes) -> Mapping[str, object]:
    """The object in a file.

    Raises:
        ReadingEnds: There is none.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        shown = text[:40].decode("utf-8", "replace")
        raise ReadingEnds(
            "UnreadableConfig", f"{name} is not JSON; it begins with {shown!r}. Is this what was asked for?"
        ) from None
    if not isinstance(value, dict):
        raise ReadingEnds("UnreadableConfig", f"{name} is not a JSON object.")
    return value
