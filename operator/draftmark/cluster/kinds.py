"""The kinds that the operator touches, and the rights that it needs on each.

The chart's RBAC is generated from `RIGHTS`, so a right that no code uses has no place to hide, and a new kind cannot be
forgotten in the chart. Two rules hold for every entry: no wildcard, and nothing on Secrets.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from draftmark.api.names import (
    BENCHMARK_KIND,
    BENCHMARK_PLURAL,
    GROUP,
    KIND,
    MODEL_GATEWAY_KIND,
    MODEL_GATEWAY_PLURAL,
    PLURAL,
    VERSION,
)

__all__ = [
    "BENCHMARKS",
    "CONFIG_MAPS",
    "CONTROLLER_REVISIONS",
    "DEPLOYMENTS",
    "EVENTS",
    "INFERENCE_SERVICES",
    "JOBS",
    "LEASES",
    "MODEL_GATEWAYS",
    "NETWORK_POLICIES",
    "NODES",
    "PERSISTENT_VOLUME_CLAIMS",
    "PODS",
    "RESOURCE_SLICES",
    "RIGHTS",
    "ROLES",
    "ROLE_BINDINGS",
    "SERVICES",
    "SERVICE_ACCOUNTS",
    "Kind",
    "Right",
    "child_kinds",
    "lease_rules",
    "namespace_rules",
    "rbac_rules",
]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind as the API server addresses it."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def resource(self) -> str:
        """The name that error messages and `kubectl` use, as in `deployments.apps`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def path(self, namespace: str | None = None, name: str | None = None) -> str:
        """The URL path of the collection, or of one object when a name is given.

        Args:
            namespace: None means all namespaces, which only a list or a watch may ask for.
        """
        parts = ["/apis", self.group, self.version] if self.group else ["/api", self.version]
        if namespace is not None and self.namespaced:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        if name is not None:
            if self.namespaced and namespace is None:
                raise ValueError(f"{self.resource} {name!r} needs a namespace: the kind is namespaced")
            parts.append(name)
        return "/".join(parts)


