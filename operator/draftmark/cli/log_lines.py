"""The logs of all pods of a service, each line with its pod's name before it, and new pods picked up while following.

Lines are asked for with timestamps. A stream that breaks off is taken up again behind the last line that was shown, so
that a restarted API server or a restarted container loses and doubles nothing.
"""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Final

from draftmark.api import names
from draftmark.cli.connection import CONNECTIONS, Cluster, ClusterError, Json
from draftmark.cli.overview import label, role_of
from draftmark.cluster.kinds import PODS

__all__ = ["LogQuery", "LogSource", "follow_logs", "read_logs"]

#: Seconds between two looks at which pods there are.
LOOK_AGAIN_S: Final = 2.0
#: Streams at once; the rest of the connections is for lists.
MAX_STREAMS: Final = CONNECTIONS - 4

_ORDER: Final = (names.ROLE_GATEWAY, names.ROLE_ROUTER, names.ROLE_ENGINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogQuery:
    """Which lines of which pods."""

    service: str
    #: Empty: all.
    roles: Collection[str] = ()
    #: The beginning of a hash; gateways belong to no revision.
    revision: str | None = None
    tail: int | None = None
    since_s: int | None = None
    is_previous: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSource:
    """One container whose log is shown."""

    role: str
    pod: str
    uid: str
    container: str
    has_started: bool

    @property
    def prefix(self) -> str:
        return f"{self.role}/{self.pod}"


def log_sources(pods: Sequence[Json], query: LogQuery) -> list[LogSource]:
    """The containers that a query means, gateways first."""
    found = []
    for pod in pods:
        role = role_of(pod)
        if query.roles and role not in query.roles:
            continue
        if query.revision is not None and not (label(pod, names.LABEL_REVISION) or "").startswith(query.revision):
            continue
        container = _main_container(pod)
        statuses = (pod.get("status") or {}).get("containerStatuses") or ()
        state = next((c.get("state") or {} for c in statuses if c.get("name") == container), None)
        found.append(
            LogSource(
                role=role,
                pod=str(pod["metadata"]["name"]),
                uid=str(pod["metadata"].get("uid", "")),
                container=container,
                # A container that has crashed and waits for its next start has a log.
                has_started=state is None or not state.get("waiting") or _has_run(statuses, container),
            )
        )
    return sorted(found, key=lambda s: (_ORDER.index(s.role) if s.role in _ORDER else len(_ORDER), s.pod))


def _main_container(pod: Json) -> str:
    chosen = (pod["metadata"].get("annotations") or {}).get("kubectl.kubernetes.io/default-container")
    containers = (pod.get("spec") or {}).get("containers") or [{}]
    return str(chosen or containers[0].get("name", ""))


def _has_run(statuses: Sequence[Json], container: str) -> bool:
    return any(c.get("name") == container and (c.get("lastState") or {}).get("terminated") for c in statuses)


def read_logs(cluster: Cluster, query: LogQuery, note: Callable[[str], None]) -> Iterator[tuple[str, str]]:
    """Prefix and line, pod by pod.

    Args:
        note: Told which pods have no log, and why.

    Raises:
        ClusterError: There is no such pod.
    """
    sources = log_sources(_pods(cluster, query), query)
    if not sources:
        raise ClusterError(_no_pod(query))
    for source in sources:
        try:
            for line in cluster.log(source.pod, _parameters(query, source), is_followed=False):
                yield source.prefix, line
        except ClusterError as error:
            note(f"{source.prefix}: {error}")


def follow_logs(cluster: Cluster, query: LogQuery, note: Callable[[str], None]) -> Iterator[tuple[str, str]]:
    """Prefix and line of all pods as they come, until the service and its pods are gone.

    Args:
        note: Told what happens to pods.
    """
    lines: SimpleQueue[tuple[str, str]] = SimpleQueue()
    streams: dict[str, _Stream] = {}
    told: set[str] = set()

    def once(text: str) -> None:
        if text not in told:
            told.add(text)
            note(text)

    next_look = 0.0
    is_first = True
    while True:
        if time.monotonic() >= next_look:
            next_look = time.monotonic() + LOOK_AGAIN_S
            try:
                pods = _pods(cluster, query)
                is_gone = not pods and not is_first and not _exists(cluster, query.service)
            except ClusterError as error:
                if is_first or not error.may_pass:
                    raise
                once(f"{error} Trying again.")
                continue
            sources = log_sources(pods, query)
            if is_first and not sources:
                once(f"{_no_pod(query)} Waiting for one.")
            for source in sources:
                stream = streams.get(source.uid)
                if stream is None:
                    if not source.has_started:
                        once(f"{source.prefix} has not started yet.")
                        continue
                    stream = streams[source.uid] = _Stream(cluster, source, query, lines, is_new=not is_first)
                if not stream.is_open:
                    if stream.problem is not None:
                        once(f"{source.prefix}: {stream.problem}")
                    if sum(s.is_open for s in streams.values()) >= MAX_STREAMS:
                        once(
                            f"more than {MAX_STREAMS} pods: the rest is not followed. Choose with --revision or a role."
                        )
                        continue
                    stream.open()
            for uid in streams.keys() - {source.uid for source in sources}:
                if not streams[uid].is_open:
                    once(f"{streams.pop(uid).source.prefix} is gone.")
            is_first = False
            if is_gone and not streams and lines.empty():
                note(f"{names.KIND} '{query.service}' and its pods are gone.")
                return
        try:
            yield lines.get(timeout=max(min(next_look - time.monotonic(), 0.2), 0.001))
        except Empty:
            continue


class _Stream:
    """One followed log, in a thread of its own: the official client knows no other way to wait for several."""

    def __init__(
        self,
        cluster: Cluster,
        source: LogSource,
        query: LogQuery,
        lines: SimpleQueue[tuple[str, str]],
        *,
        is_new: bool,
    ) -> None:
        self.source = source
        self.problem: str | None = None
        self._cluster = cluster
        self._lines = lines
        self._last = ""
        self._parameters = _parameters(query, source) | {"follow": "true", "timestamps": "true"}
        if is_new:
            # Everything that a pod says which came while we watched.
            for key in ("tailLines", "sinceSeconds"):
                self._parameters.pop(key, None)
        self._closed = Event()
        self._closed.set()

    @property
    def is_open(self) -> bool:
        return not self._closed.is_set()

    def open(self) -> None:
        self._closed.clear()
        Thread(target=self._run, name=self.source.prefix, daemon=True).start()

    def _run(self) -> None:
        try:
            parameters = dict(self._parameters)
            if self._last:
                for key in ("tailLines", "sinceSeconds"):
                    parameters.pop(key, None)
                # Whole seconds are all that the API takes; what was shown already is skipped below.
                parameters["sinceTime"] = f"{self._last[:19]}Z"
            for raw in self._cluster.log(self.source.pod, parameters, is_followed=True):
                stamp, _, line = raw.partition(" ")
                at = _sortable(stamp)
                if at > self._last:
                    self._last = at
                    self._lines.put((self.source.prefix, line))
            self.problem = None
        except ClusterError as error:
            self.problem = str(error)
        finally:
            self._closed.set()


def _sortable(stamp: str) -> str:
    """2026-01-01T00:00:00.5Z as text that sorts by time: the runtime leaves out zeros at the end."""
    whole, _, fraction = stamp.removesuffix("Z").partition(".")
    return f"{whole}.{fraction:0<9}"


def _parameters(query: LogQuery, source: LogSource) -> dict[str, str]:
    found = {"container": source.container} if source.container else {}
    if query.tail is not None:
        found["tailLines"] = str(query.tail)
    if query.since_s is not None:
        found["sinceSeconds"] = str(query.since_s)
    if query.is_previous:
        found["previous"] = "true"
    return found


def _pods(cluster: Cluster, query: LogQuery) -> list[Json]:
    return cluster.list_all(PODS, cluster.namespace, f"{names.LABEL_SERVICE}={query.service}")


def _exists(cluster: Cluster, service: str) -> bool:
    try:
        cluster.service(service)
    except ClusterError as error:
        if error.status == 404:
            return False
        raise
    return True


def _no_pod(query: LogQuery) -> str:
    what = " or ".join(query.roles) or "service"
    of = f" of revision {query.revision}" if query.revision else ""
    return f"there is no {what} pod{of} of '{query.service}'. See kubectl draftmark status {query.service}."
