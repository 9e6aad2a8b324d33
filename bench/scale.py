"""Many services on one operator: `python -m bench.scale [--services 5000]`.

The operator is the real process, `draftmark run`, with the API server of `bench.scale_server` on the loopback. Its own
processor time and memory are read from /proc, so the server's share does not count; the elapsed times hold both, on the
same cores.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from e2e.ports import free_ports

SPEC: dict[str, Any] = {
    "model": {"uri": "pvc://models/llama", "maxContextLength": 8192},
    "engine": {"name": "vllm"},
    "accelerator": {"product": "NVIDIA-L4"},
    # All that is decided is said: nobody is there to run a Job that reads the model.
    "parallelism": {"tensor": 1},
    "replicas": 2,
}
#: Edits that are timed, and the seconds between two.
EDITS, EDIT_EVERY_S = 200, 0.1
IDLE_S = 60
#: Seconds without another look at a service after which the last one was the last.
LAST_S = 5
#: Seconds without a write after which no rollout is under way: the queue's time-out of a service that names none is 30.
SETTLED_S = 45
#: Seconds that it takes to see that the operator is idle.
CALM_S = 2
EVENTS = 20_000
PATIENCE_S = 1800


class Server:
    """Whoever plays what is around the operator, in its own process.

    Attributes:
        told: What it said when it was ready.
    """

    def __init__(self, module: str, *arguments: str) -> None:
        command = [sys.executable, "-m", module, *arguments]
        self._process = subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.pid = self._process.pid
        self.told: dict[str, Any] = json.loads(self._read())

    def __call__(self, do: str = "tell", **more: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **more}) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._read())
        return answer

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the server of the benchmark has ended; its message is above")
        return line

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


@dataclass
class Running:
    """The operator's process."""

    process: subprocess.Popen[bytes]
    port: int

    def cpu_s(self) -> float:
        """Processor time so far.

        Raises:
            RuntimeError: It has ended. It must not count as idle.
        """
        if self.process.poll() is not None:
            raise RuntimeError(f"the operator has ended with {self.process.returncode}; its log is above")
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def peak_mib(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        [peak] = re.findall(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
        return int(peak) / 1024

    def metric(self, name: str) -> float:
        """The sum over a metric's series; 0 while the process does not answer."""
        try:
            url = f"http://127.0.0.1:{self.port}/metrics"
            text = httpx.get(url, params={"name[]": name}, timeout=30, trust_env=False).text
        except httpx.HTTPError:
            return 0.0
        return sum(float(v) for v in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE))

    def wait_until_idle(self) -> None:
        """Until two looks, a second apart (`CALM_S`), see less than a twentieth of a processor."""
        calm = 0
        while calm < 2:
            before = self.cpu_s()
            time.sleep(1)
            calm = calm + 1 if self.cpu_s() - before < 0.05 else 0


@contextmanager
def operator(cluster: dict[str, str], user: dict[str, str]) -> Iterator[Running]:
    """Run it, with a cluster and a user as a kubeconfig has them."""
    with tempfile.TemporaryDirectory() as folder:
        kubeconfig = Path(folder) / "kubeconfig"
        kubeconfig.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "bench", "cluster": cluster}],
                    "users": [{"name": "bench", "user": user}],
                    "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
                    "current-context": "bench",
                }
            )
        )
        port = free_ports(1)[0]
        command = [sys.executable, "-m", "draftmark.cli", "run", f"--kubeconfig={kubeconfig}", f"--http-port={port}"]
        process = subprocess.Popen([*command, "--log-level=warning"])
        try:
            yield Running(process, port)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


def until(holds: Any, every_s: float = 1.0) -> float:
    """Seconds until it holds."""
    began = time.monotonic()
    while not holds():
        if time.monotonic() - began > PATIENCE_S:
            raise RuntimeError(f"not within {PATIENCE_S} s")
        time.sleep(every_s)
    return time.monotonic() - began


