"""Answers of the API server, and what they are called here."""

from typing import Any

import pytest

from draftmark.cluster import errors
from draftmark.cluster.errors import FieldConflict, Forbidden, translate
from draftmark.cluster.kinds import DEPLOYMENTS, INFERENCE_SERVICES


def answer(
    reason: str = "", message: str = "", causes: list[dict[str, str]] | None = None, **details: Any
) -> dict[str, Any]:
    return {"kind": "Status", "reason": reason, "message": message, "details": {"causes": causes or [], **details}}


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (401, answer("Unauthorized"), errors.Unauthorized),
        (404, answer("NotFound"), errors.NotFound),
        (409, answer("AlreadyExists"), errors.AlreadyExists),
        (409, answer("Conflict", "the object has been modified"), errors.Conflict),
        (409, answer("Conflict", causes=[{"reason": "FieldManagerConflict"}]), errors.FieldConflict),
        (410, answer("Expired"), errors.Gone),
        (422, answer("Invalid"), errors.Invalid),
        (422, answer("Invalid", causes=[{"field": "metadata.uid"}]), errors.Conflict),
        (400, answer("BadRequest"), errors.Invalid),
        (429, answer("TooManyRequests"), errors.TooManyRequests),
        (500, answer("InternalError"), errors.Unavailable),
        (504, None, errors.Unavailable),
        (418, None, errors.ApiError),
        (
            403,
            answer("Forbidden", 'deployments "x" is forbidden: exceeded quota: q, requested: a=1'),
            errors.QuotaExceeded,
        ),
        (403, answer("Forbidden", 'pods "x" is forbidden: violates PodSecurity "restricted"'), errors.AdmissionRefused),
        (403, answer("Forbidden", causes=[{"reason": "NamespaceTerminating"}]), errors.NamespaceTerminating),
        (403, None, errors.Forbidden),
    ],
)
def test_each_answer_has_its_class(status: int, body: dict[str, Any] | None, expected: type[errors.ApiError]) -> None:
    error = translate(status, body, verb="patch", kind=DEPLOYMENTS, namespace="ns", name="x")
    assert type(error) is expected
    assert error.status == status


def test_a_missing_permission_is_named_with_the_way_out() -> None:
    said = (
        'inferenceservices.draftmark.dev "llama" is forbidden: User "system:serviceaccount:ops:draftmark" cannot patch '
        'resource "inferenceservices/status" in API group "draftmark.dev" in the namespace "ns"'
    )
    error = translate(
        403, answer("Forbidden", said), verb="patch", kind=INFERENCE_SERVICES, namespace="ns", name="llama"
    )
    assert isinstance(error, Forbidden)
    assert (error.verb, error.resource) == ("patch", "inferenceservices/status.draftmark.dev")
    assert (
        'Grant the verb "patch" on inferenceservices/status.draftmark.dev to system:serviceaccount:ops:draftmark'
        in str(error)
    )


def test_a_field_conflict_names_fields_and_managers() -> None:
    causes = [
        {
            "reason": "FieldManagerConflict",
            "field": ".spec.replicas",
            "message": 'conflict with "kubectl" using apps/v1',
        },
        {"reason": "FieldManagerConflict", "field": ".spec.paused", "message": 'conflict with "kubectl" using apps/v1'},
    ]
    error = translate(409, answer("Conflict", causes=causes), verb="patch", kind=DEPLOYMENTS)
    assert isinstance(error, FieldConflict)
    assert error.fields == (".spec.replicas", ".spec.paused")
    assert error.managers == ("kubectl",)


def test_the_wait_comes_from_the_header_else_from_the_body() -> None:
    body = answer("TooManyRequests", retryAfterSeconds=7)
    assert translate(429, body, verb="get", kind=None).retry_after_s == 7
    assert translate(429, body, verb="get", kind=None, retry_after_s=3).retry_after_s == 3


def test_a_page_of_a_proxy_becomes_one_short_line() -> None:
    error = translate(502, None, verb="get", kind=DEPLOYMENTS, text="<html>\n" + "x" * 5000)
    assert len(str(error)) < 1100
    assert "\n" not in str(error)
