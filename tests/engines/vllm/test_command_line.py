"""What is always on the command line of `vllm serve`, and how large its batches are."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftmark.engines.vllm import OVERRIDABLE
from draftmark.plan import Plan
from tests.engines.vllm.ask import ENGINE, GPU, SMALLEST, args, asked, planned, value_of
from tests.specs import Object, parse, with_field

# --- what is always written ---


def test_the_command_line_of_the_smallest_service() -> None:
    assert args() == [
        "/models/llama", "--host", "0.0.0.0", "--port", "8000", "--served-model-name", "tiny", "--max-model-len", "4096",
        "--max-num-seqs", "128", "--tensor-parallel-size", "1", "--api-server-count", "1", "--shutdown-timeout", "600",
        "--max-num-batched-tokens", "2048", "--disable-access-log-for-endpoints", "/health,/metrics",
    ]  # fmt: skip


def test_the_users_arguments_come_last() -> None:
    assert args(("engine.args", ["--seed", "7"]))[-2:] == ["--seed", "7"]


@pytest.mark.parametrize("flag", OVERRIDABLE)
@pytest.mark.parametrize("joined", [False, True])
def test_what_no_field_sets_stands_once_when_the_user_writes_it(flag: str, joined: bool) -> None:
    words = [f"{flag}=1"] if joined else [flag, "1"]
    argv = args(
        ("engine.args", words), ("model.adapters", [{"name": "a", "uri": "hf://o/a"}]), base=GPU,
    )  # fmt: skip
    assert sum(word.partition("=")[0] == flag for word in argv) == 1
    assert argv[-len(words) :] == words


def test_tokens_of_a_step_are_the_users_when_they_write_them() -> None:
    argv = args(("engine.args", ["--max-num-batched-tokens", "4k"]))
    assert value_of(argv, "--max-num-batched-tokens") == "4k"
    plan = planned(asked(("engine.args", ["--max-num-batched-tokens=4k"])))
    assert isinstance(plan, Plan)
    assert plan.max_batched_tokens is None
    assert "BatchedTokens" not in {r.code for r in plan.reasons}


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ([], "generate"), (["--seed", "1"], "generate"), (["--runner", "generate"], "generate"),
        (["--runner", "pooling"], "embed"), (["--runner=pooling"], "embed"), (["--convert", "embed"], "embed"),
        (["--runner", "pooling", "--convert=classify"], "rerank"), (["--runner"], "generate"),
    ],
)  # fmt: skip
def test_the_arguments_tell_what_the_model_does(words: list[str], kind: str) -> None:
    assert ENGINE.model_kind(words) == kind


@pytest.mark.parametrize(
    ("resource", "image"),
    [
        (None, "vllm/vllm-openai-cpu:v1"), ("nvidia.com/gpu", "vllm/vllm-openai:v1"),
        ("amd.com/gpu", "vllm/vllm-openai-rocm:v1"), ("nvidia.com/mig-1g.5gb", None),
    ],
)  # fmt: skip
def test_every_hardware_has_its_image(resource: str | None, image: str | None) -> None:
    assert ENGINE.default_image("1", resource) == image


# --- batch sizes ---


@pytest.mark.parametrize(
    ("kind", "on_gpu", "on_cpu"),
    [
        (None, ("256", "8192"), ("128", "2048")), ("chat", ("256", "8192"), ("128", "2048")),
        ("batch", ("512", "16384"), ("128", "2048")), ("interactive", ("64", "2048"), ("64", "2048")),
    ],
)  # fmt: skip
def test_batch_sizes_follow_the_kind_of_workload_with_a_reason(
    kind: str | None, on_gpu: tuple[str, str], on_cpu: tuple[str, str]
) -> None:
    change = [("workload.kind", kind)] if kind else []
    for base, sizes in ((GPU, on_gpu), (SMALLEST, on_cpu)):
        argv = args(*change, base=base)
        assert (value_of(argv, "--max-num-seqs"), value_of(argv, "--max-num-batched-tokens")) == sizes
        plan = planned(asked(*change, base=base))
        assert isinstance(plan, Plan)
        told = {r.code: r.message for r in plan.reasons}
        for code, size in zip(("Concurrency", "BatchedTokens"), sizes, strict=True):
            assert told[code].startswith(f"{size} ")
            assert (f"workload.kind {kind}" if kind else "workload.kind is not set") in told[code]
        assert ("--enable-chunked-prefill" in argv) == (kind is not None)


def test_a_written_number_of_requests_needs_no_reason_and_fits_in_a_step() -> None:
    plan = planned(asked(("workload.concurrency", 7), base=GPU))
    assert isinstance(plan, Plan)
    assert (plan.concurrency, [r.code for r in plan.reasons if r.code == "Concurrency"]) == (7, [])


def test_a_prompt_that_may_not_be_read_in_parts_fits_in_a_step() -> None:
    """vLLM does not start with a context that is longer than a step, unless it reads prompts in parts."""
    whole = [("model.maxContextLength", 32768), ("engine.options.chunkedPrefill", False)]
    argv = args(*whole, base=GPU)
    assert value_of(argv, "--max-num-batched-tokens") == "32768"
    assert "--no-enable-chunked-prefill" in argv
    assert value_of(args(whole[0], base=GPU), "--max-num-batched-tokens") == "8192"


def test_a_model_that_embeds_reads_a_prompt_in_one_step() -> None:
    pooling = ("engine.args", ["--runner=pooling"])
    assert value_of(args(pooling), "--max-num-batched-tokens") == "4096"
    assert value_of(args(pooling, ("workload.kind", "batch"), base=GPU), "--max-num-batched-tokens") == "16384"
    assert "--enable-chunked-prefill" not in args(pooling, ("workload.kind", "batch"), base=GPU)


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
    plan = planned(asked(*((p, v) for p, v in changes.items() if v is not None), base=GPU if gpu else SMALLEST))
    assert isinstance(plan, Plan)
    assert plan.max_batched_tokens is not None
    assert plan.max_batched_tokens >= plan.concurrency
    assert chunked is not False or plan.max_batched_tokens >= plan.max_context_length


# --- an edit ---


def _planned(base: Object, keep: Plan | None = None) -> Plan:
    plan = planned(parse(base), keep)
    assert isinstance(plan, Plan)
    return plan


def test_what_was_chosen_stays_when_something_else_is_edited() -> None:
    before = replace(_planned(GPU), concurrency=99, max_batched_tokens=777)
    after = _planned(with_field(GPU, "engine.options.prefixCaching", True), keep=before)
    assert (after.concurrency, after.max_batched_tokens) == (99, 777)


def test_a_step_grows_with_an_edit_that_needs_it() -> None:
    edited = with_field(GPU, "workload.concurrency", 900)
    after = _planned(edited, keep=replace(_planned(GPU), max_batched_tokens=777))
    assert after.max_batched_tokens == 8192
