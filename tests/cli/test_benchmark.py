"""Benchmarks on the command line, without a cluster."""

from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from draftmark.cli import main
from tests.api.test_benchmark import benchmark
from tests.specs import service


def run(command: str, *items: Any) -> Result:
    return CliRunner().invoke(main, [command, "-f", "-"], input=yaml.safe_dump_all(items))


def test_validate_counts_all_kinds() -> None:
    assert run("validate", benchmark()).stdout == "1 Benchmark valid\n"
    assert (
        run("validate", service(), benchmark("a"), benchmark("b")).stdout == "1 InferenceService, 2 Benchmarks valid\n"
    )


@pytest.mark.parametrize(
    ("item", "told"),
    [
        (benchmark(concurrency=[0]), "spec.concurrency.0"),
        (benchmark(concurency=[1]), "spec.concurency"),
        (benchmark(workloads=[{"name": "talk"}]), "a workload is a preset"),
        (benchmark("9"), "a label of the Benchmark's pod"),
        ({**benchmark(), "metadata": {}}, "a Benchmark has no metadata.name"),
        ({**benchmark(), "spec": {}}, "spec.target"),
    ],
)
def test_validate_says_what_is_wrong(item: Any, told: str) -> None:
    result = run("validate", item)
    assert result.exit_code == 1
    assert told in result.stderr


def test_render_makes_nothing_for_a_benchmark() -> None:
    assert run("render", service(), benchmark()).stdout == run("render", service()).stdout
