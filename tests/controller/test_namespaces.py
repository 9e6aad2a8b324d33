"""An operator with rights in some namespaces only."""

import pytest

from draftmark.api.defaults import Defaults
from draftmark.cluster.kinds import (
    INFERENCE_SERVICES,
    MODEL_GATEWAYS,
    NODES,
    RESOURCE_SLICES,
    ROLE_BINDINGS,
    namespace_rules,
)
from draftmark.controller import main
from draftmark.render.router import ROLE
from tests.controller import conftest
from tests.controller.conftest import Json, Rig
from tests.controller.test_gateways import eventually


def service(name: str = "llama") -> Json:
    """A service says its accelerator: nodes cannot be listed."""
    return conftest.service(name, accelerator={"count": 0})


def elsewhere(name: str = "other") -> Json:
    item = service(name)
    return {**item, "metadata": {**item["metadata"], "namespace": "elsewhere"}}


@pytest.fixture
def confined(rig: Rig) -> Rig:
    """Roles in default and second, as the chart makes them, and no ClusterRole. Everything else is refused."""
    rig.watch_namespaces = ("default", "second")
    rig.defaults = Defaults(namespaced=True)
    rig.api.allowed_namespaces = {"default", "second"}
    return rig


async def test_a_service_is_served_and_nothing_is_asked_for_that_is_refused(confined: Rig) -> None:
    confined.api.add(INFERENCE_SERVICES, service())
    confined.api.add(INFERENCE_SERVICES, elsewhere())
    await confined.start()
    await confined.until(confined.is_ready)
    await confined.quiet()
    asked = {(r.verb, r.kind.plural, r.namespace) for r in confined.api.requests if r.kind is not None}
    assert {namespace for _, _, namespace in asked} == {"default", "second"}
    assert not [plural for _, plural, _ in asked if plural in (NODES.plural, RESOURCE_SLICES.plural)]
    assert "status" not in (confined.api.see(INFERENCE_SERVICES, "other", "elsewhere") or {})
    [binding] = confined.all(ROLE_BINDINGS)
    assert (binding["roleRef"]["kind"], binding["roleRef"]["name"]) == ("Role", ROLE)


async def test_a_service_that_comes_later_is_heard_of_in_every_namespace(confined: Rig) -> None:
    await confined.start()
    await confined.quiet()
    item = service("late")
    confined.api.add(INFERENCE_SERVICES, {**item, "metadata": {**item["metadata"], "namespace": "second"}})
    # Not the rig's own waiting: it plays the controllers of one namespace.
    await eventually(lambda: "status" in (confined.api.see(INFERENCE_SERVICES, "late", "second") or {}), within_s=15)


async def test_a_missing_role_holds_up_its_own_namespace_only(confined: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others wait for it a minute, as for any list; here two seconds."""
    monkeypatch.setattr(main, "_FIRST_LISTS_S", 2.0)
    confined.watch_namespaces = ("default", "forgotten")
    confined.api.add(INFERENCE_SERVICES, service())
    await confined.start()
    await confined.until(confined.is_ready, within_s=30)
    assert await confined.stop() == 0


async def test_a_model_gateway_is_served_too(confined: Rig) -> None:
    gateway = {"apiVersion": "draftmark.dev/v1alpha1", "kind": "ModelGateway", "spec": {"replicas": 1},
               "metadata": {"name": "all", "namespace": "default"}}  # fmt: skip
    confined.api.add(INFERENCE_SERVICES, service())
    confined.api.add(MODEL_GATEWAYS, gateway)
    await confined.start()

    def serves() -> bool:
        status = (confined.api.see(MODEL_GATEWAYS, "all") or {}).get("status", {})
        return any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", ()))

    await confined.until(serves)


async def test_a_restart_writes_nothing(confined: Rig) -> None:
    confined.api.add(INFERENCE_SERVICES, service())
    await confined.start()
    await confined.until(confined.is_ready)
    await confined.quiet()
    await confined.stop()
    before = len(confined.writes())
    await confined.start()
    await confined.quiet()
    assert len(confined.writes()) == before


def test_rules_of_a_namespace_hold_nothing_of_the_cluster() -> None:
    resources = {resource for rule in namespace_rules() for resource in rule["resources"]}
    assert "nodes" not in resources
    assert "leases" not in resources
    assert {"inferenceservices", "pods", "rolebindings"} <= resources
