"""The generated CustomResourceDefinition: structural, bounded, and with no default that a pod depends on."""

from typing import Annotated, Any

import pytest
from pydantic import Field

from draftmark.api.base import ApiModel, LabelValue
from draftmark.api.crd import NotStructural, inference_service_crd, structural
from tests.schemas import crd_schema, walk

SCHEMA = crd_schema()
SPEC, STATUS = SCHEMA["properties"]["spec"], SCHEMA["properties"]["status"]
NODES = [*walk(SPEC, "spec"), *walk(STATUS, "status")]
VERSION = inference_service_crd()["spec"]["versions"][0]


def of_type(kind: str) -> list[tuple[str, Any]]:
    return [(path, node) for path, node in NODES if node.get("type") == kind]


def test_every_text_is_bounded() -> None:
    is_bounded = {"maxLength", "enum"}
    exactly = {"spec.rollout.accept": "^[0-9a-f]{8}$"}  # the pattern says the length
    unbounded = [
        p for p, n in of_type("string") if not n.keys() & is_bounded and n.get("pattern") != exactly.get(p, "")
    ]
    assert unbounded == []


def test_every_list_is_bounded() -> None:
    assert [path for path, node in of_type("array") if "maxItems" not in node] == []


def test_every_map_is_bounded() -> None:
    maps = [(path, node) for path, node in NODES if "additionalProperties" in node]
    assert maps
    assert [path for path, node in maps if "maxProperties" not in node] == []


def test_every_number_is_bounded() -> None:
    assert [p for p, n in of_type("integer") if p.startswith("spec") and not {"minimum", "maximum"} <= n.keys()] == []


def test_every_field_has_one_type() -> None:
    for path, node in NODES:
        if node.get("x-kubernetes-int-or-string"):
            assert node["anyOf"] == [{"type": "integer"}, {"type": "string"}], path
            assert "type" not in node, path
        else:
            # What was measured is a number with decimals; what a user writes has units, or is whole.
            measured = {"number"} if path.startswith("status.") else set()
            assert node["type"] in {"object", "array", "string", "integer", "boolean", *measured}, path
            assert not node.keys() & {"anyOf", "oneOf", "allOf", "not", "nullable", "$ref", "title"}, path


def test_the_spec_has_no_default_but_replicas() -> None:
    assert {path: node["default"] for path, node in walk(SPEC) if "default" in node} == {"replicas": 1}


def test_unknown_fields_are_kept_only_where_the_operator_names_them() -> None:
    kept = {path for path, node in NODES if node.get("x-kubernetes-preserve-unknown-fields")}
    facts = ("spec.model.architecture", "status.modelFacts.facts")
    assert kept == {
        "spec.podTemplate", "spec.podTemplate.affinity", *facts, *(f"{path}.quantizationConfig" for path in facts)
    }  # fmt: skip


def test_a_service_that_nobody_has_seen_has_generation_minus_one() -> None:
    assert STATUS["default"] == {"observedGeneration": -1}
    assert STATUS["properties"]["observedGeneration"]["default"] == -1


def test_lists_of_named_things_are_merged_by_their_names() -> None:
    merged = {path: node.get("x-kubernetes-list-map-keys") for path, node in NODES if "x-kubernetes-list-type" in node}
    assert merged == {
        "spec.engine.env": ["name"],
        "spec.model.adapters": ["name"],
        "spec.podTemplate.imagePullSecrets": ["name"],
        "spec.podTemplate.volumes": ["name"],
        "status.conditions": ["type"],
        "status.revisions": ["hash"],
    }
    assert {node["x-kubernetes-list-type"] for _, node in NODES if "x-kubernetes-list-type" in node} == {"map"}
    for path, keys in merged.items():
        items = next(node for p, node in NODES if p == f"{path}[]")
        assert set(keys or ()) <= set(items["required"]), path


def test_status_and_scale_are_subresources() -> None:
    scale = VERSION["subresources"]["scale"]
    assert VERSION["subresources"]["status"] == {}
    assert scale == {
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    }
    assert "replicas" in SPEC["properties"]
    assert {"replicas", "selector"} <= STATUS["properties"].keys()


def test_columns_are_the_documented_ones_and_point_at_fields() -> None:
    columns = VERSION["additionalPrinterColumns"]
    narrow = [c["name"] for c in columns if not c.get("priority")]
    assert narrow == ["Model", "Engine", "Layout", "Ready", "Reason", "Replicas", "Rollout", "Age"]
    assert "URL" in [c["name"] for c in columns if c.get("priority") == 1]
    paths = {f".{path}" for path, _ in walk(STATUS, "status")} | {".metadata.creationTimestamp"}
    assert [c["name"] for c in columns if not c["jsonPath"].startswith(".status.conditions[") and c["jsonPath"] not in paths] == []  # fmt: skip


def test_every_rule_says_the_way_out() -> None:
    rules = [rule for _, node in [*NODES, ("", SCHEMA)] for rule in node.get("x-kubernetes-validations", ())]
    assert rules
    for rule in rules:
        assert rule.keys() == {"rule", "message"}
        assert ":" in rule["message"] or "needs" in rule["message"], rule


def test_short_name_and_kind() -> None:
    assert inference_service_crd()["spec"]["names"] == {
        "kind": "InferenceService",
        "listKind": "InferenceServiceList",
        "plural": "inferenceservices",
        "singular": "inferenceservice",
        "shortNames": ["infs"],
        "categories": ["all", "draftmark"],
    }


class _Choice(ApiModel):
    either: int | LabelValue


class _Exclusive(ApiModel):
    number: Annotated[int, Field(gt=0)]


@pytest.mark.parametrize("model", [_Choice, _Exclusive])
def test_a_type_without_structural_form_is_an_error_and_not_a_weaker_schema(model: type[ApiModel]) -> None:
    with pytest.raises(NotStructural):
        structural(model)


def test_quantities_keep_their_pattern() -> None:
    """It was lost once: pydantic leaves a pattern that comes after a validator out of the schema."""
    # Numbers of pods are no quantities; a rule says what they are.
    quantities = [
        n for path, n in NODES if n.get("x-kubernetes-int-or-string") and not path.startswith("spec.rollout.")
    ]
    assert quantities
    assert all({"pattern", "maxLength"} <= node.keys() for node in quantities)
