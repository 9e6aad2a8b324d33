"""Which images a set of manifests needs."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from draftmark.cli import main
from draftmark.render.yaml_io import dump_manifests
from tests.api.test_benchmark import benchmark
from tests.golden_cases import GoldenCase, golden_cases
from tests.specs import Object, service, spec

GATEWAY, ROUTER, OPERATOR = (
    "docker.io/library/haproxy:3.0",
    "docker.io/lightseekorg/smg:1.13.0",
    "ghcr.io/draftmark/operator:0.2.0",
)
ENGINE = "ghcr.io/ggml-org/llama.cpp:server-v0.7.0"
MODEL_GATEWAY = {
    "apiVersion": "draftmark.dev/v1alpha1",
    "kind": "ModelGateway",
    "metadata": {"name": "all"},
    "spec": {},
}


def images(*items: Object, words: tuple[str, ...] = ()) -> Result:
    result = CliRunner().invoke(main, ["images", "-f", "-", *words], input=dump_manifests(items))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def listed(*items: Object, words: tuple[str, ...] = ()) -> list[str]:
    result = images(*items, words=words)
    assert result.exit_code == 0, result.stderr
    return result.stdout.splitlines()


def configured(text: str) -> Object:
    """The chart's ConfigMap."""
    labels = {"app.kubernetes.io/part-of": "draftmark"}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "draftmark-defaults", "labels": labels},
        "data": {"defaults.yaml": text},
    }


def test_a_service_needs_its_engine_its_router_and_its_gateway() -> None:
    assert listed(service()) == [GATEWAY, ROUTER, OPERATOR, ENGINE]


def test_a_model_gateway_needs_what_a_gateway_needs() -> None:
    assert listed(MODEL_GATEWAY) == [GATEWAY, OPERATOR]


def test_a_benchmark_needs_the_load_generator() -> None:
    assert listed(benchmark()) == ["ghcr.io/draftmark/benchmark:0.2.0"]
    mirrored = (benchmark(), configured("registryMirror: mirror.example\n"))
    assert listed(*mirrored) == ["mirror.example/draftmark/benchmark:0.2.0"]
    named = (benchmark(), configured("benchmarks: {image: 'own/benchmark:1'}\n"))
    assert listed(*named) == ["own/benchmark:1"]


def test_a_model_in_an_image_is_listed() -> None:
    assert "registry.example/model:1" in listed(
        service(spec(model={"uri": "oci://registry.example/model:1#tiny.gguf"}))
    )


def test_what_is_named_twice_is_listed_once() -> None:
    assert listed(service(name="a"), service(name="b"), MODEL_GATEWAY) == listed(service())


def test_defaults_are_those_of_the_chart_among_the_manifests() -> None:
    given = (service(), configured("registryMirror: mirror.example\ntraffic: {gatewayImage: own/haproxy:1}\n"))
    assert listed(*given) == [
        "mirror.example/draftmark/operator:0.2.0",
        "mirror.example/ggml-org/llama.cpp:server-v0.7.0",
        "mirror.example/lightseekorg/smg:1.13.0",
        "own/haproxy:1",
    ]


def test_a_file_of_defaults_counts_before_the_charts(tmp_path: Path) -> None:
    file = tmp_path / "defaults.yaml"
    file.write_text("registryMirror: other.example\n")
    found = listed(service(), configured("registryMirror: mirror.example\n"), words=("--defaults", str(file)))
    assert {image.partition("/")[0] for image in found} == {"other.example"}


def test_images_of_other_manifests_are_read_as_they_stand_there() -> None:
    pod = {
        "initContainers": [{"name": "a", "image": "init:1"}],
        "containers": [{"name": "b", "image": "main:1"}],
        "volumes": [{"name": "m", "image": {"reference": "volume:1"}}, {"name": "n", "emptyDir": {}}],
    }
    job = {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "c"},
           "spec": {"jobTemplate": {"spec": {"template": {"spec": pod}}}}}  # fmt: skip
    schema = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "d"},
              "spec": {"schema": {"containers": {"type": "array"}, "volumes": {"image": {"type": "string"}}}}}  # fmt: skip
    assert listed(job, schema) == ["init:1", "main:1", "volume:1"]


@pytest.mark.parametrize("case", golden_cases(), ids=lambda case: case.folder.name)
def test_no_image_of_a_golden_case_is_missing(case: GoldenCase) -> None:
    rendered = "".join(case.rendered())
    words = ["images", "-f", str(case.folder / "input.yaml")]
    for option in ("nodes", "defaults"):
        if (file := case.folder / f"{option}.yaml").is_file():
            words += [f"--{option}", str(file)]
    found = set(CliRunner().invoke(main, words).stdout.splitlines())
    named = set(re.findall(r"^ +(?:- )?(?:image|reference): (\S+)$", rendered, re.MULTILINE))
    assert named == found


@pytest.mark.parametrize(
    ("items", "code", "told"),
    [
        ([{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}}], 1, "no image"),
        ([service(spec(model={"uri": "pvc://no-file"}))], 2, "UnreadableModelUri"),
        ([service(), configured("registryMirrors: x")], 1, "draftmark-defaults"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_listed(items: list[Object], code: int, told: str) -> None:
    result = images(*items)
    assert (result.exit_code, result.stdout) == (code, "")
    assert told in result.stderr
    assert len(result.stderr.splitlines()) == 1
