"""What a ModelGateway may be, by the Python types; the integration tests put the same table to an API server."""

from copy import deepcopy
from typing import Any

import pytest
from pydantic import ValidationError

from draftmark.api.crd import model_gateway_crd
from draftmark.api.model_gateway import ModelGatewaySpec, bytes_of
from draftmark.api.names import API_VERSION, MODEL_GATEWAY_KIND, name_problem
from tests.api.cases import Case
from tests.schemas import models, walk

Object = dict[str, Any]


def gateway(name: str = "all", **spec: Any) -> Object:
    return {
        "apiVersion": API_VERSION,
        "kind": MODEL_GATEWAY_KIND,
        "metadata": {"name": name},
        **({"spec": spec} if spec else {}),
    }


def _field(field: str, good: Any, bad: Any, fragment: str) -> Case:
    return Case(
        name=f"{field} {bad}",
        accepted=gateway(**{field: good}),
        rejected=gateway(**{field: bad}),
        fragment=fragment,
    )


_OUT = "maxBodyBytes must be between 64Ki and 16Mi"
_SIZE = "([0-9]{1,9})(k|Ki|M|Mi)?$"
GATEWAY_CASES: tuple[Case, ...] = (
    Case(name="name", accepted=gateway("a" * 40), rejected=gateway("a" * 41), fragment="longer than 40"),
    Case(name="first", accepted=gateway("a3"), rejected=gateway("3a"), fragment="begin with a letter"),
    _field("replicas", 1, 0, "should be greater than or equal to 1"),
    _field("replicas", 10, 11, "should be less than or equal to 10"),
    _field("maxBodyBytes", "64Ki", "63Ki", _OUT),
    _field("maxBodyBytes", "16Mi", "17Mi", _OUT),
    _field("maxBodyBytes", 65536, 65535, _OUT),
    _field("maxBodyBytes", "16777216", 16777217, _OUT),
    _field("maxBodyBytes", "1M", "8G", _SIZE),
    _field("maxBodyBytes", "100k", "0.5Mi", _SIZE),
    _field("maxBodyBytes", "0001Mi", "1234567890", _SIZE),
)


def refusal(item: Object) -> str | None:
    """What is said of an object, or None when it is accepted."""
    if problem := name_problem(item["metadata"]["name"]):
        return problem
    try:
        ModelGatewaySpec.model_validate(item.get("spec", {}))
    except ValidationError as error:
        return str(error)
    return None


@pytest.mark.parametrize("case", GATEWAY_CASES, ids=lambda case: case.name)
def test_one_is_accepted_and_the_other_refused(case: Case) -> None:
    assert refusal(case.accepted) is None
    assert case.fragment.lower() in (refusal(case.rejected) or "").lower()


def test_every_rule_has_a_case_that_breaks_it() -> None:
    said = [refusal(case.rejected) or "" for case in GATEWAY_CASES]
    rules = [rule for model in models(ModelGatewaySpec) for rule in model.rules]
    assert rules
    assert [rule.message for rule in rules if not any(rule.message in text for text in said)] == []


def test_nothing_must_be_written() -> None:
    assert refusal(gateway()) is None
    schema = model_gateway_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert "required" not in schema
    assert [path for path, node in walk(schema["properties"]["spec"]) if "default" in node] == []


def test_the_definition_is_bounded_and_its_columns_point_at_fields() -> None:
    version = model_gateway_crd()["spec"]["versions"][0]
    schema = version["schema"]["openAPIV3Schema"]["properties"]
    for path, node in [*walk(schema["spec"], "spec"), *walk(schema["status"], "status")]:
        bound = {"array": {"maxItems"}, "string": {"maxLength", "enum"}, "integer": {"minimum", "default"}}
        assert node.keys() & bound.get(node.get("type", ""), node.keys()), path
    columns = {c["name"]: c["jsonPath"] for c in version["additionalPrinterColumns"]}
    assert list(columns) == ["Models", "Ready", "Reason", "URL", "Age"]
    paths = {f".{path}" for path, _ in walk(schema["status"], "status")}
    assert {columns["Models"], columns["URL"]} <= paths
    assert model_gateway_crd()["spec"]["names"]["shortNames"] == ["mgw"]


@pytest.mark.parametrize(
    ("text", "size"), [("65536", 65536), ("64Ki", 65536), ("8Mi", 8388608), ("1M", 10**6), ("5k", 5000)]
)
def test_sizes_are_bytes(text: str, size: int) -> None:
    assert bytes_of(text) == size


@pytest.mark.parametrize("text", ["", "Mi", "-1", "1.5Mi", "1Gi", "8mi", "8Mi\n", " 8Mi", "٣"])
def test_what_is_no_size_is_said_so(text: str) -> None:
    with pytest.raises(ValueError, match="no size"):
        bytes_of(text)


def test_reading_changes_nothing() -> None:
    written = gateway(replicas=3, maxBodyBytes="8Mi")["spec"]
    assert ModelGatewaySpec.model_validate(deepcopy(written)).written() == written
