"""What is to be done about one service, as data: what `decide` returns and the controller carries out."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from draftmark.plan import Plan, Unplannable

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
    """Send one request through the service's Service and remember how it ended."""

    revision: str
    #: Name and port of the Service, in the service's namespace.
    service: str
    port: int
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """What would be chosen today, when that is not what runs."""

    id: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RevisionReport:
    """How far one revision is."""

    hash: str
    is_current: bool
    wanted: int
    replicas: int
    ready: int
    proven_at: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The whole answer to one observation."""

    #: Applied first; when one of them cannot be, nothing else is: a pod must never run unpinned.
    pins: tuple[Manifest, ...] = ()
    desired: tuple[Manifest, ...] = ()
    prune: tuple[ObjectRef, ...] = ()
    prove: ProveRevision | None = None
    requeue_after: timedelta | None = None

    #: None: the spec cannot be planned, or not even read.
    plan: Plan | None = None
    refused: Unplannable | None = None
    suggestion: Suggestion | None = None
    revisions: tuple[RevisionReport, ...] = ()
    #: Wanted replicas; None when the spec cannot be read.
    replicas: int | None = None
    #: Why nothing is changed although something may have to be: what runs cannot be read. None: nothing is held back.
    held: str | None = None
    is_paused: bool = False
    is_deleted: bool = False
