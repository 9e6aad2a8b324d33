"""`bench` and `compare`: start a Benchmark, follow it, and say what came of it."""

import sys
from collections.abc import Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from draftmark.api import names
from draftmark.cli import looking
from draftmark.cli.endings import INTERRUPTED, INVALID, UNFINISHED, ClusterError, fail
from draftmark.cli.on_cluster import on_cluster

if TYPE_CHECKING:
    from draftmark.cli.connection import Cluster

Json = Mapping[str, Any]

#: Seconds between two looks. The Job tells its progress no oftener.
_EVERY_S: Final = 2.0
#: Looks in a row at which somebody has to act, or at which no operator has said anything, until the command ends: a minute. The kubelet
#: tries to pull an image again after 10 and after 20 s, and what it failed by may be over by then.
_STALLED_LOOKS: Final = 30
_ENDED: Final = frozenset({"Succeeded", "Inconclusive", "Failed"})
_RESOURCE: Final = f"{names.BENCHMARK_PLURAL}.{names.GROUP}"
#: Labels of the operator's pods, as the chart makes them.
_OPERATORS: Final = "app.kubernetes.io/part-of=draftmark,app.kubernetes.io/component=operator"


@click.command()
@click.argument("name", metavar="[NAME]", required=False)
@click.option("-f", "--filename", "file", help="Manifest of a Benchmark to apply, or - for stdin; instead of NAME.")
@click.option("--name", "new_name", metavar="NEW", help="With --filename: the Benchmark's name, instead of the file's.")
@click.option("-w", "--watch", is_flag=True, help="Follow until it has ended, or Ctrl-C.")
@on_cluster
def bench(cluster: "Cluster", name: str | None, *, file: str | None, new_name: str | None, watch: bool) -> None:
    """Show how far a Benchmark is and what came of it, or start one.

    Exit status: 0 it succeeded (or, with --filename and without --watch, it was applied), 1 it failed or is inconclusive, or with --watch somebody has to act before it goes on (it waits for that) or no operator looks at it, 3 it has not ended. Ctrl-C ends the command, not the Benchmark.
    """
    if (name is None) == (file is None):
        raise click.UsageError("Give NAME, or --filename.")
    if new_name is not None and file is None:
        raise click.UsageError("--name goes with --filename.")
    if file is not None:
        manifest = _one_benchmark(file)
        name = _apply(cluster, manifest, new_name)
        if not watch:
            click.echo(f"See kubectl draftmark bench {name} -n {cluster.namespace} --watch.")
            return
    assert name is not None
    benchmark = _follow(cluster, name) if watch else cluster.benchmark(name)
    if not watch:
        _tree_of(benchmark)
    _tell_outcome(benchmark)
    phase = _phase(benchmark)
    if phase not in _ENDED:
        sys.exit(UNFINISHED)
    if phase != "Succeeded":
        sys.exit(INVALID)


@click.command()
@click.option(
    "-f", "--filename", "files", multiple=True, required=True,
    help="Manifest of a Benchmark, or - for stdin. Of two, the second's target is compared with the first's.",
)  # fmt: skip
@click.option(
    "--against",
    metavar="SERVICE[:REVISION]",
    help="What to compare with, where the manifest has no compare. It has the target's allowUserTraffic.",
)
@click.option("--name", "new_name", metavar="NEW", help="The Benchmark's name, instead of the file's.")
@on_cluster
def compare(cluster: "Cluster", *, files: tuple[str, ...], against: str | None, new_name: str | None) -> None:
    """Measure two servers in turns, and say which is faster.

    Exit status: 0 it came to a verdict, also that no difference was shown; 1 it was refused, somebody has to act before it goes on (the Benchmark waits for that), or no operator looks at it. Ctrl-C ends the command, not the Benchmark.
    """
    if len(files) > 2 or (len(files) == 2 and against is not None):
        raise click.UsageError("Two servers are compared: give one file, one with --against, or two.")
    manifest = _one_benchmark(files[0])
    if len(files) == 2:
        second = _one_benchmark(files[1])
        _fail_if_elsewhere(second, str(manifest["metadata"].get("namespace") or cluster.namespace))
        manifest = _with_target_of(manifest, second)
    elif against is not None:
        manifest = _against(manifest, against)
    if not manifest["spec"].get("compare"):
        fail(
            f"{files[0]} has no spec.compare, so there is nothing to compare with. Write it, or give --against "
            "SERVICE[:REVISION] or a second --filename."
        )
    name = _apply(cluster, manifest, new_name)
    benchmark = _follow(cluster, name)
    _tell_outcome(benchmark)
    if not _has_verdict(benchmark):
        sys.exit(INVALID)


