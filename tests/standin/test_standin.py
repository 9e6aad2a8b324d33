"""The stand-in engine against what llama-server v0.7.0 (build 11669) was seen to answer, and the trouble it makes."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
import yaml

from e2e import standin
from e2e.cluster import binaries
from tests.standin.questions import QUESTIONS, RECORDED, RERANKING, ask

pytestmark = pytest.mark.integration

CHAT = "/v1/chat/completions"


@pytest.fixture(scope="session")
def program() -> Path:
    return binaries.STANDIN.build() / "llama-server"


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("model") / "tiny.gguf"
    file.write_bytes(b"GGUF")
    return file


class Running:
    """An engine, and a client to it."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process = process
        self.client = httpx.Client(base_url=url, timeout=10)

    def wait_until_loaded(self) -> None:
        until(lambda: self.client.get("/health").status_code == 200)

    def requests(self) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = self.client.get("/standin/requests").json()["requests"]
        return found

    def gauge(self, name: str) -> float:
        (line,) = re.findall(rf"^llamacpp:{name} (\S+)$", self.client.get("/metrics").text, re.MULTILINE)
        return float(line)

    def output(self) -> str:
        return self.process.communicate(timeout=10)[0]


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


Start = Callable[..., Any]


@pytest.fixture
def start(program: Path, model: Path) -> Start:
    @contextmanager
    def starting(*arguments: str, loaded: bool = True, **environment: str) -> Iterator[Running]:
        command = [str(program), "--port", "0", "--model", str(model), "--alias", "tiny", "--metrics", *arguments]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(command, text=True, env={**os.environ, **environment, "HOSTNAME": "pod-1"}, **pipes)
        try:
            assert process.stderr is not None
            said = re.search(r"listening on (\S+),", process.stderr.readline())
            assert said is not None
            running = Running(process, f"http://{said[1]}")
            if loaded:
                running.wait_until_loaded()
            with closing(running.client):
                yield running
        finally:
            process.kill()
            process.communicate()

    return starting


def chat(content: str = "Hello", **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}], **more}


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RECORDED.read_text())
    return found


def test_answers_have_the_shapes_of_the_real_server(start: Start, recorded: dict[str, Any]) -> None:
    assert recorded.keys() == QUESTIONS.keys() | RERANKING.keys()
    for flag, questions in (("--embeddings", QUESTIONS), ("--reranking", RERANKING)):
        with start(flag) as engine:
            for name, question in questions.items():
                assert ask(engine.client, question) == recorded[name], name


def test_tokens_follow_from_the_prompt_and_streamed_or_not_they_are_the_same(start: Start) -> None:
    expected = "".join(standin.tokens(standin.prompt_of(chat()["messages"]), 5))
    with start() as engine:
        whole = engine.client.post(CHAT, json=chat(max_tokens=5)).json()
        assert whole["choices"][0]["message"]["content"] == expected
        assert whole["usage"]["completion_tokens"] == 5
        streamed = engine.client.post(CHAT, json=chat(max_tokens=5, stream=True)).text
        events = [json.loads(line[6:]) for line in streamed.splitlines() if line.startswith("data: {")]
        assert "".join(event["choices"][0]["delta"].get("content") or "" for event in events) == expected
        assert streamed.endswith("data: [DONE]\n\n")
        text = engine.client.post("/v1/completions", json={"prompt": "Hello", "max_tokens": 2}).json()
        assert text["choices"][0]["text"] == "".join(standin.tokens("Hello", 2))


def rendered() -> Iterator[list[str]]:
    """The arguments of every engine in the golden files whose model is a file."""
    for path in sorted((Path(__file__).parents[1] / "golden").glob("*/expected.yaml")):
        for item in yaml.safe_load_all(path.read_text()):
            if item["kind"] == "Deployment":
                for container in item["spec"]["template"]["spec"]["containers"]:
                    if "--model" in container.get("args", []):
                        yield container["args"]


def test_takes_what_the_operator_renders(program: Path) -> None:
    command_lines = list(rendered())
    assert command_lines
    for arguments in command_lines:
        done = subprocess.run([program, *arguments, "--port", "0"], capture_output=True, text=True, timeout=10)
        assert "failed to load model" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nope"], "invalid argument: --nope"),
        (["--alias"], "expected value for argument: --alias"),
        (["--model", "/nowhere.gguf"], "failed to load model, '/nowhere.gguf'"),
        (["--model", "/proc/self/status"], "invalid magic characters"),
    ],
)
def test_wrong_arguments_and_models_end_it(program: Path, arguments: list[str], message: str) -> None:
    done = subprocess.run([program, "--port", "0", *arguments], capture_output=True, text=True, timeout=10)
    assert done.returncode == 1
    assert message in done.stderr


