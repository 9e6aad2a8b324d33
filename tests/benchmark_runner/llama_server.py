"""llama-server as a process, from the root file system of its image."""

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from e2e.cluster.images import LLAMA_CPP
from e2e.cluster.unpacked import unpack
from e2e.ports import free_ports

#: Seconds for its start with a small model, on a busy machine.
_START_S = 60.0


@contextmanager
def llama_server(model: Path, *arguments: str, name: str = "tiny") -> Iterator[str]:
    """Start one and give its URL.

    Args:
        model: A GGUF file.
        arguments: Further ones.
        name: Of the model, in requests and answers.
    """
    root = unpack(LLAMA_CPP, "usr/bin/llama-server") / "root"
    # Its own libraries are in a folder that only its own file system has at the right place.
    (loader,), (libraries,) = root.glob("lib64/ld-linux-*.so.*"), root.glob("usr/lib/*-linux-gnu")
    program = [str(loader), "--library-path", f"{libraries}:{libraries / 'llama'}", str(root / "usr/bin/llama-server")]
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    command = [*program, "--host", "127.0.0.1", "--port", str(port), "--model", str(model), "--alias", name]
    command += ["--threads", "1", "--parallel", "2", "--ctx-size", "2048", "--fit", "off", "--metrics", *arguments]
    # It looks for the code of this machine's CPU in its own file system, and in the current folder.
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command,
            cwd=libraries / "ggml" / "backends0",
            env={"PATH": os.environ["PATH"]},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            until = time.monotonic() + _START_S
            while not _is_ready(url):
                if process.poll() is not None or time.monotonic() > until:
                    log.seek(0)
                    raise RuntimeError(f"llama-server is not ready: {log.read()[-2000:]}")
                time.sleep(0.1)
            yield url
        finally:
            process.kill()
            process.wait()


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5, trust_env=False).is_success
    except httpx.HTTPError:
        return False
