"""When to stop repairing: another writer that wants something else would otherwise make us write for ever.

Three repairs of the same field within five minutes are a fight. From then on each further repair waits, 10 s at first
and twice as long each time, up to 10 min. A field that stays ours for five minutes ends the fight.

Pure: the time is an argument, in seconds of any clock that does not jump.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Final

from draftmark.cluster.compare import Path

__all__ = ["Fight"]

_REPAIRS: Final = 3
#: Repairs that are looked back on.
_REMEMBERED: Final = 8
_WINDOW_S: Final = 300.0
_FIRST_WAIT_S: Final = 10.0
_LONGEST_WAIT_S: Final = 600.0


@dataclass(slots=True)
class Fight:
    """The repairs of one object, and how long the next one must wait."""

    #: The other writer's field manager, as far as it was seen.
    manager: str = ""
    _repairs: tuple[tuple[float, frozenset[Path]], ...] = ()
    _contended: frozenset[Path] = frozenset()
    _waits: int = 0
    _wait_until: float | None = None

    def wait_s(self, paths: frozenset[Path], now: float) -> float:
        """Seconds until these paths may be repaired again; 0.0 means now."""
        if self._repairs and now - self._repairs[-1][0] > _WINDOW_S + self._pause_s():
            self._end()
        if not paths & self._contended:
            return 0.0
        if self._wait_until is None:
            self._waits += 1
            self._wait_until = now + self._pause_s()
        return max(self._wait_until - now, 0.0)

    def note_repair(self, paths: frozenset[Path], now: float) -> None:
        recent = (repair for repair in self._repairs[1 - _REMEMBERED :] if now - repair[0] <= _WINDOW_S)
        self._repairs = (*recent, (now, paths))
        counts = Counter(path for _, repaired in self._repairs for path in repaired)
        self._contended |= {path for path, count in counts.items() if count >= _REPAIRS}
        self._wait_until = None

    def _pause_s(self) -> float:
        return min(_FIRST_WAIT_S * 2.0 ** (self._waits - 1), _LONGEST_WAIT_S) if self._waits else 0.0

    def _end(self) -> None:
        self._repairs = ()
        self._contended = frozenset()
        self._waits = 0
        self._wait_until = None
        self.manager = ""
