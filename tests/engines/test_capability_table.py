"""The tables of what engines can, against the flag tables, the schema, and what the engines' own files do."""

import json
from importlib.resources import files
from typing import Any, Final, get_args

import pytest
from pydantic import ValidationError

from draftmark.api.inference_service import ENGINE_NAMES, EngineOptions, ModelSpec, ParallelismSpec, SpeculativeSpec
from draftmark.api.model_uri import SCHEMES
from draftmark.engines import sglang, vllm
from draftmark.engines.capability_table import (
    ANY,
    FIELDS,
    AskedFor,
    Capabilities,
    FactName,
    FieldName,
    asked_in,
    capabilities,
    every_table,
    lacks,
    who_has,
)
from draftmark.engines.flag_table import FlagTable
from draftmark.engines.registry import ENGINES
from draftmark.facts.model_catalogue import catalogue_facts
from draftmark.plan import Plan, Unplannable
from tests.engines.rendering import planned
from tests.schemas import spec_leaves
from tests.specs import Object, parse, spec, with_field

BUILT: Final = [table for table in every_table() if table.engine in ENGINES]
#: Layouts that engines have, and that are the same for all of them here: copies are replicas.
LAYOUTS: Final = {"parallelism.data"}


def names(what: FieldName | FactName) -> list[str]:
    """Every value that any table speaks of."""
    rows = [table.rows[what] for table in every_table() if what in table.rows]
    return sorted({value for row in rows for value in (*row.has, *(row.lacks or ())) if value != ANY})


# --- the files ---


def test_every_file_is_the_table_that_its_name_says() -> None:
    folder = files("draftmark.engines").joinpath("capabilities")
    assert {file.name for file in folder.iterdir()} == {f"{t.engine}-{t.version}.json" for t in every_table()}
    for table in every_table():
        assert capabilities(table.engine, table.version) is table


def test_every_version_with_flags_has_a_table_and_the_other_way_round() -> None:
    flags = {file.name for file in files("draftmark.engines").joinpath("flags").iterdir()}
    assert flags == {f"{table.engine}-{table.version}.json" for table in BUILT}
    for engine in ENGINES.values():
        assert capabilities(engine.name, engine.default_version) is not None


