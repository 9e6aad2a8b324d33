"""How much the latencies of one engine scatter that nobody changes: inside a block, from block to block, and in the long run.

A real llama-server on the loopback, started as the operator starts it, with a model of random weights that is large enough that the
engine has to work for each token, is measured by the Benchmark's own program, with the packages of its image: two workloads
under a few loads, some blocks of each. Engine and client have one core each where there are two. `--standin` measures the stand-in,
whose latencies are known and do not scatter, and so what client and machine add.

`bench.comparisons` takes its noise from what this writes: all blocks (`--out`), or their levels alone (`--record`), as
bench/noise.json has them.
Run: `python -m bench.noise --out FILE [--rounds 8] [--seconds 25] [--concurrency 1 2] [--record FILE] [--standin]`.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
from pydantic import TypeAdapter

from bench.comparisons import Level, Record, Served, measured_levels, scatter, simulate_blocks
from bench.data_path import running, until
from draftmark.engines.llama_cpp import LlamaCpp
from draftmark.measure.evaluate import evaluate
from draftmark.measure.order import FromClaim, Lengths, Load, Order, OrderedTarget, OrderedWorkload, TargetFacts
from draftmark.measure.rows import METRICS, medians_and_rate
from draftmark.measure.samples import Block
from e2e import benchmark_packages, tiny_gguf, tiny_llama
from e2e.cluster.images import LLAMA_CPP, REPOSITORY
from e2e.cluster.unpacked import unpack
from e2e.ports import free_ports
from tests.benchmark_runner.orders import VLLM_COUNTERS
from tests.benchmark_runner.standins import standin

MODEL: Final = "tiny"
#: 13 million parameters of 32 bits: a token takes one core some milliseconds, as with larger models on larger machines.
SHAPE: Final = tiny_gguf.Shape(layers=4, width=512, heads=8, feed_forward=1408)
MODEL_SAID: Final = (
    f"random weights, F32: {SHAPE.layers} layers, hidden size {SHAPE.width}, feed-forward {SHAPE.feed_forward}"
)
#: A prompt as that of the `chat` preset, and one with which reading it takes longer than answering. Answers are short enough for
#: some twenty in a block of 25 s.
WORKLOADS: Final = (
    OrderedWorkload(name="short", prompt=Lengths(mean=200), output=Lengths(mean=100)),
    OrderedWorkload(name="long", prompt=Lengths(mean=800), output=Lengths(mean=50)),
)
WARM_UP_S: Final = 8.0
#: Latencies of the stand-in.
STANDIN_MS: Final = {"STANDIN_FIRST_TOKEN_MS": "200", "STANDIN_TOKEN_MS": "10"}
#: Blocks that are simulated to see whether the noise that was read gives what was seen.
SIMULATED: Final = 400


@contextmanager
def llama_server(folder: Path, slots: int) -> Iterator[OrderedTarget]:
    """Debian's llama-server, as its image has it."""
    root = unpack(LLAMA_CPP, "usr/bin/llama-server") / "root"
    (libraries,) = (root / "usr" / "lib").glob("*-linux-gnu")
    (loader,) = (root / "lib64").glob("ld-linux-*.so.*")
    (port,) = free_ports(1)
    model, log = tiny_gguf.write(folder / "model.gguf", shape=SHAPE), folder / "engine.log"
    command = [str(loader), "--library-path", f"{libraries}:{libraries / 'llama'}", str(root / "usr/bin/llama-server")]
    command += ["--host", "127.0.0.1", "--port", str(port), "--alias", MODEL, "--model", str(model)]
    command += ["--ctx-size", str(2048 * slots), "--parallel", str(slots), "--fit", "off", "--metrics"]
    # What the operator says for a limit of one core: the other one is the client's.
    command += ["--threads", "1", "--cache-ram", "64"]
    url = f"http://127.0.0.1:{port}"
    # It looks for the code for this processor in its own folders, which are another machine's here, and in the present one.
    with running(["env", f"--chdir={libraries / 'ggml' / 'backends0'}", *command], log):
        until(lambda: httpx.get(f"{url}/health").is_success, "llama-server", log)
        yield OrderedTarget(
            label="target",
            url=url,
            model=MODEL,
            tokenizer=FromClaim(path=str(model)),
            metrics_urls=(f"{url}/metrics",),
            counters=LlamaCpp().counters,
            facts=TargetFacts(engine="llama-server", version=httpx.get(f"{url}/props").json()["build_info"]),
        )


@contextmanager
def known(folder: Path) -> Iterator[OrderedTarget]:
    """The stand-in."""
    tokenizer = tiny_llama.write(folder / "tokenizer")
    with standin(tokenizer, **STANDIN_MS) as url:
        yield OrderedTarget(
            label="target",
            url=url,
            model=MODEL,
            tokenizer=FromClaim(path=str(tokenizer)),
            metrics_urls=(f"{url}/metrics",),
            counters=VLLM_COUNTERS,
            facts=TargetFacts(engine="the stand-in", version=", ".join(f"{k}={v}" for k, v in STANDIN_MS.items())),
        )


