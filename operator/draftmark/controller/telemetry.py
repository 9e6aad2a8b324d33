"""What the operator tells about itself at /metrics."""

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

#: Upper bounds in seconds. Reconciles take milliseconds; the tail is the API server's.
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Telemetry:
    """The operator's own metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
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

    def set_objects(self, counts: Mapping[tuple[str, str], int]) -> None:
        """Replace the counts of objects by condition."""
        self.objects.clear()
        for (condition, status), count in counts.items():
            self.objects.labels(condition, status).set(count)
