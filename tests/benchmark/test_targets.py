"""What is measured, as it is found, and what can never be."""

from dataclasses import replace
from typing import Any

import pytest

from draftmark.api import names
from draftmark.api.defaults import BenchmarkDefaults, Defaults
from draftmark.benchmark.observation import BenchmarkObservation
from draftmark.benchmark.targets import REFUSALS, hosts_of, keys_of
from draftmark.engines.registry import ENGINES
from draftmark.measure.order import AcceleratorMemory, TargetFacts
from draftmark.measure.result import MeasuredTarget
from tests import specs
from tests.benchmark.world import World, benchmark, serving
from tests.specs import Object

URL = {"url": "http://other:8000", "model": "m", "tokenizer": "pvc://models/m.gguf"}


def of(target: Object, **fields: Any) -> World:
    return World(item=benchmark(target=target, **fields))


def hub(**spec: Any) -> World:
    """Two services of the hub, the second with a Secret of its own."""
    secret = {"uri": "hf://org/repo", "authSecretRef": {"name": "a", "key": "t"}, "maxContextLength": 4096}
    gpu = {"engine": {"name": "vllm"}, "accelerator": {"product": "NVIDIA-L4", "count": 1}}
    first = serving(specs.spec(model=secret, **gpu))
    second = serving(specs.spec(model={**secret, "authSecretRef": {"name": "b", "key": "t"}}, **gpu))
    item = benchmark(compare={"target": {"service": "second", "allowUserTraffic": True}})

    class Two(World):
        def observe(self) -> BenchmarkObservation:
            return replace(super().observe(), targets={specs.NAME: first, "second": second})

    return Two(item=item)


REFUSED: dict[str, Any] = {
    "ForeignNamespace": lambda: of({**URL, "url": "http://other.elsewhere.svc:8000"}),
    "UrlOfService": lambda: of({**URL, "url": "http://tiny"}),
    "UnreadableTokenizerUri": lambda: of({**URL, "tokenizer": "pvc://models/../m.gguf"}),
    "NotGenerative": lambda: World(target=serving(specs.spec(engine={"name": "llama-cpp", "args": ["--embedding"]}))),
    "ContextTooShort": lambda: World(item=benchmark(workloads=[{"name": "long-context"}])),
    "TokenizerUnavailable": lambda: World(target=serving(specs.spec(model={"uri": "https://example.com/m.gguf"}))),
    "SeveralTokens": hub,
    "InvalidSpec": lambda: of({**URL, "url": "http://other:70000"}),
}
#: Nothing but another Benchmark helps. The others may be healed by a change of a service.
FINAL = {"InvalidSpec", "ForeignNamespace", "UnreadableTokenizerUri", "TokenizerUnavailable"}


def pinned(world: World) -> World:
    """The same, of the revision by its hash."""
    assert world.target is not None
    spec = world.item["spec"]
    revision = world.target.status["revisions"][0]["hash"]
    world.item = {**world.item, "spec": {**spec, "target": {**spec["target"], "revision": revision}}}
    return world


def seen(world: World) -> World:
    """The Services that are the operator's own are known."""
    observe = world.observe

    def with_services() -> BenchmarkObservation:
        return replace(observe(), our_services=frozenset({"tiny"}))

    world.observe = with_services  # type: ignore[method-assign]
    return world


def test_every_refusal_is_here() -> None:
    assert REFUSED.keys() == REFUSALS


@pytest.mark.parametrize("reason", REFUSED)
def test_what_can_never_be_measured_is_refused_with_the_way_out(reason: str) -> None:
    world = seen(REFUSED[reason]()).settle()
    assert_refused(world, reason, "Failed" if reason in FINAL else "Pending")


def assert_refused(world: World, reason: str, phase: str) -> None:
    assert world.condition("Accepted")["status"] == "False", world.status
    assert world.condition("Accepted")["reason"] == world.reason == reason
    assert world.condition("Failed")["reason"] == (reason if phase == "Failed" else "")
    assert world.condition("Stalled")["status"] == "True"
    assert world.phase == phase
    assert ("finishedAt" in world.status, "job" in world.status) == (phase == "Failed", False)
    assert "create Job" not in world.writes
    assert len(world.condition("Accepted")["message"]) > 60
    assert world.wait(days=1).settle().writes == {"status": 1}


@pytest.mark.parametrize("reason", ["NotGenerative", "ContextTooShort"])
def test_a_revision_never_changes_so_one_that_is_asked_for_and_does_not_fit_is_the_end(reason: str) -> None:
    assert_refused(pinned(REFUSED[reason]()).settle(), reason, "Failed")


def of_two_urls(second: Object) -> World:
    target = {**URL, "tokenizer": "hf://org/repo", "authSecretRef": {"name": "a", "key": "t"}}
    return of(target, compare={"target": {**target, "url": "http://third:8000", **second}})


def test_two_urls_with_two_secrets_are_the_end() -> None:
    assert_refused(of_two_urls({"authSecretRef": {"name": "b", "key": "t"}}).settle(), "SeveralTokens", "Failed")


