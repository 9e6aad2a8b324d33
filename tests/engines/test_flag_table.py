"""The check of a user's engine arguments, against the tables of llama-server, vLLM and SGLang."""

import argparse
import contextlib
import io
import json
from collections.abc import Callable
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftmark.engines.flag_table import MAX_PROBLEMS, Flag, FlagTable, check_args, names_in

VERSION = "v0.7.0"
RESERVED = {"--ctx-size": "model.maxContextLength", "--n-gpu-layers": "accelerator", "--api-key": "the gateway"}


def load(engine: str = "llama-cpp", version: str = VERSION) -> FlagTable:
    table = FlagTable.load(engine, version)
    assert table is not None
    return table


TABLE = load()
VLLM = load("vllm", "0.33.0")
SGLANG = load("sglang", "0.5.23")
TABLES = (TABLE, VLLM, load("vllm", "0.32.0"), SGLANG)


def messages(*args: str) -> list[str]:
    return [problem.message for problem in check_args(TABLE, args, RESERVED)]


def right_values(flag: Flag) -> list[str]:
    match flag.type:
        case "choice" | "list":
            value = flag.choices[-1]
        case "integer" | "integer64" | "number" | "int" | "float" | "size" | "quantity" | "json":
            value = "1"
        case _:
            value = "text"
    return [value] * flag.values


def usable(table: FlagTable = TABLE) -> list[Flag]:
    return [flag for flag in table.flags if not flag.removed and not flag.exits]


@pytest.mark.parametrize(
    ("table", "version", "source"), [(TABLE, VERSION, "Debian package llama.cpp"), (VLLM, "0.33.0", "package vllm 0.33.0"),
     (SGLANG, "0.5.23", "package sglang 0.5.23")],
    ids=lambda x: getattr(x, "engine", ""),
)  # fmt: skip
def test_a_table_names_its_origin(table: FlagTable, version: str, source: str) -> None:
    assert table.version == version
    assert source in table.source
    assert len(table.flags) > 200


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.engine)
def test_no_two_flags_share_a_name(table: FlagTable) -> None:
    names = [name for flag in table.flags for name in flag.names]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("version", ["b1", "", "../flags/llama-cpp-v0.7.0", "v0.7.0/", "v0.7.0\n", "x" * 5000, "\x00"])
def test_other_versions_have_no_table(version: str) -> None:
    assert FlagTable.load("llama-cpp", version) is None


def test_an_engine_without_tables_has_none() -> None:
    assert FlagTable.load("vllm", VERSION) is None
    assert FlagTable.load("nothing", VERSION) is None


EVERY = [(table, flag) for table in TABLES for flag in usable(table)]


@pytest.mark.parametrize(("table", "flag"), EVERY, ids=lambda x: getattr(x, "name", ""))
def test_every_flag_in_its_right_form_is_taken_under_every_name(table: FlagTable, flag: Flag) -> None:
    for name in flag.names:
        assert check_args(table, [name, *right_values(flag)], {}) == ()


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.engine)
def test_all_flags_together_are_taken(table: FlagTable) -> None:
    assert check_args(table, [item for flag in usable(table) for item in (flag.name, *right_values(flag))], {}) == ()


@pytest.mark.parametrize(
    "args",
    [
        ["--predict", "-1"],
        ["--temp", "1e-3"],
        ["--temp", "-.5"],
        ["--seed", "4294967295"],
        ["--spec-draft-ngl", "all"],
        ["--flash-attn", "true"],
        ["--spec-type", "draft-mtp,ngram-mod"],
        ["--cache_reuse", "256"],
        ["--no-kv-offload", "-nocb"],
        ["--control-vector-layer-range", "1", "-1"],
        ["--reverse-prompt", "--- user:"],
        ["--override-tensor", r"\.ffn_.*_exps\.=CPU"],
        ["--chat-template-kwargs", '{"a": "--b=1"}'],
        [],
    ],
)
def test_what_llama_server_takes_is_taken(args: list[str]) -> None:
    assert messages(*args) == []


