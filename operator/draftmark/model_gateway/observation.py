"""What was seen of one ModelGateway, and what is to be done about it, as data."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from draftmark.api.defaults import Defaults
from draftmark.decision import GatewayTarget, Manifest, ObjectRef
from draftmark.observation import GatewayState, Json
from draftmark.render.model_gateway_config import Route


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelGatewayObservation:
    """One ModelGateway and what there is around it."""

    #: The object as the API server has it: metadata, spec, status.
    gateway: Json
    #: The InferenceServices of its namespace; None: not known.
    services: tuple[Json, ...] | None = None
    #: Cluster IP of the Service of each InferenceService that has one, by name.
    addresses: Mapping[str, str] = field(default_factory=dict)
    #: Objects that the ModelGateway owns, by kind.
    children: Mapping[str, tuple[Json, ...]] = field(default_factory=dict)
    #: Kinds that could not be listed, and why.
    unread: Mapping[str, str] = field(default_factory=dict)
    pods: tuple[Json, ...] = ()
    #: What pods told last, by name.
    states: Mapping[str, GatewayState] = field(default_factory=dict)
    #: Pods that are asked and have not answered for a while, by name.
    silent: frozenset[str] = frozenset()
    defaults: Defaults = field(default_factory=Defaults)

    @property
    def name(self) -> str:
        return str(self.gateway["metadata"]["name"])

    @property
    def namespace(self) -> str:
        return str(self.gateway["metadata"].get("namespace") or "default")

    @property
    def uid(self) -> str | None:
        """The object's uid; None before an API server has seen it."""
        uid = self.gateway["metadata"].get("uid")
        return str(uid) if uid else None

    @property
    def generation(self) -> int:
        return int(self.gateway["metadata"].get("generation", 0))

    @property
    def status(self) -> Json:
        status: Json = self.gateway.get("status") or {}
        return status


@dataclass(frozen=True, slots=True, kw_only=True)
class Unrouted:
    """A service that has an address and is not behind the gateway."""

    service: str
    #: What is, and the way out.
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelGatewayDecision:
    """The whole answer to one observation."""

    desired: tuple[Manifest, ...] = ()
    prune: tuple[ObjectRef, ...] = ()
    target: GatewayTarget | None = None
    #: By the model's name.
    routes: tuple[Route, ...] = ()
    unrouted: tuple[Unrouted, ...] = ()
    replicas: int = 0
    #: What is wrong with the spec. None: nothing.
    refused: str | None = None
    #: Why nothing is changed although something may have to be. None: nothing is held back.
    held: str | None = None
    is_deleted: bool = False
