"""`status`, `top` and `logs`: what there is of a service, what it does, and what it says.

On a terminal a watched view is drawn anew in place. Elsewhere what has changed is printed, so that the output of a
pipeline can be read afterwards.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from draftmark.api import names
from draftmark.api.duration import seconds_of
from draftmark.cli.endings import fail
from draftmark.cli.on_cluster import on_cluster

if TYPE_CHECKING:
    from draftmark.cli.connection import Cluster
    from draftmark.cli.screen import Screen

#: Seconds between two looks.
STATUS_EVERY_S: Final = 1.0
TOP_EVERY_S: Final = 2.0
#: Seconds between the two readings of which `top` makes its rates when it is not watched.
RATE_OVER_S: Final = 1.0
#: Lines of each pod that `logs -f` begins with, as kubectl does for several pods.
FOLLOW_TAIL: Final = 10


def wait(seconds: float) -> None:
    """Until the next look. In one place, so that tests need not."""
    time.sleep(seconds)


def _screen() -> "Screen | None":
    """The terminal, or None when the output goes elsewhere."""
    if not sys.stdout.isatty():
        return None
    from draftmark.cli.screen import Screen  # slow to import

    return Screen()


def _live(screen: "Screen | None", *, is_watched: bool) -> AbstractContextManager[None]:
    return screen.live() if screen is not None and is_watched else nullcontext()


class _Remarks:
    """Messages on stderr, each once in a row."""

    def __init__(self) -> None:
        self._last = ""

    def __call__(self, text: str) -> None:
        if text != self._last:
            self._last = text
            click.echo(f"draftmark: {text}", err=True)


def _try_again(look: Callable[[], None], remark: _Remarks) -> None:
    """Look once more; what may pass is only told."""
    from draftmark.cli.connection import ClusterError

    try:
        look()
    except ClusterError as error:
        if not error.may_pass:
            raise
        remark(f"{error} Trying again.")


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

    if output == "json":
        if watch:
            fail("-o json shows one moment. Leave out --watch, or -o json.")
        told = overview(see(cluster, name), datetime.now(UTC))
        click.echo(json.dumps(told, indent=2, ensure_ascii=False))
        return

    screen = _screen()
    view = _StatusView(screen)

    def look() -> None:
        seen, now = see(cluster, name), datetime.now(UTC)
        view.show(overview(seen, now), now)

    with _live(screen, is_watched=watch):
        look()
        remark = _Remarks()
        while watch and not view.is_ready:
            wait(STATUS_EVERY_S)
            _try_again(look, remark)


class _StatusView:
    """The tree: drawn over itself on a terminal, and line by line as it changes elsewhere."""

    def __init__(self, screen: "Screen | None") -> None:
        self.is_ready = False
        self._screen = screen
        self._shown: set[str] | None = None
        self._since = time.monotonic()

    def show(self, told: dict[str, Any], now: datetime) -> None:
        from draftmark.cli.status_tree import status_tree
        from draftmark.cli.tree import plain_text

        self.is_ready = told["ready"]
        tree = status_tree(told, now)
        if self._screen is not None:
            self._screen.show_tree(tree)
            return
        text = plain_text(tree)
        lines = [_without_times(line) for line in text.splitlines()]
        if self._shown is None:
            click.echo(text, nl=False)
        else:
            for line in lines:
                if line not in self._shown:
                    click.echo(f"+{time.monotonic() - self._since:.0f} s  {line}")
        self._shown = set(lines)


def _without_times(line: str) -> str:
    """A line of a tree without its guides, and without what only says how long something has lasted."""
    bare = line.lstrip("│├└─ ")
    return bare.rpartition(", for ")[0] if bare.endswith(" so far") else bare.partition("  proven ")[0]


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
    screen = _screen()
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
            wait(RATE_OVER_S)
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

    with _live(screen, is_watched=watch):
        look()
        remark = _Remarks()
        while watch:
            wait(TOP_EVERY_S)
            _try_again(look, remark)


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
    screen = _screen()
    prefixes: dict[str, str] = {}
    lines = follow_logs(cluster, query, _Remarks()) if follow else read_logs(cluster, query, _Remarks())
    for prefix, line in lines:
        if prefix not in prefixes:
            prefixes[prefix] = screen.prefix(prefix) if screen is not None else prefix
        click.echo(f"{prefixes[prefix]}  {line}", color=True)
