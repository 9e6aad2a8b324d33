"""Debian's programs as programs of this machine, without installing anything on it: for tests and benchmarks.

They run with the libraries of the root file system that they come from, so that what is tested is the same whatever
Debian this machine has, and no service is started.
"""

import tarfile
from collections.abc import Sequence
from pathlib import Path

from e2e.cluster import cache
from e2e.cluster.images import RootFilesystem

# HAProxy's master starts itself anew for a reload, by the name that it was started with: that must be this file again.
_WRAPPER = """#!/bin/sh
root=${0%/*}/root
exec "$root"/lib64/ld-linux-*.so.* --argv0 "$0" --library-path "$(echo "$root"/usr/lib/*-linux-gnu)" "$root/PROGRAM" "$@"
"""


def unpack(root: RootFilesystem, *programs: str) -> Path:
    """Return a folder with the programs, by their file names. They must be started by their absolute paths.

    Args:
        root: Where they come from.
        programs: Their paths in it, such as usr/sbin/haproxy. The first one names the folder.
    """
    name = Path(programs[0]).name
    folder = cache.folder() / "bin" / f"{name}-{cache.key(root.key, _WRAPPER, *programs)}"
    return cache.build_once(folder, lambda target: _unpack(target, root, programs))


def _unpack(target: Path, root: RootFilesystem, programs: Sequence[str]) -> None:
    with tarfile.open(root.build()) as archive:
        archive.extractall(target / "root", members=_needed(archive, programs), filter="fully_trusted")
    for program in programs:
        file = target / Path(program).name
        file.write_text(_WRAPPER.replace("PROGRAM", program))
        file.chmod(0o755)


def _needed(archive: tarfile.TarFile, programs: Sequence[str]) -> list[tarfile.TarInfo]:
    parts = ("usr/lib/", "usr/lib64/", *programs)
    kept = [each for each in archive if each.name.removeprefix("./").startswith(parts)]
    # Debian's /lib and /lib64 are links into /usr.
    return [*kept, *(each for each in archive if each.name.removeprefix("./") in ("lib", "lib64", "usr"))]
