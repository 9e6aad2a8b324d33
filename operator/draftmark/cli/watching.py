"""`status`, `top` and `logs`: what there is of a service, what it does, and what it says."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from draftmark.api import names
from draftmark.api.duration import seconds_of
from draftmark.cli import looking
from draftmark.cli.endings import fail
from draftmark.cli.looking import Remarks, TreeView, live, screen_or_none, try_again
from draftmark.cli.on_cluster import on_cluster

if TYPE_CHECKING:
    from draftmark.cli.connection import Cluster

#: Seconds between two looks.
STATUS_EVERY_S: Final = 1.0
TOP_EVERY_S: Final = 2.0
#: Seconds between the two readings of which `top` makes its rates when it is not watched.
RATE_OVER_S: Final = 1.0
#: Lines of each pod that `logs -f` begins with, as kubectl does for several pods.
FOLLOW_TAIL: Final = 10


# status


@click.command()
@click.argument("name")
@click.option("-w", "--watch", is_flag=True, help="Follow until the service is ready, or Ctrl-C.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@on_cluster
def status(cluster: "Cluster", name: str, *, watch: bool, output: str) -> None:
    """Show what exists of a service, and why."""
    from draftmark.cli.overview import overview
    from draftmark.cli.reading import see
    from draftmark.cli.status_tree import status_tree

    if output == "json":
        if watch:
            fail("-o json shows one moment. Leave out --watch, or -o json.")
        told = overview(see(cluster, name), datetime.now(UTC))
        click.echo(json.dumps(told, indent=2, ensure_ascii=False))
        return

    screen = screen_or_none()
    view, is_ready = TreeView(screen), False

    def look() -> None:
        nonlocal is_ready
        seen, now = see(cluster, name), datetime.now(UTC)
        told = overview(seen, now)
        is_ready = told["ready"]
        view.show(status_tree(told, now))

    with live(screen, is_watched=watch):
        look()
        remark = Remarks()
        while watch and not is_ready:
            looking.wait(STATUS_EVERY_S)
            try_again(look, remark)


# top


@click.command()
@click.argument("name", required=False)
@click.option("-A", "--all-namespaces", is_flag=True, help="The services of all namespaces.")
@click.option("-w", "--watch", is_flag=True, help=f"Look again every {TOP_EVERY_S:.0f} s, until Ctrl-C.")
@on_cluster
def top(cluster: "Cluster", name: str | None, *, all_namespaces: bool, watch: bool) -> None:
    """Show the load of services, revision by revision.

    WAITING and RUNNING are requests at the gateway; ENGINE RUNNING, ENGINE WAITING and TOKENS/S (in and out) are the
    engines' own numbers. "-": there is nothing to ask. "?": nobody answered. "7+?": some did, some did not.
    """
    from draftmark.cli.load_table import Answers, cells, columns, make_rows, plain_table
    from draftmark.cli.reading import ask_pods, see, see_all

    if name is not None and all_namespaces:
        fail("a service is in one namespace. Leave out NAME, or --all-namespaces.")
    screen = screen_or_none()
    before: dict[tuple[str, str], Answers] = {}
    is_first = True

    def look() -> None:
        nonlocal before, is_first
        services = (
            [see(cluster, name)]
            if name is not None
            else see_all(cluster, None if all_namespaces else cluster.namespace)
        )
        if not services:
            where = "any namespace" if all_namespaces else f"namespace '{cluster.namespace}'"
            fail(f"there is no {names.KIND} in {where}. Give --namespace or --all-namespaces.")
        answers, notes = ask_pods(cluster, services, before)
        if is_first and any(a.engines for a in answers.values()):
            looking.wait(RATE_OVER_S)
            answers, notes = ask_pods(cluster, services, answers)
        before = answers
        rows = [row for seen in services for row in make_rows(seen, answers[_key(seen.service)])]
        table = [cells(row, has_namespaces=all_namespaces) for row in rows]
        heads = columns(has_namespaces=all_namespaces)
        if screen is not None:
            screen.show_table(heads, table, notes)
        else:
            click.echo(("" if is_first else "\n") + plain_table(heads, table), nl=False)
            for note in notes:
                click.echo(f"draftmark: {note}", err=True)
        is_first = False

    with live(screen, is_watched=watch):
        look()
        remark = Remarks()
        while watch:
            looking.wait(TOP_EVERY_S)
            try_again(look, remark)


def _key(service: Mapping[str, Any]) -> tuple[str, str]:
    return str(service["metadata"]["namespace"]), str(service["metadata"]["name"])


# logs


def _seconds(context: click.Context, parameter: click.Parameter, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return seconds_of(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command()
@click.argument("name")
@click.option("--engine", "roles", flag_value=names.ROLE_ENGINE, multiple=True, help="Engine pods only.")
@click.option("--router", "roles", flag_value=names.ROLE_ROUTER, multiple=True, help="Router pods only.")
@click.option("--gateway", "roles", flag_value=names.ROLE_GATEWAY, multiple=True, help="Gateway pods only.")
@click.option("--revision", metavar="HASH", help="Pods of one revision only; its beginning is enough.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, of new pods as well, until Ctrl-C.")
@click.option(
    "--tail", type=click.IntRange(0), help=f"Last lines of each pod. Default: all, and {FOLLOW_TAIL} with -f."
)
@click.option("-p", "--previous", is_flag=True, help="Of the containers before their last restart.")
@click.option("--since", callback=_seconds, metavar="SPAN", help="Lines of this last span only, as 90s, 5m or 1h30m.")
@on_cluster
def logs(
    cluster: "Cluster",
    name: str,
    *,
    roles: tuple[str, ...],
    revision: str | None,
    follow: bool,
    tail: int | None,
    previous: bool,
    since: int | None,
) -> None:
    """Print the logs of all pods of a service, each line with its pod."""
    from draftmark.cli.log_lines import LogQuery, follow_logs, read_logs

    if follow and previous:
        fail("a container that has ended says nothing more. Leave out --follow, or --previous.")
    if follow and tail is None and since is None:
        tail = FOLLOW_TAIL
    cluster.service(name)
    query = LogQuery(service=name, roles=roles, revision=revision, tail=tail, since_s=since, is_previous=previous)
    screen = screen_or_none()
    prefixes: dict[str, str] = {}
    lines = follow_logs(cluster, query, Remarks()) if follow else read_logs(cluster, query, Remarks())
    for prefix, line in lines:
        if prefix not in prefixes:
            prefixes[prefix] = screen.prefix(prefix) if screen is not None else prefix
        click.echo(f"{prefixes[prefix]}  {line}", color=True)
