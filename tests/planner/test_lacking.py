"""What is said of what an engine lacks: what is asked, who has it, what to change."""

from dataclasses import replace

from draftmark.api.conditions import OUR_MESSAGE_LENGTH
from draftmark.api.inference_service import InferenceServiceSpec
from draftmark.engines.capability_table import ANY, FIELDS, AskedFor, every_table, lacks, who_has
from draftmark.engines.registry import ENGINES
from draftmark.facts.model_catalogue import catalogue_facts
from draftmark.facts.models import Quantization
from draftmark.plan import Plan, Unplannable
from draftmark.planner.lacking import message_of, refuse_lacking
from tests.capability_page import PAGE, page
from tests.engines.rendering import planned
from tests.specs import Object, parse, spec

GPU = {"product": "NVIDIA-H100-80GB-HBM3"}


def asked(engine: str, *, options: Object | None = None, **model: str) -> InferenceServiceSpec:
    options = {"options": options} if options is not None else {}
    return parse(spec(model={"uri": "hf://o/r", **model}, engine={"name": engine, **options}, accelerator=GPU))


def told(engine: str, version: str | None, spec: InferenceServiceSpec) -> str:
    refused = refuse_lacking(engine, version, spec, None)
    assert refused is not None
    return refused.message


# --- what is asked, who has it, what to change ---


def test_names_that_the_engine_has_are_listed_and_others_that_have_it_are_named() -> None:
    message = told("vllm", "0.33.0", asked("vllm", options={"kvCacheDType": "q8_0"}))
    first, who, change = (
        message.split(". ", 2)[0],
        "llama-cpp v0.7.0 has it.",
        "Use one of auto, bfloat16, float16, fp8",
    )
    assert first == "engine.options.kvCacheDType is 'q8_0', which is none of those that vllm 0.33.0 has"
    assert who in message
    assert change in message
    assert message.endswith("or set engine.name to one that has it (llama-cpp).")


def test_another_version_of_the_engine_that_has_it_is_a_way_out() -> None:
    message = told("vllm", "0.32.0", asked("vllm", options={"kvCacheDType": "octave_k3v3"}))
    assert "vllm 0.33.0 has it." in message
    assert message.endswith("or set engine.version: 0.33.0.")


def test_engines_that_cannot_be_deployed_are_named_as_such() -> None:
    alone = told("vllm", "0.33.0", asked("vllm", quantization="eetq"))
    assert "tgi 3.3.7 has it, and this release cannot deploy it." in alone
    assert "set engine.name" not in alone
    both = told("llama-cpp", "v0.7.0", asked("llama-cpp", quantization="fp8"))
    assert "sglang 0.5.23 and vllm 0.33.0 have it; tgi 3.3.7 has it too, and this release cannot deploy it." in both


def test_what_nobody_has_is_said() -> None:
    assert "No engine that is known here has it." in told("sglang", "0.5.23", asked("sglang", quantization="int7"))


def test_weights_that_the_engine_does_not_read_are_another_refusal() -> None:
    facts = catalogue_facts("hf://meta-llama/Llama-3.1-8B")
    assert facts is not None
    packed = replace(facts, quantization_config=Quantization(quant_method="bitsandbytes", bits=4))
    refused = refuse_lacking("vllm", "0.33.0", asked("vllm"), packed)
    assert refused is not None
    assert refused.code == "UnsupportedModelFormat"
    assert refused.message == (
        "The weights of model.uri are bitsandbytes, which vllm 0.33.0 does not read. sglang 0.5.23 reads them. Take weights of "
        "another format, or set engine.name to one that reads them (sglang)."
    )
    assert refuse_lacking("sglang", "0.5.23", asked("sglang"), packed) is None


def test_a_repository_may_hold_gguf_beside_what_its_config_tells_of() -> None:
    uri = "hf://deepseek-ai/DeepSeek-V3"
    assert refuse_lacking("llama-cpp", "v0.7.0", asked("llama-cpp", uri=uri), catalogue_facts(uri)) is None


def test_a_version_without_a_table_is_believed() -> None:
    spec = asked("vllm", options={"kvCacheDType": "q8_0"})
    assert refuse_lacking("vllm", "9.9.9", spec, None) is None
    assert refuse_lacking("vllm", None, spec, None) is None
    assert told("vllm", None, asked("vllm", options={"structuredOutput": False})).startswith(
        "engine.options.structuredOutput is false, and vllm takes true only: "
    )


LACKING = [
    (table, AskedFor(what=field, value=value))
    for table in every_table()
    if table.engine in ENGINES
    for field in FIELDS
    for value in {v for t in every_table() if field in t.rows for v in t.rows[field].has if v != ANY} | {"2"}
    if lacks(table.engine, table.version, AskedFor(what=field, value=value)) is not None
]


def test_every_message_is_whole_sentences_within_a_condition() -> None:
    assert len(LACKING) > 60
    for table, wanted in LACKING:
        lack = lacks(table.engine, table.version, wanted)
        assert lack is not None
        message = message_of(lack)
        assert wanted.what in message.partition(". ")[0]
        assert "{" not in message
        assert message.endswith(".")
        assert len(message) + 80 <= OUR_MESSAGE_LENGTH  # `engine.name: auto` puts its own words before it


# --- engine.name: auto ---


def test_an_engine_that_lacks_what_is_asked_gives_way_and_says_what_it_lacks() -> None:
    spec = asked("auto", options={"kvCacheDType": "fp8", "prefixCaching": True})
    plan = planned(spec)
    assert isinstance(plan, Plan)
    assert plan.engine == "vllm"
    sglang = next(r for r in plan.rejected if r.option == "sglang")
    assert sglang.code == "UnsupportedOption"
    assert sglang.message == told("sglang", "0.5.23", spec)


def test_an_engine_that_suits_less_and_lacks_it_is_not_said_to_be_able() -> None:
    plan = planned(asked("auto", options={"kvCacheDType": "fp8"}))
    assert isinstance(plan, Plan)
    rejected = {r.option: r.code for r in plan.rejected}
    assert (plan.engine, rejected["sglang"]) == ("vllm", "UnsupportedOption")


def test_an_engine_that_is_not_built_is_never_chosen() -> None:
    """Nor for what only such an engine has."""
    only_others = [
        name
        for table in every_table()
        if table.engine not in ENGINES and "model.quantization" in table.rows
        for name in table.rows["model.quantization"].has
        if not any(t.engine in ENGINES for t in who_has(AskedFor(what="model.quantization", value=name)))
    ]
    assert len(only_others) >= 4
    for name in only_others:
        plan = planned(asked("auto", quantization=name))
        assert isinstance(plan, Unplannable)
        assert plan.code == "UnsupportedOption"
        assert "this release cannot deploy it" in plan.message
        assert {r.option for r in plan.rejected} <= {*ENGINES}


# --- documentation ---


def test_the_page_of_the_engines_is_that_of_the_tables() -> None:
    """`python -m tests.update_golden` writes it anew."""
    assert PAGE.read_text("utf-8") == page()
