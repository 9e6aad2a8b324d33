"""What can go wrong between a client and the API server, by rule."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from draftmark.cluster.kinds import LEASES, Kind

WRITES: Final = frozenset({"create", "update", "patch", "delete"})


@dataclass(kw_only=True)
class Fault:
    """Happens to requests of a verb and kind, from the n-th on, so many times.

    At most one of `status`, `latency_s`, `lost_answer`, `reset`, `stall` and `as_of` says what.
    """

    #: `write` stands for every verb that changes something; then Leases count only where `kind` names them.
    verb: str | None = None
    kind: Kind | None = None
    name: str | None = None
    #: Of which client, by its token.
    client: str | None = None
    nth: int = 1
    times: int | None = 1
    #: Answer with this code, without doing anything.
    status: int | None = None
    reason: str = ""
    message: str = "injected"
    retry_after_s: int | None = None
    #: Wait, then do it.
    latency_s: float | None = None
    #: Do it, then cut the connection.
    lost_answer: bool = False
    #: Cut the connection, without doing anything.
    reset: bool = False
    #: Never answer.
    stall: bool = False
    #: Answer a list with what there was at this version, as an API server that is behind the others.
    as_of: int | None = None
    #: Called when the request has come and nothing was done yet.
    before: Callable[[], object] | None = None
    #: Called when it was done and is not answered yet.
    after: Callable[[], object] | None = None

    seen: int = 0

    def hits(self, verb: str, kind: Kind | None, name: str | None, client: str = "") -> bool:
        is_verb = self.verb in (None, verb)
        if self.verb == "write":
            is_verb = verb in WRITES and (kind != LEASES or self.kind == LEASES)
        if not is_verb or self.kind not in (None, kind) or self.name not in (None, name):
            return False
        if self.client not in (None, client):
            return False
        self.seen += 1
        return self.seen >= self.nth and (self.times is None or self.seen < self.nth + self.times)


@dataclass(kw_only=True)
class EventFault:
    """Happens to the events of a kind in watches, from the n-th on, so many times.

    Exactly one of `drop`, `twice`, `swap` and `late_s` says what. Each watch counts: two watches of a kind see an event
    each.
    """

    kind: Kind | None = None
    nth: int = 1
    times: int | None = 1
    #: It is never delivered.
    drop: bool = False
    #: It is delivered two times.
    twice: bool = False
    #: It is delivered after the one that follows it; alone, when the watch has nothing else to tell.
    swap: bool = False
    #: It, and what follows in its watch, comes so much later.
    late_s: float | None = None

    seen: int = 0

    def hits(self, kind: Kind) -> bool:
        if self.kind not in (None, kind):
            return False
        self.seen += 1
        return self.seen >= self.nth and (self.times is None or self.seen < self.nth + self.times)


@dataclass
class Faults:
    """The rules in force; the first that hits a request, or an event, decides."""

    rules: list[Fault] = field(default_factory=list)
    events: list[EventFault] = field(default_factory=list)

    def add(self, fault: Fault) -> Fault:
        self.rules.append(fault)
        return fault

    def clear(self) -> None:
        self.rules.clear()
        self.events.clear()

    def match(self, verb: str, kind: Kind | None, name: str | None, client: str = "") -> Fault | None:
        return next((rule for rule in self.rules if rule.hits(verb, kind, name, client)), None)

    def match_event(self, kind: Kind) -> EventFault | None:
        return next((rule for rule in self.events if rule.hits(kind)), None)
