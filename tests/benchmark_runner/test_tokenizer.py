"""Whose tokenizer it is: compared with what an engine says."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from aiohttp import web

from draftmark.benchmark_runner import tokenizer as module
from draftmark.benchmark_runner.problem import RunRefused
from draftmark.benchmark_runner.tokenizer import MAX_ANSWER_BYTES, Tokenizer, compare, get_tokenizer
from draftmark.measure.order import FromClaim, FromHub, TargetFacts
from e2e import tiny_gguf
from tests.benchmark_runner.orders import a_target
from tests.model_facts_reader.hub import COMMIT, REPOSITORY, FakeHub, endless, says

BEGIN = 1


def bytes_of(text: str) -> list[int]:
    return [10 + byte for byte in text.encode()]


def a_tokenizer(*, is_built: bool = False) -> Tokenizer:
    return Tokenizer(
        numbers=bytes_of, text=lambda _: "", size=266, added=0, source="tokenizer.json of a test", is_built=is_built
    )


@asynccontextmanager
async def engine(answer: Callable[[dict[str, Any]], Any]) -> AsyncIterator[str]:
    async def tokenize(request: web.Request) -> web.Response:
        return web.json_response(answer(await request.json()))

    app = web.Application()
    app.router.add_post("/tokenize", tokenize)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def like_llama_server(tokens: Callable[[str], Sequence[int]]) -> Callable[[dict[str, Any]], Any]:
    def answer(body: dict[str, Any]) -> Any:
        found = tokens(body.get("content", ""))
        return {"tokens": [BEGIN, *found] if body.get("add_special") else list(found)}

    return answer


def like_vllm(tokens: Callable[[str], Sequence[int]]) -> Callable[[dict[str, Any]], Any]:
    def answer(body: dict[str, Any]) -> Any:
        if "prompt" not in body:
            return {"object": "error", "message": "prompt is missing"}
        found = list(tokens(body["prompt"]))
        return {"count": len(found), "max_model_len": 4096, "tokens": found, "token_strs": None}

    return answer


@pytest.mark.parametrize(("like", "added"), [(like_llama_server, 1), (like_vllm, 0)])
async def test_the_same_tokens_say_how_many_are_added(like: Any, added: int) -> None:
    tokenizer = a_tokenizer(is_built=True)
    async with engine(like(bytes_of)) as url:
        # The router does not know the question; the engine's pod does.
        await compare(tokenizer, a_target(), ["http://127.0.0.1:1", url])
    assert tokenizer.added == added


@pytest.mark.parametrize("like", [like_llama_server, like_vllm])
@pytest.mark.parametrize("is_built", [True, False])
async def test_other_tokens_are_refused_with_where_they_differ(like: Any, is_built: bool) -> None:
    def other(text: str) -> list[int]:
        found = bytes_of(text)
        return [*found[:5], 999, *found[7:]]

    async with engine(like(other)) as url:
        with pytest.raises(RunRefused, match=r"tokens \(token \d+: \d+\)") as refused:
            await compare(a_tokenizer(is_built=is_built), a_target(), [url])
    assert refused.value.refusal.code == "TokenizerUnavailable"
    assert refused.value.refusal.is_failure


async def test_what_we_built_is_not_believed_without_a_comparison() -> None:
    with pytest.raises(RunRefused, match="cannot be checked"):
        await compare(a_tokenizer(is_built=True), a_target(), ["http://127.0.0.1:1"])
    await compare(a_tokenizer(), a_target(), ["http://127.0.0.1:1"])


@pytest.mark.parametrize(
    "body",
    [b"[" * 100_000, b'{"tokens": [1' + b" " * MAX_ANSWER_BYTES + b"]}", b"\xff", b"", b'{"tokens": "1"}'],
    ids=lambda body: str(body[:12]),
)
async def test_an_answer_that_is_none_or_too_long_is_no_comparison(body: bytes) -> None:
    async with FakeHub(files={"": body}).serving() as server:
        await compare(a_tokenizer(), a_target(), [server.url])
        with pytest.raises(RunRefused, match="cannot be checked"):
            await compare(a_tokenizer(is_built=True), a_target(), [server.url])


@pytest.mark.timeout(20)
async def test_an_answer_that_comes_byte_by_byte_is_no_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_S", 0.3)
    async with FakeHub(instead={"": endless(b" ", pause_s=0.05)}).serving() as server:
        with pytest.raises(RunRefused, match="cannot be checked"):
            await compare(a_tokenizer(is_built=True), a_target(), [server.url])


@pytest.mark.parametrize("name", ["nothing", "weights.bin", "broken.gguf", "folder"])
def test_what_is_no_tokenizer_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "weights.bin").write_bytes(b"x")
    (tmp_path / "broken.gguf").write_bytes(b"GGUF\3\0\0\0")
    (tmp_path / "folder").mkdir()
    with pytest.raises(RunRefused) as refused:
        get_tokenizer(a_target(tokenizer=FromClaim(path=str(tmp_path / name))))
    assert refused.value.refusal.code == "TokenizerUnavailable"
    assert name in refused.value.refusal.message


async def test_a_hub_that_does_not_give_it_is_a_reason() -> None:
    async with FakeHub(files={"config.json": b"{}"}).serving() as hub:
        where = FromHub(endpoint=hub.url, repository=REPOSITORY, allow_http=True)
        with pytest.raises(RunRefused, match=r"tokenizer\.json") as refused:
            await asyncio.to_thread(get_tokenizer, a_target(tokenizer=where))
        assert hub.paths()[-1] == f"/{REPOSITORY}/resolve/{COMMIT}/tokenizer.json"
    assert refused.value.refusal.code == "TokenizerUnavailable"


@pytest.mark.parametrize(("service", "named"), [(None, "target.tokenizer"), ("llama", "model.uri")])
def test_a_hub_that_does_not_answer_is_told_with_the_way_out(
    service: str | None, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("draftmark.benchmark_runner.tokenizer.HUB_S", 0.5)  # too short for a second try
    where = FromHub(endpoint="http://127.0.0.1:1", repository=REPOSITORY, allow_http=True)
    with pytest.raises(RunRefused) as refused:
        get_tokenizer(a_target(tokenizer=where, facts=TargetFacts(service=service)))
    message = refused.value.refusal.message
    assert "cannot be reached" in message
    assert message.endswith(f"Let pods of the namespace reach the hub, or bring it on a claim (pvc://) as {named}.")


@pytest.mark.parametrize(
    ("service", "named"),
    [(None, ("target.authSecretRef", "target.tokenizer")), ("llama", ("model.authSecretRef", "model.uri"))],
)
@pytest.mark.parametrize("token", [None, "hf_secret"])
async def test_what_a_gated_repository_needs_is_named_as_the_target_has_it(
    service: str | None, named: tuple[str, str], token: str | None
) -> None:
    gated = says(403, X_Error_Code="GatedRepo")
    async with FakeHub(instead={"list": gated, "tokenizer.json": gated}).serving() as hub:
        where = FromHub(endpoint=hub.url, repository=REPOSITORY, allow_http=True)
        target = a_target(tokenizer=where, facts=TargetFacts(service=service))
        with pytest.raises(RunRefused) as refused:
            await asyncio.to_thread(get_tokenizer, target, token=token)
    message = refused.value.refusal.message
    fields = {"target.authSecretRef", "target.tokenizer", "model.authSecretRef", "model.uri"}
    assert {name for name in fields if name in message} == set(named), message
    assert token is None or token not in message


@pytest.fixture
def built_from(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What a tokenizer is built from. What builds it is in the image alone: test_program.py runs it."""
    found: list[dict[str, Any]] = []

    class Loaded:
        def get_vocab_size(self) -> int:
            return len(found[-1]["tokens"])

    def convert(_: str, vocabulary: dict[str, Any]) -> tuple[Loaded, dict[str, Any]]:
        found.append(vocabulary)
        return Loaded(), {}

    module = ModuleType("gguf_tokenizer_mapping")
    module.__dict__["convert_gguf_tokenizer"] = convert
    for name in ("transformers", "transformers.integrations", "transformers.integrations.gguf"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "transformers.integrations.gguf.gguf_tokenizer_mapping", module)
    return found


