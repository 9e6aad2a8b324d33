"""What a Benchmark may be, by the Python types; the integration tests put the same table to an API server."""

from copy import deepcopy
from typing import Any

import pytest
from pydantic import ValidationError

from draftmark.api import benchmark as api
from draftmark.api.benchmark import (
    MAX_LOADS,
    MAX_ROWS,
    MAX_WORKLOADS,
    BenchmarkSpec,
    BenchmarkStatus,
    milliseconds_of,
)
from draftmark.api.crd import benchmark_crd, structural
from draftmark.api.names import API_VERSION, BENCHMARK_KIND, name_problem
from tests.api.cases import Case
from tests.schemas import models, walk
from tests.specs import with_field

Object = dict[str, Any]

SERVICE = {"service": "llama"}
URL = {"url": "http://vllm:8000", "model": "org/m", "tokenizer": "hf://org/m"}
HUB_TOKEN = {"name": "hub", "key": "token"}
OWN = {"name": "own", "promptTokens": 100, "outputTokens": 50}
FILE: Object = {"name": "own", "outputTokens": 50, "dataset": {"configMap": {"name": "c", "key": "k"}}}
ON_CLAIM: Object = {"name": "own", "outputTokens": 50, "dataset": {"claim": {"name": "c", "path": "p/f.jsonl"}}}


def benchmark(name: str = "first", **spec: Any) -> Object:
    return {
        "apiVersion": API_VERSION,
        "kind": BENCHMARK_KIND,
        "metadata": {"name": name},
        "spec": {"target": SERVICE, **spec},
    }


def _of(path: str, good: Any, bad: Any, fragment: str, **base: Any) -> Case:
    spec = {"target": SERVICE, **base}
    return Case(
        name=f"{path} {str(bad)[:40]} {fragment[:30]}",
        accepted=benchmark(**with_field(spec, path, good)),
        rejected=benchmark(**with_field(spec, path, bad)),
        fragment=fragment,
    )


def _bounds(path: str, low: float, high: float, **base: Any) -> list[Case]:
    step = 0.0005 if isinstance(low, float) else 1
    return [
        _of(path, low, low - step, f"should be greater than or equal to {low}", **base),
        _of(path, high, high + step, f"should be less than or equal to {high}", **base),
    ]


def _target(good: Object, bad: Object, fragment: str) -> list[Case]:
    """Also of what it is compared with."""
    return [_of("target", good, bad, fragment), _of("compare.target", good, bad, fragment)]


def _workload(good: Object, bad: Object, fragment: str) -> Case:
    return _of("workloads", [good], [bad], fragment)


def _url(good: str, bad: str) -> Case:
    return _of("target", {**URL, "url": good}, {**URL, "url": bad}, "http://[a-z]")


def _workloads(count: int) -> list[Object]:
    return [{"name": f"w{n}", "preset": "chat"} for n in range(count)]


