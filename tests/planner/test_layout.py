"""Which GPUs, and how split: known models on known nodes, and what must hold for all of them."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftmark.engines.registry import ENGINES
from draftmark.facts.model_catalogue import catalogued
from draftmark.facts.models import ModelFacts
from draftmark.planner.layout import Hardware, Split, Wish, choose_layout
from draftmark.planner.memory import CONTEXT_STEP, Demand, gib
from tests.planner.layouts import H100, L4, facts_of, lay_out

LLAMA_8B, LLAMA_70B, LLAMA_405B = (f"meta-llama/Llama-3.1-{size}" for size in ("8B", "70B", "405B"))
VLLM = ENGINES["vllm"]
ONE_H100 = replace(H100, gpus_per_node=1, nodes=1)


@pytest.mark.parametrize(
    ("model", "nodes", "wanted", "context"),
    [
        (LLAMA_8B, [H100], "1 GPU of NVIDIA-H100-80GB-HBM3", 131_072),
        # 14.96 GiB of weights and 4 GiB for sixteen requests of 2,048 tokens are more than an L4 has.
        (LLAMA_8B, [L4], "2 GPUs (pipeline 2) of NVIDIA-L4", 131_072),
        (LLAMA_8B, [H100, L4], "1 GPU of NVIDIA-H100-80GB-HBM3", 131_072),
        ("Qwen/Qwen2.5-7B-Instruct", [H100, L4], "1 GPU of NVIDIA-L4", 32_768),
        (LLAMA_70B, [H100], "4 GPUs (tensor 4) of NVIDIA-H100-80GB-HBM3", 131_072),
        ("mistralai/Mixtral-8x7B-v0.1", [H100], "2 GPUs (tensor 2) of NVIDIA-H100-80GB-HBM3", 32_768),
        (LLAMA_405B, [H100], "16 GPUs (tensor 8 × pipeline 2) on 2 nodes of NVIDIA-H100-80GB-HBM3", 131_072),
        ("deepseek-ai/DeepSeek-V3", [H100], "16 GPUs (tensor 8 × pipeline 2) on 2 nodes of NVIDIA-H100-80GB-HBM3", 163_840),
    ],
)  # fmt: skip
def test_a_model_gets_the_fewest_gpus_that_fit(model: str, nodes: list[Hardware], wanted: str, context: int) -> None:
    laid = lay_out(facts_of(model), nodes)
    assert (str(laid.chosen), laid.context) == (wanted, context)


def test_a_whole_context_of_131072_fits_on_one_gpu_of_80_gib() -> None:
    laid = lay_out(facts_of(LLAMA_8B), [ONE_H100], context=131_072)
    assert laid.memory is not None
    assert gib(laid.memory.weight_bytes) == "14.96 GiB"
    assert laid.memory.kv_needed_bytes == (131_072 + 16 * 2048) * 131_072  # at 128 KiB per token
    # 0.92 · 79.65 − 14.96 − 3 GiB.
    assert laid.memory.kv_tokens == 453_166


def test_more_gpus_of_one_node_come_before_fewer_of_several() -> None:
    """Two L4s hold it, on a node each, which cannot be deployed; so do four T4s of one."""
    one_l4 = replace(L4, gpus_per_node=1)
    t4 = replace(L4, product="Tesla-T4", gpu_bytes=15_360 * 2**20, gpus_per_node=4, nodes=1)
    laid = lay_out(facts_of("google/gemma-2-9b"), [one_l4, t4])
    assert str(laid.chosen) == "4 GPUs (pipeline 4) of Tesla-T4"
    assert lay_out(facts_of("google/gemma-2-9b"), [one_l4]).chosen.split.nodes == 2


def test_heads_that_do_not_divide_are_spread_over_stages() -> None:
    """28 heads: 8 GPUs are tensor 4 and two stages."""
    laid = lay_out(facts_of("Qwen/Qwen2.5-7B-Instruct"), [H100], wish=Wish(gpus=8))
    assert laid.chosen.split == Split(tensor=4, pipeline=2)
    assert {c.code for c in laid.layouts.rejected} <= {"Indivisible"}


def test_what_the_user_gives_is_taken_or_refused_with_its_sum() -> None:
    facts = facts_of(LLAMA_70B)
    assert lay_out(facts, [H100], wish=Wish(tensor=8)).chosen.split == Split(tensor=8)
    assert lay_out(facts, [H100], wish=Wish(tensor=2, pipeline=4)).chosen.split == Split(tensor=2, pipeline=4)
    refused = lay_out(facts, [H100], wish=Wish(tensor=1, pipeline=1)).layouts
    assert refused.chosen is None
    assert [(c.code, c.why) for c in refused.rejected] == [
        ("TooLarge", "needs 145.67 GiB of the 73.28 GiB that the engine takes of a GPU: 72.39 GiB too much")
    ]


def test_experts_are_whole_only_where_they_cannot_be_divided_or_the_user_says_so() -> None:
    """Experts of 1,536 in blocks of 128: on eight GPUs they cannot be divided."""
    facts = facts_of("MiniMaxAI/MiniMax-M2.5")

    def of(wish: Wish) -> Split | None:
        layouts = choose_layout(
            [H100], wish, forbids=lambda s: VLLM.refuse_split(facts, tensor=s.tensor, pipeline=s.pipeline, expert=s.expert),
            sum_of=lambda one, split: None,
        )  # fmt: skip
        return layouts.chosen.split if layouts.chosen is not None else None

    assert of(Wish(tensor=4)) == Split(tensor=4)
    assert of(Wish(tensor=8)) == Split(tensor=8, expert=True)
    assert of(Wish(tensor=8, expert=False)) is None
    assert of(Wish(tensor=4, expert=True)) == Split(tensor=4, expert=True)


def test_more_gpus_than_a_node_has_are_refused_with_what_it_has() -> None:
    refused = lay_out(facts_of(LLAMA_70B), [replace(H100, gpus_per_node=4)], wish=Wish(tensor=8)).layouts
    assert [(c.code, c.why) for c in refused.rejected] == [
        ("NoSuchNodes", "a node with NVIDIA-H100-80GB-HBM3 has 4 of them")
    ]
    refused = lay_out(facts_of(LLAMA_405B), [replace(H100, nodes=1)]).layouts
    assert ("NoSuchNodes", "there is 1 node with NVIDIA-H100-80GB-HBM3") in [(c.code, c.why) for c in refused.rejected]


def test_without_a_gpus_memory_the_smallest_layout_is_taken_unsummed() -> None:
    laid = lay_out(facts_of(LLAMA_70B), [replace(H100, gpu_bytes=None)])
    assert (laid.chosen.split, laid.memory) == (Split(), None)


def test_fewer_requests_need_less() -> None:
    assert lay_out(facts_of(LLAMA_8B), [L4], demand=Demand(requests=4)).chosen.split == Split()


# --- for all models, nodes and wishes ---

HARDWARE = st.builds(
    Hardware,
    resource_name=st.just("nvidia.com/gpu"),
    product=st.sampled_from(["A", "B"]),
    gpu_bytes=st.integers(8, 192).map(lambda n: n * 2**30),
    gpus_per_node=st.integers(1, 16),
    link_domain=st.sampled_from([None, 1, 2, 4, 8, 16]),
    nodes=st.integers(1, 4),
)
MODELS = st.sampled_from(catalogued()).map(facts_of)
DEMANDS = st.builds(Demand, requests=st.integers(1, 64), request_tokens=st.integers(16, 8192))
WISHES = st.builds(
    Wish,
    tensor=st.none() | st.integers(1, 16),
    pipeline=st.none() | st.integers(1, 8),
    expert=st.none() | st.booleans(),
    gpus=st.none() | st.integers(1, 16),
)


@given(MODELS, st.lists(HARDWARE, min_size=1, max_size=3), DEMANDS, WISHES)
def test_a_plan_keeps_to_its_own_sum_and_to_the_users_word(
    facts: ModelFacts, hardware: list[Hardware], demand: Demand, wish: Wish
) -> None:
    laid = lay_out(facts, hardware, demand=demand, wish=wish)
    chosen = laid.layouts.chosen
    assert [c.code for c in laid.layouts.rejected if c.fits] == []
    if chosen is None:
        return
    split, one = chosen.split, chosen.hardware
    assert laid.memory is not None
    assert laid.context is not None
    assert one.gpus_per_node is not None
    assert one.nodes is not None
    assert laid.memory.needed_bytes <= laid.memory.usable_bytes < laid.memory.gpu_bytes
    assert facts.num_attention_heads % split.tensor == 0
    assert split.pipeline <= facts.num_hidden_layers
    assert split.gpus_per_node * split.nodes == split.gpus
    assert split.gpus_per_node <= one.gpus_per_node
    assert split.nodes <= one.nodes
    assert wish.tensor in (None, split.tensor)
    assert wish.pipeline in (None, split.pipeline)
    assert wish.gpus in (None, split.gpus)
    assert split.expert == bool(wish.expert)
    if wish.tensor is None and one.link_domain is not None:
        assert split.tensor <= one.link_domain
    assert laid.context == facts.max_position_embeddings or laid.context % CONTEXT_STEP == 0
    assert lay_out(facts, list(reversed(hardware)), demand=demand, wish=wish).layouts.chosen == chosen


@given(
    MODELS,
    HARDWARE,
    DEMANDS,
    st.sampled_from(["gpus_per_node", "nodes", "gpu_bytes"]),
    st.integers(1, 8),
    st.none() | st.booleans(),
)
def test_more_gpus_never_make_a_service_unplannable(
    facts: ModelFacts, one: Hardware, demand: Demand, what: str, more: int, expert: bool | None
) -> None:
    wish = Wish(expert=expert)
    before = lay_out(facts, [one], demand=demand, wish=wish).layouts.chosen
    if before is not None:
        larger = replace(one, **{what: getattr(one, what) + more})
        assert lay_out(facts, [larger], demand=demand, wish=wish).layouts.chosen is not None
        other = replace(one, product="Other", gpus_per_node=more)
        assert lay_out(facts, [one, other], demand=demand, wish=wish).layouts.chosen is not None