def test_unknown_flag_names_the_nearest_and_is_one_problem_with_its_value() -> None:
    assert messages("--cache-reus", "512") == [
        "--cache-reus is no flag of llama-server v0.7.0. Nearest: --cache-reuse. "
        "Correct it, remove it, or set an engine.version that has it."
    ]


def test_unknown_flag_without_a_near_one_guesses_nothing() -> None:
    assert messages("--quux") == [
        "--quux is no flag of llama-server v0.7.0. Correct it, remove it, or set an engine.version that has it."
    ]


@pytest.mark.parametrize("args", [["--top-k"], ["--top-k", "--metrics"], ["--top-k", "-fa", "on"]])
def test_missing_value_is_said_with_what_it_must_be(args: list[str]) -> None:
    assert messages(*args) == [
        "--top-k needs a value as the next list item: a whole number from -2147483648 to 2147483647; it has none. "
        "Add what is missing."
    ]


def test_two_values_are_both_needed() -> None:
    assert "needs 2 values" in messages("--control-vector-layer-range", "1")[0]


def test_flag_and_value_in_one_item_are_refused_with_the_way_out() -> None:
    # The real program answers `--top-k=5` with `invalid argument`.
    for argument in ("--top-k=5", "--top-k 5"):
        assert messages(argument) == [
            f"{argument} is one list item; llama-server v0.7.0 takes a flag and its value as two. "
            "Write --top-k and 5 as separate items."
        ]


def test_switch_takes_no_value() -> None:
    assert messages("--props=true") == [
        "--props of llama-server v0.7.0 is a switch and takes no value. Write --props alone, or leave it out."
    ]
    assert messages("--slots=false") == [
        "--slots of llama-server v0.7.0 is a switch and takes no value. "
        "Write --slots alone to switch it on, or --no-slots to switch it off."
    ]
    assert messages("--props", "true")[0].startswith("true is no flag")


@pytest.mark.parametrize(
    ("args", "wrong"),
    [
        (["--flash-attn", "maybe"], "--flash-attn takes one of on, off, auto; it is maybe."),
        (["-sm", "rows"], "-sm (--split-mode) takes one of none, layer, row, tensor; it is rows."),
        (["--top-k", "1.5"], "--top-k takes a whole number from -2147483648 to 2147483647; it is 1.5."),
        (["--top-k", "12x"], "it is 12x."),
        (["--top-k", "2147483648"], "it is 2147483648."),
        (["--top-k", "٣"], "it is ٣."),
        (["--top-k", ""], 'it is "".'),
        (["--n-cpu-moe", "-1"], "--n-cpu-moe takes a whole number from 0 to 2147483647; it is -1."),
        (["--temp", "warm"], "--temp takes a number; it is warm."),
        (["--temp", "nan"], "it is nan."),
        (["--temp", "1e39"], "it is 1e39."),
        (["--spec-draft-ngl", "some"], "or one of auto, all; it is some."),
        (["--spec-type", "none,foo"], "separated by commas; it is none,foo."),
    ],
)
def test_wrong_value_is_said_with_the_right_ones(args: list[str], wrong: str) -> None:
    assert wrong in messages(*args)[0]


@pytest.mark.parametrize(
    ("argument", "shown"),
    [
        ("--ctx-size", "--ctx-size"),
        ("-c", "-c (--ctx-size)"),
        ("--ctx_size", "--ctx_size"),
        ("--ctx-size=9", "--ctx-size"),
    ],
)
def test_what_draftmark_sets_is_refused_under_every_spelling(argument: str, shown: str) -> None:
    assert messages(argument, "9")[0] == (
        f"{shown} cannot be given in engine.args: it is set by model.maxContextLength. Remove it."
    )


def test_reserved_flag_may_be_named_by_an_alias() -> None:
    assert "set by accelerator" in messages("-ngl", "99")[0]


def test_negation_of_a_reserved_switch_is_refused() -> None:
    assert check_args(TABLE, ["--no-cache-prompt"], {"--cache-prompt": "engine.options.prefixCaching"})