COMPARED: Object = {"target": {"service": "other"}}
_PATTERN = "should match"
BENCHMARK_CASES: tuple[Case, ...] = (
    Case(name="name", accepted=benchmark("a" * 40), rejected=benchmark("a" * 41), fragment="longer than 40"),
    Case(name="first", accepted=benchmark("a3"), rejected=benchmark("3a"), fragment="begin with a letter"),
    *_target(SERVICE, {}, "a target is either a service or a url"),
    *_target(URL, {**URL, **SERVICE}, "a target is either a service or a url"),
    *_target({**SERVICE, "revision": "0123abcd"}, {**URL, "revision": "0123abcd"}, "target.revision is a revision"),
    *_target(URL, {"url": URL["url"], "model": "m"}, "target.model and target.tokenizer belong to target.url"),
    *_target(SERVICE, {**SERVICE, "model": "m"}, "target.model and target.tokenizer belong to target.url"),
    *_target(SERVICE, {**SERVICE, "tokenizer": "hf://a/b"}, "target.model and target.tokenizer belong to target.url"),
    _of("target.service", "a" * 63, "a" * 64, "63"),
    _of("target.service", "a-1", "A", "[a-z0-9]"),
    _of("target.revision", "0123abcd", "0123abcg", "[0-9a-f]{8}", target=SERVICE),
    _url("http://vllm", "https://vllm"),
    _url("http://vllm.team", "http://vllm.team.svc.example.com"),
    _url("http://vllm.team.svc:8000/", "http://vllm.team.svc:8000/v1"),
    _url("http://vllm.team.svc.cluster.local", "http://10.0.0.1:8000"),
    _url("http://vllm:65535", "http://vllm@evil"),
    _of("target", {**URL, "tokenizer": "pvc://c/f.gguf"}, {**URL, "tokenizer": "s3://b/f"}, "(pvc|hf)://"),
    *_target(
        {**URL, "authSecretRef": HUB_TOKEN},
        {**URL, "tokenizer": "pvc://c/f.gguf", "authSecretRef": HUB_TOKEN},
        "target.authSecretRef is used for an hf:// target.tokenizer only",
    ),
    *_target(SERVICE, {**SERVICE, "authSecretRef": HUB_TOKEN}, "an InferenceService has its own"),
    _of("target.tokenizer", "pvc://c/" + "f" * 1016, "pvc://c/" + "f" * 1017, "1024", target=URL),
    _workload({"name": "chat"}, {"name": "talk"}, "a workload is a preset"),
    _workload({"name": "talk", "preset": "chat"}, {**OWN, "preset": "chat"}, "a workload is a preset"),
    _workload({"name": "shared-prefix"}, {**FILE, "promptTokens": 1}, "a workload is a preset"),
    _workload(ON_CLAIM, {**ON_CLAIM, "preset": "chat"}, "a workload is a preset"),
    _workload(OWN, {"name": "own", "promptTokens": 100}, "outputTokens goes with promptTokens"),
    _workload(FILE, {"name": "a", "preset": "chat", "outputTokens": 5}, "outputTokens goes with promptTokens"),
    _workload(
        {**OWN, "promptSpread": {"standardDeviation": 5}},
        {"name": "chat", "promptSpread": {"standardDeviation": 5}},
        "promptSpread and sharedPrefixTokens go with promptTokens",
    ),
    _workload({**OWN, "sharedPrefixTokens": 5}, {**FILE, "sharedPrefixTokens": 5}, "promptSpread and sharedPrefix"),
    _workload(
        {**OWN, "outputSpread": {"standardDeviation": 5}},
        {**FILE, "outputSpread": {"standardDeviation": 5}},
        "outputSpread goes with promptTokens",
    ),
    _workload(
        {**OWN, "outputSpread": {"standardDeviation": 5, "min": 4, "max": 4}},
        {**OWN, "outputSpread": {"standardDeviation": 5, "min": 5, "max": 4}},
        "min is above max",
    ),
    _workload(FILE, {**FILE, "dataset": {}}, "a dataset is in a configMap or on a claim"),
    _workload(
        ON_CLAIM, {**FILE, "dataset": {**FILE["dataset"], **ON_CLAIM["dataset"]}}, "a dataset is in a configMap"
    ),
    _workload(
        {**ON_CLAIM, "dataset": {"claim": {"name": "c", "path": "..a/f"}}},
        {**ON_CLAIM, "dataset": {"claim": {"name": "c", "path": "a/../f"}}},
        "path must stay inside the claim",
    ),
    _workload(ON_CLAIM, {**ON_CLAIM, "dataset": {"claim": {"name": "c", "path": "/f"}}}, "[^/"),
    *_bounds("workloads[0].promptTokens", 1, 1_048_576, workloads=[OWN]),
    *_bounds("workloads[0].outputTokens", 1, 1_048_576, workloads=[OWN]),
    _of("workloads", [{"name": "chat"}, {"name": "long-context"}], [{"name": "chat"}] * 2, "duplicate value"),
    _of("workloads", [{"name": "chat"}], [], "at least 1 item"),
    _of(
        "workloads",
        [{"name": f"w{n}", "preset": "chat"} for n in range(MAX_WORKLOADS)],
        [{"name": f"w{n}", "preset": "chat"} for n in range(MAX_WORKLOADS + 1)],
        f"at most {MAX_WORKLOADS} items",
    ),
    _of("workloads[0].preset", "long-context", "short", "chat", workloads=[{"name": "w", "preset": "chat"}]),
    _of("concurrency", [1], [], "at least 1 item"),
    _of("concurrency", [1] * MAX_LOADS, [1] * (MAX_LOADS + 1), f"at most {MAX_LOADS} items"),
    *_bounds("concurrency[0]", 1, 1024, concurrency=[1]),
    _of("requestRate", [1.5] * MAX_LOADS, [1.5] * (MAX_LOADS + 1), f"at most {MAX_LOADS} items"),
    *_bounds("requestRate[0]", 0.001, 10_000, requestRate=[1]),
    _of("requestRate", [1], [], "at least 1 item"),
    Case(
        name="two kinds of load",
        accepted=benchmark(requestRate=[2.5]),
        rejected=benchmark(requestRate=[2.5], concurrency=[1]),
        fragment="concurrency and requestRate are two kinds of load",
    ),
    Case(
        name="two ends",
        accepted=benchmark(requests=100),
        rejected=benchmark(requests=100, duration="10s"),
        fragment="duration and requests both say",
    ),
    Case(
        name="rounds",
        accepted=benchmark(compare={"target": {"service": "other"}, "rounds": 6}),
        rejected=benchmark(compare={"target": {"service": "other"}, "rounds": 6}, repetitions=3),
        fragment="a comparison has compare.rounds",
    ),
    Case(
        name="rows of a comparison",
        accepted=benchmark(compare=COMPARED, workloads=_workloads(8), concurrency=[1, 2, 4, 8]),
        rejected=benchmark(compare=COMPARED, workloads=_workloads(8), concurrency=[1, 2, 4, 8, 16]),
        fragment=f"a result has one row for each workload, load (concurrency or requestRate) and target, at most {MAX_ROWS}",
    ),
    Case(
        name="rows of a comparison at rates",
        accepted=benchmark(compare=COMPARED, workloads=_workloads(4), requestRate=[1] * 8),
        rejected=benchmark(compare=COMPARED, workloads=_workloads(5), requestRate=[1] * 8),
        fragment="a comparison has two targets",
    ),
    *_bounds("compare.rounds", 6, 64, compare={"target": {"service": "other"}}),
    *_bounds("compare.equalWithinPercent", 1, 50, compare={"target": {"service": "other"}}),
    _of("duration", "1s", "0s", "duration is out of bounds"),
    _of("duration", "4h", "4h1s", "duration is out of bounds"),
    _of("duration", "1m", "1.5s", "([0-9]{1,6}s)?$"),
    _of("warmUp", "0s", "1h1s", "warmUp is out of bounds"),
    _of("requestTimeout", "1s", "0s", "requestTimeout is out of bounds"),
    _of("requestTimeout", "1h", "1h1s", "requestTimeout is out of bounds"),
    *_bounds("requests", 1, 1_000_000),
    *_bounds("repetitions", 1, 20),
    *_bounds("allowedErrorPercent", 0, 100),
    *_bounds("allowedScatterPercent", 0, 100),
    _of("objectives.ttft.p99", "1.5s", "2m", "(ms|s)$"),
    _of("objectives.e2e.p50", "80ms", "80", "(ms|s)$"),
    _of("objectives.itl.p90", "999999.999ms", "1.2345s", "(ms|s)$"),
    _of("objectives", {"itl": {"p90": "80ms"}}, {}, "objectives without one are held by everything"),
    _of("objectives.ttft", {"p50": "2s"}, {}, "an objective without a bound"),
    _of("objectives.ttft", {"p50": "999ms", "p90": "1s", "p99": "1s"}, {"p50": "2s", "p90": "1.5s"}, "p50 <= p90 <= p99"),
    _of("objectives.e2e", {"p90": "90ms", "p99": "0.1s"}, {"p90": "1s", "p99": "999.9ms"}, "p50 <= p90 <= p99"),
    _of("objectives.itl", {"p50": "9ms", "p99": "10ms"}, {"p50": "10ms", "p99": "9ms"}, "p50 <= p90 <= p99"),
    _of("result", {"claim": {"name": "c", "path": "a"}}, {"claim": {"name": "c", "path": ".."}}, "path must stay"),
    _of("notes", "n" * 1024, "n" * 1025, "1024"),
    _of("nodeSelector", {f"k{n}": "v" for n in range(16)}, {f"k{n}": "v" for n in range(17)}, "at most 16 items"),
    _of("tolerations", [{"operator": "Exists"}] * 16, [{"operator": "Exists"}] * 17, "at most 16 items"),
)  # fmt: skip


