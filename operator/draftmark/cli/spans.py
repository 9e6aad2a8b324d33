"""Spans of time, read from timestamps and written for people."""

from datetime import datetime

from draftmark.api.times import read_time

__all__ = ["ago", "seconds_between", "span"]


def seconds_between(start: object, end: datetime) -> float | None:
    """Seconds since a timestamp, or None when it is none. Never below zero: two clocks differ."""
    read = read_time(start)
    return None if read is None else max((end - read).total_seconds(), 0.0)


def span(seconds: float) -> str:
    """A span in at most two units: 0.4 s, 12 s, 3 min 20 s, 5 h, 2 d 4 h."""
    if seconds < 10 and seconds != int(seconds):
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, unit, small_size, small_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // small_size
            return f"{whole // size} {unit}" + (f" {rest} {small_unit}" if rest else "")
    return f"{whole} s"


def ago(start: object, now: datetime) -> str:
    """How long ago, or an empty text when the timestamp is none."""
    seconds = seconds_between(start, now)
    return "" if seconds is None else f"{span(seconds)} ago"
