"""Bring a changed configuration to the gateway pods, and learn when they work with it.

The kubelet brings a changed ConfigMap to a pod within a minute; an annotation of the pod makes it look at once. It may
look a moment before it has heard of the change, so the annotation is changed again until the pod says the right version.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import aiohttp

from draftmark.api import names
from draftmark.cluster.client import ApiClient
from draftmark.cluster.errors import ApiError
from draftmark.cluster.kinds import PODS
from draftmark.cluster.lease import LeadershipLost
from draftmark.controller.observe import Key
from draftmark.controller.pod_http import ask_for_json, many_pods
from draftmark.decision import GatewayTarget
from draftmark.facts.addresses import in_url
from draftmark.facts.pods import is_ready
from draftmark.observation import GatewayState, Json, RevisionTraffic

logger = logging.getLogger(__name__)

#: Seconds between two questions to a pod: at first, and at most. A twentieth of the time that it has taken so far.
_ASK_AGAIN_S: Final = 0.25
_ASK_AT_MOST_S: Final = 5.0
#: Seconds from one change of a pod's annotation to the next. After the last one the kubelet looks by itself, once a
#: minute, and more writes would not hurry a pod that cannot follow.
_POKES_S: Final = (0.0, 2.0, 4.0, 8.0, 16.0, 32.0)
#: Seconds without an answer after which a pod counts as silent, and the service's status says so.
SILENT_AFTER_S: Final = 5.0
#: Seconds for one answer. A gateway answers without asking anybody.
_TIMEOUT_S: Final = 2.0
#: Pods that are asked at the same time. After a restart all of thousands are due, and what waits for its turn is not silent.
_ASKED_AT_ONCE: Final = 64
#: Seconds between two services of those that can wait. A guess: 5,000 take 250 s, most of it after the first look at each.
_EVERY_S: Final = 0.05
_FIELD_MANAGER: Final = "draftmark-gateway"


def _now() -> datetime:
    return datetime.now(UTC)


def read_state(answer: Any, before: GatewayState | None, now: datetime) -> GatewayState:
    """What a gateway's answer says.

    Raises:
        KeyError, TypeError, ValueError: It is no answer of a gateway.
    """
    config = str(answer["config"])
    is_known = before is not None and before.config == config
    return GatewayState(
        config=config,
        runtime=str(answer["runtime"]),
        revisions={
            str(name): RevisionTraffic(running=int(r["running"]), waiting=int(r["waiting"]), weight=int(r["weight"]))
            for name, r in answer["revisions"].items()
        },
        at=now,
        config_since=before.config_since if is_known and before is not None else now,
    )


class Followed(Protocol):
    """What is followed, and where it is kept what the pods say."""

    @property
    def gateways(self) -> dict[Key, dict[str, GatewayState]]: ...

    @property
    def silent(self) -> dict[Key, frozenset[str]]: ...

    def knows(self, key: Key) -> bool: ...

    def pods_of(self, key: Key, role: str) -> tuple[Json, ...]: ...

    @property
    def wake(self) -> Callable[[Key], None]: ...


@dataclass(slots=True)
class Gateways:
    """Follows the gateway pods of services that wait for them; asks nobody else.

    Args:
        port: The pods' inner port.
    """

    world: Followed
    client: ApiClient
    port: int = names.GATEWAY_INNER_PORT
    now: Callable[[], datetime] = _now
    _following: dict[Key, tuple[GatewayTarget, asyncio.Task[None]]] = field(default_factory=dict)
    _turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_ASKED_AT_ONCE))
    _http: aiohttp.ClientSession | None = None
    _is_stopped: bool = False
    #: When the last of those that can wait is asked, on the loop's clock.
    _next_turn: float = 0.0

    def follow(self, key: Key, target: GatewayTarget) -> None:
        """Work towards a target until the pods have it; a new target takes the place of the one before.

        Also one that nobody waits for: a configuration that went to another one and back is what the pods still work
        with, and they would be hurried and asked for ever after the one in between.
        """
        running = self._following.get(key)
        if self._is_stopped:
            return
        is_known = bool(self.world.gateways.get(key))
        if running is not None and not running[1].done():
            # Who waits for its turn does so no longer when something is decided by the answer.
            is_early = is_known or running[0].is_decisive or not target.is_decisive
            if is_early and (running[0].config, running[0].runtime) == (target.config, target.runtime):
                self._following[key] = (target, running[1])
                return
            self.leave(key)
        if not target.is_awaited:
            return
        # Nothing is known of a gateway after a restart, and then those of all services are asked. Where nothing is decided
        # by the answer, it can wait.
        can_wait = running is None and not target.is_decisive and not is_known
        later_s = self._turn_in_s() if can_wait else 0.0
        self._following[key] = (target, asyncio.create_task(self._follow(key, target, later_s), name=f"gateways {key}"))

    def _turn_in_s(self) -> float:
        """Seconds until it is the turn of one more service of those that can wait."""
        now = asyncio.get_running_loop().time()
        self._next_turn = max(self._next_turn + _EVERY_S, now)
        return self._next_turn - now

    def leave(self, key: Key) -> None:
        """Ask no more."""
        running = self._following.pop(key, None)
        if running is not None:
            running[1].cancel()

    async def stop(self) -> None:
        """Ask nobody any more, not even for a reconcile that is still under way."""
        self._is_stopped = True
        for key in list(self._following):
            self.leave(key)
        if self._http is not None:
            await self._http.close()

    async def _follow(self, key: Key, target: GatewayTarget, later_s: float) -> None:
        await asyncio.sleep(later_s)
        loop = asyncio.get_running_loop()
        began = loop.time()
        poked: dict[str, tuple[int, float]] = {}
        heard: dict[str, float] = {}
        before = self._known(key)
        followed: frozenset[str] | None = None
        while self.world.knows(key):
            pods = [pod for pod in self.world.pods_of(key, names.ROLE_GATEWAY) if is_ready(pod)]
            states = await asyncio.gather(*(self.ask(key, pod) for pod in pods))
            answers = list(zip(pods, states, strict=True))
            self._note_silence(key, answers, heard)
            behind = [
                (pod, state)
                for pod, state in answers
                if state is None or (state.config, state.runtime) != (target.config, target.runtime)
            ]
            if not behind:
                if self._known(key) != before:
                    self._tell(key)
                # Otherwise there is nothing to decide: who waits for a drain asks again at its own pace.
                return
            # One pod that has followed may be enough to go on, and another one may never answer.
            there = frozenset(str(p["metadata"]["name"]) for p in pods) - {
                str(p["metadata"]["name"]) for p, _ in behind
            }
            if followed is not None and there != followed:
                self._tell(key)
            followed = there
            await self._poke(key, target, behind, poked)
            await asyncio.sleep(min(max(_ASK_AGAIN_S, (loop.time() - began) / 20), _ASK_AT_MOST_S))

    def _tell(self, key: Key) -> None:
        """Have a service looked at, where what its gateways tell decides about anything."""
        running = self._following.get(key)
        if running is not None and running[0].is_decisive:
            self.world.wake(key)

    def _note_silence(
        self, key: Key, answers: Sequence[tuple[Json, GatewayState | None]], heard: dict[str, float]
    ) -> None:
        """Keep which pods have told nothing for a while, and have the service looked at when that changes.

        Args:
            heard: When each pod answered last, or was asked first, by name.
        """
        at = asyncio.get_running_loop().time()
        for pod, state in answers:
            name = str(pod["metadata"]["name"])
            if state is not None:
                heard[name] = at
            heard.setdefault(name, at)
        there = {str(pod["metadata"]["name"]) for pod, _ in answers}
        before = self.world.silent.get(key, frozenset())
        told = {str(pod["metadata"]["name"]) for pod, state in answers if state is not None}
        silent = frozenset(name for name in there - told if name in before or at - heard[name] >= SILENT_AFTER_S)
        if silent != before:
            self.world.silent[key] = silent
            self.world.wake(key)

    def _known(self, key: Key) -> dict[str, tuple[object, ...]]:
        """What the pods have told, without when."""
        states = self.world.gateways.get(key, {})
        return {name: (s.config, s.runtime, s.config_since, s.revisions) for name, s in states.items()}

    async def ask(self, key: Key, pod: Json) -> GatewayState | None:
        """What a pod says now; None, and forgotten what it said before, where it does not answer."""
        name, address = str(pod["metadata"]["name"]), str(pod.get("status", {}).get("podIP") or "")
        states = self.world.gateways.setdefault(key, {})
        if self._http is None:
            self._http = many_pods(_TIMEOUT_S)
        try:
            async with self._turns:
                url = f"http://{in_url(address)}:{self.port}{names.GATEWAY_STATE_PATH}"
                answer = await ask_for_json(self._http, url)
            state = read_state(answer, states.get(name), self.now())
        except (aiohttp.ClientError, OSError, TimeoutError, KeyError, TypeError, ValueError, AttributeError) as error:
            logger.debug("Gateway pod %s does not tell its state: %s", name, error)
            states.pop(name, None)
            return None
        states[name] = state
        return state

    async def _poke(
        self,
        key: Key,
        target: GatewayTarget,
        behind: Sequence[tuple[Json, GatewayState | None]],
        poked: dict[str, tuple[int, float]],
    ) -> None:
        at = asyncio.get_running_loop().time()
        for pod, state in behind:
            name = str(pod["metadata"]["name"])
            count, last = poked.get(name, (0, at))
            # One that tells nothing would not tell either whether it has followed.
            if state is None or count >= len(_POKES_S) or at - last < _POKES_S[count]:
                continue
            poked[name] = (count + 1, at)
            value = f"{target.config}.{target.runtime}.{count}"
            if pod["metadata"].get("annotations", {}).get(names.ANNOTATION_CONFIG) == value:
                continue
            body = {
                "metadata": {"uid": pod["metadata"]["uid"], "annotations": {names.ANNOTATION_CONFIG: value}},
            }
            try:
                await self.client.merge_patch(PODS, key[0], name, body, field_manager=_FIELD_MANAGER)
            except LeadershipLost:
                return  # the process is about to end
            except ApiError as error:
                # The kubelet looks by itself, later.
                logger.warning("Gateway pod %s cannot be hurried: %s", name, error)