def share(sorted_s: list[float], percent: int) -> float:
    return sorted_s[min(len(sorted_s) - 1, len(sorted_s) * percent // 100)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--services", type=int, default=5000)
    count = parser.parse_args().services
    server = Server("bench.scale_server")
    try:
        measure(server, count, {"server": server.told["url"]}, {})
    finally:
        server.stop()


def measure(
    server: Server,
    count: int,
    cluster: dict[str, str],
    user: dict[str, str],
    edit_every_s: float = EDIT_EVERY_S,
    after_phase: Callable[[Running], None] = lambda running: None,
) -> None:
    """Print a line or two for each phase.

    Args:
        edit_every_s: Seconds between two edits.
        cluster, user: How the operator reaches the API server, as a kubeconfig has them.
        after_phase: Called when the operator has come to rest after a phase.
    """
    server("add", count=count, spec=SPEC)

    with operator(cluster, user) as running:
        took = until(lambda: server()["ready"] == count)
        told = server()
        print(
            f"first start: {count} services of vLLM, 2 replicas each, Ready after {took:.0f} s; {told['objects']} objects, "
            f"{told['pods']} of them pods; {running.cpu_s():.0f} CPU seconds, peak {running.peak_mib():.0f} MiB",
            flush=True,
        )
        print(f"  writes: {_written(told)}", flush=True)
        running.wait_until_idle()
        after_phase(running)
        before, cpu = Counter(server()["writes"]), running.cpu_s()
        time.sleep(IDLE_S)
        written = Counter(server()["writes"]) - before
        print(
            f"idle for {IDLE_S} s: {sum(written.values())} writes, {running.cpu_s() - cpu:.2f} CPU seconds", flush=True
        )
        after_phase(running)

    with operator(cluster, user) as running:
        before, began = Counter(server()["writes"]), time.monotonic()
        looked_at = _until_looked_at(running, count)
        running.wait_until_idle()
        took = time.monotonic() - began - CALM_S
        written = Counter(server()["writes"]) - before
        print(
            f"restart: every service looked at after {looked_at:.0f} s, all gateways asked after {took:.0f} s; {sum(written.values())} writes, "
            f"{running.cpu_s():.0f} CPU seconds, peak {running.peak_mib():.0f} MiB",
            flush=True,
        )
        after_phase(running)

        cpu = running.cpu_s()
        edits = min(EDITS, count)
        for number in range(edits):
            server("edit", names=[f"s{number * (count // edits):05d}"], spec={"workload": {"concurrency": 7}})
            time.sleep(edit_every_s)
        until(lambda: len(server()["took"]) == edits)
        times = server()["took"]
        print(
            f"{edits} edits, one each {edit_every_s:g} s: new revision's objects created after p50 {share(times, 50):.3f} s, "
            f"p99 {share(times, 99):.3f} s, at most {times[-1]:.3f} s",
            flush=True,
        )
        _wait_until_settled(server)
        running.wait_until_idle()
        print(f"  until all were rolled out: {running.cpu_s() - cpu:.0f} CPU seconds", flush=True)
        after_phase(running)

        before, cpu, began = Counter(server()["writes"]), running.cpu_s(), time.monotonic()
        touched = min(EVENTS, server()["pods"])
        server("touch", count=touched)
        sent = time.monotonic() - began
        running.wait_until_idle()
        took = time.monotonic() - began - CALM_S
        written = Counter(server()["writes"]) - before
        print(
            f"{touched} pod events, sent within {sent:.0f} s: worked off within {took:.0f} s, "
            f"{running.cpu_s() - cpu:.1f} CPU seconds, "
            f"{sum(written.values())} writes; peak {running.peak_mib():.0f} MiB",
            flush=True,
        )
        after_phase(running)


def _until_looked_at(running: Running, count: int) -> float:
    """Seconds until the last of so many services was looked at.

    Keys of children are in the queue before the services are known, so that neither its depth nor the number of looks says
    that it was the last; it was if none follows.
    """
    began = time.monotonic()
    looks, since = 0.0, began
    while looks < count or time.monotonic() - since < LAST_S:
        if (now := running.metric("draftmark_reconcile_seconds_count")) != looks:
            looks, since = now, time.monotonic()
        time.sleep(0.5)
    return since - began


def _wait_until_settled(server: Server) -> None:
    """Until nothing was written for a while: a revision that was replaced goes when the gateways' queues are certainly
    empty."""
    before, since = server()["writes"], time.monotonic()
    while time.monotonic() - since < SETTLED_S:
        time.sleep(1)
        if (now := server()["writes"]) != before:
            before, since = now, time.monotonic()


def _written(told: dict[str, Any]) -> str:
    return ", ".join(f"{number} {what}" for what, number in sorted(told["writes"].items()))


if __name__ == "__main__":
    main()
