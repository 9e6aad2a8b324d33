"""How options and adapters become flags of SGLang, and which are refused."""

import json
from typing import Any

import pytest

from draftmark.plan import Plan
from tests.engines.sglang.ask import CPU, SMALLEST, args, asked, planned, pod, refused, value_of
from tests.specs import Object

NGRAM = [
    "--speculative-algorithm",
    "NGRAM",
    "--speculative-ngram-max-bfs-breadth",
    "1",
    "--speculative-num-draft-tokens",
    "4",
]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prefixCaching": True}, []),
        ({"prefixCaching": False}, ["--disable-radix-cache"]),
        ({"chunkedPrefill": True}, ["--prefill-decode-interval", "1"]),
        ({"kvCacheDType": "fp8_e4m3"}, ["--kv-cache-dtype", "fp8_e4m3"]),
        ({"kvOffload": "2500M"}, ["--enable-hierarchical-cache", "--hicache-size", "2"]),
        ({"structuredOutput": True}, ["--grammar-backend", "xgrammar"]),
        ({"structuredOutput": False}, ["--grammar-backend", "none"]),
        ({"apiServerCount": 1}, []),
        ({"speculative": {"method": "ngram", "tokens": 3}}, NGRAM),
        ({"speculative": {"method": "mtp", "tokens": 2}},
         ["--speculative-algorithm", "NEXTN", "--speculative-num-steps", "2", "--speculative-eagle-topk", "1",
          "--speculative-num-draft-tokens", "3"]),
        ({"speculative": {"method": "draftModel", "tokens": 4, "uri": "hf://o/d", "revision": "v1"}},
         ["--speculative-algorithm", "STANDALONE", "--speculative-num-steps", "4", "--speculative-eagle-topk", "1",
          "--speculative-num-draft-tokens", "5", "--speculative-draft-model-path", "o/d",
          "--speculative-draft-model-revision", "v1"]),
        ({"speculative": {"method": "eagle3", "tokens": 4, "uri": "pvc://weights/draft"}},
         ["--speculative-algorithm", "EAGLE3", "--speculative-num-steps", "4", "--speculative-eagle-topk", "1",
          "--speculative-num-draft-tokens", "5", "--speculative-draft-model-path", "/models/draft"]),
        ({"speculative": {"method": "eagle", "tokens": 4, "uri": "pvc://drafts/a"}},
         ["--speculative-algorithm", "EAGLE", "--speculative-num-steps", "4", "--speculative-eagle-topk", "1",
          "--speculative-num-draft-tokens", "5", "--speculative-draft-model-path", "/draft/a"]),
        ({}, []),
    ],
)  # fmt: skip
def test_options_are_spelled_the_engines_way(options: Object, words: list[str]) -> None:
    launched = args(("engine.options", options))
    start = launched.index("--enable-metrics") + 1
    assert launched[start : launched.index("--uvicorn-access-log-exclude-prefixes")] == words


@pytest.mark.parametrize(("tensor", "size"), [(1, "32"), (2, "16"), (4, "8")])
def test_memory_for_the_kv_cache_is_for_all_gpus_together(tensor: int, size: str) -> None:
    """SGLang's number is each GPU's own, in GB."""
    argv = args(("engine.options.kvOffload", "32G"), ("parallelism.tensor", tensor))
    assert value_of(argv, "--hicache-size") == size


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ([("engine.options.kvOffload", "999M")], "at least 1G"),
        ([("engine.options.kvOffload", "3G"), ("parallelism.tensor", 4)], "at least 4G"),
        ([("engine.options.kvOffload", "-1Gi")], "at least 1G"),
        ([("engine.options", {"kvOffload": "2Gi", "prefixCaching": False})], "prefixCaching: false"),
        ([("engine.options", {"kvOffload": "64Gi"}), ("engine.resources", {"limits": {"memory": "74Gi"}})],
         "whose limit is 74Gi, of which SGLang leaves 10Gi free beside it"),
        ([("engine.options.kvCacheDType", "fp8")], "fp8_e4m3"),
        ([("model.quantization", "int7")], "compressed-tensors"),
        ([("engine.options.apiServerCount", 2)], "add replicas"),
        ([("accelerator", {"product": "a", "count": 4})], "Set parallelism.tensor: 4"),
        ([("model.name", "org/a:b")], "such as 'org/a-b'"),
        ([("model.adapters", [{"name": "tiny", "uri": "hf://o/a"}])], "has the name of the model itself"),
        ([("model.adapters", [{"name": "sql", "uri": "hf://o/a"}])], "'tiny:sql'"),
        ([("model.adapters", [{"name": "other:sql", "uri": "hf://o/a"}])], "'tiny:sql'"),
        ([("model.adapters", [{"name": "tiny:", "uri": "hf://o/a"}])], "'tiny:NAME'"),
        ([("model.adapters", [{"name": "tiny:a", "uri": "hf://o/a"}]),
          ("engine.options.speculative", {"method": "draftModel", "tokens": 1, "uri": "hf://o/d"})], "draftModel"),
    ],
)  # fmt: skip
def test_an_option_that_cannot_be_had_is_refused_with_the_way_out(changes: list[tuple[str, Any]], told: str) -> None:
    answer = refused(*changes)
    assert answer.code == "UnsupportedOption"
    assert told in answer.message


