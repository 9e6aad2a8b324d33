"""What a target's GPUs held while load was on them: DCGM's figures, from the Prometheus that scrapes them.

Engines do not tell it. NVIDIA's DCGM exporter does, per GPU and in MiB (`DCGM_FI_DEV_FB_USED`), with the pod that has the GPU. Where
Prometheus keeps the exporter's labels (honor_labels) the pod is `namespace` and `pod`; where it sets its own, as with the monitor
that NVIDIA's GPU Operator makes, these are the exporter's, and the GPU's are `exported_namespace` and `exported_pod`. So both are
asked for. Source: dcgm-exporter, internal/pkg/transformation/const.go and rendermetrics/render_metrics.go; gpu-operator,
assets/state-dcgm-exporter.

Samples are asked for as they were scraped (`metric[range]`), not evaluated at steps: a step, also one of a subquery, takes the latest
sample of the last five minutes, which may be one of the row before. A block in which nothing was scraped has no figure, and neither
has one in which a GPU is missing: a part of a sum would be a number that nobody measured. What is counted is the sum over all GPUs at
one moment, each at its latest sample within the block. How often it is scraped, and how often DCGM looks, is the cluster's: a peak
between two looks is not seen.

It is asked with httpx, which is here already. prometheus-api-client (0.7.2, read) would bring a second HTTP client and a parser of dates
into the image for this one request; it blocks the loop, tries again by itself, reads answers of any length, and drops the warnings that
say that a part is missing.
"""

import asyncio
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, isfinite
from typing import Any, Final

import httpx

from draftmark.benchmark_runner.bounded import read_at_most
from draftmark.measure.order import AcceleratorMemory

__all__ = ["MemoryUnknown", "PeakMemory", "Scraped", "Span", "peak_bytes", "queries", "scraped_of"]

#: Seconds that the server may take, for both queries together.
ANSWER_S: Final = 3.0
#: Times that it did not answer, one after the other; then it is not asked again. What is lost are cells, and the run goes on.
MOST_FAILURES: Final = 3
#: Longest answer that is read, in bytes. 64 GPUs scraped every 15 s for an hour have 0.5 MB; a bound of ours, well above.
MAX_BYTES: Final = 8 * 2**20
METRIC: Final = "DCGM_FI_DEV_FB_USED"
_MIB: Final = 2**20
#: From here on a number stands for "not known" or "not supported". Source: dcgm_structs.h, DCGM_INT32_BLANK; that of 64 bits is higher.
_BLANK: Final = 0x7FFFFFF0
_LONGEST_WORDS: Final = 200


class MemoryUnknown(Exception):
    """Nobody told. Says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A block's time by the wall clock, Unix seconds."""

    began: float
    ended: float


@dataclass(frozen=True, slots=True, order=True)
class Scraped:
    """One sample of one GPU.

    Args:
        at: Unix seconds, of Prometheus' clock.
        gpu: What names it in all the world: its UUID, and its part where it is divided (MIG).
        used_bytes: What it held.
    """

    at: float
    gpu: tuple[str, str]
    used_bytes: float


def queries(source: AcceleratorMemory, seconds: int) -> tuple[str, str]:
    """PromQL for all samples of the pods' GPUs in the last seconds: as Prometheus keeps the exporter's labels, and as it does not.

    A series without a UUID could be any GPU, and one with `vgpu` is a GPU that other pods hold memory of, too: neither counts.
    """
    pods = "|".join(re.escape(pod) for pod in source.pods)
    own, exported = (
        f"{METRIC}{{{prefix}namespace={_quoted(source.namespace)},{prefix}pod=~{_quoted(pods)},"
        f'UUID!="",vgpu=""}}[{seconds}s]'
        for prefix in ("", "exported_")
    )
    return own, exported


def _quoted(text: str) -> str:
    # PromQL's strings have Go's escapes, and so have JSON's, but for characters outside the BMP, which stay as they are here.
    return json.dumps(text, ensure_ascii=False)