def test_a_reserved_value_is_not_repeated() -> None:
    assert "hunter2" not in " ".join(messages("--api-key=hunter2", "--api-key", "hunter2"))


def test_removed_flags_say_what_replaces_them() -> None:
    assert messages("--draft", "4") == [
        "--draft was removed; llama-server v0.7.0 does not start with it. "
        "Use --spec-draft-n-max or --spec-ngram-mod-n-max."
    ]
    assert "Use --load-mode none." in messages("--no-mmap")[0]


def test_flags_that_print_and_exit_are_refused() -> None:
    assert messages("-h") == ["-h (--help) makes llama-server v0.7.0 print and exit instead of serving. Remove it."]


def test_problems_are_bounded_in_number_and_length() -> None:
    problems = check_args(TABLE, ["--" + "x" * 100_000] * 50, {})
    assert len(problems) == MAX_PROBLEMS
    assert all(len(problem.message) < 1000 for problem in problems)


def test_message_is_one_printable_line() -> None:
    (problem,) = check_args(TABLE, ["--a\nb\x00\u202e"], {})
    assert problem.message.isprintable()


ARGUMENTS = st.lists(
    st.one_of(
        st.text(),
        st.characters(categories=["Cs"]),
        st.sampled_from(sorted(TABLE.by_name)),
        st.builds("{}{}{}".format, st.sampled_from(sorted(TABLE.by_name)), st.sampled_from("= _-"), st.text()),
        st.integers().map(str),
        st.floats().map(str),
    ),
    max_size=12,
)


@given(args=ARGUMENTS)
def test_any_list_of_strings_gets_the_same_bounded_answer(args: list[str]) -> None:
    problems = check_args(TABLE, args, RESERVED)
    assert problems == check_args(load(), list(args), dict(reversed(RESERVED.items())))
    assert len(problems) <= MAX_PROBLEMS
    assert [p.index for p in problems] == sorted({p.index for p in problems})
    assert all(p.message.isprintable() and len(p.message) < 1000 for p in problems)


# --- as argparse reads it ---

VLLM_RESERVED = {
    "--model": "model.uri",
    "--speculative-config": "engine.options.speculative",
    "--trust-remote-code": "nothing",
}


def vllm_messages(*args: str) -> list[str]:
    return [problem.message for problem in check_args(VLLM, args, VLLM_RESERVED)]


@pytest.mark.parametrize(
    "args",
    [
        ["--max-num-seqs", "64"],
        ["--max-num-seqs=64"],
        ["--max_num_seqs=6_4"],
        ["-dcp=2", "-dcp", "2"],
        ["--max-num-batched-tokens", "8k", "--max-num-batched-tokens=2K", "--max-num-batched-tokens", "1.5k"],
        ["--max-model-len", "auto"],
        ["--max-logprobs", "-1"],
        ["--gpu-memory-utilization", ".9"],
        ["--watermark=-0.5"],
        ["--no-enable-prefix-caching", "--enable-expert-parallel", "-ep"],
        ["--lora-target-modules", "q_proj", "k_proj", "--enforce-eager"],
        ["--limit-mm-per-prompt", '{"image": 2}'],
        ["--limit-mm-per-prompt.image", "2", "--limit-mm-per-prompt.video=-1", "--compilation_config.cudagraph_capture_sizes+", "1,2"],
        ["--kernel-config.a.b", "--what-it-looks-like"],
        ["-O3", "-O", "2", "-O=1", "--optimization-level", "0"],
        ["--tool-call-parser", "hermes", "--enable-auto-tool-choice"],
        ["--load-format", "a-plugin-of-my-own"],
        ["--max-num-queued-reqs", "None"],
    ],
)  # fmt: skip
def test_what_vllm_takes_is_taken(args: list[str]) -> None:
    assert vllm_messages(*args) == []


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--max-num-seqs"], "--max-num-seqs needs a value"),
        (["--max-num-seqs", "--enforce-eager"], "--max-num-seqs needs a value"),
        (["--max-num-seqs", "64", "65"], "65 is no flag"),
        (["--max-num-seqs", "many"], "takes a whole number; it is many"),
        (["--max-num-seqs="], 'takes a whole number; it is ""'),
        (["--max-num-batched-tokens", "1.5K"], "takes a whole number, where wanted with k, m, g or t"),
        (["--watermark", "-0.5"], "--watermark needs a value"),
        (["--limit-mm-per-prompt", "{image: 2}"], "takes JSON"),
        (["--limit-mm-per-prompt", "[" * 5000], "takes JSON"),
        (["--limit-mm-per-prompt.image"], "needs a value"),
        (["--max-num-seqs.x", "1"], "--max-num-seqs.x is no flag"),
        (["--enforce-eager=true"], "is a switch and takes no value. Write --enforce-eager alone"),
        (["--enforce-eager", "true"], "true is no flag"),
        (["--lora-target-modules"], "needs a value"),
        (["--dtype", "int4"], "takes one of auto"),
        (["--tool-call-parser", "deepseek-r1"], "takes one of"),
        (["--swap-space", "4"], "Use engine.options.kvOffload."),
        (["--help"], "print and exit"),
        (["--help=all"], "print and exit"),
        (["--"], "-- is no flag"),
        (["meta-llama/Llama-3"], "is no flag"),
        (["--max-num-seq", "4"], "Nearest: --max-num-seqs"),
    ],
)
def test_what_vllm_would_not_take_is_said(args: list[str], said: str) -> None:
    assert said in vllm_messages(*args)[0]