def test_the_load_generator_gets_the_hubs_token_of_a_target_by_url() -> None:
    world = of_two_urls({}).settle()
    (job,) = world.children["Job"].values()
    (container,) = job["spec"]["template"]["spec"]["containers"]
    (token,) = (variable for variable in container["env"] if variable["name"] == "HF_TOKEN")
    assert token["valueFrom"] == {"secretKeyRef": {"name": "a", "key": "t"}}


def test_a_service_that_gets_a_longer_context_is_measured() -> None:
    world = REFUSED["ContextTooShort"]().settle()
    world.target = serving(specs.spec(model={"uri": specs.CLAIM_URI, "maxContextLength": 8192}))
    assert world.settle().phase == "Running"
    assert world.condition("Accepted")["status"] == "True"


def test_what_nothing_helps_is_the_end_although_something_else_is_waited_for() -> None:
    foreign = {**URL, "url": "http://other.elsewhere.svc:8000"}
    world = World(item=benchmark(compare={"target": foreign}), target=None).settle()
    assert_refused(world, "ForeignNamespace", "Failed")


def test_a_try_that_nothing_helps_any_more_is_the_last() -> None:
    world = World().started().delete_job()
    world.target = serving(specs.spec(model={"uri": "https://example.com/m.gguf"}))
    world.settle()
    assert (world.phase, world.reason, world.jobs()) == ("Failed", "TokenizerUnavailable", [])
    assert world.job == world.attempt(1)


@pytest.mark.parametrize(
    ("url", "whole"),
    [
        ("http://other", "http://other.models.svc"),
        ("http://other:8000/", "http://other.models.svc:8000"),
        ("http://other:08000", "http://other.models.svc:8000"),
        ("http://other.models.svc.cluster.local:8000", "http://other.models.svc:8000"),
        ("http://other.models", "http://other.models.svc"),
    ],
)
def test_a_url_is_told_in_full(url: str, whole: str) -> None:
    world = seen(of({**URL, "url": url})).settle()
    assert world.order().targets[0].url == whole
    assert world.order().targets[0].metrics_urls == ()
    assert "targetDigest" not in world.status
    assert world.run_pods().settle().result().settle().phase == "Succeeded"


def test_a_service_by_url_is_one_target_however_it_is_written() -> None:
    urls = ("http://other", "http://other:8000", "http://other:08000/", "http://other.models.svc.cluster.local:9000")
    keys = {keys_of(benchmark(target={**URL, "url": url})) for url in urls}
    assert keys == {("url other",)}
    assert keys_of(benchmark()) == (f"service {specs.NAME}",)
    assert hosts_of(benchmark(target=URL, compare={"target": {"service": "mine"}})) == ("other",)


def test_what_a_server_by_url_says_of_itself_is_told_at_the_end() -> None:
    world = of(URL).settle().run_pods().settle()
    (target,) = world.order().targets
    assert {sign.engine for sign in target.signs} == set(ENGINES)
    assert "engine" not in world.status["target"]
    long = TargetFacts(engine="vllm", version="1" * 100, hardware="h" * 1000)
    told = MeasuredTarget(label="target", url="http://elsewhere", model="other", facts=long)
    before = world.status["target"]
    world.result(targets=(told,)).settle()
    assert world.phase == "Succeeded"
    assert {key: value for key, value in world.status["target"].items() if key not in ("engine", "version")} == before
    assert world.status["target"]["engine"] == "vllm"
    assert 0 < len(world.status["target"]["version"].encode()) <= 64


def test_what_the_operator_knows_of_a_service_stays_whatever_a_result_says() -> None:
    world = World().settle().run_pods().settle()
    assert world.order().targets[0].signs == ()
    before = world.status["target"]
    facts = TargetFacts(engine="vllm", version="0.32.0")
    told = MeasuredTarget(label="target", url="http://elsewhere", model="other", facts=facts)
    assert world.result(targets=(told,)).settle().status["target"] == before


def test_a_service_is_reached_through_its_revisions_own_entry() -> None:
    world = World().settle()
    (target,) = world.order().targets
    revision = target.facts.revision
    assert target.url == f"http://tiny-router-{revision}.models.svc:{names.ROUTER_PORT}"
    assert target.metrics_urls == ("http://10.0.0.1:8080/metrics",)
    assert (target.model, target.facts.engine, target.facts.replicas) == ("tiny", "llama-cpp", 1)


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ({"uri": "hf://org/repo:Q4_K_M"}, "Q4_K_M"),
        ({"uri": "pvc://weights/qwen2.5-0.5b-instruct-q4_k_m.gguf"}, "Q4_K_M"),
        ({"uri": "pvc://weights/m-IQ3_XXS.gguf"}, "IQ3_XXS"),
        ({"uri": "pvc://weights/m.F16.gguf"}, "F16"),
        ({"uri": "pvc://weights/seq2.gguf"}, None),
        ({"uri": specs.CLAIM_URI}, None),
    ],
)
def test_the_quantization_is_as_the_model_says(model: Object, told: str | None) -> None:
    assert World(target=serving(specs.spec(model=model))).settle().order().targets[0].facts.quantization == told


