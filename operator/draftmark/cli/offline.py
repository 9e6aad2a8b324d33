"""What needs no cluster: `render`, `explain` and `validate` read manifests and decide as the operator would."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

from draftmark.api import names
from draftmark.api.base import ApiModel
from draftmark.api.benchmark import BenchmarkSpec
from draftmark.api.defaults import Defaults
from draftmark.api.inference_service import ENGINE_NAMES, InferenceServiceSpec
from draftmark.api.model_gateway import ModelGatewaySpec
from draftmark.choice import read_spec
from draftmark.cli.endings import UNPLANNABLE, fail
from draftmark.cli.manifests import check_types, files_option, read_manifests, unknown_fields, where
from draftmark.decide import decide
from draftmark.decision import Decision, Manifest
from draftmark.facts.model_answer import ModelProblem
from draftmark.facts.nodes import ClusterFacts, read_nodes
from draftmark.facts.resource_slices import read_resource_slices, with_slices
from draftmark.knowledge import unasked
from draftmark.model_gateway.decide import decide_model_gateway
from draftmark.model_gateway.observation import ModelGatewayObservation
from draftmark.observation import Observation
from draftmark.plan import Plan, Unplannable
from draftmark.planner.explain import explain_data, explain_text
from draftmark.planner.needs_facts import UNKNOWN
from draftmark.render.yaml_io import dump_manifests, load_manifests
from draftmark.settings import UnreadableDefaults, load_defaults

#: In the order in which they are told.
OUR_KINDS: Final = (names.KIND, names.MODEL_GATEWAY_KIND, names.BENCHMARK_KIND)

nodes_option = click.option(
    "--nodes",
    type=click.Path(path_type=Path),
    help="Nodes, as kubectl get nodes -o yaml prints; ResourceSlices may be among them.",
)
defaults_option = click.option(
    "--defaults", type=click.Path(path_type=Path), help="The administrator's defaults (YAML)."
)


@click.command()
@files_option
@nodes_option
@defaults_option
def render(files: tuple[str, ...], nodes: Path | None, defaults: Path | None) -> None:
    """Print the manifests that the operator would apply to an empty cluster.

    A Benchmark has none there: there is nothing to measure. A ModelGateway knows no models there: no service has an address yet. Objects get an owner reference only when the InferenceService has a uid; without one they belong to nobody.
    """
    click.echo(dump_manifests(render_all(_load(files), nodes, read_defaults(defaults))), nl=False)


def render_all(given: "Given", nodes: Path | None, configured: Defaults) -> list[Manifest]:
    """What the operator would apply to an empty cluster."""
    decisions = [decision for _, decision in _decide_all(given.services, nodes, configured)]
    _fail_if_refused(decisions)
    manifests = [m for d in decisions for m in (*d.pins, *d.desired)]
    for gateway in given.gateways:
        _check_gateway(gateway)
        seen = ModelGatewayObservation(gateway=_as_new(gateway), services=(), defaults=configured)
        manifests += decide_model_gateway(seen).desired
    return manifests


@click.command()
@files_option
@nodes_option
@defaults_option
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def explain(files: tuple[str, ...], nodes: Path | None, defaults: Path | None, output: str) -> None:
    """Say what would be deployed, and why."""
    services = _load(files).services
    if not services:
        fail(f"no {names.KIND} of {names.API_VERSION} in {', '.join(files)}.")
    decided = _decide_all(services, nodes, read_defaults(defaults))
    explained = []
    for seen, decision in decided:
        plan = decision.refused or decision.plan
        assert plan is not None, "an object is either refused or planned"
        argv, unknown = _argv(decision), decision.model_unknown or _unasked(seen, plan)
        if output == "json":
            told = explain_data(plan, argv=argv, unknown=unknown)
            explained.append({"name": seen.name, "namespace": seen.namespace, **told})
        else:
            click.echo(explain_text(f"{seen.namespace}/{seen.name}", plan, argv=argv, unknown=unknown), nl=False)
    if output == "json":
        click.echo(json.dumps(explained[0] if len(explained) == 1 else explained, indent=2, ensure_ascii=False))
    _fail_if_refused(d for _, d in decided)


@click.command()
@files_option
@nodes_option
@defaults_option
def validate(files: tuple[str, ...], nodes: Path | None, defaults: Path | None) -> None:
    """Check InferenceServices, ModelGateways and Benchmarks without a cluster; unknown fields are errors."""
    given = _load(files)
    for service in given.services:
        _check_schema(service)
    for gateway in given.gateways:
        _check_gateway(gateway)
    for benchmark in given.benchmarks:
        _check_benchmark(benchmark)
    typed: list[tuple[list[dict[str, Any]], type[ApiModel]]] = [
        (given.services, InferenceServiceSpec),
        (given.gateways, ModelGatewaySpec),
        (given.benchmarks, BenchmarkSpec),
    ]
    unknown = [
        f"{where(item)}: {path}" for items, spec in typed for item in items for path in unknown_fields(item, spec)
    ]
    if unknown:
        fail(f"unknown fields: {'; '.join(unknown)}. Correct or remove them.")
    _fail_if_refused(decision for _, decision in _decide_all(given.services, nodes, read_defaults(defaults)))
    counted = (
        (names.KIND, given.services),
        (names.MODEL_GATEWAY_KIND, given.gateways),
        (names.BENCHMARK_KIND, given.benchmarks),
    )
    told = [f"{len(items)} {kind}{'' if len(items) == 1 else 's'}" for kind, items in counted if items]
    click.echo(f"{', '.join(told)} valid")


def _decide_all(
    services: Iterable[dict[str, Any]], nodes: Path | None, configured: Defaults
) -> list[tuple[Observation, Decision]]:
    cluster = _read_cluster(nodes)
    now = datetime.now(UTC)
    decided = []
    for service in services:
        _check_schema(service)
        seen = Observation(service=_as_new(service), cluster=cluster, defaults=configured)
        decided.append((seen, decide(seen, now)))
    return decided


def _as_new(item: dict[str, Any]) -> dict[str, Any]:
    """As it would be applied to an empty cluster: what is being deleted elsewhere is new there."""
    metadata = {key: value for key, value in item["metadata"].items() if key != "deletionTimestamp"}
    return {**item, "metadata": metadata, "status": {}}


def read_defaults(path: Path | None) -> Defaults:
    try:
        return load_defaults(path)
    except UnreadableDefaults as error:
        fail(str(error))


def _read_cluster(nodes: Path | None) -> ClusterFacts:
    if nodes is None:
        return ClusterFacts()
    try:
        objects = load_manifests(nodes.read_text("utf-8"))
    except (OSError, ValueError) as error:
        fail(f"--nodes {nodes}: {error}")
    of_kind = {kind: [item for item in objects if item["kind"] == kind] for kind in ("Node", "ResourceSlice")}
    if others := sorted({str(item["kind"]) for item in objects} - of_kind.keys()):
        fail(
            f"--nodes {nodes}: expected Nodes and ResourceSlices, found {', '.join(others[:3])}. Give it kubectl get nodes "
            "-o yaml, or kubectl get nodes,resourceslices -o yaml."
        )
    return ClusterFacts(nodes=with_slices(read_nodes(of_kind["Node"]), read_resource_slices(of_kind["ResourceSlice"])))


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """The objects of our kinds in the files."""

    services: list[dict[str, Any]]
    gateways: list[dict[str, Any]]
    benchmarks: list[dict[str, Any]]


def sort(manifests: Iterable[dict[str, Any]]) -> Given:
    """The objects of our kinds."""
    found: dict[object, list[dict[str, Any]]] = {kind: [] for kind in OUR_KINDS}
    for manifest in manifests:
        if manifest.get("apiVersion") == names.API_VERSION and manifest["kind"] in found:
            found[manifest["kind"]].append(manifest)
    return Given(
        services=found[names.KIND],
        gateways=found[names.MODEL_GATEWAY_KIND],
        benchmarks=found[names.BENCHMARK_KIND],
    )


def _load(files: Iterable[str]) -> Given:
    given = sort(read_manifests(files))
    if not (given.services or given.gateways or given.benchmarks):
        fail(f"no {', '.join(OUR_KINDS[:-1])} or {OUR_KINDS[-1]} of {names.API_VERSION} in {', '.join(files)}.")
    return given


def _check_schema(service: dict[str, Any]) -> None:
    """The rules that the API server would check."""
    check_types(service, InferenceServiceSpec, f"an {names.KIND}")
    engine = service["spec"]["engine"]["name"]
    if engine not in ENGINE_NAMES:
        fail(f"{where(service)}: engine.name '{engine}' is not known. Use one of: {', '.join(ENGINE_NAMES)}.")


def _check_gateway(gateway: dict[str, Any]) -> None:
    check_types(gateway, ModelGatewaySpec, f"a {names.MODEL_GATEWAY_KIND}")


def _check_benchmark(benchmark: dict[str, Any]) -> None:
    check_types(benchmark, BenchmarkSpec, f"a {names.BENCHMARK_KIND}")


def _unasked(seen: Observation, plan: Plan | Unplannable) -> ModelProblem | None:
    if isinstance(plan, Unplannable) and plan.code != UNKNOWN:
        # What is refused in any case is asked about nowhere.
        return None
    spec = read_spec(seen.service)
    return unasked(seen, spec) if isinstance(spec, InferenceServiceSpec) else None


def _argv(decision: Decision) -> list[str]:
    for manifest in decision.desired:
        if manifest["kind"] == "Deployment":
            container = manifest["spec"]["template"]["spec"]["containers"][0]
            return [*container.get("command", ()), *container["args"]]
    return []


def _fail_if_refused(decisions: Iterable[Decision]) -> None:
    refused = [d.refused for d in decisions if isinstance(d.refused, Unplannable)]
    if refused:
        fail(" ".join(f"{r.code}: {r.message}" for r in refused), UNPLANNABLE)
