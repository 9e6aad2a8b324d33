"""The engines that this version can deploy."""

from collections.abc import Mapping
from typing import Final

from draftmark.engines.engine import Engine
from draftmark.engines.llama_cpp import LlamaCpp
from draftmark.engines.sglang import Sglang
from draftmark.engines.vllm import Vllm

ENGINES: Final[Mapping[str, Engine]] = {engine.name: engine for engine in (LlamaCpp(), Vllm(), Sglang())}
