"""Facts of models on a volume, and what leads out of it."""

import os
from pathlib import Path

import pytest

from draftmark.facts.gguf_header import MAX_HEADER_BYTES
from draftmark.facts.model_answer import ModelAnswer, ModelProblem
from draftmark.facts.models import ModelFacts
from draftmark.model_facts_reader import mounted
from draftmark.model_facts_reader.mounted import MAX_FILES, read_mounted
from draftmark.model_facts_reader.problem import MAX_CONFIG_BYTES, ReadingEnds
from e2e import tiny_gguf, tiny_llama
from tests.model_facts_reader.files import config, index, safetensors

SOURCE = "pvc://weights/model"


def answer(root: Path, path: str = "") -> ModelAnswer | ModelProblem:
    try:
        return read_mounted(root, path, source=SOURCE)
    except ReadingEnds as ends:
        return ends.problem


def facts(root: Path, path: str = "") -> ModelFacts:
    found = answer(root, path)
    assert isinstance(found, ModelAnswer), found
    return found.facts


def problem(root: Path, path: str = "") -> tuple[str, str]:
    found = answer(root, path)
    assert isinstance(found, ModelProblem), found
    return found.code, found.message


def put(folder: Path, **files: bytes) -> Path:
    """A folder with files; their names have `__` for dots."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_bytes(content)
    return folder


def test_a_folder_of_safetensors_is_read_with_its_weights(tmp_path: Path) -> None:
    tiny_llama.write(tmp_path / "llama")
    read = facts(tmp_path, "llama")
    weights = tmp_path / "llama" / "model.safetensors"
    header = 8 + int.from_bytes(weights.read_bytes()[:8], "little")
    assert (read.architecture, read.num_hidden_layers, read.hidden_size) == ("LlamaForCausalLM", 2, 128)
    assert read.weight_bytes == weights.stat().st_size - header
    assert read.source == SOURCE
    assert read.parameters is not None
    assert 2 * read.parameters == read.weight_bytes


def test_a_gguf_file_is_read(tmp_path: Path) -> None:
    tiny_gguf.write(tmp_path / "tiny.gguf")
    read = facts(tmp_path, "tiny.gguf")
    assert read.architecture == "llama"
    assert read.quantization_config is not None
    assert read.quantization_config.quant_method == "gguf"
    assert read.weight_bytes is not None
    assert read.source.startswith(SOURCE)


def test_a_folder_without_a_config_may_hold_the_gguf_file_that_is_taken_by_default(tmp_path: Path) -> None:
    tiny_gguf.write(tmp_path / "model.gguf")
    assert facts(tmp_path).architecture == "llama"


def test_a_header_longer_than_the_first_piece_is_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_gguf.write(tmp_path / "tiny.gguf")
    whole = facts(tmp_path, "tiny.gguf")
    monkeypatch.setattr(mounted, "FIRST_BYTES", 16)
    assert facts(tmp_path, "tiny.gguf") == whole


def test_files_are_added_up_and_their_experts_told(tmp_path: Path) -> None:
    put(
        tmp_path,
        config__json=config(),
        a__safetensors=safetensors(("model.embed", 1000)),
        b__safetensors=safetensors(("model.layers.0.mlp.experts.0.up", 500)),
    )
    read = facts(tmp_path)
    assert (read.weight_bytes, read.expert_weight_bytes, read.parameters) == (3000, 1000, 1500)


@pytest.mark.parametrize("broken", [b"", b"\xff" * 8, safetensors(("a", 10))[:-5]])
def test_where_a_file_cannot_be_read_the_index_tells_the_sum(tmp_path: Path, broken: bytes) -> None:
    whole = safetensors(("a", 10))
    put(tmp_path, config__json=config(), a__safetensors=whole, b__safetensors=broken)
    assert facts(tmp_path).weight_bytes is None
    put(tmp_path, model__safetensors__index__json=index(4321))
    assert facts(tmp_path).weight_bytes == 4321


@pytest.mark.parametrize("broken", [b"<html>", index("many"), index(-1), b"[]"])
def test_an_index_that_says_nothing_is_no_obstacle(tmp_path: Path, broken: bytes) -> None:
    put(tmp_path, config__json=config(), model__safetensors__index__json=broken)
    assert facts(tmp_path).weight_bytes is None


def test_of_too_many_files_none_is_added_up(tmp_path: Path) -> None:
    put(tmp_path, config__json=config())
    for number in range(MAX_FILES + 1):
        (tmp_path / f"{number:04}.safetensors").write_bytes(safetensors(("a", 10)))
    assert facts(tmp_path).weight_bytes is None


def test_quantization_beside_the_config_counts(tmp_path: Path) -> None:
    put(tmp_path, config__json=config(), hf_quant_config__json=b'{"quantization": {"quant_algo": "FP8"}}')
    read = facts(tmp_path).quantization_config
    assert read is not None
    assert (read.quant_method, read.bits) == ("fp8", 8)


def test_links_inside_the_volume_are_followed(tmp_path: Path) -> None:
    """As the hub's own cache lays a model out."""
    blobs = put(tmp_path / "blobs", **{"0123": config()})
    snapshot = tmp_path / "snapshots" / "main"
    snapshot.mkdir(parents=True)
    os.symlink("../../blobs/0123", snapshot / "config.json")
    assert facts(tmp_path, "snapshots/main").hidden_size == 64
    assert blobs.exists()


