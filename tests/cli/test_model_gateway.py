"""ModelGateways on the command line, without a cluster."""

from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from draftmark.cli import main
from draftmark.render.yaml_io import load_manifests
from tests.api.test_model_gateway import gateway
from tests.specs import service


def run(command: str, *items: Any) -> Result:
    return CliRunner().invoke(main, [command, "-f", "-"], input=yaml.safe_dump_all(items))


def test_validate_counts_both_kinds() -> None:
    assert run("validate", gateway(maxBodyBytes="4Mi")).stdout == "1 ModelGateway valid\n"
    assert (
        run("validate", service(), gateway("a"), gateway("b")).stdout == "1 InferenceService, 2 ModelGateways valid\n"
    )


@pytest.mark.parametrize(
    ("item", "told"),
    [
        (gateway(maxBodyBytes="1Ki"), "between 64Ki and 16Mi"),
        (gateway(tpyo=1), "spec.tpyo"),
        (gateway("9"), "begin with a letter"),
        ({**gateway(), "metadata": {}}, "a ModelGateway has no metadata.name"),
        ({**gateway(), "spec": []}, ""),
        ({**gateway(), "spec": "all"}, "all"),
    ],
)
def test_validate_says_what_is_wrong(item: Any, told: str) -> None:
    result = run("validate", service(), item)
    assert result.exit_code == (1 if told else 0)
    assert told in result.stderr


def test_render_prints_the_objects_of_both() -> None:
    manifests = load_manifests(run("render", service(), gateway()).stdout)
    mine = [m for m in manifests if m["metadata"]["labels"].get("draftmark.dev/model-gateway") == "all"]
    assert [m["kind"] for m in mine] == ["ServiceAccount", "ConfigMap", "Deployment", "Service", "NetworkPolicy"]
    assert len(manifests) > len(mine)


def test_explain_is_for_services() -> None:
    result = run("explain", gateway())
    assert result.exit_code == 1
    assert "no InferenceService" in result.stderr


def test_a_file_without_either_is_named() -> None:
    result = run("render", {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}})
    assert "no InferenceService, ModelGateway or Benchmark" in result.stderr
