"""One stretch of load on one server, sent by guidellm; and what every request saw.

guidellm's scheduler starts worker processes, hands them requests at their times and collects what became of them; its HTTP
backend sends them and notes the times. The reader of answers is ours: guidellm's own (0.8.1) tells neither the name of the
model that answered nor the finish_reason, takes a stream that just ends for a whole one, and takes the first piece of
*visible* text for the first token, where vLLM's own benchmark, and this, take the first choice: tokens of half a character
have no text yet.

Worker processes come from a fork server that has guidellm loaded: spawning them anew costs some seconds for each stretch.

Times are the wall clock's there. They are moved to the monotonic clock here, and a wall clock that was set meanwhile is an
error: nobody could say how long anything took.
"""

import asyncio
import contextlib
import multiprocessing
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Final, TypeVar

import httpx
import numpy as np
from guidellm.backends.openai.http import OpenAIHTTPBackend
from guidellm.backends.openai.request_handlers import TextCompletionsRequestHandler
from guidellm.scheduler import (
    AsyncPoissonStrategy,
    ConcurrentStrategy,
    MaxDurationConstraint,
    MinNumberConstraint,
    NonDistributedEnvironment,
    Scheduler,
    SchedulerState,
)
from guidellm.scheduler.schemas.conversation_graph import GenerativeConversationGraph, GenerativeConversationNode
from guidellm.schemas import (
    GenerationRequest,
    GenerationRequestArguments,
    GenerationResponse,
    RequestInfo,
    UsageMetrics,
)
from guidellm.schemas.backends import OpenAIHTTPBackendArgs
from guidellm.schemas.scheduler.constraints import MaxDurationConstraintArgs, MinRequestsConstraintArgs
from guidellm.settings import settings
from guidellm.utils.messaging import InterProcessMessagingQueue

from draftmark.benchmark_runner.bounded import lines_at_most
from draftmark.benchmark_runner.prompts import Prompt
from draftmark.measure.order import Load
from draftmark.measure.rows import is_answered
from draftmark.measure.samples import Sample, Unfinished

#: Requests under way that one worker process takes care of. One that reads 64 streams of 50 tokens/s uses about a third of
#: a core; more processes than cores would wait for each other.
STREAMS_OF_A_WORKER: Final = 64
#: Requests of a rate that may be under way. More is an engine that does not keep up: they are sent late, which shows.
MOST_UNDER_WAY: Final = 1024
#: Seconds between the workers' readiness and the first request: the queue must be filled, or the first ones are late.
START_DELAY_S: Final = 0.3
#: How far the wall clock may move against the monotonic one: what a clock that is being steered does (500 ppm), and reading
#: two clocks one after the other.
CLOCK_STEP_S: Final = 0.01
CLOCK_DRIFT: Final = 0.001
#: Seconds for which an unused connection is kept. llama-server and vLLM close theirs after 5: one that is closed while a
#: request is on its way would be that request's failure.
KEEP_ALIVE_S: Final = 2.0
SWITCH_S: Final = 0.0005
#: Seconds without a word of any request after which a stretch whose time is over has ended. guidellm (0.8.1) ends when its
#: counts of requests agree, and compares them only when a worker tells something: where the last of that comes before its own
#: thread has noted that it sends no more, it waits for ever. What was under way is cut by then, and told within milliseconds.
SILENCE_S: Final = 2.0
#: Seconds that worker processes may take to start, on a busy machine; and mean times between two requests that no gap exceeds: of
#: a billion random ones the longest is 21.
START_S: Final = 60.0
LONGEST_GAP: Final = 30.0
#: Longest line of a stream that is read, in bytes. One event has some 300; an answer of 128,000 tokens that comes in one piece some
#: 640,000. A bound of ours: without one, a line that never ends would grow until the request's time is over, in each request.
MAX_LINE_BYTES: Final = 2**20
_PATH: Final = "/v1/completions"
_LONGEST_ERROR: Final = 200


class ClockStepped(Exception):
    """The wall clock was set during a stretch of load. It may be repeated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What came of a stretch of load; times are of time.monotonic, gaps as in `Block`."""

    began: float
    ended: float
    samples: tuple[Sample, ...]
    unfinished: tuple[Unfinished, ...]
    gaps_ms: Mapping[float, int]


