"""The HAProxy of the gateway's image as a program of this machine, for tests and benchmarks on loopback.

It is unpacked from the image's root file system, so that what is tested is what is shipped.
"""

from pathlib import Path

from e2e.cluster.images import HAPROXY
from e2e.cluster.unpacked import unpack


def program() -> Path:
    """Return HAProxy, unpacked before if need be. It must be started by this absolute path."""
    return unpack(HAPROXY, "usr/sbin/haproxy") / "haproxy"
