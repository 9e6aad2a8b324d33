"""Ports for servers that are started here, when whatever else runs on the machine uses any of the usual ones."""

import contextlib
import os
import random
import re
import socket
from typing import Final

#: Below those that the kernel gives to outgoing connections (32768 and up by default): one of these that was free a moment ago
#: was another connection's end by the time HAProxy asked for it. And below Kubernetes' node ports, from 30000.
_PORTS: Final = range(16_000, 30_000)
#: Test processes side by side have shares of their own. A port is free until its server listens, some 50 ms later, and HAProxy listens
#: also where another HAProxy does (SO_REUSEPORT): the two then share the requests of both tests.
_SHARES: Final = 16
#: What this process gave away; none of it comes again before all of its share has.
_given: set[int] = set()


def free_ports(count: int) -> list[int]:
    """Different ports of the loopback that nobody listens on, drawn by chance.

    Raises:
        RuntimeError: There are not as many.
    """
    share = share_of(os.environ.get("PYTEST_XDIST_WORKER"))
    if len(share) - len(_given) < count:
        _given.clear()
    left = [port for port in share if port not in _given]
    with contextlib.ExitStack() as stack:
        found: list[int] = []
        for port in random.sample(left, len(left)):
            _given.add(port)
            probe = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                found.append(port)
            if len(found) == count:
                return found
    raise RuntimeError(f"of ports {_PORTS.start} to {_PORTS.stop - 1} fewer than {count} are free: end what uses them")


def share_of(worker: str | None) -> range:
    """The ports of a test process, by the name that pytest-xdist gives it; None: it is the only one."""
    number = re.fullmatch(r"gw(\d+)", worker or "")
    return _PORTS[(int(number[1]) % (_SHARES - 1) + 1 if number else 0) :: _SHARES]
