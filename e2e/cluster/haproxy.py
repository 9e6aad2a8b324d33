"""The HAProxy of the gateway's image as a program of this machine, for tests and benchmarks on loopback.

It runs with the libraries of the image's root file system, so that what is tested is what is shipped, whatever Debian
this machine has.
"""

import tarfile
from pathlib import Path

from e2e.cluster import cache
from e2e.cluster.images import HAPROXY

# The master starts itself anew for a reload, by the name that it was started with: that must be this file again.
_PROGRAM = """#!/bin/sh
root=${0%/*}/root
exec "$root"/lib64/ld-linux-*.so.* --argv0 "$0" --library-path "$(echo "$root"/usr/lib/*-linux-gnu)" "$root/usr/sbin/haproxy" "$@"
"""


def program() -> Path:
    """Return HAProxy, unpacked before if need be. It must be started by this absolute path."""
    folder = cache.folder() / "bin" / f"haproxy-{cache.key(HAPROXY.key, _PROGRAM)}"
    return cache.build_once(folder, _unpack) / "haproxy"


def _unpack(target: Path) -> None:
    with tarfile.open(HAPROXY.build()) as archive:
        archive.extractall(target / "root", members=_libraries(archive), filter="fully_trusted")
    file = target / "haproxy"
    file.write_text(_PROGRAM)
    file.chmod(0o755)


def _libraries(archive: tarfile.TarFile) -> list[tarfile.TarInfo]:
    parts = ("usr/lib/", "usr/lib64/", "usr/sbin/haproxy")
    kept = [each for each in archive if each.name.removeprefix("./").startswith(parts)]
    # Debian's /lib and /lib64 are links into /usr.
    return [*kept, *(each for each in archive if each.name.removeprefix("./") in ("lib", "lib64", "usr"))]
