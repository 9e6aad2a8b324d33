"""What gateway and router add to a request, against a direct connection to the engine in the same run.

HAProxy as the gateway's image has it, with a rendered configuration and its reloader; smg with the arguments of a
router's pod; the stand-in engine, which answers at once or after 200 ms. wrk keeps so many connections busy and sends
the next request when an answer is there. All of it shares this machine's cores, so requests/s at 0 ms say what the
whole chain costs in CPU, and only the ratios mean something elsewhere. The three ways take turns in short rounds, so
that a busy neighbour slows all of them.
Run: `python -m bench.data_path [--seconds 2.0] [--rounds 2] [--connections 1,16,128,1000]`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import httpx

from draftmark.api import names
from draftmark.render.gateway_config import Backend, GatewayConfig, GatewayPlace, render_gateway_config
from draftmark.render.router import router_args
from draftmark.traffic import read_traffic
from e2e.cluster import binaries, cache, haproxy, packages
from e2e.cluster.images import REPOSITORY
from e2e.ports import free_ports

WAITS_MS = (0, 200)
#: Seconds until something that was started answers.
START_S = 30
PATH = "/v1/chat/completions"
#: About 1 KB: a short chat.
BODY = json.dumps(
    {
        "model": "bench",
        "messages": [{"role": "user", "content": " ".join(f"word{i}" for i in range(140))}],
        "max_tokens": 8,
    }
)
#: wrk has no option for a body; and it tells percentiles of its choice only.
SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = io.open(os.getenv("BODY_FILE")):read("a")
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('\\n{"requests":%d,"us":%d,"errors":%d,"p50":%d,"p99":%d}\\n', summary.requests, summary.duration,
    e.connect + e.read + e.write + e.status + e.timeout, latency:percentile(50), latency:percentile(99)))
end
"""


@dataclass(frozen=True, slots=True)
class Round:
    """What wrk saw."""

    requests: int
    per_second: float
    errors: int
    p50_ms: float
    p99_ms: float


@contextmanager
def running(command: list[str], log: Path, **environment: str) -> Iterator[int]:
    """A process for the time of the block; its number."""
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **environment})
    try:
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:  # smg drains
            process.kill()
            process.wait()


def until(answers: Callable[[], bool], what: str, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while True:
        try:
            if answers():
                return
        except httpx.HTTPError:
            pass
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} does not answer after {START_S} s:\n{log.read_text()[-2000:]}")
        time.sleep(0.05)


def smg() -> Path:
    """smg in a virtual environment of its own, with the pins of the router's image."""
    pins = REPOSITORY / "images" / "router" / "requirements.txt"

    def build(target: Path) -> None:
        venv.create(target, with_pip=True)
        subprocess.run(
            [str(target / "bin" / "python"), "-m", "pip", "install", "--quiet", "--require-hashes", "-r", str(pins)],
            check=True,
        )

    key = cache.key(pins.read_text(), sys.version)
    return cache.build_once(cache.folder() / "bin" / f"smg-{key}", build) / "bin" / "python"


@contextmanager
def engine(folder: Path, wait_ms: int) -> Iterator[int]:
    """The stand-in; its port."""
    (port,) = free_ports(1)
    model, log = folder / "tiny.gguf", folder / "engine.log"
    model.write_bytes(b"GGUF")
    command = [str(binaries.STANDIN.build() / "llama-server"), "--port", str(port), "--model", str(model)]
    command += ["--alias", "bench", "--parallel", "4096", "--ctx-size", "4194304", "--metrics"]
    with running(command, log, STANDIN_FIRST_TOKEN_MS=str(wait_ms)):
        until(lambda: httpx.get(f"http://127.0.0.1:{port}/health").is_success, "the engine", log)
        yield port


@contextmanager
def router(folder: Path, engine_port: int) -> Iterator[tuple[int, int]]:
    """smg before one engine; its port and process."""
    port, metrics_port = free_ports(2)
    log = folder / "router.log"
    arguments = router_args("bench", "bench", "0" * 8, read_traffic(None), engine_port)
    # No cluster to look for pods in.
    arguments = arguments[: arguments.index("--service-discovery")]
    for option, value in (("--port", port), ("--prometheus-port", metrics_port)):
        arguments[arguments.index(option) + 1] = str(value)
    command = [str(smg()), "-m", "smg", "launch", *arguments, "--worker-urls", f"http://127.0.0.1:{engine_port}"]
    with running(command, log) as process:
        until(lambda: httpx.get(f"http://127.0.0.1:{port}/readiness").is_success, "the router", log)
        yield port, process


