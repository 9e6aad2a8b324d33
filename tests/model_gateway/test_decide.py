"""Which model goes where, and what follows from it."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from draftmark.model_gateway.decide import choose_routes, decide_model_gateway
from draftmark.model_gateway.observation import ModelGatewayDecision, ModelGatewayObservation
from draftmark.observation import GatewayState
from tests.golden_model_gateway import CASES, gateway, outputs, service

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def seen(*services: Any, unread: dict[str, str] | None = None, **spec: Any) -> ModelGatewayObservation:
    return ModelGatewayObservation(
        gateway=gateway(**spec),
        services=services,
        addresses={str(s["metadata"]["name"]): f"10.0.0.{n}" for n, s in enumerate(services, 1)},
        unread=unread or {},
    )


def told(observation: ModelGatewayObservation) -> dict[str, str]:
    return {route.model: route.service for route in choose_routes(observation)[0]}


def files(decision: ModelGatewayDecision) -> dict[str, str]:
    (config,) = (m for m in decision.desired if m["kind"] == "ConfigMap")
    return dict(config["data"])


def pod(name: str, *, ready: bool = True) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": str(ready)}]
    return {"metadata": {"name": name, "namespace": "team"}, "status": {"conditions": conditions}}


def state(config: str) -> GatewayState:
    return GatewayState(config=config, runtime=config, revisions={}, at=NOW, config_since=NOW)


@pytest.mark.parametrize("case", CASES)
def test_what_follows_is_the_golden_one(case: str) -> None:
    for file, text in outputs(case).items():
        expected = file.read_text("utf-8") if file.is_file() else ""
        assert text == expected, (
            f"{file} differs. If it should: python -m tests.golden_model_gateway, and read the diff."
        )


def test_a_model_has_the_name_that_its_service_gives_it() -> None:
    observation = seen(service("a"), service("b", model="org/b"), service("c", model="asked", served="answered"))
    assert told(observation) == {"a": "a", "org/b": "b", "answered": "c"}


def test_a_service_without_an_address_or_on_its_way_out_is_not_routed() -> None:
    leaving = service("leaving")
    leaving["metadata"]["deletionTimestamp"] = "2026-01-02T00:00:00Z"
    observation = seen(service("a"), leaving)
    assert told(observation) == {"a": "a"}
    assert told(replace(observation, addresses={})) == {}


@pytest.mark.parametrize("turned", [False, True])
def test_of_two_services_of_one_name_the_older_one_gets_it(turned: bool) -> None:
    both = [
        service("new", model="m", at="2026-01-02T00:00:00Z"),
        service("old", model="m", at="2026-01-01T00:00:00Z"),
    ]
    routes, unrouted = choose_routes(seen(*(reversed(both) if turned else both)))
    assert [(r.model, r.service) for r in routes] == [("m", "old")]
    (message,) = [one.message for one in unrouted]
    assert "'old'" in message
    assert "'new'" in message
    assert "spec.model.name" in message


def test_a_name_that_no_schema_of_ours_allows_is_told_and_not_routed() -> None:
    routes, unrouted = choose_routes(seen(service("a", served="two words"), service("b")))
    assert [r.service for r in routes] == ["b"]
    assert [one.service for one in unrouted] == ["a"]


def test_time_outs_follow_the_services() -> None:
    observation = seen(service("a"), service("b", requestTimeout="2h", queueTimeout="1m"), service("c", policy=5))
    # 30 s in each of two queues, 600 s for an answer, and the slack of two gateways.
    assert {r.service: r.timeout_s for r in choose_routes(observation)[0]} == {"a": 690, "b": 7350, "c": 690}


@pytest.mark.parametrize(
    "missing",
    [{"services": None}, {"unread": {"Service": "forbidden"}}],
    ids=["services", "addresses"],
)
def test_what_is_not_known_takes_no_model_away(missing: dict[str, Any]) -> None:
    decision = decide_model_gateway(replace(seen(service("a")), **missing))
    assert decision.held is not None
    assert not decision.desired
    assert not decision.prune


def test_a_spec_that_cannot_be_read_changes_nothing() -> None:
    decision = decide_model_gateway(seen(service("a"), maxBodyBytes="1Gi"))
    assert decision.refused is not None
    assert "maxBodyBytes" in decision.refused
    assert not decision.desired
    assert not decision.prune


def test_one_that_is_being_deleted_is_left_to_the_garbage_collector() -> None:
    observation = seen(service("a"))
    leaving = {**observation.gateway, "metadata": {**observation.gateway["metadata"], "deletionTimestamp": "now"}}
    assert decide_model_gateway(replace(observation, gateway=leaving)) == ModelGatewayDecision(is_deleted=True)


def test_the_spec_sets_pods_body_and_memory() -> None:
    decision = decide_model_gateway(seen(service("a"), replicas=3, maxBodyBytes="1Mi"))
    (deployment,) = (m for m in decision.desired if m["kind"] == "Deployment")
    assert deployment["spec"]["replicas"] == 3
    haproxy = deployment["spec"]["template"]["spec"]["containers"][0]
    assert haproxy["resources"]["limits"] == {"memory": "384Mi"}
    assert "req.body_len gt 1048576" in files(decision)["haproxy.cfg"]
    assert f"tune.bufsize {1048576 + 65536}" in files(decision)["haproxy.cfg"]


def test_services_that_come_and_go_roll_no_pod() -> None:
    few, many = (
        decide_model_gateway(seen(*(service(f"s{n}", requestTimeout="24h") for n in range(k)))) for k in (1, 9)
    )
    assert files(few) != files(many)
    assert [m for m in few.desired if m["kind"] != "ConfigMap"] == [m for m in many.desired if m["kind"] != "ConfigMap"]


def test_the_order_of_services_changes_nothing() -> None:
    one, other = service("a"), service("b")
    addresses = {"a": "10.0.0.1", "b": "10.0.0.2"}
    first = decide_model_gateway(replace(seen(one, other), addresses=addresses))
    assert first == decide_model_gateway(replace(seen(other, one), addresses=addresses))


def test_pods_are_asked_until_all_have_the_list() -> None:
    observation = replace(seen(service("a")), pods=(pod("p"), pod("q"), pod("r", ready=False)))
    target = decide_model_gateway(observation).target
    assert target is not None
    assert target.is_awaited
    for states, is_awaited in (
        ({"p": state(target.config)}, True),
        ({"p": state(target.config), "q": state("0")}, True),
        ({"p": state(target.config), "q": state(target.config)}, False),
    ):
        again = decide_model_gateway(replace(observation, states=states)).target
        assert again is not None
        assert again.is_awaited == is_awaited


def test_what_is_left_over_goes_and_a_kind_that_could_not_be_listed_stays() -> None:
    old = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "old", "uid": "u"}}
    observation = replace(seen(service("a")), children={"Service": (old,), "ConfigMap": (old,)})
    assert [(r.kind, r.name) for r in decide_model_gateway(observation).prune] == [
        ("Service", "old"),
        ("ConfigMap", "old"),
    ]
    unread = replace(observation, unread={"ConfigMap": "forbidden"})
    assert [r.kind for r in decide_model_gateway(unread).prune] == ["Service"]
