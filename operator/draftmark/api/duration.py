"""Durations as Kubernetes users write them: 90s, 5m, 1h30m."""

import re
from datetime import timedelta
from typing import Annotated, Final

from pydantic import Field

PATTERN: Final = r"^([0-9]{1,4}h)?([0-9]{1,5}m)?([0-9]{1,6}s)?$"

#: Hours, minutes and seconds, each at most once and in this order.
Duration = Annotated[str, Field(pattern=PATTERN, min_length=2, max_length=20)]


def seconds_of(text: str) -> int:
    """Seconds of a duration.

    Raises:
        ValueError: The text is no duration.
    """
    found = re.fullmatch(PATTERN, text)
    if not text or found is None:
        raise ValueError(f"'{text}' is no duration: write hours, minutes and seconds as in 90s, 5m or 1h30m")
    hours, minutes, seconds = (int(part[:-1]) if part else 0 for part in found.groups())
    return int(timedelta(hours=hours, minutes=minutes, seconds=seconds).total_seconds())
