"""Where the children of a service (or of a ModelGateway) live, and whom they belong to."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from draftmark.api import names


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One service, or another object of ours, as its children refer to it."""

    service: str
    namespace: str
    #: None before an API server has seen the service: its children then have no owner.
    uid: str | None
    kind: str = names.KIND

    def owners(self) -> list[Mapping[str, Any]]:
        """The reference by which children are collected with their owner."""
        if self.uid is None:
            return []
        return [
            {
                "apiVersion": names.API_VERSION,
                "kind": self.kind,
                "name": self.service,
                "uid": self.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ]

    def fields(self, name: str, role: str, **more_labels: str) -> dict[str, Any]:
        """Template values that every child has.

        Args:
            name: The child's own name.
            role: What it is for, as in its label.
            more_labels: Labels by their key, beside those of every child.
        """
        return {
            "name": name,
            "namespace": self.namespace,
            "labels": {**names.object_labels(self.service, role, kind=self.kind), **more_labels},
            "owners": self.owners(),
        }