def refusal(item: Object) -> str | None:
    """What is said of an object, or None when it is accepted."""
    if problem := name_problem(item["metadata"]["name"], BENCHMARK_KIND):
        return problem
    try:
        BenchmarkSpec.model_validate(item.get("spec", {}))
    except ValidationError as error:
        return str(error)
    return None


@pytest.mark.parametrize("case", BENCHMARK_CASES, ids=lambda case: case.name)
def test_one_is_accepted_and_the_other_refused(case: Case) -> None:
    assert refusal(case.accepted) is None
    assert case.fragment.lower() in (refusal(case.rejected) or "").lower()


def test_every_rule_has_a_case_that_breaks_it() -> None:
    said = [refusal(case.rejected) or "" for case in BENCHMARK_CASES]
    # A change needs two objects; the integration tests have it.
    rules = [rule for model in models(BenchmarkSpec) for rule in model.rules if "oldSelf" not in rule.cel]
    assert len(rules) > 10
    assert [rule.message for rule in rules if not any(rule.message in text for text in said)] == []


def test_the_spec_is_needed_and_has_no_defaults() -> None:
    schema = benchmark_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert schema["required"] == ["spec"]
    assert [path for path, node in walk(schema["properties"]["spec"]) if "default" in node] == []


def test_the_definition_is_bounded_and_its_columns_point_at_fields() -> None:
    version = benchmark_crd()["spec"]["versions"][0]
    schema = version["schema"]["openAPIV3Schema"]["properties"]
    bound = {
        "array": {"maxItems"},
        "string": {"maxLength", "enum", "pattern"},
        "integer": {"minimum", "default"},
    }
    for path, node in [*walk(schema["spec"], "spec"), *walk(schema["status"], "status")]:
        assert node.keys() & bound.get(node.get("type", ""), node.keys()), path
    columns = {c["name"]: c["jsonPath"] for c in version["additionalPrinterColumns"]}
    assert list(columns) == ["Target", "Phase", "Reason", "Progress", "Age", "Started", "Finished"]
    paths = {f".{path}" for path, _ in walk(schema["status"], "status")}
    assert {columns[name] for name in ("Phase", "Progress", "Started", "Finished")} <= paths
    assert benchmark_crd()["spec"]["names"]["shortNames"] == ["bench"]


