"""What all commands that talk to a cluster share: kubectl's options, and how they end."""

import sys
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from draftmark.cli.endings import INTERRUPTED, ClusterError, fail

if TYPE_CHECKING:
    from draftmark.cli.connection import Cluster

__all__ = ["on_cluster", "perhaps_on_cluster"]


def perhaps_on_cluster(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command kubectl's options and, as its first argument, a function that opens the `Cluster` that they mean: for
    commands that can do without one."""

    @click.option("-n", "--namespace", help="Default: the context's.")
    @click.option("--context", help="Context of the kubeconfig. Default: the current one.")
    @click.option("--kubeconfig", help="Default: $KUBECONFIG, then ~/.kube/config, then the pod's service account.")
    @wraps(command)
    def opened(*args: Any, namespace: str | None, context: str | None, kubeconfig: str | None, **kwargs: Any) -> None:
        def open_cluster() -> "Cluster":
            from draftmark.cli.connection import Cluster  # the client is slow to import

            return Cluster.open(kubeconfig=kubeconfig, context=context, namespace=namespace)

        try:
            command(open_cluster, *args, **kwargs)
        except ClusterError as error:
            fail(str(error))
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)

    return opened


def on_cluster(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command kubectl's options and, as its first argument, the `Cluster` that they mean."""

    @perhaps_on_cluster
    @wraps(command)
    def opened(open_cluster: "Callable[[], Cluster]", *args: Any, **kwargs: Any) -> None:
        command(open_cluster(), *args, **kwargs)

    return opened
