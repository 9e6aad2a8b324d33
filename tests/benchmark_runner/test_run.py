"""The run without guidellm, which only the image has: another function sends the load."""

import importlib
import sys
from collections.abc import Iterator
from itertools import islice
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from draftmark.benchmark_runner.engine_metrics import EngineMetrics
from draftmark.benchmark_runner.problem import RunRefused
from draftmark.benchmark_runner.prompts import Prompt
from draftmark.measure.order import Counters
from tests.benchmark_runner.orders import a_target, a_workload, an_order
from tests.benchmark_runner.test_prompts import VOCABULARY
from tests.model_facts_reader.hub import FakeHub, endless

LOAD, RUN = "draftmark.benchmark_runner.load", "draftmark.benchmark_runner.run"


class ClockStepped(Exception):
    """As the one of load.py."""


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """run.py; what its `send` is, a test says."""
    load = ModuleType(LOAD)
    load.__dict__.update(ClockStepped=ClockStepped, Sent=SimpleNamespace, send=None)
    monkeypatch.setitem(sys.modules, LOAD, load)
    found = importlib.import_module(RUN)
    monkeypatch.setattr(found, "BLIND_REST_S", 0.0)
    yield found
    del sys.modules[RUN]


def a_run(module: Any, **changes: Any) -> tuple[Any, Any]:
    """And its target, prepared."""
    order = an_order(**changes)
    run = module.Run(order, module.Environment(), lambda _: None)
    target = order.targets[0]
    prepared = module._Prepared(
        target=target, vocabulary=VOCABULARY, metrics=EngineMetrics((), Counters()), keeps_connections=True
    )
    return run, prepared


async def test_what_ends_prompts_ends_the_run_and_not_guidellms_word_for_it(
    module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    why = RunRefused("TokenizerUnavailable", "none was found")

    def none() -> Iterator[Any]:
        raise why
        yield

    async def send(_url: str, _model: str, _load: Any, prompts: Iterator[Any], **_: Any) -> Any:
        with pytest.raises(RunRefused):
            next(prompts)
        raise RuntimeError("error_event is set in WorkerProcessGroup")

    run, prepared = a_run(module, workloads=(a_workload(),))
    monkeypatch.setattr(module, "send", send)
    monkeypatch.setattr(run, "_prompts", lambda *_: none())
    with pytest.raises(RunRefused) as refused:
        await run._stretch(run.stretches[0], prepared)
    assert refused.value is why


async def test_a_repeated_stretch_has_other_prompts(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    texts: list[list[str]] = []

    async def send(_url: str, _model: str, _load: Any, prompts: Iterator[Any], **_: Any) -> Any:
        texts.append([prompt.text for prompt in islice(prompts, 3)])
        if len(texts) < 3:
            raise ClockStepped("the clock of the machine was set by 1 s")
        return SimpleNamespace(began=0.0, ended=1.0, samples=(), unfinished=(), gaps_ms={})

    run, prepared = a_run(module)
    monkeypatch.setattr(module, "send", send)
    await run._stretch(run.stretches[0], prepared)
    assert len({text for sent in texts for text in sent}) == 3 * 3


def a_run_of_data(module: Any, job: str, count: int) -> tuple[Any, Any]:
    run, prepared = a_run(module, job=job, workloads=(a_workload(name="ours", prompt=None, dataset="/data/p"),))
    prepared.datasets["ours"] = [Prompt(text=str(n), tokens=1, output_tokens=1) for n in range(count)]
    return run, prepared


@pytest.mark.parametrize(("count", "is_told"), [(11, True), (12, False)])
async def test_a_data_set_that_was_sent_more_than_once_is_told(
    module: Any, monkeypatch: pytest.MonkeyPatch, count: int, is_told: bool
) -> None:
    run, prepared = a_run_of_data(module, "job", count)
    taken: list[str] = []

    async def send(_url: str, _model: str, _load: Any, prompts: Iterator[Any], **_: Any) -> Any:
        taken.extend(prompt.text for prompt in islice(prompts, 3))
        return SimpleNamespace(began=0.0, ended=1.0, samples=(), unfinished=(), gaps_ms={})

    async def made(*_: Any) -> Any:
        return prepared

    async def nobody(*_: Any) -> None:
        return None

    monkeypatch.setattr(module, "send", send)
    monkeypatch.setattr(module, "check_address", lambda *_, **__: None)
    monkeypatch.setattr(module, "_check_model", nobody)
    monkeypatch.setattr(run, "_prepare", made)
    await run.blocks()
    # A warm-up and three blocks, each from where the last one ended.
    assert (len(taken), len(set(taken[:count]))) == (12, count)
    said = (
        "target: the data set of workload ours has 11 prompts and up to 12 were sent: they repeat, and what an engine keeps of them "
        "makes TTFT shorter."
    )
    assert run.notes == ([said] if is_told else [])


def test_another_job_sends_another_prompt_first(module: Any) -> None:
    first = set[str]()
    for job in ("bench-1", "bench-2", "bench-3"):
        run, prepared = a_run_of_data(module, job, 1000)
        first.add(next(run._prompts(run.stretches[0], prepared, 0)).text)
    assert len(first) == 3


@pytest.mark.timeout(20)
async def test_models_that_come_byte_by_byte_are_not_waited_for(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_S", 0.3)
    monkeypatch.setattr(module, "TRIES", 2)
    async with FakeHub(instead={"": endless(b" ", pause_s=0.05)}).serving() as server:
        with pytest.raises(RunRefused, match=r"asked 2 times: no whole answer came within 0\.3 s") as refused:
            await module._check_model(a_target(url=server.url))
    assert refused.value.refusal.code == "TargetUnreachable"


async def test_a_name_that_is_half_a_character_is_another_models(module: Any) -> None:
    async with FakeHub(files={"": rb'{"data": [{"id": "tin\ud800"}]}'}).serving() as server:
        with pytest.raises(RunRefused, match=r"serves tin\?, not tiny") as refused:
            await module._check_model(a_target(url=server.url))
    assert refused.value.refusal.code == "ModelMissing"
    assert "tin?" in refused.value.refusal.model_dump_json()
