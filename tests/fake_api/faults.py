"""What can go wrong between a client and the API server, by rule."""

from dataclasses import dataclass, field

from draftmark.cluster.kinds import Kind


@dataclass(kw_only=True)
class Fault:
    """Happens to requests of a verb and kind, from the n-th on, so many times.

    Exactly one of `status`, `latency_s`, `lost_answer`, `reset` and `stall` says what.
    """

    verb: str | None = None
    kind: Kind | None = None
    name: str | None = None
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

    seen: int = 0

    def hits(self, verb: str, kind: Kind | None, name: str | None) -> bool:
        if self.verb not in (None, verb) or self.kind not in (None, kind) or self.name not in (None, name):
            return False
        self.seen += 1
        return self.seen >= self.nth and (self.times is None or self.seen < self.nth + self.times)


@dataclass
class Faults:
    """The rules in force; the first that hits a request decides."""

    rules: list[Fault] = field(default_factory=list)

    def add(self, fault: Fault) -> Fault:
        self.rules.append(fault)
        return fault

    def clear(self) -> None:
        self.rules.clear()

    def match(self, verb: str, kind: Kind | None, name: str | None) -> Fault | None:
        return next((rule for rule in self.rules if rule.hits(verb, kind, name)), None)
