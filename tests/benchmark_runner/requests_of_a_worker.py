"""`python -m tests.benchmark_runner.requests_of_a_worker URL NUMBER CONNECTING_S`: requests one after the other as a worker process
sends them, connections that take so many seconds longer, and what became of each as a line of JSON."""

import asyncio
import json
import sys
from typing import Any

import httpcore
from guidellm.schemas import GenerationRequest, RequestInfo, UsageMetrics
from guidellm.schemas.backends import OpenAIHTTPBackendArgs

from draftmark.benchmark_runner.load import Backend


def connect_late(seconds: float) -> None:
    """As where an engine is slow to accept, or far away."""
    connect = httpcore.AnyIOBackend.connect_tcp

    async def late(self: Any, *args: Any, **kwargs: Any) -> Any:
        await asyncio.sleep(seconds)
        return await connect(self, *args, **kwargs)

    httpcore.AnyIOBackend.connect_tcp = late  # type: ignore[method-assign]


async def _run(url: str, number: int) -> None:
    backend = Backend(
        OpenAIHTTPBackendArgs(
            target=url, model="tiny", request_format="/v1/completions", timeout=20.0, validate_backend=False
        )
    )
    await backend.process_startup()
    for name in map(str, range(number)):
        request = GenerationRequest(
            request_id=name, columns={"text_column": ["a b c"]}, output_metrics=UsageMetrics(text_tokens=2)
        )
        info, told, error = RequestInfo(request_id=name), None, None
        try:
            async for response, _ in backend.resolve(request, info):
                told = response
        except Exception as failure:  # noqa: BLE001 -- as a worker does
            error = repr(failure)
        times = info.timings
        found = {
            "error": error,
            "told": told.response_metrics if told is not None else None,
            "output_tokens": told.output_metrics.text_tokens if told is not None else None,
            "ttft_s": times.first_token_iteration - times.request_start if times.first_token_iteration else None,
        }
        print(json.dumps(found), flush=True)
    await backend.process_shutdown()


if __name__ == "__main__":
    connect_late(float(sys.argv[3]))
    asyncio.run(_run(sys.argv[1], int(sys.argv[2])))
