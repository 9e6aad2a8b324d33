"""The API server's record of who set what."""

from draftmark.cluster.compare import Item
from draftmark.cluster.managed_fields import hand_over, manager_of

CREATED = {
    "manager": "draftmark-create",
    "operation": "Update",
    "fieldsV1": {"f:spec": {"f:a": {}, "f:l": {'k:{"name":"x"}': {".": {}}}}},
}
APPLIED = {"manager": "draftmark", "operation": "Apply", "fieldsV1": {"f:spec": {"f:b": {}}}}
STATUS = {
    "manager": "kube-controller-manager",
    "operation": "Update",
    "subresource": "status",
    "fieldsV1": {"f:status": {}},
}


def test_what_a_create_has_set_goes_to_the_manager_that_applies() -> None:
    entries = hand_over([CREATED, STATUS], created_by="draftmark-create", manager="draftmark")
    assert entries == [{**CREATED, "manager": "draftmark", "operation": "Apply"}, STATUS]


def test_two_records_become_one() -> None:
    entries = hand_over([APPLIED, CREATED], created_by="draftmark-create", manager="draftmark")
    assert entries is not None
    assert [entry["fieldsV1"] for entry in entries] == [
        {"f:spec": {"f:a": {}, "f:b": {}, "f:l": {'k:{"name":"x"}': {".": {}}}}}
    ]


def test_nothing_to_hand_over() -> None:
    assert hand_over([APPLIED, STATUS], created_by="draftmark-create", manager="draftmark") is None


def test_the_holder_of_a_field_is_found_in_lists_and_around_atomic_values() -> None:
    entries = [
        APPLIED,
        {"manager": "late", "time": "2026-03-01", "fieldsV1": {"f:spec": {"f:x": {}}}},
        {
            "manager": "kubectl-edit",
            "time": "2026-02-01",
            "fieldsV1": {"f:spec": {"f:containers": {'k:{"name":"engine"}': {"f:image": {}}}, "f:selector": {}}},
        },
    ]
    image = ("spec", "containers", Item((("name", "engine"),)), "image")
    assert manager_of(entries, image, ours="draftmark") == "kubectl-edit"
    assert manager_of(entries, ("spec", "selector", "app"), ours="draftmark") == "kubectl-edit"
    assert manager_of(entries, ("spec", "nobodys"), ours="draftmark") == "late"
    assert manager_of([APPLIED], image, ours="draftmark") == ""