def test_the_most_that_one_target_and_two_may_be_asked_is_accepted() -> None:
    assert refusal(benchmark(workloads=_workloads(MAX_WORKLOADS), concurrency=[1] * MAX_LOADS)) is None
    # The four loads that it has when it says nothing.
    assert refusal(benchmark(workloads=_workloads(MAX_WORKLOADS), compare=COMPARED)) is None


def test_there_is_a_row_for_each_cell() -> None:
    results = structural(BenchmarkStatus)["properties"]["results"]
    assert results["maxItems"] == MAX_ROWS == MAX_WORKLOADS * MAX_LOADS


@pytest.mark.parametrize(("text", "value"), [("80ms", 80), ("1.5s", 1500), ("0.25ms", 0.25), ("2s", 2000)])
def test_short_durations_are_milliseconds(text: str, value: float) -> None:
    assert milliseconds_of(text) == value


@pytest.mark.parametrize("text", ["", "80", "ms", "2m", "-1s", "1.2345s", "1s\n"])
def test_what_is_no_short_duration_is_said_so(text: str) -> None:
    with pytest.raises(ValueError, match="no duration"):
        milliseconds_of(text)


def test_reading_changes_nothing() -> None:
    written = benchmark(concurrency=[1, 2], workloads=[OWN], objectives={"ttft": {"p99": "2s"}})["spec"]
    assert BenchmarkSpec.model_validate(deepcopy(written)).written() == written


@pytest.mark.parametrize(
    ("path", "default"),
    [
        ("concurrency", ", ".join(map(str, api.DEFAULT_CONCURRENCY))),
        ("warmUp", f"{api.DEFAULT_WARM_UP_S}s"),
        ("duration", f"{api.DEFAULT_DURATION_S}s"),
        ("repetitions", f"{api.DEFAULT_REPETITIONS}"),
        ("compare.rounds", f"{api.DEFAULT_ROUNDS}"),
        ("compare.equalWithinPercent", f"{api.DEFAULT_EQUAL_WITHIN_PERCENT:g}"),
        ("allowedScatterPercent", f"{api.DEFAULT_SCATTER_PERCENT:g}"),
        ("requestTimeout", f"{api.DEFAULT_REQUEST_TIMEOUT_S}s"),
    ],
)
def test_kubectl_explain_tells_the_defaults_that_are_taken(path: str, default: str) -> None:
    (version,) = benchmark_crd()["spec"]["versions"]
    schema = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    for name in path.split("."):
        schema = schema["properties"][name]
    told = schema["description"].partition("Default: ")[2]
    assert told.removesuffix(".") == default or told.startswith((f"{default};", f"{default}.")), told