def test_while_loading_only_the_models_are_told(start: Start) -> None:
    with start(loaded=False, STANDIN_LOAD_SECONDS="0.5") as engine:
        answers = [engine.client.get("/health"), engine.client.post(CHAT, json=chat())]
        assert [answer.status_code for answer in answers] == [503, 503]
        assert answers[0].json()["error"]["message"] == "Loading model"
        assert engine.client.get("/v1/models").json()["data"][0]["meta"] is None
        engine.wait_until_loaded()
        assert engine.client.post(CHAT, json=chat()).status_code == 200


def test_requests_beyond_the_slots_wait(start: Start) -> None:
    with start("--parallel", "2", STANDIN_FIRST_TOKEN_MS="400") as engine:
        began = time.monotonic()
        with httpx.Client(base_url=engine.client.base_url, timeout=10) as client:
            threads = [Thread(target=client.post, args=(CHAT,), kwargs={"json": chat()}) for _ in range(3)]
            for thread in threads:
                thread.start()
            until(lambda: engine.gauge("requests_processing") == 2 and engine.gauge("requests_deferred") == 1)
            for thread in threads:
                thread.join()
        assert time.monotonic() - began >= 0.8
        assert engine.gauge("requests_processing") == engine.gauge("requests_deferred") == 0


def test_requests_are_counted_by_their_id_and_told_in_the_log(start: Start) -> None:
    with start(STANDIN_TOKEN_MS="20") as engine:
        engine.client.post(CHAT, json=chat(user="a", max_tokens=1))
        engine.client.post(CHAT, json=chat(user="a", max_tokens=1))
        engine.client.post(CHAT, json=chat(max_tokens=1))
        with engine.client.stream("POST", CHAT, json=chat(user="left", max_tokens=10_000, stream=True)) as stream:
            next(stream.iter_lines())
        until(lambda: engine.requests()["left"]["cut"] == 1)
        with engine.client.stream("POST", CHAT, json=chat(user="stopped", max_tokens=10_000, stream=True)) as stream:
            lines = stream.iter_lines()
            next(lines)
            assert engine.requests() == {
                "a": {"seen": 2, "done": 2, "cut": 0},
                "left": {"seen": 1, "done": 0, "cut": 1},
                "stopped": {"seen": 1, "done": 0, "cut": 0},
            }
            assert engine.client.get("/standin/requests").json()["pod"] == "pod-1"
            engine.process.send_signal(signal.SIGTERM)
            with pytest.raises(httpx.RemoteProtocolError):
                list(lines)
        log = engine.output()
        assert engine.process.returncode == 0
        assert standin.events(log) == {
            "a": {"seen": 2, "done": 2},
            "left": {"seen": 1, "cut": 1},
            "stopped": {"seen": 1, "stopped": 1},
        }


def test_it_closes_a_connection_after_as_many_requests_as_the_real_one(start: Start) -> None:
    with start() as engine, httpx.Client(base_url=engine.client.base_url) as client:
        closing = [client.get("/health").headers.get("connection") for _ in range(100)]
    assert closing == [None] * 99 + ["close"]


@pytest.mark.parametrize("environment", [{"STANDIN_CRASH": "1"}, {"STANDIN_EXIT_AFTER_SECONDS": "0.1"}])
def test_it_can_end_by_itself(start: Start, environment: dict[str, str]) -> None:
    with start(loaded=False, **environment) as engine:
        assert engine.process.wait(timeout=10) == 1


def test_it_can_stay_silent(start: Start) -> None:
    with start(loaded=False, STANDIN_NEVER_READY="1") as engine:
        assert engine.client.get("/health").status_code == 503
    with start(STANDIN_HANG="answers") as engine:
        with pytest.raises(httpx.ReadTimeout):
            engine.client.post(CHAT, json=chat(user="a"), timeout=0.2)
        until(lambda: engine.requests()["a"]["cut"] == 1)
    with start(loaded=False, STANDIN_HANG="all") as engine, pytest.raises(httpx.ReadTimeout):
        engine.client.get("/health", timeout=0.2)


def test_it_can_refuse(start: Start) -> None:
    with start(STANDIN_STATUS="500") as engine:
        assert engine.client.post(CHAT, json=chat(user="a")).status_code == 500
        assert engine.requests() == {"a": {"seen": 1, "done": 1, "cut": 0}}