@pytest.mark.parametrize(
    "change",
    [
        {"hass": []}, {"has": ["a", "a"]}, {"has": ["*", "a"]}, {"has": ["a"], "lacks": ["a"]}, {"has": ["*"], "lacks": ["a"]},
        {"has": [1]}, {"has": "a"}, {"source": ""}, {"everyVersion": "yes"},
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_meant_is_refused(change: Object) -> None:
    row = {"has": ["a"], "source": "s", **change}
    data = {"engine": "e", "version": "1", "program": "p", "source": "s", "date": "2026-11-26", "rows": {"uri": row}}
    with pytest.raises(ValidationError):
        Capabilities.model_validate_json(json.dumps(data))


def test_a_row_of_something_that_nobody_asks_for_is_refused() -> None:
    data = {"engine": "e", "version": "1", "program": "p", "source": "s", "date": "2026-11-26"}
    with pytest.raises(ValidationError):
        Capabilities.model_validate_json(json.dumps({**data, "rows": {"model.uri": {"has": [], "source": "s"}}}))


# --- what they speak of ---


def test_every_option_and_every_field_that_tables_speak_of_is_the_schemas() -> None:
    leaves = {leaf.split("[")[0] for leaf in spec_leaves()}
    assert {field for field in FIELDS if field not in leaves} <= LAYOUTS
    options = {field.alias for field in EngineOptions.model_fields.values()}
    assert {f.split(".")[2] for f in FIELDS if f.startswith("engine.options.")} == options
    degrees = {f"parallelism.{field.alias or name}" for name, field in ParallelismSpec.model_fields.items()}
    assert degrees <= {*FIELDS}


@pytest.mark.parametrize("table", BUILT, ids=lambda t: t.name)
def test_an_engine_that_is_deployed_has_a_row_for_everything(table: Capabilities) -> None:
    assert {*table.rows} == {*FIELDS, *get_args(FactName)}


@pytest.mark.parametrize("what", ["model.quantization", "engine.options.kvCacheDType"])
@pytest.mark.parametrize("table", BUILT, ids=lambda t: t.name)
def test_every_name_that_any_engine_has_is_had_or_lacked(table: Capabilities, what: FieldName) -> None:
    assert len(names(what)) > 10
    assert [name for name in names(what) if table.rows[what].answer(name) is None] == []


def test_engines_that_are_not_deployed_cannot_be_asked_for() -> None:
    others = {table.engine for table in every_table()} - {*ENGINES}
    assert others == {"tensorrt-llm", "tgi", "lmdeploy", "triton", "ollama", "nim"}
    assert not others & {*ENGINE_NAMES}


def test_what_holds_for_every_version_is_the_same_in_each_table() -> None:
    for engine in ENGINES:
        tables = [table for table in BUILT if table.engine == engine]
        rows = [{what: row for what, row in table.rows.items() if row.every_version} for table in tables]
        assert all(other == rows[0] for other in rows)


# --- against the flag tables ---


@pytest.mark.parametrize("table", BUILT, ids=lambda t: t.name)
def test_rows_rest_on_flags_that_the_version_has(table: Capabilities) -> None:
    flags = FlagTable.load(table.engine, table.version)
    assert flags is not None
    named = [(what, name) for what, row in table.rows.items() for name in (*row.flags, *filter(None, [row.choices_of]))]
    assert len(named) > 15
    gone = [(what, name) for what, name in named if (flag := flags.find(name)) is None or flag.removed]
    assert gone == []


@pytest.mark.parametrize("table", BUILT, ids=lambda t: t.name)
def test_names_are_those_of_the_engines_own_parser(table: Capabilities) -> None:
    flags = FlagTable.load(table.engine, table.version)
    assert flags is not None
    compared = 0
    for row in table.rows.values():
        if row.choices_of is not None:
            flag = flags.by_name[row.choices_of]
            assert {*row.has} == {*(flag.known or flag.choices)}
            compared += 1
    # Formats of weights and of the KV cache; llama-server has no quantization at load.
    assert compared == (1 if table.engine == "llama-cpp" else 2)


def test_methods_of_speculation_are_those_that_the_engines_files_write() -> None:
    methods = get_args(SpeculativeSpec.model_fields["method"].annotation)
    for table in BUILT:
        row = table.rows["engine.options.speculative.method"]
        written = {"vllm": vllm._METHODS, "sglang": sglang._ALGORITHMS, "llama-cpp": {}}[table.engine]
        assert {*row.has} == {*written}
        assert {*row.has} <= {*methods}
        flags = FlagTable.load(table.engine, table.version)
        assert flags is not None
        if table.engine == "vllm":
            assert {*written.values()} <= {*flags.by_name["--spec-method"].choices}


# --- against what is planned ---

GPU: Final = {"product": "NVIDIA-H100-80GB-HBM3"}
URIS: Final = {"llama-cpp": "hf://org/repo:Q4_K_M", "vllm": "hf://org/repo", "sglang": "hf://org/repo"}


def asking(engine: str, version: str, path: str, value: Any) -> Object:
    wanted = spec(model={"uri": URIS[engine]}, engine={"name": engine, "version": version}, accelerator=GPU)
    if path == "parallelism.expert" and engine != "llama-cpp":
        # What they are spread over.
        wanted = with_field(wanted, "parallelism.tensor", 2)
    return with_field(wanted, path, value)


def guess(method: str) -> Object:
    uri = {"uri": "hf://org/draft"} if method in ("draftModel", "eagle", "eagle3") else {}
    return {"method": method, "tokens": 2, **uri}


METHODS: Final[tuple[str, ...]] = get_args(SpeculativeSpec.model_fields["method"].annotation)
#: Field, value of the table, and where a service says it.
SAMPLES: Final[list[tuple[FieldName, str, str, Any]]] = [
    ("model.revision", "v1", "model.revision", "v1"),
    ("model.adapters", ANY, "model.adapters", [{"name": "tiny:sql", "uri": "hf://org/sql"}]),
    *(("parallelism.tensor", str(n), "parallelism.tensor", n) for n in (1, 2)),
    *(("parallelism.pipeline", str(n), "parallelism.pipeline", n) for n in (1, 2)),
    *(("parallelism.expert", str(on).lower(), "parallelism.expert", on) for on in (True, False)),
    *(("workload.kind", kind, "workload.kind", kind) for kind in ("chat", "batch", "interactive")),
    *(
        (field, str(on).lower(), field, on)
        for field in FIELDS
        if field.endswith(("structuredOutput", "prefixCaching", "chunkedPrefill"))
        for on in (True, False)
    ),
    *(("engine.options.speculative.method", m, "engine.options.speculative", guess(m)) for m in METHODS),
    ("engine.options.kvOffload", "4Gi", "engine.options.kvOffload", "4Gi"),
    *(("engine.options.apiServerCount", str(n), "engine.options.apiServerCount", n) for n in (1, 2)),
    *(("model.quantization", name, "model.quantization", name) for name in names("model.quantization")),
    *(
        ("engine.options.kvCacheDType", name, "engine.options.kvCacheDType", name)
        for name in names("engine.options.kvCacheDType")
    ),
]


def test_there_is_a_sample_of_every_field() -> None:
    assert {what for what, *_ in SAMPLES} == {*FIELDS} - LAYOUTS


@pytest.mark.parametrize("table", BUILT, ids=lambda t: t.name)
def test_what_a_table_has_is_planned_and_what_it_lacks_is_refused(table: Capabilities) -> None:
    answers = set()
    for what, value, path, written in SAMPLES:
        wanted = parse(asking(table.engine, table.version, path, written))
        assert AskedFor(what=what, value=value) in asked_in(wanted, None)
        answer = table.rows[what].answer(value)
        plan = planned(wanted)
        assert isinstance(plan, Plan) is answer, (what, value, plan)
        if isinstance(plan, Unplannable):
            assert plan.code == "UnsupportedOption"
            assert what in plan.message
        answers.add(answer)
    assert answers == {True, False}


@pytest.mark.parametrize("engine", ENGINES)
def test_schemes_and_gguf_are_planned_where_the_table_says_so(engine: str) -> None:
    """The engine's own file decides it by the form of the URI."""
    table = capabilities(engine, ENGINES[engine].default_version)
    assert table is not None
    uris = {"hf": "hf://org/repo", "https": "https://host/m.gguf", "pvc": "pvc://claim/folder", "oci": "oci://image:1"}
    assert {*uris} == {*SCHEMES}
    is_gguf = table.rows["checkpoint"].answer("gguf") is True
    for scheme, uri in uris.items():
        uri = "pvc://claim/m.gguf" if scheme == "pvc" and is_gguf else uri
        plan = planned(parse(spec(model={"uri": uri}, engine={"name": engine})))
        assert isinstance(plan, Plan) is table.rows["uri"].answer(scheme), plan
    gguf = planned(parse(spec(model={"uri": "pvc://claim/m.gguf"}, engine={"name": engine})))
    assert isinstance(gguf, Plan) is is_gguf


def test_hardware_of_an_image_is_hardware_of_the_table() -> None:
    resources = {"nvidia": "nvidia.com/gpu", "amd": "amd.com/gpu", "cpu": None}
    for engine in ENGINES.values():
        table = capabilities(engine.name, engine.default_version)
        assert table is not None
        images = {name for name, r in resources.items() if engine.default_image(engine.default_version, r)}
        assert images <= {*table.rows["hardware"].has}


# --- what is asked ---


def test_empty_and_absent_fields_ask_for_nothing() -> None:
    wanted = spec(model={"uri": "hf://o/r", "adapters": []}, engine={"name": "vllm", "options": {}}, parallelism={})
    assert asked_in(parse(wanted), None) == ()


def test_the_format_of_the_weights_is_asked_for_where_it_is_known() -> None:
    wanted = parse(spec(model={"uri": "hf://deepseek-ai/DeepSeek-V3"}, engine={"name": "vllm"}))
    facts = catalogue_facts(wanted.model.uri)
    assert asked_in(wanted, facts) == (AskedFor(what="checkpoint", value="fp8"),)
    assert asked_in(wanted, None) == ()


# --- answers ---


def test_a_version_without_a_table_is_believed_but_not_in_what_is_never_written() -> None:
    quantization = AskedFor(what="model.quantization", value="new")
    for version in ("9.9.9", None):
        assert lacks("vllm", version, quantization) is None
        assert lacks("vllm", version, AskedFor(what="engine.options.structuredOutput", value="false")) is not None
        found = lacks("llama-cpp", version, quantization)
        assert found is not None
        assert found.name == "llama-cpp"
    assert lacks("vllm", "0.33.0", quantization) is not None


def test_an_engine_of_which_there_is_no_table_lacks_nothing() -> None:
    assert lacks("new", "1", AskedFor(what="model.quantization", value="fp8")) is None


def test_who_has_something_is_told_by_engine_with_the_newest_version_first() -> None:
    found = who_has(AskedFor(what="model.quantization", value="fp8"))
    assert [(t.engine, t.version) for t in found] == [
        ("sglang", "0.5.23"), ("tgi", "3.3.7"), ("vllm", "0.33.0"), ("vllm", "0.32.0"),
    ]  # fmt: skip
    assert who_has(AskedFor(what="model.quantization", value="nobodys")) == ()


def test_the_pattern_of_the_schema_lets_every_name_of_a_deployed_engine_through() -> None:
    for table in BUILT:
        for name in table.rows["model.quantization"].has:
            assert ModelSpec(uri="hf://o/r", quantization=name).quantization == name
        for name in table.rows["engine.options.kvCacheDType"].has:
            assert EngineOptions(kv_cache_dtype=name).kv_cache_dtype == name
