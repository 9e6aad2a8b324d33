"""The command line: exit codes, what goes to stdout and stderr, and never a traceback."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from hypothesis import example, given
from hypothesis import strategies as st

from draftmark.cli import main
from draftmark.decide import decide
from draftmark.render.yaml_io import dump_manifest, dump_manifests, load_manifests
from tests.facts.test_resource_slices import gpu, resource_slice
from tests.specs import T0, Object, node, observation, service, spec, with_field

GOOD = service()
UNPLANNABLE = service(spec(model={"uri": "pvc://no-file"}))
INVALID = service(with_field(spec(), "replicas", -1))


def run(*words: str, stdin: str = "") -> Result:
    result = CliRunner().invoke(main, list(words), input=stdin)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def on(command: str, *items: Object) -> Result:
    return run(command, "-f", "-", stdin=dump_manifests(items))


@pytest.mark.parametrize("command", ["render", "explain", "validate", "images"])
@pytest.mark.parametrize(("item", "code"), [(GOOD, 0), (INVALID, 1), (UNPLANNABLE, 2)])
def test_exit_codes_are_0_good_1_invalid_2_not_plannable(command: str, item: Object, code: int) -> None:
    result = on(command, item)
    assert result.exit_code == code
    assert bool(result.stderr) is (code != 0)
    if code:
        assert result.stderr.startswith("draftmark: ")
        assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("stdin", "told"),
    [
        ("", "no InferenceService"),
        ("a: [", "no YAML"),
        ("- a", "found list"),
        ("a: 1", "no kind"),
        ("kind: ConfigMap", "no InferenceService"),
        (yaml.safe_dump({**GOOD, "metadata": {}}), "metadata.name"),
        (yaml.safe_dump({**GOOD, "metadata": None}), "metadata.name"),
        (yaml.safe_dump(service(name="a" * 41)), "longer than 40"),
        (yaml.safe_dump(service(name="a.b")), "begin with a letter"),
        (yaml.safe_dump(service(with_field(spec(), "engine.name", "ollama"))), "llama-cpp"),
        (yaml.safe_dump({**GOOD, "spec": None}), "spec.model"),
    ],
)
def test_what_is_wrong_is_said(stdin: str, told: str) -> None:
    result = run("render", "-f", "-", stdin=stdin)
    assert (result.exit_code, result.stdout) == (1, "")
    assert told in result.stderr


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for words in (["-f", str(tmp_path / "none")], ["-f", str(tmp_path)]):
        assert run("render", *words).exit_code == 1
    (tmp_path / "latin").write_bytes(b"\xff\xfe")
    assert run("render", "-f", str(tmp_path / "latin")).exit_code == 1


def test_several_files_lists_and_other_kinds(tmp_path: Path) -> None:
    (tmp_path / "a").write_text(dump_manifest(service(name="a")))
    both = {"apiVersion": "v1", "kind": "List", "items": [service(name="b"), {"kind": "ConfigMap"}]}
    (tmp_path / "b").write_text(dump_manifest(both))
    result = run("render", "-f", str(tmp_path / "a"), "-f", str(tmp_path / "b"))
    services = [m["metadata"]["name"] for m in load_manifests(result.stdout) if m["kind"] == "Service"]
    assert [name for name in services if name in ("a", "b")] == ["a", "b"]


def test_render_is_what_the_operator_would_apply() -> None:
    decision = decide(observation(), T0)
    assert load_manifests(on("render", GOOD).stdout) == [*decision.pins, *decision.desired]


def test_render_is_the_same_twice_and_whatever_the_status_says() -> None:
    elsewhere = {**GOOD, "status": {"conditions": [], "revisions": [{"hash": "x"}]}}
    assert on("render", GOOD).stdout == on("render", GOOD).stdout == on("render", elsewhere).stdout


def test_what_is_being_deleted_elsewhere_is_new_here() -> None:
    deleted = service(deletionTimestamp="2026-01-01T00:00:00Z")
    assert on("render", deleted).stdout == on("render", GOOD).stdout
    assert on("explain", deleted).exit_code == 0


def test_nodes_are_facts(tmp_path: Path) -> None:
    image = dump_manifest(service(spec(model={"uri": "oci://image:1"})))
    nodes = tmp_path / "nodes.yaml"
    nodes.write_text(dump_manifest({"apiVersion": "v1", "kind": "NodeList", "items": [node("containerd://1.6.20")]}))
    assert run("render", "-f", "-", stdin=image).exit_code == 0
    assert run("render", "-f", "-", "--nodes", str(nodes), stdin=image).exit_code == 2
    nodes.write_text(dump_manifest(node("containerd://2.4.2")))
    assert run("render", "-f", "-", "--nodes", str(nodes), stdin=image).exit_code == 0
    nodes.write_text(image)
    assert "expected Nodes" in run("render", "-f", "-", "--nodes", str(nodes), stdin=image).stderr


def test_resource_slices_among_the_nodes_are_facts_of_them(tmp_path: Path) -> None:
    chat = dump_manifest(service(spec(model={"uri": "hf://meta-llama/Llama-3.1-8B"}, engine={"name": "auto"})))
    file = tmp_path / "nodes.yaml"
    items = [node(name="gpu-0"), resource_slice(gpu(0), gpu(1), node="gpu-0")]
    file.write_text(dump_manifest({"apiVersion": "v1", "kind": "List", "items": items}))
    answer = run("explain", "-f", "-", "--nodes", str(file), stdin=chat)
    assert answer.exit_code == 2
    assert "Node gpu-0 offers 2 NVIDIA-A100-80GB-PCIe by DRA" in answer.stdout


def test_explain_as_json_has_these_keys() -> None:
    told = json.loads(run("explain", "-f", "-", "-o", "json", stdin=dump_manifest(GOOD)).stdout)
    assert list(told) == [
        "name", "namespace", "accepted", "engine", "model", "parameters", "layout", "memory", "concurrency", "reasons",
        "rejected", "argsUnchecked",
    ]  # fmt: skip
    assert list(told["engine"]) == ["name", "version", "image", "args"]
    assert list(told["model"]) == ["servedName", "maxContextLength"]
    assert list(told["layout"]) == [
        "tensor", "pipeline", "data", "expert", "nodes", "gpusPerReplica", "product", "resourceName",
    ]  # fmt: skip


def test_explain_says_what_a_cluster_would_ask_for_first() -> None:
    wanted = spec(model={"uri": "pvc://weights/llama"}, engine={"name": "vllm"}, accelerator={"product": "NVIDIA-L4"})
    text = on("explain", service(wanted)).stdout
    assert "In a cluster a Job reads it from pvc://weights/llama first" in text
    told = json.loads(run("explain", "-f", "-", "-o", "json", stdin=dump_manifest(service(wanted))).stdout)
    assert told["modelUnknown"]["code"] == "NobodyAsked"
    assert told["memory"] is None
    assert on("render", service(wanted)).exit_code == 0
    refused = with_field(wanted, "engine.args", ["--no-such-flag"])
    assert "a Job reads it" not in on("explain", service(refused)).stdout


def test_explain_of_a_refusal_says_so_on_both_streams() -> None:
    result = run("explain", "-f", "-", "-o", "json", stdin=dump_manifest(UNPLANNABLE))
    assert json.loads(result.stdout)["accepted"] is False
    assert "UnreadableModelUri" in result.stderr


def test_explain_of_several_is_a_list() -> None:
    result = run("explain", "-f", "-", "-o", "json", stdin=dump_manifests([service(name="a"), service(name="b")]))
    assert [told["name"] for told in json.loads(result.stdout)] == ["a", "b"]


@pytest.mark.parametrize("path", ["tpyo", "model.tpyo", "engine.env[0].tpyo", "podTemplate.metadata.tpyo"])
def test_validate_names_fields_that_nobody_knows(path: str) -> None:
    wanted = with_field(spec(), "engine.env", [{"name": "A"}])
    result = on("validate", service(with_field(wanted, path, 1)))
    assert result.exit_code == 1
    assert f"spec.{path.replace('[0]', '.0')}" in result.stderr
    assert on("validate", service(wanted)).stdout == "1 InferenceService valid\n"


DEFAULTS = [
    ("engines: {llama-cpp: {version: b1}}", 0, ""),
    ("", 0, ""),
    ("regsitryMirror: x", 1, "regsitryMirror"),
    ("- a", 1, "the file"),
    ("a: [", 1, "no YAML"),
    ("registryMirror: a\n---\nregistryMirror: b", 1, "2 YAML documents"),
    ("registryMirror: !!timestamp x", 1, "cannot be read"),
]


@pytest.mark.parametrize(("text", "code", "told"), DEFAULTS)
def test_defaults_are_checked(tmp_path: Path, text: str, code: int, told: str) -> None:
    (tmp_path / "d.yaml").write_text(text)
    result = run("render", "-f", "-", "--defaults", str(tmp_path / "d.yaml"), stdin=dump_manifest(GOOD))
    assert result.exit_code == code
    assert told in result.stderr


def test_help_and_version() -> None:
    assert run("--version").stdout.startswith("draftmark, version ")
    for command in ("render", "explain", "validate", "generate", "run"):
        assert command in run("--help").stdout
        assert run(command, "--help").exit_code == 0


#: What YAML may hold and JSON not, or what makes readers of YAML stumble.
STRANGE = [
    "2026-01-01", "2026-13-45", "!!binary /w==", "!!set {a, b}", "!!int x", "!!float x", "!!bool x", "!!timestamp x", "!!null x",
    "!!python/object:os.system {}", ".nan", "-.inf", "0x_", "0b_", "1" * 5000, "190:20:30", "&a [*a]", "&b {c: *b}", "*nobody",
    '"\\ud800"', '"\\uFFFE"', "{1: 2}", "{[1]: 2}", "{null: 1}", "[" * 500, "%YAML 9.9", "\t", "? a", "<<: 1", "{<<: *x}", "=", "yes",
    "{a: 1, a: 2}",
]  # fmt: skip


@pytest.mark.parametrize("command", ["render", "explain", "validate", "images"])
@pytest.mark.parametrize("text", STRANGE, ids=lambda text: text[:12])
def test_strange_yaml_is_no_traceback(command: str, text: str) -> None:
    head = "apiVersion: draftmark.dev/v1alpha1\nkind: InferenceService\n"
    small = "  model: {uri: pvc://c/m.gguf}\n  engine: {name: llama-cpp}\n"
    for stdin in (
        text,
        f"{head}metadata: {text}\nspec:\n{small}",
        f"{head}metadata: {{name: {text}}}\nspec:\n{small}",
        f"{head}metadata: {{name: a, namespace: {text}, uid: {text}}}\nspec:\n{small}",
        f"{head}metadata: {{name: a}}\nspec: {text}\n",
        f"{head}metadata: {{name: a}}\nspec:\n{small}  podTemplate: {{affinity: {{a: {text}}}, other: {text}}}\n",
        f"{head}metadata: {{name: a}}\nspec:\n{small}  workload: {text}\n",
    ):
        assert run(command, "-f", "-", stdin=stdin).exit_code in (0, 1, 2)


json_values: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.dates() | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
paths = st.sampled_from(
    ["metadata", "metadata.name", "metadata.namespace", "metadata.uid", "metadata.deletionTimestamp", "spec", "spec.model", "spec.model.uri",
     "spec.engine", "spec.engine.args", "spec.engine.env", "spec.engine.resources", "spec.accelerator", "spec.replicas", "spec.podTemplate",
     "spec.podTemplate.affinity", "spec.podTemplate.volumes", "spec.podTemplate.metadata.labels", "spec.rollout", "spec.unknown", "status"]
)  # fmt: skip


@given(command=st.sampled_from(["render", "explain", "validate"]), path=paths, value=json_values)
@example(command="explain", path="spec.podTemplate.affinity", value={"a": {"b": None}})
def test_no_value_in_any_place_is_a_traceback(command: str, path: str, value: Any) -> None:
    text = yaml.safe_dump(with_field(GOOD, path, value), allow_unicode=True)
    assert run(command, "-f", "-", stdin=text).exit_code in (0, 1, 2)


@given(items=st.lists(json_values, max_size=3))
def test_no_node_list_is_a_traceback(tmp_path_factory: pytest.TempPathFactory, items: list[Any]) -> None:
    nodes = tmp_path_factory.mktemp("nodes") / "nodes.yaml"
    for some in (items, [{"kind": "Node", "metadata": item, "spec": item, "status": item} for item in items]):
        nodes.write_text(yaml.safe_dump({"kind": "NodeList", "items": some}), "utf-8")
        result = run("render", "-f", "-", "--nodes", str(nodes), stdin=dump_manifest(GOOD))
        assert result.exit_code in (0, 1)
