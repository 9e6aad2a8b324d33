"""Whole decisions, and whole runs of them."""

import re
from collections.abc import Mapping, Sequence
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
from draftmark.observation import GatewayState, Observation, Proof
from tests.simulation import (
    CRASHES,
    HANGS,
    Annotate,
    Delete,
    Edit,
    Event,
    LoseStatus,
    Reconcile,
    Rest,
    Restart,
    Time,
    World,
    empty_world,
    minutes,
    reconcile,
    served_name,
    simulate,
    world_of,
)
from tests.specs import (
    CLAIM_URI,
    HUB_URI,
    MINUTE,
    NAME,
    NAMESPACE,
    T0,
    UID,
    Object,
    current,
    deployments,
    named,
    observation,
    of_role,
    ready_pod,
    role_of,
    running,
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


def test_a_new_service_gets_its_children_and_its_pin_first() -> None:
    decision = decide(observation(), T0)
    assert [m["kind"] for m in decision.pins] == ["ControllerRevision"]
    assert sorted(f"{m['kind']} {m['metadata']['name']}" for m in decision.desired) == [
        "ConfigMap tiny-gateway",
        "Deployment tiny-engine-ea525689",
        "Deployment tiny-gateway",
        "Deployment tiny-router-ea525689",
        "NetworkPolicy tiny-engine",
        "NetworkPolicy tiny-gateway",
        "NetworkPolicy tiny-router",
        "RoleBinding tiny-router",
        "Service tiny",
        "Service tiny-router-ea525689",
        "ServiceAccount tiny-engine",
        "ServiceAccount tiny-router",
    ]
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


def test_clients_reach_the_gateway_and_each_router_its_own_revision() -> None:
    desired = decide(with_spec(running(), OTHER), T0).desired
    selected = {
        m["metadata"]["name"]: {
            d["metadata"]["name"]
            for d in desired
            if d["kind"] == "Deployment"
            and m["spec"]["selector"].items() <= d["spec"]["template"]["metadata"]["labels"].items()
        }
        for m in desired
        if m["kind"] == "Service"
    }
    assert selected == {
        NAME: {"tiny-gateway"},
        "tiny-router-ea525689": {"tiny-router-ea525689"},
        "tiny-router-879d4a99": {"tiny-router-879d4a99"},
    }


def test_a_deployment_selects_its_own_pods_and_no_others() -> None:
    desired = [m for m in decide(with_spec(running(), OTHER), T0).desired if m["kind"] == "Deployment"]
    assert len(desired) == 5
    for one in desired:
        wanted = one["spec"]["selector"]["matchLabels"].items()
        assert [d for d in desired if wanted <= d["spec"]["template"]["metadata"]["labels"].items()] == [one]


def test_a_router_finds_the_engine_pods_of_its_revision() -> None:
    desired = decide(with_spec(running(), OTHER), T0).desired
    engines = deployments(desired)
    for revision, router in of_role(desired, names.ROLE_ROUTER).items():
        argv = router["spec"]["template"]["spec"]["containers"][0]["args"]
        first = argv.index("--selector") + 1
        selector = set(argv[first : argv.index("--service-discovery-namespace")])
        found = [
            r
            for r, d in engines.items()
            if selector <= {f"{k}={v}" for k, v in d["spec"]["template"]["metadata"]["labels"].items()}
        ]
        assert found == [revision]


def test_network_policies_select_the_pods_of_their_role() -> None:
    desired = decide(observation(), T0).desired
    for policy in [m for m in desired if m["kind"] == "NetworkPolicy"]:
        selected = policy["spec"]["podSelector"]["matchLabels"].items()
        [role] = [
            role_of(d)
            for d in desired
            if d["kind"] == "Deployment" and selected <= d["spec"]["template"]["metadata"]["labels"].items()
        ]
        assert policy["metadata"]["name"] == f"{NAME}-{role}"


RERANKING = spec(engine={"name": "llama-cpp", "args": ["--reranking"]})


def test_requests_to_rerank_go_to_the_engines_without_a_router() -> None:
    world = simulate(empty_world(RERANKING), Rest())
    [revision] = world.item["status"]["revisions"]
    assert (revision["weight"], bool(revision["provenAt"])) == (100, True)
    seen = world.observe()
    assert {role_of(d) for d in seen.children["Deployment"]} == {"engine", "gateway"}
    stands_in = named(seen.children["Service"], "Service", f"{NAME}-router-{revision['hash']}")
    [engine] = [d for d in seen.children["Deployment"] if role_of(d) == "engine"]
    pods = engine["spec"]["template"]
    assert stands_in["spec"]["selector"].items() <= pods["metadata"]["labels"].items()
    assert stands_in["spec"]["selector"][names.LABEL_REVISION] == revision["hash"]
    assert pods["spec"]["containers"][0]["ports"][0]["name"] == stands_in["spec"]["ports"][0]["targetPort"]
    policy = named(seen.children["NetworkPolicy"], "NetworkPolicy", f"{NAME}-engine")
    peers = [peer["podSelector"]["matchLabels"].get(names.LABEL_ROLE) for peer in policy["spec"]["ingress"][1]["from"]]
    assert {"router", "gateway"} <= set(peers)


def test_a_change_to_reranking_lets_the_old_revision_keep_its_router() -> None:
    world = simulate(empty_world(spec(replicas=2)), Rest(), Edit({**RERANKING, "replicas": 2}), Reconcile())
    seen = world.observe()
    routers = [
        d["metadata"]["labels"][names.LABEL_REVISION] for d in seen.children["Deployment"] if role_of(d) == "router"
    ]
    assert routers == ["ea525689"]
    simulate(world, Rest())
    assert [role_of(d) for d in world.observe().children["Deployment"]].count("router") == 0
    assert [r["weight"] for r in world.item["status"]["revisions"]] == [100]


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
    seen = running()
    left_over = {
        # No Job is left of a service at rest.
        k: (
            *seen.owned(k),
            *(
                {**o, "metadata": {**o["metadata"], "name": "left-over"}}
                for o in (seen.owned(k) or seen.owned("Service"))[:1]
            ),
        )
        for k in OWNED_KINDS
    }
    everything = replace(seen, children=left_over)
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
    world = simulate(empty_world(spec()), Rest(), Edit(spec(replicas=0)))
    decision = decide(world.observe(), world.now)
    assert [d["spec"]["replicas"] for d in deployments(decision.desired).values()] == [0]
    assert decision.prove is None


def test_zero_replicas_do_not_wait_for_the_new_revision() -> None:
    seen = with_spec(running(), {**OTHER, "replicas": 0})
    assert len(deployments(decide(seen, T0).desired)) == 1
    assert "tiny-engine-ea525689" in {ref.name for ref in decide(seen, T0).prune}


def test_scaling_is_no_new_revision() -> None:
    seen = running()
    assert current(decide(with_spec(seen, spec(replicas=7)), T0)) == current(decide(seen, T0))


def test_an_unreadable_spec_keeps_the_live_number_of_replicas() -> None:
    decision = decide(with_spec(running(spec(replicas=3)), UNREADABLE), T0)
    assert [d["spec"]["replicas"] for d in deployments(decision.desired).values()] == [3]


@pytest.mark.parametrize("steps", range(8))
def test_an_unreadable_spec_in_the_middle_of_a_rollout_keeps_the_number_of_replicas(steps: int) -> None:
    edit = Edit({**OTHER, "replicas": 3})
    world = simulate(
        empty_world(spec(replicas=3)),
        Rest(),
        edit,
        *minutes(steps),
        Edit({**UNREADABLE, "replicas": 3}),
        Rest(),
    )
    assert sum(world.ready.values()) == 3


def test_an_unreadable_spec_in_the_middle_of_a_rollout_stops_nothing() -> None:
    """The new revision has no replica yet, because the old one had more than are wanted."""
    world = simulate(empty_world(spec(replicas=2)), Rest(), Edit(OTHER), Reconcile())
    assert [d["spec"]["replicas"] for d in world.deployments.values()] == [0, 1]
    decision = decide(simulate(world, Edit(UNREADABLE)).observe(), world.now)
    assert [d["spec"]["replicas"] for d in deployments(decision.desired).values()] != [0]
    assert not [ref for ref in decision.prune if ref.kind == "Deployment"]


@pytest.mark.parametrize("role", ["engine", "router", "gateway"])
def test_a_deployment_scaled_by_hand_comes_back(role: str) -> None:
    seen = running()
    by_hand = tuple(
        {**d, "spec": {**d["spec"], "replicas": 9}} if role_of(d) == role else d for d in seen.owned("Deployment")
    )
    desired = decide(replace(seen, children={**seen.children, "Deployment": by_hand}), T0).desired
    assert [d["spec"]["replicas"] for d in of_role(desired, role).values()] == [1]


# --- rolling out ---


def test_a_rollout_moves_traffic_with_proven_pods_and_stops_the_old_ones_last() -> None:
    world = simulate(empty_world(spec(replicas=2)), Rest(), Edit({**OTHER, "replicas": 2}))
    old, new = "ea525689", "879d4a99"
    story = []
    for _ in range(20):
        reconcile(world)
        wanted = {r: d["spec"]["replicas"] for r, d in world.deployments.items()}
        story.append((wanted.get(old), wanted.get(new), world.weights().get(old), world.weights().get(new)))
        simulate(world, Time())
    # Replicas that are wanted of the old and the new one; weights that the gateways work with.
    assert [line for i, line in enumerate(story) if i == 0 or line != story[i - 1]] == [
        (2, 1, 2, None),
        (1, 1, 2, 0),  # proven: one old pod may go
        (1, 2, 1, 1),
        (None, 2, 0, 2),  # nothing goes to the old one any more, so its last pod may go, too
        (None, 2, None, 2),
    ]


def test_shares_of_few_replicas_that_are_none_still_replace_a_pod() -> None:
    bounds = {"maxSurge": "0%", "maxUnavailable": "10%"}
    world = simulate(empty_world(spec(replicas=2)), Rest(), Edit({**OTHER, "replicas": 2, "rollout": bounds}), Rest())
    assert served_names(world) == {"other": 2}


def test_an_old_revision_that_serves_nobody_does_not_wait() -> None:
    seen = with_spec(running(ready=0), OTHER)
    assert len(deployments(decide(seen, T0).desired)) == 1


@pytest.mark.parametrize(
    "more",
    [{}, {"rollout": {"strategy": "recreate"}}, {"rollout": {"maxSurge": 0, "maxUnavailable": 1}}],
    ids=["rolling", "recreate", "no pod beyond"],
)
@pytest.mark.parametrize("model", [CRASHES, HANGS])
def test_a_candidate_that_fails_is_withdrawn_though_the_operator_restarts_all_the_time(
    model: str, more: Object
) -> None:
    """The old revision may have no pod by then: what it takes to go back to it must not be forgotten."""
    wanted = spec(model={"uri": CLAIM_URI, "name": model}, **more)
    wanted["rollout"] = {**wanted.get("rollout", {}), "progressDeadline": "5m"}
    world = simulate(empty_world(spec()), Rest(), Edit(wanted))
    simulate(world, *[event for _ in range(20) for event in (Restart(), Reconcile(), Time())], Rest())
    assert served_names(world) == {"tiny": 1}
    assert world.weights() == {"ea525689": 1}
    [failed] = [r for r in world.item["status"]["revisions"] if r["phase"] == "Failed"]
    assert failed["reason"] == ("CandidateCrashed" if model == CRASHES else "ProgressDeadlineExceeded")
    assert not reconcile(world), "a reconcile at rest writes nothing"


def test_a_failure_is_in_the_status_before_the_candidate_stops() -> None:
    """Its pods are what shows that it has failed, and they go."""
    broken = spec(model={"uri": CLAIM_URI, "name": CRASHES})
    world = simulate(empty_world(spec()), Rest(), Edit(broken))
    while not decide(heard(world), world.now).status_first:
        simulate(world, Reconcile(), Time())
    simulate(world, Reconcile(0), Restart())
    world.restarts.clear()
    assert [r["phase"] for r in world.item["status"]["revisions"]] == ["Failed", "Current"]
    assert not decide(world.observe(), world.now).status_first
    simulate(world, Rest())
    assert served_names(world) == {"tiny": 1}


def test_a_withdrawn_candidate_is_tried_again_when_the_user_says_so() -> None:
    broken = spec(model={"uri": CLAIM_URI, "name": CRASHES})
    world = simulate(empty_world(spec()), Rest(), Edit(broken), Rest())
    failed_at = world.item["status"]["revisions"][0]["failedAt"]
    simulate(world, Rest())
    assert world.item["status"]["revisions"][0]["failedAt"] == failed_at
    simulate(world, Annotate(names.ANNOTATION_RETRY), Reconcile())
    assert world.item["status"]["revisions"][0]["phase"] == "Candidate"
    simulate(world, Rest())
    assert world.item["status"]["revisions"][0]["failedAt"] > failed_at


def test_an_annotation_that_is_no_time_tries_nothing_again() -> None:
    world = simulate(empty_world(spec()), Rest(), Edit(spec(model={"uri": CLAIM_URI, "name": CRASHES})), Rest())
    world.item["metadata"]["annotations"] = {names.ANNOTATION_RETRY: "now"}
    simulate(world, Reconcile())
    assert world.item["status"]["revisions"][0]["phase"] == "Failed"


# --- gateways ---


def test_a_gateway_is_asked_while_it_is_behind_and_not_at_rest() -> None:
    world = simulate(empty_world(spec()), Reconcile(), Time())

    def is_awaited(seen: Observation) -> bool | None:
        target = decide(seen, world.now).gateway
        return target.is_awaited if target is not None else None

    assert is_awaited(world.observe()), "the router's address is new to it"
    simulate(world, Rest())
    seen = world.observe()
    assert is_awaited(seen) is False
    assert is_awaited(replace(seen, gateways={})) is True, "it is not known what it works with"
    assert is_awaited(replace(seen, gateway_pods=(), gateways={})) is False, "there is nobody to ask"
    [(name, state)] = seen.gateways.items()
    for behind in (replace(state, config="0"), replace(state, runtime="0")):
        assert is_awaited(replace(seen, gateways={name: behind})) is True


def heard(world: World) -> Observation:
    """The world when the gateways have just told what they work with, for a minute now."""
    told = {name: replace(s, at=world.now, config_since=world.now - MINUTE) for name, s in world.loaded.items()}
    return replace(world.observe(), gateways=told)


def draining() -> World:
    """The new revision serves, and the gateway works with that: nothing more goes to the old one."""
    world = simulate(empty_world(spec()), Rest(), Edit(OTHER), Reconcile(), Time(), Reconcile(), Time())
    assert world.weights() == {"ea525689": 0, "879d4a99": 1}
    return world


def test_a_revision_that_is_closed_is_not_opened_by_a_process_that_knows_no_gateway() -> None:
    recreated = spec(model={"uri": CLAIM_URI, "name": "other"}, rollout={"strategy": "recreate"})
    world = simulate(empty_world(spec()), Rest(), Edit(recreated))

    def configured() -> Any:
        return world.children["ConfigMap", "tiny-gateway"]["data"]

    while "weight.ea525689 1" in configured()["weights.map"]:
        simulate(world, Reconcile(), Time())
    assert len(deployments(world.children.values())) == 2, "the old one is still to be stopped"
    simulate(world, Restart())
    config = named(decide(world.observe(), world.now).desired, "ConfigMap", "tiny-gateway")
    assert config["data"] == configured()


def test_a_gateway_is_asked_while_a_revision_drains() -> None:
    world = draining()
    seen = heard(world)
    [(name, state)] = seen.gateways.items()
    waiting = {r: replace(t, waiting=1) for r, t in state.revisions.items()}
    decision = decide(replace(seen, gateways={name: replace(state, revisions=waiting)}), world.now)
    assert len(deployments(decision.desired)) == 2
    assert decision.gateway is not None
    assert decision.gateway.is_awaited
    assert decision.requeue_after is not None


def test_what_a_gateway_told_long_ago_stops_no_pod() -> None:
    world = draining()
    seen = heard(world)
    old = {name: replace(s, at=world.now - timedelta(seconds=11)) for name, s in seen.gateways.items()}
    assert len(deployments(decide(replace(seen, gateways=old), world.now).desired)) == 2
    assert len(deployments(decide(replace(seen, gateways={}), world.now).desired)) == 2
    assert len(deployments(decide(seen, world.now).desired)) == 1


@pytest.mark.parametrize(("replicas", "gateways"), [(0, 1), (1, 1), (2, 2), (9, 2)])
def test_who_wants_several_engines_gets_two_gateways(replicas: int, gateways: int) -> None:
    desired = decide(observation(spec(replicas=replicas)), T0).desired
    assert [d["spec"]["replicas"] for d in of_role(desired, names.ROLE_GATEWAY).values()] == [gateways]


def limits(world: World) -> dict[str, tuple[int, int]]:
    """Of each gateway process: requests in flight, and waiting ones, by revision."""
    data = world.children["ConfigMap", "tiny-gateway"]["data"]
    in_flight = re.findall(r"set maxconn server rev_(\w+)/router (\d+)", data["commands"])
    room = dict(re.findall(r"^room\.(\w+) (\d+)$", data["weights.map"], re.MULTILINE))
    return {r: (int(n), int(room[r]) - int(n)) for r, n in in_flight}


@pytest.mark.parametrize(
    ("traffic", "replicas", "expected"),
    [
        (None, 1, (4, 200)),
        (None, 3, (12, 100)),
        ({"maxConcurrent": 7, "maxQueue": 9}, 1, (7, 9)),
        ({"maxConcurrent": 7, "maxQueue": 9}, 2, (3, 4)),
        ({"maxConcurrent": 1, "maxQueue": 0}, 2, (1, 0)),
    ],
)
def test_limits_of_the_user_are_shared_by_the_gateways_and_the_default_is_for_each(
    traffic: Object | None, replicas: int, expected: tuple[int, int]
) -> None:
    world = simulate(empty_world(spec(traffic=traffic, replicas=replicas)), Rest())
    assert limits(world) == {"ea525689": expected}


# --- a service that an older version made ---


def of_an_older_version() -> World:
    """Version 0.1.0 had neither gateway nor router: clients talked to the engines."""
    world = simulate(empty_world(spec()), Rest())
    kept = {
        ("ControllerRevision", "tiny-ea525689"),
        ("Deployment", "tiny-engine-ea525689"),
        ("Service", NAME),
        ("ServiceAccount", "tiny-engine"),
    }
    world.children = {key: child for key, child in world.children.items() if key in kept}
    world.children["Service", NAME]["spec"]["selector"] = names.selector_labels(NAME)
    world.item["status"]["revisions"] = [
        {"hash": "ea525689", "phase": "Current", "replicas": 1, "readyReplicas": 1, "provenAt": "2025-12-31T12:00:00Z"}
    ]
    world.proof, world.loaded = None, {}
    return world


def test_clients_move_to_the_gateway_once_it_has_answered() -> None:
    world = of_an_older_version()
    before = deepcopy(world.children["Deployment", "tiny-engine-ea525689"]["spec"])

    def state() -> tuple[str, bool]:
        role = world.children["Service", NAME]["spec"]["selector"][names.LABEL_ROLE]
        return role, any(kind == "NetworkPolicy" for kind, _ in world.children)

    simulate(world, Reconcile())
    assert state() == ("engine", False)
    assert decide(world.observe(), world.now).prove is None, "no gateway that could be asked yet"
    assert "weight" not in world.item["status"]["revisions"][0], "nothing is weighed yet"
    simulate(world, Time(), Reconcile(0))
    assert state() == ("engine", False)
    simulate(world, Rest())
    assert state() == ("gateway", True)
    assert world.children["Deployment", "tiny-engine-ea525689"]["spec"] == before
    assert world.item["status"]["revisions"][0]["weight"] == 100
    assert world.item["status"]["revisions"][0]["provenAt"] == "2025-12-31T12:00:00Z"


def test_clients_stay_with_the_engines_while_the_gateway_does_not_answer() -> None:
    world = simulate(of_an_older_version(), Reconcile(), Reconcile(), Time())
    seen = heard(world)
    assert decide(seen, world.now).prove is not None
    failed = replace(seen, proof=Proof(revision="ea525689", problem="503", at=world.now, failures=3))
    service = named(decide(failed, world.now).desired, "Service", NAME)
    assert service["spec"]["selector"][names.LABEL_ROLE] == "engine"
    assert "NetworkPolicy" not in {m["kind"] for m in decide(failed, world.now).desired}


def test_clients_who_have_moved_stay_with_the_gateway_whatever_is_forgotten() -> None:
    seen = simulate(of_an_older_version(), Rest(), LoseStatus(), Restart()).observe()
    for forgotten in (seen, replace(seen, gateways={}, gateway_pods=())):
        service = named(decide(forgotten, T0).desired, "Service", NAME)
        assert service["spec"]["selector"][names.LABEL_ROLE] == "gateway"


def test_an_edit_before_the_move_is_rolled_out_as_ever() -> None:
    world = simulate(of_an_older_version(), Reconcile(), Edit(OTHER), Rest())
    assert served_names(world) == {"other": 1}
    assert world.children["Service", NAME]["spec"]["selector"][names.LABEL_ROLE] == "gateway"


# --- what a router is made of stays ---


def router_of(seen: Observation) -> Any:
    [router] = of_role(decide(seen, T0).desired, names.ROLE_ROUTER).values()
    return router["spec"]["template"]["spec"]["containers"][0]


def test_a_router_keeps_its_image_until_something_else_is_asked_of_it() -> None:
    seen = running()
    newer = Defaults.model_validate({"traffic": {"routerImage": "smg:next"}})
    assert router_of(replace(seen, defaults=newer)) == router_of(seen)
    traffic: Object
    for traffic in ({"policy": "roundRobin"}, {"requestTimeout": "1m"}):
        asked = replace(with_spec(seen, spec(traffic=traffic)), defaults=newer)
        assert router_of(asked)["image"] == "smg:next"
    for traffic in ({"policy": "cacheAware"}, {"maxQueue": 1}, {"queueTimeout": "1s"}):
        assert router_of(replace(with_spec(seen, spec(traffic=traffic)), defaults=newer)) == router_of(seen)


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"metadata": 1, "spec": {}}'])
def test_a_router_whose_pin_is_damaged_is_made_anew(damage: str) -> None:
    seen = running()
    live = [deepcopy(d) for d in seen.owned("Deployment")]
    for deployment in live:
        if role_of(deployment) == names.ROLE_ROUTER:
            deployment["metadata"]["annotations"]["draftmark.dev/pinned"] = damage
    damaged = replace(seen, children={**seen.children, "Deployment": tuple(live)})
    assert decide(damaged, T0).desired == decide(seen, T0).desired


