"""Lines that tell a waiting person what happens and how long it took."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


def say(text: str) -> None:
    print(text, flush=True)


@contextmanager
def step(what: str, *, slow: bool = False) -> Iterator[None]:
    """Say how long something took; when it is slow, also that it began."""
    if slow:
        say(f"  {what} ...")
    began = time.monotonic()
    try:
        yield
    except BaseException:
        say(f"  {what}: failed after {time.monotonic() - began:.1f} s")
        raise
    say(f"  {what}: {time.monotonic() - began:.1f} s")
