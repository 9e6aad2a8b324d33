"""The real program against stand-ins whose latencies are known, and which lie.

It runs with the packages of its image, from the cache; the image itself runs in tests/e2e.
"""

import asyncio
import json
import re
import signal
import time
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from draftmark.measure.order import AcceleratorMemory, FromClaim, FromHub, Lengths, Load, Order
from draftmark.measure.result import Result, Row
from e2e import benchmark_packages, tiny_gguf, tiny_llama
from e2e.cluster.images import REPOSITORY as REPOSITORY_ROOT
from tests.benchmark_runner.config_map import Server
from tests.benchmark_runner.orders import VLLM_COUNTERS, a_target, a_workload, an_order
from tests.benchmark_runner.prometheus import FakePrometheus, series
from tests.benchmark_runner.standins import MODEL, standin
from tests.busy import BUSY, TRIES
from tests.measured import lines_of
from tests.model_facts_reader.hub import REPOSITORY, FakeHub, endless

pytestmark = pytest.mark.integration

#: A client that has rested for some 100 ms is itself slow to read: on a virtual machine in a bad hour an answer to /health took 10
#: to 28 ms after 300 ms of rest, and 1 ms at once, and of 300 ms a plain client saw 331 and the program 315 to 322. 3 % of 800 ms
#: leave room for that.
TTFT_MS, ITL_MS, OUTPUT = 800, 20, 20
#: Seconds of load in the run that finds them.
LOAD_S = 1 + 3 * 5
E2E_MS = TTFT_MS + (OUTPUT - 1) * ITL_MS
#: Programs that run at the same time: each waits most of the time, but starts with some seconds of imports.
SIDE_BY_SIDE = 3


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama.write(tmp_path_factory.mktemp("model"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What a run left."""

    status: int
    result: Result | None
    termination: str
    output: str
    seconds: float
    """Of all of it, or after it was told to end."""
    progress: Mapping[str, Any]

    @property
    def rows(self) -> tuple[Row, ...]:
        assert self.result is not None, (self.termination, self.output)
        return self.result.rows


def write_order(order: Order, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "order.json").write_text(order.model_dump_json(by_alias=True))
    (folder / "token").write_text("token")


async def run(order: Order, folder: Path, *, server: Server | None = None, end_when: str | None = None) -> Ended:
    """Run the program to its end, or until its progress names a stage and it is told to end."""
    await asyncio.to_thread(write_order, order, folder)
    log = folder / "termination"
    began = time.monotonic()
    async with Server().serving() as own:
        config_map = server or own
        process = await asyncio.create_subprocess_exec(
            *benchmark_packages.command(f"--order={folder / 'order.json'}", f"--termination-log={log}"),
            env={
                **benchmark_packages.environment(),
                "HOME": str(folder),
                "DRAFTMARK_API_SERVER": config_map.url,
                "DRAFTMARK_API_TOKEN_FILE": str(folder / "token"),
                "DRAFTMARK_ALLOW_LOOPBACK": "1",
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            if end_when is not None:
                await config_map.until_progress(end_when)
                began = time.monotonic()
                process.send_signal(signal.SIGTERM)
                await asyncio.wait_for(process.wait(), 20)
            ended_at = time.monotonic()
            output, _ = await asyncio.wait_for(process.communicate(), 110)
        finally:
            if process.returncode is None:
                process.kill()
        assert process.returncode is not None
        text = config_map.data.get("result")
        return Ended(
            status=process.returncode,
            result=Result.model_validate_json(text) if text is not None else None,
            termination=await asyncio.to_thread(lambda: log.read_text() if log.exists() else ""),
            output=output.decode(),
            seconds=(time.monotonic() if end_when is None else ended_at) - began,
            progress=json.loads(config_map.data.get("progress", "{}")),
        )


async def run_with_cpu(
    model: Path,
    order: Callable[[str], Order],
    folder: Path,
    standin_is: Mapping[str, str],
    *,
    meant: Set[str] = frozenset(),
) -> Ended:
    """Run it anew, some times, where the machine was too busy to measure. Each time with a new stand-in: what one does at its
    beginning is over then.

    Args:
        order: Makes it from the stand-in's URL.
        meant: Codes that are what is to be seen.
    """
    for number in range(TRIES):
        with standin(model, **standin_is) as url:
            ended = await run(order(url), folder / str(number))
        assert ended.status == 0, ended.output
        if not any(row.refusal is not None and row.refusal.code in BUSY - meant for row in ended.rows):
            break
    return ended


def measuring(url: str, model: Path, *, has_metrics: bool = True, **changes: Any) -> Order:
    target = a_target(
        url=url,
        model=MODEL,
        tokenizer=FromClaim(path=str(model)),
        **({"metrics_urls": (f"{url}/metrics",), "counters": VLLM_COUNTERS} if has_metrics else {}),
    )
    return an_order(
        **{
            "targets": (target,),
            "workloads": (a_workload(prompt=Lengths(mean=40), output=Lengths(mean=OUTPUT)),),
            "loads": (Load(concurrency=2),),
            "warm_up_s": 1.0,
            "duration_s": 5.0,
            "repetitions": 3,
            "request_timeout_s": 10.0,
            **changes,
        }
    )


@pytest.mark.alone
@pytest.mark.timeout(300)
async def test_known_latencies_are_found(model: Path, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    pace = {"STANDIN_FIRST_TOKEN_MS": str(TTFT_MS), "STANDIN_TOKEN_MS": str(ITL_MS)}

    def held(at: float) -> list[Any]:
        """At the end of the row, and before it: load was sent for less than 30 s."""
        return [series("a", (at - 60, 9000), (at - 1, 1000)), series("b", (at - 60, 9000), (at - 1, 500))]

    async with FakePrometheus(held).serving() as prometheus:

        def order(url: str) -> Order:
            asked = measuring(url, model)
            memory = AcceleratorMemory(prometheus=prometheus.url, namespace="models", pods=("tiny-0",), accelerators=2)
            return asked.model_copy(update={"targets": (asked.targets[0].model_copy(update={"memory": memory}),)})

        ended = await run_with_cpu(model, order, tmp_path, pace)
    (row,) = ended.rows
    assert row.refusal is None, row.refusal
    for latency, true_ms in ((row.ttft, TTFT_MS), (row.itl, ITL_MS), (row.tpot, ITL_MS), (row.e2e, E2E_MS)):
        assert latency is not None
        assert latency.p50 is not None
        assert latency.p50.value == pytest.approx(true_ms, rel=0.03)
    assert (row.prompt_tokens, row.output_tokens) == (40, OUTPUT)
    assert row.peak_memory_gb == 1500 * 2**20 / 1e9
    assert ended.progress["percent"] >= 60
    assert ended.progress["job"] == "bench-job"
    beside = (ended.seconds - LOAD_S) / 4
    lines_of(pytestconfig).append(
        f"a Benchmark's program: {beside:.1f} s beside each of 4 stretches of load, its start included"
    )


@pytest.mark.alone
@pytest.mark.timeout(300)
async def test_every_kind_of_prompt_is_sent(model: Path, tmp_path: Path) -> None:
    data = tmp_path / "prompts.jsonl"
    lines = [
        {"prompt": f"{n} the 2026 prices, and what they were before", "output_tokens": 4 + n % 3} for n in range(400)
    ]
    await asyncio.to_thread(data.write_text, "\n".join(map(json.dumps, lines)))
    workloads = (
        a_workload(name="ours", prompt=None, output=Lengths(mean=9), dataset=str(data)),
        a_workload(name="shared", prompt=Lengths(mean=20), output=Lengths(mean=5), shared_prefix_tokens=100),
        a_workload(
            name="spread",
            prompt=Lengths(mean=60, standard_deviation=15, min=30, max=90),
            output=Lengths(mean=8, standard_deviation=2, min=4, max=12),
        ),
    )

    def order(url: str) -> Order:
        load = (Load(concurrency=4),)
        return measuring(url, model, workloads=workloads, loads=load, warm_up_s=0.5, duration_s=2.0, repetitions=1)

    pace = {"STANDIN_FIRST_TOKEN_MS": "150", "STANDIN_TOKEN_MS": "10"}
    ended = await run_with_cpu(model, order, tmp_path, pace)
    assert [row.workload for row in ended.rows] == ["ours", "shared", "spread"]
    # Lengths are looked at before that: a row that is refused for it has the right ones, and only does not show them.
    refused = {row.workload: row.refusal for row in ended.rows if row.refusal is not None}
    assert {refusal.code for refusal in refused.values()} <= BUSY, refused
    assert all(row.samples > 15 for row in ended.rows)
    # Prompt and answer, and how far the means may be off by chance. The data set's answers have 4, 5 or 6 tokens.
    means = {"ours": (None, (5, 0.4)), "shared": ((120, 0), (5, 0)), "spread": ((60, 10), (8, 1.5))}
    for row in (row for row in ended.rows if row.refusal is None):
        for seen, asked in zip((row.prompt_tokens, row.output_tokens), means[row.workload], strict=True):
            assert asked is None or seen == pytest.approx(asked[0], abs=asked[1]), row


#: A completion in the middle of the run: one of one token, six of a second of warm-up, and ten in each of three blocks of 2 s, two at a
#: time that take 0.5 s.
MIDDLE = "20"
#: What the stand-in is told, what changes of the order, and the code of the refusal.
FRAUDS: Mapping[str, tuple[Mapping[str, str], Mapping[str, Any], str]] = {
    "other load": ({"STANDIN_OTHER_TOKENS": "1000"}, {}, "OtherLoad"),  # takes longest: the program waits for rest
    "errors": ({"STANDIN_ERROR_SHARE": "0.2"}, {}, "TooManyErrors"),
    "an error inside the stream": ({"STANDIN_STREAM_ERROR_SHARE": "0.2"}, {}, "TooManyErrors"),
    "answers that never come": ({"STANDIN_HANG_SHARE": "0.2"}, {"duration_s": 4.0}, "TooManyErrors"),
    "streams that just end": ({"STANDIN_CUT_SHARE": "0.2"}, {}, "StreamsCut"),
    "another model": ({"STANDIN_ANSWERING_MODEL": "smaller"}, {}, "ModelMismatch"),
    "short answers": ({"STANDIN_OUTPUT_SHARE": "0.5"}, {}, "OutputLengths"),
    "a prefix cache": ({"STANDIN_CACHED_SHARE": "0.8"}, {}, "PrefixCacheHits"),
    "a prefix cache without metrics": (
        {"STANDIN_CACHED_SHARE": "0.8"},
        {"has_metrics": False, "warm_up_s": 0.0, "duration_s": 4.0, "repetitions": 1},
        "PrefixCacheHits",
    ),
    "a restart": ({"STANDIN_RESTART_AFTER": MIDDLE}, {}, "TargetRestarted"),
    "a cold start": (
        {"STANDIN_COLD_REQUESTS": "12"},
        {"warm_up_s": 0.0, "duration_s": 4.0, "loads": (Load(concurrency=4),)},
        "NotWarmedUp",
    ),
    "scatter": ({"STANDIN_SLOW_FACTOR": "1.6", "STANDIN_SLOW_TURN": MIDDLE}, {}, "ScatterTooLarge"),
    "a client without CPU": (
        {"STANDIN_FIRST_TOKEN_MS": "2", "STANDIN_TOKEN_MS": "0.2"},
        {"loads": (Load(concurrency=16),), "repetitions": 1},
        "ClientSaturated",
    ),
    "too few": (
        {},
        {"duration_s": None, "requests": 1, "loads": (Load(concurrency=1),), "warm_up_s": 0.0},
        "TooFewSamples",
    ),
}


@pytest.mark.alone
@pytest.mark.timeout(300)
async def test_frauds_are_refused_and_show_no_number(model: Path, tmp_path: Path) -> None:
    turns = asyncio.Semaphore(SIDE_BY_SIDE)

    async def caught(name: str) -> tuple[Any, ...]:
        lies, changes, code = FRAUDS[name]
        async with turns:
            # Slow enough that a client on a busy machine is not late by the measure of this target.
            pace = {"STANDIN_FIRST_TOKEN_MS": "400", "STANDIN_TOKEN_MS": "5", **lies}
            folder = tmp_path / name.replace(" ", "-")

            def order(url: str) -> Order:
                return measuring(url, model, **{"loads": (Load(concurrency=2),), "duration_s": 2.0, **changes})

            ended = await run_with_cpu(model, order, folder, pace, meant={code})
        (row,) = ended.rows
        assert row.refusal is not None, name
        numbers = row.model_dump(exclude_none=True, exclude={"refusal"}).keys()
        assert numbers <= {"target", "workload", "load", "concurrency", "samples", "errors"}, name
        return name, row.refusal.code, row.refusal.message

    seen = await asyncio.gather(*map(caught, FRAUDS))
    assert {name: code for name, code, _ in seen} == {name: code for name, (_, _, code) in FRAUDS.items()}, seen
    said = {name: message for name, _, message in seen}
    assert "had no answer when their block ended" in said["answers that never come"]
    assert "told by the engine's metrics" in said["a prefix cache"]
    assert "told by the usage of its answers" in said["a prefix cache without metrics"]


async def test_a_target_without_the_model_is_a_failure_in_words(model: Path, tmp_path: Path) -> None:
    with standin(model) as url:
        order = measuring(url, model)
        other = order.targets[0].model_copy(update={"model": "another"})
        ended = await run(order.model_copy(update={"targets": (other,)}), tmp_path)
    assert ended.status == 0
    assert ended.result is not None
    assert ended.result.refusal is not None
    assert (ended.result.refusal.code, ended.result.rows) == ("ModelMissing", ())
    assert f"serves {MODEL}, not another. " in ended.result.refusal.message
    assert "correct target.model of a target by url; an InferenceService" in ended.result.refusal.message


async def test_a_list_of_models_without_end_is_not_read(model: Path, tmp_path: Path) -> None:
    async with FakeHub(instead={"": endless()}).serving() as server:
        ended = await run(measuring(server.url, model), tmp_path)
    assert ended.result is not None
    assert ended.result.refusal is not None
    assert ended.result.refusal.code == "TargetUnreachable"
    assert "/v1/models answers with more than 4194304 bytes" in ended.result.refusal.message


async def test_a_tokenizer_that_is_not_the_engines_is_a_failure_in_words(model: Path, tmp_path: Path) -> None:
    # The vocabulary of the other tiny model, built from the header of its file on a hub.
    gguf = tiny_gguf.write(tmp_path / "other.gguf")
    files = {"other-Q8_0.gguf": b"", "other-Q4_K_M.gguf": await asyncio.to_thread(gguf.read_bytes)}
    async with FakeHub(files=files).serving() as hub:
        where = FromHub(endpoint=hub.url, repository=REPOSITORY, quantization="Q4_K_M", allow_http=True)
        with standin(model) as url:
            order = measuring(url, model)
            target = order.targets[0].model_copy(update={"tokenizer": where})
            ended = await run(order.model_copy(update={"targets": (target,)}), tmp_path / "run")
    assert ended.status == 0
    assert ended.result is not None
    assert ended.result.refusal is not None
    assert ended.result.refusal.code == "TokenizerUnavailable"
    assert "other-Q4_K_M.gguf is not the tokenizer of tiny" in ended.result.refusal.message


async def test_two_targets_are_measured_in_turns_and_a_second_start_finds_the_result(
    model: Path, tmp_path: Path
) -> None:
    pace = {"STANDIN_FIRST_TOKEN_MS": "100", "STANDIN_TOKEN_MS": "5"}
    with standin(model, **pace) as a, standin(model, **pace) as b:
        first, second = measuring(a, model).targets[0], measuring(b, model).targets[0]
        nobody = AcceleratorMemory(prometheus="http://127.0.0.1:1", namespace="models", pods=("a",), accelerators=1)
        order = measuring(
            a,
            model,
            targets=(first, second.model_copy(update={"label": "compared", "memory": nobody})),
            loads=(Load(request_rate=8.0),),
            repetitions=2,
            warm_up_s=0.0,
            duration_s=2.0,
        )
        async with Server().serving() as server:
            ended = await run(order, tmp_path, server=server)
            assert ended.status == 0, ended.output
            assert [row.target for row in ended.rows] == ["target", "compared"]
            assert all(row.samples + row.errors > 10 for row in ended.rows)
            assert all(row.peak_memory_gb is None for row in ended.rows)
            assert ended.output.count("The peak memory of a row is not known: http://127.0.0.1:1") == 1
            writes = len(server.requests)
            again = await run(order, tmp_path, server=server)
            assert (again.status, again.result) == (0, ended.result)
            assert [method for method, *_ in server.requests[writes:]] == ["GET"]


async def test_told_to_end_it_ends_soon_and_leaves_no_result(model: Path, tmp_path: Path) -> None:
    with standin(model, STANDIN_FIRST_TOKEN_MS="100", STANDIN_TOKEN_MS="20") as url:
        ended = await run(measuring(url, model, warm_up_s=60.0), tmp_path, end_when="WarmUp")
    assert ended.status == 143
    assert ended.result is None
    assert "SIGTERM" in ended.termination
    assert ended.seconds < 3


async def test_a_stretch_ends_although_guidellm_misses_its_end(model: Path, tmp_path: Path) -> None:
    with standin(model, STANDIN_FIRST_TOKEN_MS="20", STANDIN_TOKEN_MS="2") as url:
        python, *_ = benchmark_packages.command()
        variables = benchmark_packages.environment()
        process = await asyncio.create_subprocess_exec(
            *(python, "-S", "-m", "tests.benchmark_runner.one_stretch", url, "5"),
            env={**variables, "PYTHONPATH": f"{variables['PYTHONPATH']}:{REPOSITORY_ROOT}", "HOME": str(tmp_path)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            output, _ = await asyncio.wait_for(process.communicate(), 40)
        finally:
            if process.returncode is None:
                process.kill()
    said = output.decode()
    assert process.returncode == 0, said
    assert "guidellm did not notice that all requests have ended" in said
    counts = re.search(r"^samples: (\d+), gaps: (\d+)$", said, re.MULTILINE)
    assert counts is not None, said
    samples, gaps = map(int, counts.groups())
    assert samples > 5
    assert gaps == samples * (5 - 1)


#: Updates that never come, of a load whose end nobody knows.
SILENT = """
import asyncio
from draftmark.benchmark_runner import load

async def updates():
    await asyncio.sleep(60)
    yield

async def main():
    async for _ in load._until_silent(updates(), lambda: None, patience_s=0.2):
        pass

asyncio.run(main())
"""


async def test_a_load_of_which_nothing_is_told_is_given_up() -> None:
    python, *_ = benchmark_packages.command()
    process = await asyncio.create_subprocess_exec(
        *(python, "-S", "-c", SILENT), env=benchmark_packages.environment(), stderr=asyncio.subprocess.PIPE
    )
    _, said = await asyncio.wait_for(process.communicate(), 40)
    assert process.returncode == 1
    assert "RuntimeError: guidellm said nothing of any request for 0.2 s" in said.decode()


async def test_an_order_that_cannot_be_read_is_said_in_one_line(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *benchmark_packages.command(f"--order={tmp_path / 'none'}", f"--termination-log={tmp_path / 'log'}"),
        env=benchmark_packages.environment(),
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert await process.wait() == 1
    said = await asyncio.to_thread((tmp_path / "log").read_text)
    assert said.startswith("The order cannot be read")
    assert "\n" not in said
