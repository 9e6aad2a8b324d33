"""The objects of a Benchmark, which reviewers read, and what must hold for all of them."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from draftmark.api import names
from draftmark.benchmark.decide import decide_benchmark
from draftmark.benchmark.observation import BenchmarkDecision
from draftmark.measure.order import Order
from draftmark.render.benchmark import DEFAULT_IMAGE, LONGEST_S, ORDER_FILE, SLACK_S, planned_s
from draftmark.render.gateway import DEFAULT_RELOADER_IMAGE
from tests import specs
from tests.benchmark.world import World, benchmark, serving
from tests.golden_benchmark import CASES, outputs
from tests.specs import T0

#: A comparison of the service with itself.
TWICE: Any = {"compare": {"target": {"service": specs.NAME, "allowUserTraffic": True}}}


def decided(case: str) -> BenchmarkDecision:
    return decide_benchmark(CASES[case], T0)


def job_of(case: str) -> Any:
    return decided(case).job


def order_of(case: str) -> Order:
    (text,) = (m["data"][ORDER_FILE] for m in decided(case).needed if ORDER_FILE in m.get("data", {}))
    return Order.model_validate_json(text)


@pytest.mark.parametrize("case", CASES)
def test_output_is_as_expected(case: str) -> None:
    for file, text in outputs(case).items():
        expected = file.read_text("utf-8") if file.is_file() else ""
        assert text == expected, f"{file} differs. If it should: python -m tests.update_golden, and read the diff."


@pytest.mark.parametrize("case", CASES)
def test_the_pod_is_restricted_and_no_services(case: str) -> None:
    template = job_of(case)["spec"]["template"]
    labels, spec = template["metadata"]["labels"], template["spec"]
    assert labels[names.LABEL_ROLE] == names.ROLE_BENCHMARK
    assert (labels[names.LABEL_BENCHMARK], labels[names.LABEL_JOB]) == ("first", job_of(case)["metadata"]["name"])
    assert names.LABEL_SERVICE not in labels
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = spec["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}
    }  # fmt: skip
    assert {"name": "HOME", "value": "/tmp"} in container["env"]
    writable = {m["mountPath"] for m in container["volumeMounts"] if not m.get("readOnly")}
    assert writable == {"/tmp"} | ({"/result"} if case == "everything" else set())
    assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in spec["volumes"]}


@pytest.mark.parametrize("case", CASES)
def test_the_account_may_read_and_change_one_config_map(case: str) -> None:
    by_kind = {m["kind"]: m for m in decided(case).needed}
    assert by_kind["Role"]["rules"] == [
        {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["first-result"], "verbs": ["get", "patch"]}
    ]
    (result,) = (m for m in decided(case).needed if m["metadata"]["name"] == "first-result")
    assert "data" not in result  # it is the Job's


@pytest.mark.parametrize("case", CASES)
def test_what_the_order_names_is_mounted(case: str) -> None:
    order, spec = order_of(case), job_of(case)["spec"]["template"]["spec"]
    mounts = [m["mountPath"] for m in spec["containers"][0]["volumeMounts"]]
    paths = [t.tokenizer.path for t in order.targets if t.tokenizer.kind == "mounted"]
    paths += [w.dataset for w in order.workloads if w.dataset is not None]
    paths += [order.result_path] if order.result_path is not None else []
    for path in paths:
        assert any(path == mount or path.startswith(f"{mount}/") for mount in mounts), path


def claimed(claim: str, second: str, fields: dict[str, Any]) -> World:
    """A comparison of a service, whose model is on a claim, with a server whose tokenizer is on one, too.

    Args:
        fields: More of the spec.
    """
    other = {"url": "http://other:8000", "model": "m", "tokenizer": f"pvc://{second}/m"}
    target = serving(specs.spec(model={"uri": f"pvc://{claim}/tiny.gguf"}))
    return World(item=benchmark(compare={"target": other}, **fields), target=target).settle()


def pod_of(world: World) -> Any:
    (job,) = world.children["Job"].values()
    return job["spec"]["template"]["spec"]


@settings(max_examples=40, deadline=None)
@given(
    claims=st.tuples(*[st.sampled_from(["a", "b"])] * 2),
    data=st.lists(st.sampled_from(["a", "b", "config map"]), max_size=4),
    result=st.sampled_from([None, "a", "b", "c"]),
)
def test_no_claim_is_mounted_by_two_volumes(claims: tuple[str, str], data: list[str], result: str | None) -> None:
    workloads = [
        {
            "name": f"w{number}", "outputTokens": 8,
            "dataset": {"configMap": {"name": "prompts", "key": f"{number % 2}.jsonl"}}
            if claim == "config map"
            else {"claim": {"name": claim, "path": "data.jsonl"}},
        }
        for number, claim in enumerate(data)
    ]  # fmt: skip
    fields: dict[str, Any] = {"workloads": workloads} if workloads else {}
    fields |= {"result": {"claim": {"name": result, "path": "out"}}} if result is not None else {}
    spec = pod_of(claimed(*claims, fields))
    volumes, mounts = spec["volumes"], spec["containers"][0]["volumeMounts"]
    sources = [v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v]
    assert sorted(sources) == sorted({*claims, *data, *([result] if result else [])} - {"config map"})
    assert len({v["name"] for v in volumes}) == len(volumes)
    assert {m["name"] for m in mounts} == {v["name"] for v in volumes}
    assert len({m["mountPath"] for m in mounts}) == len(mounts) == 2 + 2 + len(data) + (result is not None)
    # Only the folder of the result can be written, and only its volume lets it.
    assert {m["mountPath"] for m in mounts if not m.get("readOnly")} == {"/tmp"} | ({"/result"} if result else set())
    for volume in volumes:
        if (claim := volume.get("persistentVolumeClaim")) is not None:
            assert claim.get("readOnly", False) == (claim["claimName"] != result)


def test_an_image_of_two_targets_is_one_volume() -> None:
    model = {"uri": "oci://registry.example/models:1"}
    world = World(item=benchmark(**TWICE), target=serving(specs.spec(model=model))).settle()
    spec = pod_of(world)
    assert [v["image"]["reference"] for v in spec["volumes"] if "image" in v] == ["registry.example/models:1"]
    mounts = [m["mountPath"] for m in spec["containers"][0]["volumeMounts"] if m["name"] == "image-0"]
    assert mounts == ["/tokenizer/target", "/tokenizer/compared"]


def test_no_value_of_a_user_is_an_argument() -> None:
    for case in CASES:
        container = job_of(case)["spec"]["template"]["spec"]["containers"][0]
        assert (container["command"], container["args"]) == (
            ["python3", "-m", "draftmark.benchmark_runner"], ["--order", "/order/order.json"]
        )  # fmt: skip


def test_a_job_outlives_its_plan() -> None:
    order = order_of("smallest")
    # 4 loads, 3 repetitions of a minute, each with its warm-up and a last request of two minutes.
    assert planned_s(order) == 4 * 3 * (60 + 10 + 120)
    assert job_of("smallest")["spec"]["activeDeadlineSeconds"] == planned_s(order) + SLACK_S
    many = World(item=benchmark(requests=1_000_000, concurrency=[1], requestTimeout="1h")).settle()
    assert many.children["Job"][many.job]["spec"]["activeDeadlineSeconds"] == LONGEST_S


def test_the_load_generator_is_of_the_operators_version() -> None:
    assert DEFAULT_IMAGE.rpartition(":")[2] == DEFAULT_RELOADER_IMAGE.rpartition(":")[2]


def test_the_same_load_is_asked_for_once() -> None:
    world = World(item=benchmark(concurrency=[4, 1, 4])).settle()
    assert [load.concurrency for load in world.order().loads] == [4, 1]


def test_the_order_is_one_document_of_its_schema() -> None:
    for case in CASES:
        (text,) = (m["data"][ORDER_FILE] for m in decided(case).needed if ORDER_FILE in m.get("data", {}))
        assert json.loads(text)["benchmark"] == "first"
        assert Order.model_validate_json(text).uid
