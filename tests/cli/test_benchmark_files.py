"""What needs no cluster, of Benchmarks in files."""

from typing import Any

import pytest
from click.testing import CliRunner, Result

from draftmark.cli import main
from draftmark.render.yaml_io import dump_manifests
from tests.cli.benchmarks import COMPARING, SPEC, manifest
from tests.specs import service


def run(command: str, *items: Any) -> Result:
    result = CliRunner().invoke(main, [command, "-f", "-"], input=dump_manifests(items))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_benchmarks_are_validated_beside_the_other_kinds() -> None:
    result = run("validate", service(), manifest(), manifest(COMPARING, name="b"))
    assert (result.exit_code, result.stdout) == (0, "1 InferenceService, 2 Benchmarks valid\n")


@pytest.mark.parametrize(
    ("item", "told"),
    [
        ({**manifest(), "spec": {**SPEC, "concurency": [1]}}, "unknown fields: test-run: spec.concurency"),
        ({**manifest(), "spec": {**SPEC, "workloads": [{"name": "x"}]}}, "a workload is a preset"),
        ({**manifest(), "spec": {**SPEC, "concurrency": [0]}}, "spec.concurrency.0"),
        ({**manifest(), "spec": None}, "spec.target"),
        (manifest(name="b" * 41), "the objects made for the Benchmark"),
        (manifest(name="1"), "becomes a label of the Benchmark's pod"),
    ],
    ids=["unknown field", "rule", "bound", "no spec", "long name", "wrong name"],
)
def test_what_is_wrong_with_a_benchmark_is_told(item: Any, told: str) -> None:
    result = run("validate", item)
    assert (result.exit_code, told in result.stderr) == (1, True), result.stderr


def test_other_commands_let_benchmarks_be() -> None:
    assert run("render", service(), manifest()).stdout == run("render", service()).stdout
    assert run("explain", service(), manifest()).stdout == run("explain", service()).stdout
    result = run("explain", manifest())
    assert (result.exit_code, "no InferenceService" in result.stderr) == (1, True)
