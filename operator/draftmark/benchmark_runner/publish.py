"""What the run tells: progress and one result, into the ConfigMap that the order names.

Both are merge patches of one key, so that neither needs to know the other. Progress may be lost, a result may not: it is
written in one request, tried for minutes, and where it also goes to a claim, the file is whole before its name is there.
"""

import asyncio
import contextlib
import json
import os
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import httpx
from pydantic import ValidationError

from draftmark.measure.order import Order
from draftmark.measure.result import Progress, Refusal, Result

__all__ = ["Api", "NotPublished", "Publisher", "result_text"]

#: Where a pod finds its account. Source: Kubernetes docs, "Accessing the Kubernetes API from a Pod".
ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
SERVER: Final = "https://kubernetes.default.svc"
#: Bytes of a result in a ConfigMap: the API server's bound is 1 MiB for the whole object (Kubernetes docs, "ConfigMaps"),
#: and progress and metadata are in it, too.
MAX_RESULT_BYTES: Final = 900 * 1024
#: Seconds between two writings of progress at least, unless the stage changes.
PROGRESS_EVERY_S: Final = 5.0
ANSWER_S: Final = 10.0
#: Seconds for which a result is tried, and between two tries at most.
TRY_S: Final = 300.0
MAX_PAUSE_S: Final = 15.0


class NotPublished(Exception):
    """The result was not written. Says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """Where the API server is, and who we are."""

    server: str = SERVER
    token_file: Path = ACCOUNT / "token"
    ca_file: Path | None = ACCOUNT / "ca.crt"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Api":
        """The pod's account, or what tests name in its place."""
        server = environment.get("DRAFTMARK_API_SERVER")
        if server is None:
            return cls()
        ca = environment.get("DRAFTMARK_API_CA_FILE")
        return cls(
            server=server.rstrip("/"),
            token_file=Path(environment.get("DRAFTMARK_API_TOKEN_FILE", ACCOUNT / "token")),
            ca_file=Path(ca) if ca else None,
        )

    def client(self) -> httpx.AsyncClient:
        """A client that trusts the cluster's authority and nobody else."""
        tls: ssl.SSLContext | bool = True
        if self.ca_file is not None:
            tls = ssl.create_default_context(cafile=str(self.ca_file))
        return httpx.AsyncClient(
            base_url=self.server, verify=tls, timeout=ANSWER_S, trust_env=False, follow_redirects=False
        )

    def headers(self) -> Mapping[str, str]:
        """Read anew each time: the kubelet replaces the token."""
        try:
            return {"Authorization": f"Bearer {self.token_file.read_text().strip()}"}
        except OSError:
            return {}


