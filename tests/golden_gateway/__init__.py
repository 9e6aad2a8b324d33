"""The gateway's files for a few configurations, as a reviewer reads them. `python -m tests.golden_gateway` writes them."""

from pathlib import Path

from draftmark.render.gateway_config import Backend, GatewayConfig

FOLDER = Path(__file__).parent

CASES = {
    # A revision in service, one that gets its first requests, and one whose router has no Service yet.
    "canary": GatewayConfig(
        backends=(
            Backend(revision="16efc5ee", address="10.96.0.20", limit=8, queue=16, weight=95),
            Backend(revision="a0b1c2d3", address="10.96.0.21", limit=4, queue=8, weight=5),
            Backend(revision="0000beef", address=None, limit=4, queue=0, weight=0),
        ),
        queue_timeout_s=120,
        request_timeout_s=600,
    ),
    # The cluster's Services have IPv6 addresses.
    "ipv6": GatewayConfig(
        backends=(Backend(revision="16efc5ee", address="fd00:10:96::20", limit=8, queue=0, weight=1),),
        queue_timeout_s=30,
        request_timeout_s=300,
    ),
    # A service that has just been made.
    "empty": GatewayConfig(backends=(), queue_timeout_s=120, request_timeout_s=600),
}