@contextmanager
def gateway(folder: Path, router_port: int) -> Iterator[tuple[int, int, int]]:
    """HAProxy before the router, and the reloader beside it; its port, its process and the reloader's."""
    port, inner_port, metrics_port = free_ports(3)
    log, config, run = folder / "gateway.log", folder / "config", folder / "run"
    for each in (config, run):
        each.mkdir(exist_ok=True)
    place = GatewayPlace(
        config_folder=str(config),
        run_folder=str(run),
        host="127.0.0.1",
        port=port,
        inner_port=inner_port,
        metrics_port=metrics_port,
    )
    backend = Backend(revision="0" * 8, address="127.0.0.1", port=router_port, limit=4096, queue=0, weight=100)
    files = render_gateway_config(GatewayConfig(backends=(backend,), queue_timeout_s=30, request_timeout_s=600), place)
    for name, text in files.data.items():
        (config / name).write_text(text)
    command = [str(haproxy.program()), "-W", "-S", f"{run}/master.sock"]
    command += ["-f", f"{config}/limits.cfg", "-f", f"{config}/haproxy.cfg"]
    reloader = [sys.executable, "-m", "draftmark.gateway_reloader", str(config), str(run)]
    state = f"http://127.0.0.1:{inner_port}{names.GATEWAY_STATE_PATH}"
    with running(command, log) as process, running(reloader, log) as reloading:
        until(lambda: httpx.get(state).json()["config"] == files.config_version, "the gateway", log)
        yield port, process, reloading


def load(folder: Path, port: int, connections: int, seconds: float) -> Round:
    """Keep connections busy for some seconds."""
    url = f"http://127.0.0.1:{port}{PATH}"
    script, body = folder / "load.lua", folder / "body.json"
    script.write_text(SCRIPT)
    body.write_text(BODY)
    command = ["wrk", f"--threads={min(2, connections)}", f"--connections={connections}", f"--duration={seconds:g}s"]
    done = subprocess.run(
        [*command, "--timeout=20s", f"--script={script}", url],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "BODY_FILE": str(body)},
    )
    told = json.loads(done.stdout.strip().splitlines()[-1])
    return Round(
        requests=told["requests"],
        per_second=told["requests"] / told["us"] * 1e6,
        errors=told["errors"],
        p50_ms=told["p50"] / 1000,
        p99_ms=told["p99"] / 1000,
    )


def memory_mib(process: int) -> tuple[float, float]:
    """Resident memory of a process, and its share of it: pages that several processes have are divided by them."""
    kept = dict(line.split(":", 1) for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:])
    resident, share = (int(kept[name].split()[0]) / 1024 for name in ("Rss", "Pss"))
    return resident, share


def children(process: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def tell(wait_ms: int, connections: int, rounds: dict[str, list[Round]]) -> None:
    direct = rounds["direct"]
    p50, p99, rate = (median(getattr(each, name) for each in direct) for name in ("p50_ms", "p99_ms", "per_second"))
    line = f"{wait_ms:4} ms {connections:5} | {p50:8.2f} {p99:8.2f} {rate:8.0f}"
    for way in ("router", "gateway"):
        added50 = median(each.p50_ms for each in rounds[way]) - p50
        added99 = median(each.p99_ms for each in rounds[way]) - p99
        ratio = median(each.per_second for each in rounds[way]) / rate
        line += f" | {added50:+8.2f} {added99:+8.2f} {ratio:7.3f}"
    failed = {way: sum(each.errors for each in done) for way, done in rounds.items()}
    trouble = ", ".join(f"{count} errors {way}" for way, count in failed.items() if count)
    fewest = min(sum(each.requests for each in done) for done in rounds.values())
    print(line + f" | {fewest:8}" + (f"  {trouble}" if trouble else ""), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2, help="of one round")
    parser.add_argument("--rounds", type=int, default=2, help="of each way")
    parser.add_argument("--connections", default="1,16,128,1000")
    arguments = parser.parse_args()
    packages.ensure("wrk")
    print(
        f"{os.cpu_count()} cores for everything; {len(BODY)} bytes of request; engine, and wrk, keep connections open"
    )
    print("latency in ms, percentiles of a closed loop; requests/s as a ratio to direct; fewest requests of a way")
    print("                 |           direct           |       router added        |   gateway + router added  |")
    print(
        " engine   conns  |      p50      p99    req/s |      p50      p99  req/s  |      p50      p99  req/s  | requests"
    )
    used: list[str] = []
    with ExitStack() as always:
        # Sockets lie there, and their paths may be 107 characters long.
        folder = Path(always.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        for wait_ms in WAITS_MS:
            with ExitStack() as stack:
                engine_port = stack.enter_context(engine(folder, wait_ms))
                router_port, routing = stack.enter_context(router(folder, engine_port))
                gateway_port, proxying, reloading = stack.enter_context(gateway(folder, router_port))
                ways = {"direct": engine_port, "router": router_port, "gateway": gateway_port}
                processes = {"haproxy master": proxying, "haproxy worker": children(proxying)[-1]}
                processes |= {"reloader": reloading, "smg": routing}
                for port in ways.values():
                    load(folder, port, 8, 1)  # warm
                before = {name: memory_mib(process) for name, process in processes.items()}
                for connections in map(int, arguments.connections.split(",")):
                    rounds: dict[str, list[Round]] = {way: [] for way in ways}
                    for _ in range(arguments.rounds):
                        for way, port in ways.items():
                            rounds[way].append(load(folder, port, connections, arguments.seconds))
                    tell(wait_ms, connections, rounds)
                used = [
                    f"  {name:15} RSS {before[name][0]:6.1f} PSS {before[name][1]:6.1f};"
                    f" after the most connections RSS {rss:6.1f} PSS {pss:6.1f}"
                    for name, process in processes.items()
                    for rss, pss in (memory_mib(process),)
                ]
    print("memory in MiB, after a second of load:\n" + "\n".join(used))


if __name__ == "__main__":
    main()
