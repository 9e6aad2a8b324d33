"""`rollback`, `accept`, `retry`, `pause` and `resume`: the few changes of a service that need more than an editor.

Each writes the spec as a user would, so the operator and whoever looks at the object see nothing special. A write is
tied to the version of the object that was read; when only the status has moved on meanwhile it is done again.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from draftmark.api import names
from draftmark.api.times import write_time
from draftmark.cli import spec_changes
from draftmark.cli.endings import fail
from draftmark.cli.load_table import plain_table
from draftmark.cli.on_cluster import on_cluster
from draftmark.cli.spans import ago
from draftmark.cli.spec_changes import KeptRevision, NoWayBack

if TYPE_CHECKING:
    from draftmark.cli.connection import Cluster

Json = Mapping[str, Any]

#: Attempts of a write that meets a newer version of the object. A guess: the operator writes the status a few times a
#: second at most, and a write takes milliseconds.
_ATTEMPTS: Final = 5


@click.command()
@click.argument("name")
@click.option("--to", metavar="HASH", help="Revision to go back to; its beginning is enough.")
@click.option("--list", "lists", is_flag=True, help="Only show the revisions that are kept.")
@click.option(
    "--dry-run", is_flag=True, help="Show what would change, have the API server check it, and write nothing."
)
@on_cluster
def rollback(cluster: "Cluster", name: str, *, to: str | None, lists: bool, dry_run: bool) -> None:
    """Go back to a revision that was running before.

    Without --to it is the newest before the present one that was serving. Model, engine, accelerator, workload,
    podTemplate and rollout.accept become what they were; replicas, traffic and the rest stay.
    """
    from draftmark.cluster.kinds import CONTROLLER_REVISIONS

    service = cluster.service(name)
    selector = f"{names.LABEL_SERVICE}={name}"
    kept = spec_changes.kept_revisions(cluster.list_all(CONTROLLER_REVISIONS, cluster.namespace, selector))
    if lists:
        click.echo(
            plain_table(["REVISION", "NUMBER", "PHASE", "AGE", "AGAINST THE PRESENT SPEC"], _history(service, kept)),
            nl=False,
        )
        return
    try:
        target = spec_changes.choose_target(service, kept, to)
    except NoWayBack as error:
        fail(str(error))
    new = spec_changes.go_back(service["spec"], target.spec)
    if spec_changes.revision_of(new) != target.hash:
        fail(
            f"this version of Draftmark reads revision {target.hash} as another one, so going back would start something "
            "new. Use the version of the operator that made it, or edit the service."
        )
    click.echo(f"{_where(service)}: from revision {spec_changes.revision_of(service['spec'])} to {target.hash}")
    for line in spec_changes.spec_diff(service["spec"], new):
        click.echo(f"  {line}")
    _write_spec(cluster, service, lambda spec: spec_changes.go_back(spec, target.spec), is_trial=dry_run)
    _tell(service, f"See kubectl draftmark status {name} --watch.", is_trial=dry_run)


def _history(service: Json, kept: list[KeptRevision]) -> list[list[str]]:
    phases = {r.get("hash"): r.get("phase") for r in (service.get("status") or {}).get("revisions") or ()}
    present = spec_changes.revision_of(service["spec"])
    rows = []
    for revision in kept:
        if revision.hash == present:
            differs = "(this is it)"
        else:
            differs = "; ".join(
                spec_changes.spec_diff(service["spec"], spec_changes.go_back(service["spec"], revision.spec))
            )
        age = ago(revision.created, datetime.now(UTC)).removesuffix(" ago")
        rows.append([revision.hash, str(revision.number), str(phases.get(revision.hash) or "-"), age, differs])
    return rows


@click.command()
@click.argument("name")
@click.argument("suggestion", metavar="[ID]", required=False)
@click.option("--dry-run", is_flag=True, help="Have the API server check it, and write nothing.")
@on_cluster
def accept(cluster: "Cluster", name: str, suggestion: str | None, *, dry_run: bool) -> None:
    """Take what the operator would choose today.

    With ID only if it is still what is suggested.
    """
    service = cluster.service(name)
    status = service.get("status") or {}
    offer = (status.get("plan") or {}).get("suggestion")
    if status.get("observedGeneration") != service["metadata"].get("generation"):
        fail(
            f"the operator has not seen the newest spec of {_where(service)} yet, so its suggestion may be old. Try again in a moment."
        )
    if not offer:
        fail(f"there is no suggestion for {_where(service)}: what runs is what would be chosen today.")
    if suggestion is not None and suggestion != offer["id"]:
        fail(f"suggestion {suggestion} is not the present one, which is {offer['id']}: {offer['message']}")
    click.echo(f"{_where(service)}: suggestion {offer['id']}\n  {offer['message']}")
    _write_spec(cluster, service, lambda spec: spec_changes.accept(spec, offer["id"]), is_trial=dry_run)
    _tell(service, f"See kubectl draftmark status {name} --watch.", is_trial=dry_run)


@click.command()
@click.argument("name")
@on_cluster
def pause(cluster: "Cluster", name: str) -> None:
    """Have the operator change nothing of a service."""
    service = cluster.service(name)
    if service["spec"].get("paused") is True:
        click.echo(f"{_where(service)} is paused already.")
        return
    _write_spec(cluster, service, lambda spec: {**spec, "paused": True})
    _tell(service, f"What runs goes on; kubectl draftmark resume {name} ends the pause.")


@click.command()
@click.argument("name")
@on_cluster
def resume(cluster: "Cluster", name: str) -> None:
    """End a pause."""
    service = cluster.service(name)
    if not service["spec"].get("paused"):
        click.echo(f"{_where(service)} is not paused.")
        return
    _write_spec(cluster, service, spec_changes.resume)
    _tell(service, f"See kubectl draftmark status {name} --watch.")


@click.command()
@click.argument("name")
@on_cluster
def retry(cluster: "Cluster", name: str) -> None:
    """Try a revision again that was withdrawn, and ask again for facts of the model that were not to be had."""
    service = cluster.service(name)
    status = service.get("status") or {}
    failed = [r for r in status.get("revisions") or () if r.get("phase") == "Failed"]
    unanswered = status.get("modelFacts") or {}
    is_unanswered = unanswered.get("state") == "Failed"
    times = [r.get("failedAt") for r in failed] + ([unanswered.get("at")] if is_unanswered else [])
    stamp = write_time(spec_changes.retry_time(times, datetime.now(UTC)))
    _write(cluster, service, lambda item: spec_changes.annotate(item, names.ANNOTATION_RETRY, stamp))
    click.echo(f"{_where(service)}: {names.ANNOTATION_RETRY}: {stamp}")
    if failed:
        click.echo(f"  revision {failed[0]['hash']} is tried again. See kubectl draftmark status {name} --watch.")
    if is_unanswered:
        click.echo(f"  the facts of the model are asked for again. See kubectl draftmark status {name} --watch.")
    if not failed and not is_unanswered:
        click.echo(
            "draftmark: the status shows no revision that failed, so there may be nothing to try again.", err=True
        )


def _write_spec(cluster: "Cluster", service: Json, change: Callable[[Json], Json], *, is_trial: bool = False) -> None:
    _write(cluster, service, lambda item: spec_changes.operations(item, change(item["spec"])), is_trial=is_trial)


def _write(
    cluster: "Cluster", service: Json, patch: Callable[[Json], list[dict[str, Any]]], *, is_trial: bool = False
) -> None:
    """Patch the service as it was read; a newer version of it is fine while its spec is the same."""
    from draftmark.cli.connection import ClusterError
    from draftmark.cluster.kinds import INFERENCE_SERVICES

    read, name = service, str(service["metadata"]["name"])
    for _ in range(_ATTEMPTS):
        try:
            cluster.patch(INFERENCE_SERVICES, name, patch(read), is_trial=is_trial)
            return
        except ClusterError as error:
            # The API server calls a failed test of a JSON patch a 422, as it does an invalid object.
            if error.status not in (409, 422):
                raise
            before, read = read, cluster.service(name)
            if read["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]:
                raise
        if read["spec"] != service["spec"] or read["metadata"]["uid"] != service["metadata"]["uid"]:
            fail(
                f"the spec of {_where(service)} has been changed by somebody else meanwhile. Nothing was written; look at it, and try again."
            )
    fail(f"{_where(service)} changes too fast to be written ({_ATTEMPTS} attempts). Try again.")


def _tell(service: Json, next_: str, *, is_trial: bool = False) -> None:
    """How it ended, and who may undo it."""
    if is_trial:
        click.echo("The API server accepts this. Nothing was written (--dry-run).")
    else:
        click.echo(f"Written. {next_}")
    tool = spec_changes.who_else_writes(service)
    if tool is not None:
        click.echo(
            f"draftmark: {tool} manages this object and will put its own spec back. Make the same change in its source, "
            "or switch its automatic sync of this object off until you have.",
            err=True,
        )
    elif not is_trial:
        click.echo(
            "draftmark: if the object also stands in a file or in Git, make the same change there: the next apply would "
            "undo this.",
            err=True,
        )


def _where(service: Json) -> str:
    return f"{service['metadata']['namespace']}/{service['metadata']['name']}"
