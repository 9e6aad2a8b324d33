"""Services that SGLang serves."""

from draftmark.engines.flag_table import FlagTable
from draftmark.engines.sglang import Sglang
from tests.engines.rendering import Rendering, planned, value_of
from tests.specs import Object

__all__ = ["CPU", "ENGINE", "SMALLEST", "TABLE", "args", "asked", "env", "planned", "pod", "refused", "value_of"]

ENGINE = Sglang()


def load_table() -> FlagTable:
    table = ENGINE.flag_table(ENGINE.default_version)
    assert table is not None
    return table


TABLE = load_table()

CPU: Object = {"model": {"uri": "pvc://weights/llama"}, "engine": {"name": "sglang"}}
#: The smallest service that says its GPU.
SMALLEST: Object = {**CPU, "accelerator": {"product": "NVIDIA-L4"}}

_RENDERING = Rendering(SMALLEST)
asked = _RENDERING.asked
pod = _RENDERING.pod
args = _RENDERING.args
env = _RENDERING.env
refused = _RENDERING.refused
