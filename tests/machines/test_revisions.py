"""Revisions are pinned: what runs stays until the user asks for something else."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from draftmark.api import names
from draftmark.api.defaults import Defaults
from draftmark.decide import decide
from draftmark.decision import Decision
from draftmark.engines.llama_cpp import LlamaCpp
from draftmark.engines.vllm import Vllm
from draftmark.facts.nodes import ClusterFacts, NodeFacts, read_nodes
from draftmark.machines.revisions import HISTORY_LIMIT, plan_data, read_plan, read_revision
from draftmark.observation import Json, Observation
from draftmark.render.pod import render_pod_template
from tests.planner.plan_cases import many
from tests.simulation import Reconcile, Rest, Time, simulate, world_of
from tests.specs import (
    CLAIM_URI,
    HUB_URI,
    T0,
    Object,
    current,
    deployments,
    node,
    observation,
    running,
    spec,
    with_field,
)


def pins(decision: Decision) -> dict[str, Any]:
    return {m["metadata"]["labels"][names.LABEL_REVISION]: m for m in decision.pins}


def template(decision: Decision) -> Any:
    return deployments(decision.desired)[current(decision)]["spec"]["template"]


def without_gateway(decision: Decision) -> list[Json]:
    return [m for m in decision.desired if m["metadata"]["labels"][names.LABEL_ROLE] != names.ROLE_GATEWAY]


def edited(seen: Observation, wanted: Object) -> Observation:
    """The same world after the user has applied another spec."""
    service = {**seen.service, "spec": wanted}
    service["metadata"] = {**service["metadata"], "generation": seen.generation + 1}
    return replace(seen, service=service)


def settled(seen: Observation) -> Observation:
    """The world when everything has come to rest."""
    return simulate(world_of(seen), Rest()).observe()


# --- a world that changes around a service that nobody edits ---

Change = Callable[[pytest.MonkeyPatch, Observation], Observation]


def _other_template(monkeypatch: pytest.MonkeyPatch, seen: Observation) -> Observation:
    real = render_pod_template

    def newer(*args: Any) -> Any:
        pod = real(*args)
        pod["spec"]["containers"][0]["livenessProbe"]["timeoutSeconds"] = 30
        return pod

    monkeypatch.setattr("draftmark.choice.render_pod_template", newer)
    return seen


def _other_version(monkeypatch: pytest.MonkeyPatch, seen: Observation) -> Observation:
    monkeypatch.setattr("draftmark.planner.planner.ENGINES", {"llama-cpp": LlamaCpp(default_version="b99999")})
    return seen


def _other_concurrency(monkeypatch: pytest.MonkeyPatch, seen: Observation) -> Observation:
    monkeypatch.setattr("draftmark.planner.planner.ENGINES", {"llama-cpp": LlamaCpp(default_concurrency=1)})
    return seen


def _other_context(monkeypatch: pytest.MonkeyPatch, seen: Observation) -> Observation:
    monkeypatch.setattr("draftmark.planner.planner.DEFAULT_CONTEXT_LENGTH", 65536)
    return seen


def _other_settings(_: pytest.MonkeyPatch, seen: Observation) -> Observation:
    defaults = {"registryMirror": "mirror.example.com", "imagePullSecrets": [{"name": "new"}]}
    return replace(seen, defaults=Defaults.model_validate(defaults))


SUGGESTED: list[tuple[Change, str]] = [
    (_other_template, "livenessProbe.timeoutSeconds"),
    (_other_version, "engine version"),
    (_other_concurrency, "concurrency 4 → 1"),
    (_other_context, "context length 4096 → 65536"),
    (_other_settings, "mirror.example.com"),
]


@pytest.mark.parametrize(("change", "told"), SUGGESTED, ids=lambda x: getattr(x, "__name__", ""))
def test_what_changes_around_a_service_restarts_nothing_and_is_suggested(
    monkeypatch: pytest.MonkeyPatch, change: Change, told: str
) -> None:
    before = decide(running(), T0)
    after = decide(change(monkeypatch, running()), T0)
    # The gateway alone is not pinned: it follows the administrator, drained, one pod at a time.
    assert (after.pins, without_gateway(after), after.prune) == (before.pins, without_gateway(before), ())
    assert before.suggestion is None
    assert after.suggestion is not None
    assert told in after.suggestion.message
    assert f"spec.rollout.accept: {after.suggestion.id}" in after.suggestion.message


LLAMA_70B = spec(model={"uri": "hf://meta-llama/Llama-3.1-70B"}, engine={"name": "vllm"})


def on_nodes(*gpus: str) -> ClusterFacts:
    return ClusterFacts(nodes=read_nodes(each for gpu in gpus for each in many(gpu, 1)))


def test_a_better_layout_is_suggested_with_its_gain() -> None:
    seen = running(LLAMA_70B, cluster=on_nodes("H100"))
    offer = decide(replace(seen, cluster=on_nodes("H100", "H200")), T0).suggestion
    assert offer is not None
    assert "layout 4x NVIDIA-H100-80GB-HBM3 (tensor 4) → 2x NVIDIA-H200 (tensor 2)" in offer.message
    assert "It gains: 2 GPUs per replica instead of 4." in offer.message
    assert "It loses: cache for" in offer.message


def test_what_is_only_worse_is_no_suggestion() -> None:
    """Its own node is cordoned, or full, and others would take more GPUs."""
    seen = running(LLAMA_70B, cluster=on_nodes("H100"))
    elsewhere = decide(observation(LLAMA_70B, cluster=on_nodes("A100")), T0).plan
    assert elsewhere is not None
    assert elsewhere.layout.gpus == 8
    assert decide(replace(seen, cluster=on_nodes("A100")), T0).suggestion is None


@pytest.mark.parametrize("change", [c for c, _ in SUGGESTED], ids=lambda x: x.__name__)
def test_an_accepted_suggestion_is_taken_once(monkeypatch: pytest.MonkeyPatch, change: Change) -> None:
    seen = change(monkeypatch, running())
    offer = decide(seen, T0).suggestion
    assert offer is not None
    accepted = edited(seen, spec(rollout={"accept": offer.id}))
    taken = decide(accepted, T0)
    assert taken.refused is None
    assert current(taken) != current(decide(seen, T0))
    assert taken.suggestion is None
    done = decide(settled(accepted), T0)
    assert current(done) == current(taken)
    assert done.suggestion is None
    assert len(deployments(done.desired)) == 1


def test_a_wrong_accept_is_refused_with_the_right_id_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = _other_version(monkeypatch, running())
    before = decide(seen, T0)
    after = decide(edited(seen, spec(rollout={"accept": "00000000"})), T0)
    assert after.refused is not None
    assert before.suggestion is not None
    assert after.refused.code == "UnknownSuggestion"
    assert before.suggestion.id in after.refused.message
    assert (after.pins, after.desired, after.prune) == (before.pins, before.desired, ())


def test_an_accept_without_a_suggestion_is_refused() -> None:
    refused = decide(edited(running(), spec(rollout={"accept": "00000000"})), T0).refused
    assert refused is not None
    assert "there is no suggestion" in refused.message


def test_a_first_apply_with_an_accept_is_planned_as_ever() -> None:
    """A manifest from git, applied to a new cluster."""
    assert decide(observation(spec(rollout={"accept": "00000000"})), T0).refused is None


def test_removing_accept_goes_back_to_the_revision_before(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = _other_version(monkeypatch, running())
    first, offer = current(decide(seen, T0)), decide(seen, T0).suggestion
    assert offer is not None
    accepted = settled(edited(seen, spec(rollout={"accept": offer.id})))
    assert current(decide(edited(accepted, spec()), T0)) == first


@pytest.mark.parametrize("nodes", [(), (NodeFacts(name="new", container_runtime="containerd://1.6.20"),)])
def test_nodes_that_come_and_go_change_nothing(nodes: tuple[NodeFacts, ...]) -> None:
    wanted = spec(model={"uri": "oci://host/image:1"})
    runtime = node()["status"]["nodeInfo"]["containerRuntimeVersion"]
    before = running(wanted, cluster=ClusterFacts(nodes=(NodeFacts(name="a", container_runtime=runtime),)))
    after = replace(before, cluster=ClusterFacts(nodes=nodes))
    assert decide(after, T0) == decide(before, T0)


def test_what_an_older_version_stored_is_given_back_to_the_letter() -> None:
    """Data cannot be changed once stored: neither fields that this version would add nor those it does not know."""
    seen = running()
    pin = seen.children["ControllerRevision"][0]
    plan = {k: v for k, v in pin["data"]["plan"].items() if k != "args_unchecked"} | {"from_the_future": 1}
    old = {**pin, "data": {**pin["data"], "plan": plan, "more": True}}
    decision = decide(replace(seen, children={**seen.children, "ControllerRevision": (old,)}), T0)
    assert pins(decision)[current(decision)]["data"] == old["data"]
    assert template(decision) == template(decide(seen, T0))


def test_a_plan_survives_storage() -> None:
    pin = decide(observation(spec(accelerator={"product": "NVIDIA-L4"})), T0).pins[0]
    read = read_revision(pin)
    assert read is not None
    assert read.plan == decide(observation(spec(accelerator={"product": "NVIDIA-L4"})), T0).plan
    assert read_plan(pin["data"]["plan"] | {"from_the_future": 1}) == read.plan


# --- edits ---

KEPT = {
    "engine.args": ["--verbose"],
    "engine.env": [{"name": "A"}],
    "engine.resources": {"limits": {"cpu": "1"}},
    "engine.options": {"prefixCaching": True},
    "workload": {"concurrency": 2},
    "model.maxContextLength": 512,
    "model.name": "other",
    "podTemplate": {"nodeSelector": {"a": "b"}},
}
#: Fields that vLLM has, with their values.
KEPT_BY_VLLM = {
    "model.revision": "v1",
    "model.quantization": "fp8",
    "model.adapters": [{"name": "a", "uri": "hf://o/a"}],
    "engine.options": {"chunkedPrefill": False},
    "workload": {"kind": "batch"},
}
VLLM = spec(model={"uri": "hf://org/repo"}, engine={"name": "vllm"}, accelerator={"product": "a"})
CHOSEN_AFRESH = {
    "engine.version": "b1",
    "engine.image": "example.com/own:1",
    "model.uri": HUB_URI,
    "accelerator": {"product": "NVIDIA-L4"},
}


@pytest.mark.parametrize("path", KEPT)
def test_an_edit_keeps_the_engine_of_the_revision_before(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    seen = running()
    before = decide(seen, T0).plan
    wanted = with_field(spec(), path, KEPT[path])
    after = decide(edited(_other_version(monkeypatch, seen), wanted), T0)
    assert before is not None
    assert after.plan is not None
    assert (after.plan.version, after.plan.image) == (before.version, before.image)
    assert after.suggestion is not None
    assert "engine version" in after.suggestion.message
    assert [r for r in after.plan.reasons if r.code == "EngineVersion"] == [
        r for r in before.reasons if r.code == "EngineVersion"
    ]


@pytest.mark.parametrize("path", KEPT_BY_VLLM)
def test_an_edit_keeps_the_engine_version_of_vllm_too(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    seen = running(VLLM)
    monkeypatch.setattr("draftmark.planner.planner.ENGINES", {"vllm": Vllm(default_version="9.9.9")})
    after = decide(edited(seen, with_field(VLLM, path, KEPT_BY_VLLM[path])), T0)
    assert after.plan is not None
    assert after.plan.version == Vllm().default_version


def test_other_gpus_choose_afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = running(VLLM)
    monkeypatch.setattr("draftmark.planner.planner.ENGINES", {"vllm": Vllm(default_version="9.9.9")})
    after = decide(edited(seen, with_field(VLLM, "parallelism.tensor", 2)), T0)
    assert after.plan is not None
    assert after.plan.version == "9.9.9"


@pytest.mark.parametrize(
    ("path", "value", "sizes"),
    [
        ("workload.kind", "batch", (512, 16384)),
        ("engine.options.chunkedPrefill", False, (256, 8192)),
        ("model.quantization", "fp8", (256, 8192)),
    ],
)
def test_batch_sizes_are_chosen_again_for_another_kind_of_workload(
    path: str, value: object, sizes: tuple[int, int]
) -> None:
    after = decide(edited(running(VLLM), with_field(VLLM, path, value)), T0).plan
    assert after is not None
    assert (after.concurrency, after.max_batched_tokens) == sizes


def test_a_step_that_was_long_for_whole_prompts_is_short_again() -> None:
    whole = with_field(with_field(VLLM, "engine.options.chunkedPrefill", False), "model.maxContextLength", 65536)
    parts = with_field(whole, "engine.options.chunkedPrefill", True)
    long, short = decide(running(whole), T0).plan, decide(edited(running(whole), parts), T0).plan
    assert long is not None
    assert short is not None
    assert (long.max_batched_tokens, short.max_batched_tokens) == (65536, 8192)


LLAMA_CPP = spec()
SPREAD = with_field(VLLM, "parallelism", {"tensor": 2, "expert": True})


def test_a_plan_is_read_back_as_it_was_stored() -> None:
    for wanted in (LLAMA_CPP, VLLM, SPREAD):
        plan = decide(observation(wanted), T0).plan
        assert plan is not None
        assert read_plan(plan_data(plan)) == plan
        assert ("max_batched_tokens" in plan_data(plan)) == (wanted is not LLAMA_CPP)
        assert plan_data(plan)["layout"].get("expert", False) == (wanted is SPREAD)


@pytest.mark.parametrize("path", CHOSEN_AFRESH)
def test_an_edit_of_engine_model_or_hardware_chooses_afresh(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    seen = running()
    wanted = with_field(spec(), path, CHOSEN_AFRESH[path])
    after = decide(edited(_other_version(monkeypatch, seen), wanted), T0)
    assert after.plan is not None
    assert after.plan == decide(observation(wanted), T0).plan
    assert after.suggestion is None


@pytest.mark.parametrize(("path", "plan_field", "default"), [
    ("model.maxContextLength", "max_context_length", 4096),
    ("workload.concurrency", "concurrency", 4),
])  # fmt: skip
def test_a_value_that_the_user_takes_away_goes_back_to_the_default(path: str, plan_field: str, default: int) -> None:
    """Kept is what was chosen for the user, never what the user had written."""
    plan = decide(edited(running(with_field(spec(), path, 512)), spec()), T0).plan
    assert getattr(plan, plan_field) == default


def test_going_back_returns_to_the_pinned_revision_as_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    first = running()
    pinned = pins(decide(first, T0))
    a = current(decide(first, T0))
    second = settled(edited(first, spec(model={"uri": CLAIM_URI, "name": "other"})))
    back = decide(edited(_other_version(monkeypatch, second), spec()), T0)
    assert current(back) == a
    assert pins(back)[a]["data"] == pinned[a]["data"]
    assert [pins(back)[r]["revision"] for r in (a, current(decide(second, T0)))] == [3, 2]


def test_history_is_bounded_and_keeps_the_newest() -> None:
    seen = running()
    for i in range(HISTORY_LIMIT + 4):
        seen = settled(edited(seen, spec(model={"uri": CLAIM_URI, "name": f"name-{i}"})))
    numbers = sorted(m["revision"] for m in seen.children["ControllerRevision"])
    assert numbers == list(range(numbers[-1] - HISTORY_LIMIT, numbers[-1] + 1))
    assert len(deployments(seen.children["Deployment"])) == 1


# --- damage ---


def _damaged(pin: Json) -> list[Json]:
    junk: list[Any] = [None, [], "x", {}]
    without = [{**pin, "data": {k: v for k, v in pin["data"].items() if k != key}} for key in pin["data"]]
    broken = [{**pin, "data": {**pin["data"], key: value}} for key in pin["data"] for value in junk]
    return [*without, *broken, {**pin, "data": None}, {k: v for k, v in pin.items() if k != "data"}]


def test_a_pin_that_cannot_be_read_holds_what_runs_and_says_so() -> None:
    seen = running()
    for pin in _damaged(seen.children["ControllerRevision"][0]):
        decision = decide(replace(seen, children={**seen.children, "ControllerRevision": (pin,)}), T0)
        assert read_revision(pin) is None
        assert (decision.pins, decision.desired, decision.prune, decision.prove) == ((), (), (), None)
        assert pin["metadata"]["name"] in (decision.held or "")


def test_what_serves_without_a_readable_pin_stays_until_its_successor_serves() -> None:
    seen = running()
    pin = {**seen.children["ControllerRevision"][0], "data": {}}
    seen = replace(seen, children={**seen.children, "ControllerRevision": (pin,)})
    world = world_of(edited(seen, spec(model={"uri": CLAIM_URI, "name": "other"})))
    while len(world.deployments) < 2 or not world.weights().get(
        revision := current(decide(world.observe(), world.now))
    ):
        assert "tiny-engine-ea525689" not in {ref.name for ref in decide(world.observe(), world.now).prune}
        simulate(world, Reconcile(), Time())
    assert world.ready[revision] == 1
    simulate(world, Rest())
    assert list(world.deployments) == [revision]
    assert len(world.observe().owned("ControllerRevision")) == 1


def test_a_foreign_controller_revision_is_no_revision() -> None:
    assert read_revision({"metadata": {"name": "x"}, "revision": 1, "data": {}}) is None
