"""What is said of a ModelGateway."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from draftmark.api.conditions import Obstacle
from draftmark.api.crd import structural
from draftmark.api.model_gateway import ModelGatewayStatus
from draftmark.model_gateway.decide import decide_model_gateway
from draftmark.model_gateway.observation import ModelGatewayObservation
from draftmark.model_gateway.status import make_model_gateway_status
from draftmark.status import transitions
from tests.golden_model_gateway import service
from tests.model_gateway.test_decide import NOW, pod, seen, state

SERVED = replace(seen(service("a"), service("b", model="org/b")), pods=(pod("p"), pod("q")))


def status(observation: ModelGatewayObservation, **more: Any) -> dict[str, Any]:
    return make_model_gateway_status(observation, decide_model_gateway(observation), NOW, **more)


def said(written: dict[str, Any], type_: str) -> tuple[str, str]:
    return next((c["status"], c["reason"]) for c in written["conditions"] if c["type"] == type_)


def message(written: dict[str, Any], type_: str) -> str:
    return next(str(c["message"]) for c in written["conditions"] if c["type"] == type_)


def with_status(observation: ModelGatewayObservation, written: dict[str, Any]) -> ModelGatewayObservation:
    return replace(observation, gateway={**observation.gateway, "status": written})


def test_a_gateway_that_serves() -> None:
    written = status(SERVED)
    assert written["url"] == "http://all.team.svc"
    assert written["readyReplicas"] == 2
    assert written["modelCount"] == 2
    assert written["models"] == [{"name": "a", "service": "a"}, {"name": "org/b", "service": "b"}]
    assert [(c["type"], c["status"], c["reason"]) for c in written["conditions"]] == [
        ("Accepted", "True", "Accepted"),
        ("Ready", "True", "Serving"),
        ("Reconciling", "False", "Settled"),
        ("Stalled", "False", "NotStalled"),
        ("NamesUnique", "True", "Unique"),
    ]
    later = make_model_gateway_status(
        with_status(SERVED, written), decide_model_gateway(SERVED), NOW + timedelta(hours=1)
    )
    assert later == written


@pytest.mark.parametrize(
    ("observation", "ready", "reconciling", "stalled"),
    [
        (replace(SERVED, pods=()), ("False", "Starting"), "True", "False"),
        (replace(SERVED, pods=(pod("p"),)), ("True", "Serving"), "True", "False"),
        (replace(SERVED, addresses={}), ("False", "NoModels"), "True", "False"),
        (replace(SERVED, services=None), ("True", "Serving"), "False", "True"),
        (replace(SERVED, services=None, pods=()), ("False", "Held"), "False", "True"),
        (replace(seen(service("a"), replicas=0), pods=(pod("p"),)), ("False", "InvalidSpec"), "False", "True"),
    ],
)
def test_what_is_missing_is_told(
    observation: ModelGatewayObservation, ready: tuple[str, str], reconciling: str, stalled: str
) -> None:
    written = status(observation)
    assert said(written, "Ready") == ready
    assert said(written, "Reconciling")[0] == reconciling
    assert said(written, "Stalled")[0] == stalled


def test_what_is_held_keeps_the_list() -> None:
    before = with_status(SERVED, status(SERVED))
    written = status(replace(before, services=None))
    assert (written["modelCount"], written["models"]) == (2, status(SERVED)["models"])


def test_pods_with_an_old_list_are_under_way_and_those_not_asked_yet_are_not() -> None:
    """After a restart of the operator nobody has been asked, and nothing may be written for that."""
    target = decide_model_gateway(SERVED).target
    assert target is not None
    behind = replace(SERVED, states={"p": state(target.config), "q": state("0")})
    assert said(status(behind), "Reconciling") == ("True", "Updating")
    assert said(status(behind), "Ready") == ("True", "Serving")
    assert status(replace(SERVED, states={"p": state(target.config)})) == status(SERVED)


def test_pods_that_tell_nothing_are_told() -> None:
    silent = replace(SERVED, states={}, silent=frozenset({"q", "gone"}))
    assert said(status(silent), "Reconciling") == ("True", "GatewayUnreachable")
    assert said(status(silent), "Ready") == ("True", "Serving")
    [told] = [c for c in status(silent)["conditions"] if c["type"] == "Reconciling"]
    assert "1 of 2 gateway pods" in told["message"]


def test_names_that_stand_twice_are_told_with_both_services_and_once() -> None:
    twice = replace(seen(service("a", model="m"), service("b", model="m")), pods=(pod("p"), pod("q")))
    written = status(twice)
    assert said(written, "NamesUnique") == ("False", "NameTaken")
    assert all(word in message(written, "NamesUnique") for word in ("'a'", "'b'", "spec.model.name"))
    assert said(written, "Ready")[0] == "True"
    warned = [t for t in transitions(status(SERVED), written) if t.type == "Warning"]
    assert [t.reason for t in warned] == ["NameTaken"]
    assert transitions(written, written) == ()


def test_obstacles_come_before_waiting() -> None:
    taken = Obstacle(code="NameConflict", message="Service 'all' exists already.", needs_human=True)
    written = status(replace(SERVED, pods=()), obstacles=[taken])
    assert said(written, "Ready") == ("False", "NameConflict")
    assert said(written, "Stalled") == ("True", "NameConflict")
    assert said(status(SERVED, contended=[replace(taken, code="ContendedField")]), "Contended") == (
        "True",
        "ContendedField",
    )


def test_two_hundred_models_are_told_and_all_are_counted() -> None:
    written = status(seen(*(service(f"s{n:03}", model="x" * 240 + str(n)) for n in range(250))))
    assert written["modelCount"] == 250
    assert len(written["models"]) == structural(ModelGatewayStatus)["properties"]["models"]["maxItems"] == 200
