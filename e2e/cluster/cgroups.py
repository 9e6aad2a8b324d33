"""A cgroup of its own for the containers of a cluster, in version 1 and 2 and the mix of both."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

from e2e.cluster import processes

_V2_CONTROLLERS = ("cpuset", "cpu", "io", "memory", "hugetlb", "pids")


def create(name: str) -> None:
    """Make the folder in every hierarchy: the kubelet wants its `cgroupRoot` to exist."""
    for root, kind in _hierarchies():
        group = root / name
        group.mkdir(exist_ok=True)
        if kind == "cgroup2":
            _enable_controllers(root)
            _enable_controllers(group)
        elif (root / "cpuset.cpus").exists():
            # A version 1 cpuset begins empty, and nothing can run in it.
            for file in ("cpuset.cpus", "cpuset.mems"):
                (group / file).write_text((root / file).read_text())


def remove(name: str) -> None:
    """Kill everything in the cgroup, then remove it."""
    deadline = time.monotonic() + 20
    while pids := _members(name):
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {sorted(pids)} in cgroup /{name} do not end within 20 s of SIGKILL")
        processes.kill(pids)
        time.sleep(0.05)
    for folder in _folders(name):
        while folder.exists():
            try:
                folder.rmdir()
            except OSError:  # busy: the kernel lets go of the last process a moment after its end
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)


def _members(name: str) -> set[int]:
    members: set[int] = set()
    for folder in _folders(name):
        try:
            members.update(int(line) for line in (folder / "cgroup.procs").read_text().split())
        except OSError:  # gone meanwhile, or a threaded version 2 group, whose processes its parent lists
            continue
    return members


def _folders(name: str) -> Iterator[Path]:
    """Every folder of the cgroup, children before parents."""
    for root, _ in _hierarchies():
        for folder, _, _ in os.walk(root / name, topdown=False):
            yield Path(folder)


def _hierarchies() -> Iterator[tuple[Path, str]]:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, target, kind, *_ = line.split()
        if kind in ("cgroup", "cgroup2"):
            yield Path(target), kind


def _enable_controllers(group: Path) -> None:
    available = (group / "cgroup.controllers").read_text().split()
    for controller in _V2_CONTROLLERS:
        if controller in available:
            (group / "cgroup.subtree_control").write_text(f"+{controller}")
