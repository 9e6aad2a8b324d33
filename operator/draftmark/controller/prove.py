"""The request that proves a revision: one real one of its kind, through a gateway and the revision's router."""

from collections.abc import Mapping
from typing import Any, Final

import httpx

from draftmark.api import names
from draftmark.controller.pod_http import pod_client
from draftmark.decision import ProveRevision
from draftmark.facts.addresses import in_url
from draftmark.plan import ModelKind

#: Seconds for one token. A guess on the generous side: a large model on a busy CPU reads its prompt first.
TIMEOUT_S = 60.0
#: Bytes of an answer that are read. One token and its frame are far below it, the numbers of an embedding, too.
MAX_ANSWER_BYTES = 1_048_576

#: Path, body beside the model, and the field that an answer has, by what the model does.
_REQUESTS: Final[Mapping[ModelKind, tuple[str, Mapping[str, Any], str]]] = {
    "generate": (
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1, "temperature": 0},
        "choices",
    ),
    "embed": ("/v1/embeddings", {"input": "Hello"}, "data"),
    "rerank": ("/v1/rerank", {"query": "Hello", "documents": ["Hello"]}, "results"),
}


async def prove(request: ProveRevision, *, port: int = names.GATEWAY_INNER_PORT) -> str | None:
    """Send one request.

    Args:
        request: Which revision, model and gateway pod. The pod is addressed itself: its inner port is in no Service.

    Returns:
        None when it was answered, otherwise what went wrong, with the way out.
    """
    path, fields, field = _REQUESTS[request.kind]
    where = f"POST {path} through gateway pod '{request.pod}'"
    try:
        async with (
            pod_client(TIMEOUT_S) as client,
            client.stream(
                "POST",
                f"http://{in_url(request.address)}:{port}{path}",
                json={"model": request.model, **fields},
                headers={names.HEADER_REVISION: request.revision},
            ) as response,
        ):
            text = b""
            async for chunk in response.aiter_bytes():
                text += chunk
                if len(text) > MAX_ANSWER_BYTES:
                    return f"{where} was answered with more than {MAX_ANSWER_BYTES} bytes. Is it an inference server?"
    except httpx.HTTPError as error:
        return f"{where} was not answered: {type(error).__name__} {error}. It is tried again."
    if response.status_code != 200:
        shown = text[:200].decode("utf-8", "replace")
        return f"{where} was answered with HTTP {response.status_code}: {shown}. See the log of the engine's pod."
    try:
        is_answer = bool(httpx.Response(200, content=text).json()[field])
    except (ValueError, KeyError, TypeError):
        is_answer = False
    return None if is_answer else f"{where} was answered without {field}. See the log of the engine's pod."
