"""The objects of a Benchmark, which reviewers read, and what must hold for all of them."""

import json
from typing import Any

import pytest

from draftmark.api import names
from draftmark.benchmark.decide import decide_benchmark
from draftmark.benchmark.observation import BenchmarkDecision
from draftmark.measure.order import Order
from draftmark.render.benchmark import DEFAULT_IMAGE, LONGEST_S, ORDER_FILE, SLACK_S, planned_s
from draftmark.render.gateway import DEFAULT_RELOADER_IMAGE
from tests.benchmark.world import World, benchmark
from tests.golden_benchmark import CASES, outputs
from tests.specs import T0


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
