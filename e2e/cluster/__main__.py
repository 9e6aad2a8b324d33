"""`python -m e2e.cluster up|down|status|binaries|images`: a cluster to work with by hand."""

import argparse
import sys

from e2e.cluster import binaries, images
from e2e.cluster.cluster import Cluster
from e2e.cluster.progress import say


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m e2e.cluster", description=__doc__)
    parser.add_argument("action", choices=["up", "down", "status", "binaries", "images"])
    parser.add_argument("--name", default="dev", help="the cluster's name (default: dev)")
    parser.add_argument("--control-plane-only", action="store_true", help="no node: pods stay Pending")
    parser.add_argument("--egress", action="store_true", help="let pods reach beyond this machine")
    arguments = parser.parse_args()
    cluster = Cluster(arguments.name, control_plane_only=arguments.control_plane_only, egress=arguments.egress)
    match arguments.action:
        case "up":
            cluster.up()
        case "down":
            cluster.down()
        case "status":
            say(cluster.status())
        case "binaries":
            for module in (*binaries.ALL, binaries.STANDIN):
                say(str(module.build()))
        case "images":
            for make in images.ALL:
                image = make()
                say(f"{image.reference} {image.archive} {image.archive.stat().st_size / 1e6:.0f} MB")
        case other:
            raise ValueError(f"no action {other}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (RuntimeError, ValueError, TimeoutError) as error:
        sys.exit(f"error: {error}")
