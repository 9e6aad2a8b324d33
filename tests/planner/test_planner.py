"""Plans, and the reasons why there is none."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftmark.api.defaults import Defaults
from draftmark.api.inference_service import ENGINE_NAMES
from draftmark.engines.llama_cpp import LlamaCpp
from draftmark.engines.registry import ENGINES
from draftmark.engines.vllm import Vllm
from draftmark.facts.nodes import ClusterFacts, read_nodes
from draftmark.plan import Plan, Unplannable
from draftmark.planner.explain import explain_data, explain_text
from draftmark.planner.planner import cpu_cores, make_plan, max_model_bytes
from draftmark.planner.refusals import ALLOWED_POD_FIELDS
from draftmark.planner.selection import AUTO
from tests.specs import Object, node, parse, spec, with_field

DEFAULT = LlamaCpp().default_version
GPU = {"product": "NVIDIA-L4"}


def plan_of(
    wanted: Object, *, defaults: Object | None = None, cluster: ClusterFacts | None = None
) -> Plan | Unplannable:
    configured = Defaults.model_validate(defaults or {})
    return make_plan(parse(wanted), name="tiny", cluster=cluster or ClusterFacts(), defaults=configured, keep=None)


def planned(wanted: Object, **more: Any) -> Plan:
    plan = plan_of(wanted, **more)
    assert isinstance(plan, Plan), plan
    return plan


def refused(wanted: Object, **more: Any) -> Unplannable:
    plan = plan_of(wanted, **more)
    assert isinstance(plan, Unplannable), plan
    return plan


def with_resources(**sections: Object) -> Object:
    return with_field(spec(), "engine.resources", sections)


# --- what is chosen ---


def test_every_choice_leaves_a_reason() -> None:
    assert [r.code for r in planned(spec()).reasons] == ["EngineVersion", "MaxContextLength", "Concurrency"]


def test_where_nodes_cannot_be_listed_the_accelerator_is_said() -> None:
    namespaced = {"namespaced": True}
    answer = refused(spec(), defaults=namespaced)
    assert answer.code == "AcceleratorRequired"
    assert "accelerator.count: 0 for CPU" in answer.message
    assert planned(spec(accelerator={"count": 0}), defaults=namespaced).layout.gpus == 0
    assert planned(spec(accelerator=GPU), defaults=namespaced).layout.product == "NVIDIA-L4"
    assert planned(spec()).layout.gpus == 0


@pytest.mark.parametrize(
    ("replicas", "told"), [({}, "set replicas: 4."), ({"replicas": 3}, "12."), ({"replicas": 0}, "4.")]
)
def test_copies_of_the_model_are_replicas(replicas: Object, told: str) -> None:
    answer = refused(spec(accelerator=GPU, parallelism={"data": 4}, **replicas))
    assert (answer.code, answer.message.endswith(told)) == ("UnsupportedOption", True), answer.message
    assert planned(spec(accelerator=GPU, parallelism={"data": 1})).layout.gpus == 1


def test_adapters_need_a_way_without_the_router() -> None:
    wanted = spec(model={"uri": "hf://o/r", "adapters": [{"name": "a", "uri": "hf://o/a"}]}, engine={"name": "vllm"})
    plan = planned(wanted)
    assert (plan.adapters, plan.is_routed) == (("a",), False)
    assert "NoRouter" in [r.code for r in plan.reasons]


def test_what_is_written_needs_no_reason() -> None:
    wanted = spec(
        model={"uri": "pvc://c/m.gguf", "maxContextLength": 512},
        engine={"name": "llama-cpp", "version": DEFAULT},
        workload={"concurrency": 2},
    )
    plan = planned(wanted)
    assert plan.reasons == ()
    assert (plan.version, plan.max_context_length, plan.concurrency) == (DEFAULT, 512, 2)


def test_the_served_name_is_the_users_or_that_of_the_service() -> None:
    assert planned(spec()).served_name == "tiny"
    assert planned(with_field(spec(), "model.name", "org/model")).served_name == "org/model"


@pytest.mark.parametrize(
    ("accelerator", "layout"),
    [
        (None, "CPU"),
        ({"count": 0}, "CPU"),
        ({"count": 0, "product": "NVIDIA-L4"}, "CPU"),
        (GPU, "1x NVIDIA-L4"),
        ({**GPU, "count": 4}, "4x NVIDIA-L4"),
        ({"product": "AMD-MI300X", "resourceName": "amd.com/gpu"}, "1x AMD-MI300X"),
        ({"product": "A100", "resourceName": "nvidia.com/mig-1g.5gb"}, "NoImage"),
        ({"product": "x", "resourceName": "intel.com/gpu"}, "UnknownAccelerator"),
    ],
)
def test_layout_follows_the_accelerator(accelerator: Object | None, layout: str) -> None:
    plan = plan_of(spec(accelerator=accelerator))
    assert (plan.code if isinstance(plan, Unplannable) else str(plan.layout)) == layout


VERSIONS = {
    "engines": {"llama-cpp": {"version": "b2", "images": {"cpu": "own/llama:{version}-x", "intel.com/gpu": "i"}}}
}


@pytest.mark.parametrize(
    ("engine", "defaults", "version", "image"),
    [
        ({}, {}, DEFAULT, f"ghcr.io/ggml-org/llama.cpp:server-{DEFAULT}"),
        ({"version": "b1"}, {}, "b1", "ghcr.io/ggml-org/llama.cpp:server-b1"),
        ({"image": "a/b:1"}, {}, "unknown", "a/b:1"),
        ({"image": "a/b:1", "version": "b1"}, {}, "b1", "a/b:1"),
        ({}, VERSIONS, "b2", "own/llama:b2-x"),
        ({"version": "b1"}, VERSIONS, "b1", "own/llama:b1-x"),
        ({"image": "a/b:1"}, VERSIONS | {"registryMirror": "m"}, "unknown", "a/b:1"),
        ({"version": "b1"}, {"registryMirror": "m.io/p/"}, "b1", "m.io/p/ggml-org/llama.cpp:server-b1"),
        ({}, VERSIONS | {"registryMirror": "m.io"}, "b2", "m.io/own/llama:b2-x"),
    ],
)
def test_version_and_image_are_the_users_then_the_administrators_then_ours(
    engine: Object, defaults: Object, version: str, image: str
) -> None:
    plan = planned(spec(engine={"name": "llama-cpp", **engine}), defaults=defaults)
    assert (plan.version, plan.image) == (version, image)


@pytest.mark.parametrize(
    ("engine", "told"),
    [({"version": "b1"}, "no flag table for llama-cpp b1"), ({"image": "a/b:1", "args": ["--x"]}, "1 arguments")],
)
def test_arguments_that_cannot_be_checked_are_said_so(engine: Object, told: str) -> None:
    plan = planned(spec(engine={"name": "llama-cpp", **engine}))
    assert told in (plan.args_unchecked or "")


@pytest.mark.parametrize("engine", ENGINES)
def test_the_default_version_has_a_flag_table(engine: str) -> None:
    assert planned(spec(model={"uri": "hf://org/repo"}, engine={"name": engine})).args_unchecked is None


def test_every_engine_that_can_be_asked_for_is_there() -> None:
    assert {*ENGINES, AUTO} == {*ENGINE_NAMES}


# --- what is refused ---

REFUSED: list[tuple[str, Any, str, str]] = [
    ("engine.name", "ollama", "UnknownEngine", "llama-cpp"),
    ("model.uri", "hf://x", "UnreadableModelUri", "hf://ORG/REPO"),
    ("model.uri", "pvc://claim/model.safetensors", "UnsupportedModelFormat", ".gguf"),
    ("engine.options", {"kvCacheDType": "fp8"}, "UnsupportedOption", "q8_0"),
    ("model.adapters", [{"name": "a", "uri": "hf://x"}], "UnreadableModelUri", "model.adapters['a'].uri"),
    ("model.quantization", "fp8", "UnsupportedOption", "hf://ORG/REPO:Q4_K_M"),
    ("workload.kind", "batch", "UnsupportedOption", "workload.concurrency"),
    ("engine.args", ["--ctx-siz", "1"], "InvalidArgs", "--ctx-size"),
    ("engine.args", ["--port", "1"], "InvalidArgs", "the operator"),
    ("engine.env", [{"name": "LLAMA_ARG_CTX_SIZE", "value": "1"}], "InvalidEnv", "engine.args"),
    ("engine.resources", {"limits": {"cpu": "1.2.3"}}, "InvalidResources", "500m"),
    ("engine.resources", {"limits": {"memory": "1e999"}}, "InvalidResources", "1e999"),
    ("engine.resources", {"requests": {"cpu": "-1"}}, "InvalidResources", "-1"),
    ("engine.resources", {"requests": {"cpu": "2"}, "limits": {"cpu": "1500m"}}, "InvalidResources", "above the limit 1500m"),
    ("engine.resources", {"limits": {"nvidia.com/gpu": "1"}}, "InvalidResources", "accelerator.product"),
    ("podTemplate", {"hostNetwork": True}, "PodTemplateForbidden", "hostNetwork"),
    ("podTemplate", {"metadata": {"labels": {"draftmark.dev/service": "x"}}}, "PodTemplateForbidden", "draftmark.dev/service"),
    ("podTemplate", {"metadata": {"labels": {"pod-template-hash": "x"}}}, "PodTemplateForbidden", "pod-template-hash"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value", "code", "told"), REFUSED)
def test_a_refusal_names_what_is_wrong_and_the_way_out(path: str, value: Any, code: str, told: str) -> None:
    answer = refused(with_field(spec(), path, value))
    assert answer.code == code
    assert told in answer.message
    assert answer.message.endswith(".")


def test_a_forbidden_pod_field_is_answered_with_the_allowed_ones() -> None:
    message = refused(with_field(spec(), "podTemplate.hostPID", True)).message
    assert [field for field in ALLOWED_POD_FIELDS if field not in message] == []
    assert "topologySpread" in ALLOWED_POD_FIELDS


def test_an_image_volume_needs_a_cluster_that_has_them() -> None:
    wanted = spec(model={"uri": "oci://host/image:1"})
    old = ClusterFacts(nodes=read_nodes([node("containerd://1.6.20")]))
    assert refused(wanted, cluster=old).code == "ImageVolumesUnsupported"
    assert "containerd://1.6.20" in refused(wanted, cluster=old).message
    adapter = spec(model={"uri": "hf://o/r", "adapters": [{"name": "a", "uri": "oci://i#a"}]}, engine={"name": "vllm"})
    assert "model.adapters['a'].uri is oci://" in refused(adapter, cluster=old).message
    assert planned(wanted, cluster=ClusterFacts()), "what is not known is no reason to refuse"


# --- numbers ---


@pytest.mark.parametrize(
    ("sections", "cores"),
    [
        ({}, None), ({"limits": {"cpu": "4"}}, 4), ({"limits": {"cpu": "1500m"}}, 2), ({"requests": {"cpu": "100m"}}, 1),
        ({"requests": {"cpu": "1"}, "limits": {"cpu": "3"}}, 3), ({"limits": {"cpu": "0"}, "requests": {}}, None),
    ],
)  # fmt: skip
def test_threads_follow_the_limit_then_the_request(sections: Object, cores: int | None) -> None:
    assert cpu_cores(parse(with_resources(**sections))) == cores


def test_a_model_on_a_cpu_is_no_larger_than_the_memory() -> None:
    wanted = with_resources(limits={"memory": "2Gi"})
    assert max_model_bytes(parse(wanted)) == 2 * 2**30
    assert max_model_bytes(parse({**wanted, "accelerator": {"count": 0}})) == 2 * 2**30
    assert max_model_bytes(parse({**wanted, "accelerator": GPU})) is None
    assert max_model_bytes(parse(spec())) is None


# --- always ---


@given(
    engine_name=st.sampled_from(ENGINE_NAMES),
    uri=st.sampled_from(["hf://a/b", "https://h/m.gguf", "pvc://c/m.gguf", "oci://i"]) | st.text(max_size=30),
    args=st.lists(st.text(max_size=10), max_size=3),
    quantity=st.from_regex(r"[+-]?[0-9.]{1,6}[eEinumkKMGTP]{0,2}[-+]?[0-9]{0,4}", fullmatch=True),
    version=st.sampled_from([None, "b1", DEFAULT, Vllm().default_version]),
)
def test_every_readable_spec_is_planned_or_refused_with_a_message(
    engine_name: str, uri: str, args: list[str], quantity: str, version: str | None
) -> None:
    engine = {
        "name": engine_name,
        "args": args,
        "version": version,
        "resources": {"limits": {"memory": quantity, "cpu": quantity}},
    }
    try:
        parse(spec(model={"uri": uri}, engine=engine))
    except ValueError:
        return
    answer = plan_of(spec(model={"uri": uri}, engine=engine))
    assert explain_data(answer)["accepted"] is isinstance(answer, Plan)
    assert explain_text("ns/tiny", answer).endswith("\n")
    if isinstance(answer, Unplannable):
        assert len(answer.message) > 20
