"""The run: targets and tokenizers first, then load stretch by stretch, then what may be concluded from it."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import httpx

from draftmark.benchmark_runner.accelerator_memory import PeakMemory, Span
from draftmark.benchmark_runner.addresses import check_address
from draftmark.benchmark_runner.bounded import read_at_most
from draftmark.benchmark_runner.client_cpu import ClientCpu
from draftmark.benchmark_runner.connections import keeps_connections
from draftmark.benchmark_runner.engine_metrics import EngineMetrics
from draftmark.benchmark_runner.load import ClockStepped, Sent, send
from draftmark.benchmark_runner.plan import Pace, Stretch, stretches_of
from draftmark.benchmark_runner.problem import RunRefused
from draftmark.benchmark_runner.prompts import (
    Prompt,
    Vocabulary,
    Watched,
    from_dataset,
    prompts,
    read_dataset,
    seed_of,
    try_lengths,
)
from draftmark.benchmark_runner.self_description import described
from draftmark.benchmark_runner.tokenizer import compare, get_tokenizer
from draftmark.measure.order import Order, OrderedTarget, TargetFacts
from draftmark.measure.result import Progress
from draftmark.measure.samples import Block, Client, Reading

__all__ = ["Environment", "Run"]

#: Seconds between two looks at the engine's metrics and at our own CPU.
LOOK_EVERY_S: Final = 1.0
#: Seconds for which an engine may go on with what was cut, before the next block begins; and between two looks.
REST_S: Final = 10.0
REST_LOOK_S: Final = 0.2
#: The same, once it has gone on for longer than that: there will be no result, and nobody shall wait long for none.
SHORT_REST_S: Final = 1.0
#: Seconds of rest where an engine does not tell what it does.
BLIND_REST_S: Final = 0.5
#: Seconds that a target may take to name its models, and tries.
ANSWER_S: Final = 10.0
TRIES: Final = 5
#: Longest list of models that is read, in bytes. A gateway of a thousand models has some 100 KB; a bound of ours, well above.
MAX_MODELS_BYTES: Final = 4 * 2**20
#: Stretches that are repeated because the clock was set.
MOST_REPEATED: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What the pod gives beside the order."""

    hub_token: str | None = None
    allow_loopback: bool = False


@dataclass(slots=True, kw_only=True)
class _Prepared:
    """A target that may be measured."""

    target: OrderedTarget
    vocabulary: Vocabulary
    metrics: EngineMetrics
    keeps_connections: bool
    #: By workload; and how many of them were taken, of which the last ones of a stretch may not have been sent.
    datasets: dict[str, Sequence[Prompt]] = field(default_factory=dict)
    sent: dict[str, int] = field(default_factory=dict)
    never_rests: bool = False