@pytest.mark.parametrize(
    ("files", "asked", "taken"),
    [
        (["m-Q8_0.gguf", "m-Q4_K_M.gguf", "tokenizer.json"], {"quantization": "Q4_K_M"}, "m-Q4_K_M.gguf"),
        (["a/m-00001-of-00002.gguf", "tokenizer.json"], {"file": "a/m-00001-of-00002.gguf"}, "a/m-00001-of-00002.gguf"),
        (["m-Q8_0.gguf", "m-Q4_K_M.gguf"], {}, "m-Q4_K_M.gguf"),  # what llama.cpp takes of such a repository
    ],
    ids=["quantization", "file", "nothing"],
)
async def test_it_is_built_from_the_header_of_the_file_that_the_engine_takes(
    tmp_path: Path, built_from: list[dict[str, Any]], files: list[str], asked: dict[str, str], taken: str
) -> None:
    gguf = tiny_gguf.write(tmp_path / "tiny.gguf").read_bytes()
    contents = {name: gguf if name == taken else b"another" for name in files}
    async with FakeHub(files=contents).serving() as hub:
        where = FromHub(endpoint=hub.url, repository=REPOSITORY, allow_http=True, **asked)
        tokenizer = await asyncio.to_thread(get_tokenizer, a_target(tokenizer=where))
        assert {path for path in hub.paths() if "/resolve/" in path} == {f"/{REPOSITORY}/resolve/{COMMIT}/{taken}"}
    (vocabulary,) = built_from
    assert vocabulary["tokens"][:3] == ["<unk>", "<s>", "</s>"]
    assert (vocabulary["tokenizer_type"], vocabulary["bos_token_id"]) == ("llama", 1)
    # The beginning, as its header says; and its makers wrote no tokenizer.json that one could trust more.
    assert (tokenizer.size, tokenizer.added, tokenizer.is_built) == (len(vocabulary["tokens"]), 1, True)


async def test_a_quantization_that_the_hub_does_not_have_is_a_reason() -> None:
    async with FakeHub(files={"m-Q8_0.gguf": b"", "tokenizer.json": b"{}"}).serving() as hub:
        where = FromHub(endpoint=hub.url, repository=REPOSITORY, allow_http=True, quantization="Q4_K_M")
        with pytest.raises(RunRefused, match=r"no GGUF file of Q4_K_M \(it has: m-Q8_0\.gguf\)") as refused:
            await asyncio.to_thread(get_tokenizer, a_target(tokenizer=where))
    assert refused.value.refusal.code == "TokenizerUnavailable"
