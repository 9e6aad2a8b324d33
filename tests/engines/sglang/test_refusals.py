"""Arguments and variables that users of SGLang may not set, or that SGLang would refuse."""

import pytest

from draftmark.engines.sglang import REFUSED_ENV, RESERVED
from draftmark.plan import Plan
from tests.engines.sglang.ask import TABLE, asked, env, planned, refused


@pytest.mark.parametrize(
    "words",
    [["--tool-call-parser", "llama3_json"], ["--reasoning-parser=deepseek_r1"], ["--kv-canary-real-data", "some"]],
)
def test_values_of_other_engines_are_refused(words: list[str]) -> None:
    answer = refused(("engine.args", words))
    assert answer.code == "InvalidArgs"
    assert "takes one of" in answer.message


@pytest.mark.parametrize(
    "words", [["--tool-call-parser", "llama3"], ["--reasoning-parser=deepseek-r1"], ["--max-total-tokens", "64Ki"],
              ["--hicache-io-backend", "direct"], ["--schedule-policy=lpm"]]
)  # fmt: skip
def test_what_sglang_takes_is_the_users(words: list[str]) -> None:
    assert isinstance(planned(asked(("engine.args", words))), Plan)


@pytest.mark.parametrize(
    ("words", "way_out"),
    [
        (["--cuda-graph-max-bs", "8"], "--cuda-graph-max-bs-decode"), (["--enable-ep-moe"], "--ep-size"),
        (["--enable-deepep-moe"], "--moe-a2a-backend"), (["--cuda-graph-bs", "8"], "--cuda-graph-bs-decode"),
    ],
)  # fmt: skip
def test_removed_flags_are_refused_with_what_replaces_them(words: list[str], way_out: str) -> None:
    assert way_out in refused(("engine.args", words)).message


@pytest.mark.parametrize("word", ["--mem_fraction_static", "--hicache-storage.a", "--mem-fraction", "--tp"])
def test_spellings_that_only_other_parsers_know_are_refused(word: str) -> None:
    """Python's argparse knows neither underscores nor keys; beginnings it does, and they could be anything."""
    answer = refused(("engine.args", [word, "1"]))
    assert answer.code == "InvalidArgs"
    assert "is no flag of sglang serve 0.5.23" in answer.message


@pytest.mark.parametrize("flag", RESERVED)
def test_a_reserved_flag_is_refused_with_the_field_to_use(flag: str) -> None:
    known = TABLE.find(flag)
    assert known is not None, "a reserved flag that the engine does not have protects nothing"
    answer = refused(("engine.args", [flag, *["1"] * known.values]))
    assert answer.code == "InvalidArgs"
    assert RESERVED[flag] in answer.message


@pytest.mark.parametrize("word", ["--model", "--tensor-parallel-size", "--enable-hicache", "--speculative-draft-model"])
def test_other_names_of_a_reserved_flag_are_refused_too(word: str) -> None:
    known = TABLE.find(word)
    assert known is not None
    assert "cannot be given in engine.args" in refused(("engine.args", [word, *["1"] * known.values])).message


@pytest.mark.parametrize(
    "words",
    [
        ["--trust-remote-code"], ["--trust_remote_code"], ["--trust-remote"], ["--tp", "2"], ["--tensor-parallel-size=2"],
        ["--model", "x"], ["--api-key", "secret"], ["--conf", "x"], ["--model-type", "diffusion"], ["--enable-hicache"], ["--"],
    ],
)  # fmt: skip
def test_reserved_flags_are_refused_for_a_version_without_a_table_too(words: list[str]) -> None:
    answer = refused(("engine.version", "9.9.9"), ("engine.args", words))
    assert answer.code == "InvalidArgs"
    assert "cannot be given in engine.args" in answer.message
    assert "secret" not in answer.message


@pytest.mark.parametrize("words", [["--max-prefill-tokens", "1"], ["--random-seed=1"], ["--new"], ["x"], ["-"], ["-1"]])
def test_other_flags_pass_for_a_version_without_a_table(words: list[str]) -> None:
    assert isinstance(planned(asked(("engine.version", "9.9.9"), ("engine.args", words))), Plan)


@pytest.mark.parametrize("name", REFUSED_ENV)
def test_variables_that_pass_the_check_of_arguments_are_refused(name: str) -> None:
    answer = refused(("engine.env", [{"name": "HF_ENDPOINT", "value": "x"}, {"name": name, "value": "x"}]))
    assert answer.code == "InvalidEnv"
    assert f"{name} is set by {REFUSED_ENV[name]}" in answer.message


def test_other_variables_are_the_users() -> None:
    names = ("HF_ENDPOINT", "NCCL_DEBUG", "SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN", "SGLANG_CACHE_DIR")
    own = [{"name": n, "value": "9"} for n in names]
    assert env(("engine.env", own))["SGLANG_CACHE_DIR"] == "9"
