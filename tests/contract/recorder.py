"""A plugin of pytest: every command line of SGLang that is rendered is written down.

`RECORD_SGLANG=FILE pytest -p tests.contract.recorder …`
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from draftmark.engines.engine import Launch, LaunchRequest
from draftmark.engines.sglang import Sglang


def pytest_configure(config: pytest.Config) -> None:
    file = Path(os.environ["RECORD_SGLANG"])
    launch = Sglang.launch

    def recorded(self: Sglang, request: LaunchRequest) -> Launch:
        made = launch(self, request)
        with file.open("a") as out:
            out.write(json.dumps(made.args) + "\n")
        return made

    made: Any = Sglang
    made.launch = recorded