@pytest.mark.parametrize(
    "args",
    [
        ["--model=x"], ["--model", "x"], ["--speculative-config.method", "ngram"], ["--speculative_config.a.b=1"],
        ["-sc", "{}"], ["-sc.method=x"], ["--no-trust-remote-code"], ["--trust_remote_code"],
    ],
)  # fmt: skip
def test_what_draftmark_sets_is_refused_however_it_is_written(args: list[str]) -> None:
    [said] = vllm_messages(*args)
    assert "cannot be given in engine.args" in said


@pytest.mark.parametrize("args", [["--trust-remote-cod"], ["--trust"], ["--spec-tok", "1"], ["-s", "{}"]])
def test_the_beginning_of_a_flag_is_no_flag(args: list[str]) -> None:
    """argparse takes it for the flag that it is the beginning of, past the list of those that are not the user's."""
    assert "is no flag of vllm serve 0.33.0" in vllm_messages(*args)[0]


def test_names_are_read_without_values_and_keys() -> None:
    assert names_in(["--a_b=1", "x", "-sc.method=1", "--c.d", "-1"]) == ("--a-b", "-sc", "--c", "-1")


class _Refused(Exception):
    pass


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _Refused(message)


def _size(text: str) -> object:
    return text if text.strip()[-1:] in "kKmMgGtT" and text.strip()[-1:] else int(text)


def _quantity(text: str) -> object:
    return text if text.strip().endswith(("k", "M", "G", "T", "i")) else int(text)


def argparse_of(table: FlagTable) -> argparse.ArgumentParser:
    """A parser with the flags of a table, as vLLM and SGLang make their own from declarations."""
    reads: dict[str, Callable[[str], Any]] = {
        "int": int, "float": float, "size": _size, "quantity": _quantity, "json": json.loads,
    }  # fmt: skip
    parser = _Parser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for flag in usable(table):
        names = (*flag.aliases, flag.name)
        if flag.type == "switch":
            parser.add_argument(*names, action="store_true", dest=flag.name)
            for name in flag.negations:
                parser.add_argument(name, action="store_false", dest=flag.name)
            continue

        def read(text: str, flag: Flag = flag) -> Any:
            if text in flag.choices or text in flag.undocumented:
                return text
            if flag.type == "choice":
                raise ValueError(text)
            return reads.get(flag.type, str)(text)

        parser.add_argument(
            *names, type=read, nargs=("+" if flag.values else "*") if flag.more else None, dest=flag.name
        )
    return parser


