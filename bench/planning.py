"""How long a plan takes: a model of 70 B parameters on 1,000 nodes, and `draftmark render` as a user runs it.

The design asks for less than 20 ms, and for less than half a second.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from draftmark.facts.nodes import read_nodes
from tests.planner.plan_cases import GPUS, LLAMA_70B, PlanCase, node

NODES: Final = 1000
TIMES: Final = 50
_SERVICE: Final = """
apiVersion: draftmark.dev/v1alpha1
kind: InferenceService
metadata: {name: llama, namespace: models}
spec:
  model: {uri: "hf://meta-llama/Llama-3.1-70B"}
  engine: {name: vllm}
  accelerator: {product: NVIDIA-H100-80GB-HBM3}
"""


def main() -> None:
    names = sorted(GPUS)
    items = [node(f"n{i}", names[i % len(names)], labels={"zone": str(i % 7)}) for i in range(NODES)]
    began = time.perf_counter()
    nodes = read_nodes(items)
    print(f"reading {NODES} nodes: {time.perf_counter() - began:.3f} s, once")
    case = PlanCase("bench", LLAMA_70B, nodes=nodes)
    took = sorted(_seconds(case) for _ in range(TIMES))
    print(
        f"a plan over {NODES} nodes of {len(names)} kinds: median {statistics.median(took) * 1000:.1f} ms, "
        f"p95 {took[TIMES * 95 // 100] * 1000:.1f} ms, at most {took[-1] * 1000:.1f} ms"
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "service.yaml"
        file.write_text(_SERVICE)
        command = [sys.executable, "-m", "draftmark.cli", "render", "-f", str(file)]
        took = []
        for _ in range(10):
            began = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            took.append(time.perf_counter() - began)
    print(f"draftmark render of one service: median {statistics.median(took):.2f} s, at most {max(took):.2f} s")


def _seconds(case: PlanCase) -> float:
    began = time.perf_counter()
    case.plan()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