def accounts(seen: Observation, *uids: str) -> Observation:
    """The routers' ServiceAccount as there is none, or as it has this uid."""
    account = {"metadata": {"name": names.router_account_name(NAME), "uid": "".join(uids)}}
    return replace(seen, children={**seen.children, "ServiceAccount": (account,) if uids else ()})


def started_for(desired: Sequence[Mapping[str, Any]]) -> str | None:
    """The account that the router's pods start for; an error when no router is to start."""
    [router] = of_role(desired, names.ROLE_ROUTER).values()
    found: str | None = router["spec"]["template"]["metadata"]["annotations"].get("draftmark.dev/account")
    return found


def test_a_router_starts_when_its_account_is_there() -> None:
    first = decide(accounts(observation()), T0).desired
    assert "ServiceAccount tiny-router" in {f"{m['kind']} {m['metadata']['name']}" for m in first}
    assert of_role(first, names.ROLE_ROUTER) == {}
    assert started_for(decide(accounts(observation(), "one"), T0).desired) == "one"
    unread = replace(accounts(observation()), unread={"ServiceAccount": "forbidden"})
    assert started_for(decide(unread, T0).desired) is None, "it must not wait for what cannot be seen"


def test_a_routers_pods_are_replaced_with_its_account_and_never_else() -> None:
    seen = simulate(empty_world(spec()), Rest()).observe()
    [router] = of_role(seen.owned("Deployment"), names.ROLE_ROUTER).values()
    assert started_for(decide(seen, T0).desired) == started_for([router]) is not None
    # Deleted, it is made anew, and what runs goes on until then.
    assert started_for(decide(accounts(seen), T0).desired) == started_for([router])
    assert started_for(decide(accounts(seen, "another"), T0).desired) == "another"


