"""Addresses in the cluster, as objects have them and as URLs want them."""

from collections.abc import Mapping
from typing import Any


def cluster_ip(service: Mapping[str, Any] | None) -> str | None:
    """The cluster IP of a Service; None: it has none (yet)."""
    address = (service or {}).get("spec", {}).get("clusterIP")
    return str(address) if address and address != "None" else None


def is_ipv6(address: str) -> bool:
    return ":" in address


def in_url(address: str) -> str:
    """The address as it stands in front of a port: brackets around IPv6."""
    return f"[{address}]" if is_ipv6(address) else address
