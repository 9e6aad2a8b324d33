"""What the load generator had of the machine: CPU time of its processes, and how long the kernel held them back.

CPU time comes from /proc, process by process: one worker that has a whole core is as saturated as a pod that has all it
may use, and the sum over the container would not show it. Bounds and throttling come from the cgroup, version 2 or 1.
"""

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from draftmark.measure.samples import Client

PROC: Final = Path("/proc")
CGROUPS: Final = Path("/sys/fs/cgroup")
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """CPU seconds at one moment."""

    at: float
    #: By process.
    processes: Mapping[int, float]


@dataclass(slots=True)
class ClientCpu:
    """Looks again and again during a block. `look` from one loop only."""

    proc: Path = PROC
    cgroups: Path = CGROUPS
    allowed: float = field(init=False)
    _last: Seen | None = None
    _most: float | None = None
    _throttled: float | None = None

    def __post_init__(self) -> None:
        self.allowed = allowed_cpus(self.cgroups, self.proc)

    def begin(self) -> None:
        """A block begins."""
        self._last, self._most = self._see(), None
        self._throttled = throttled_s(self.cgroups, self.proc)

    def look(self) -> None:
        """Some time has passed, best about a second: shorter stretches show a busy moment as a busy second."""
        seen = self._see()
        if self._last is not None and seen.at > self._last.at:
            share = share_between(self._last, seen, self.allowed)
            self._most = share if self._most is None else max(self._most, share)
        self._last = seen

    def end(self) -> Client:
        """The block is over."""
        now = throttled_s(self.cgroups, self.proc)
        held = now - self._throttled if now is not None and self._throttled is not None else None
        return Client(
            cpu_share=None if self._most is None else min(1.0, self._most),
            throttled_s=None if held is None else max(0.0, held),
        )

    def _see(self) -> Seen:
        return Seen(at=time.monotonic(), processes=dict(_processes(self.proc, os.getpid())))


def share_between(before: Seen, after: Seen, allowed: float) -> float:
    """CPU time over the CPU that was there: of all processes, or of the busiest one over one core, whichever is more."""
    passed = after.at - before.at
    used = {
        process: max(0.0, seconds - before.processes.get(process, 0.0)) for process, seconds in after.processes.items()
    }
    return max(sum(used.values()) / allowed, max(used.values(), default=0.0)) / passed


def allowed_cpus(cgroups: Path = CGROUPS, proc: Path = PROC) -> float:
    """CPUs that this container may use: its limit, else those that it may run on."""
    cores = float(len(os.sched_getaffinity(0)))
    for folder in _folders(cgroups, proc, "cpu"):
        quota, period = _words(folder / "cpu.max"), 0.0
        if len(quota) == 2 and quota[0] != "max":
            period = float(quota[1])
            limit = float(quota[0])
        else:
            old, old_period = _words(folder / "cpu.cfs_quota_us"), _words(folder / "cpu.cfs_period_us")
            if not old or not old_period or float(old[0]) <= 0:
                continue
            limit, period = float(old[0]), float(old_period[0])
        if period > 0:
            cores = min(cores, limit / period)
    return cores


def throttled_s(cgroups: Path = CGROUPS, proc: Path = PROC) -> float | None:
    """Seconds for which the kernel held this container back since it began; None: not told."""
    for folder in _folders(cgroups, proc, "cpu"):
        try:
            lines = (folder / "cpu.stat").read_text().splitlines()
        except OSError:
            continue
        told = dict(line.split(" ", 1) for line in lines if " " in line)
        if "throttled_usec" in told:
            return float(told["throttled_usec"]) / 1e6
        if "throttled_time" in told:
            return float(told["throttled_time"]) / 1e9
    return None


def _folders(cgroups: Path, proc: Path, controller: str) -> Iterator[Path]:
    """Where this process's cgroup may be seen, the likeliest first: its path below the mount on a machine, the mount
    itself in a container, where the path is that of the host or of nothing."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        number, controllers, path = line.split(":", 2)
        names = controllers.split(",")
        if number == "0" or controller in names:
            mount = cgroups if number == "0" else cgroups / controllers
            mounts = [mount] if mount.is_dir() else [cgroups / each for each in names if (cgroups / each).is_dir()]
            for each in mounts:
                yield each / path.lstrip("/")
                yield each


def _processes(proc: Path, root: int) -> Iterator[tuple[int, float]]:
    """CPU seconds of a process and all below it."""
    parents: dict[int, int] = {}
    seconds: dict[int, float] = {}
    for entry in os.scandir(proc):
        if not entry.name.isdigit():
            continue
        try:
            text = (proc / entry.name / "stat").read_text()
        except OSError:
            continue  # it has ended
        # The name of the program is in brackets and may have spaces and brackets in it.
        fields = text[text.rindex(")") + 2 :].split()
        process = int(entry.name)
        parents[process] = int(fields[1])
        # utime and stime. Not those of children that have ended (the next two): all that such a child ever used would
        # look like use of the second in which it ended. Source: proc(5), /proc/pid/stat.
        seconds[process] = (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
    for process, used in seconds.items():
        above, steps = process, 0
        while above not in (root, 0) and steps < len(parents):
            above, steps = parents.get(above, 0), steps + 1
        if above == root:
            yield process, used


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []
