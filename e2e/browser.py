"""A real Chromium without a window: what a page shows, asks for and complains about.

Over the DevTools protocol, which any Chromium speaks; a driver of its own would bring a second browser or a second release
to keep in step. The browser reaches nothing but the page: names resolve to nothing, and what it asks for is written down.
"""

import asyncio
import base64
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import aiohttp

from e2e.cluster import packages

#: Names under which distributions install it.
_PROGRAMS: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_PACKAGE: Final = "chromium"
#: Without one, text has no shape and no width.
_FONT: Final = "fonts-dejavu-core"
#: Seconds for the browser to start, and for one answer. Guesses: a busy machine of two cores needs a few.
_START_S: Final = 60.0
_ANSWER_S: Final = 60.0
_FLAGS: Final = (
    "--headless=new", "--remote-debugging-port=0", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-extensions", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars", "--host-resolver-rules=MAP * ~NOTFOUND",
)  # fmt: skip

ColourScheme = Literal["light", "dark"]


def program() -> str:
    """Chromium of this machine; Debian's is installed where there is none.

    Raises:
        RuntimeError: There is none, and it cannot be installed here.
    """
    found = next((path for name in _PROGRAMS if (path := shutil.which(name))), None)
    if found is None:
        packages.ensure(_PACKAGE, _FONT)
        found = shutil.which(_PACKAGE)
    if found is None:
        raise RuntimeError(f"The package {_PACKAGE} has no program of this name on the PATH.")
    return found


@dataclass(frozen=True, slots=True)
class Seen:
    """What became of a page."""

    requests: tuple[str, ...]
    """All URLs that it asked for, its own first."""
    complaints: tuple[str, ...]
    """What the console got, exceptions and refused content included."""


class Browser:
    """One tab."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._number = 0
        self._requests: list[str] = []
        self._complaints: list[str] = []

    async def open(self, page: Path, *, scheme: ColourScheme = "light", width: int = 1200) -> Seen:
        """Show a file, named by an absolute path, and wait until it has loaded."""
        self._requests, self._complaints = [], []
        for domain in ("Page", "Network", "Runtime", "Log"):
            await self._ask(f"{domain}.enable")
        await self._ask("Log.clear")
        await self._ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        await self._ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
        )
        await self._ask("Page.navigate", url=page.as_uri())
        await self._until("Page.loadEventFired")
        # What is asked for after the load event has been asked for by then.
        await self.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done, 100)))")
        return Seen(tuple(self._requests), tuple(self._complaints))

    async def evaluate(self, expression: str) -> Any:
        """What a JavaScript expression yields in the page, as JSON data."""
        answer = await self._ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    async def screenshot(self) -> bytes:
        """The whole page as PNG."""
        answer = await self._ask("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        return base64.b64decode(answer["data"])

    async def _ask(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        number = self._number
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        while True:
            message = await self._receive()
            if message.get("id") == number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]

    async def _until(self, event: str) -> None:
        while (await self._receive()).get("method") != event:
            pass

    async def _receive(self) -> dict[str, Any]:
        message: dict[str, Any] = await self._socket.receive_json(timeout=_ANSWER_S)
        told = message.get("params", {})
        match message.get("method"):
            case "Network.requestWillBeSent":
                self._requests.append(told["request"]["url"])
            case "Runtime.consoleAPICalled":
                self._complaints.append(json.dumps(told["args"]))
            case "Runtime.exceptionThrown":
                self._complaints.append(json.dumps(told["exceptionDetails"]))
            case "Log.entryAdded":
                self._complaints.append(told["entry"]["text"])
            case _:
                pass
        return message


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    """A browser with an empty profile, gone at the end."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        # Root may not use Chromium's sandbox; the pages are our own.
        flags = (
            *_FLAGS,
            *(("--no-sandbox",) if os.geteuid() == 0 else ()),
            f"--user-data-dir={profile}",
            "about:blank",
        )
        process = await asyncio.create_subprocess_exec(
            program(), *flags, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
            env={**os.environ, "HOME": profile},
        )  # fmt: skip
        try:
            port = await _port(process, Path(profile) / "DevToolsActivePort")
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                    tabs = await answer.json()
                url = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
                async with session.ws_connect(url, max_msg_size=0) as socket:
                    yield Browser(socket)
        finally:
            if process.returncode is None:
                process.terminate()
                try:
                    await asyncio.wait_for(process.wait(), 10)
                except TimeoutError:
                    process.kill()
                    await process.wait()


async def _port(process: asyncio.subprocess.Process, file: Path) -> int:
    """The port that the browser has chosen; it writes it down when it listens."""
    async with asyncio.timeout(_START_S):
        while not (words := _words(file)):
            if process.returncode is not None:
                raise RuntimeError(f"Chromium ended with {process.returncode} before it listened.")
            await asyncio.sleep(0.05)
    return int(words[0])


def _words(file: Path) -> list[str]:
    return file.read_text().split() if file.is_file() else []
