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
    """How the latest request through a gateway's inner port ended."""

    revision: str
    #: None: it was answered. Otherwise what went wrong.
    problem: str | None
    at: datetime
    #: Requests in a row that failed, this one included.
    failures: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RevisionTraffic:
    """Requests of one revision in one gateway."""

    running: int
    waiting: int
    #: Its share of new requests; 0: none.
    weight: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayState:
    """What one gateway pod told about itself."""

    #: Versions of the configuration and of the weights and limits that it works with.
    config: str
    runtime: str
    revisions: Mapping[str, RevisionTraffic]
    at: datetime
    #: When this process of ours first heard of this configuration from it.
    config_since: datetime


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
    router_pods: tuple[Json, ...] = ()
    gateway_pods: tuple[Json, ...] = ()
    #: Pods of Jobs that read the facts of the model.
    model_facts_pods: tuple[Json, ...] = ()
    #: Finished Benchmarks that measured the service; None: not known yet.
    benchmarks: tuple[Json, ...] | None = ()
    #: Whether a Job can be run to learn something; offline there is no cluster to run it.
    can_ask: bool = False
    #: What gateway pods told last, by the pod's name.
    gateways: Mapping[str, GatewayState] = field(default_factory=dict)
    #: Gateway pods that are asked and have not answered for a while, by name.
    silent_gateways: frozenset[str] = frozenset()
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