class AnswerReader(TextCompletionsRequestHandler):
    """Reads one streamed answer, and keeps what guidellm's own does not. `response_metrics` carries it home: a field for
    what a server tells beside its usage, which guidellm passes on as it is."""

    def __init__(self, wanted: str) -> None:
        super().__init__()
        self.wanted = wanted
        self.model: str | None = None
        self.finish: str | None = None
        self.gaps_us: list[int] = []
        self._piece_ns: int | None = None

    def add_streaming_line(self, line: str) -> int:
        """Count a line: 1 for a choice, 0 for anything else.

        Raises:
            ValueError: The server says that it failed.
        """
        if line.startswith("error:"):
            raise ValueError(f"The stream says {line}")
        data = self.extract_line_data(line)
        if not data:
            # Also at [DONE], for which guidellm would leave: of an answer that is read to its end the connection is kept.
            return 0
        model, usage, choices = data.get("model"), data.get("usage"), data.get("choices")
        if isinstance(model, str):
            # Of the first one that differs, if there is one: a stream may change in the middle.
            self.model = model if self.model in (None, self.wanted) else self.model
        if isinstance(usage, dict):
            self.streaming_usage = usage
        if not isinstance(choices, list) or not choices:
            return 0
        finish = choices[0].get("finish_reason")
        self.finish = finish if isinstance(finish, str) else self.finish
        if finish is None or choices[0].get("text"):
            # Without the one that only says that the answer has ended: no token comes with it.
            now = time.perf_counter_ns()
            if self._piece_ns is not None:
                self.gaps_us.append((now - self._piece_ns) // 1000)
            self._piece_ns = now
        return 1

    def compile_streaming(
        self, request: GenerationRequest, arguments: GenerationRequestArguments
    ) -> GenerationResponse:
        """The answer without its text, which nothing needs and which would travel between processes."""
        usage_in, usage_out = self.extract_metrics(self.streaming_usage, None)
        return GenerationResponse(
            request_id=request.request_id,
            request_args=None,
            input_metrics=usage_in,
            output_metrics=usage_out,
            response_metrics={"model": self.model, "finish": self.finish, "gaps_us": self.gaps_us},
        )

    def post_validation(self, response: GenerationResponse) -> None:
        """What an answer lacks is judged later, by everything that is known of it."""


class Backend(OpenAIHTTPBackend):
    """guidellm's HTTP backend with our reader of answers, a bound for a whole request (its own is for one read), and what
    brings requests out sooner: with guidellm's own they were 12 ms late in the median at 8 streams on two cores."""

    #: Whether there is one worker process.
    is_alone = False
    #: Whether a connection is used for one request after the other.
    keeps_connections = True
    _async_client: httpx.AsyncClient | None

    async def process_startup(self) -> None:
        """Prepare a worker process."""
        await super().process_startup()
        if self.is_alone:
            # A worker fetches a request when it has a free stream, so that none holds what another could send. With one
            # worker that only costs time. In this process: it lives for one stretch of load.
            InterProcessMessagingQueue._has_receive_demand = lambda _: True
        # Three threads share the interpreter, and each gets it 5 ms after it asks: the time of a token.
        sys.setswitchinterval(SWITCH_S)
        assert self._async_client is not None, "it was made just now"
        await self._async_client.aclose()
        self._async_client = httpx.AsyncClient(
            timeout=self._args.timeout,
            trust_env=False,
            follow_redirects=False,
            limits=httpx.Limits(
                max_connections=None,
                max_keepalive_connections=None if self.keeps_connections else 0,
                keepalive_expiry=KEEP_ALIVE_S,
            ),
        )

    async def validate(self) -> None:
        """Send a first request, which loads what the client loads late. Whether it is answered well is asked elsewhere."""
        with contextlib.suppress(httpx.HTTPError, ValueError, KeyError, TypeError):
            await self.available_models()

    async def _prepare_resolve_request(self, request: GenerationRequest, history: Any = None) -> Any:
        _, arguments, sending = await super()._prepare_resolve_request(request, history)
        return AnswerReader(self._args.model), arguments, sending

    @staticmethod
    def _trace_request_start(request_info: RequestInfo) -> None:
        """No trace: a request has started when it is given to httpx. guidellm's own moves that to when its headers are written, after
        connecting: then TTFT and E2E hold none of it, and a full accept queue looks like a client that sends late."""

    async def _aiter_lines(self, stream: httpx.Response) -> AsyncIterator[str]:
        """Lines of an answer without empty ones. httpx's own (0.28.1) end also at signs that a JSON text may hold as they are, such as
        U+2028: what is left of the text is no JSON then."""
        async for line in lines_at_most(stream.aiter_bytes(), MAX_LINE_BYTES):
            if line.strip():
                yield line

    async def resolve(
        self, request: GenerationRequest, request_info: RequestInfo, history: Any = None
    ) -> AsyncIterator[tuple[GenerationResponse | None, RequestInfo]]:
        """Send a request and give what became of it."""
        try:
            async with asyncio.timeout(self._args.timeout):
                async for item in super().resolve(request, request_info, history):
                    yield item
        except TimeoutError:
            raise TimeoutError(f"no whole answer within {self._args.timeout:g} s") from None


def prepare() -> None:
    """Set guidellm up. Call once, before the first load."""
    settings.mp_context_type = "forkserver"
    settings.scheduler_start_delay_non_distributed = START_DELAY_S
    multiprocessing.set_forkserver_preload(["draftmark.benchmark_runner.__main__"])
    # The target is a Service of the namespace: the environment's proxies are not asked.
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "*"


async def send(
    url: str,
    model: str,
    load: Load,
    prompts: Iterator[Prompt],
    *,
    seconds: float | None,
    requests: int | None,
    timeout_s: float,
    seed: int,
    cores: float,
    keeps_connections: bool = True,
    began: Callable[[], Awaitable[None]] | None = None,
) -> Sent:
    """Send load until its time is over, or so many requests have ended. What is under way then is cut, and is no sample: of it is
    told when it was sent.

    Args:
        url: Of the server, without a path.
        prompts: Without end; taken from another thread.
        seed: Of random times.
        cores: CPUs that there are for this.
        keeps_connections: Whether the server does. Otherwise each request has a connection of its own.
        began: Called when the first request is on its way.

    Raises:
        ClockStepped: The times cannot be trusted.
        RuntimeError: The workers failed.
    """
    backend = Backend(
        OpenAIHTTPBackendArgs(
            target=url,
            model=model,
            request_format=_PATH,
            timeout=timeout_s,
            timeout_connect=timeout_s,
            http2=False,
            follow_redirects=False,
            validate_backend=False,
        )
    )
    constraints: dict[str, Any] = {}
    if requests is not None:
        # Load stays what it is until that many have ended: with the other bound it would fade out.
        constraints["min_requests"] = MinNumberConstraint(args=MinRequestsConstraintArgs(count=requests))
    elif seconds is not None:
        constraints["max_duration"] = MaxDurationConstraint(args=MaxDurationConstraintArgs(seconds=seconds))
    if load.concurrency is not None:
        strategy: Any = ConcurrentStrategy(streams=load.concurrency)
        settings.max_worker_processes = max(1, min(int(cores) - 1, ceil(load.concurrency / STREAMS_OF_A_WORKER)))
        # When all answers end at once, as many prompts are there.
        settings.mp_max_pending_buffer_percent = 1.0
    else:
        assert load.request_rate is not None, "one of both"
        # In one process: each would draw the same times.
        strategy = AsyncPoissonStrategy(
            rate=load.request_rate, random_seed=seed % 2**32, max_concurrency=MOST_UNDER_WAY
        )
        settings.max_worker_processes = 1
        settings.mp_max_pending_buffer_percent = min(1.0, max(16.0, 2 * load.request_rate) / MOST_UNDER_WAY)
    backend.is_alone = settings.max_worker_processes == 1
    backend.keeps_connections = keeps_connections
    asked: dict[str, Prompt] = {}
    found: list[tuple[RequestInfo, GenerationResponse | None]] = []
    last_state: SchedulerState | None = None
    ended_at: float | None = None

    def is_over_at() -> float | None:
        """Of the wall clock, as far as that is known."""
        if ended_at is not None or last_state is None or seconds is None:
            return ended_at
        return float(last_state.start_time) + seconds

    offset = _offset()
    start = time.monotonic()
    updates = Scheduler().run(
        requests=_graphs(prompts, asked),
        backend=backend,
        strategy=strategy,
        env=NonDistributedEnvironment(),
        **constraints,
    )
    # A request is told of when it ends, at the latest; times between two are random with a rate.
    patience_s = START_S + timeout_s + (LONGEST_GAP / load.request_rate if load.request_rate is not None else 0.0)
    async for response, _, info, state in _until_silent(updates, is_over_at, patience_s=patience_s):
        if began is not None and info.status == "in_progress":
            await began()
            began = None
        # Threads put updates into one queue: the last one is not always the one with the latest state.
        last_state, ended_at = state, ended_at or state.end_processing_time
        if info.status in ("completed", "errored", "cancelled"):
            found.append((info, response))
    moved = abs(_offset() - offset)
    if moved > CLOCK_STEP_S + CLOCK_DRIFT * (time.monotonic() - start):
        raise ClockStepped(f"the clock of the machine was set by {moved:.3f} s")
    if last_state is None:
        raise RuntimeError("guidellm ended without having sent anything")
    # Without a word of when it stopped: the last thing that it told of.
    ended_at = ended_at or last_state.end_time
    assert ended_at is not None, "each update sets it"
    first, last = last_state.start_time + offset, ended_at + offset
    samples: list[Sample] = []
    unfinished: list[Unfinished] = []
    gaps_us: list[int] = []
    for info, response in found:
        if info.status == "cancelled" and info.timings.request_start is None:
            # It was not sent.
            continue
        sample = _sample(info, response, asked[info.request_id], offset)
        if info.status == "cancelled" or sample.last > last:
            if first <= sample.sent <= last:
                unfinished.append(Unfinished(sent=sample.sent, asked_tokens=sample.asked_tokens))
        elif first <= sample.sent:
            samples.append(sample)
            if response is not None and is_answered(sample):
                gaps_us += (response.response_metrics or {}).get("gaps_us", ())
    return Sent(
        began=first,
        ended=last,
        samples=tuple(sorted(samples, key=lambda sample: sample.sent)),
        unfinished=tuple(sorted(unfinished, key=lambda request: request.sent)),
        gaps_ms=_counted(gaps_us),
    )


def _counted(gaps_us: Sequence[int]) -> Mapping[float, int]:
    """Microseconds as milliseconds of four digits, which is what is shown, and how often each: they can be millions."""
    gaps = np.array(gaps_us, dtype=np.float64) / 1000
    scale = 10.0 ** (3 - np.floor(np.log10(np.maximum(gaps, 0.001))))
    values, counts = np.unique(np.round(gaps * scale) / scale, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


_Update = TypeVar("_Update")


async def _until_silent(
    updates: AsyncIterator[_Update], is_over_at: Callable[[], float | None], *, patience_s: float
) -> AsyncIterator[_Update]:
    """All updates; or those until nothing more is said for `SILENCE_S`, once the load is over.

    Raises:
        RuntimeError: Nothing was said for `patience_s`, and nobody knows when the load is over.
    """
    while True:
        over = is_over_at()
        left = patience_s if over is None else max(0.0, over - time.time()) + SILENCE_S
        try:
            # Its finally ends the workers, also when it is cut here.
            async with asyncio.timeout(left) as silence:
                update = await anext(updates)
        except StopAsyncIteration:
            return
        except TimeoutError:
            if not silence.expired():
                raise
            if over is None:
                raise RuntimeError(
                    f"guidellm said nothing of any request for {patience_s:g} s, where each ends or fails sooner; look at this "
                    "log for what its workers said"
                ) from None
            print("guidellm did not notice that all requests have ended; going on without it.", flush=True)
            return
        yield update


def _offset() -> float:
    """What a moment of the wall clock needs to be one of the monotonic clock: the least of some, for a process may be
    held back between two clocks."""
    tries = []
    for _ in range(5):
        before = time.monotonic()
        wall = time.time()
        after = time.monotonic()
        tries.append((after - before, (before + after) / 2 - wall))
    return min(tries)[1]


def _graphs(prompts: Iterator[Prompt], asked: dict[str, Prompt]) -> Iterator[GenerativeConversationGraph]:
    for number, prompt in enumerate(prompts):
        name = str(number)
        asked[name] = prompt
        request = GenerationRequest(
            request_id=name,
            columns={"text_column": [prompt.text]},
            output_metrics=UsageMetrics(text_tokens=prompt.output_tokens),
        )
        node = GenerativeConversationNode(node_id=name, agent_id="draftmark", request=request)
        yield GenerativeConversationGraph(graph_id=name, nodes={name: node})


def _sample(info: RequestInfo, response: GenerationResponse | None, prompt: Prompt, offset: float) -> Sample:
    times = info.timings
    sent = times.request_start or times.resolve_start or times.dequeued
    ended = times.resolve_end or times.request_end
    assert sent is not None, "it was sent"
    assert ended is not None, "it has ended"
    failed = info.status == "errored"
    last = ended if failed else times.last_token_iteration or times.request_end or ended
    told = (response.response_metrics if response is not None else None) or {}
    return Sample(
        due=(times.targeted_start or sent) + offset,
        sent=sent + offset,
        first=times.first_token_iteration + offset if times.first_token_iteration is not None else None,
        last=last + offset,
        prompt_tokens=response.input_metrics.text_tokens if response is not None else None,
        output_tokens=response.output_metrics.text_tokens if response is not None else None,
        asked_tokens=prompt.output_tokens,
        sent_tokens=prompt.tokens,
        cached_tokens=response.input_metrics.cached_tokens if response is not None else None,
        model=told.get("model"),
        finish=told.get("finish"),
        error=(info.error or "it failed and says nothing")[:_LONGEST_ERROR] if failed else None,
    )
