"""Stand-in engines as processes, under vLLM's name, with the tokenizer of the tiny model."""

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from e2e.cluster import binaries

MODEL = "tiny"


@contextmanager
def standin(tokenizer: Path, **environment: str) -> Iterator[str]:
    """Start one and give its URL.

    Args:
        tokenizer: A folder with tokenizer.json.
        environment: What main.go of the stand-in names.
    """
    program = binaries.STANDIN.build() / "llama-server"
    command = ["vllm", "serve", MODEL, "--host", "127.0.0.1", "--port", "0", "--max-num-seqs", "16"]
    variables = {"PATH": os.environ["PATH"], "STANDIN_TOKENIZER": str(tokenizer / "tokenizer.json"), **environment}
    process = subprocess.Popen(
        command, executable=program, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        said = re.search(r"listening on (\S+),", process.stderr.readline())
        assert said is not None
        yield f"http://{said[1]}"
    finally:
        process.kill()
        process.communicate()
