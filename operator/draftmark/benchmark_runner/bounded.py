"""Bodies of answers, no longer than they may be: who answers is not ours."""

import httpx

__all__ = ["read_at_most"]


async def read_at_most(answer: httpx.Response, most: int) -> bytes | None:
    """The body of an answer that is streamed; None: it has more than `most` bytes.

    Raises:
        httpx.HTTPError: It breaks off.
    """
    parts, length = [], 0
    async for part in answer.aiter_bytes():
        parts.append(part)
        length += len(part)
        if length > most:
            return None
    return b"".join(parts)
