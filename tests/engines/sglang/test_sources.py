"""Where models, adapters and guessing models of SGLang come from."""

from typing import Any

import pytest

from tests.engines.sglang.ask import args, env, pod, refused, value_of
from tests.specs import Object

SOURCES = {
    "hf://org/repo": ("org/repo", None),
    "pvc://weights/llama/3": ("/models/llama/3", {"persistentVolumeClaim": {"claimName": "weights", "readOnly": True}}),
    "oci://host/a:1": ("/models", {"image": {"reference": "host/a:1", "pullPolicy": "IfNotPresent"}}),
    "oci://host/a:1#m/x": ("/models/m/x", {"image": {"reference": "host/a:1", "pullPolicy": "IfNotPresent"}}),
}


@pytest.mark.parametrize("uri", SOURCES)
def test_the_model_has_its_flag_and_its_volume_is_read_only(uri: str) -> None:
    path, volume = SOURCES[uri]
    spec = pod(("model.uri", uri))
    assert spec["containers"][0]["args"][:2] == ["--model-path", path]
    mounts = [m for m in spec["containers"][0]["volumeMounts"] if m["name"] == "draftmark-model"]
    assert mounts == ([{"name": "draftmark-model", "mountPath": "/models", "readOnly": True}] if volume else [])
    assert [v for v in spec["volumes"] if v["name"] == "draftmark-model"] == (
        [{"name": "draftmark-model", **volume}] if volume else []
    )


@pytest.mark.parametrize("uri", SOURCES)
def test_nothing_asks_the_hub_where_the_model_is_at_hand(uri: str) -> None:
    assert env(("model.uri", uri)).get("HF_HUB_OFFLINE") == (None if uri.startswith("hf://") else "1")


@pytest.mark.parametrize(
    "more",
    [
        ("model.adapters", [{"name": "tiny:a", "uri": "hf://org/lora"}]),
        ("engine.options.speculative", {"method": "eagle", "tokens": 2, "uri": "hf://org/draft"}),
    ],
)
def test_a_part_from_the_hub_needs_the_hub(more: tuple[str, Any]) -> None:
    assert "HF_HUB_OFFLINE" not in env(more)


def test_a_commit_is_that_of_weights_and_tokenizer() -> None:
    """SGLang has one flag for both."""
    assert value_of(args(("model", {"uri": "hf://org/repo", "revision": "abc"})), "--revision") == "abc"


def test_the_token_is_an_environment_variable_from_its_secret_and_never_an_argument() -> None:
    token = ("model", {"uri": "hf://org/repo", "authSecretRef": {"name": "hub", "key": "token"}})
    assert env(token)["HF_TOKEN"] == {"secretKeyRef": {"name": "hub", "key": "token"}}
    assert not any("token" in word for word in args(token) if not word.startswith("--"))


@pytest.mark.parametrize(
    ("uri", "way_out"),
    [
        ("https://host/m.gguf", "pvc://CLAIM/FOLDER"),
        ("hf://org/repo:Q4_K_M", "llama-cpp"),
        ("hf://org/repo/m.gguf", "llama-cpp"),
        ("pvc://claim/m.gguf", "llama-cpp"),
        ("oci://image#m.gguf", "llama-cpp"),
        ("pvc://claim/dir/model.safetensors", "Name the folder"),
    ],
)
def test_what_sglang_cannot_read_is_refused_with_the_way_out(uri: str, way_out: str) -> None:
    answers = [refused(("model.uri", uri))]
    if not uri.startswith("https"):  # the schema knows that nothing else may be behind a URL
        answers.append(refused(("model.adapters", [{"name": "tiny:a", "uri": uri}])))
        answers.append(refused(("engine.options.speculative", _eagle(uri))))
    for answer in answers:
        assert answer.code == "UnsupportedModelFormat"
        assert way_out in answer.message
        assert uri in answer.message
        assert "vLLM" not in answer.message


def _eagle(uri: str) -> Object:
    return {"method": "eagle", "tokens": 2, "uri": uri}
