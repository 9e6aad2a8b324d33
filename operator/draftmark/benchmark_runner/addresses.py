"""Where load may be sent: not to this pod itself, and not to what a node's own network answers.

The operator resolves targets; a name is looked at again here, for whoever may write a Service may let its name mean
another address a minute later.
"""

import ipaddress
import socket
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from draftmark.benchmark_runner.problem import RunRefused

__all__ = ["check_address"]

#: Where clouds tell a node its credentials though the address is not link-local: AWS over IPv6, and Alibaba Cloud. Sources:
#: the EC2 user guide, "Use the Instance Metadata Service" (fd00:ec2::254), and Alibaba's ECS guide, "Instance metadata".
_METADATA: Final = frozenset({ipaddress.ip_address("fd00:ec2::254"), ipaddress.ip_address("100.100.100.200")})


def check_address(url: str, *, allow_loopback: bool = False) -> None:
    """Look at every address that the host of a URL has.

    Raises:
        RunRefused: One of them is this machine's own, or link-local (most metadata services are), or a metadata service's, or
            there is none.
    """
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.hostname is None or parts.username is not None:
        raise RunRefused(
            "TargetRefused",
            f"{url} is no http:// URL of a server in the cluster. Write http://SERVICE:PORT of a Service of the namespace.",
        )
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port or 80, type=socket.SOCK_STREAM)
    except OSError as error:
        raise RunRefused(
            "TargetUnreachable",
            f"{parts.hostname} has no address: {error.strerror or error}. Create the Service, or correct target.url.",
        ) from None
    for address in _addresses(str(each[4][0]) for each in found):
        refused = address.is_link_local or address.is_multicast or address.is_unspecified or address.is_reserved
        refused = refused or address in _METADATA
        if refused or (address.is_loopback and not allow_loopback):
            raise RunRefused(
                "TargetRefused",
                f"{parts.hostname} is {address}, to which no load is sent: it is no address of a pod or a Service. Name a Service "
                "whose endpoints are pods.",
            )


def _addresses(texts: Iterable[str]) -> Iterable[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    for text in texts:
        address = ipaddress.ip_address(text.partition("%")[0])
        mapped = getattr(address, "ipv4_mapped", None)
        yield mapped if mapped is not None else address
