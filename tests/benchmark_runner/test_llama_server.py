"""The tokenizer that is built from a GGUF file, against the real llama-server, and against the one that it was made from."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from draftmark.benchmark_runner.connections import keeps_connections
from draftmark.benchmark_runner.self_description import described
from draftmark.benchmark_runner.tokenizer import TEXTS
from draftmark.engines.registry import ENGINES
from draftmark.measure.order import FromClaim, OrderedTarget
from e2e import benchmark_packages, tiny_llama, tiny_llama_gguf
from tests.benchmark_runner.llama_server import llama_server

pytestmark = pytest.mark.integration

#: Reads the tokenizers of a folder and of a file with the packages of the image, lets the engine judge both, and tells
#: what each makes of the texts.
PROGRAM = """
import asyncio, json, sys
from draftmark.benchmark_runner.tokenizer import TEXTS, compare, get_tokenizer
from draftmark.measure.order import FromClaim, OrderedTarget

told = []
for path in sys.argv[2:]:
    target = OrderedTarget(label="target", url=sys.argv[1], model="tiny", tokenizer=FromClaim(path=path))
    tokenizer = get_tokenizer(target)
    asyncio.run(compare(tokenizer, target, [sys.argv[1]]))
    told.append([tokenizer.is_built, tokenizer.added, [list(tokenizer.numbers(text)) for text in TEXTS]])
print(json.dumps(told))
"""


def test_a_folder_and_the_file_made_from_it_have_the_tokens_of_llama_server(tmp_path: Path) -> None:
    folder = tiny_llama.write(tmp_path / "model")
    file = tiny_llama_gguf.write(tmp_path / "model-BF16.gguf", folder)
    with llama_server(file) as url:
        done = subprocess.run(
            [os.path.realpath(sys.executable), "-S", "-c", PROGRAM, url, str(folder), str(file)],
            env={**benchmark_packages.environment(), "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        with httpx.Client(base_url=url, trust_env=False) as client:
            answers = [client.post("/tokenize", json={"content": text, "add_special": True}) for text in TEXTS]
    theirs = [answer.json()["tokens"] for answer in answers]
    assert json.loads(done.stdout) == [[False, 0, theirs], [True, 0, theirs]]
    assert max(map(len, theirs)) < max(len(text.encode()) for text in TEXTS), "some words are one token"


async def test_llama_server_is_known_by_what_it_says_and_closes_connections(tmp_path: Path) -> None:
    file = tiny_llama_gguf.write(tmp_path / "model.gguf", tiny_llama.write(tmp_path / "model"))
    signs = tuple(engine.sign for engine in ENGINES.values())
    with llama_server(file) as url:
        target = OrderedTarget(label="target", url=url, model="tiny", tokenizer=FromClaim(path=str(file)), signs=signs)
        (listed,) = httpx.Client(trust_env=False).get(f"{url}/v1/models").json()["data"]
        facts = await described(target, listed["owned_by"])
        assert not await keeps_connections(url, "tiny")
    assert facts.engine == "llama-cpp"
    assert facts.version is not None
    assert re.fullmatch(r"b[0-9]+-\S+", facts.version), facts.version
