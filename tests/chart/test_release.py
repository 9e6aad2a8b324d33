"""The chart as a release: upgraded from every recorded version, uninstalled, installed again, and all of it removed.

By Helm against a real API server, without a node and so without an operator: this is what Helm does to what it finds. What
the operator does to it then is in `tests/upgrade` and `tests/e2e/test_upgrade.py`. Commands are those of docs/install.md.
"""

import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from draftmark.api import names
from e2e.cluster.cluster import Cluster
from e2e.tools import Tools
from tests.chart.test_chart import CHART, NAMESPACE, ROOT, find_helm, helm
from tests.e2e.api import eventually
from tests.integration.conftest import cluster_name
from tests.upgrade.test_upgrade import VERSIONS

Json = dict[str, Any]

GUIDE = (ROOT / "docs" / "install.md").read_text("utf-8")
RECORDED = "claim"
MODELS = "models"
KINDS = "pods,deployments,services,serviceaccounts,controllerrevisions"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(cluster_name("hr"), control_plane_only=True).running() as found:
        yield found


@pytest.fixture
def tools(cluster: Cluster) -> Iterator[Tools]:
    """A cluster without anything of ours."""
    found = Tools(cluster.kubeconfig)
    found.kubectl("create", "namespace", NAMESPACE)
    found.kubectl("create", "namespace", MODELS)
    try:
        yield found
    finally:
        helm_in(found, "uninstall", "draftmark", "--namespace", NAMESPACE, "--ignore-not-found")
        for resource in ("crd", "clusterrole"):
            ours = [name for name in named(found, resource) if "draftmark" in name]
            for name in ours if resource == "crd" else ():
                # The API server cannot end a kind that nobody has listed yet ("storage is (re)initializing"), and tries it
                # again after ever longer pauses.
                found.kubectl("get", name, "--all-namespaces")
            if ours:
                found.kubectl("delete", resource, *ours, "--timeout=30s")
        # Nothing is left that would hold a namespace back, but the controller is told late of definitions that went.
        found.kubectl("delete", "namespace", NAMESPACE, MODELS, "--timeout=60s")


