"""The program as it is run, and the message that it leaves."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftmark.facts.model_answer import ModelAnswer, ModelProblem, read_answer, write_answer
from draftmark.model_facts_reader.__main__ import main
from tests.facts.model_rows import a_llama, facts_of, rows
from tests.model_facts_reader.files import config

REPOSITORY = Path(__file__).parents[2]


def run(tmp_path: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "draftmark.model_facts_reader", f"--output={tmp_path / 'log'}", *arguments]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY / "operator"), **env}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)


def test_the_answer_is_the_termination_message(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(config())
    done = run(tmp_path, "mounted", f"--root={tmp_path}", "--source=pvc://weights")
    assert (done.returncode, done.stderr) == (0, "")
    answer = read_answer((tmp_path / "log").read_text())
    assert isinstance(answer, ModelAnswer)
    assert answer.facts.source == "pvc://weights"


def test_a_problem_is_an_answer_too(tmp_path: Path) -> None:
    done = run(tmp_path, "hub", "--endpoint=http://127.0.0.1:1", "--repository=org/repo", HTTPS_PROXY="http://x")
    assert done.returncode == 0
    answer = read_answer((tmp_path / "log").read_text())
    assert isinstance(answer, ModelProblem)
    assert answer.code == "HttpRefused"


def test_arguments_are_data(tmp_path: Path) -> None:
    for path in ("$(touch x)", "; touch x", "-x", "--output=/tmp/x", "\n"):
        done = run(tmp_path, "mounted", f"--root={tmp_path}", f"--path={path}", "--source=s")
        assert done.returncode == 0, done.stderr
        answer = read_answer((tmp_path / "log").read_text())
        assert isinstance(answer, ModelProblem)
        assert answer.code == "NotFound"


def test_what_cannot_be_written_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"--output={tmp_path}", "mounted", f"--root={tmp_path}", "--source=s"]) == 1
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("model", rows())
def test_facts_come_back_as_they_were_written(model: str) -> None:
    for answer in (ModelAnswer(facts=facts_of(model)), ModelAnswer(facts=facts_of(model), commit="0123abc")):
        assert len(write_answer(answer)) < 2048
        assert read_answer(write_answer(answer)) == answer


def test_problems_come_back_within_their_bound() -> None:
    problem = ModelProblem(code="NotFound", message="x" * 5000)
    read = read_answer(write_answer(problem))
    assert isinstance(read, ModelProblem)
    assert read.code == "NotFound"
    assert len(read.message) <= 512


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "NoAnswer"),
        ("Traceback (most recent call last):\nMemoryError", "NoAnswer"),
        ("[]", "NoAnswer"),
        ("{}", "UnreadableAnswer"),
        ('{"facts": {"hiddenSize": 1}}', "UnreadableAnswer"),
        ('{"problem": {"code": "not CamelCase", "message": "m"}}', "UnreadableAnswer"),
        ('{"problem": {"code": "A", "message": 1}}', "UnreadableAnswer"),
        (" " * 5000 + "{}", "NoAnswer"),
    ],
)
def test_what_no_program_of_ours_wrote_is_a_problem(text: str, code: str) -> None:
    read = read_answer(text)
    assert isinstance(read, ModelProblem)
    assert read.code == code


def test_a_commit_that_is_none_is_left_out() -> None:
    text = write_answer(ModelAnswer(facts=a_llama())).replace("{", '{"commit": "main; rm",', 1)
    assert read_answer(text) == ModelAnswer(facts=a_llama())


@given(st.text(max_size=200) | st.recursive(st.none() | st.text(max_size=9) | st.integers(), lambda x: st.dictionaries(st.sampled_from(["facts", "problem", "commit", "code", "message"]), x)).map(json.dumps))  # fmt: skip
def test_any_message_is_read_to_an_end(text: str) -> None:
    read = read_answer(text)
    assert isinstance(read, ModelProblem)
    assert len(read.message.encode()) <= 512
