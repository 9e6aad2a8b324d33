"""Lines of streams, by what they end at and how long they may be."""

from collections.abc import AsyncIterator, Iterable

import pytest

from draftmark.benchmark_runner.bounded import lines_at_most

#: What str.splitlines ends a line at, and JSON may hold as it is; and characters of two, three and four bytes.
RAW = "a\u2028b\u2029c\x85d\x7fé東🙂"


async def lines(parts: Iterable[bytes], most: int = 1000) -> list[str]:
    async def coming() -> AsyncIterator[bytes]:
        for part in parts:
            yield part

    return [line async for line in lines_at_most(coming(), most)]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("length", [1, 2, 3, 5, 1000])
async def test_lines_end_at_line_ends_alone_however_they_are_split(end: str, length: int) -> None:
    told = [f"data: {RAW}\x0b\x0c\x1c\x1d\x1e.", "", "data: second"]
    content = end.join(told).encode()
    found = await lines(content[at : at + length] for at in range(0, len(content), length))
    assert [line for line in found if line] == [line for line in told if line]


async def test_a_line_is_told_when_it_ends() -> None:
    async def coming() -> AsyncIterator[bytes]:
        yield b"data: 1\r"
        raise AssertionError("asked for more before the line was told")

    assert await anext(lines_at_most(coming(), 100)) == "data: 1"


async def test_what_is_no_utf_8_is_replaced() -> None:
    assert await lines([b"a\xffb\nc\xe2\x80"]) == ["a\ufffdb", "c\ufffd"]


@pytest.mark.parametrize("parts", [[b"123456"], [b"1234", b"56\n"], [b"1\n1234", b"5", b"6"]], ids=str)
async def test_a_line_that_is_too_long_is_an_error(parts: list[bytes]) -> None:
    with pytest.raises(ValueError, match="a line of more than 5 bytes"):
        await lines(parts, 5)
    assert await lines([b"12345\n12345"], 5) == ["12345", "12345"]
