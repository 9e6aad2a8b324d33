"""The operator as a process that can be killed, paused and told to stop.

It is forked from a server that has imported everything, because a test here starts dozens. What runs is `Operator.run`,
as under `draftmark run`; only constants of its modules and the ports of pods are others.
"""

import asyncio
import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from draftmark import decide
from draftmark.cluster.lease import LeaseLock
from draftmark.controller import main, reconcile
from draftmark.controller.gateways import Gateways
from draftmark.controller.logs import set_up_logging
from draftmark.controller.main import Operator
from draftmark.controller.prove import prove
from draftmark.render import gateway_config
from draftmark.settings import Settings
from tests.faults import clock

_FORKS: Final = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.faults.preloaded"])

#: Seconds between two looks at whether the operator has anything to do, and looks in a row that make it idle.
_LOOK_S: Final = 0.02
_IDLE_LOOKS: Final = 8
#: What is due later is no work: a rollout that is over leaves the timer of its deadline behind.
_SOON_S: Final = 5.0
#: After so many looks in a row with work the log says what it is: for whoever reads why a test waited in vain.
_TOLD_AFTER: Final = 250
#: Tasks of the operator that stand for work, by how their names begin.
_WORK: Final = ("gateways ", "prove ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """What is other than in a cluster.

    Args:
        pod_port: Where all pods listen.
        lease: Arguments of the LeaseLock.
        constants: Values by `module:name`.
        skew_s: How much its wall clock is ahead at first; None: it is the machine's, and cannot be set.
        is_older: Whether it stands for a version before this one.
    """

    pod_port: int
    lease: Mapping[str, Any] = field(default_factory=dict)
    constants: Mapping[str, float] = field(default_factory=dict)
    skew_s: float | None = None
    is_older: bool = False


class OperatorProcess:
    """One process, from its start to its end."""

    def __init__(self, settings: Settings, tuning: Tuning, log: Path) -> None:
        self.log = log
        #: Looks in a row at which there was nothing to do.
        self._idle = _FORKS.RawValue("i", 0)
        self._ahead_s = _FORKS.RawValue("d", tuning.skew_s or 0.0)
        shared = (self._idle, self._ahead_s)
        self._process = _FORKS.Process(target=_run, args=(settings, tuning, str(log), *shared), daemon=True)
        self._process.start()
        self.ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._process.sentinel, self._on_end)

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def exit_status(self) -> int | None:
        """None while it runs; below zero: the signal that ended it."""
        return self._process.exitcode

    @property
    def is_idle(self) -> bool:
        return int(self._idle.value) >= _IDLE_LOOKS

    def not_idle(self) -> None:
        """Forget what was seen: something has changed that it cannot have heard of yet."""
        self._idle.value = 0

    def kill(self) -> None:
        """SIGKILL, and wait until the process is gone: it sends nothing any more."""
        self.send(signal.SIGKILL)
        self._process.join(10)

    def send(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def set_clock(self, by_s: float) -> None:
        """Set its wall clock forward, or back."""
        self._ahead_s.value += by_s

    async def wait(self, within_s: float) -> int:
        """Wait until it has ended; its exit status."""
        async with asyncio.timeout(within_s):
            await self.ended.wait()
        assert self.exit_status is not None
        return self.exit_status

    def close(self) -> None:
        """End it, if it has not ended."""
        if self.exit_status is None:
            self.send(signal.SIGCONT)
            self.kill()
        self._loop.remove_reader(self._process.sentinel)
        self._process.close()

    def _on_end(self) -> None:
        self._loop.remove_reader(self._process.sentinel)
        self._process.join(10)
        self.ended.set()


def _run(settings: Settings, tuning: Tuning, log: str, idle: Any, ahead_s: Any) -> None:
    with open(log, "ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    set_up_logging(logging.INFO, as_json=False)
    for place, value in tuning.constants.items():
        path, _, name = place.partition(":")
        assert hasattr(import_module(path), name), place
        setattr(import_module(path), name, value)

    if tuning.skew_s is not None:
        clock.take_over(ahead_s)
    if tuning.is_older:
        _grow_older()
    for module, name, what in (
        (main, "Gateways", partial(Gateways, port=tuning.pod_port)),
        (main, "LeaseLock", partial(LeaseLock, **tuning.lease)),
        (reconcile, "prove", partial(prove, port=tuning.pod_port)),
    ):
        setattr(module, name, what)
    # Nothing here has a certificate, and reading those of the system takes as long as all else of a start.
    os.environ |= {"LOGNAME": "draftmark", "SSL_CERT_FILE": os.devnull}
    sys.exit(asyncio.run(_operate(settings, idle)))


def _grow_older() -> None:
    """As versions differ: other contents of a child, a child that only the later one makes, of a kind that the earlier one
    does not know."""
    for module, name, what in (
        (gateway_config, "SLACK_S", gateway_config.SLACK_S + 5),
        (decide, "render_network_policies", lambda *_, **__: []),
        (decide, "OWNED_KINDS", tuple(k for k in decide.OWNED_KINDS if k != "NetworkPolicy")),
    ):
        assert hasattr(module, name), name
        setattr(module, name, what)


async def _operate(settings: Settings, idle: Any) -> int:
    operator = Operator(settings)
    watching = asyncio.create_task(_watch(operator, idle), name="idleness")
    try:
        return await operator.run()
    finally:
        watching.cancel()


async def _watch(operator: Operator, idle: Any) -> None:
    looks = 0
    while True:
        work = _work(operator)
        idle.value = 0 if work else idle.value + 1
        looks = looks + 1 if work else 0
        if looks and looks % _TOLD_AFTER == 0:
            logging.getLogger(__name__).info("At work for long: %s", ", ".join(work))
        await asyncio.sleep(_LOOK_S)


def _work(operator: Operator) -> list[str]:
    """What it does, or means to do without being told anything new."""
    queue = operator.queue
    names = [task.get_name() for task in asyncio.all_tasks()]
    horizon = time.monotonic() + _SOON_S
    soon = [key for key, (due, _) in queue._later.items() if due < horizon]
    keys: dict[str, Iterable[object]] = {
        "waiting": queue._waiting,
        "running": queue._running,
        "dirty": queue._dirty,
        "later": soon,
    }
    return [
        *(["it has not begun"] if "kopf" not in names else []),
        *(name for name in names if name.startswith(_WORK)),
        *(f"{state} {key}" for state, found in keys.items() for key in found),
    ]


def warm_up() -> float:
    """Start the server that forks; seconds that it took."""
    began = time.monotonic()
    process = _FORKS.Process(target=int, daemon=True)
    process.start()
    process.join(30)
    process.close()
    return time.monotonic() - began