class Run:
    """One run of an order.

    Args:
        tell: Takes progress; returns at once.
    """

    def __init__(self, order: Order, environment: Environment, tell: Callable[[Progress], None]) -> None:
        self.order = order
        self.environment = environment
        self.stretches = stretches_of(order)
        self.pace = Pace(self.stretches)
        #: Of the targets that have answered, by their labels.
        self.facts: dict[str, TargetFacts] = {}
        #: Sentences for the result.
        self.notes: list[str] = []
        self.cpu = ClientCpu()
        self._tell = tell
        self._repeated = 0

    async def blocks(self) -> tuple[Block, ...]:
        """All blocks of the order, measured.

        Raises:
            RunRefused: There will be no numbers.
        """
        self._progress("Starting")
        for target in self.order.targets:
            for url in (target.url, *target.metrics_urls):
                await asyncio.to_thread(check_address, url, allow_loopback=self.environment.allow_loopback)
        async with contextlib.AsyncExitStack() as stack:
            prepared = dict[str, _Prepared]()
            for target in self.order.targets:
                owner = await _check_model(target)
                self.facts[target.label] = await described(target, owner)
                self._progress("Tokenizer")
                prepared[target.label] = await self._prepare(target, stack)
            memory = await stack.enter_async_context(PeakMemory())
            found = list[Block]()
            for _, row in groupby(self.stretches, key=lambda stretch: (stretch.workload.name, stretch.load.label)):
                found += await self._row(row, prepared, memory)
            for each in prepared.values():
                self.notes += _repeated(each)
        self._progress("Evaluating")
        return tuple(found)

    async def _prepare(self, target: OrderedTarget, stack: contextlib.AsyncExitStack) -> _Prepared:
        tokenizer = await asyncio.to_thread(get_tokenizer, target, token=self.environment.hub_token)
        await compare(tokenizer, target, [target.url, *dict.fromkeys(map(_base, target.metrics_urls))])
        metrics = await stack.enter_async_context(EngineMetrics(target.metrics_urls, target.counters))
        keeps = await keeps_connections(target.url, target.model)
        if not keeps:
            self.notes.append(
                f"{target.label}: each request had a connection of its own, for none was seen to be kept after an answer; TTFT and "
                "E2E hold the time of connecting."
            )
        prepared = _Prepared(
            target=target,
            vocabulary=await asyncio.to_thread(Vocabulary.of, tokenizer),
            metrics=metrics,
            keeps_connections=keeps,
        )
        for workload in self.order.workloads:
            if workload.dataset is not None:
                prepared.datasets[workload.name] = await asyncio.to_thread(read_dataset, workload, tokenizer)
            else:
                try_lengths(workload, prepared.vocabulary, job=self.order.job)
        return prepared

    async def _row(
        self, stretches: Iterable[Stretch], prepared: Mapping[str, _Prepared], memory: PeakMemory
    ) -> list[Block]:
        """The blocks of one row, of all targets, and what their accelerators held meanwhile."""
        found = list[tuple[Block, Span]]()
        for stretch in stretches:
            began = time.monotonic()
            block = await self._stretch(stretch, prepared[stretch.target.label])
            now_s = time.monotonic()
            self.pace.ended(stretch, now_s - began)
            if block is not None:
                # Now, and not at the end of the row: until then the wall clock may be set.
                to_wall = time.time() - now_s
                found.append((block, Span(began=block.began + to_wall, ended=block.ended + to_wall)))
        told = list[Block]()
        for label, each in prepared.items():
            mine = [(block, span) for block, span in found if block.target == label]
            source = each.target.memory
            peaks = await memory.of(source, [span for _, span in mine]) if source is not None else [None] * len(mine)
            told += [replace(block, peak_memory_bytes=peak) for (block, _), peak in zip(mine, peaks, strict=True)]
        return told

    async def _stretch(self, stretch: Stretch, prepared: _Prepared) -> Block | None:
        attempt = 0
        while True:
            try:
                return await self._once(stretch, prepared, attempt)
            except ClockStepped as stepped:
                attempt += 1
                self._repeated += 1
                if self._repeated > MOST_REPEATED:
                    raise RunRefused(
                        "ClockStepped",
                        f"{stepped}, again and again: no time can be told here. "
                        "Let the node's clock run evenly (its time service may slew it, not step it), or measure from another node (nodeSelector).",
                    ) from None

    async def _once(self, stretch: Stretch, prepared: _Prepared, attempt: int) -> Block | None:
        stage: Literal["WarmUp", "Measuring"] = "WarmUp" if stretch.is_warm_up else "Measuring"
        self._progress(stage, stretch)
        readings = [await _at_rest(prepared)]
        client = Client(cpu_share=None, throttled_s=None)
        asked = Watched(self._prompts(stretch, prepared, attempt))
        async with self._looking(stretch, stage, prepared.metrics, readings) as begin:
            try:
                sent = await send(
                    stretch.target.url,
                    stretch.target.model,
                    stretch.load,
                    asked,
                    seconds=stretch.seconds,
                    requests=stretch.requests,
                    timeout_s=self.order.request_timeout_s,
                    seed=seed_of(self.order.job, stretch.workload.name, stretch.load.label, stretch.round),
                    cores=self.cpu.allowed,
                    keeps_connections=prepared.keeps_connections,
                    began=begin,
                )
            except RuntimeError:
                if asked.failure is not None:
                    raise asked.failure from None
                raise
            client = self.cpu.end()
        if stretch.round is None:
            return None
        readings = [readings[0], *(each for each in readings[1:] if sent.began < each.at < sent.ended)]
        readings.append(await _at_rest(prepared))
        return _block(stretch, stretch.round, sent, readings, client)

    @contextlib.asynccontextmanager
    async def _looking(
        self, stretch: Stretch, stage: Literal["WarmUp", "Measuring"], metrics: EngineMetrics, readings: list[Reading]
    ) -> AsyncIterator[Callable[[], Any]]:
        """Look at the engine and at ourselves once a second while load is sent."""
        entered = time.monotonic()

        async def look() -> None:
            while True:
                await asyncio.sleep(LOOK_EVERY_S)
                self.cpu.look()
                self._progress(stage, stretch, time.monotonic() - entered)
                readings.append(await metrics.read())

        task: asyncio.Task[None] | None = None

        async def begin() -> None:
            nonlocal task
            self.cpu.begin()
            task = asyncio.create_task(look())

        try:
            yield begin
        finally:
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    def _prompts(self, stretch: Stretch, prepared: _Prepared, attempt: int) -> Iterator[Prompt]:
        name = stretch.workload.name
        if name not in prepared.datasets:
            return prompts(
                stretch.workload, prepared.vocabulary, job=self.order.job, stretch=stretch.number, attempt=attempt
            )
        return self._counted(name, prepared)

    def _counted(self, name: str, prepared: _Prepared) -> Iterator[Prompt]:
        # Each Job begins at another place: what an earlier one sent first, an engine may still have.
        first = seed_of(self.order.job, name, "first")
        for prompt in from_dataset(prepared.datasets[name], first + prepared.sent.get(name, 0)):
            prepared.sent[name] = prepared.sent.get(name, 0) + 1
            yield prompt

    def _progress(
        self,
        stage: Literal["Starting", "Tokenizer", "WarmUp", "Measuring", "Evaluating"],
        stretch: Stretch | None = None,
        running_s: float = 0.0,
    ) -> None:
        self._tell(
            Progress(
                job=self.order.job,
                stage=stage,
                workload=stretch.workload.name if stretch is not None else None,
                load=stretch.load.label if stretch is not None else None,
                percent=self.pace.percent(running_s),
                seconds_left=self.pace.seconds_left(running_s),
                at=now(),
            )
        )