def helm_in(tools: Tools, *arguments: str) -> str:
    done = subprocess.run(
        [find_helm(), f"--kubeconfig={tools.kubeconfig}", *arguments], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def named(tools: Tools, resource: str, *words: str) -> set[str]:
    out = tools.kubectl("get", resource, "-o=jsonpath={range .items[*]}{.metadata.name}{'\\n'}{end}", *words)
    return set(out.split())


def commands_of(section: str, after: str = "") -> list[list[str]]:
    """The commands of the first console block of a section of the guide, as words."""
    text = GUIDE.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    block = re.search(r"```console\n(.*?)```", text.partition(after)[2] if after else text, re.DOTALL)
    assert block is not None, f"docs/install.md, {section}: there are no commands"
    lines = block[1].replace("\\\n", " ").splitlines()
    return [shlex.split(line.removeprefix("$ "), comments=True) for line in lines if line.startswith("$ ")]


def follow(tools: Tools, command: list[str], *, fill_in: str = "") -> str:
    """Run a command of the guide."""
    program, *words = [word.replace("…", fill_in).replace("charts/draftmark", str(CHART)) for word in command]
    runs: dict[str, Callable[..., str]] = {"helm": lambda *w: helm_in(tools, *w), "kubectl": tools.kubectl}
    return runs[program](*words)


def serve(tools: Tools, version: Path) -> None:
    """The recorded service with its children, and one pod of each engine."""
    folder = version / "children" / RECORDED
    [service] = yaml.safe_load_all((folder / "service.yaml").read_text("utf-8"))
    service = {k: v for k, v in service.items() if k != "status"}
    service["metadata"] = {"name": service["metadata"]["name"], "namespace": MODELS}
    tools.apply(service)
    uid = tools.kubectl(
        "get", names.PLURAL + "." + names.GROUP, service["metadata"]["name"], f"--namespace={MODELS}", "-o=jsonpath={.metadata.uid}"
    )  # fmt: skip
    children = list(yaml.safe_load_all((folder / "children.yaml").read_text("utf-8")))
    for child in children:
        child["metadata"] = {
            **{k: v for k, v in child["metadata"].items() if k in ("name", "labels", "annotations", "ownerReferences")},
            "namespace": MODELS,
        }
        # The owner must be there, or the garbage collector takes them.
        for owner in child["metadata"].get("ownerReferences", ()):
            owner["uid"] = uid
    tools.apply(*children)
    eventually("each engine has a pod", lambda: named(tools, "pods", f"--namespace={MODELS}"), within_s=20)


def what_serves(tools: Tools) -> dict[str, tuple[str, int]]:
    """uid and generation of everything that serves, by kind and name; a pod that was replaced has another uid."""
    kinds = f"{KINDS},{names.PLURAL}.{names.GROUP}"
    found = yaml.safe_load(tools.kubectl("get", kinds, f"--namespace={MODELS}", "-o=yaml"))["items"]
    return {
        f"{item['kind']}/{item['metadata']['name']}": (item["metadata"]["uid"], item["metadata"].get("generation", 0))
        for item in found
        if item["metadata"]["name"] != "default"
    }


@pytest.mark.parametrize("version", VERSIONS, ids=lambda path: path.name)
def test_an_upgrade_keeps_the_users_values_and_touches_nothing_that_serves(tools: Tools, version: Path) -> None:
    helm_in(
        tools, "install", "draftmark", str(version / "chart"), f"--namespace={NAMESPACE}", "--set=replicas=3",
        "--set=image.repository=registry.example/operator", "--set=image.tag=old",
        "--set=defaults.tolerations[0].key=gpu",
    )  # fmt: skip
    serve(tools, version)
    before = what_serves(tools)
    assert {kind for kind, _, _ in (name.partition("/") for name in before)} >= {"Pod", "Deployment", names.KIND}

    [command] = commands_of("Upgrade")
    follow(tools, command, fill_in="new")

    assert what_serves(tools) == before
    operator = yaml.safe_load(tools.kubectl("get", "deployment", "draftmark", f"--namespace={NAMESPACE}", "-o=yaml"))
    assert operator["spec"]["replicas"] == 3
    assert operator["spec"]["template"]["spec"]["containers"][0]["image"] == "registry.example/operator:new"
    defaults = tools.kubectl("get", "configmap", "draftmark-defaults", f"--namespace={NAMESPACE}", "-o=yaml")
    assert "key: gpu" in defaults
    # What only the new chart knows is there, as its values have it.
    assert "vllm" in defaults
    assert named(tools, "networkpolicies", f"--namespace={NAMESPACE}") == {"draftmark"}
    definition = tools.kubectl("get", "crd", f"{names.PLURAL}.{names.GROUP}", "-o=yaml")
    assert "requestTimeout" in definition
    assert {"modelgateways.draftmark.dev", "benchmarks.draftmark.dev"} <= named(tools, "crd")


@pytest.mark.parametrize("version", VERSIONS, ids=lambda path: path.name)
def test_values_of_an_earlier_chart_alone_are_refused_with_the_way_out(version: Path, tmp_path: Path) -> None:
    """What --reuse-values does: the values of the chart that was installed take the place of this chart's."""
    chart = shutil.copytree(CHART, tmp_path / "chart")
    shutil.copy(version / "chart" / "values.yaml", chart / "values.yaml")
    answer = helm("template", "draftmark", str(chart))
    assert answer.returncode != 0
    assert "--reset-then-reuse-values" in answer.stderr


def test_models_serve_on_without_the_release_and_it_can_come_back(tools: Tools) -> None:
    helm_in(tools, "install", "draftmark", str(CHART), f"--namespace={NAMESPACE}")
    serve(tools, VERSIONS[-1])
    before = what_serves(tools)
    release = yaml.safe_load_all(helm_in(tools, "get", "manifest", "draftmark", f"--namespace={NAMESPACE}"))
    made = {(item["kind"], item["metadata"]["name"]) for item in release if item}

    follow(tools, ["helm", "uninstall", "draftmark", "-n", NAMESPACE])

    assert what_serves(tools) == before
    kept = {(kind, name) for kind, name in made if name in named(tools, kind, "--all-namespaces")}
    assert kept == {
        ("CustomResourceDefinition", "inferenceservices.draftmark.dev"),
        ("CustomResourceDefinition", "modelgateways.draftmark.dev"),
        ("CustomResourceDefinition", "benchmarks.draftmark.dev"),
        ("ClusterRole", "draftmark-router"),
    }

    helm_in(tools, "install", "draftmark", str(CHART), f"--namespace={NAMESPACE}")

    assert what_serves(tools) == before


def test_the_guide_removes_everything(tools: Tools) -> None:
    helm_in(tools, "install", "draftmark", str(CHART), f"--namespace={NAMESPACE}")
    serve(tools, VERSIONS[-1])
    at_first = named(tools, "clusterroles") | named(tools, "clusterrolebindings")
    assert [name for name in at_first if "draftmark" in name]
    try:
        for command in commands_of("Uninstall", after="To remove everything"):
            follow(tools, command)
    finally:
        if NAMESPACE not in named(tools, "namespaces"):
            tools.kubectl("create", "namespace", NAMESPACE)

    for resource in ("crd", "clusterroles", "clusterrolebindings"):
        assert [name for name in named(tools, resource) if "draftmark" in name] == []
    ours = "app.kubernetes.io/managed-by=draftmark"
    assert named(tools, KINDS, "-A", "-l", ours) == set()
    assert named(tools, "deployments", "--all-namespaces") == set()