class Publisher:
    """Writes for one Job. Use as `async with`."""

    def __init__(
        self,
        order: Order,
        api: Api,
        *,
        progress_every_s: float = PROGRESS_EVERY_S,
        try_s: float = TRY_S,
        first_pause_s: float = 1.0,
    ) -> None:
        self.order = order
        self.api = api
        self._path = f"/api/v1/namespaces/{order.namespace}/configmaps/{order.result_config_map}"
        self._every_s, self._try_s, self._first_pause_s = progress_every_s, try_s, first_pause_s
        self._said: Progress | None = None
        self._said_at = 0.0
        self._writing: asyncio.Task[None] | None = None
        self._client = api.client()

    async def __aenter__(self) -> "Publisher":
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)
        await self._client.aclose()

    async def published(self) -> bool:
        """Whether this Job's result is there already: its pod was started anew after it had done its work.

        Raises:
            NotPublished: It cannot be asked; to measure for an hour and then lose the result would be worse.
        """
        answer = await self._try("GET", None)
        data = answer.json().get("data") or {}
        if self._is_ours(data.get("result")):
            return True
        if self.order.result_path is not None:
            # The file was written, and its copy was not.
            text = await asyncio.to_thread(_read_file, Path(self.order.result_path))
            if text is not None and self._is_ours(text):
                await self._write_result(text)
                return True
        return False

    def progress(self, progress: Progress) -> None:
        """Tell how far it is, from time to time. Returns at once; that it cannot be told ends nothing."""
        now = time.monotonic()
        same = self._said is not None and (self._said.stage, self._said.workload, self._said.load) == (
            progress.stage,
            progress.workload,
            progress.load,
        )
        if same and now - self._said_at < self._every_s:
            return
        if self._writing is not None and not self._writing.done():
            if same:
                return
            self._writing.cancel()
        self._said, self._said_at = progress, now
        self._writing = asyncio.get_running_loop().create_task(self._write_progress(progress))

    async def result(self, result: Result) -> None:
        """Write the result, whole.

        Raises:
            NotPublished: It could not be written.
        """
        text = result_text(result)
        if len(text.encode()) > MAX_RESULT_BYTES:
            text = result_text(_without_rows(result, len(text.encode())))
        if self._writing is not None:
            # Progress that comes after the result would look like a run that goes on.
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)
        if self.order.result_path is not None:
            await asyncio.to_thread(_write_file, Path(self.order.result_path), text)
        await self._write_result(text)

    async def _write_result(self, text: str) -> None:
        digest = sha256(text.encode()).hexdigest()
        await self._try("PATCH", {"data": {"result": text, "sha256": digest}})

    async def _write_progress(self, progress: Progress) -> None:
        with contextlib.suppress(httpx.HTTPError, OSError):  # the next one says more
            await self._once(
                "PATCH", {"data": {"progress": progress.model_dump_json(by_alias=True, exclude_none=True)}}
            )

    async def _try(self, method: str, patch: Any) -> httpx.Response:
        until = time.monotonic() + self._try_s
        pause = self._first_pause_s
        while True:
            try:
                answer = await self._once(method, patch)
            except (httpx.HTTPError, OSError) as error:
                why = f"the API server cannot be reached: {str(error) or type(error).__name__}"
            else:
                if answer.status_code < 300:
                    return answer
                why = f"the API server answered {answer.status_code}: {_message(answer)}"
                # Rights may come a moment after the Job; what is gone or not accepted stays so.
                if answer.status_code in (400, 404, 413, 422):
                    raise NotPublished(f"ConfigMap {self.order.result_config_map}: {why}")
            if time.monotonic() + pause > until:
                raise NotPublished(f"ConfigMap {self.order.result_config_map} after {self._try_s:g} s: {why}")
            await asyncio.sleep(pause)
            pause = min(2 * pause, MAX_PAUSE_S)

    async def _once(self, method: str, patch: Any) -> httpx.Response:
        headers = dict(self.api.headers())
        if patch is None:
            return await self._client.request(method, self._path, headers=headers)
        headers["Content-Type"] = "application/merge-patch+json"
        # Characters as they are: escapes of surrogates are refused by some servers' readers of YAML.
        content = json.dumps(patch, ensure_ascii=False).encode("utf-8", "replace")
        return await self._client.request(
            method, self._path, params={"fieldManager": "draftmark-benchmark"}, headers=headers, content=content
        )

    def _is_ours(self, text: object) -> bool:
        if not isinstance(text, str):
            return False
        try:
            found = Result.model_validate_json(text)
        except ValidationError:
            return False
        return (found.job, found.uid) == (self.order.job, self.order.uid)


def result_text(result: Result) -> str:
    """The document as it is kept: the same bytes in the file, in the ConfigMap and under the digest. With its nulls: a
    field without a default is missing where they are left out."""
    return result.model_dump_json(by_alias=True)


def _without_rows(result: Result, n_bytes: int) -> Result:
    message = (
        f"The result has {n_bytes} bytes and a ConfigMap holds {MAX_RESULT_BYTES} of them. Measure fewer workloads or "
        "loads in one Benchmark."
    )
    return result.model_copy(
        update={
            "rows": (),
            "differences": (),
            "winners": (),
            "refusal": Refusal(code="ResultTooLarge", message=message, is_failure=True),
        }
    )


def _read_file(path: Path) -> str | None:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def _write_file(path: Path, text: str) -> None:
    """Whole or not at all: under another name first, and to the disk before it gets its own."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise NotPublished(f"{path.name} cannot be written to the claim: {error.strerror or error}.") from None


def _message(answer: httpx.Response) -> str:
    try:
        message = answer.json().get("message", "")
    except (ValueError, AttributeError):
        message = ""
    return str(message)[:300] or "no reason"
