"""One leader among the replicas, by a Lease object, and certainty about when leadership may be over.

A Lease does not fence: a paused process may wake up and believe that it still leads. So `valid` looks at a clock that
runs while the process is stopped, counts from before the last renewal was sent, and ends sooner than anyone else may
take over. `guard` goes into the client as its write guard. Once lost, leadership is never taken again by the same
process: it exits, and starts again cheaply.

Another holder's record is never judged by the times in it, because clocks differ: it has expired when this process
has seen it unchanged for the duration that it states.

The lease needs a client of its own, without write guard: its renewals must not wait behind other requests.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from secrets import token_hex
from typing import Final

from draftmark.cluster.client import ApiClient
from draftmark.cluster.errors import AlreadyExists, ApiError, Conflict
from draftmark.cluster.kinds import LEASES
from draftmark.cluster.wire import Json

__all__ = ["LeadershipLost", "LeaseLock", "uninterrupted_clock"]

_log = logging.getLogger(__name__)

_FIELD_MANAGER: Final = "draftmark-lease"
#: Two attempts fit into the renew deadline, also against an API server that needs four seconds for each answer.
_REQUEST_SHARE: Final = 0.45


class LeadershipLost(Exception):
    """This process must not write any more."""


def uninterrupted_clock() -> float:
    """Seconds that also pass while the machine sleeps, where the system has such a clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class LeaseLock:
    """Leadership of this process. To be made inside the running loop.

    Args:
        identity: Who we are, for people: the pod's name. A random suffix makes it unique over restarts.
        duration_s: How long others wait after our last renewal.
        renew_deadline_s: How long we try to renew before we give up.
        margin_s: How much sooner than `duration_s` we stop writing: a request takes time to arrive.
        now: Wall-clock time, only for the record that people read.
    """

    def __init__(
        self,
        client: ApiClient,
        *,
        namespace: str,
        name: str,
        identity: str,
        duration_s: float = 15.0,
        renew_deadline_s: float = 10.0,
        retry_s: float = 2.0,
        margin_s: float = 2.0,
        clock: Callable[[], float] = uninterrupted_clock,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.holder = f"{identity}_{token_hex(4)}"
        #: Done, with the reason, when leadership is lost. Never done by a release.
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._client = client
        self._namespace = namespace
        self._name = name
        self._duration_s = duration_s
        self._renew_deadline_s = renew_deadline_s
        self._retry_s = retry_s
        self._margin_s = margin_s
        self._clock = clock
        self._now = now
        self._renewed_at: float | None = None
        self._lease: Json | None = None
        self._seen: tuple[str, float] = ("", 0.0)
        self._renewals: asyncio.Task[None] | None = None
        #: An attempt to take the lease was sent, whatever became of it.
        self._may_hold = False

    def valid(self) -> bool:
        """Whether this process leads for certain, now."""
        if self._renewed_at is None or self.lost.done():
            return False
        return self._clock() < self._renewed_at + self._duration_s - self._margin_s

    def guard(self) -> None:
        """Raises LeadershipLost unless this process leads for certain."""
        if not self.valid():
            raise LeadershipLost(
                f'This process does not hold the lease "{self._name}" in namespace "{self._namespace}" for certain, '
                "so it writes nothing. It exits, and a replica with a valid lease goes on."
            )

    async def acquire(self, stop: asyncio.Event) -> bool:
        """Wait until this process leads; renewals then go on by themselves.

        Returns:
            False when `stop` was set before.
        """
        while not stop.is_set():
            try:
                if await self._try_acquire():
                    _log.info("Leading as %s.", self.holder)
                    self._renewals = asyncio.create_task(self._keep_renewing(), name="lease renewals")
                    return True
            except (ApiError, TimeoutError) as error:
                _log.warning(
                    "The lease could not be read or taken, trying again: %s", str(error) or "no answer in time"
                )
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), self._retry_s * random.uniform(0.8, 1.2))
        return False

    async def release(self) -> None:
        """Let the next one lead at once. To be called when nothing is written any more."""
        if self._renewals is not None:
            self._renewals.cancel()
            with suppress(asyncio.CancelledError):
                await self._renewals
            self._renewals = None
        self._renewed_at = None
        if not self._may_hold:
            return
        for _ in range(2):
            try:
                async with asyncio.timeout(self._request_timeout_s):
                    # The renewal that was cancelled may have been done: look, then write.
                    lease = await self._client.get(LEASES, self._namespace, self._name)
                    if lease is None or _holder(lease) != self.holder:
                        return
                    lease["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": self._timestamp()}
                    await self._put(lease)
                return
            except Conflict:
                continue
            except (ApiError, TimeoutError) as error:
                _log.warning("The lease was not released; it expires by itself: %s", str(error) or "no answer in time")
                return

    # Taking

    @property
    def _request_timeout_s(self) -> float:
        return self._renew_deadline_s * _REQUEST_SHARE

    async def _try_acquire(self) -> bool:
        async with asyncio.timeout(self._request_timeout_s):
            lease = await self._client.get(LEASES, self._namespace, self._name)
        if lease is not None and not self._is_free(lease):
            return False
        before = (lease or {}).get("spec") or {}
        started = self._clock()
        record = {
            "holderIdentity": self.holder,
            "leaseDurationSeconds": max(1, round(self._duration_s)),
            "acquireTime": self._timestamp(),
            "renewTime": self._timestamp(),
            "leaseTransitions": int(before.get("leaseTransitions") or 0) + (1 if lease is not None else 0),
        }
        self._may_hold = True
        try:
            async with asyncio.timeout(self._request_timeout_s):
                if lease is None:
                    self._lease = await self._client.create(
                        LEASES, self._namespace, self._new_lease(record), field_manager=_FIELD_MANAGER
                    )
                else:
                    self._lease = await self._put({**lease, "spec": {**before, **record}})
        except (AlreadyExists, Conflict):
            return False  # somebody was faster
        self._renewed_at = started
        return True

    def _is_free(self, lease: Json) -> bool:
        holder = _holder(lease)
        if not holder or holder == self.holder:  # ours: an earlier attempt whose answer was lost
            return True
        spec = lease["spec"]
        record = f"{holder} {spec.get('renewTime')} {lease['metadata']['resourceVersion']}"
        if self._seen[0] != record:
            self._seen = (record, self._clock())
            return False
        return self._clock() - self._seen[1] > float(spec.get("leaseDurationSeconds") or self._duration_s)

    # Keeping

    async def _keep_renewing(self) -> None:
        while True:
            await asyncio.sleep(self._retry_s)
            reason = await self._renew()
            if reason:
                _log.error("Leadership is lost: %s", reason)
                if not self.lost.done():
                    self.lost.set_result(reason)
                return

    async def _renew(self) -> str:
        """Renew once, or fail and leave it to the next round; returns why leadership is over, if it is."""
        assert self._lease is not None
        assert self._renewed_at is not None
        started = self._clock()
        left = self._renewed_at + self._renew_deadline_s - started
        if left <= 0:
            return f"no renewal for {self._renew_deadline_s:g} s"
        try:
            async with asyncio.timeout(min(self._request_timeout_s, left)):
                try:
                    self._lease = await self._put(self._renewed(self._lease))
                except Conflict:
                    # Either somebody took it, or this is the trace of our own write whose answer was lost.
                    found = await self._client.get(LEASES, self._namespace, self._name)
                    if found is None or _holder(found) != self.holder:
                        return f"the lease is held by {_holder(found) or 'nobody'}"
                    self._lease = await self._put(self._renewed(found))
        except (ApiError, TimeoutError) as error:
            _log.warning("The lease was not renewed, trying again: %s", str(error) or "no answer in time")
            return ""
        self._renewed_at = started
        return ""

    def _renewed(self, lease: Json) -> Json:
        return {**lease, "spec": {**lease["spec"], "renewTime": self._timestamp()}}

    async def _put(self, lease: Json) -> Json:
        metadata = {key: value for key, value in lease["metadata"].items() if key != "managedFields"}
        body = {**lease, "metadata": metadata}
        return await self._client.replace(LEASES, self._namespace, self._name, body, field_manager=_FIELD_MANAGER)

    def _new_lease(self, record: Json) -> Json:
        return {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": {"name": self._name, "namespace": self._namespace},
            "spec": record,
        }

    def _timestamp(self) -> str:
        return self._now().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _holder(lease: Json | None) -> str:
    return str(((lease or {}).get("spec") or {}).get("holderIdentity") or "")