def scraped_of(answer: Any) -> list[Scraped]:
    """The samples in an answer of /api/v1/query.

    Raises:
        MemoryUnknown: It is none, or one with parts missing.
    """
    if not isinstance(answer, Mapping) or answer.get("status") != "success":
        why = answer.get("error") if isinstance(answer, Mapping) else None
        raise MemoryUnknown(f"it answered with an error: {_words(why or 'no reason')}")
    if answer.get("warnings"):
        # Such as Thanos without one of its stores: the highest sample may be the one that is missing.
        raise MemoryUnknown(f"it answered with warnings: {_words(answer['warnings'])}")
    try:
        return list(_samples(answer["data"]["result"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MemoryUnknown(f"its answer cannot be read ({type(error).__name__})") from None


def _samples(result: Iterable[Mapping[str, Any]]) -> Iterator[Scraped]:
    for series in result:
        gpu = (str(series["metric"]["UUID"]), str(series["metric"].get("GPU_I_ID", "")))
        for at, text in series["values"]:
            mebibytes = float(text)
            if isfinite(mebibytes) and 0 <= mebibytes < _BLANK:
                yield Scraped(float(at), gpu, mebibytes * _MIB)


def peak_bytes(scraped: Iterable[Scraped], span: Span, accelerators: int) -> float | None:
    """The highest sum over all GPUs at one moment of a block.

    Args:
        scraped: In any order. Of a GPU that is scraped twice, by two servers or two jobs, it counts once.
        accelerators: How many there are.

    Returns:
        Bytes; None: within the block not all of them were scraped, or others as well.
    """
    latest: dict[tuple[str, str], float] = {}
    highest: float | None = None
    within = sorted(each for each in scraped if span.began <= each.at <= span.ended)
    for number, each in enumerate(within):
        latest[each.gpu] = each.used_bytes
        is_last_of_its_moment = number + 1 == len(within) or within[number + 1].at > each.at
        if len(latest) == accelerators and is_last_of_its_moment:
            highest = max(highest or 0.0, sum(latest.values()))
    return highest if len(latest) == accelerators else None


class PeakMemory:
    """Asks for the blocks of one row after the other. Use as `async with`."""

    def __init__(self) -> None:
        # Neither the environment's proxies nor redirects: the administrator has named one server.
        self._client = httpx.AsyncClient(timeout=ANSWER_S, trust_env=False, follow_redirects=False)
        self._failures = 0

    async def __aenter__(self) -> "PeakMemory":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def of(self, source: AcceleratorMemory, spans: Sequence[Span]) -> list[float | None]:
        """Bytes at the highest, block by block; None: not known, and the log says why. Never raises, and takes ANSWER_S at most."""
        nothing: list[float | None] = [None for _ in spans]
        if not spans or self._failures >= MOST_FAILURES:
            return nothing
        try:
            scraped = await self._scraped(source, spans)
        except MemoryUnknown as unknown:
            return self._failed(source, str(unknown), nothing)
        except Exception as error:  # noqa: BLE001 -- whatever broke here, one cell is not worth a run of hours
            return self._failed(source, f"it did not answer: {type(error).__name__}: {_words(error)}", nothing)
        self._failures = 0
        peaks = [peak_bytes(scraped, span, source.accelerators) for span in spans]
        if all(peak is None for peak in peaks):
            within = [each.gpu for each in scraped if any(span.began <= each.at <= span.ended for span in spans)]
            _log(
                f"{source.prometheus} has {len(within)} samples of {METRIC} of {len(set(within))} GPUs of {', '.join(source.pods)} "
                f"in the row's blocks; needed is one of each of {source.accelerators} GPUs within a block"
            )
        return peaks

    def _failed(self, source: AcceleratorMemory, why: str, nothing: list[float | None]) -> list[float | None]:
        self._failures += 1
        _log(f"{source.prometheus}: {why}" + (", and is not asked again" if self._failures >= MOST_FAILURES else ""))
        return nothing

    async def _scraped(self, source: AcceleratorMemory, spans: Sequence[Span]) -> list[Scraped]:
        began, ended = min(span.began for span in spans), max(span.ended for span in spans)
        # A second more, for ranges are whole seconds here, and open at their beginning in Prometheus 3.
        asked = queries(source, ceil(ended - began) + 1)
        try:
            async with asyncio.timeout(ANSWER_S):
                answers = [await self._ask(source.prometheus, query, ended) for query in asked]
        except TimeoutError:
            raise MemoryUnknown(f"it did not answer within {ANSWER_S:g} s") from None
        return [each for answer in answers for each in scraped_of(answer)]

    async def _ask(self, server: str, query: str, at: float) -> Any:
        # In the body: the names of many pods are longer than some servers take URLs.
        form = {"query": query, "time": f"{at:.3f}", "timeout": f"{ANSWER_S:g}s"}
        async with self._client.stream("POST", f"{server}/api/v1/query", data=form) as answer:
            content = await read_at_most(answer, MAX_BYTES)
        if content is None:
            raise MemoryUnknown(f"its answer is longer than {MAX_BYTES} bytes")
        try:
            return json.loads(content)
        except (ValueError, RecursionError):
            raise MemoryUnknown(f"it answered {answer.status_code}, and no JSON") from None


def _words(text: Any) -> str:
    return " ".join(str(text).split())[:_LONGEST_WORDS]


def _log(why: str) -> None:
    print(f"The peak memory of a row is not known: {why}.", flush=True)
