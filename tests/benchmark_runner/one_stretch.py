"""`python -m tests.benchmark_runner.one_stretch URL TOKENS`: a stretch of load whose end guidellm misses, and the number of its samples
and of the gaps in its answers.

Its thread that sends requests notes that it sends no more when all of them have been told of, and no sooner. On a busy machine
that happens by itself, in few of many stretches.
"""

import asyncio
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from guidellm.scheduler.worker_group import WorkerGroupState

from draftmark.benchmark_runner import load
from draftmark.benchmark_runner.prompts import Prompt
from draftmark.measure.order import Load

#: Seconds after which it is noted anyway: this must end, also where guidellm changes.
LATEST_S = 10.0


def miss_the_end(state: Any) -> None:
    """Make guidellm's WorkerGroupState note late that nothing more is sent."""
    telling = threading.Lock()
    received, note = state.received_callback, state.stop_send_requests_event.set

    def received_callback(update: Any) -> Any:
        """Compares the counts; not while it is decided whether all have been told of."""
        with telling:
            return received(update)

    def note_late() -> None:
        latest = time.monotonic() + LATEST_S
        while time.monotonic() < latest:
            with telling:
                if state._state.processed_requests == state._state.created_requests:
                    break
            time.sleep(0.001)
        note()

    state.received_callback = received_callback
    # Of this one event: guidellm passes it on to others as well.
    state.stop_send_requests_event.set = note_late


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
    made = WorkerGroupState.__init__

    def make(self: Any, *args: Any, **kwargs: Any) -> None:
        """As it is made, and then late."""
        made(self, *args, **kwargs)
        miss_the_end(self)

    WorkerGroupState.__init__ = make
    load.prepare()
    asyncio.run(_run(sys.argv[1], int(sys.argv[2])))
