"""The request that proves a revision: one real completion, through the address that clients use."""

import httpx

from draftmark.decision import ProveRevision

#: Seconds for one token. A guess on the generous side: a large model on a busy CPU reads its prompt first.
TIMEOUT_S = 60.0
#: Bytes of an answer that are read. One token and its frame are far below it.
MAX_ANSWER_BYTES = 65_536


async def prove(request: ProveRevision, cluster_ip: str) -> str | None:
    """Send one chat completion of one token.

    Args:
        request: Which service, port and model.
        cluster_ip: The Service's own address, as the API server assigned it. The name is not used, so that a cluster
            whose DNS the operator cannot see works as well.

    Returns:
        None when it was answered, otherwise what went wrong, with the way out.
    """
    host = f"[{cluster_ip}]" if ":" in cluster_ip else cluster_ip
    url = f"http://{host}:{request.port}/v1/chat/completions"
    body = {
        "model": request.model,
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": 1,
        "temperature": 0,
    }
    where = f"A chat completion through Service '{request.service}' port {request.port}"
    try:
        # No proxies from the environment, no redirects: the request goes to the Service or nowhere.
        async with (
            httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False, follow_redirects=False) as client,
            client.stream("POST", url, json=body) as response,
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
        has_choice = bool(httpx.Response(200, content=text).json()["choices"])
    except (ValueError, KeyError, TypeError):
        has_choice = False
    return None if has_choice else f"{where} was answered without a completion. See the log of the engine's pod."
