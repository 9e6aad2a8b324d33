"""Record what this version would leave in a cluster, for all later versions to be tested against."""

import shutil
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from draftmark.decide import decide
from draftmark.facts.nodes import ClusterFacts, read_nodes
from draftmark.observation import Observation
from draftmark.render.yaml_io import dump_manifest, dump_manifests, load_manifests
from draftmark.settings import load_defaults
from tests.golden_cases import golden_cases

HERE = Path(__file__).parent
CHART = HERE.parents[1] / "charts" / "draftmark"
#: The uid that the recorded objects belong to.
UID = "00000000-0000-4000-8000-000000000001"


def record(folder: Path) -> None:
    """Write the chart, and per golden case that is accepted the service and its children."""
    if folder.exists():
        shutil.rmtree(folder)
    shutil.copytree(CHART, folder / "chart")
    for case in golden_cases():
        (given,) = load_manifests((case.folder / "input.yaml").read_text("utf-8"))
        defaults, nodes = case.folder / "defaults.yaml", case.folder / "nodes.yaml"
        service = {**given, "metadata": {**given["metadata"], "uid": UID, "generation": 1}}
        decision = decide(
            Observation(
                service=service,
                cluster=ClusterFacts(
                    nodes=read_nodes(load_manifests(nodes.read_text("utf-8"))) if nodes.is_file() else None
                ),
                defaults=load_defaults(defaults if defaults.is_file() else None),
            ),
            datetime(2026, 1, 1, tzinfo=UTC),
        )
        if decision.refused is not None:
            continue
        target = folder / "children" / case.folder.name
        target.mkdir(parents=True)
        (target / "service.yaml").write_text(dump_manifest(service), "utf-8")
        (target / "children.yaml").write_text(dump_manifests([*decision.pins, *decision.desired]), "utf-8")


if __name__ == "__main__":
    record(HERE / version("draftmark"))
