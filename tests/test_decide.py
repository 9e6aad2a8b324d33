"""Whole decisions, and whole runs of them."""

from copy import deepcopy
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftmark.api import names
from draftmark.api.defaults import Defaults
from draftmark.decide import OWNED_KINDS, PROOF_BACKOFF_S, decide
from draftmark.decision import Decision
from draftmark.observation import Observation, Proof
from tests.simulation import Delete, Edit, Event, Reconcile, Rest, Time, World, empty_world, reconcile, simulate
from tests.specs import (
    CLAIM_URI,
    HUB_URI,
    NAME,
    NAMESPACE,
    T0,
    UID,
    Object,
    children,
    current,
    deployments,
    observation,
    ready_pod,
    running,
    serving,
    spec,
    with_field,
)

OTHER = spec(model={"uri": CLAIM_URI, "name": "other"})
THIRD = spec(model={"uri": CLAIM_URI, "name": "third"})
UNPLANNABLE = spec(model={"uri": "pvc://no-file"})
UNREADABLE = with_field(spec(), "model.maxContextLength", "many")


def actions(decision: Decision) -> tuple[Any, ...]:
    return (*decision.pins, *decision.desired, *decision.prune, *([decision.prove] if decision.prove else []))


def with_spec(seen: Observation, wanted: Object) -> Observation:
    return replace(seen, service={**seen.service, "spec": wanted})


# --- what is made ---


def test_a_new_service_gets_one_of_each_child_and_its_pin_first() -> None:
    decision = decide(observation(), T0)
    assert [m["kind"] for m in decision.pins] == ["ControllerRevision"]
    assert sorted(m["kind"] for m in decision.desired) == ["Deployment", "Service", "ServiceAccount"]
    assert decision.prune == ()
    assert decision.prove is None