def test_a_gateway_follows_the_administrator_at_once() -> None:
    newer = Defaults.model_validate({"traffic": {"gatewayImage": "haproxy:next", "reloaderImage": "draftmark:next"}})
    [gateway] = of_role(decide(replace(running(), defaults=newer), T0).desired, names.ROLE_GATEWAY).values()
    images = [c["image"] for c in gateway["spec"]["template"]["spec"]["containers"]]
    assert images == ["haproxy:next", "draftmark:next"]


# --- the request that proves a revision ---


def test_a_ready_revision_is_proven_through_a_gateway() -> None:
    prove = decide(running(), T0).prove
    assert prove is not None
    assert (prove.revision, prove.pod, prove.address, prove.model) == ("ea525689", "tiny-gateway-0", "10.0.0.1", NAME)


@pytest.mark.parametrize(
    "missing",
    [
        {"pods": ()},
        {"router_pods": ()},
        {"gateway_pods": ()},
        {"gateways": {}},
        {"gateways": {"tiny-gateway-0": GatewayState(config="", runtime="", revisions={}, at=T0, config_since=T0)}},
    ],
    ids=["engine", "router", "gateway", "the gateway's word", "the gateway's knowledge of the revision"],
)
def test_no_proof_is_asked_for_where_none_can_be_had(missing: dict[str, Any]) -> None:
    assert decide(replace(running(), **missing), T0).prove is None


