"""Where built things are kept: outside the checkout, shared by all clones.

A thing lies under a key made from everything that went into it, so it is never
stale: other inputs give another key. It appears by renaming, so it is either
whole or absent, and a file lock keeps two runs from building it twice.
"""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from e2e.cluster.progress import say


def folder() -> Path:
    if chosen := os.environ.get("DRAFTMARK_CACHE"):
        return Path(chosen).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser().absolute() / "draftmark"


@contextmanager
def lock(name: str) -> Iterator[None]:
    """Hold a lock by name among all processes of this user; released by the kernel if we are killed."""
    path = folder() / "locks" / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not inheritable (Python's default): a daemon started under the lock must not keep it.
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"  waiting for another run that holds {path}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def build_once(path: Path, build: Callable[[Path], None]) -> Path:
    """Return `path`, which `build` makes first if it is not there yet.

    Args:
        build: Makes a file or folder at the path that it is given, on the same
            file system. What a killed run left there is gone.
    """
    if path.exists():
        return path
    with lock(f"{path.parent.name}-{path.name}"):
        if path.exists():
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        _remove(partial)
        try:
            build(partial)
            partial.rename(path)
        finally:
            _remove(partial)
    return path


def key(*parts: str) -> str:
    """Name content by its hash, short enough for an image tag."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part.encode()).digest())
    return digest.hexdigest()[:16]


def files_key(root: Path, files: Iterable[Path]) -> str:
    """Name files by their paths under `root`, executable bits and content."""
    return key(
        *(
            f"{file.relative_to(root)} {os.access(file, os.X_OK)} {hashlib.sha256(file.read_bytes()).hexdigest()}"
            for file in sorted(files)
        )
    )


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
