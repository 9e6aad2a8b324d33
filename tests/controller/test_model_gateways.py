"""ModelGateways under the whole operator: end states, the writes that lead there, and none at rest."""

import json
from collections import Counter
from typing import Any

import pytest

from draftmark.api import names
from draftmark.cluster.kinds import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    EVENTS,
    INFERENCE_SERVICES,
    MODEL_GATEWAYS,
    NETWORK_POLICIES,
    PODS,
    SERVICE_ACCOUNTS,
    SERVICES,
    Kind,
)
from tests.controller.conftest import Rig, service

Json = dict[str, Any]

CHILDREN = ("ServiceAccount", "ConfigMap", "Deployment", "Service", "NetworkPolicy")


def gateway(name: str = "all", **spec: Any) -> Json:
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.MODEL_GATEWAY_KIND,
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    }


def see(rig: Rig, name: str = "all") -> Json:
    found = rig.api.see(MODEL_GATEWAYS, name)
    assert found is not None
    return found


def condition(rig: Rig, type_: str) -> Json:
    conditions = see(rig).get("status", {}).get("conditions") or []
    found: Json = next((c for c in conditions if c["type"] == type_), {"status": "", "reason": "", "message": ""})
    return found


def models(rig: Rig) -> dict[str, str]:
    """The models of the status."""
    return {m["name"]: m["service"] for m in see(rig).get("status", {}).get("models") or ()}


def listed(rig: Rig) -> list[str]:
    """The models of the configuration."""
    config = rig.api.see(CONFIG_MAPS, "all-gateway")
    return [m["id"] for m in json.loads(config["data"]["models.json"])["data"]] if config else []


def has_settled(rig: Rig) -> bool:
    is_ready, is_busy = (condition(rig, type_)["status"] for type_ in ("Ready", "Reconciling"))
    return (is_ready, is_busy, see(rig)["status"]["readyReplicas"]) == ("True", "False", 2)


async def serve(rig: Rig, *services: str) -> None:
    """Services and a gateway over them, at rest."""
    for name in services:
        rig.api.add(INFERENCE_SERVICES, service(name))
    rig.api.add(MODEL_GATEWAYS, gateway())
    await rig.start()
    await rig.until(lambda: all(rig.is_ready(name) for name in services) and len(models(rig)) >= len(services))
    await rig.until(lambda: has_settled(rig))
    await rig.quiet()


def since(rig: Rig, before: list[str]) -> Counter[str]:
    return Counter(rig.writes()[len(before) :])


async def test_a_gateway_lists_the_services_of_its_namespace(rig: Rig) -> None:
    rig.api.add(
        INFERENCE_SERVICES, service("named", model={"uri": "pvc://models/tiny.gguf", "name": "org/Named-7B:Q4"})
    )
    await serve(rig, "llama")
    await rig.until(lambda: models(rig) == {"llama": "llama", "org/Named-7B:Q4": "named"})
    await rig.until(lambda: has_settled(rig))
    status = see(rig)["status"]
    assert (status["url"], status["modelCount"]) == ("http://all.default.svc", 2)
    assert listed(rig) == ["llama", "org/Named-7B:Q4"]
    mine = [
        kind.kind
        for kind in (SERVICE_ACCOUNTS, CONFIG_MAPS, DEPLOYMENTS, SERVICES, NETWORK_POLICIES)
        for item in rig.all(kind)
        if names.LABEL_MODEL_GATEWAY in item["metadata"]["labels"]
    ]
    assert sorted(mine) == sorted(CHILDREN)
    events = [e for e in rig.all(EVENTS) if e["involvedObject"]["kind"] == names.MODEL_GATEWAY_KIND]
    assert "Serving" in {e["reason"] for e in events}


async def test_one_write_per_child_and_none_at_rest_or_after_a_restart(rig: Rig) -> None:
    await serve(rig, "llama")
    before = rig.writes()
    rig.api.remove(MODEL_GATEWAYS, "all")
    await rig.until(lambda: rig.api.see(DEPLOYMENTS, "all-gateway") is None)
    await rig.quiet()
    # The pods' end may be heard of before that of their owner; that status reaches nobody.
    assert {*since(rig, before)} <= {"patch ModelGateway/status"}

    before = rig.writes()
    rig.api.add(MODEL_GATEWAYS, gateway())
    await rig.until(lambda: models(rig) == {"llama": "llama"})
    await rig.until(lambda: has_settled(rig))
    await rig.quiet()
    written = since(rig, before)
    assert {key: written[key] for key in written if not key.endswith(("Event", "/status"))} == {
        f"create {kind}": 1 for kind in CHILDREN
    }
    assert written["patch ModelGateway/status"] <= 4

    before = rig.writes()
    await rig.restart()
    await rig.quiet()
    assert since(rig, before) == {}


