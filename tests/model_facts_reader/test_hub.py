"""Facts of models on a hub, and on hubs that mean ill."""

import asyncio
import gzip
import struct
import time
from typing import Any

import pytest
from aiohttp import web

from draftmark.facts.model_answer import ModelAnswer, ModelProblem
from draftmark.facts.models import ModelFacts
from draftmark.model_facts_reader import hub as reader
from draftmark.model_facts_reader.hub import Limits
from draftmark.model_facts_reader.problem import MAX_CONFIG_BYTES
from e2e import tiny_gguf
from tests.model_facts_reader.files import config, index, safetensors
from tests.model_facts_reader.hub import (
    COMMIT,
    REPOSITORY,
    FakeHub,
    Handler,
    ask,
    endless,
    once,
    part,
    redirect,
    says,
)

INDEX = "model.safetensors.index.json"
CHECKPOINT = {"config.json": config(), INDEX: index(777)}
OTHER_HOST = ("localhost",)


def known(answer: ModelAnswer | ModelProblem) -> ModelFacts:
    assert isinstance(answer, ModelAnswer), answer
    return answer.facts


def told(answer: ModelAnswer | ModelProblem) -> tuple[str, str]:
    assert isinstance(answer, ModelProblem), answer
    return answer.code, answer.message


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return tiny_gguf.write(tmp_path_factory.mktemp("gguf") / "tiny.gguf").read_bytes()


# --- what is there ---


async def test_a_checkpoint_with_an_index_is_three_requests_at_one_commit() -> None:
    async with FakeHub(files=CHECKPOINT).serving() as hub:
        answer = await ask(hub, revision="main")
    assert isinstance(answer, ModelAnswer)
    assert answer.commit == COMMIT
    assert (answer.facts.hidden_size, answer.facts.weight_bytes) == (64, 777)
    assert answer.facts.source == f"config.json of hf://{REPOSITORY} at {COMMIT[:12]}"
    assert hub.paths() == [
        f"/api/models/{REPOSITORY}/revision/main",
        f"/{REPOSITORY}/resolve/{COMMIT}/config.json",
        f"/{REPOSITORY}/resolve/{COMMIT}/{INDEX}",
    ]


async def test_a_checkpoint_of_one_file_is_added_up_from_its_header() -> None:
    weights = safetensors(("a", 1000), padding=300_000) + bytes(1000)
    async with FakeHub(files={"config.json": config(), "model.safetensors": weights}).serving() as hub:
        facts = known(await ask(hub))
    assert (facts.weight_bytes, facts.parameters) == (2000, 1000)
    ranges = [headers.get("range") for _, path, headers in hub.asked if path.endswith("model.safetensors")]
    assert ranges[0] == "bytes=0-262143"
    assert len(ranges) == 2
    assert all(headers["accept-encoding"] == "identity" for _, _, headers in hub.asked)


async def test_a_mirror_without_a_list_is_asked_for_the_files() -> None:
    async with FakeHub(files=CHECKPOINT, has_list=False).serving() as hub:
        answer = await ask(hub, revision="v1")
    assert known(answer).weight_bytes == 777
    assert isinstance(answer, ModelAnswer)
    assert answer.commit == COMMIT
    assert hub.paths()[1] == f"/{REPOSITORY}/resolve/v1/config.json"


async def test_a_checkpoint_without_weights_has_facts_too() -> None:
    for has_list in (True, False):
        async with FakeHub(files={"config.json": config()}, has_list=has_list).serving() as hub:
            assert known(await ask(hub)).weight_bytes is None


async def test_quantization_beside_the_config_counts() -> None:
    files = {**CHECKPOINT, "hf_quant_config.json": b'{"quantization": {"quant_algo": "FP8"}}'}
    async with FakeHub(files=files).serving() as hub:
        quantization = known(await ask(hub)).quantization_config
    assert quantization is not None
    assert quantization.quant_method == "fp8"


async def test_a_gguf_file_is_read_by_ranges(gguf: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "FIRST_BYTES", 512)
    async with FakeHub(files={"dir/tiny.gguf": gguf}).serving() as hub:
        facts = known(await ask(hub, file="dir/tiny.gguf"))
    assert facts.architecture == "llama"
    assert facts.weight_bytes is not None
    ranges = [headers["range"] for _, path, headers in hub.asked if path.endswith(".gguf")]
    assert ranges[0] == "bytes=0-511"
    assert len(ranges) > 1


