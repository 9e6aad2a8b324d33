"""What was seen of one service, as data. `decide` sees nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from draftmark.api.defaults import Defaults
from draftmark.facts.nodes import ClusterFacts

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """How the latest request through a service's Service ended."""

    revision: str
    #: None: it was answered. Otherwise what went wrong.
    problem: str | None
    at: datetime
    #: Requests in a row that failed, this one included.
    failures: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One InferenceService and what there is around it."""

    #: The object as the API server has it: metadata, spec, status.
    service: Json
    #: Objects that the service owns, by kind (`Deployment`, `Service`, …).
    children: Mapping[str, tuple[Json, ...]] = field(default_factory=dict)
    #: Kinds that could not be listed, and why. Nothing of them is pruned.
    unread: Mapping[str, str] = field(default_factory=dict)
    #: Engine pods of the service.
    pods: tuple[Json, ...] = ()
    #: Phase of the namespace's claims by name; None: not known.
    claims: Mapping[str, str] | None = None
    cluster: ClusterFacts = field(default_factory=ClusterFacts)
    defaults: Defaults = field(default_factory=Defaults)
    proof: Proof | None = None

    @property
    def name(self) -> str:
        return str(self.service["metadata"]["name"])

    @property
    def namespace(self) -> str:
        return str(self.service["metadata"].get("namespace") or "default")

    @property
    def uid(self) -> str | None:
        """The object's uid; None before an API server has seen it."""
        uid = self.service["metadata"].get("uid")
        return str(uid) if uid else None

    @property
    def generation(self) -> int:
        return int(self.service["metadata"].get("generation", 0))

    @property
    def status(self) -> Json:
        status: Json = self.service.get("status") or {}
        return status

    def owned(self, kind: str) -> tuple[Json, ...]:
        return self.children.get(kind, ())
