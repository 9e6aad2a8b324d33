"""The blocks of an order, with the packages of the Benchmark's image: `bench.noise` starts it.

`python -m bench.noise_blocks ORDER BLOCKS`: the files of `measure.order.Order` and of the list of `measure.samples.Block`.
"""

import asyncio
import sys
from pathlib import Path

from pydantic import TypeAdapter

from draftmark.benchmark_runner import load
from draftmark.benchmark_runner.problem import RunRefused
from draftmark.benchmark_runner.run import Environment, Run
from draftmark.measure.order import Order
from draftmark.measure.result import Progress
from draftmark.measure.samples import Block


def main() -> int:
    order, blocks = map(Path, sys.argv[1:])
    load.prepare()
    said = -1

    def tell(progress: Progress) -> None:
        nonlocal said
        if progress.percent // 10 != said:
            said = progress.percent // 10
            print(f"  {progress.percent} %, {progress.stage}", file=sys.stderr, flush=True)

    run = Run(Order.model_validate_json(order.read_bytes()), Environment(allow_loopback=True), tell)
    try:
        found = asyncio.run(run.blocks())
    except RunRefused as refused:
        print(f"{refused.refusal.code}: {refused.refusal.message}", file=sys.stderr)
        return 1
    blocks.write_bytes(TypeAdapter(tuple[Block, ...]).dump_json(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