def test_a_proof_is_in_the_status_before_anything_acts_upon_it() -> None:
    """Otherwise a process that ends in between leaves one that takes back what was done, and asks again."""
    world = world_of(running())
    assert not decide(world.observe(), T0).status_first
    world.proof = Proof(revision="ea525689", problem=None, at=T0)
    simulate(world, Reconcile(0), Restart())
    [told] = world.item["status"]["revisions"]
    assert (told["provenAt"], told["weight"]) == ("2026-01-01T12:00:00Z", 100)
    decision = decide(world.observe(), T0)
    assert (decision.status_first, decision.prove) == (False, None)
    assert "weight.ea525689 1" in named(decision.desired, "ConfigMap", "tiny-gateway")["data"]["weights.map"]


def test_a_candidate_is_proven_beside_what_serves() -> None:
    world = simulate(empty_world(spec()), Rest(), Edit(OTHER), Reconcile(), Time())
    prove = decide(heard(world), world.now).prove
    assert prove is not None
    assert (prove.revision, prove.model) == ("879d4a99", "other")


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
    return {served_name(d): d["status"]["readyReplicas"] for d in world.deployments.values()}


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
    st.builds(Edit, edits), st.builds(Reconcile, st.none() | st.integers(0, 20)),
    st.sampled_from([Time(), Time(), Restart(), LoseStatus(), Delete("Service"), Delete("NetworkPolicy")]),
)  # fmt: skip


@given(edit=edits, prefixes=st.lists(st.integers(0, 20) | st.just(Time()), max_size=8))
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
def test_a_service_that_serves_is_never_without_a_ready_pod_behind_its_gateways(events: list[Event]) -> None:
    world = simulate(empty_world(spec()), Rest())
    world.reached.clear()
    simulate(world, *events, Rest())
    assert min(world.reached) > 0


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
    [engine] = [d for d in live if role_of(d) == names.ROLE_ENGINE]
    engine["spec"]["template"]["spec"]["dnsPolicy"] = "ClusterFirst"  # as the API server fills it in
    without_pin = replace(seen, children={"Deployment": live})

    again = decide(replace(without_pin, defaults=OTHER_IMAGES), T0)
    (kept,) = deployments(again.desired).values()
    assert kept["spec"]["template"] == engine["spec"]["template"]
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