INFERENCE_SERVICES: Final = Kind(GROUP, VERSION, PLURAL, KIND)
MODEL_GATEWAYS: Final = Kind(GROUP, VERSION, MODEL_GATEWAY_PLURAL, MODEL_GATEWAY_KIND)
BENCHMARKS: Final = Kind(GROUP, VERSION, BENCHMARK_PLURAL, BENCHMARK_KIND)
DEPLOYMENTS: Final = Kind("apps", "v1", "deployments", "Deployment")
CONTROLLER_REVISIONS: Final = Kind("apps", "v1", "controllerrevisions", "ControllerRevision")
JOBS: Final = Kind("batch", "v1", "jobs", "Job")
SERVICES: Final = Kind("", "v1", "services", "Service")
SERVICE_ACCOUNTS: Final = Kind("", "v1", "serviceaccounts", "ServiceAccount")
CONFIG_MAPS: Final = Kind("", "v1", "configmaps", "ConfigMap")
ROLES: Final = Kind("rbac.authorization.k8s.io", "v1", "roles", "Role")
ROLE_BINDINGS: Final = Kind("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding")
NETWORK_POLICIES: Final = Kind("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy")
PODS: Final = Kind("", "v1", "pods", "Pod")
PERSISTENT_VOLUME_CLAIMS: Final = Kind("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
NODES: Final = Kind("", "v1", "nodes", "Node", namespaced=False)
#: Kubernetes has this version from 1.34 on; older clusters have none.
RESOURCE_SLICES: Final = Kind("resource.k8s.io", "v1", "resourceslices", "ResourceSlice", namespaced=False)
LEASES: Final = Kind("coordination.k8s.io", "v1", "leases", "Lease")
EVENTS: Final = Kind("", "v1", "events", "Event")


@dataclass(frozen=True, slots=True, kw_only=True)
class Right:
    """What the operator does with one kind, in the API server's words."""

    kind: Kind
    verbs: tuple[str, ...]
    #: Empty for the object itself.
    subresource: str = ""
    #: True: only in the operator's own namespace, so it goes into a Role there.
    own_namespace: bool = False


_READ: Final = ("get", "list", "watch")
#: Children are created with a POST and updated by server-side apply, so neither `update` nor `deletecollection`.
_CHILD: Final = (*_READ, "create", "patch", "delete")

RIGHTS: Final[tuple[Right, ...]] = (
    Right(kind=INFERENCE_SERVICES, verbs=_READ),
    Right(kind=INFERENCE_SERVICES, subresource="status", verbs=("patch",)),
    # Owner references with blockOwnerDeletion need this where OwnerReferencesPermissionEnforcement is on (OpenShift).
    # No finalizer is ever set.
    Right(kind=INFERENCE_SERVICES, subresource="finalizers", verbs=("update",)),
    Right(kind=MODEL_GATEWAYS, verbs=_READ),
    Right(kind=MODEL_GATEWAYS, subresource="status", verbs=("patch",)),
    Right(kind=MODEL_GATEWAYS, subresource="finalizers", verbs=("update",)),
    # `delete` for those that are older than the administrator or their own spec wants.
    Right(kind=BENCHMARKS, verbs=(*_READ, "delete")),
    Right(kind=BENCHMARKS, subresource="status", verbs=("patch",)),
    Right(kind=BENCHMARKS, subresource="finalizers", verbs=("update",)),
    Right(kind=DEPLOYMENTS, verbs=_CHILD),
    Right(kind=CONTROLLER_REVISIONS, verbs=_CHILD),
    # A short one reads the facts of a model where its files are; a longer one measures.
    Right(kind=JOBS, verbs=_CHILD),
    Right(kind=SERVICES, verbs=_CHILD),
    Right(kind=SERVICE_ACCOUNTS, verbs=_CHILD),
    Right(kind=CONFIG_MAPS, verbs=_CHILD),
    # What a Benchmark's Job may do: read and change one ConfigMap.
    Right(kind=ROLES, verbs=_CHILD),
    # The roles that are bound are that one and `draftmark-router`. Neither may do what we may not, so neither `bind` nor
    # `escalate` is needed.
    Right(kind=ROLE_BINDINGS, verbs=_CHILD),
    Right(kind=NETWORK_POLICIES, verbs=_CHILD),
    # An annotation makes the kubelet bring a changed configuration to a gateway's pod at once.
    Right(kind=PODS, verbs=(*_READ, "patch")),
    Right(kind=PERSISTENT_VOLUME_CLAIMS, verbs=_READ),
    Right(kind=NODES, verbs=_READ),
    Right(kind=RESOURCE_SLICES, verbs=_READ),
    Right(kind=EVENTS, verbs=("create", "patch")),
    Right(kind=LEASES, verbs=("get", "create", "update", "patch"), own_namespace=True),
)


def child_kinds() -> tuple[Kind, ...]:
    """The kinds that are informed, applied and pruned: those that we may create and delete."""
    return tuple(right.kind for right in RIGHTS if {"create", "delete"} <= set(right.verbs))


def rbac_rules() -> list[dict[str, Any]]:
    """The rules of the operator's ClusterRole."""
    return _rules(right for right in RIGHTS if not right.own_namespace)


def namespace_rules() -> list[dict[str, Any]]:
    """The rules of the operator's Role in each namespace, where it works in some only: nothing of the whole cluster."""
    return _rules(right for right in RIGHTS if right.kind.namespaced and not right.own_namespace)


def lease_rules() -> list[dict[str, Any]]:
    """The rules of the Role in the operator's own namespace."""
    return _rules(right for right in RIGHTS if right.own_namespace)


def _rules(rights: Iterable[Right]) -> list[dict[str, Any]]:
    """One rule per group and set of verbs, in the order of `RIGHTS`, so that the generated chart has a stable diff."""
    merged: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for right in rights:
        resource = f"{right.kind.plural}/{right.subresource}" if right.subresource else right.kind.plural
        merged.setdefault((right.kind.group, right.verbs), []).append(resource)
    return [
        {"apiGroups": [group], "resources": resources, "verbs": list(verbs)}
        for (group, verbs), resources in merged.items()
    ]
