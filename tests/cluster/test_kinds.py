"""Rights are data, and no more than the operator needs."""

import pytest

from draftmark.cluster import kinds
from draftmark.cluster.kinds import RIGHTS, child_kinds, lease_rules, namespace_rules, rbac_rules


def test_nothing_is_granted_by_wildcard_and_nothing_on_secrets() -> None:
    for rule in rbac_rules() + lease_rules():
        for words in rule.values():
            assert not {"*", "secrets"} & set(words)


def test_our_own_objects_are_read_and_only_their_status_is_written() -> None:
    ours = [right for right in RIGHTS if right.kind == kinds.INFERENCE_SERVICES]
    assert [(right.subresource, right.verbs) for right in ours] == [
        ("", ("get", "list", "watch")),
        ("status", ("patch",)),
        ("finalizers", ("update",)),  # the right to be named in blockOwnerDeletion
    ]


def test_children_are_what_we_may_create_and_delete() -> None:
    assert set(child_kinds()) == {
        kinds.DEPLOYMENTS,
        kinds.CONTROLLER_REVISIONS,
        kinds.SERVICES,
        kinds.SERVICE_ACCOUNTS,
        kinds.CONFIG_MAPS,
        kinds.ROLES,
        kinds.ROLE_BINDINGS,
        kinds.NETWORK_POLICIES,
        kinds.JOBS,
    }


def test_leases_are_granted_in_the_own_namespace_only() -> None:
    assert lease_rules() == [
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update", "patch"]}
    ]
    assert not any("leases" in rule["resources"] for rule in rbac_rules())


def test_what_belongs_to_the_whole_cluster_is_read_and_not_granted_in_single_namespaces() -> None:
    for plural in ("nodes", "resourceslices"):
        [rule] = [rule for rule in rbac_rules() if plural in rule["resources"]]
        assert rule["verbs"] == ["get", "list", "watch"]
        assert not any(plural in rule["resources"] for rule in namespace_rules())


def test_rules_are_merged_per_group_and_verbs() -> None:
    assert {
        "apiGroups": ["apps"],
        "resources": ["deployments", "controllerrevisions"],
        "verbs": ["get", "list", "watch", "create", "patch", "delete"],
    } in rbac_rules()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (kinds.PODS.path(), "/api/v1/pods"),
        (kinds.PODS.path("ns", "p"), "/api/v1/namespaces/ns/pods/p"),
        (kinds.NODES.path(None, "n"), "/api/v1/nodes/n"),
        (kinds.NODES.path("ns", "n"), "/api/v1/nodes/n"),
        (kinds.DEPLOYMENTS.path("ns"), "/apis/apps/v1/namespaces/ns/deployments"),
    ],
)
def test_paths(path: str, expected: str) -> None:
    assert path == expected


def test_an_object_of_a_namespaced_kind_needs_its_namespace() -> None:
    with pytest.raises(ValueError, match="needs a namespace"):
        kinds.PODS.path(None, "p")