def test_every_child_belongs_to_the_service() -> None:
    decision = decide(observation(), T0)
    for manifest in (*decision.pins, *decision.desired):
        metadata = manifest["metadata"]
        [owner] = metadata["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["uid"], owner["controller"]) == (names.KIND, NAME, UID, True)
        assert metadata["namespace"] == NAMESPACE
        assert metadata["labels"][names.LABEL_SERVICE] == NAME
        assert len(metadata["name"]) <= 63


def test_without_a_uid_nobody_owns_the_children() -> None:
    service = observation().service
    service = {**service, "metadata": {k: v for k, v in service["metadata"].items() if k != "uid"}}
    assert all("ownerReferences" not in m["metadata"] for m in decide(observation(service=service), T0).desired)


def test_the_service_selects_every_revision_and_a_deployment_its_own() -> None:
    seen = with_spec(running(), OTHER)
    decision = decide(seen, T0)
    [service] = [m for m in decision.desired if m["kind"] == "Service"]
    assert len(deployments(decision.desired)) == 2
    for revision, deployment in deployments(decision.desired).items():
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert service["spec"]["selector"].items() <= labels.items()
        assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
        assert labels[names.LABEL_REVISION] == revision


def test_names_are_the_same_whoever_computes_them_and_when() -> None:
    assert decide(observation(), T0).desired == decide(observation(), T0 + timedelta(days=1000)).desired
    assert [m["metadata"]["name"] for m in decide(observation(), T0).pins] == ["tiny-ea525689"]


def test_decide_does_not_change_what_it_is_given() -> None:
    seen = running()
    before = repr(seen)
    decide(seen, T0)
    assert repr(seen) == before


# --- what is not done ---


def test_deletion_does_nothing() -> None:
    seen = running()
    metadata = {**seen.service["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}
    decision = decide(replace(seen, service={**seen.service, "metadata": metadata}), T0)
    assert decision.is_deleted
    assert actions(decision) == ()


@pytest.mark.parametrize("wanted", [spec(paused=True), spec(paused=True, replicas=5), {**OTHER, "paused": True}])
def test_paused_does_nothing(wanted: Object) -> None:
    decision = decide(with_spec(running(), wanted), T0)
    assert decision.is_paused
    assert actions(decision) == ()
    assert decision.plan is not None


@pytest.mark.parametrize(("wanted", "code"), [(UNPLANNABLE, "UnreadableModelUri"), (UNREADABLE, "InvalidSpec")])
def test_a_spec_that_cannot_be_followed_changes_nothing(wanted: Object, code: str) -> None:
    seen = running(spec(replicas=3))
    before, after = decide(seen, T0), decide(with_spec(seen, {**wanted, "replicas": 3}), T0)
    assert after.refused is not None
    assert after.refused.code == code
    assert actions(after) == actions(before)


@pytest.mark.parametrize("wanted", [UNPLANNABLE, UNREADABLE, {}, {"model": []}, {"engine": 1, "model": None}])
def test_a_first_spec_that_cannot_be_followed_makes_nothing(wanted: Object) -> None:
    decision = decide(observation(wanted), T0)
    assert decision.refused is not None
    assert actions(decision) == ()


def test_an_unplannable_spec_still_scales_what_runs() -> None:
    decision = decide(with_spec(running(), {**UNPLANNABLE, "replicas": 4}), T0)
    assert [d["spec"]["replicas"] for d in deployments(decision.desired).values()] == [4]


@pytest.mark.parametrize("kind", OWNED_KINDS)
def test_kinds_that_could_not_be_read_are_never_pruned(kind: str) -> None:
    old = running()
    done = simulate(empty_world(spec()), Rest(), Edit(OTHER), Reconcile(), Time(), Time())
    seen = done.observe()
    leftovers = {
        k: (*seen.owned(k), *({**o, "metadata": {**o["metadata"], "name": "left-over"}} for o in old.owned(k)))
        for k in OWNED_KINDS
    }
    everything = replace(seen, children=leftovers)
    assert kind in {ref.kind for ref in decide(everything, T0).prune}
    assert kind not in {ref.kind for ref in decide(replace(everything, unread={kind: "forbidden"}), T0).prune}


@pytest.mark.parametrize("kind", ["ControllerRevision", "Deployment"])
@pytest.mark.parametrize("wanted", [spec(), OTHER, UNREADABLE], ids=["same", "edited", "unreadable"])
def test_nothing_is_done_while_it_is_not_known_what_runs(kind: str, wanted: Object) -> None:
    """An empty list that was not read would be taken for a new service, planned afresh and scaled to one."""
    seen = running(spec(replicas=3))
    blind = replace(
        with_spec(seen, wanted),
        children={k: v for k, v in seen.children.items() if k != kind},
        unread={kind: "forbidden"},
    )
    decision = decide(blind, T0)
    assert actions(decision) == ()
    assert "forbidden" in (decision.held or "")


# --- replicas ---


def test_zero_replicas_are_one_deployment_of_none() -> None:
    decision = decide(with_spec(running(), spec(replicas=0)), T0)
    assert [d["spec"]["replicas"] for d in deployments(decision.desired).values()] == [0]
    assert decision.prove is None


def test_zero_replicas_do_not_wait_for_the_new_revision() -> None:
    seen = with_spec(running(), {**OTHER, "replicas": 0})
    assert len(deployments(decide(seen, T0).desired)) == 1
    assert [ref.kind for ref in decide(seen, T0).prune] == ["Deployment"]


def test_scaling_is_no_new_revision() -> None:
    seen = running()
    assert current(decide(with_spec(seen, spec(replicas=7)), T0)) == current(decide(seen, T0))


def test_an_unreadable_spec_keeps_the_live_number_of_replicas() -> None:
    decision = decide(with_spec(running(spec(replicas=3)), UNREADABLE), T0)
    assert [d["spec"]["replicas"] for d in deployments(decision.desired).values()] == [3]


def test_a_deployment_scaled_by_hand_comes_back() -> None:
    seen = running()
    [deployment] = seen.children["Deployment"]
    by_hand = {**deployment, "spec": {**deployment["spec"], "replicas": 9}}
    decision = decide(replace(seen, children={**seen.children, "Deployment": (by_hand,)}), T0)
    assert [d["spec"]["replicas"] for d in deployments(decision.desired).values()] == [1]


# --- rolling out ---


@pytest.mark.parametrize(
    ("ready", "generation_seen", "old_stays"),
    [(0, 1, True), (1, 1, True), (2, 0, True), (2, 1, False)],
    ids=["none ready", "one of two ready", "status of an older generation", "complete"],
)
def test_the_old_revision_stays_until_the_new_one_is_complete(
    ready: int, generation_seen: int, old_stays: bool
) -> None:
    seen = with_spec(running(spec(replicas=2)), {**OTHER, "replicas": 2})
    decision = decide(seen, T0)
    new = current(decision)
    made = children(*decision.pins, *decision.desired)
    made["Deployment"] = tuple(
        serving(d, ready if d["metadata"]["labels"][names.LABEL_REVISION] == new else None) for d in made["Deployment"]
    )
    for deployment in made["Deployment"]:
        deployment["status"]["observedGeneration"] = generation_seen
    decision = decide(replace(seen, children=made), T0)
    assert (len(deployments(decision.desired)) == 2) is old_stays
    assert bool(decision.prune) is not old_stays


def test_an_old_revision_that_serves_nobody_does_not_wait() -> None:
    seen = with_spec(running(ready=0), OTHER)
    assert len(deployments(decide(seen, T0).desired)) == 1


# --- the request that proves a revision ---


def test_a_ready_revision_is_proven_through_the_service() -> None:
    prove = decide(running(), T0).prove
    assert prove is not None
    assert (prove.service, prove.port, prove.model) == (NAME, 80, NAME)


def test_a_revision_is_proven_only_when_it_is_alone() -> None:
    world = simulate(empty_world(spec()), Rest(), Edit(OTHER), Reconcile(), Time())
    assert len([r for r, ready in world.ready.items() if ready]) == 2
    assert decide(world.observe(), world.now).prove is None
    simulate(world, Reconcile())
    assert decide(world.observe(), world.now).prove is not None


def test_a_proven_revision_is_not_asked_again() -> None:
    world = simulate(empty_world(spec()), Rest())
    assert world.item["status"]["revisions"][0]["provenAt"]
    assert decide(replace(world.observe(), proof=None), world.now).prove is None


@pytest.mark.parametrize(("failures", "pause"), [*enumerate(PROOF_BACKOFF_S, start=1), (99, PROOF_BACKOFF_S[-1])])
def test_a_failed_proof_is_tried_again_later_and_later(failures: int, pause: int) -> None:
    seen = running()
    seen = replace(seen, proof=Proof(revision=current(decide(seen, T0)), problem="503", at=T0, failures=failures))
    just_before, due = timedelta(seconds=pause - 1), timedelta(seconds=pause)
    assert decide(seen, T0 + just_before).prove is None
    assert decide(seen, T0 + just_before).requeue_after == timedelta(seconds=1)
    assert decide(seen, T0 + due).prove is not None


def test_the_proof_of_another_revision_proves_nothing() -> None:
    seen = replace(running(), proof=Proof(revision="00000000", problem=None, at=T0))
    assert decide(seen, T0).prove is not None


# --- whole runs ---

RUNS: dict[str, tuple[list[Event], dict[str, int]]] = {
    "first start": ([Rest()], {"tiny": 1}),
    "scaled up": ([Rest(), Edit(spec(replicas=3)), Rest()], {"tiny": 3}),
    "scaled to zero": ([Rest(), Edit(spec(replicas=0)), Rest()], {"tiny": 0}),
    "edited": ([Rest(), Edit(OTHER), Rest()], {"other": 1}),
    "edited twice at once": ([Rest(), Edit(OTHER), Reconcile(), Edit(THIRD), Rest()], {"third": 1}),
    "edited and back": ([Rest(), Edit(OTHER), Reconcile(), Edit(spec()), Rest()], {"tiny": 1}),
    "broken edit": ([Rest(), Edit(UNPLANNABLE), Rest()], {"tiny": 1}),
    "unreadable edit": ([Rest(), Edit(UNREADABLE), Rest()], {"tiny": 1}),
    "broken, then mended": ([Edit(UNPLANNABLE), Rest(), Edit(spec()), Rest()], {"tiny": 1}),
    "paused edit": ([Rest(), Edit({**OTHER, "paused": True}), Rest()], {"tiny": 1}),
    "paused edit, then resumed": ([Rest(), Edit({**OTHER, "paused": True}), Rest(), Edit(OTHER), Rest()], {"other": 1}),
    "deployment deleted by hand": ([Rest(), Delete("Deployment"), Rest()], {"tiny": 1}),
    "pin deleted by hand": ([Rest(), Delete("ControllerRevision"), Rest()], {"tiny": 1}),
}


def served_names(world: World) -> dict[str, int]:
    """Ready replicas by the name that they serve under."""
    found = {}
    for deployment in world.deployments.values():
        argv = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
        found[argv[argv.index("--alias") + 1]] = deployment["status"]["readyReplicas"]
    return found


@pytest.mark.parametrize("run", RUNS)
def test_a_run_ends_as_it_should(run: str) -> None:
    events, expected = RUNS[run]
    world = simulate(empty_world(spec()), *events)
    assert served_names(world) == expected
    assert not reconcile(world), "a reconcile at rest writes nothing"


specs = st.builds(
    lambda wanted, replicas: {**wanted, "replicas": replicas},
    st.sampled_from([spec(), OTHER, THIRD]),
    st.integers(1, 3),
)
edits = st.one_of(specs, st.sampled_from([UNPLANNABLE, UNREADABLE, spec(model={"uri": HUB_URI})]))
noise = st.one_of(
    st.builds(Edit, edits), st.builds(Reconcile, st.none() | st.integers(0, 8)), st.just(Time()), st.just(Delete("Service"))
)  # fmt: skip


@given(edit=edits, prefixes=st.lists(st.integers(0, 9) | st.just(Time()), max_size=8))
def test_restarts_after_any_prefix_of_the_actions_end_in_the_same_state(
    edit: Object, prefixes: list[int | Time]
) -> None:
    straight = simulate(empty_world(spec()), Rest(), Edit(edit), Rest())
    events = [p if isinstance(p, Time) else Reconcile(p) for p in prefixes]
    stopped = simulate(empty_world(spec()), Rest(), Edit(edit), *events, Rest())
    assert stopped.end_state() == straight.end_state()


@given(events=st.lists(noise, max_size=10), last=specs)
def test_whatever_happened_the_last_spec_is_what_runs_in_the_end(events: list[Event], last: Object) -> None:
    world = simulate(empty_world(spec()), *events, Edit(last), Rest())
    assert served_names(world) == {last["model"].get("name", NAME): last["replicas"]}
    assert not reconcile(world)


@given(events=st.lists(noise, max_size=10))
def test_a_service_that_serves_is_never_without_a_ready_pod(events: list[Event]) -> None:
    world = simulate(empty_world(spec()), Rest())
    world.served.clear()
    simulate(world, *events, Rest())
    assert min(world.served) > 0


@given(events=st.lists(noise, max_size=8), random=st.randoms(use_true_random=False))
def test_the_order_of_what_is_seen_does_not_matter(events: list[Event], random: Any) -> None:
    seen = simulate(empty_world(spec()), Rest(), *events).observe()
    seen = replace(seen, pods=(*seen.pods, ready_pod("00000000", "other")))

    def shuffled(items: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(random.sample(items, len(items)))

    kinds = shuffled(tuple(seen.children))
    mixed = replace(seen, pods=shuffled(seen.pods), children={k: shuffled(seen.children[k]) for k in kinds})
    one, other = decide(seen, T0), decide(mixed, T0)
    assert one == replace(other, prune=one.prune)
    assert set(one.prune) == set(other.prune)


#: What an administrator may have changed since.
OTHER_IMAGES = Defaults.model_validate({"engines": {"llama-cpp": {"images": {"cpu": "other:{version}"}}}})


def test_a_lost_pin_is_taken_from_what_runs_and_restarts_nothing() -> None:
    # Deleted by hand, after an upgrade that would render other pods.
    seen = running()
    live = deepcopy(seen.children["Deployment"])
    live[0]["spec"]["template"]["spec"]["dnsPolicy"] = "ClusterFirst"  # as the API server fills it in
    without_pin = replace(seen, children={"Deployment": live})

    again = decide(replace(without_pin, defaults=OTHER_IMAGES), T0)
    (kept,) = deployments(again.desired).values()
    assert kept["spec"]["template"] == live[0]["spec"]["template"]
    assert again.pins[0]["data"]["plan"]["version"] == "unknown"
    assert again.suggestion is not None

    same = decide(without_pin, T0)
    assert same.pins[0]["data"] == decide(seen, T0).pins[0]["data"]
    assert same.suggestion is None


def test_empty_maps_do_not_make_a_revision() -> None:
    empty = spec()
    empty["engine"] = {**empty["engine"], "options": {}, "args": [], "resources": {"limits": {}}}
    empty |= {"podTemplate": {"metadata": {}}, "workload": {}}
    assert current(decide(observation(empty), T0)) == current(decide(observation(), T0))


def test_a_wrong_accept_is_told_the_right_one() -> None:
    wrong = replace(with_spec(running(), spec(rollout={"accept": "00000000"})), defaults=OTHER_IMAGES)
    answer = decide(wrong, T0)
    assert answer.refused is not None
    assert answer.suggestion is not None
    assert answer.suggestion.id in answer.refused.message
