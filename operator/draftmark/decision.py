"""What is to be done about one service, as data: what `decide` returns and the controller carries out."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from draftmark.facts.model_answer import ModelProblem
from draftmark.facts.models import ModelFacts
from draftmark.plan import Layout, ModelKind, Plan, Unplannable

Manifest = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectRef:
    """One object in the cluster; the uid makes sure that it is still the same one."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProveRevision:
    """Send one request to a revision, through a gateway's inner port, and remember how it ended."""

    revision: str
    #: A gateway pod that takes requests: its name, and its address.
    pod: str
    address: str
    model: str
    kind: ModelKind


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayTarget:
    """What the gateway pods should work with."""

    config: str
    runtime: str
    #: Whether they must be asked: one of them is not known to work with it, or a revision is being drained.
    is_awaited: bool
    #: Whether anything is decided by what they tell. At rest nothing is: after a restart of the operator the gateways of
    #: thousands of services are asked, and none of these needs another look.
    is_decisive: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """What would be chosen today, when that is not what runs."""

    id: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RevisionReport:
    """How far one revision is."""

    hash: str
    #: Whether the spec asks for it.
    is_current: bool
    phase: str
    #: Replicas that it should have now.
    wanted: int
    replicas: int
    ready: int
    #: Share of new requests, in percent; None while clients do not come through the gateway.
    weight: int | None = None
    proven_at: str | None = None
    progressed_at: datetime | None = None
    progress: int = 0
    drained_since: datetime | None = None
    failed_at: datetime | None = None
    #: Why it failed: CamelCase, and in words.
    failure: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitedNodes:
    """Pods of the revision that the spec asks for wait for nodes, which come by themselves."""

    #: What each pod asks for.
    layout: Layout
    #: Pods that wait, and pods of the revision.
    pods: int
    of: int
    #: The one that waits longest, and what the scheduler says of it.
    pod: str
    scheduler: str
    since: datetime
    until: datetime
    #: The setting that the end is from, in words.
    bound: str
    is_over: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The whole answer to one observation."""

    #: Applied first; when one of them cannot be, nothing else is: a pod must never run unpinned.
    pins: tuple[Manifest, ...] = ()
    desired: tuple[Manifest, ...] = ()
    prune: tuple[ObjectRef, ...] = ()
    prove: ProveRevision | None = None
    gateway: GatewayTarget | None = None
    requeue_after: timedelta | None = None
    #: Whether the status is written before anything else is done. It has news that only this process knows, a proof, a
    #: failure or an answer about the model. A process that acted upon them and ended before the status was written would
    #: leave one after it that takes back what was done, finds out the same, and may end in the same place.
    status_first: bool = False

    #: None: the spec cannot be planned, or not even read.
    plan: Plan | None = None
    refused: Unplannable | None = None
    suggestion: Suggestion | None = None
    revisions: tuple[RevisionReport, ...] = ()
    #: Wanted replicas; None when the spec cannot be read.
    replicas: int | None = None
    #: What is known of the model; None: nothing.
    model: ModelFacts | None = None
    #: What the status remembers of it, as JSON data.
    model_memory: Mapping[str, Any] | None = None
    #: Why the revision that is asked for is not made yet: facts of its model are being read.
    reading: str | None = None
    #: Why a plan had to be made without them.
    model_unknown: ModelProblem | None = None
    #: None: no pod waits for a node, or nodes do not come by themselves.
    awaited: AwaitedNodes | None = None
    #: Why nothing is changed although something may have to be: what runs cannot be read. None: nothing is held back.
    held: str | None = None
    is_paused: bool = False
    is_deleted: bool = False
