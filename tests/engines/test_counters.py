"""Where engines' metrics tell what a measurement looks at."""

import json
from pathlib import Path

import pytest

from draftmark.engines.registry import ENGINES

KNOWN = json.loads((Path(__file__).parents[1] / "monitoring" / "metrics.json").read_text("utf-8"))


@pytest.mark.parametrize("name", ENGINES)
def test_counters_are_metrics_that_the_engine_has(name: str) -> None:
    """The lists that the monitoring is held to, too, were taken from the engines' own registrations."""
    told = ENGINES[name].counters.model_dump(exclude_none=True)
    known = {metric for metrics in KNOWN.values() for metric in metrics}
    assert {key: metric for key, metric in told.items() if metric not in known} == {}


@pytest.mark.parametrize("name", ENGINES)
def test_load_and_tokens_are_told_by_every_engine(name: str) -> None:
    counters = ENGINES[name].counters
    assert counters.running
    assert counters.waiting
    assert counters.output_tokens
    # Whether prompts came from a cache: what was computed, or what was not.
    assert counters.computed_prompt_tokens or (counters.prompt_tokens and counters.cached_prompt_tokens)
