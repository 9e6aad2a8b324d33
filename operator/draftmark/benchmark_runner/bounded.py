"""Bodies of answers, no longer than they may be: who answers is not ours."""

from collections.abc import AsyncIterable, AsyncIterator

import httpx

__all__ = ["lines_at_most", "read_at_most"]


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


async def lines_at_most(parts: AsyncIterable[bytes], most: int) -> AsyncIterator[str]:
    """Lines of server-sent events, each as soon as it has ended: at \\n, at \\r or at both, and at no other sign. Between both is an
    empty line. Bytes that are no UTF-8 are replaced. Source: WHATWG HTML, "Parsing an event stream".

    Raises:
        ValueError: A line has more than `most` bytes, ended or not.
    """
    line = bytearray()
    async for part in parts:
        # In UTF-8 neither is a byte of another character.
        pieces = part.replace(b"\r", b"\n").split(b"\n")
        for number, piece in enumerate(pieces, 1):
            line += piece
            if len(line) > most:
                raise ValueError(f"The stream has a line of more than {most} bytes")
            if number < len(pieces):
                yield line.decode("utf-8", "replace")
                line.clear()
    if line:
        yield line.decode("utf-8", "replace")