def test_a_kv_cache_that_leaves_the_gpu_needs_one() -> None:
    answer = refused(("engine.options.kvOffload", "2Gi"), base=CPU)
    assert answer.code == "UnsupportedOption"
    assert "accelerator is not set" in answer.message


def test_offloaded_memory_fits_with_what_sglang_leaves_free() -> None:
    changes = [("engine.options", {"kvOffload": "64Gi"}), ("engine.resources", {"limits": {"memory": "80Gi"}})]
    assert isinstance(planned(asked(*changes)), Plan)


def test_a_version_without_a_table_is_believed() -> None:
    changes = [("engine.version", "9.9.9"), ("model.quantization", "new-one"), ("engine.args", ["--new-flag", "1"])]
    plan = planned(asked(*changes))
    assert isinstance(plan, Plan)
    assert plan.args_unchecked is not None


@pytest.mark.parametrize("method", ["ngram", "mtp", "eagle", "eagle3"])
def test_adapters_may_be_guessed_for(method: str) -> None:
    guess = {"method": method, "tokens": 1, **({"uri": "hf://o/d"} if method.startswith("eagle") else {})}
    changes = [("model.adapters", [{"name": "tiny:a", "uri": "hf://o/a"}]), ("engine.options.speculative", guess)]
    assert isinstance(planned(asked(*changes)), Plan)


# --- adapters ---


def test_adapters_are_loaded_at_the_start_under_the_names_that_requests_have() -> None:
    """A request for `tiny:sql` is one for the adapter `sql` of the model `tiny`."""
    adapters = [
        {"name": "tiny:sql", "uri": "hf://org/sql"}, {"name": "tiny:law", "uri": "pvc://adapters/law"},
        {"name": "tiny:med", "uri": "pvc://adapters/med"}, {"name": "tiny:own", "uri": "pvc://weights/own"},
        {"name": "tiny:pic", "uri": "oci://image:1#a"},
    ]  # fmt: skip
    spec = pod(("model.adapters", adapters))
    argv = spec["containers"][0]["args"]
    start = argv.index("--lora-paths") + 1
    paths = [json.loads(word) for word in argv[start : start + 5]]
    assert [(p["lora_name"], p["lora_path"]) for p in paths] == [
        ("sql", "org/sql"), ("law", "/adapters/1/law"), ("med", "/adapters/1/med"), ("own", "/models/own"),
        ("pic", "/adapters/4/a"),
    ]  # fmt: skip
    assert "--enable-lora" in argv
    # All of them, and the model without one.
    assert value_of(argv, "--max-loras-per-batch") == "6"
    claims = [v["persistentVolumeClaim"]["claimName"] for v in spec["volumes"] if "persistentVolumeClaim" in v]
    assert claims == ["weights", "adapters"]


def test_the_model_has_the_name_that_its_adapters_begin_with() -> None:
    named = [("model.name", "org/llama"), ("model.adapters", [{"name": "org/llama:sql", "uri": "hf://o/a"}])]
    argv = args(*named)
    assert value_of(argv, "--served-model-name") == "org/llama"
    assert '"lora_name":"sql"' in argv[argv.index("--lora-paths") + 1]
    plan = planned(asked(*named))
    assert isinstance(plan, Plan)
    assert (plan.adapters, plan.is_routed) == (("org/llama:sql",), False)


def test_a_rank_that_is_said_changes_nothing_because_the_files_say_it() -> None:
    with_rank = [{"name": "tiny:a", "uri": "hf://o/a", "rank": 64}]
    without = [{"name": "tiny:a", "uri": "hf://o/a"}]
    assert args(("model.adapters", with_rank)) == args(("model.adapters", without), base=SMALLEST)
