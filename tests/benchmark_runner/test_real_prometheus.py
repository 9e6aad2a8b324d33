"""What GPUs held, from a real Prometheus that scrapes an exporter with the text of NVIDIA's DCGM exporter. Its numbers are made up."""

import time
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from draftmark.benchmark_runner.accelerator_memory import METRIC, PeakMemory, Span
from draftmark.measure.order import AcceleratorMemory
from tests.monitoring.server import ask, running

pytestmark = pytest.mark.integration

MIB = 2**20
#: MiB of a service's three GPUs, one stage after the other. Their highest are not at one moment.
STAGES = ((10_000, 12_000, 9_000), (30_000, 12_000, 9_000), (10_000, 20_000, 9_000))
#: Pods that have a GPU each or, the first, two. The last two are others'.
PODS = ("tiny-0", "tiny-0", "tiny-1", "other-0", "tiny-0")
WAYS = ("kept", "renamed")


class _Exporter(BaseHTTPRequestHandler):
    """A path for each way that Prometheus may treat the labels; the pods' namespace is named by it."""

    stage = 0

    def do_GET(self) -> None:
        way = self.path.strip("/")
        namespaces = (way, way, way, way, "elsewhere")
        lines = [f"# HELP {METRIC} Framebuffer memory used (in MiB).", f"# TYPE {METRIC} gauge"]
        for i, mebibytes in enumerate((*STAGES[self.stage], 77_000, 78_000)):
            gpu = f'gpu="{i}",UUID="GPU-{way}-{i}",pci_bus_id="00000000:0{i}:00.0",device="nvidia{i}",modelName="NVIDIA L4",Hostname="n"'
            pod = f'container="engine",namespace="{namespaces[i]}",pod="{PODS[i]}"'
            lines.append(f"{METRIC}{{{gpu},{pod}}} {mebibytes}")
        body = ("\n".join(lines) + "\n").encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus that has scraped every stage. It keeps the exporter's labels in one job (honor_labels), and renames them in the
    other, as with the monitor of NVIDIA's GPU Operator."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Exporter)
    Thread(target=server.serve_forever, daemon=True).start()
    of_the_exporter = {"namespace": "gpu-operator", "pod": "nvidia-dcgm-exporter-x7k2p", "container": "exporter"}
    scrape = [
        {
            "job_name": way,
            "metrics_path": f"/{way}",
            "honor_labels": way == "kept",
            "static_configs": [{"targets": [f"127.0.0.1:{server.server_address[1]}"], "labels": of_the_exporter}],
        }
        for way in WAYS
    ]
    until = f"min(count_over_time({METRIC}[1m])) > 1"
    folder = tmp_path_factory.mktemp("prometheus")
    with closing(server.socket), running(scrape, folder, every="500ms", until=until) as found:
        for _Exporter.stage, held in enumerate(STAGES):
            deadline = time.monotonic() + 30
            while not all(_Exporter.stage in times(found, way) for way in WAYS):
                assert time.monotonic() < deadline, held
                time.sleep(0.2)
        yield found
        server.shutdown()


def times(url: str, way: str) -> dict[int, list[float]]:
    """When each stage was scraped, as Prometheus has it."""
    of_gpu = [
        [(at, int(text)) for at, text in found["values"]]
        for found in sorted(
            ask(url, f'{METRIC}{{UUID=~"GPU-{way}-[01]"}}[2m]'), key=lambda each: each["metric"]["UUID"]
        )
    ]
    seen: dict[int, list[float]] = {}
    for (at, first), (_, second) in zip(*of_gpu, strict=True):
        (stage,) = (number for number, held in enumerate(STAGES) if held[:2] == (first, second))
        seen.setdefault(stage, []).append(at)
    return seen


@pytest.mark.parametrize("way", WAYS)
async def test_the_peak_is_found_in_the_block_it_was_in(url: str, way: str, capsys: pytest.CaptureFixture[str]) -> None:
    stages = times(url, way)
    blocks = [Span(began=stages[number][0] - 0.01, ended=stages[number][-1] + 0.01) for number in range(len(STAGES))]
    whole = Span(began=blocks[0].began, ended=blocks[-1].ended)
    # Less than a scrape: the sample before it is not its own, though Prometheus would still take it for the latest.
    between = Span(began=stages[0][-1] + 0.01, ended=stages[1][0] - 0.01)
    assert ask(url, f'{METRIC}{{UUID="GPU-{way}-0"}} @ {between.ended:.3f}')

    def source(*pods: str, accelerators: int) -> AcceleratorMemory:
        return AcceleratorMemory(prometheus=url, namespace=way, pods=pods, accelerators=accelerators)

    async with PeakMemory() as memory:
        both = source("tiny-0", "tiny-1", accelerators=3)
        assert await memory.of(both, blocks) == [31_000 * MIB, 51_000 * MIB, 39_000 * MIB]
        assert await memory.of(both, [whole, between]) == [51_000 * MIB, None]
        assert await memory.of(source("tiny-1", accelerators=1), [whole]) == [9_000 * MIB]
        assert capsys.readouterr().out == ""
        assert await memory.of(both, [between]) == [None]
        assert await memory.of(source("tiny-0", "tiny-1", accelerators=4), [whole]) == [None]
        assert await memory.of(source("tiny-.", "tiny", accelerators=3), [whole]) == [None]
    said = capsys.readouterr().out.splitlines()
    assert [("has 0 samples" in line, "of 3 GPUs of" in line) for line in said] == [
        (True, False),
        (False, True),
        (True, False),
    ]
