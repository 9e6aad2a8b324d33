"""How a worker process reads and times one request, with the packages of the image."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from e2e import benchmark_packages
from e2e.cluster.images import REPOSITORY

pytestmark = pytest.mark.integration

#: What a JSON text may hold as it is, and httpx ends a line at; and characters of two, three and four bytes.
RAW = "a\u2028b\u2029c\x85d\x7fé東🙂"


def event(text: str = "", **more: Any) -> str:
    choice = {"index": 0, "text": text, "finish_reason": more.pop("finish_reason", None)}
    return f"data: {json.dumps({'model': 'tiny', 'choices': [choice], **more}, ensure_ascii=False)}"


ENDING = ("", event(finish_reason="length", usage={"prompt_tokens": 3, "completion_tokens": 2}), "", "data: [DONE]", "")


@asynccontextmanager
async def answering(parts: Callable[[], AsyncIterator[bytes]]) -> AsyncIterator[str]:
    """A server whose answers come in these parts."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            async for part in parts():
                await response.write(part)
        except ConnectionError:
            pass
        return response

    runner = web.ServerRunner(web.Server(answer), shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def sent_to(url: str, home: Path, *, number: int = 1, connecting_s: float = 0.0) -> Sequence[Mapping[str, Any]]:
    """What became of requests that a worker sent one after the other."""
    python, *_ = benchmark_packages.command()
    variables = benchmark_packages.environment()
    module = "tests.benchmark_runner.requests_of_a_worker"
    process = await asyncio.create_subprocess_exec(
        *(python, "-S", "-m", module, url, str(number), str(connecting_s)),
        env={**variables, "PYTHONPATH": f"{variables['PYTHONPATH']}:{REPOSITORY}", "HOME": str(home)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        output, errors = await asyncio.wait_for(process.communicate(), 60)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, errors.decode()
    return [json.loads(line) for line in output.decode().splitlines()]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
async def test_signs_that_json_may_hold_end_no_line(end: str, tmp_path: Path) -> None:
    content = end.join((event(RAW), "", event(RAW), *ENDING)).encode()

    async def parts() -> AsyncIterator[bytes]:
        """Each character's bytes apart."""
        for at in range(0, len(content), 3):
            yield content[at : at + 3]
            await asyncio.sleep(0.001)

    async with answering(parts) as url:
        (found,) = await sent_to(url, tmp_path)
    assert found["error"] is None
    assert (found["told"]["model"], found["told"]["finish"], found["output_tokens"]) == ("tiny", "length", 2)
    assert len(found["told"]["gaps_us"]) == 1


async def test_a_line_without_end_is_a_failure_of_its_request_alone(tmp_path: Path) -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b"data: "
        while True:
            yield b"x" * 2**16

    async with answering(parts) as url:
        found = await sent_to(url, tmp_path, number=2)
    assert [each["error"] for each in found] == 2 * ["ValueError('The stream has a line of more than 1048576 bytes')"]


async def test_connecting_is_part_of_the_time_to_the_first_token(tmp_path: Path) -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield "\n".join((event("a"), "", event("b"), *ENDING)).encode()

    async with answering(parts) as url:
        first, second = await sent_to(url, tmp_path, number=2, connecting_s=1.0)
    assert 1.0 <= first["ttft_s"] < 2.0
    # On the same connection.
    assert second["ttft_s"] < 0.5
