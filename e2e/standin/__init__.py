"""The stand-in engine: what it answers, so that tests can compare.

The program is in Go (main.go says what it does); `binaries.STANDIN` builds it, `images.standin` makes its image.
"""

import re
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

_LINE: Final = re.compile(r'standin request (seen|done|cut|stopped) "(.*)"')


def tokens(prompt: str, count: int) -> list[str]:
    """The tokens that follow a prompt."""
    return [f" {zlib.crc32(f'{prompt} {index}'.encode()):08x}" for index in range(count)]


def prompt_of(messages: Iterable[Mapping[str, str]]) -> str:
    """The prompt that the messages of a chat become."""
    return "\n".join(f"{each['role']}: {each['content']}" for each in messages)


def events(log: str) -> dict[str, Counter[str]]:
    """How often each event happened to each request id, from the log of an engine's pod.

    The events: `seen`, `done`, `cut` (the client went away), `stopped` (SIGTERM came first).
    """
    found: dict[str, Counter[str]] = {}
    for event, request in _LINE.findall(log):
        found.setdefault(request, Counter())[event] += 1
    return found
