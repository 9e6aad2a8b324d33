"""Ports for servers that are started here, when whatever else runs on the machine uses any of the usual ones."""

import contextlib
import random
import socket
from typing import Final

#: Below those that the kernel gives to outgoing connections (32768 and up by default): one of these that was free a moment ago
#: was another connection's end by the time HAProxy asked for it. And below Kubernetes' node ports, from 30000.
_PORTS: Final = range(16_000, 30_000)


def free_ports(count: int) -> list[int]:
    """Different ports of the loopback that nobody listens on. They are drawn by chance, so that two processes that ask at the same
    moment hardly ever get the same.

    Raises:
        RuntimeError: There are not as many.
    """
    with contextlib.ExitStack() as stack:
        found: list[int] = []
        for port in random.sample(_PORTS, len(_PORTS)):
            probe = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                found.append(port)
            if len(found) == count:
                return found
    raise RuntimeError(f"of ports {_PORTS.start} to {_PORTS.stop - 1} fewer than {count} are free: end what uses them")
