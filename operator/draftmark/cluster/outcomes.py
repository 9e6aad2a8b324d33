"""What became of each object that should be there, or should not: one case of `Outcome` per object.

The messages go into conditions: what is, what is needed, the way out.
"""

from dataclasses import dataclass

from draftmark.cluster.errors import ApiError
from draftmark.cluster.kinds import Kind

__all__ = [
    "Contended",
    "Created",
    "Foreign",
    "ObjectRef",
    "Outcome",
    "Pruned",
    "Refused",
    "Repaired",
    "Terminating",
    "Unchanged",
    "Updated",
]


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """One object in the cluster."""

    kind: Kind
    namespace: str
    name: str
    #: Empty while the object is not there.
    uid: str = ""

    def __str__(self) -> str:
        return f'{self.kind.kind} "{self.name}" in namespace "{self.namespace}"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Unchanged:
    """Nothing was written."""

    ref: ObjectRef
    #: Fields that the API server stores in another way than they were sent, each time. Writing again would not help.
    stored_differently: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Created:
    ref: ObjectRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Updated:
    """The intent is new."""

    ref: ObjectRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Repaired:
    """The intent is old, but somebody had changed fields that are ours."""

    ref: ObjectRef
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    ref: ObjectRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminating:
    """The object is being deleted; what comes after has to wait for that."""

    ref: ObjectRef
    finalizers: tuple[str, ...]

    @property
    def message(self) -> str:
        held = f" It is held by the finalizers {', '.join(self.finalizers)}." if self.finalizers else ""
        return f"{self.ref} is being deleted; it is created again when it is gone.{held}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """The name is taken by an object that is not ours. It is neither changed nor deleted."""

    ref: ObjectRef
    #: Who controls it, as `Kind "name"`; empty when nobody does.
    controller: str

    @property
    def message(self) -> str:
        whose = f"belongs to {self.controller}" if self.controller else "was not created by Draftmark"
        return f"{self.ref} exists already and {whose}. Delete or rename it, or give what needs the name another one."


@dataclass(frozen=True, slots=True, kw_only=True)
class Contended:
    """Another writer undoes our repairs. The next one waits."""

    ref: ObjectRef
    paths: tuple[str, ...]
    #: The other writer's field manager; empty when the API server does not tell.
    manager: str
    retry_after_s: float

    @property
    def message(self) -> str:
        # Without the seconds: the message must stay the same while the situation does.
        who = f'the field manager "{self.manager}"' if self.manager else "another writer"
        return (
            f"{who[0].upper()}{who[1:]} keeps changing {', '.join(self.paths)} of {self.ref}, which Draftmark sets as "
            "well. Only one may: configure the other to leave the object alone, or change the spec."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The request for this object failed; the others went on."""

    ref: ObjectRef
    error: ApiError


Outcome = Unchanged | Created | Updated | Repaired | Pruned | Terminating | Foreign | Contended | Refused
