"""An upgrade from any recorded version: no pod restarts, no revision is made, no stored object becomes unreadable."""

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from draftmark.api.crd import inference_service_crd
from draftmark.api.defaults import Defaults
from draftmark.decide import decide
from draftmark.facts.nodes import ClusterFacts, NodeFacts
from draftmark.observation import Observation
from draftmark.render.yaml_io import load_manifests
from tests.simulation import Reconcile, Rest, Time, World, simulate
from tests.specs import deployments, named, serving, stored

HERE = Path(__file__).parent
VERSIONS = sorted(path for path in HERE.iterdir() if (path / "chart").is_dir())
CASES = [case for recorded in VERSIONS for case in sorted((recorded / "children").iterdir())]
NOW = datetime(2027, 1, 1, tzinfo=UTC)

#: What a later administrator might have set, all of it different.
OTHER_DEFAULTS = Defaults.model_validate(
    {
        "engines": {"llama-cpp": {"version": "v9.9.9", "images": {"cpu": "other/cpu:{version}"}}},
        "registryMirror": "mirror.example",
        "imagePullSecrets": [{"name": "new-secret"}],
        "tolerations": [{"key": "new", "operator": "Exists"}],
    }
)
OTHER_NODES = ClusterFacts(
    nodes=(NodeFacts(name="new", container_runtime="containerd://1.7.0"),), server_version="v1.34.0"
)


def _name(case: Path) -> str:
    return f"{case.parents[1].name} {case.name}"


def test_there_is_a_recorded_version() -> None:
    assert VERSIONS


def read(case: Path) -> tuple[Any, list[Any]]:
    """The service and its children, as they were recorded."""
    (service,) = load_manifests((case / "service.yaml").read_text("utf-8"))
    return service, load_manifests((case / "children.yaml").read_text("utf-8"))


def engines(manifests: Iterable[Any]) -> dict[str, Any]:
    """What the engines' Deployments are made of, by name."""
    return {d["metadata"]["name"]: d["spec"] for d in deployments(manifests).values()}


def pins(manifests: Iterable[Any]) -> dict[str, Any]:
    return {m["metadata"]["name"]: m["data"] for m in manifests if m["kind"] == "ControllerRevision"}


@pytest.mark.parametrize("case", CASES, ids=_name)
def test_recorded_children_are_kept_as_they_are(case: Path) -> None:
    service, recorded = read(case)
    children: dict[str, tuple[Any, ...]] = {}
    for number, child in enumerate(recorded):
        live = {**child, "metadata": {**child["metadata"], "uid": f"child-{number}", "generation": 1}}
        children[child["kind"]] = (*children.get(child["kind"], ()), live)
    decision = decide(
        Observation(service=service, children=children, cluster=OTHER_NODES, defaults=OTHER_DEFAULTS), NOW
    )
    # To the last byte: any difference in a pod template restarts the engines.
    assert engines(decision.desired) == engines(recorded)
    assert pins(decision.pins) == pins(recorded)
    assert decision.prune == ()


@pytest.mark.parametrize("case", CASES, ids=_name)
def test_an_upgrade_restarts_no_engine_and_moves_the_clients_when_there_is_somebody_to_move_to(case: Path) -> None:
    service, recorded = read(case)
    children = {
        (c["kind"], c["metadata"]["name"]): serving(stored(c)) if c["kind"] == "Deployment" else stored(c)
        for c in recorded
    }
    before = named(recorded, "Service", service["metadata"]["name"])["spec"]
    world = World(item=service, children=children, defaults=OTHER_DEFAULTS)

    def clients() -> Any:
        return children["Service", service["metadata"]["name"]]["spec"]["selector"]

    selected = []
    for _ in range(6):
        simulate(world, Reconcile())
        selected.append(clients()["draftmark.dev/role"])
        assert engines(world.children.values()) == engines(recorded)
        assert min(world.ready.values()) > 0
        simulate(world, Time())
    simulate(world, Rest())
    # A service whose clients already came through a gateway has nowhere to move.
    first = before["selector"]["draftmark.dev/role"]
    assert selected[0] == first
    assert selected[-1] == "gateway"
    assert engines(world.children.values()) == engines(recorded)
    assert pins(world.children.values()) == pins(recorded)


@pytest.mark.parametrize("recorded", VERSIONS, ids=lambda path: path.name)
def test_no_field_of_a_recorded_schema_is_gone_or_has_another_type(recorded: Path) -> None:
    (file,) = (recorded / "chart" / "files" / "crds").iterdir()
    before = yaml.safe_load(file.read_text("utf-8"))["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    after = inference_service_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert _missing(before, after, "") == []


def _missing(before: dict[str, Any], after: dict[str, Any], path: str) -> list[str]:
    if before.get("type") != after.get("type"):
        return [f"{path}: {before.get('type')} became {after.get('type')}"]
    found = [
        entry
        for name, child in before.get("properties", {}).items()
        for entry in (
            _missing(child, after["properties"][name], f"{path}.{name}")
            if name in after.get("properties", {})
            else [f"{path}.{name} is gone"]
        )
    ]
    for key in ("items", "additionalProperties"):
        if key in before:
            found += _missing(before[key], after.get(key, {}), f"{path}[]")
    new = set(after.get("required", ())) - set(before.get("required", ()))
    return found + [f"{path}.{name} has become required" for name in sorted(new)]
