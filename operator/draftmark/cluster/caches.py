"""One kind in all namespaces that the operator works in: one informer over all of them, or one for each.

With rights in single namespaces, a list over all is refused. What is known of one namespace then says nothing of another:
where a Role is missing, only the services there wait for it.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

from draftmark.cluster.informer import Informer
from draftmark.cluster.kinds import Kind
from draftmark.cluster.wire import Json

__all__ = ["Caches"]

T = TypeVar("T")


class Caches(Generic[T]):
    """The informers of one kind.

    Args:
        make: Makes the informer of one namespace, or of all (None).
        namespaces: Those that are watched; none: all.
    """

    def __init__(self, kind: Kind, make: Callable[[str | None], Informer[T]], namespaces: Sequence[str]) -> None:
        self.kind = kind
        self._parts: dict[str | None, Informer[T]] = {name: make(name) for name in namespaces or (None,)}

    @property
    def parts(self) -> tuple[Informer[T], ...]:
        """Each of them is run as a task."""
        return tuple(self._parts.values())

    @property
    def is_synced(self) -> bool:
        return all(part.is_synced for part in self.parts)

    def of(self, namespace: str | None) -> Informer[T]:
        """The informer that has the objects of a namespace.

        Raises:
            KeyError: The namespace is not watched.
        """
        return self._parts[None] if None in self._parts else self._parts[namespace]

    def get(self, namespace: str | None, name: str) -> T | None:
        return self.of(namespace).get(namespace, name)

    def absorb(self, obj: Json) -> None:
        """Take the answer of an own write."""
        self.of(obj["metadata"].get("namespace")).absorb(obj)

    def note(self, obj: Json, note: bytes) -> None:
        """Note something down about an object, until it changes."""
        self.of(obj["metadata"].get("namespace")).note(obj, note)

    def noted(self, namespace: str | None, name: str) -> bytes:
        """What was noted down about an object as it is now; empty: nothing."""
        return self.of(namespace).noted(namespace, name)

    def values(self) -> Iterator[T]:
        for part in self.parts:
            yield from part.values()
