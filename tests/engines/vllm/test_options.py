"""How options and adapters become flags of vLLM, and which are refused."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftmark.engines.vllm import LORA_RANKS
from draftmark.plan import Plan
from tests.engines.vllm.ask import GPU, args, asked, planned, pod, refused, value_of
from tests.specs import Object

# --- options ---


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prefixCaching": True}, ["--enable-prefix-caching"]),
        ({"prefixCaching": False}, ["--no-enable-prefix-caching"]),
        ({"chunkedPrefill": True}, ["--enable-chunked-prefill"]),
        ({"kvCacheDType": "fp8_e4m3"}, ["--kv-cache-dtype", "fp8_e4m3"]),
        ({"kvOffload": "1536Mi"}, ["--kv-offloading-size", "1.5", "--kv-offloading-backend", "native"]),
        ({"structuredOutput": True}, ["--structured-outputs-config", '{"backend":"auto"}']),
        ({"speculative": {"method": "ngram", "tokens": 3}},
         ["--speculative-config", '{"method":"ngram","num_speculative_tokens":3,"prompt_lookup_max":5,"prompt_lookup_min":5}']),
        ({"speculative": {"method": "mtp", "tokens": 1}}, ["--speculative-config", '{"method":"mtp","num_speculative_tokens":1}']),
        ({"speculative": {"method": "draftModel", "tokens": 4, "uri": "hf://o/d", "revision": "v1"}},
         ["--speculative-config", '{"method":"draft_model","model":"o/d","num_speculative_tokens":4,"revision":"v1"}']),
        ({"speculative": {"method": "eagle3", "tokens": 4, "uri": "pvc://weights/draft"}},
         ["--speculative-config", '{"method":"eagle3","model":"/models/draft","num_speculative_tokens":4}']),
        ({"speculative": {"method": "eagle", "tokens": 4, "uri": "pvc://drafts/a"}},
         ["--speculative-config", '{"method":"eagle","model":"/draft/a","num_speculative_tokens":4}']),
        ({}, []),
    ],
)  # fmt: skip
def test_options_are_spelled_the_engines_way(options: Object, words: list[str]) -> None:
    plain, launched = args(base=GPU), args(("engine.options", options), base=GPU)
    assert [word for word in launched if word not in plain] == words


def test_several_api_servers() -> None:
    assert value_of(args(("engine.options.apiServerCount", 4)), "--api-server-count") == "4"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ([("engine.options.kvOffload", "1Gi")], "accelerator is not set"),
        ([("accelerator", {"product": "a"}), ("engine.options", {"kvOffload": "1Gi", "prefixCaching": False})], "prefixCaching: false"),
        ([("accelerator", {"product": "a"}), ("engine.options", {"kvOffload": "64Gi"}),
          ("engine.resources", {"limits": {"memory": "32Gi"}})], "whose limit is 32Gi"),
        ([("accelerator", {"product": "a"}), ("engine.options", {"kvOffload": "16"})], "at least 1Mi"),
        ([("accelerator", {"product": "a"}), ("engine.options", {"kvOffload": "-1Gi"})], "at least 1Mi"),
        ([("engine.options.kvCacheDType", "q8_0")], "fp8_e4m3"),
        ([("model.quantization", "gguf")], "compressed-tensors"),
        ([("engine.options.structuredOutput", False)], "Remove it"),
        ([("accelerator", {"product": "a", "count": 4})], "Set parallelism.tensor: 4"),
        ([("model.adapters", [{"name": "tiny", "uri": "hf://o/a"}])], "has the name of the model itself"),
    ],
)  # fmt: skip
def test_an_option_that_cannot_be_had_is_refused_with_the_way_out(changes: list[tuple[str, Any]], told: str) -> None:
    answer = refused(*changes)
    assert answer.code == "UnsupportedOption"
    assert told in answer.message


def test_a_version_without_a_table_is_believed() -> None:
    changes = [("engine.version", "9.9.9"), ("model.quantization", "new-one"), ("engine.args", ["--new-flag", "1"])]
    plan = planned(asked(*changes))
    assert isinstance(plan, Plan)
    assert plan.args_unchecked is not None


# --- adapters ---


def test_adapters_are_loaded_at_the_start_under_their_names() -> None:
    adapters = [
        {"name": "sql", "uri": "hf://org/sql"}, {"name": "law", "uri": "pvc://adapters/law"},
        {"name": "med", "uri": "pvc://adapters/med"}, {"name": "own", "uri": "pvc://weights/own"},
        {"name": "pic", "uri": "oci://image:1#a"},
    ]  # fmt: skip
    spec = pod(("model.adapters", adapters))
    argv = spec["containers"][0]["args"]
    start = argv.index("--lora-modules") + 1
    modules = [json.loads(word) for word in argv[start : start + 5]]
    assert [(m["name"], m["path"]) for m in modules] == [
        ("sql", "org/sql"), ("law", "/adapters/1/law"), ("med", "/adapters/1/med"), ("own", "/models/own"),
        ("pic", "/adapters/4/a"),
    ]  # fmt: skip
    assert {m["base_model_name"] for m in modules} == {"tiny"}
    assert "--enable-lora" in argv
    assert (value_of(argv, "--max-loras"), value_of(argv, "--max-cpu-loras")) == ("5", "5")
    # A claim that is mounted by two volumes of one pod would be one volume too many.
    claims = [v["persistentVolumeClaim"]["claimName"] for v in spec["volumes"] if "persistentVolumeClaim" in v]
    assert claims == ["weights", "adapters"]


@given(ranks=st.lists(st.none() | st.integers(1, 512), min_size=1, max_size=16))
def test_the_largest_rank_fits(ranks: list[int | None]) -> None:
    adapters = [
        {"name": f"a{i}", "uri": "hf://o/a", **({"rank": rank} if rank is not None else {})}
        for i, rank in enumerate(ranks)
    ]
    written = int(value_of(args(("model.adapters", adapters)), "--max-lora-rank") or 0)
    needed = max(rank or 16 for rank in ranks)
    assert written >= needed
    assert not [rank for rank in LORA_RANKS if needed <= rank < written]
