"""`draftmark run`: the operator."""

import logging
import socket
import sys
from pathlib import Path

import click

from draftmark.cli.endings import fail
from draftmark.settings import Settings, UnreadableDefaults, load_defaults


@click.command()
@click.option("--defaults", type=click.Path(path_type=Path), help="The administrator's defaults (YAML).")
@click.option("--namespace", envvar="POD_NAMESPACE", default="draftmark-system", show_default=True)
@click.option("--identity", envvar="POD_NAME", default=socket.gethostname, help="Name of this process in the Lease.")
@click.option("--watch-namespace", "watch_namespaces", multiple=True, help="Work in this one only; may be repeated.")
@click.option("--http-port", type=int, default=8080, show_default=True, help="Port of /healthz, /readyz, /metrics.")
@click.option("--workers", type=click.IntRange(1, 256), default=16, show_default=True)
@click.option("--kubeconfig", envvar="KUBECONFIG", help="Default: the pod's own service account.")
@click.option("--context", help="Context of the kubeconfig.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info")
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text")
def run(
    defaults: Path | None,
    namespace: str,
    identity: str,
    watch_namespaces: tuple[str, ...],
    http_port: int,
    workers: int,
    kubeconfig: str | None,
    context: str | None,
    log_level: str,
    log_format: str,
) -> None:
    """Run the operator until it is told to stop."""
    from draftmark.controller.logs import set_up_logging  # kopf and the clients are slow to import
    from draftmark.controller.main import run_operator

    set_up_logging(getattr(logging, log_level.upper()), as_json=log_format == "json")
    try:
        settings = Settings(
            defaults=load_defaults(defaults),
            namespace=namespace,
            identity=identity,
            watch_namespaces=watch_namespaces,
            http_port=http_port,
            workers=workers,
            kubeconfig=kubeconfig or None,
            context=context,
        )
    except UnreadableDefaults as error:
        fail(str(error))
    sys.exit(run_operator(settings))
