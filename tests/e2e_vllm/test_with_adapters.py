"""A model with an adapter (LoRA): both answer, each under its name."""

import json
from typing import Any

from draftmark.cluster.kinds import INFERENCE_SERVICES
from tests.e2e.api import Namespace
from tests.e2e.installed import HOME, Client, Installed
from tests.e2e_vllm.conftest import START_S, vllm_service

NAME, ADAPTER = "tuned", "noise"


def test_an_adapter_answers_under_its_name(plain: Namespace, installed: Installed, client: Client, vllm: str) -> None:
    image = installed.image_uri.partition("#")[0]
    adapter = {"name": ADAPTER, "uri": f"{image}#adapter", "rank": 8}
    plain.apply(vllm_service(installed, vllm, NAME, model={"adapters": [adapter]}))
    try:
        url = plain.wait_until_ready(NAME, within_s=START_S)["status"]["url"]

        def asking(name: str) -> tuple[str, Any]:
            message = {"role": "user", "content": "Hello"}
            return "/v1/chat/completions", {"model": name, "messages": [message], "max_tokens": 16, "temperature": 0}

        answers = client.ask(url, ("/v1/models", None), asking(NAME), asking(ADAPTER))
        assert [status for status, _, _ in answers] == [200, 200, 200], answers
        models, base, tuned = (json.loads(text) for _, _, text in answers)
        assert {model["id"] for model in models["data"]} == {NAME, ADAPTER}
        assert tuned["choices"][0]["message"]["content"] != base["choices"][0]["message"]["content"]
    finally:
        plain.api.delete(INFERENCE_SERVICES, HOME, NAME)
