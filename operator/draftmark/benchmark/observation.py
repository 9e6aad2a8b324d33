"""What was seen of one Benchmark, and what is to be done about it, as data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from draftmark.api.defaults import Defaults
from draftmark.decision import Manifest, ObjectRef
from draftmark.observation import Json, Observation


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkObservation:
    """One Benchmark and what there is around it."""

    #: The object as the API server has it: metadata, spec, status.
    benchmark: Json
    #: The InferenceServices that it names, by name; None: there is none of that name. One that is left out is not known.
    targets: Mapping[str, Observation | None] = field(default_factory=dict)
    #: Names of Services in its namespace that are the operator's own.
    our_services: frozenset[str] = frozenset()
    #: Objects that the Benchmark owns, by kind.
    children: Mapping[str, tuple[Json, ...]] = field(default_factory=dict)
    #: Kinds that could not be listed, and why.
    unread: Mapping[str, str] = field(default_factory=dict)
    #: Of its Jobs.
    pods: tuple[Json, ...] = ()
    #: When this process last saw its Job tell something new; None: it has seen nothing of it yet.
    heard_at: datetime | None = None
    #: Benchmarks of the same targets that are not finished. Nothing is known of who is in their way.
    others: tuple["BenchmarkObservation", ...] = ()
    #: A Job that loads one of the same targets for a Benchmark that was deleted, or that ended without a result; None: there is
    #: none.
    leftover: str | None = None
    #: Benchmarks of the same target that finished after this one.
    newer_finished: int = 0
    defaults: Defaults = field(default_factory=Defaults)

    @property
    def name(self) -> str:
        return str(self.benchmark["metadata"]["name"])

    @property
    def namespace(self) -> str:
        return str(self.benchmark["metadata"].get("namespace") or "default")

    @property
    def uid(self) -> str | None:
        """The object's uid; None before an API server has seen it."""
        uid = self.benchmark["metadata"].get("uid")
        return str(uid) if uid else None

    @property
    def generation(self) -> int:
        return int(self.benchmark["metadata"].get("generation", 0))

    @property
    def status(self) -> Json:
        status: Json = self.benchmark.get("status") or {}
        return status

    @property
    def age(self) -> tuple[str, str]:
        """The oldest is the smallest. Times of the API are of one length, and sort as text."""
        return str(self.benchmark["metadata"].get("creationTimestamp", "")), self.name

    def owned(self, kind: str) -> tuple[Json, ...]:
        return self.children.get(kind, ())


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkDecision:
    """The whole answer to one observation."""

    #: What the Job needs; it is made when all of this is there.
    needed: tuple[Manifest, ...] = ()
    job: Manifest | None = None
    prune: tuple[ObjectRef, ...] = ()
    requeue_after: timedelta | None = None
    #: What the status says beside its conditions.
    told: Mapping[str, Any] = field(default_factory=dict)
    #: What is wrong with the spec, as things are: code and message. None: nothing.
    refused: tuple[str, str] | None = None
    #: Why it is where it is: code and message.
    reason: tuple[str, str] = ("Pending", "")
    #: Whether nothing gets better until somebody changes something.
    needs_human: bool = False
    #: Whether the status is written before anything else is done: the end of a measurement is known to this process only.
    status_first: bool = False
    #: Finished, and as its status says: nothing of it is written again.
    is_settled: bool = False
    #: The Benchmark itself is to go: it is older than it may become.
    is_outdated: bool = False
    is_deleted: bool = False