def _has_verdict(benchmark: Json) -> bool:
    """Whether each workload was compared. One with a refused row has an entry among the winners, too, which says so; and the row may
    be among those for which the status had no room, so the condition decides."""
    from draftmark.cli.results import reason_of

    status: Json = benchmark.get("status") or {}
    end = (_phase(benchmark), reason_of(status)[0])
    return bool(status.get("winners")) and (end[0] == "Succeeded" or end == ("Inconclusive", "NoDifferenceShown"))


# Manifests


def _one_benchmark(file: str) -> dict[str, Any]:
    """The Benchmark of a file, checked as the API server would."""
    from draftmark.cli.manifests import read_manifests

    manifests = read_manifests((file,))
    found = [m for m in manifests if (m.get("apiVersion"), m["kind"]) == (names.API_VERSION, names.BENCHMARK_KIND)]
    if len(found) != 1:
        fail(f"{file} has {len(found) or 'no'} {names.BENCHMARK_KIND}s of {names.API_VERSION}; one is needed.")
    if len(manifests) > 1:
        others = sorted({str(m["kind"]) for m in manifests if m is not found[0]})
        click.echo(
            f"draftmark: only the Benchmark of {file} is applied, and not: {', '.join(others)}. kubectl apply does that.",
            err=True,
        )
    _check(found[0], file)
    return {key: value for key, value in found[0].items() if key != "status"}


def _check(manifest: Json, file: str) -> None:
    from draftmark.api.benchmark import BenchmarkSpec
    from draftmark.cli.manifests import check_types, unknown_fields

    check_types(manifest, BenchmarkSpec, f"a {names.BENCHMARK_KIND}")
    if unknown := unknown_fields(manifest, BenchmarkSpec):
        fail(f"{file}: unknown fields: {'; '.join(unknown)}. Correct or remove them.")


def _against(manifest: dict[str, Any], against: str) -> dict[str, Any]:
    """Who lets users' requests be beside one of the two lets them be beside the other: the current revision of a service always
    takes some."""
    service, _, revision = against.partition(":")
    allowed = manifest["spec"]["target"].get("allowUserTraffic")
    target = {
        "service": service,
        **({"revision": revision} if revision else {}),
        **({"allowUserTraffic": allowed} if allowed is not None else {}),
    }
    return _comparing(manifest, target, "--against")


def _fail_if_elsewhere(second: Json, namespace: str) -> None:
    """Of the second file only the target is taken, and a target is looked for in the Benchmark's namespace."""
    inner = second["metadata"].get("namespace")
    if inner and str(inner) != namespace:
        fail(
            f"the second --filename says namespace '{inner}', and the first Benchmark is of '{namespace}': a Benchmark measures what is "
            "in its own namespace. Name a target of that one, and remove the second's namespace."
        )