async def test_a_hub_that_knows_no_ranges_is_read_as_far_as_needed(gguf: bytes) -> None:
    async def whole(_: web.BaseRequest) -> web.Response:
        return web.Response(body=gguf)

    async with FakeHub(files={"tiny.gguf": b""}, instead={"tiny.gguf": whole}).serving() as hub:
        assert known(await ask(hub, file="tiny.gguf")).architecture == "llama"


@pytest.mark.parametrize(
    ("files", "wanted", "taken"),
    [
        (["m-Q8_0.gguf", "m-Q4_K_M.gguf", "m-Q4_K_S.gguf"], {"quantization": "Q4_K_M"}, "m-Q4_K_M.gguf"),
        (["m-q8_0.gguf", "m-q4_k_m.gguf"], {"quantization": "Q8_0"}, "m-q8_0.gguf"),
        (["m.IQ4_XS.gguf", "m.Q4_0.gguf", "m.Q4_0_4_4.gguf"], {"quantization": "Q4_0"}, "m.Q4_0.gguf"),
        (["Q4_K_M/m-00002-of-00002.gguf", "Q4_K_M/m-00001-of-00002.gguf"], {"quantization": "Q4_K_M"}, "Q4_K_M/m-00001-of-00002.gguf"),
        (["m-Q8_0.gguf", "m-Q4_K_M.gguf"], {}, "m-Q4_K_M.gguf"),
        (["mmproj-Q4_K_M.gguf", "m-F16.gguf", "m-BF16.gguf"], {}, "m-BF16.gguf"),
    ],
)  # fmt: skip
async def test_the_gguf_file_is_the_one_that_the_engine_takes(
    files: list[str], wanted: dict[str, Any], taken: str, gguf: bytes
) -> None:
    async with FakeHub(files=dict.fromkeys([*files, "config.json"], gguf)).serving() as hub:
        assert known(await ask(hub, **wanted)).architecture == "llama"
    assert hub.paths()[-1].endswith(f"/{taken}")


async def test_a_quantization_that_is_not_there_is_said_with_those_that_are() -> None:
    async with FakeHub(files={"m-Q8_0.gguf": b""}).serving() as hub:
        code, message = told(await ask(hub, quantization="Q2_K"))
    assert code == "NotFound"
    assert "has no GGUF file of Q2_K (it has: m-Q8_0.gguf)" in message


# --- who is sent where ---


async def test_the_token_goes_to_the_endpoint_alone() -> None:
    async with FakeHub(files=CHECKPOINT).serving() as hub:
        hub.instead["config.json"] = once(redirect(f"{hub.elsewhere}/x/resolve/y/config.json"), lambda r: sent(r))
        assert known(await ask(hub, token="hf_secret", redirect_hosts=OTHER_HOST)).hidden_size == 64

    by_host = {host.partition(":")[0]: headers.get("authorization") for host, _, headers in hub.asked}
    assert by_host == {"127.0.0.1": "Bearer hf_secret", "localhost": None}


async def sent(request: web.BaseRequest) -> web.Response:
    return part(request, config())


async def test_a_relative_redirect_stays_with_the_endpoint_and_its_token() -> None:
    async with FakeHub(files=CHECKPOINT).serving() as hub:
        hub.instead["config.json"] = once(redirect("/cache/resolve/y/config.json"), sent)
        assert known(await ask(hub, token="hf_secret")).hidden_size == 64
    assert {headers.get("authorization") for _, _, headers in hub.asked} == {"Bearer hf_secret"}


@pytest.mark.parametrize(
    "to",
    [
        "{elsewhere}/x/resolve/y/config.json",
        "http://169.254.169.254/latest/meta-data",
        "http://[::1]/x",
        "http://user:password@127.0.0.1/x",
        "//localhost/x",
        "http://127.0.0.1.example.com/x",
        "file:///etc/passwd",
        "gopher://127.0.0.1/x",
        "http://[broken",
    ],
)
async def test_a_redirect_elsewhere_is_not_followed(to: str) -> None:
    async with FakeHub(files=CHECKPOINT).serving() as hub:
        hub.instead["config.json"] = redirect(to.format(elsewhere=hub.elsewhere))
        code, message = told(await ask(hub, token="hf_secret", redirect_hosts=("*.example.org",)))
    assert code in ("RedirectRefused", "HttpRefused")
    assert "hf_secret" not in message
    assert {host.partition(":")[0] for host, _, _ in hub.asked} == {"127.0.0.1"}


