"""Requests whose answers must have the same shape from the stand-in as from llama-server, and what a shape is.

`python -m tests.standin.questions URL RERANKING_URL` asks two real llama-servers, started with `--embeddings --pooling
mean --metrics` and with `--reranking --metrics`, and writes `recorded.json`.
"""

import json
import sys
from pathlib import Path
from typing import Any, Final

import httpx

RECORDED: Final = Path(__file__).with_name("recorded.json")
_CHAT: Final = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}
_TEXT: Final = {"prompt": "Hello", "max_tokens": 2}
_STREAM: Final = {"stream": True}
_USAGE: Final = {"stream": True, "stream_options": {"include_usage": True}}

#: Name to path and body; without a body it is a GET.
QUESTIONS: Final[dict[str, tuple[str, dict[str, Any] | None]]] = {
    "health": ("/health", None),
    "models": ("/v1/models", None),
    "unknown path": ("/version", None),
    "chat": ("/v1/chat/completions", _CHAT),
    "chat of another model": ("/v1/chat/completions", {**_CHAT, "model": "another"}),
    "chat without messages": ("/v1/chat/completions", {}),
    "chat stream": ("/v1/chat/completions", {**_CHAT, **_STREAM}),
    "chat stream with usage": ("/v1/chat/completions", {**_CHAT, **_USAGE}),
    "completion": ("/v1/completions", _TEXT),
    "completion stream": ("/v1/completions", {**_TEXT, **_STREAM}),
    "completion stream with usage": ("/v1/completions", {**_TEXT, **_USAGE}),
    "embeddings": ("/v1/embeddings", {"input": ["Hello", "you"]}),
    "rerank by one that does not": ("/v1/rerank", {"query": "Hello", "documents": ["you"]}),
}

#: The same for a server that reranks.
RERANKING: Final[dict[str, tuple[str, dict[str, Any] | None]]] = {
    "rerank": ("/v1/rerank", {"query": "Hello", "documents": ["Hello you", "bye"]}),
    "rerank without query": ("/v1/rerank", {"documents": ["you"]}),
    "rerank without documents": ("/v1/rerank", {"query": "Hello"}),
}


def shape(value: Any) -> Any:
    """The value with kinds in place of what it says; what a list holds is told once, and numbers are of one kind."""
    match value:
        case dict():
            return {key: shape(each) for key, each in sorted(value.items())}
        case list():
            return [json.loads(each) for each in sorted({json.dumps(shape(item)) for item in value})]
        case None | bool():
            return value
        case int() | float():
            return "number"
        case "[DONE]":
            return value
        case _:
            return "string"


def ask(client: httpx.Client, question: tuple[str, dict[str, Any] | None]) -> dict[str, Any]:
    """The shape of an answer: status, the headers that proxies act on, and the body or the events of a stream."""
    path, body = question
    answer = client.get(path) if body is None else client.post(path, json=body)
    kept = ("content-type", "connection", "keep-alive", "transfer-encoding", "x-accel-buffering")
    told: dict[str, Any] = {
        "status": answer.status_code,
        "headers": {header: answer.headers[header] for header in kept if header in answer.headers},
    }
    if answer.headers["content-type"] == "text/event-stream":
        events = [event.removeprefix("data: ") for event in answer.text.rstrip("\n").split("\n\n")]
        told["events"] = []
        for event in (shape(each if each == "[DONE]" else json.loads(each)) for each in events):
            if event not in told["events"]:  # how many tokens a text has is the model's own affair
                told["events"].append(event)
    else:
        told["body"] = shape(answer.json())
    return told


def main() -> None:
    lines = []
    for url, questions in zip(sys.argv[1:], (QUESTIONS, RERANKING), strict=True):
        with httpx.Client(base_url=url, timeout=30) as client:
            lines += [f"{json.dumps(name)}: {json.dumps(ask(client, q))}" for name, q in questions.items()]
    RECORDED.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
