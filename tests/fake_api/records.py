"""What the fake API server keeps of each request, and of each write."""

from dataclasses import dataclass

from draftmark.cluster.kinds import Kind
from tests.fake_api.faults import WRITES


@dataclass(frozen=True)
class Request:
    """One line of the server's log."""

    verb: str
    kind: Kind | None
    namespace: str
    name: str
    subresource: str
    query: dict[str, str]
    content_type: str
    #: The token of who asks.
    client: str = ""

    @property
    def is_write(self) -> bool:
        return self.verb in WRITES


@dataclass(frozen=True)
class Done:
    """A write that was carried out, whether or not its answer arrived."""

    verb: str
    kind: Kind
    name: str
    subresource: str
    client: str
    #: False: it left the object as it was.
    changed: bool
    #: Of the server, after the write.
    version: int
