"""One service, once: observe, decide, apply, say so. Called by the queue, never for two keys' sake at once.

What went wrong for one object is told in the status and tried again by the queue; nothing here stops other services.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

from draftmark import decision as decided
from draftmark.api.conditions import Obstacle
from draftmark.cluster import kinds
from draftmark.cluster.apply import Applier
from draftmark.cluster.client import ApiClient
from draftmark.cluster.errors import (
    AdmissionRefused,
    Forbidden,
    Invalid,
    QuotaExceeded,
)
from draftmark.cluster.outcomes import Contended, Foreign, ObjectRef, Outcome, Refused, Terminating
from draftmark.controller.gateways import Gateways
from draftmark.controller.observe import Key, World
from draftmark.controller.prove import prove
from draftmark.controller.queue import TryAgain
from draftmark.controller.writing import StatusWriter, brings_back
from draftmark.decide import decide
from draftmark.decision import Decision, ProveRevision
from draftmark.observation import Json, Observation, Proof
from draftmark.status import make_status

logger = logging.getLogger(__name__)

#: Requests that prove revisions at the same time. A slow engine keeps one busy for a minute.
_PROOFS_AT_ONCE: Final = 8

#: Refusals that stay until somebody acts; what else fails is expected to pass.
_NEEDS_HUMAN: Final = (Forbidden, QuotaExceeded, Invalid, AdmissionRefused)


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True)
class Reconciler:
    """Carries out decisions.

    Args:
        wake_after: Called with a key and seconds when it should be looked at again.
    """

    world: World
    client: ApiClient
    applier: Applier
    gateways: Gateways
    wake_after: Callable[[Key, float], None]
    now: Callable[[], datetime] = _now
    _statuses: StatusWriter[Key] = field(init=False)
    _proving: dict[Key, asyncio.Task[None]] = field(default_factory=dict)
    _proof_slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_PROOFS_AT_ONCE))

    def __post_init__(self) -> None:
        self._statuses = StatusWriter(self.client, kinds.INFERENCE_SERVICES, self.wake_after)

    async def reconcile(self, key: Key) -> None:
        """Bring one service to what its spec says, and write its status.

        Raises:
            TryAgain: Something could not be done; it is in the status.
            ApiError: The status could not be written.
        """
        seen = self.world.observe(key)
        if seen is None:
            self._leave(key)
            return
        now = self.now()
        decision = decide(seen, now)
        if decision.is_deleted:
            self._leave(key)
            return
        if await self._is_gone(seen, decision):
            return
        if decision.status_first:
            service = await self._write_status(seen, make_status(seen, decision, now), now)
            if service is None:
                return
            seen = replace(seen, service=service)
        outcomes = await self._apply(seen, decision)
        if decision.gateway is not None:
            self.gateways.follow(key, decision.gateway)
        if decision.prove is not None:
            self._start_proof(key, seen, decision.prove)
        obstacles, contended = tell_outcomes(outcomes)
        # Of what was seen, not of what is there by now: the generation in it must be the one that was acted on. Our
        # own writes come back as events.
        status = make_status(seen, decision, now, obstacles=obstacles, contended=contended)
        await self._write_status(seen, status, now)
        waits = [o.retry_after_s for o in outcomes if isinstance(o, Contended)]
        waits += [decision.requeue_after.total_seconds()] if decision.requeue_after is not None else []
        if waits:
            self.wake_after(key, min(waits))
        if obstacles:
            raise TryAgain(obstacles[0].message, asked_to_wait_s(outcomes))

    async def stop(self) -> None:
        """End the proofs that are under way."""
        for key in list(self._proving):
            self._stop_proof(key)
        await self.gateways.stop()

    def _leave(self, key: Key) -> None:
        self._statuses.forget(key)
        self._stop_proof(key)
        self.gateways.leave(key)

    async def _apply(self, seen: Observation, decision: Decision) -> list[Outcome]:
        if not (decision.pins or decision.desired or decision.prune):
            return []
        owner = ObjectRef(kinds.INFERENCE_SERVICES, seen.namespace, seen.name, seen.uid or "")
        outcomes = await self.applier.apply(owner, decision.pins)
        if any(isinstance(o, Refused | Foreign | Terminating) for o in outcomes):
            # Pods must never run unpinned.
            return outcomes
        return [*outcomes, *await self.applier.apply(owner, decision.desired, with_kinds(decision.prune))]

    async def _write_status(self, seen: Observation, status: dict[str, Any], now: datetime) -> Json | None:
        """The service as it is now; None: it is gone."""
        written = await self._statuses.write((seen.namespace, seen.name), seen.service, status, now)
        if written is None:
            # What was kept of it must go: a list that began before the deletion may have brought it back. A successor's
            # own event brings us back.
            self.world.drop_service((seen.namespace, seen.name), seen.uid)
        elif written is not seen.service:
            self.world.take_service(written)
        return written

    async def _is_gone(self, seen: Observation, decision: Decision) -> bool:
        """Whether children are missing because the service was deleted."""
        if not brings_back(seen.service, seen.children, (*decision.pins, *decision.desired)):
            return False
        live = await self.client.get(kinds.INFERENCE_SERVICES, seen.namespace, seen.name)
        if live is not None and live["metadata"].get("uid") == seen.uid:
            return live["metadata"].get("deletionTimestamp") is not None
        self.world.drop_service((seen.namespace, seen.name), seen.uid)
        return True

    def _start_proof(self, key: Key, seen: Observation, request: ProveRevision) -> None:
        running = self._proving.get(key)
        if running is not None and not running.done():
            return
        self._proving[key] = asyncio.create_task(self._prove(key, seen, request), name=f"prove {key}")

    def _stop_proof(self, key: Key) -> None:
        task = self._proving.pop(key, None)
        if task is not None:
            task.cancel()

    async def _prove(self, key: Key, seen: Observation, request: ProveRevision) -> None:
        async with self._proof_slots:
            problem = await prove(request)
        before = seen.proof
        failed_before = before.failures if before is not None and before.revision == request.revision else 0
        proof = Proof(
            revision=request.revision,
            problem=problem,
            at=self.now(),
            failures=failed_before + 1 if problem is not None else 0,
        )
        self._proving.pop(key, None)
        if key in self.world.services:
            self.world.proofs[key] = (str(seen.uid), proof)
            self.world.wake(key)


def with_kinds(refs: Iterable[decided.ObjectRef]) -> list[tuple[kinds.Kind, str, str, str]]:
    """What is to be pruned, as the applier takes it."""
    by_kind = {(k.api_version, k.kind): k for k in kinds.child_kinds()}
    return [
        (by_kind[ref.api_version, ref.kind], ref.namespace, ref.name, ref.uid)
        for ref in refs
        if (ref.api_version, ref.kind) in by_kind
    ]


def asked_to_wait_s(outcomes: Iterable[Outcome]) -> float:
    """Seconds until the API server wants to be asked again; without it each write would come at the pace of our own
    back-off, which begins at milliseconds, to a server that is overloaded already."""
    return max((o.error.retry_after_s or 0.0 for o in outcomes if isinstance(o, Refused)), default=0.0)


def tell_outcomes(outcomes: Iterable[Outcome]) -> tuple[list[Obstacle], list[Obstacle]]:
    """What stands in the way, and what is fought over, in the words of conditions."""
    obstacles: list[Obstacle] = []
    contended: list[Obstacle] = []
    for outcome in outcomes:
        match outcome:
            case Foreign():
                obstacles.append(Obstacle(code="NameConflict", message=outcome.message, needs_human=True))
            case Contended():
                contended.append(Obstacle(code="ContendedField", message=outcome.message, needs_human=True))
            case Terminating():
                obstacles.append(Obstacle(code="Terminating", message=outcome.message, needs_human=False))
            case Refused(ref=ref, error=error):
                obstacles.append(
                    Obstacle(
                        code=type(error).__name__,
                        message=f"{ref} cannot be written: {error}",
                        needs_human=isinstance(error, _NEEDS_HUMAN),
                    )
                )
            case _:
                pass
    # What needs a human is told first: the rest passes by itself.
    return sorted(obstacles, key=lambda o: not o.needs_human), contended


def count_conditions(services: Iterable[Json]) -> dict[tuple[str, str], int]:
    """Objects by condition and status, for the metrics."""
    counted: Counter[tuple[str, str]] = Counter()
    for service in services:
        conditions: Sequence[Json] = (service.get("status") or {}).get("conditions") or ()
        counted.update((str(c["type"]), str(c["status"])) for c in conditions)
    return dict(counted)