async def test_a_new_service_changes_the_configuration_once_and_reaches_the_pods(rig: Rig) -> None:
    await serve(rig, "llama")
    before, sent = rig.writes(), len(rig.api.writes)
    rig.api.add(INFERENCE_SERVICES, service("second"))
    await rig.until(lambda: rig.is_ready("second") and models(rig) == {"llama": "llama", "second": "second"})
    await rig.until(lambda: has_settled(rig))
    await rig.quiet()
    assert listed(rig) == ["llama", "second"]
    written = since(rig, before)
    assert written["patch Deployment"] == 0
    mine = [r for r in rig.api.writes[sent:] if r.kind == CONFIG_MAPS and r.name == "all-gateway"]
    # One hands the fields of the POST over, the other is the change.
    assert len([r for r in mine if "json-patch" not in r.content_type]) == 1
    pods = [p for p in rig.all(PODS) if p["metadata"]["labels"].get(names.LABEL_MODEL_GATEWAY) == "all"]
    assert len(pods) == 2
    told = {rig.gateways.working_with[p["status"]["podIP"]]["config"] for p in pods}
    config = rig.api.see(CONFIG_MAPS, "all-gateway")
    assert config is not None
    assert [f"description {version}" in config["data"]["haproxy.cfg"] for version in told] == [True]


async def test_a_service_that_goes_is_taken_off_the_list(rig: Rig) -> None:
    await serve(rig, "llama", "second")
    rig.api.remove(INFERENCE_SERVICES, "second")
    await rig.until(lambda: listed(rig) == ["llama"] and models(rig) == {"llama": "llama"})
    await rig.until(lambda: has_settled(rig))


async def test_the_operator_restarts_with_services_that_it_has_not_heard_of_yet(rig: Rig) -> None:
    """A list that is not complete takes no model away."""
    await serve(rig, *(f"s{n}" for n in range(6)))
    before = rig.writes()
    for _ in range(3):
        await rig.restart()
        await rig.quiet(0.5)
    assert since(rig, before) == {}
    assert len(listed(rig)) == 6


async def test_services_of_one_name_are_told_and_the_older_one_keeps_it(rig: Rig) -> None:
    await serve(rig, "llama")
    rig.api.add(INFERENCE_SERVICES, service("twin", model={"uri": "pvc://models/tiny.gguf", "name": "llama"}))
    await rig.until(lambda: condition(rig, "NamesUnique")["status"] == "False")
    assert "'twin'" in condition(rig, "NamesUnique")["message"]
    assert models(rig) == {"llama": "llama"}
    await rig.until(lambda: "NameTaken" in {e["reason"] for e in rig.all(EVENTS)})
    rig.api.edit(INFERENCE_SERVICES, "twin", lambda s: s["spec"]["model"].update(name="other"))
    await rig.until(lambda: condition(rig, "NamesUnique")["status"] == "True")
    assert models(rig) == {"llama": "llama", "other": "twin"}


async def test_a_service_of_its_name_is_left_alone_and_named(rig: Rig) -> None:
    rig.api.add(MODEL_GATEWAYS, gateway("llama"))
    rig.api.add(INFERENCE_SERVICES, service("llama"))
    await rig.start()

    def stalled() -> list[str]:
        both = (see(rig, "llama"), rig.see("llama"))
        return [c["message"] for item in both for c in item.get("status", {}).get("conditions") or () if c["reason"] == "NameConflict"]  # fmt: skip

    await rig.until(stalled)
    assert 'Service "llama"' in stalled()[0]


@pytest.mark.parametrize("kind", [CONFIG_MAPS, DEPLOYMENTS, SERVICES])
async def test_a_child_that_somebody_deletes_comes_back(rig: Rig, kind: Kind) -> None:
    await serve(rig, "llama")
    name = "all" if kind == SERVICES else "all-gateway"
    before = rig.api.see(kind, name)
    assert before is not None
    rig.api.remove(kind, name)
    await rig.until(lambda: rig.api.see(kind, name) is not None)
    await rig.until(lambda: has_settled(rig))


async def test_a_spec_that_is_refused_changes_nothing_of_what_runs(rig: Rig) -> None:
    await serve(rig, "llama")
    before = rig.writes()
    rig.api.edit(MODEL_GATEWAYS, "all", lambda g: g["spec"].update(maxBodyBytes="1Gi"))
    await rig.until(lambda: condition(rig, "Accepted")["status"] == "False")
    await rig.quiet()
    assert {key for key in since(rig, before) if not key.endswith(("Event", "/status"))} == set()
    assert models(rig) == {"llama": "llama"}


async def test_without_the_definition_services_work_and_with_it_later_gateways_do(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.api.add(INFERENCE_SERVICES, service("llama"))
    rig.api.fault(verb="list", kind=MODEL_GATEWAYS, times=None, status=404, reason="NotFound", message="no such kind")
    await rig.start()
    await rig.until(lambda: rig.is_ready("llama"))
    await rig.quiet(2.0)
    told = [r for r in caplog.records if "modelgateways" in r.getMessage() and r.levelname == "WARNING"]
    assert len(told) == 1
    # Nobody needs the second look at the services.
    assert rig.api.watchers(INFERENCE_SERVICES) == 1

    rig.api.faults.clear()
    rig.api.add(MODEL_GATEWAYS, gateway())
    await rig.until(lambda: models(rig) == {"llama": "llama"}, within_s=30)
