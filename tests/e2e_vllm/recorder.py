"""A plugin of pytest: another version of vLLM is the default one, and every command line that is rendered is written down.

`RECORD_VLLM=FILE RECORD_VLLM_VERSION=VERSION pytest -p tests.e2e_vllm.recorder …`
"""

import json
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from draftmark.engines.engine import Launch, LaunchRequest
from draftmark.engines.registry import ENGINES
from draftmark.engines.vllm import Vllm


def pytest_configure(config: pytest.Config) -> None:
    version, file = os.environ["RECORD_VLLM_VERSION"], Path(os.environ["RECORD_VLLM"])
    launch = Vllm.launch

    def recorded(self: Vllm, request: LaunchRequest) -> Launch:
        made = launch(self, request)
        with file.open("a") as out:
            out.write(json.dumps(made.args) + "\n")
        return made

    made: Any = Vllm
    made.launch = recorded
    made.__init__.__defaults__ = tuple(version if f.name == "default_version" else f.default for f in fields(Vllm))
    # The registry's own was made before; frozen means that nothing else may do this.
    object.__setattr__(ENGINES["vllm"], "default_version", version)
