"""A real HAProxy with the rendered files on loopback, mounted as the kubelet mounts a ConfigMap."""

import asyncio
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from draftmark.api import names
from draftmark.render.gateway_config import GatewayConfig, GatewayFiles, GatewayPlace, render_gateway_config
from e2e.cluster import haproxy
from e2e.ports import free_ports
from tests.gateway.stand_in import StandIn, send

OPERATOR = Path(__file__).parents[2] / "operator"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.integration)


@pytest.fixture(scope="session")
def haproxy_program() -> str:
    """The one that the gateway's image holds."""
    return str(haproxy.program())


@dataclass(kw_only=True)
class Gateway:
    """One gateway pod: mounted files, HAProxy, and the reloader if a test starts it."""

    program: str
    folder: Path
    place: GatewayPlace
    _mounts: Iterator[int] = field(default_factory=count)
    _processes: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    @property
    def log(self) -> str:
        """What HAProxy and the reloader wrote."""
        file = self.folder / "log"
        return file.read_text("utf-8", "replace") if file.exists() else ""

    def mount(self, config: GatewayConfig, edit: Callable[[str], str] = lambda text: text) -> GatewayFiles:
        """Mount the files of a configuration: a new folder, and one swap of a link, as the kubelet does it.

        Args:
            config: What is rendered.
            edit: Changes haproxy.cfg, to get what no configuration gives.
        """
        return self.mount_files(render_gateway_config(config, self.place), edit)

    def mount_files(self, files: GatewayFiles, edit: Callable[[str], str] = lambda text: text) -> GatewayFiles:
        """Mount files as they are."""
        mounted = self.folder / "config"
        data = mounted / f"..{next(self._mounts)}"
        data.mkdir(parents=True)
        for name, text in files.data.items():
            (data / name).write_text(edit(text) if name == "haproxy.cfg" else text, "utf-8")
            if not (mounted / name).is_symlink():
                (mounted / name).symlink_to(f"..data/{name}")
        link = mounted / "..data"
        before = link.resolve() if link.is_symlink() else None
        (mounted / "..data_tmp").symlink_to(data.name)
        (mounted / "..data_tmp").rename(link)
        if before:
            shutil.rmtree(before)
        return files

    async def start(self, *, wait: bool = True) -> "subprocess.Popen[bytes]":
        """Start HAProxy as the pod does."""
        config, run = self.place.config_folder, self.place.run_folder
        process = self._run(
            *(self.program, "-W", "-S", f"{run}/master.sock"),
            *(
                word
                for name in ("limits.cfg", "haproxy.cfg")
                for word in ("-f", f"{config}/{name}")
                if _is_there(config, name)
            ),
        )
        while wait and not await self.state():
            assert process.poll() is None, f"HAProxy ended: {self.log}"
            await asyncio.sleep(0.02)
        if wait:
            # The worker can answer before the master has its signal handlers, and what comes until then is lost.
            await until(self._master_answers)
        return process

    def start_reloader(self) -> "subprocess.Popen[bytes]":
        """Start the reloader as the pod does."""
        config, run = self.place.config_folder, self.place.run_folder
        return self._run(sys.executable, "-m", "draftmark.gateway_reloader", config, run)

    def _run(self, *command: str) -> "subprocess.Popen[bytes]":
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={"PYTHONPATH": str(OPERATOR)}
            )
        self._processes.append(process)
        return process

    def stop(self) -> None:
        """End everything that was started here."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    async def state(self) -> dict[str, Any] | None:
        """What the inner port tells, or None where it does not answer."""
        try:
            answer = await send(self.place.inner_port, names.GATEWAY_STATE_PATH)
        except (OSError, asyncio.IncompleteReadError):
            return None
        return dict(answer.json) if answer.status == 200 else None

    async def revision(self, name: str) -> dict[str, int]:
        """Running, waiting and weight of one revision."""
        state = await self.state()
        assert state
        return dict(state["revisions"][name])

    async def is_at(self, files: GatewayFiles) -> bool:
        """Whether these files are in effect."""
        state = await self.state()
        if not state:
            return False
        return (state["config"], state["runtime"]) == (files.config_version, files.runtime_version)

    def worker(self) -> str:
        """Process number of the HAProxy that serves now."""
        return next(line for line in self.command("show info").splitlines() if line.startswith("Pid:"))

    def command(self, line: str) -> str:
        """Send one line to HAProxy's admin socket, as the reloader does, and return the answer."""
        return self._ask("admin.sock", line)

    async def _master_answers(self) -> bool:
        try:
            return "worker" in self._ask("master.sock", "show proc")
        except OSError:
            return False

    def _ask(self, name: str, line: str) -> str:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(2)
            connection.connect(f"{self.place.run_folder}/{name}")
            connection.sendall(line.encode() + b"\n")
            connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode()


def _is_there(folder: str, name: str) -> bool:
    return (Path(folder) / name).exists()


async def until(ask: Callable[[], Awaitable[object]], limit_s: float = 10.0) -> float:
    """Ask until the answer is yes, and return the seconds that it took."""
    start = time.monotonic()
    while not await ask():
        assert time.monotonic() < start + limit_s, f"not within {limit_s} s"
        await asyncio.sleep(0.02)
    return time.monotonic() - start


@pytest.fixture
def gateway(haproxy_program: str) -> Iterator[Gateway]:
    # Not pytest's own folder: the path of a unix socket has 107 characters at most.
    folder = Path(tempfile.mkdtemp(prefix="gateway-"))
    (folder / "run").mkdir()
    port, inner_port, metrics_port = free_ports(3)
    place = GatewayPlace(
        config_folder=str(folder / "config"),
        run_folder=str(folder / "run"),
        host="127.0.0.1",
        port=port,
        inner_port=inner_port,
        metrics_port=metrics_port,
    )
    gateway = Gateway(program=haproxy_program, folder=folder, place=place)
    try:
        yield gateway
    finally:
        gateway.stop()
        print(gateway.log)
        shutil.rmtree(folder)


@pytest.fixture
async def stand_in() -> AsyncIterator[StandIn]:
    async with StandIn() as server:
        yield server
