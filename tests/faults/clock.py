"""The wall clock of one process, as somebody sets it; the clocks that only run forward go on.

Python's own functions are replaced in every module that is loaded, so it makes no difference who asks for the time.
"""

import sys
import time
from ctypes import c_double
from datetime import datetime as Datetime
from datetime import timedelta, tzinfo
from typing import Any

_time = time.time


def take_over(ahead_s: c_double) -> None:
    """From now on this process' clock is ahead by so much. Shared with whoever sets it."""

    class _Class(type(Datetime)):  # type: ignore[misc]
        def __instancecheck__(cls, value: object) -> bool:
            return isinstance(value, Datetime)

    class SetDatetime(Datetime, metaclass=_Class):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Any:
            return Datetime.now(tz) + timedelta(seconds=ahead_s.value)

        @classmethod
        def utcnow(cls) -> Any:
            raise NotImplementedError("nothing here asks for naive times")

    def set_time() -> float:
        return _time() + ahead_s.value

    for module in list(sys.modules.values()):
        if module is sys.modules[__name__]:
            continue
        for name, value in list(vars(module).items()):
            if value is Datetime:
                setattr(module, name, SetDatetime)
            elif value is _time:
                setattr(module, name, set_time)
