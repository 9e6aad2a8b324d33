"""The packages of the Benchmark's image in a folder of the cache: for tests that run its program without a container.

They are those that images/benchmark/requirements.txt pins, and the program is this checkout's.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from e2e.cluster import cache
from e2e.cluster.images import REPOSITORY
from e2e.cluster.progress import step

REQUIREMENTS: Final = REPOSITORY / "images" / "benchmark" / "requirements.txt"
#: What the image sets, too.
_ENVIRONMENT: Final = {
    "HF_HUB_OFFLINE": "1",
    "USE_TORCH": "0",
    "TRANSFORMERS_VERBOSITY": "error",
    "GUIDELLM__LOGGING__CONSOLE_LOG_LEVEL": "WARNING",
}


def folder() -> Path:
    """The folder; made first if it is not there yet."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    key = cache.key(REQUIREMENTS.read_text(), version)
    return cache.build_once(cache.folder() / "benchmark-packages" / key, _install)


def command(*arguments: str) -> Sequence[str]:
    """The command line of the program. -S: without the packages that this machine has, and the image may not."""
    return [os.path.realpath(sys.executable), "-S", "-m", "draftmark.benchmark_runner", *arguments]


def environment() -> dict[str, str]:
    """Variables under which Python finds it, and nothing of the packages of this checkout."""
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{REPOSITORY / 'operator'}:{folder()}",
        "PYTHONDONTWRITEBYTECODE": "1",
        **_ENVIRONMENT,
    }


def _install(target: Path) -> None:
    with step("installing the packages of the benchmark's image", slow=True):
        subprocess.run(
            [
                Path(sys.executable).with_name("uv"),
                "pip",
                "install",
                "--quiet",
                f"--python={sys.executable}",
                "--no-deps",
                "--require-hashes",
                "--compile-bytecode",
                f"--target={target}",
                f"--requirements={REQUIREMENTS}",
            ],
            check=True,
        )