def _with_target_of(manifest: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """A comparison of the targets of two Benchmarks, which must ask for the same in everything else."""
    from draftmark.cli.spec_changes import spec_diff

    first, second = ({k: v for k, v in m["spec"].items() if k not in ("target", "notes")} for m in (manifest, other))
    if different := spec_diff(first, second):
        fail(
            f"the two Benchmarks ask for different things, so their servers would not be measured alike: "
            f"{'; '.join(different[:5])}. Make them equal in all but target and notes."
        )
    return _comparing(manifest, other["spec"]["target"], "the second --filename")


def _comparing(manifest: dict[str, Any], target: Json, source: str) -> dict[str, Any]:
    if manifest["spec"].get("compare"):
        fail(f"the manifest has spec.compare already, and {source} names another target. Remove one of both.")
    new = deepcopy(manifest)
    new["spec"]["compare"] = {"target": dict(target)}
    _check(new, "the comparison")
    return new


# The cluster


def _apply(cluster: "Cluster", manifest: dict[str, Any], new_name: str | None) -> str:
    """Apply a Benchmark, and return its name. One that is there and asks for the same is not touched, and has its result."""
    from draftmark.api.benchmark import BenchmarkSpec
    from draftmark.cli.manifests import check_types
    from draftmark.cluster.kinds import BENCHMARKS

    if new_name is not None:
        manifest = {**manifest, "metadata": {**manifest["metadata"], "name": new_name}}
        check_types(manifest, BenchmarkSpec, f"a {names.BENCHMARK_KIND}")
    name, inner = str(manifest["metadata"]["name"]), manifest["metadata"].get("namespace")
    if inner:
        chosen = click.get_current_context().params.get("namespace")
        if chosen and chosen != inner:
            fail(f"the manifest says namespace '{inner}', and --namespace '{chosen}'. Remove one of both.")
        cluster.namespace = str(inner)
    where = f"{cluster.namespace}/{name}"
    before = _present(cluster, name)
    _fail_if_other(before, manifest, where)
    if before is not None:
        click.echo(f"{where} is there already, and asks for the same{_measured_before(before)}.")
        return name
    try:
        cluster.apply(BENCHMARKS, manifest)
    except ClusterError as error:
        if error.status in (409, 422):
            # Somebody may have made one of this name meanwhile; if not, the API server's own words say it.
            _fail_if_other(_present(cluster, name), manifest, where)
        raise
    click.echo(f"{where} applied.")
    return name


def _measured_before(benchmark: Json) -> str:
    """When one came to its end, of which somebody may expect new numbers; empty: it has not ended."""
    if _phase(benchmark) not in _ENDED:
        return ""
    metadata, status = benchmark["metadata"], benchmark["status"]
    # One that was refused at the start has measured nothing.
    verb = "measured" if status.get("report") or status.get("results") else "ended"
    return (
        f": {verb} at {status.get('finishedAt') or 'a time that is not known'}; nothing is measured anew: give another name with "
        f"--name, or delete it: kubectl delete {_RESOURCE} {metadata['name']} -n {metadata['namespace']}"
    )


def _present(cluster: "Cluster", name: str) -> Json | None:
    from draftmark.cluster.kinds import BENCHMARKS

    try:
        return cluster.get(BENCHMARKS, name)
    except ClusterError as error:
        if error.status != 404 or _has_no_kind(error):
            raise
    return None


def _has_no_kind(error: ClusterError) -> bool:
    """Whether it is the kind that is not there, and not the object."""
    return "Install the chart" in str(error)


def _fail_if_other(present: Json | None, manifest: Json, where: str) -> None:
    from draftmark.cli.spec_changes import spec_diff

    if present is None:
        return
    name = present["metadata"]["name"]
    if present["metadata"].get("deletionTimestamp"):
        fail(f"a Benchmark {where} is being deleted. Wait until it is gone, or give another name with --name.")
    if different := spec_diff(present["spec"], _without_nulls(manifest["spec"])):
        fail(
            f"there is a Benchmark {where} already, and the spec of one cannot be changed, because its result belongs to what "
            f"was asked. Yours differs: {'; '.join(different[:5])}. Give another name with --name, or delete the present one: "
            f"kubectl delete {_RESOURCE} {name} -n {where.partition('/')[0]}."
        )


def _without_nulls(value: Any) -> Any:
    """A field that is null in a manifest is none in the cluster."""
    if isinstance(value, Mapping):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _phase(benchmark: Json) -> str | None:
    status = benchmark.get("status") or {}
    if status.get("observedGeneration") != benchmark["metadata"].get("generation"):
        return None
    phase = status.get("phase")
    return None if phase is None else str(phase)


def _follow(cluster: "Cluster", name: str) -> Json:
    """Look until it has ended, and return it. Ctrl-C ends the command, and so does what only somebody's hand can mend, and an
    operator that does not look at it."""
    from draftmark.cli.benchmark_view import benchmark_tree

    screen = looking.screen_or_none()
    view = looking.TreeView(screen)
    seen = cluster.benchmark(name)
    uid = seen["metadata"].get("uid")
    stalled = unseen = 0

    def look() -> None:
        nonlocal seen, stalled, unseen
        seen = cluster.benchmark(name)
        if seen["metadata"].get("uid") != uid:
            fail(f"{cluster.namespace}/{name} has been deleted, and there is another one of its name now.")
        view.show(benchmark_tree(seen))
        # An API server that does not answer says nothing of either.
        stalled = stalled + 1 if _stalled(seen) is not None else 0
        unseen = unseen + 1 if _phase(seen) is None else 0

    try:
        with looking.live(screen, is_watched=True):
            view.show(benchmark_tree(seen))
            remark = looking.Remarks()
            while _phase(seen) not in _ENDED and max(stalled, unseen) < _STALLED_LOOKS:
                looking.wait(_EVERY_S)
                looking.try_again(look, remark)
    except KeyboardInterrupt:
        click.echo(
            f"draftmark: {cluster.namespace}/{name} goes on. Look again with kubectl draftmark bench {name} -n "
            f"{cluster.namespace} --watch, or end it with kubectl delete {_RESOURCE} {name} -n {cluster.namespace}.",
            err=True,
        )
        sys.exit(INTERRUPTED)
    if _phase(seen) not in _ENDED:
        _give_up(cluster, name, _stalled(seen))
    return seen


def _give_up(cluster: "Cluster", name: str, why: str | None) -> NoReturn:
    """End, and leave the Benchmark there.

    Args:
        why: Why somebody has to act; None: no operator has looked at it.
    """
    again = (
        f"follow it again with kubectl draftmark bench {name} -n {cluster.namespace} --watch, or end it with kubectl delete "
        f"{_RESOURCE} {name} -n {cluster.namespace}."
    )
    if why is not None:
        fail(f"{cluster.namespace}/{name} does not go on until somebody acts: {why} It waits for that; {again}")
    fail(
        f"{cluster.namespace}/{name}: no operator has looked at it. Is one running (kubectl get pods --all-namespaces -l "
        f"{_OPERATORS}), and does it watch this namespace (watchNamespaces of the chart)? When one does, {again}"
    )


def _stalled(benchmark: Json) -> str | None:
    """Why somebody has to act; None: nobody has to.

    To the operator a service that is not there is no fault: a Benchmark may be applied before its service. Who watches is told,
    because the name may be misspelt.
    """
    if _phase(benchmark) is None:
        return None
    conditions = (benchmark.get("status") or {}).get("conditions") or ()
    found = next(
        (
            c
            for c in conditions
            if (c.get("type"), c.get("status")) == ("Stalled", "True")
            or (c.get("type"), c.get("reason")) == ("Complete", "TargetNotFound")
        ),
        None,
    )
    if found is None:
        return None
    text = f"{found.get('reason')}: {found.get('message')}"
    return "".join(c if c.isprintable() else " " for c in text)


def _tree_of(benchmark: Json) -> None:
    from draftmark.cli.benchmark_view import benchmark_tree

    looking.TreeView(looking.screen_or_none()).show(benchmark_tree(benchmark))


def _tell_outcome(benchmark: Json) -> None:
    """Its rows, its refusals, and what its comparison came to."""
    from draftmark.cli.benchmark_view import (
        DIFFERENCE_HEADS,
        difference_cells,
        refusals,
        report_command,
        row_table,
        winner_lines,
    )
    from draftmark.cli.load_table import plain_table

    heads, rows = row_table(benchmark)
    if rows:
        click.echo("\n" + plain_table(heads, rows), nl=False)
    for line in refusals(benchmark):
        click.echo(f"REFUSED  {line}")
    if differences := difference_cells(benchmark):
        click.echo("\ncompared against target:")
        click.echo(plain_table(DIFFERENCE_HEADS, differences), nl=False)
    for line in winner_lines(benchmark):
        click.echo(line)
    status: Json = benchmark.get("status") or {}
    if _phase(benchmark) not in _ENDED:
        return
    if status.get("resultsCut"):
        click.echo(f"Not all is shown here: {report_command(benchmark)} has the whole.")
    elif status.get("report"):
        click.echo(f"The whole result: {report_command(benchmark)}")
