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
from draftmark.measure.order import Counters
from tests.benchmark_runner.orders import a_workload, an_order
from tests.benchmark_runner.test_prompts import VOCABULARY

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
        return SimpleNamespace(began=0.0, ended=1.0, samples=(), gaps_ms={})

    run, prepared = a_run(module)
    monkeypatch.setattr(module, "send", send)
    await run._stretch(run.stretches[0], prepared)
    assert len({text for sent in texts for text in sent}) == 3 * 3