def test_hub_models_pass_on_what_they_are_named_by() -> None:
    world = World(target=serving(specs.spec(model={"uri": "hf://org/repo:Q4_K_M"}))).settle()
    tokenizer = world.order().targets[0].tokenizer
    assert (tokenizer.kind, getattr(tokenizer, "quantization", None)) == ("hub", "Q4_K_M")


def test_hardware_is_the_accelerator_or_the_nodes_cpu() -> None:
    gpu = specs.spec(
        model={"uri": "hf://org/repo", "maxContextLength": 4096},
        engine={"name": "vllm"},
        accelerator={"product": "NVIDIA-L4", "count": 1},
    )
    assert World(target=serving(gpu)).settle().order().targets[0].facts.hardware == "NVIDIA-L4"
    assert World().settle().order().targets[0].facts.hardware == "CPU"


PROMETHEUS = Defaults(benchmarks=BenchmarkDefaults(prometheus="http://prometheus.monitoring.svc:9090/"))


def on_gpus(**accelerator: Any) -> Any:
    wanted = specs.spec(
        engine={"name": "llama-cpp", "image": "registry.example/llama:1"},
        accelerator={"product": "NVIDIA-L4", "count": 2, **accelerator},
        replicas=2,
    )
    return serving(wanted)


def test_the_memory_of_gpus_is_asked_for_by_their_pods() -> None:
    target = on_gpus()
    (ordered,) = World(target=target, defaults=PROMETHEUS).settle().order().targets
    assert ordered.memory == AcceleratorMemory(
        prometheus="http://prometheus.monitoring.svc:9090",
        namespace=specs.NAMESPACE,
        pods=tuple(sorted(pod["metadata"]["name"] for pod in target.pods)),
        accelerators=4,
    )
    assert len(ordered.memory.pods) == 2


@pytest.mark.parametrize(
    ("target", "defaults"),
    [
        (on_gpus(), Defaults()),
        (serving(), PROMETHEUS),
        (on_gpus(product="AMD-MI300X", resourceName="amd.com/gpu"), PROMETHEUS),
        (on_gpus(resourceName="nvidia.com/gpu.shared"), PROMETHEUS),
    ],
    ids=["nobody to ask", "on CPU", "not NVIDIA's", "shared with others"],
)
def test_no_memory_is_asked_for_that_nobody_knows(target: Any, defaults: Defaults) -> None:
    (ordered,) = World(target=target, defaults=defaults).settle().order().targets
    assert ordered.memory is None


def test_a_pod_that_is_replaced_or_whose_image_changes_is_another_target() -> None:
    def replaced(pod: Any) -> Object:
        return {**pod, "metadata": {**pod["metadata"], "uid": "another"}}

    def with_other_image(pod: Any) -> Object:
        statuses = [{**c, "imageID": "sha256:other"} for c in pod["status"]["containerStatuses"]]
        return {**pod, "status": {**pod["status"], "containerStatuses": statuses}}

    for change in (replaced, with_other_image):
        world = World().started()
        assert world.target is not None
        world.target = replace(world.target, pods=tuple(change(pod) for pod in world.target.pods))
        assert world.settle().reason == "TargetChanged"


def test_a_router_that_is_replaced_is_another_target() -> None:
    world = World().started()
    assert world.target is not None
    (router,) = world.target.router_pods
    other = {**router, "metadata": {**router["metadata"], "uid": "another"}}
    world.target = replace(world.target, router_pods=(other,))
    assert world.settle().reason == "TargetChanged"


def test_readiness_that_comes_and_goes_is_no_change() -> None:
    world = World().started()
    assert world.target is not None
    busy = [{**pod, "status": {**pod["status"], "conditions": []}} for pod in world.target.pods]
    world.target = replace(world.target, pods=tuple(busy))
    assert world.settle().phase == "Running"


def evicted(pod: Any) -> Object:
    """A pod that ended and is still there, as the kubelet leaves it."""
    status = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}
    return {
        **pod,
        "metadata": {**pod["metadata"], "name": f"{pod['metadata']['name']}-old", "uid": "old"},
        "status": status,
    }


@pytest.mark.parametrize("phase", ["Failed", "Succeeded"])
@pytest.mark.parametrize("field", ["pods", "router_pods"])
def test_pods_that_ended_are_no_part_of_the_target(field: str, phase: str) -> None:
    target = serving()
    (pod,) = getattr(target, field)
    old = evicted(pod)
    both: Any = {field: (pod, {**old, "status": {**old["status"], "phase": phase}})}
    world = World(target=replace(target, **both)).settle()
    assert (world.phase, world.order().targets[0].facts.replicas) == ("Running", 1), world.condition("Complete")
    # It is collected as garbage while the others are measured.
    world.run_pods().settle()
    world.target = target
    assert world.settle().result().settle().phase == "Succeeded"


def test_a_target_whose_pods_all_ended_has_none() -> None:
    target = serving()
    world = World(target=replace(target, pods=tuple(evicted(pod) for pod in target.pods))).settle()
    assert world.reason == "TargetNotReady"
    assert "has no pods" in world.condition("Complete")["message"]
