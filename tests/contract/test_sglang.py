"""The parser of SGLang's wheel: its flags are those of our table, and it takes every command line that is rendered.

Not part of `make test`: `make contract` installs the wheel, without its dependencies, into an environment of its own.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest
import yaml

from draftmark.engines.flag_table import check_args
from draftmark.engines.sglang import Sglang
from draftmark.render.yaml_io import load_manifests
from tests.engines.sglang.ask import TABLE
from tests.golden_cases import GoldenCase, golden_cases

REPOSITORY: Final = Path(__file__).parents[2]
PYTHON: Final = REPOSITORY / ".venv-contract" / "bin" / "python"
VERSION: Final = Sglang().default_version
FILE: Final = REPOSITORY / "operator" / "draftmark" / "engines" / "flags" / f"sglang-{VERSION}.json"


def run(*arguments: str, stdin: str = "") -> str:
    assert PYTHON.is_file(), "`make contract` makes the environment that SGLang is installed in"
    done = subprocess.run([str(PYTHON), *arguments], input=stdin, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def refused_by_the_parser(command_lines: Sequence[Sequence[str]]) -> list[str]:
    """What the parser says, for each list that it does not take."""
    told = json.loads(
        run(str(REPOSITORY / "e2e" / "sglang_parser.py"), stdin=json.dumps(command_lines)).splitlines()[-1]
    )
    return [f"{' '.join(line)}: {said}" for line, said in zip(command_lines, told, strict=True) if said]


def test_the_version_is_the_one_of_the_table() -> None:
    assert run("-c", "from importlib.metadata import version; print(version('sglang'))").strip() == VERSION


def test_the_flag_table_is_what_the_parser_says() -> None:
    made = json.loads(
        run(
            str(REPOSITORY / "e2e" / "argparse_table.py"),
            "--make=sglang_parser:make_arg_parser", "--parser=argparse:ArgumentParser", "--plain",
            "--engine=sglang", f"--version={VERSION}", "--program=sglang serve", f"--source=PyPI package sglang {VERSION}",
            "--out=/dev/stdout",
        )
    )  # fmt: skip
    kept = json.loads(FILE.read_text())
    # What no parser knows is written by hand.
    kept["flags"] = {name: row for name, row in kept["flags"].items() if "removed" not in row}
    assert {**made, "date": ""} == {**kept, "date": ""}


def test_the_parser_takes_every_golden_command_line() -> None:
    found = [line for case in golden_cases() for line in golden_command_lines(case)]
    assert len(found) >= 8
    assert refused_by_the_parser(found) == []
    print(f"golden command lines read by the parser of SGLang {VERSION}: {len(found)}")


def golden_command_lines(case: GoldenCase) -> list[list[str]]:
    """The arguments of the engine in a golden case of SGLang; none where it is refused."""
    given = yaml.safe_load((case.folder / "input.yaml").read_text())
    engine, _ = case.rendered()
    if given["spec"].get("engine", {}).get("name") != "sglang" or engine.startswith("# exit"):
        return []
    deployments = [each for each in load_manifests(engine) if each["kind"] == "Deployment"]
    return [each["spec"]["template"]["spec"]["containers"][0]["args"] for each in deployments]


def test_the_parser_takes_every_command_line_of_the_unit_tests(tmp_path: Path) -> None:
    recorded = tmp_path / "command-lines.jsonl"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "tests.contract.recorder", "tests/engines/sglang"],
        cwd=REPOSITORY,
        env={**os.environ, "RECORD_SGLANG": str(recorded)},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    found = [json.loads(line) for line in sorted({*recorded.read_text().splitlines()})]
    # Some tests are about versions without a table, whose arguments nobody checks.
    ours = [line for line in found if not check_args(TABLE, line, {})]
    assert len(ours) > 100
    assert refused_by_the_parser(ours) == []
    print(f"command lines of the unit tests read by the parser of SGLang {VERSION}: {len(ours)}")


@pytest.mark.parametrize(
    "words",
    [
        ["--mem_fraction_static", "0.8"], ["--json-model-override-args.a", "1"], ["--tp-size", "1.5"], ["--max-prefill-tokens", "1m"],
        ["--max-prefill-tokens", "1.5Ki"], ["--kv-cache-dtype", "fp8"], ["--tool-call-parser", "llama3_json"], ["--enable-metrics=1"],
        ["--cuda-graph-max-bs", "8"], ["--enable-deepep-moe"], ["--no-enable-metrics"], ["--hicache-ratio", "x"], ["x"],
    ],
)  # fmt: skip
def test_what_our_check_refuses_the_parser_refuses_too(words: list[str]) -> None:
    assert check_args(TABLE, words, {})
    assert refused_by_the_parser([["--model-path", "m", *words]])


@pytest.mark.parametrize(
    "words",
    [
        ["--max-prefill-tokens", "1.5k"], ["--max-prefill-tokens=64Ki"], ["--max-total-tokens", "2M"], ["--chunked-prefill-size", "-1"],
        ["--hicache-ratio", "-0.5"], ["--lora-target-modules", "q_proj", "k_proj"], ["--gc-threshold", "1", "2"],
        ["--no-lora-strict-loading"], ["--speculative-draft-model", "x"], ["--tensor-parallel-size", "2"],
    ],
)  # fmt: skip
def test_what_the_parser_takes_our_check_takes_too(words: list[str]) -> None:
    assert check_args(TABLE, words, {}) == ()
    assert refused_by_the_parser([["--model-path", "m", *words]]) == []
