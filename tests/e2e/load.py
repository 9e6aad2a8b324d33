"""Requests from a pod inside the cluster, each told in the end: what was answered, by which revision, and whether it is
what the stand-in engine answers to this prompt, or as long as a real engine's answer must be."""

import json
import os
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from e2e.tools import Tools, kubectl_program
from tests.e2e.api import eventually
from tests.e2e.installed import HOME


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Requests that are sent by one program.

    Args:
        ids: Prefix of the ids; every request has one of its own.
        count: How many; 0 stands for as many as there is time for, until the body of `sending` ends.
        workers: Connections that are open at once.
        pause_s: Seconds between the beginnings of two workers.
        gap_s: Seconds between two requests of a worker.
        retry_s: Seconds in which a request that could not be sent at all, because the connection was refused or the name
            was not resolved, is tried anew: no client gives up at the first refusal.
        is_noise: A real engine answers, with text of a model of random weights. Its stream is whole when the engine says
            in the end that it has sent as many tokens as were asked for.
    """

    url: str
    ids: str
    count: int
    workers: int
    tokens: int = 16
    stream: bool = True
    pause_s: float = 0.0
    retry_s: float = 0.0
    gap_s: float = 0.0
    timeout_s: float = 120.0
    path: str = "/v1/chat/completions"
    model: str
    is_noise: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Told:
    """What became of the requests."""

    answers: Sequence[Mapping[str, Any]]

    @property
    def whole(self) -> list[str]:
        """Ids that were answered with every token."""
        return [a["id"] for a in self.answers if a["outcome"] == "whole"]

    def count(self, key: str = "outcome") -> dict[str, int]:
        return dict(Counter(str(a.get(key)) for a in self.answers))

    def others(self) -> list[Mapping[str, Any]]:
        return [a for a in self.answers if a["outcome"] != "whole"]


@contextmanager
def sending(tools: Tools, load: Load, pod: str = "client", namespace: str = HOME) -> Iterator[list[Told]]:
    """Send while the body runs; afterwards the list holds what became of all requests."""
    told: list[Told] = []
    wanted = {name: getattr(load, name) for name in load.__slots__}
    command = [str(kubectl_program()), f"--kubeconfig={tools.kubeconfig}", "exec", "-i", pod]
    command += [f"--namespace={namespace}", "--", "python3", "-c", _PROGRAM, json.dumps(wanted)]
    # Into a file: a program that cannot write has its connection closed by the API server after a minute.
    with (
        tempfile.TemporaryFile("w+") as out,
        subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=out, stderr=subprocess.PIPE) as process,
    ):
        try:
            eventually("the program sends", lambda: os.fstat(out.fileno()).st_size > 0 or process.poll(), within_s=20)
            yield told
            _, errors = process.communicate(timeout=load.timeout_s + 120)
            assert process.returncode == 0, errors
            out.seek(0)
            told.append(Told([json.loads(line) for line in out.read().splitlines()[1:]]))
        finally:
            process.kill()


def send(tools: Tools, load: Load, pod: str = "client", namespace: str = HOME) -> Told:
    """Send all, and wait for all."""
    with sending(tools, load, pod, namespace) as told:
        pass
    return told[0]


_PROGRAM = r"""
import http.client, json, queue, socket, sys, threading, time, urllib.parse, zlib
load = json.loads(sys.argv[1])
host = urllib.parse.urlsplit(load["url"]).netloc
todo, told = queue.SimpleQueue(), queue.SimpleQueue()
for i in range(load["count"] or 100_000):
    todo.put(f'{load["ids"]}-{i}')

def expected(id_):
    return [" %08x" % zlib.crc32(f"user: {id_} {i}".encode()) for i in range(load["tokens"])]

def frames(answer):
    for line in answer:
        line = line.decode().strip()
        if line.startswith("data: "):
            yield line[6:]

def ask(id_, out):
    body = {"messages": [{"role": "user", "content": id_}], "max_tokens": load["tokens"], "user": id_}
    body |= {"stream": load["stream"]} | {"model": load["model"]}
    if load["is_noise"]:
        body |= {"temperature": 0, "stream_options": {"include_usage": True}}
    connection = http.client.HTTPConnection(host, timeout=load["timeout_s"])
    try:
        connection.connect()
    except (ConnectionRefusedError, socket.gaierror):
        return "refused"
    out["sent"] = True
    connection.request("POST", load["path"], json.dumps(body), {"Content-Type": "application/json"} | load["headers"])
    answer = connection.getresponse()
    out["status"], out["revision"] = answer.status, answer.headers.get("x-draftmark-revision")
    out["retry_after"] = answer.headers.get("retry-after")
    if answer.status != 200:
        out["body"] = answer.read(2000).decode("utf-8", "replace")
        return str(answer.status)
    got, ended = [], False
    if load["stream"]:
        for frame in frames(answer):
            if frame == "[DONE]":
                ended = True
                continue
            frame = json.loads(frame)
            if "error" in frame:
                out["body"] = json.dumps(frame)[:300]
                return "cut"
            out["usage"] = (frame.get("usage") or {}).get("completion_tokens")
            got += [c["delta"]["content"] for c in frame.get("choices", ()) if c["delta"].get("content")]
    else:
        got = json.loads(answer.read())["choices"][0]["message"]["content"]
        got, ended = [" " + word for word in got.split()], True
    out["tokens"] = len(got)
    is_whole = out["usage"] == load["tokens"] if load["is_noise"] else got == expected(id_)
    return "whole" if ended and is_whole else "cut"

over = threading.Event()

def wait_for_the_end():
    sys.stdin.read()
    over.set()

def work():
    while not over.is_set():
        try:
            id_ = todo.get_nowait()
        except queue.Empty:
            return
        out = {"id": id_, "at": time.time()}
        until = time.time() + load["retry_s"]
        while True:
            try:
                out["outcome"] = ask(id_, out)
            except Exception as error:
                out["outcome"], out["body"] = "cut" if out.get("status") == 200 else "error", repr(error)
            if out["outcome"] != "refused" or time.time() >= until:
                break
            out["refused"] = out.get("refused", 0) + 1
            time.sleep(0.2)
        out["took"] = round(time.time() - out["at"], 3)
        told.put(out)
        time.sleep(load["gap_s"])

print("sending", flush=True)
if load["count"] == 0:
    threading.Thread(target=wait_for_the_end, daemon=True).start()
threads = [threading.Thread(target=work) for _ in range(load["workers"])]
for thread in threads:
    thread.start()
    time.sleep(load["pause_s"])
for thread in threads:
    thread.join()
while not told.empty():
    print(json.dumps(told.get()))
"""
