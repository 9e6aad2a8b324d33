"""What the operator tells at /metrics: of itself, and of the services that it looks after."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from draftmark.api.conditions import ACCEPTED, ARGS_UNCHECKED, AVAILABLE, CONTENDED, READY, STALLED
from draftmark.observation import Json

#: Upper bounds in seconds. Reconciles take milliseconds; the tail is the API server's.
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Telemetry:
    """The operator's own metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._counted: set[tuple[str, str]] = set()
        self.reconciles = Histogram(
            "draftmark_reconcile_seconds",
            "Duration of one reconcile, by result",
            ["result"],
            registry=self.registry,
            buckets=_BUCKETS,
        )
        self.api_calls = Counter(
            "draftmark_api_calls_total",
            "Requests to the API server by verb, kind and HTTP status (0: no answer)",
            ["verb", "kind", "code"],
            registry=self.registry,
        )
        self.api_seconds = Histogram(
            "draftmark_api_call_seconds",
            "Duration of requests to the API server by verb",
            ["verb"],
            registry=self.registry,
            buckets=_BUCKETS,
        )
        self.objects = Gauge(
            "draftmark_objects",
            "InferenceServices by condition and its status",
            ["condition", "status"],
            registry=self.registry,
        )
        self.leader = Gauge("draftmark_leader", "1 while this process holds the Lease", registry=self.registry)
        self.loop_lag = Gauge(
            "draftmark_loop_lag_seconds", "How late the event loop ran its last check", registry=self.registry
        )

    def observe_call(self, verb: str, kind: str, code: int, seconds: float) -> None:
        """Count one request to the API server."""
        self.api_calls.labels(verb, kind, str(code)).inc()
        self.api_seconds.labels(verb).observe(seconds)

    def follow_queue(self, depth: Callable[[], int], oldest_age_s: Callable[[], float]) -> None:
        """Read depth and age of the queue whenever somebody asks for the metrics."""
        Gauge("draftmark_queue_depth", "Services waiting to be worked on", registry=self.registry).set_function(depth)
        Gauge(
            "draftmark_queue_oldest_age_seconds", "How long the oldest of them waits", registry=self.registry
        ).set_function(oldest_age_s)

    def follow_services(self, read: Callable[[], Iterable["ServiceSeen"]]) -> None:
        """Read the services whenever somebody asks for the metrics: what is gone from the cluster is gone from them."""
        self.registry.register(_Services(read))

    def set_objects(self, counts: Mapping[tuple[str, str], int]) -> None:
        """Replace the counts of objects by condition. None is removed: the metrics may be read in the middle of it."""
        self._counted |= counts.keys()
        for condition, status in self._counted:
            self.objects.labels(condition, status).set(counts.get((condition, status), 0))


#: The conditions that are told of each service. Five thousand services have as many series as all of them together.
_CONDITIONS: Final = (ACCEPTED, AVAILABLE, READY, STALLED, ARGS_UNCHECKED, CONTENDED)
#: Start-up stages, by the field of the status.
_STAGES: Final[Mapping[str, str]] = {
    "scheduleSeconds": "schedule",
    "imageSeconds": "image",
    "loadSeconds": "load",
    "totalSeconds": "total",
}
_SERVICE: Final = ("namespace", "inference_service")
_REVISION: Final = (*_SERVICE, "revision")


@dataclass(frozen=True, slots=True)
class ServiceSeen:
    """A service as the cache has it, and how often the containers of its engine pods were started again."""

    service: Json
    restarts: int = 0


class _Services(Collector):
    """Keeps nothing: every sample is read from the caches when it is asked for."""

    def __init__(self, read: Callable[[], Iterable[ServiceSeen]]) -> None:
        self._read = read

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        return iter(service_metrics(self._read()))


def service_metrics(services: Iterable[ServiceSeen]) -> list[Metric]:
    """The samples of all services. Pure."""
    replicas = _gauge("service_replicas", "Replicas that the spec asks for", _SERVICE)
    ready = _gauge("service_ready_replicas", "Engine pods that are ready, over all revisions", _SERVICE)
    restarts = _gauge("service_engine_restarts", "Restarts of the engine pods that there are now", _SERVICE)
    condition = _gauge("service_condition", "1 while the condition is True, else 0", (*_SERVICE, "condition", "reason"))
    startup = _gauge("service_startup_seconds", "Start of the revision's first pod by stage", (*_REVISION, "stage"))
    weight = _gauge("revision_weight", "Percent of new requests", (*_REVISION, "phase"))
    wanted = _gauge("revision_replicas", "Replicas of the revision", (*_REVISION, "phase"))
    serving = _gauge("revision_ready_replicas", "Ready replicas of the revision", (*_REVISION, "phase"))
    for seen in services:
        metadata, status = seen.service["metadata"], seen.service.get("status") or {}
        key = (str(metadata.get("namespace", "")), str(metadata["name"]))
        replicas.add_metric(key, (seen.service.get("spec") or {}).get("replicas", 1))
        ready.add_metric(key, status.get("readyReplicas", 0))
        restarts.add_metric(key, seen.restarts)
        for told in status.get("conditions") or ():
            if told["type"] in _CONDITIONS:
                condition.add_metric((*key, told["type"], told["reason"]), float(told["status"] == "True"))
        started = status.get("startup") or {}
        for field, stage in _STAGES.items():
            if field in started:
                startup.add_metric((*key, started["revision"], stage), started[field])
        for revision in status.get("revisions") or ():
            labels = (*key, revision["hash"], revision["phase"])
            weight.add_metric(labels, revision.get("weight", 0))
            wanted.add_metric(labels, revision["replicas"])
            serving.add_metric(labels, revision["readyReplicas"])
    return [replicas, ready, restarts, condition, startup, weight, wanted, serving]


def _gauge(name: str, text: str, labels: Sequence[str]) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"draftmark_{name}", text, labels=labels)