PARSER = argparse_of(VLLM)
WORDS = st.one_of(
    st.sampled_from(["1", "-1", "0.5", "-0.5", "8k", "x", "", "--", "-", "a b", "-a b", "{}", "None", "auto"]),
    st.sampled_from(sorted(VLLM.by_name)),
    st.builds("{}={}".format, st.sampled_from(sorted(VLLM.by_name)), st.sampled_from(["1", "", "x", "{}", "-1"])),
)
#: Values that fit most flags, so that lists that are taken are not rare.
FITTING = st.sampled_from(usable(VLLM)).map(lambda flag: [flag.name, *right_values(flag)])


@given(parts=st.lists(FITTING | WORDS.map(lambda word: [word]), max_size=6))
def test_what_the_check_takes_argparse_takes(parts: list[list[str]]) -> None:
    args = [word for part in parts for word in part]
    if check_args(VLLM, args, {}):
        return
    plain = [word for word in args if "." not in word]  # keys are vLLM's own, above argparse
    if plain != args:
        return
    with contextlib.redirect_stderr(io.StringIO()):
        PARSER.parse_args(args)


PLAIN_PARSER = argparse_of(SGLANG)
PLAIN_WORDS = st.one_of(
    st.sampled_from(
        ["1", "-1", "0.5", "-0.5", "8k", "8Ki", "x", "", "--", "-", "a b", "-a b", "{}", "auto", "--a.b", "--tp_size"]
    ),
    st.sampled_from(sorted(SGLANG.by_name)),
    st.builds("{}={}".format, st.sampled_from(sorted(SGLANG.by_name)), st.sampled_from(["1", "", "x", "{}", "-1"])),
)
PLAIN_FITTING = st.sampled_from(usable(SGLANG)).map(lambda flag: [flag.name, *right_values(flag)])


@given(parts=st.lists(PLAIN_FITTING | PLAIN_WORDS.map(lambda word: [word]), max_size=6))
def test_what_the_check_takes_pythons_own_argparse_takes(parts: list[list[str]]) -> None:
    args = [word for part in parts for word in part]
    if not check_args(SGLANG, args, {}):
        with contextlib.redirect_stderr(io.StringIO()):
            PLAIN_PARSER.parse_args(args)


@given(args=st.lists(st.text() | st.characters(categories=["Cs"]) | WORDS, max_size=12))
def test_any_list_of_strings_gets_a_bounded_answer_from_the_other_table_too(args: list[str]) -> None:
    problems = check_args(VLLM, args, VLLM_RESERVED)
    assert len(problems) <= MAX_PROBLEMS
    assert [p.index for p in problems] == sorted({p.index for p in problems})
    assert all(p.message.isprintable() and len(p.message) < 1000 for p in problems)


# --- as Python's own argparse reads it ---


@pytest.mark.parametrize(
    "args",
    [
        ["--tp-size=2"], ["--hicache-ratio", "-0.5"], ["--chunked-prefill-size", "-1"], ["--gc-threshold", "1", "2", "3"],
        ["--max-prefill-tokens", "1.5k"], ["--max-prefill-tokens", "64Ki"], ["--max-prefill-tokens", " 2M"], ["--log-level", "a.b"],
    ],
)  # fmt: skip
def test_what_sglang_takes_is_taken(args: list[str]) -> None:
    assert check_args(SGLANG, args, {}) == ()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--tp_size", "2"], "Nearest: --tp-size."), (["--json-model-override-args.a", "1"], "is no flag"),
        (["--max-prefill-tokens", "1m"], "Ki, Mi, Gi or Ti"), (["--max-prefill-tokens", "1.5Ki"], "Ki, Mi, Gi or Ti"),
        (["--enable-metrics=1"], "takes no value"), (["--tp-size", "--host"], "it has none"),
    ],
)  # fmt: skip
def test_what_sglang_would_not_take_is_said(args: list[str], said: str) -> None:
    [problem] = check_args(SGLANG, args, {})[:1]
    assert said in problem.message
