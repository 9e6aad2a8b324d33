"""Brings the HAProxy beside it to the files that are mounted: `python -m draftmark.gateway_reloader`.

It runs in the gateway's pod and knows nothing of what the files mean. `haproxy.cfg` names its own version as the
`description`, and a running HAProxy tells which one it has read: where they differ, HAProxy reloads. `commands` are lines
for HAProxy's admin socket: they are sent when they changed, after a reload, and to a process that is new.

Only the standard library, and little of it: this runs in every gateway, and each import is memory. Nothing here ends the
process but SIGTERM: a gateway that cannot take a new configuration still serves with the old one.
"""

import os
import signal
import socket
import sys
import time
from types import FrameType

CONFIG_FOLDER = "/etc/draftmark"
RUN_FOLDER = "/run/haproxy"

#: Seconds between two looks at the mounted files. A look is two calls of stat.
LOOK_S = 0.2
#: Seconds after which HAProxy is asked although no file changed: it may have been started again.
ASK_AGAIN_S = 5.0
#: Seconds that a reload may take. Reading a configuration takes some ten milliseconds, on a busy node more. A guess.
RELOAD_S = 10.0
#: Seconds until the next try, after the first failure and at most. A refused configuration stays refused until it is
#: replaced, and then it is tried at once.
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
#: Seconds that HAProxy may take to answer on a socket.
ANSWER_S = 5.0


class NotDoneError(Exception):
    """HAProxy does not run what is mounted, and why. It is tried again."""


class Reloader:
    """What was done so far, and the next step."""

    def __init__(self, config_folder: str, run_folder: str) -> None:
        self.config_folder = config_folder
        self.admin = f"{run_folder}/admin.sock"
        self.master = f"{run_folder}/master.sock"
        #: Process and commands that belong together: the last that were sent, and to whom.
        self.sent: tuple[str, str] | None = None
        self.said = ""

    def run(self) -> None:
        """Look and act, for ever."""
        looked_at: object = None
        act_at = 0.0
        pause = FIRST_PAUSE_S
        while True:
            now = time.monotonic()
            mounted = self.signature()
            if mounted != looked_at:
                pause = FIRST_PAUSE_S
            if mounted != looked_at or now >= act_at:
                looked_at = mounted
                try:
                    self.act()
                except (OSError, NotDoneError) as problem:
                    self.say(f"not in effect yet: {problem}")
                    act_at = time.monotonic() + pause
                    pause = min(2 * pause, LONGEST_PAUSE_S)
                else:
                    act_at = time.monotonic() + ASK_AGAIN_S
                    pause = FIRST_PAUSE_S
            time.sleep(LOOK_S)

    def signature(self) -> object:
        """Something that changes when a mounted file does. The kubelet makes new files and swaps the folder's link."""
        try:
            found = [os.stat(f"{self.config_folder}/{name}") for name in ("haproxy.cfg", "commands")]
        except OSError:
            return None  # reading them will say what is wrong
        return [(stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in found]

    def act(self) -> None:
        """Bring HAProxy to what is mounted, where it is not there already.

        Raises:
            OSError: A file or a socket cannot be read.
            NotDoneError: HAProxy refuses.
        """
        version, commands = self.read()
        process, running = self.ask()[:2]
        if running != version:
            process = self.reload(running, version)
        if self.sent == (process, commands):
            return
        process, running, complaints = self.ask(commands)
        if running != version:
            # During a reload the old process can take a connection that the new one was meant to have.
            raise NotDoneError(f"the process with configuration {running} answered, not the one with {version}")
        if complaints:
            raise NotDoneError(f"HAProxy refused a command: {complaints}")
        self.sent = (process, commands)
        self.say(f"in effect: configuration {version}, values {commands.rpartition(' ')[2]}, process {process}")

    def read(self) -> tuple[str, str]:
        """Version of the mounted configuration, and the commands. Both are from the same moment."""
        # Through the link once: it can be swapped between the two files.
        folder = os.path.realpath(f"{self.config_folder}/..data")
        if not os.path.isdir(folder):
            folder = self.config_folder
        with open(f"{folder}/haproxy.cfg", encoding="utf-8") as file:
            version = _value(file.read(), "description ")
        with open(f"{folder}/commands", encoding="utf-8") as file:
            commands = ";".join(file.read().split("\n"))
        return version, commands.strip(";")

    def reload(self, running: str, version: str) -> str:
        """Have the mounted configuration read, and return the process that runs it."""
        self.say(f"reloading: configuration {running} runs, {version} is mounted")
        mounted = self.signature()
        until = time.monotonic() + RELOAD_S
        # From HAProxy 2.7 on the answer comes when it is done; before, at once and empty.
        failed = _talk(self.master, "reload").startswith("Success=0")
        # Another configuration may be mounted meanwhile. A refused one must not keep it waiting.
        while time.monotonic() < until and self.signature() == mounted and not failed:
            try:
                process, running, _ = self.ask()
            except OSError:
                running = "none"  # the socket changes hands
            if running == version:
                return process
            time.sleep(LOOK_S / 4)
        raise NotDoneError(
            f"configuration {running} still runs after a reload that was to bring {version}. "
            "HAProxy's log says what it does not accept."
        )

    def ask(self, commands: str = "") -> tuple[str, str, str]:
        """Process number and configuration version of the HAProxy that answers, and its complaints about commands."""
        answer = _talk(self.admin, f"show info;{commands}" if commands else "show info")
        info, _, rest = answer.partition("\n\n")
        return _value(info, "Pid: "), _value(info, "description: "), " ".join(rest.split())

    def say(self, text: str) -> None:
        """One line in the log, unless it was the last one already."""
        if text != self.said:
            self.said = text
            print(f"gateway-reloader: {text}", file=sys.stderr, flush=True)


def _value(text: str, key: str) -> str:
    """The rest of the line that begins with a key, spaces before it aside; empty where there is none."""
    for line in text.split("\n"):
        line = line.strip()
        if line.startswith(key):
            return line[len(key) :]
    return ""


def _talk(address: str, line: str) -> str:
    """Send one line to a socket of HAProxy, and return all that it answers before it closes."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(ANSWER_S)
        try:
            connection.connect(address)
            connection.sendall(line.encode() + b"\n")
            connection.shutdown(socket.SHUT_WR)  # the master would wait for another line
            parts = []
            while part := connection.recv(65536):
                parts.append(part)
        except OSError as problem:
            raise OSError(f"HAProxy does not answer on {address}: {problem}") from problem
    return b"".join(parts).decode("utf-8", "replace")


def _end(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


def main() -> None:
    """Arguments: the folder of the mounted files and the folder of HAProxy's sockets, both or none."""
    # As process 1 of a container it would ignore a signal for which it has no handler.
    signal.signal(signal.SIGTERM, _end)
    config_folder, run_folder = sys.argv[1:] or (CONFIG_FOLDER, RUN_FOLDER)
    Reloader(config_folder, run_folder).run()


if __name__ == "__main__":
    main()