def measure(order: Order, folder: Path) -> tuple[Block, ...]:
    """All blocks of the order.

    Raises:
        subprocess.CalledProcessError: There are none; why was printed.
    """
    asked, found = folder / "order.json", folder / "blocks.json"
    asked.write_text(order.model_dump_json(by_alias=True))
    environment = benchmark_packages.environment()
    environment["PYTHONPATH"] += f":{REPOSITORY}"
    command = [os.path.realpath(sys.executable), "-S", "-m", "bench.noise_blocks", str(asked), str(found)]
    subprocess.run(command, check=True, env={**environment, "HOME": str(folder)})
    return TypeAdapter(tuple[Block, ...]).validate_json(found.read_bytes())


def order_of(target: OrderedTarget, arguments: argparse.Namespace) -> Order:
    return Order(
        benchmark="noise",
        namespace="bench",
        uid="noise",
        job="noise",
        targets=(target,),
        workloads=WORKLOADS,
        loads=tuple(Load(concurrency=each) for each in arguments.concurrency),
        warm_up_s=WARM_UP_S,
        duration_s=arguments.seconds,
        repetitions=arguments.rounds,
        result_config_map="none",
    )


def tell(level: Level, seconds: float) -> None:
    """Print what was seen; beside the scatter of blocks what comes out when blocks are simulated with the noise that was read."""
    noise = level.noise
    print(
        f"{level.workload}, {level.load}: {level.requests:.1f} answers per block of {level.tokens} tokens, "
        f"TTFT {level.ttft_ms:.1f} ms, ITL {level.itl_ms:.2f} ms"
    )
    print(f"  inside a block: TTFT {100 * noise.request_ttft:.2f} %, ITL {100 * noise.request_itl:.2f} %")
    served = Served(
        workload=level.workload,
        load=Load(concurrency=int(level.load.split()[1])),
        ttft_s=level.ttft_ms / 1000,
        itl_s=level.itl_ms / 1000,
        tokens=level.tokens,
    )
    blocks = simulate_blocks(np.random.default_rng(7), served, noise, SIMULATED, seconds=seconds)
    # Where noise is large, some blocks have no answer at all.
    simulated = scatter([medians_and_rate(block, served.load) for block in blocks if len(block.sent)])
    print(
        "  blocks scatter: "
        + ", ".join(f"{m} {100 * level.scatter[m]:.2f} % (simulated {100 * simulated[m]:.2f})" for m in METRICS)
    )


def rounded(value: Any) -> Any:
    """Four digits of all numbers: the others say nothing."""
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(each) for each in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def machine() -> str:
    """Cores and processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{os.cpu_count()} cores, {model}"


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """Seconds since the machine started, of all cores together."""

    all: float
    idle: float
    steal: float


def cpu_times() -> CpuTimes:
    # Source: proc(5), /proc/stat: user nice system idle iowait irq softirq steal; guests are in user and nice already.
    numbers = [int(word) / os.sysconf("SC_CLK_TCK") for word in Path("/proc/stat").read_text().split()[1:9]]
    return CpuTimes(all=sum(numbers), idle=numbers[3] + numbers[4], steal=numbers[7])


def own_s() -> float:
    """CPU seconds of this process and of all that have ended below it. Workers of the load generator are missing, which a process
    of its own waits for."""
    return sum(os.times()[:4])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="file for the blocks")
    parser.add_argument("--record", type=Path, help="file for the levels")
    parser.add_argument("--rounds", type=int, default=8, help="blocks of each workload and load")
    parser.add_argument("--seconds", type=float, default=25, help="of a block")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--standin", action="store_true", help="measure the stand-in")
    arguments = parser.parse_args()
    at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    began, own = cpu_times(), own_s()
    with tempfile.TemporaryDirectory(prefix="noise-") as name:
        folder = Path(name)
        engine = known(folder) if arguments.standin else llama_server(folder, max(arguments.concurrency))
        with engine as target:
            order = order_of(target, arguments)
            blocks = measure(order, folder)
    ended, own = cpu_times(), own_s() - own
    total, stolen = ended.all - began.all, ended.steal - began.steal
    others = total - (ended.idle - began.idle) - stolen - own
    arguments.out.write_bytes(TypeAdapter(tuple[Block, ...]).dump_json(blocks))
    print(
        f"{target.facts.engine} {target.facts.version} on {machine()}; {arguments.rounds} blocks of {arguments.seconds:g} s of each"
    )
    beside = (
        f"other work, the kernel's and the client's workers took {100 * others / total:.1f} % of all cores, other machines "
        f"{100 * stolen / total:.2f} % (steal)"
    )
    print(beside)
    result = evaluate(order, blocks, began=at, ended=at, tool="bench.noise")
    for row in result.rows:
        if row.refusal is not None:
            print(f"{row.workload}, {row.load} is refused: {row.refusal.code}: {row.refusal.message}")
    levels = measured_levels(blocks)
    noise = levels[0].noise
    print(
        f"from block to block, of all together: TTFT {100 * noise.block_ttft:.2f} %, ITL {100 * noise.block_itl:.2f} % "
        f"(in common {noise.shared:.2f}); drift {100 * noise.drift:.2f} %"
    )
    if arguments.record is not None:
        record = Record(
            engine=f"{target.facts.engine} {target.facts.version}",
            model=MODEL_SAID,
            machine=machine(),
            beside=beside,
            measured=at,
            blocks=arguments.rounds,
            seconds=arguments.seconds,
            levels=levels,
        )
        arguments.record.write_text(json.dumps(rounded(asdict(record)), indent=2) + "\n")
    for level in levels:
        tell(level, arguments.seconds)


if __name__ == "__main__":
    main()