def now() -> str:
    """RFC 3339, UTC, whole seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _repeated(prepared: _Prepared) -> Iterator[str]:
    """Sentences about data sets of which prompts were sent more than once. Where no engine tells what its cache had, nothing else
    says it."""
    for name, dataset in prepared.datasets.items():
        if prepared.sent.get(name, 0) > len(dataset):
            yield (
                f"{prepared.target.label}: the data set of workload {name} has {len(dataset)} prompts and up to {prepared.sent[name]} were "
                "sent: they repeat, and what an engine keeps of them makes TTFT shorter."
            )


def _block(stretch: Stretch, round_: int, sent: Sent, readings: Sequence[Reading], client: Client) -> Block:
    return Block(
        target=stretch.target.label,
        workload=stretch.workload.name,
        load=stretch.load.label,
        round=round_,
        began=sent.began,
        ended=sent.ended,
        samples=sent.samples,
        unfinished=sent.unfinished,
        gaps_ms=sent.gaps_ms,
        readings=tuple(readings),
        client=client,
    )


def _base(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


async def _at_rest(prepared: _Prepared) -> Reading:
    """A reading when nothing is under way, or the last one before patience ended: then it says what is."""
    metrics = prepared.metrics
    if not metrics.urls:
        await asyncio.sleep(BLIND_REST_S)
        return await metrics.read()
    until = time.monotonic() + (SHORT_REST_S if prepared.never_rests else REST_S)
    while True:
        reading = await metrics.read()
        busy = [each for each in (reading.running, reading.waiting) if each is not None]
        if not busy:
            await asyncio.sleep(BLIND_REST_S)
            return await metrics.read()
        if not any(busy):
            return reading
        if time.monotonic() > until:
            prepared.never_rests = True
            return reading
        await asyncio.sleep(REST_LOOK_S)


async def _check_model(target: OrderedTarget) -> str | None:
    """Ask for the target's models, and give the owner that it names of the one to be measured.

    Raises:
        RunRefused: It does not have the one to be measured, or does not answer.
    """
    why = ""
    async with httpx.AsyncClient(timeout=ANSWER_S, trust_env=False, follow_redirects=False) as client:
        for number in range(TRIES):
            if number:
                await asyncio.sleep(min(2.0**number, ANSWER_S))
            try:
                # httpx bounds each read, and an answer may come byte by byte.
                async with (
                    asyncio.timeout(ANSWER_S),
                    client.stream("GET", f"{target.url.rstrip('/')}/v1/models") as answer,
                ):
                    content = await read_at_most(answer, MAX_MODELS_BYTES) if answer.status_code == 200 else b""
                if content is None:
                    raise RunRefused(
                        "TargetUnreachable",
                        f"{target.url}/v1/models answers with more than {MAX_MODELS_BYTES} bytes, and is not read: it must list its "
                        "models there. Correct target.url, or look at what answers.",
                    )
                listed: Any = json.loads(content) if content else None
            except TimeoutError:
                why = f"no whole answer came within {ANSWER_S:g} s"
                continue
            except (httpx.HTTPError, httpx.InvalidURL, ValueError, RecursionError) as error:
                why = str(error) or type(error).__name__
                continue
            if listed is None:
                why = f"it answered {answer.status_code}"
                continue
            owners = _owners(listed)
            if target.model not in owners:
                raise RunRefused(
                    "ModelMissing",
                    f"{target.url} serves {', '.join(sorted(owners)[:8]) or 'no model'}, not {target.model}. "
                    "It must serve what is measured under that name: correct target.model of a target by url; an InferenceService "
                    "with an image or a command of its own must serve under model.name.",
                )
            return owners[target.model]
    raise RunRefused(
        "TargetUnreachable",
        f"{target.url}/v1/models was asked {TRIES} times: {why}. It must list its models there: look at its pods, its Service, the "
        "port, and NetworkPolicies that keep the load generator out.",
    )


def _owners(listed: Any) -> dict[str, str | None]:
    """Of the models, by their names."""
    data = listed.get("data") if isinstance(listed, Mapping) else None
    return {
        item["id"]: owner if isinstance(owner := item.get("owned_by"), str) else None
        for item in (data if isinstance(data, list) else [])
        if isinstance(item, Mapping) and isinstance(item.get("id"), str)
    }
