"""What a server says of itself: which engine it is, and of which version. Of an InferenceService the operator knows both.

It is what the server says and no more: a proxy before it says nothing, or of itself. What is not told stays unknown.
"""

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Any, Final

import httpx

from draftmark.benchmark_runner.bounded import read_at_most
from draftmark.measure.order import EngineSign, OrderedTarget, TargetFacts

__all__ = ["described"]

#: Seconds for one answer, and the longest one that is read, in bytes. SGLang's has all of its arguments, some KB.
ANSWER_S: Final = 5.0
MAX_BYTES: Final = 2**20
#: Versions as all engines write them, such as 0.33.0, 0.33.1rc2.dev3+g1a2b3c4 or b11669-1a2b3c4.
_VERSION: Final = re.compile(r"[0-9A-Za-z][-+._0-9A-Za-z]{0,63}")


async def described(target: OrderedTarget, owner: str | None) -> TargetFacts:
    """The facts of a target, with engine and version where nobody but the server tells them. Never raises.

    Args:
        owner: `owned_by` of the model in the server's list of models.
    """
    sign = next((sign for sign in target.signs if sign.owned_by == owner), None)
    if sign is None or target.facts.engine is not None:
        return target.facts
    return target.facts.model_copy(update={"engine": sign.engine, "version": await _version(target.url, sign)})


async def _version(url: str, sign: EngineSign) -> str | None:
    try:
        async with (
            asyncio.timeout(ANSWER_S),  # httpx bounds each read, and an answer may come byte by byte
            httpx.AsyncClient(timeout=ANSWER_S, trust_env=False, follow_redirects=False) as client,
            client.stream("GET", f"{url.rstrip('/')}{sign.version_path}") as answer,
        ):
            if answer.status_code != 200:
                return None
            content = await read_at_most(answer, MAX_BYTES)
        told: Any = json.loads(content) if content is not None else None
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, RecursionError):
        return None
    version = told.get(sign.version_field) if isinstance(told, Mapping) else None
    return version if isinstance(version, str) and _VERSION.fullmatch(version) else None
