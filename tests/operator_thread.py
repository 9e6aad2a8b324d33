"""The operator in a thread with a loop of its own.

In the test's loop it could not be: when kopf ends it cancels every task that was started after it, the test's as well.
"""

import asyncio
import threading
from contextlib import suppress

from draftmark.controller.main import Operator
from draftmark.settings import Settings


class OperatorThread:
    """One run of the operator's process, without the process."""

    def __init__(self, settings: Settings) -> None:
        self.exit_status: int | None = None
        self._settings = settings
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="operator", daemon=True)
        self._thread.start()
        self._started.wait(10)

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    async def stop(self, within_s: float = 20.0) -> int | None:
        """Ask for an orderly stop, and wait for it."""
        with suppress(RuntimeError):  # the loop has ended by itself
            self._loop.call_soon_threadsafe(self._stop.set)
        return await self.ended(within_s)

    async def ended(self, within_s: float = 20.0) -> int | None:
        """Wait until it has ended by itself."""
        await asyncio.to_thread(self._thread.join, within_s)
        assert not self._thread.is_alive(), f"the operator did not end within {within_s} s"
        return self.exit_status

    def _run(self) -> None:
        self.exit_status = asyncio.run(self._main())

    async def _main(self) -> int:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._started.set()
        return await Operator(self._settings).run(self._stop)
