"""The processes of pods, where the node is this machine."""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tests.e2e.api import Json


def command_in(pod: Json, program: str) -> str:
    """A command that runs a program as the pod's container sees it: hundreds of runs would take minutes by exec."""
    pid = _main_process(pod)
    return f"nsenter --mount=/proc/{pid}/ns/mnt --root=/proc/{pid}/root {program}"


def kill_nine(pod: Json) -> None:
    """Kill the main process of a pod's only container, which learns nothing of it."""
    os.kill(_main_process(pod), signal.SIGKILL)


def kill_all_nine(pod: Json) -> None:
    """Kill every process of a pod's containers at once."""
    for pid in list(_processes(pod["metadata"]["uid"])):
        with suppress(FileNotFoundError, ProcessLookupError):
            if Path(f"/proc/{pid}/exe").readlink().name != "pause":
                os.kill(pid, signal.SIGKILL)


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


def most_resident_bytes(pod: Json) -> int:
    """The most memory that the pod's main process has had at once, pages of mapped files included."""
    status = Path(f"/proc/{_main_process(pod)}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))


def memory_mib(pod: Json) -> dict[str, float]:
    """Proportional set size of a pod's programs, in MiB, without the one that holds its namespaces."""
    found: dict[str, float] = {}
    for pid in _processes(pod["metadata"]["uid"]):
        program = Path(f"/proc/{pid}/exe").readlink().name
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        pss = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
        if program != "pause":
            found[program] = round(found.get(program, 0.0) + pss / 1024, 1)
    return found
