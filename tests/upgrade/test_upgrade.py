"""An upgrade from any recorded version: no pod restarts, no revision is made, no stored object becomes unreadable."""

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


@pytest.mark.parametrize("case", CASES, ids=_name)
def test_recorded_children_are_kept_as_they_are(case: Path) -> None:
    (service,) = load_manifests((case / "service.yaml").read_text("utf-8"))
    recorded = load_manifests((case / "children.yaml").read_text("utf-8"))
    children: dict[str, tuple[Any, ...]] = {}
    for number, child in enumerate(recorded):
        live = {**child, "metadata": {**child["metadata"], "uid": f"child-{number}", "generation": 1}}
        children[child["kind"]] = (*children.get(child["kind"], ()), live)
    decision = decide(
        Observation(service=service, children=children, cluster=OTHER_NODES, defaults=OTHER_DEFAULTS), NOW
    )

    def pods(manifests: Any) -> Any:
        return {m["metadata"]["name"]: m["spec"]["template"] for m in manifests if m["kind"] == "Deployment"}

    def pins(manifests: Any) -> Any:
        return {m["metadata"]["name"]: m["data"] for m in manifests if m["kind"] == "ControllerRevision"}

    assert pods(decision.desired) == pods(recorded)
    assert pins(decision.pins) == pins(recorded)
    assert decision.prune == ()


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
