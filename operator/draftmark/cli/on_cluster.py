"""What all commands that talk to a cluster share: kubectl's options, and how they end."""

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from draftmark.cli.endings import INTERRUPTED, fail

__all__ = ["on_cluster"]


def on_cluster(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command kubectl's options and, as its first argument, the `Cluster` that they mean."""

    @click.option("-n", "--namespace", help="Default: the context's.")
    @click.option("--context", help="Context of the kubeconfig. Default: the current one.")
    @click.option("--kubeconfig", help="Default: $KUBECONFIG, then ~/.kube/config, then the pod's service account.")
    @wraps(command)
    def opened(*args: Any, namespace: str | None, context: str | None, kubeconfig: str | None, **kwargs: Any) -> None:
        from draftmark.cli.connection import Cluster, ClusterError  # the client is slow to import

        try:
            cluster = Cluster.open(kubeconfig=kubeconfig, context=context, namespace=namespace)
            command(cluster, *args, **kwargs)
        except ClusterError as error:
            fail(str(error))
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)

    return opened
