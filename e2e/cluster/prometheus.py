"""Debian's Prometheus and promtool as programs of this machine, for the tests of rules and dashboard."""

from pathlib import Path

from e2e.cluster.images import RootFilesystem
from e2e.cluster.unpacked import unpack

_ROOT = RootFilesystem(suite="trixie", packages=("prometheus",))


def promtool() -> Path:
    """Return promtool, unpacked before if need be."""
    return _folder() / "promtool"


def server() -> Path:
    """Return Prometheus itself."""
    return _folder() / "prometheus"


def _folder() -> Path:
    return unpack(_ROOT, "usr/bin/promtool", "usr/bin/prometheus")