async def test_a_star_is_every_host_below_and_not_the_host() -> None:
    async with FakeHub(files=CHECKPOINT).serving() as hub:
        for host, is_followed in (("a.localhost", True), ("localhost", False), ("alocalhost", False)):
            hub.instead["config.json"] = redirect(f"http://{host}:1/x")
            code, _ = told(await ask(hub, redirect_hosts=("*.localhost",)))
            assert (code == "HubUnreachable") is is_followed, host


async def test_a_circle_of_redirects_ends() -> None:
    async with FakeHub(files=CHECKPOINT).serving() as hub:
        hub.instead["config.json"] = redirect(f"/{REPOSITORY}/resolve/main/config.json")
        assert told(await ask(hub))[0] == "RedirectRefused"
    assert len(hub.asked) < 10


async def test_without_the_administrators_word_http_is_refused_before_it_is_asked() -> None:
    async with FakeHub(files=CHECKPOINT).serving() as hub:
        code, message = told(await ask(hub, token="hf_secret", allow_http=False))
    assert code == "HttpRefused"
    assert "hub.allowHttp" in message
    assert hub.asked == []


async def test_a_token_that_cannot_be_sent_is_not_told() -> None:
    async with FakeHub(files=CHECKPOINT).serving() as hub:
        code, message = told(await ask(hub, token="hf_se\ncret"))
    assert code == "UnreadableToken"
    assert "cret" not in message.replace("Secret", "")
    assert hub.asked == []


# --- answers that are none ---


@pytest.mark.parametrize(
    ("status", "headers", "token", "code", "said"),
    [
        (401, {}, None, "NotAuthorized", "Set model.authSecretRef"),
        (403, {"X_Error_Message": "Access is restricted"}, "hf_x", "NotAuthorized", "It says: Access is restricted. Let the owner of the token"),
        (404, {"X_Error_Message": "Invalid rev id"}, None, "NotFound", "Correct model.uri or model.revision"),
        (429, {}, None, "RateLimited", "asks for fewer requests"),
        (500, {}, None, "HubFailed", "failed (500)"),
        (503, {}, None, "HubFailed", "failed (503)"),
        (418, {}, None, "UnexpectedAnswer", "answered 418"),
        (204, {}, None, "UnexpectedAnswer", "answered 204"),
        (302, {}, None, "UnexpectedAnswer", "answered 302"),
    ],
)  # fmt: skip
async def test_a_refusal_is_told_with_the_way_out(
    status: int, headers: dict[str, str], token: str | None, code: str, said: str
) -> None:
    async with FakeHub(files=CHECKPOINT, instead={"config.json": says(status, **headers)}).serving() as hub:
        found, message = told(await ask(hub, token=token))
    assert found == code
    assert said in message


@pytest.mark.parametrize("status", [401, 403])
async def test_a_list_that_is_refused_ends_the_reading(status: int) -> None:
    async with FakeHub(files=CHECKPOINT, instead={"list": says(status)}).serving() as hub:
        assert told(await ask(hub))[0] == "NotAuthorized"
    assert len(hub.asked) == 1


@pytest.mark.parametrize("first", [says(503), says(429)])
async def test_what_may_pass_is_tried_again(first: Handler) -> None:
    async with FakeHub(files=CHECKPOINT, instead={"config.json": once(first, sent)}).serving() as hub:
        assert known(await ask(hub)).hidden_size == 64


async def test_a_refused_connection_and_a_name_without_address_are_told() -> None:
    async with FakeHub().serving() as hub:
        code, message = told(await ask(hub, endpoint="http://127.0.0.1:1"))
        assert (code, "127.0.0.1 cannot be reached from the namespace" in message) == ("HubUnreachable", True)
        code, message = told(await ask(hub, endpoint="http://hub.invalid"))
        assert (code, "hub.invalid cannot be reached" in message) == ("HubUnreachable", True)


async def test_a_repository_of_something_else_is_no_model() -> None:
    async with FakeHub(files={"README.md": b""}).serving() as hub:
        code, message = told(await ask(hub))
    assert code == "NotAModel"
    assert "model.architecture" in message


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"<!doctype html><title>Sign in</title>", "begins with '<!doctype html>"),
        (b"[]", "not a JSON object"),
        (b"{}", "num_hidden_layers"),
        (b"\x00\xff" * 50, "not JSON"),
        (b"[" * 100_000, "not JSON"),
    ],
)
async def test_a_config_that_is_none_is_said(body: bytes, said: str) -> None:
    async with FakeHub(files={"config.json": body}).serving() as hub:
        code, message = told(await ask(hub))
    assert code == "UnreadableConfig"
    assert said in message


# --- answers of enemies ---


