"""What the API accepts and refuses, by the Python types; the integration tests put the same table to an API server."""

import pytest
from pydantic import ValidationError

from draftmark.api.inference_service import ENGINE_NAMES, InferenceServiceSpec
from draftmark.api.names import NAME_NOT_A_SERVICE_NAME, NAME_TOO_LONG, name_problem, short_hash
from tests.api.cases import CASES, Case
from tests.schemas import models, spec_leaves, walk
from tests.specs import ARCHITECTURE, Object, parse, service, spec, with_field


def refusal(item: Object) -> str | None:
    """What is said of an object, or None when it is accepted."""
    if problem := name_problem(item["metadata"]["name"]):
        return problem
    try:
        read = InferenceServiceSpec.model_validate(item.get("spec", {}))
    except ValidationError as error:
        return str(error)
    # The one bound that the type leaves to the planner, which knows the engines: an old object may name one that is
    # gone, and the condition must say so.
    return None if read.engine.name in ENGINE_NAMES else f"use one of {ENGINE_NAMES}"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_one_is_accepted_and_the_other_refused(case: Case) -> None:
    assert refusal(case.accepted) is None
    assert case.fragment.lower() in (refusal(case.rejected) or "").lower()


def test_cases_have_names_of_their_own() -> None:
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("model", models(InferenceServiceSpec), ids=lambda model: model.__name__)
def test_every_rule_has_a_case_that_breaks_it(model: type) -> None:
    said = [refusal(case.rejected) or "" for case in CASES]
    assert [rule.message for rule in model.rules if not any(rule.message in text for text in said)] == []  # type: ignore[attr-defined]


def test_both_rules_of_the_name_have_a_case() -> None:
    assert {NAME_TOO_LONG, NAME_NOT_A_SERVICE_NAME} <= {refusal(case.rejected) for case in CASES}


def test_a_field_that_is_not_written_leaves_no_trace() -> None:
    """A new optional field in the schema must not change the name of a revision that runs."""
    everything = parse(spec())
    assert everything.pod_affecting() == {"model": spec()["model"], "engine": spec()["engine"]}
    assert short_hash(everything.pod_affecting()) == "ea525689"


def test_null_is_the_same_as_not_written() -> None:
    assert parse(with_field(spec(), "engine.image", None)).pod_affecting() == parse(spec()).pod_affecting()


@pytest.mark.parametrize("path", ["replicas", "paused"])
def test_fields_that_no_pod_depends_on_do_not_name_the_revision(path: str) -> None:
    assert (
        parse(with_field(spec(), path, 5 if path == "replicas" else True)).pod_affecting()
        == parse(spec()).pod_affecting()
    )


def test_what_is_known_of_a_model_does_not_name_the_revision() -> None:
    known = with_field(spec(), "model.architecture", ARCHITECTURE)
    assert parse(known).pod_affecting() == parse(spec()).pod_affecting()


def test_numbers_and_texts_of_a_quantity_are_the_same_revision() -> None:
    number, text = (parse(with_field(spec(), "engine.resources.limits.cpu", value)) for value in (2, "2"))
    assert number.pod_affecting() == text.pod_affecting()


def test_unknown_fields_of_a_pod_template_are_named_and_others_dropped() -> None:
    read = parse(with_field(with_field(spec(), "podTemplate.hostNetwork", True), "engine.tpyo", 1))
    assert read.pod_template is not None
    assert read.pod_template.refused_fields == ("hostNetwork",)
    assert "tpyo" not in str(read.written())


def test_the_table_touches_every_bounded_field() -> None:
    """A field whose bound nobody has tried is not in the table by chance."""
    tried = {case.name.split(" ")[0].replace("[0]", "[]") for case in CASES}
    bounds = {"pattern", "maxLength", "minimum", "maximum", "enum"}
    bounded = {
        path
        for path, node in walk(service_schema())
        if path in spec_leaves() and node.keys() & bounds and "{}" not in path
    }
    # The same type is bounded elsewhere, and tried there.
    repeated = {"engine.env[].valueFrom.secretKeyRef.name"}
    assert bounded - tried - repeated == set()


def service_schema() -> Object:
    from draftmark.api.crd import structural

    return structural(InferenceServiceSpec)


def test_the_smallest_service_is_accepted() -> None:
    assert refusal(service()) is None
