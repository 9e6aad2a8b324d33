"""Facts of models, read by a Job from a real claim, from an image, and from a hub that cannot be reached.

No node here has a GPU, so the engines of these services find no node. What was read is known before that.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from draftmark.api import names
from draftmark.cluster.kinds import DEPLOYMENTS, INFERENCE_SERVICES, JOBS, PODS
from e2e import tiny_llama
from e2e.models import CLAIM, URI
from tests.e2e.api import Json, Namespace, eventually
from tests.e2e.installed import Installed, inference_service, make_namespace

HERE: Final = "model-facts"
#: Its degree is left open, so the plan depends on the model.
GPU: Final[Json] = {"product": "Test-GPU"}


@pytest.fixture(scope="module")
def space(installed: Installed) -> Iterator[Namespace]:
    """A namespace of restricted security; its services go with the module, for their pods wait for a GPU in vain."""
    namespace = make_namespace(installed, HERE)
    yield namespace
    for name in namespace.service_names():
        namespace.api.delete(INFERENCE_SERVICES, HERE, name)


def facts(space: Namespace, name: str) -> Json:
    """What the status remembers of the model."""
    found: Json = space.service(name).get("status", {}).get("modelFacts") or {}
    return found


def known(space: Namespace, name: str, within_s: float = 60.0) -> Json:
    eventually(f"the model of {name} is known", lambda: facts(space, name).get("state") == "Known", within_s=within_s)
    return facts(space, name)


def reader_pods(space: Namespace) -> list[Json]:
    return space.api.list(PODS, HERE, **{names.LABEL_ROLE: names.ROLE_MODEL_FACTS})


def gguf_service(name: str, **spec: Any) -> Json:
    return inference_service(name, accelerator=GPU, **spec)


def test_a_real_gguf_file_on_a_real_claim_is_read_and_its_job_goes(space: Namespace, measured: list[str]) -> None:
    began = time.monotonic()
    space.apply(gguf_service("gguf"))
    found = known(space, "gguf")
    measured.append(f"a service until the facts of its GGUF file are known: {time.monotonic() - began:.1f} s")
    read = found["facts"]
    assert (read["architecture"], read["quantizationConfig"]["quantMethod"]) == ("llama", "gguf")
    assert read["source"].startswith(URI)
    assert read["weightBytes"] > 0
    eventually(
        "the Job is gone, and its pod", lambda: not space.api.list(JOBS, HERE) and not reader_pods(space), within_s=40
    )
    eventually("the revision is made", lambda: space.service("gguf")["status"].get("revisions"), within_s=20)
    assert "ModelFactsUnknown" not in space.conditions("gguf")


def test_a_folder_of_safetensors_on_a_claim_is_read_with_its_weights(
    space: Namespace, installed: Installed, tmp_path: Path
) -> None:
    folder = tiny_llama.write(tmp_path / "llama")
    installed.target.place(folder)
    wanted = inference_service("folder", uri=f"pvc://{CLAIM}/llama", accelerator=GPU)
    wanted["spec"]["engine"] = {"name": "vllm"}
    space.apply(wanted)
    read = known(space, "folder")["facts"]
    config = json.loads((folder / "config.json").read_text())
    assert (read["architecture"], read["hiddenSize"]) == ("LlamaForCausalLM", config["hidden_size"])
    weights = folder / "model.safetensors"
    header = 8 + int.from_bytes(weights.read_bytes()[:8], "little")
    assert read["weightBytes"] == weights.stat().st_size - header


def test_a_gguf_file_in_an_image_is_read(space: Namespace, installed: Installed) -> None:
    space.apply(inference_service("picture", uri=installed.image_uri, accelerator=GPU))
    assert known(space, "picture")["facts"]["architecture"] == "llama"


def test_a_path_that_is_not_there_is_told_and_an_edit_asks_anew(space: Namespace) -> None:
    space.apply(gguf_service("lost", uri=f"pvc://{CLAIM}/no-such-file.gguf"))
    eventually("it is told", lambda: "ModelFactsUnknown" in space.conditions("lost"), within_s=60)
    told = space.conditions("lost")["ModelFactsUnknown"]
    assert told["reason"] == "NotFound"
    assert "There is no no-such-file.gguf on the volume" in told["message"]
    # It is made all the same, and without facts.
    assert space.service("lost")["status"]["revisions"]

    space.edit("lost", model={"uri": URI})
    assert known(space, "lost")["facts"]["architecture"] == "llama"
    eventually("nothing is missing", lambda: "ModelFactsUnknown" not in space.conditions("lost"), within_s=20)


def test_a_hub_that_cannot_be_reached_is_told_and_stops_no_service(space: Namespace, measured: list[str]) -> None:
    began = time.monotonic()
    space.apply(gguf_service("offline", uri="hf://org/repo:Q4_K_M"))
    eventually("it is told", lambda: "ModelFactsUnknown" in space.conditions("offline"), within_s=100)
    measured.append(f"a service until it is told that the hub cannot be reached: {time.monotonic() - began:.1f} s")
    told = space.conditions("offline")["ModelFactsUnknown"]
    assert told["reason"] in ("HubUnreachable", "HubTimedOut")
    assert "huggingface.co" in told["message"]
    assert "Write model.architecture" in told["message"]
    eventually("its engine is asked for", lambda: deployments(space, "offline"), within_s=20)


def test_a_service_that_says_everything_asks_nothing(space: Namespace) -> None:
    space.apply(gguf_service("given", parallelism={"tensor": 1}))
    eventually("its engine is asked for", lambda: deployments(space, "given"), within_s=20)
    assert facts(space, "given") == {}
    assert [pod for pod in reader_pods(space) if pod["metadata"]["labels"][names.LABEL_SERVICE] == "given"] == []


def test_a_job_that_is_deleted_while_it_is_asked_ends_in_the_same_answer(space: Namespace) -> None:
    space.apply(gguf_service("twice"))
    eventually(
        "it is asked", lambda: jobs(space, "twice") or facts(space, "twice").get("state") == "Known", within_s=20
    )
    for job in jobs(space, "twice"):
        space.api.delete(JOBS, HERE, job["metadata"]["name"])
    assert known(space, "twice")["facts"]["architecture"] == "llama"


def jobs(space: Namespace, name: str) -> list[Json]:
    return space.api.list(JOBS, HERE, **{names.LABEL_SERVICE: name})


def deployments(space: Namespace, name: str) -> list[Json]:
    return space.api.list(DEPLOYMENTS, HERE, **names.selector_labels(name))