@pytest.mark.parametrize("target", ["/etc", "..", "/proc/self"])
def test_a_folder_that_is_a_link_out_of_the_volume_is_refused(tmp_path: Path, target: str) -> None:
    volume = put(tmp_path / "volume")
    put(tmp_path, config__json=config())
    os.symlink(target, volume / "model")
    assert problem(volume, "model")[0] == "OutsideOfTheVolume"


@pytest.mark.parametrize("name", ["config.json", "model.gguf"])
@pytest.mark.parametrize("target", ["/etc/passwd", "/proc/self/environ", "../secret.json"])
def test_a_file_that_is_a_link_out_of_the_volume_is_refused(tmp_path: Path, name: str, target: str) -> None:
    put(tmp_path, secret__json=config())
    volume = put(tmp_path / "volume")
    os.symlink(target, volume / name)
    path = "" if name == "config.json" else name
    assert problem(volume, path)[0] == "OutsideOfTheVolume"


def test_a_volume_beside_of_the_same_beginning_is_outside(tmp_path: Path) -> None:
    put(tmp_path / "volume-of-others", config__json=config())
    volume = put(tmp_path / "volume")
    os.symlink("../volume-of-others/config.json", volume / "config.json")
    assert problem(volume)[0] == "OutsideOfTheVolume"


def test_weights_that_lead_out_of_the_volume_end_the_reading(tmp_path: Path) -> None:
    volume = put(tmp_path / "volume", config__json=config())
    os.symlink("/etc/passwd", volume / "a.safetensors")
    assert problem(volume)[0] == "OutsideOfTheVolume"


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.json")
    os.mkfifo(tmp_path / "model.gguf")
    assert problem(tmp_path)[0] == "NotAModel"
    assert problem(tmp_path, "model.gguf")[0] == "NotAModel"


@pytest.mark.parametrize(
    ("path", "files", "code", "said"),
    [
        ("model", {}, "NotFound", "There is no model on the volume"),
        ("", {}, "NotAModel", "has no config.json"),
        ("weights.bin", {"weights__bin": b"x"}, "NotAModel", "neither a folder with config.json nor a GGUF file"),
        ("a.gguf", {"a__gguf": b"<html>not found</html>"}, "NotAModel", "is no GGUF file"),
        ("a.gguf", {"a__gguf": b""}, "NotAModel", "ends inside its header"),
        ("a.gguf", {"a__gguf": b"GGUF\x03\0\0\0"}, "NotAModel", "ends inside its header"),
        ("", {"config__json": b"<!doctype html>"}, "UnreadableConfig", "begins with '<!doctype html>'"),
        ("", {"config__json": b"[1]"}, "UnreadableConfig", "not a JSON object"),
        ("", {"config__json": b"{}"}, "UnreadableConfig", "num_hidden_layers"),
        ("", {"config__json": b"[" * 100_000}, "UnreadableConfig", "not JSON"),
        ("", {"config__json": config(hidden_size=-1)}, "UnreadableConfig", "hidden_size"),
        ("", {"config__json": b" " * (MAX_CONFIG_BYTES + 1)}, "TooLarge", "has more than"),
    ],
)  # fmt: skip
def test_what_is_no_model_is_said(tmp_path: Path, path: str, files: dict[str, bytes], code: str, said: str) -> None:
    put(tmp_path, **files)
    found, message = problem(tmp_path, path)
    assert found == code
    assert said in message


def test_a_file_that_may_not_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, config__json=config())
    real = os.open

    def refused(path: str, flags: int) -> int:
        if path.endswith("config.json"):
            raise PermissionError(13, "Permission denied")
        return real(path, flags)

    monkeypatch.setattr(os, "open", refused)
    code, message = problem(tmp_path)
    assert code == "UnreadableFile"
    assert "Permission denied" in message
    assert "podTemplate.securityContext" in message


def test_a_gguf_header_without_end_is_not_read_without_end(tmp_path: Path) -> None:
    """A file of holes whose header promises more than is ever read."""
    with (tmp_path / "a.gguf").open("wb") as file:
        # One key of an array of 2^22 strings, each of length 0.
        file.write(b"GGUF" + (3).to_bytes(4, "little") + bytes(8) + (1).to_bytes(8, "little"))
        file.write((1).to_bytes(8, "little") + b"k" + (9).to_bytes(4, "little") + (8).to_bytes(4, "little"))
        file.write((2**22).to_bytes(8, "little") + (2**20).to_bytes(8, "little"))
        file.truncate(4 * MAX_HEADER_BYTES)
    assert problem(tmp_path, "a.gguf")[0] in ("NotAModel", "UnreadableConfig")
