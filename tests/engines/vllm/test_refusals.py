"""Arguments and variables that vLLM users may not set, or that vLLM would refuse."""

import pytest

from draftmark.engines.vllm import REFUSED_ENV, RESERVED
from draftmark.plan import Plan
from tests.engines.vllm.ask import TABLE, asked, env, planned, refused


@pytest.mark.parametrize("words", [["--tool-call-parser", "deepseek-r1"], ["--reasoning-parser=gpt-oss"]])
def test_parsers_of_other_engines_are_refused(words: list[str]) -> None:
    answer = refused(("engine.args", words))
    assert answer.code == "InvalidArgs"
    assert "takes one of" in answer.message


@pytest.mark.parametrize("version", ["0.33.0", "9.9.9"])
def test_a_choice_of_tools_without_a_parser_is_refused(version: str) -> None:
    """vLLM looks at it after the parser, and ends."""
    words, parser = ["--enable-auto-tool-choice"], ["--tool-call-parser", "hermes"]
    answer = refused(("engine.version", version), ("engine.args", words))
    assert answer.code == "InvalidArgs"
    assert "--tool-call-parser" in answer.message
    assert isinstance(planned(asked(("engine.version", version), ("engine.args", [*words, *parser]))), Plan)


@pytest.mark.parametrize(
    ("words", "way_out"),
    [
        (["--swap-space", "4"], "engine.options.kvOffload"), (["--task=embed"], "--runner"), (["--device", "cpu"], "accelerator"),
        (["--guided-decoding-backend", "xgrammar"], "engine.options.structuredOutput"),
    ],
)  # fmt: skip
def test_removed_flags_are_refused_with_what_replaces_them(words: list[str], way_out: str) -> None:
    assert way_out in refused(("engine.args", words)).message


def test_a_flag_is_checked_against_the_version_that_runs() -> None:
    words = ("engine.args", ["--disable-log-requests"])
    assert "--no-enable-log-requests" in refused(("engine.version", "0.32.0"), words).message
    assert isinstance(planned(asked(("engine.version", "0.33.0"), words)), Plan)


@pytest.mark.parametrize("version", ["0.32.0", "0.33.0"])
def test_names_are_refused_whether_or_not_plugins_may_add_some(version: str) -> None:
    """The flag for the KV cache's type takes no other names in one version, and is open in none of them for users."""
    for path in ("engine.options.kvCacheDType", "model.quantization"):
        assert "Use one of" in refused(("engine.version", version), (path, "q8_0")).message
        assert isinstance(planned(asked(("engine.version", version), (path, "fp8"))), Plan)


@pytest.mark.parametrize("word", ["--disable-prefix-caching", "--no-enable-prefix-caching"])
def test_both_spellings_that_switch_off_belong_to_the_field(word: str) -> None:
    """vLLM takes the first since 0.33."""
    answer = refused(("engine.version", "0.33.0"), ("engine.args", [word]))
    assert "engine.options.prefixCaching" in answer.message


@pytest.mark.parametrize("flag", RESERVED)
def test_a_reserved_flag_is_refused_with_the_field_to_use(flag: str) -> None:
    known = TABLE.find(flag)
    assert known is not None, "a reserved flag that the engine does not have protects nothing"
    answer = refused(("engine.args", [flag, *["1"] * known.values]))
    assert answer.code == "InvalidArgs"
    assert RESERVED[flag] in answer.message


@pytest.mark.parametrize(
    "words",
    [
        ["--trust-remote-code"], ["--trust_remote_code"], ["--no-trust-remote-code"], ["--trust-remote"], ["--middlewar", "x"],
        ["--middleware=x"], ["-tp", "2"], ["-tp=2"], ["-dp", "2"], ["--speculative-config.method=ngram"], ["--model", "x"],
        ["--kv-transfer-config.kv_connector", "x"], ["--api-key", "secret"], ["--conf", "x"], ["--"],
    ],
)  # fmt: skip
def test_reserved_flags_are_refused_for_a_version_without_a_table_too(words: list[str]) -> None:
    answer = refused(("engine.version", "9.9.9"), ("engine.args", words))
    assert answer.code == "InvalidArgs"
    assert "cannot be given in engine.args" in answer.message
    assert "secret" not in answer.message


@pytest.mark.parametrize("words", [["--max-num-batched-tokens", "1"], ["--seed=1"], ["--new"], ["x"], ["-"], ["-1"]])
def test_other_flags_pass_for_a_version_without_a_table(words: list[str]) -> None:
    assert isinstance(planned(asked(("engine.version", "9.9.9"), ("engine.args", words))), Plan)


@pytest.mark.parametrize("name", REFUSED_ENV)
def test_variables_that_pass_the_check_of_arguments_are_refused(name: str) -> None:
    answer = refused(("engine.env", [{"name": "HF_ENDPOINT", "value": "x"}, {"name": name, "value": "x"}]))
    assert answer.code == "InvalidEnv"
    assert f"{name} is set by {REFUSED_ENV[name]}" in answer.message


def test_other_variables_are_the_users() -> None:
    own = [
        {"name": n, "value": "9"} for n in ("HF_ENDPOINT", "VLLM_LOGGING_LEVEL", "NCCL_DEBUG", "VLLM_CPU_KVCACHE_SPACE")
    ]
    changes = [("engine.env", own), ("engine.resources", {"limits": {"memory": "16Gi"}})]
    assert env(*changes)["VLLM_CPU_KVCACHE_SPACE"] == "9"
