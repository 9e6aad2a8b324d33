"""`python -m tests.benchmark_runner.one_stretch URL TOKENS`: a stretch of load whose end guidellm misses, and the number of its samples
and of the gaps in its answers.

Its thread that sends requests is held up after each: the last cancelled one is told before it has noted that it sends no more.
On a busy machine that happens by itself.
"""

import asyncio
import multiprocessing.queues
import sys
import time
from collections.abc import Iterator
from typing import Any

from draftmark.benchmark_runner import load
from draftmark.benchmark_runner.prompts import Prompt
from draftmark.measure.order import Load

#: Less than the 100 ms of silence after which guidellm looks at its time itself.
HELD_UP_S = 0.05


def _prompts(output_tokens: int) -> Iterator[Prompt]:
    while True:
        yield Prompt(text="a b c", tokens=3, output_tokens=output_tokens)


async def _run(url: str, output_tokens: int) -> None:
    sent = await load.send(
        url,
        "tiny",
        Load(concurrency=2),
        _prompts(output_tokens),
        seconds=1.0,
        requests=None,
        timeout_s=10.0,
        seed=1,
        cores=2.0,
    )
    print(f"samples: {len(sent.samples)}, gaps: {sum(sent.gaps_ms.values())}", flush=True)


if __name__ == "__main__":
    put = multiprocessing.queues.Queue.put

    def held_up(self: Any, *args: Any, **kwargs: Any) -> None:
        """As it is, and then some time."""
        put(self, *args, **kwargs)
        time.sleep(HELD_UP_S)

    multiprocessing.queues.Queue.put = held_up  # type: ignore[method-assign]
    load.prepare()
    asyncio.run(_run(sys.argv[1], int(sys.argv[2])))
