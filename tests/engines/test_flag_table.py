"""The check of a user's engine arguments, against the table of the llama-server that our image carries."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftmark.engines.flag_table import MAX_PROBLEMS, Flag, FlagTable, check_args

VERSION = "v0.7.0"
RESERVED = {"--ctx-size": "model.maxContextLength", "--n-gpu-layers": "accelerator", "--api-key": "the gateway"}


def load() -> FlagTable:
    table = FlagTable.load("llama-cpp", VERSION)
    assert table is not None
    return table


TABLE = load()


def messages(*args: str) -> list[str]:
    return [problem.message for problem in check_args(TABLE, args, RESERVED)]


def right_values(flag: Flag) -> list[str]:
    match flag.type:
        case "choice" | "list":
            value = flag.choices[-1]
        case "integer" | "integer64" | "number":
            value = "1"
        case _:
            value = "text"
    return [value] * flag.values


def usable() -> list[Flag]:
    return [flag for flag in TABLE.flags if not flag.removed and not flag.exits]


def test_table_names_its_origin() -> None:
    assert TABLE.version == VERSION
    assert "Debian package llama.cpp" in TABLE.source
    assert len(TABLE.flags) > 200


@pytest.mark.parametrize("version", ["b1", "", "../flags/llama-cpp-v0.7.0", "v0.7.0/", "v0.7.0\n", "x" * 5000, "\x00"])
def test_other_versions_have_no_table(version: str) -> None:
    assert FlagTable.load("llama-cpp", version) is None


def test_an_engine_without_tables_has_none() -> None:
    assert FlagTable.load("vllm", VERSION) is None


@pytest.mark.parametrize("flag", usable(), ids=lambda flag: flag.name)
def test_every_flag_in_its_right_form_is_taken_under_every_name(flag: Flag) -> None:
    for name in flag.names:
        assert check_args(TABLE, [name, *right_values(flag)], {}) == ()


def test_all_flags_together_are_taken() -> None:
    assert check_args(TABLE, [item for flag in usable() for item in (flag.name, *right_values(flag))], {}) == ()


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