async def test_a_body_without_end_is_cut() -> None:
    async with FakeHub(files=CHECKPOINT, instead={"config.json": endless()}).serving() as hub:
        code, message = told(await ask(hub))
    assert code == "TooLarge"
    assert str(MAX_CONFIG_BYTES) in message


async def test_a_part_without_end_is_cut() -> None:
    async with FakeHub(files={"m.gguf": b""}, instead={"m.gguf": endless(b"GGUF" * 4096)}).serving() as hub:
        assert told(await ask(hub, file="m.gguf"))[0] == "NotAModel"


async def test_a_slow_body_is_left() -> None:
    limits = Limits(total_s=0.5, answer_s=0.3, pauses_s=())
    async with FakeHub(files=CHECKPOINT, instead={"config.json": endless(b" ", pause_s=0.05)}).serving() as hub:
        began = time.monotonic()
        code, message = told(await ask(hub, limits=limits))
    assert (code, "0.5 s were not enough" in message) == ("HubTimedOut", True)
    assert time.monotonic() - began < 5


async def test_a_silent_hub_is_left() -> None:
    async def silent(_: web.BaseRequest) -> web.Response:
        await asyncio.sleep(30)
        return web.Response()

    limits = Limits(total_s=5, answer_s=0.2, pauses_s=(0.01,))
    async with FakeHub(instead={"list": silent}).serving() as hub:
        code, message = told(await ask(hub, limits=limits))
    assert (code, "did not answer within 0.2 s" in message) == ("HubTimedOut", True)
    assert len(hub.asked) == 2


async def test_what_is_compressed_is_not_unpacked() -> None:
    bomb = gzip.compress(bytes(50 * 2**20))

    async def packed(_: web.BaseRequest) -> web.Response:
        return web.Response(body=bomb, headers={"Content-Encoding": "gzip"})

    async with FakeHub(files=CHECKPOINT, instead={"config.json": packed}).serving() as hub:
        assert told(await ask(hub))[0] == "UnexpectedAnswer"


async def test_another_part_than_was_asked_for_is_refused() -> None:
    async def other(_: web.BaseRequest) -> web.Response:
        return web.Response(status=206, body=b"GGUF", headers={"Content-Range": "bytes 5-8/9"})

    async with FakeHub(files={"m.gguf": b""}, instead={"m.gguf": other}).serving() as hub:
        assert told(await ask(hub, file="m.gguf"))[0] == "UnexpectedAnswer"


async def test_a_header_that_says_it_is_huge_is_not_fetched() -> None:
    files = {"config.json": config(), "model.safetensors": struct.pack("<Q", 99_000_000) + b"{}"}
    async with FakeHub(files=files).serving() as hub:
        assert known(await ask(hub)).weight_bytes is None
    assert len([path for path in hub.paths() if path.endswith("model.safetensors")]) == 1


async def test_a_gguf_header_without_end_is_not_fetched_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MAX_HEADER_BYTES", 4 * 2**20)
    text = (2**20).to_bytes(8, "little") + bytes(2**20)
    body = b"GGUF" + (3).to_bytes(4, "little") + bytes(8) + (1).to_bytes(8, "little")
    body += (1).to_bytes(8, "little") + b"k" + (9).to_bytes(4, "little") + (8).to_bytes(4, "little")
    body += (2**22).to_bytes(8, "little") + 8 * text
    async with FakeHub(files={"m.gguf": body}).serving() as hub:
        assert told(await ask(hub, file="m.gguf"))[0] == "NotAModel"
    assert len([path for path in hub.paths() if path.endswith(".gguf")]) <= 3


@pytest.mark.parametrize("name", ["..", "a/../b.gguf", "a//b.gguf"])
async def test_a_file_name_cannot_lead_elsewhere(name: str) -> None:
    async with FakeHub(files=CHECKPOINT).serving() as hub:
        assert told(await ask(hub, file=name))[0] == "NotFound"
    assert len(hub.asked) == 1


async def test_a_list_of_something_else_is_taken_for_none() -> None:
    async def strange(_: web.BaseRequest) -> web.Response:
        return web.json_response({"sha": "main", "siblings": [1, {"rfilename": 2}, {"rfilename": "config.json"}]})

    async with FakeHub(files=CHECKPOINT, instead={"list": strange}).serving() as hub:
        answer = await ask(hub, revision="refs/pr/1")
    assert known(answer).hidden_size == 64
    assert hub.paths()[1] == f"/{REPOSITORY}/resolve/refs%2Fpr%2F1/config.json"
    assert isinstance(answer, ModelAnswer)
    assert answer.commit == COMMIT
