"""The processes of pods, where the node is this machine."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

from tests.e2e.api import Json


def command_in(pod: Json, program: str) -> str:
    """A command that runs a program as the pod's container sees it: hundreds of runs would take minutes by exec."""
    pid = _main_process(pod)
    return f"nsenter --mount=/proc/{pid}/ns/mnt --root=/proc/{pid}/root {program}"


def kill_nine(pod: Json) -> None:
    """Kill the main process of a pod's only container, which learns nothing of it."""
    os.kill(_main_process(pod), signal.SIGKILL)


def _main_process(pod: Json) -> int:
    """The oldest process of the pod that is not the one which holds its namespaces."""
    return min(pid for pid in _processes(pod["metadata"]["uid"]) if Path(f"/proc/{pid}/exe").readlink().name != "pause")


def _processes(uid: str) -> Iterator[int]:
    for entry in os.listdir("/proc"):
        try:
            # The kubelet names the cgroup of a pod after its uid.
            if entry.isdigit() and f"/pod{uid}/" in Path(f"/proc/{entry}/cgroup").read_text():
                yield int(entry)
        except (FileNotFoundError, ProcessLookupError):
            continue
