"""What is always on the command line of `sglang serve`, and how large its batches are."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftmark.engines.sglang import OVERRIDABLE
from draftmark.plan import Plan
from draftmark.render.pod import render_pod_template
from tests.engines.rendering import NO_DEFAULTS
from tests.engines.sglang.ask import CPU, ENGINE, SMALLEST, args, asked, planned, pod, refused, value_of
from tests.specs import Object, parse, with_field


def test_the_command_line_of_the_smallest_service() -> None:
    assert args() == [
        "--model-path", "/models/llama", "--host", "0.0.0.0", "--port", "30000", "--served-model-name", "tiny",
        "--context-length", "4096", "--max-running-requests", "256", "--tp-size", "1", "--tokenizer-worker-num", "1",
        "--enable-metrics", "--uvicorn-access-log-exclude-prefixes", "/health", "/metrics",
    ]  # fmt: skip


def test_the_command_does_not_depend_on_the_images_entry_point_and_asks_nobody_what_the_model_is() -> None:
    assert pod()["containers"][0]["command"] == ["sglang", "serve", "--model-type", "llm"]


def test_the_users_arguments_come_last() -> None:
    assert args(("engine.args", ["--random-seed", "7"]))[-2:] == ["--random-seed", "7"]


@pytest.mark.parametrize("flag", OVERRIDABLE)
@pytest.mark.parametrize("joined", [False, True])
def test_what_no_field_sets_stands_once_when_the_user_writes_it(flag: str, joined: bool) -> None:
    words = [f"{flag}=1"] if joined else [flag, "1"]
    adapters = [{"name": "tiny:a", "uri": "hf://o/a"}]
    for base in (SMALLEST, CPU):
        for chunked in (True, False):
            argv = args(
                ("engine.args", words), ("model.adapters", adapters), ("workload.kind", "interactive"),
                ("engine.options.chunkedPrefill", chunked), base=base,
            )  # fmt: skip
            assert sum(word.partition("=")[0] == flag for word in argv) == 1
            assert argv[-len(words) :] == words


@pytest.mark.parametrize(
    ("words", "kind"), [([], "generate"), (["--random-seed", "1"], "generate"), (["--is-embedding"], "embed")]
)
def test_the_arguments_tell_what_the_model_does(words: list[str], kind: str) -> None:
    assert ENGINE.model_kind(words) == kind


@pytest.mark.parametrize(
    ("resource", "image"),
    [
        (None, "lmsysorg/sglang:v1-xeon"), ("nvidia.com/gpu", "lmsysorg/sglang:v1"), ("amd.com/gpu", None),
        ("nvidia.com/mig-1g.5gb", None),
    ],
)  # fmt: skip
def test_hardware_has_its_image_where_there_is_one(resource: str | None, image: str | None) -> None:
    assert ENGINE.default_image("1", resource) == image


def test_an_amd_gpu_needs_an_image_that_is_named() -> None:
    """There is one for each family of GPUs."""
    amd = ("accelerator", {"product": "AMD-Instinct-MI300X", "resourceName": "amd.com/gpu"})
    answer = refused(amd)
    assert answer.code == "NoImage"
    assert "engine.image" in answer.message
    named = [("engine.image", "lmsysorg/sglang:v0.5.23-rocm720-mi30x"), ("engine.version", "0.5.23")]
    assert isinstance(planned(asked(amd, *named)), Plan)


# --- batch sizes ---


@pytest.mark.parametrize(
    ("kind", "requests", "on_cpu"),
    [(None, "256", "64"), ("chat", "256", "64"), ("batch", "512", "64"), ("interactive", "64", "64")],
)
def test_requests_at_once_follow_the_kind_of_workload_with_a_reason(
    kind: str | None, requests: str, on_cpu: str
) -> None:
    change = [("workload.kind", kind)] if kind else []
    for base, size in ((SMALLEST, requests), (CPU, on_cpu)):
        assert value_of(args(*change, base=base), "--max-running-requests") == size
        plan = planned(asked(*change, base=base))
        assert isinstance(plan, Plan)
        [why] = [r.message for r in plan.reasons if r.code == "Concurrency"]
        assert why.startswith(f"{size} ")
        assert (f"workload.kind {kind}" if kind else "workload.kind is not set") in why


@pytest.mark.parametrize("kind", [None, "chat", "batch"])
def test_tokens_of_a_step_are_sglangs_to_choose_by_the_gpus_memory(kind: str | None) -> None:
    """It sets 1.5 MiB aside for each, so that a number which fits a large GPU leaves a small one no room for the model."""
    change = [("workload.kind", kind)] if kind else []
    plan = planned(asked(*change))
    assert isinstance(plan, Plan)
    assert (plan.max_batched_tokens, [r.code for r in plan.reasons if r.code == "BatchedTokens"]) == (None, [])
    argv = args(*change)
    assert "--chunked-prefill-size" not in argv
    assert "--max-prefill-tokens" not in argv
    assert "--mem-fraction-static" not in argv


def test_an_even_flow_of_tokens_has_small_steps_and_a_token_for_all_between_two_of_them() -> None:
    argv = args(("workload.kind", "interactive"))
    assert value_of(argv, "--chunked-prefill-size") == "2048"
    assert value_of(argv, "--prefill-decode-interval") == "1"
    plan = planned(asked(("workload.kind", "interactive")))
    assert isinstance(plan, Plan)
    [why] = [r.message for r in plan.reasons if r.code == "BatchedTokens"]
    assert "workload.kind interactive" in why


def test_tokens_of_a_step_are_the_users_when_they_write_them() -> None:
    for words in (["--chunked-prefill-size", "4096"], ["--chunked-prefill-size=4096"], ["--max-prefill-tokens", "8k"]):
        plan = planned(asked(("engine.args", words), ("workload.kind", "interactive")))
        assert isinstance(plan, Plan)
        assert plan.max_batched_tokens is None
        assert "BatchedTokens" not in {r.code for r in plan.reasons}


def test_a_prompt_that_may_not_be_read_in_parts_fits_in_a_step() -> None:
    whole = [("model.maxContextLength", 32768), ("engine.options.chunkedPrefill", False)]
    argv = args(*whole)
    assert value_of(argv, "--chunked-prefill-size") == "-1"
    assert value_of(argv, "--max-prefill-tokens") == "32768"
    assert "--prefill-decode-interval" not in argv


def test_a_model_that_embeds_generates_nothing_between_two_prompts() -> None:
    argv = args(("engine.args", ["--is-embedding"]), ("workload.kind", "interactive"))
    assert "--prefill-decode-interval" not in argv
    assert "--chunked-prefill-size" not in argv


@given(
    kind=st.sampled_from([None, "chat", "batch", "interactive"]),
    concurrency=st.none() | st.integers(1, 1024),
    context=st.none() | st.integers(16, 2**24),
    chunked=st.none() | st.booleans(),
    gpu=st.booleans(),
)
def test_a_step_takes_a_token_of_every_request_and_a_prompt_where_it_must(
    kind: str | None, concurrency: int | None, context: int | None, chunked: bool | None, gpu: bool
) -> None:
    changes = {
        "workload.kind": kind, "workload.concurrency": concurrency, "model.maxContextLength": context,
        "engine.options.chunkedPrefill": chunked,
    }  # fmt: skip
    plan = planned(asked(*((p, v) for p, v in changes.items() if v is not None), base=SMALLEST if gpu else CPU))
    assert isinstance(plan, Plan)
    assert plan.max_batched_tokens is None or plan.max_batched_tokens >= plan.concurrency
    assert chunked is not False or (plan.max_batched_tokens or 0) >= plan.max_context_length


# --- an edit ---


def _planned(base: Object, keep: Plan | None = None) -> Plan:
    plan = planned(parse(base), keep)
    assert isinstance(plan, Plan)
    return plan


def test_what_was_chosen_stays_when_something_else_is_edited() -> None:
    base = with_field(SMALLEST, "workload.kind", "interactive")
    before = replace(_planned(base), concurrency=99, max_batched_tokens=4096)
    after = _planned(with_field(base, "engine.options.prefixCaching", True), keep=before)
    assert (after.concurrency, after.max_batched_tokens) == (99, 4096)


@pytest.mark.parametrize(("kept", "written"), [(2048, "2048"), (5000, "4864"), (100, "256")])
def test_parts_of_a_prompt_fill_whole_pages_whatever_was_kept(kept: int, written: str) -> None:
    """SGLang does not start otherwise."""
    spec = asked(("workload.kind", "interactive"), ("workload.concurrency", 8))
    plan = planned(spec)
    assert isinstance(plan, Plan)
    template = render_pod_template("tiny", spec, replace(plan, max_batched_tokens=kept), NO_DEFAULTS)
    assert value_of(template["spec"]["containers"][0]["args"], "--chunked-prefill-size") == written
