"""Whether a server keeps a connection after an answer.

llama-server (build 11669) closes it after each stream, and no header says so. One that is used again is mostly seen to be closed before a
request goes out; a request that is sent at that very moment gets no answer. With one request at a time, sent straight at it, 1 of 1,211 and
6 of 1,232 were such errors, and none of 2,520 that had a connection each.
"""

import asyncio
from typing import Final

import httpx

__all__ = ["keeps_connections"]

#: Seconds for the answer, and for what follows it: the other end of a connection on the same machine learns of its end in less than 1 ms.
ANSWER_S: Final = 30.0
REST_S: Final = 0.25


async def keeps_connections(url: str, model: str) -> bool:
    """Ask for one token, as it is asked under load, and look whether the connection is there a moment later.

    False also where that fails: then a connection for each request is what makes the fewest errors of its own. Never raises.
    """
    body = {"model": model, "prompt": "a", "max_tokens": 1, "stream": True}
    try:
        async with (
            asyncio.timeout(ANSWER_S),
            httpx.AsyncClient(timeout=ANSWER_S, trust_env=False, follow_redirects=False) as client,
        ):
            async with client.stream("POST", f"{url.rstrip('/')}/v1/completions", json=body) as answer:
                connection = answer.extensions["network_stream"]
                async for _ in answer.aiter_raw():
                    pass
            await asyncio.sleep(REST_S)
            # What can be read of one that waits for a request is its end.
            return answer.status_code == 200 and not connection.get_extra_info("is_readable")
    except (httpx.HTTPError, httpx.InvalidURL, OSError, KeyError):  # a timeout is an OSError
        return False
