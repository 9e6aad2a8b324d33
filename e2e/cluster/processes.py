"""Start programs that outlive us, and find and end them again, also after we were killed.

No list of process ids is kept: a killed run leaves it incomplete, and a number
may by then belong to a stranger. A process is recognised by what it is: its
program lies in our cache and one of its arguments lies in the cluster's own
folders. That finds the daemons, and the shims that containerd starts.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path


def start(command: Sequence[str], *, log: Path, netns: Path | None = None, env: Mapping[str, str] | None = None) -> int:
    """Start a program in a session of its own, and return its process id.

    Args:
        netns: Network namespace to enter. `nsenter` and not `ip netns exec`:
            the latter mounts a new /sys, without the cgroups.
    """
    enter = ["nsenter", f"--net={netns}"] if netns else []
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as output:
        return subprocess.Popen(
            [*enter, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd="/",
            env={**os.environ, **(env or {})},
        ).pid


def is_running(pid: int) -> bool:
    """Whether it runs; a zombie does not (ours become zombies while the starter lives)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def belonging(programs: Path, folders: Sequence[Path]) -> dict[int, str]:
    """Find the running processes whose program lies in `programs` and that have an argument in one of `folders`.

    Returns:
        Process id to program name.
    """
    marks = [f"{folder}/" for folder in folders]
    found = {}
    for pid in _all():
        try:
            program = os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)")
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if program.startswith(f"{programs}/") and any(mark in arguments for mark in marks):
            found[pid] = Path(program).name
    return found


def kill(pids: Iterable[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def wait_for_end(pids: Iterable[int], timeout_s: float) -> None:
    """Wait until none of them runs.

    Raises:
        TimeoutError: Some still do.
    """
    deadline = time.monotonic() + timeout_s
    left = list(pids)
    while left := [pid for pid in left if is_running(pid)]:
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {left} do not end within {timeout_s:.0f} s of SIGKILL")
        time.sleep(0.02)


def _all() -> Iterator[int]:
    return (int(entry) for entry in os.listdir("/proc") if entry.isdigit())
