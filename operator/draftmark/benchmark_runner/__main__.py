"""The program: an order in a file, and a result in a ConfigMap. Its status is 0 when a result was written, even one
without numbers; else one line in the termination message says why there is none."""

import argparse
import asyncio
import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from types import FrameType

from pydantic import ValidationError

from draftmark.benchmark_runner import load
from draftmark.benchmark_runner.problem import RunRefused
from draftmark.benchmark_runner.publish import Api, NotPublished, Publisher
from draftmark.benchmark_runner.run import Environment, Run, now
from draftmark.measure.evaluate import evaluate
from draftmark.measure.order import Order, TargetFacts
from draftmark.measure.result import Refusal, Result, measured_targets

#: Where the kubelet looks for the message. Source: Kubernetes docs, "Determine the Reason for Pod Failure".
TERMINATION_LOG = "/dev/termination-log"
#: The kubelet keeps 4096 bytes; one line is enough. Source: the same page.
LONGEST_MESSAGE = 1000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, and return the exit status."""
    parser = argparse.ArgumentParser("draftmark.benchmark_runner", allow_abbrev=False)
    parser.add_argument("--order", required=True, type=Path)
    parser.add_argument("--termination-log", default=Path(TERMINATION_LOG), type=Path)
    args = parser.parse_args(arguments)

    def end(_number: int, _frame: FrameType | None) -> None:
        # At once: what has been measured is worth nothing without the rest. Workers would wait for orders for ever.
        for process in multiprocessing.active_children():
            process.kill()
        _say(args.termination_log, "It was told to end (SIGTERM) before there was a result.")
        os._exit(143)

    signal.signal(signal.SIGTERM, end)
    try:
        order = Order.model_validate_json(args.order.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        return _fail(args.termination_log, f"The order cannot be read: {error}")
    load.prepare()
    try:
        asyncio.run(_run(order))
    except NotPublished as error:
        return _fail(args.termination_log, f"The result was not written. {error}")
    except Exception as error:  # noqa: BLE001 -- whatever broke, the Job's owner wants to know it in one line
        return _fail(args.termination_log, f"The run broke: {type(error).__name__}: {error}", error)
    return 0


async def _run(order: Order) -> None:
    environment = Environment(
        hub_token=os.environ.get("HF_TOKEN", "").strip() or None,
        allow_loopback=os.environ.get("DRAFTMARK_ALLOW_LOOPBACK") == "1",
    )
    async with Publisher(order, Api.from_environment(os.environ)) as publisher:
        if await publisher.published():
            print("The result of this Job is there already.", flush=True)
            return
        began = now()
        tool = f"guidellm {version('guidellm')}"
        run = Run(order, environment, publisher.progress)
        try:
            blocks = await run.blocks()
        except RunRefused as refused:
            result = _refused(order, refused.refusal, run.facts, tool=tool, began=began)
        else:
            result = evaluate(order, blocks, tool=tool, began=began, ended=now(), facts=run.facts, notes=run.notes)
        if result.refusal is not None:
            print(f"{result.refusal.code}: {result.refusal.message}", flush=True)
        await publisher.result(result)


def _refused(order: Order, refusal: Refusal, facts: Mapping[str, TargetFacts], *, tool: str, began: str) -> Result:
    return Result(
        benchmark=order.benchmark,
        namespace=order.namespace,
        uid=order.uid,
        job=order.job,
        tool=tool,
        began=began,
        ended=now(),
        order=order,
        targets=measured_targets(order, facts),
        rows=(),
        refusal=refusal,
        notes=order.notes,
    )


def _fail(log: Path, message: str, error: BaseException | None = None) -> int:
    if error is not None:
        import traceback

        traceback.print_exception(error)
    print(message, file=sys.stderr, flush=True)
    _say(log, message)
    return 1


def _say(log: Path, message: str) -> None:
    try:
        log.write_text(" ".join(message.split())[:LONGEST_MESSAGE], "utf-8")
    except OSError as problem:
        print(f"{log} cannot be written: {problem}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
