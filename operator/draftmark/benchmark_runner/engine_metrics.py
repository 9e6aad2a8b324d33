"""The engine's own metrics during a block, from its pods.

They tell what the answers do not: whether other requests were under way, whether prompts came from a cache, whether the
engine was started anew. A metric that one of several pods does not tell is not told: a sum with a part missing would be
a number that nobody measured.
"""

import asyncio
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import httpx
from prometheus_client.parser import text_string_to_metric_families

from draftmark.benchmark_runner.bounded import read_at_most
from draftmark.measure.order import Counters
from draftmark.measure.samples import Reading

#: Seconds that one pod may take to answer.
ANSWER_S: Final = 3.0
#: Longest page that is read, in bytes. vLLM's has about 100 KB; a bound of ours, well above.
MAX_BYTES: Final = 8 * 2**20
#: Fields of which the highest of all pods counts and not the sum.
_HIGHEST: Final = ("kv_use",)


class EngineMetrics:
    """The pods of one target. Use as `async with`."""

    def __init__(self, urls: Sequence[str], counters: Counters) -> None:
        self.urls = urls
        self.names = {field: name for field, name in counters.model_dump(by_alias=False).items() if name is not None}
        # Neither the environment's proxies nor redirects: these are pods of the cluster.
        self._client = httpx.AsyncClient(timeout=ANSWER_S, trust_env=False, follow_redirects=False)

    async def __aenter__(self) -> "EngineMetrics":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def read(self) -> Reading:
        """What they tell now. What is not told is None; this never raises."""
        began = time.monotonic()
        pages = await asyncio.gather(*(self._page(url) for url in self.urls))
        # The middle: the engine counted somewhere between question and answer.
        at = (began + time.monotonic()) / 2
        return reading_of([values_of(page, self.names) for page in pages], at)

    async def _page(self, url: str) -> str:
        try:
            # httpx bounds each read, and a page may come byte by byte.
            async with asyncio.timeout(ANSWER_S), self._client.stream("GET", url) as answer:
                if answer.status_code != 200:
                    return ""
                page = await read_at_most(answer, MAX_BYTES)
        except (httpx.HTTPError, httpx.InvalidURL, OSError):
            return ""
        return (page or b"").decode("utf-8", "replace")


def values_of(page: str, names: Mapping[str, str]) -> dict[str, float]:
    """Fields by the names of their metrics in one pod's page: the sum over labels; the highest of `kv_use`."""
    wanted = set(names.values())
    # A page has a thousand lines of histograms: only those that count are parsed, for this runs beside the load.
    lines = [line for line in page.splitlines() if line.partition("{")[0].partition(" ")[0] in wanted]
    found: dict[str, list[float]] = {}
    try:
        for family in text_string_to_metric_families("\n".join(lines) + "\n"):
            for sample in family.samples:
                found.setdefault(sample.name, []).append(sample.value)
    except ValueError:
        return {}
    return {
        field: max(found[name]) if field in _HIGHEST else sum(found[name])
        for field, name in names.items()
        if name in found
    }


def reading_of(pods: Iterable[Mapping[str, float]], at: float) -> Reading:
    """One reading of all pods."""
    told = list(pods)

    def fields() -> Iterator[tuple[str, float]]:
        for field in Counters.model_fields:
            values = [pod[field] for pod in told if field in pod]
            if told and len(values) == len(told):
                yield field, max(values) if field in _HIGHEST else sum(values)

    return Reading(at=at, **dict(fields()))
