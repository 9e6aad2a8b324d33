"""A Benchmark and the world around it, without a cluster: what is decided is carried out at once, and events happen."""

from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from draftmark.api import names
from draftmark.api.defaults import Defaults
from draftmark.api.times import write_time
from draftmark.benchmark.decide import decide_benchmark, job_name
from draftmark.benchmark.observation import BenchmarkDecision, BenchmarkObservation
from draftmark.benchmark.status import make_benchmark_status
from draftmark.choice import known_revisions
from draftmark.measure.order import Order
from draftmark.measure.result import (
    Difference,
    Interval,
    Latency,
    MeasuredTarget,
    Progress,
    Refusal,
    Result,
    Row,
    Winner,
)
from draftmark.observation import Observation
from draftmark.render.benchmark import CONTAINER, ORDER_FILE
from tests import specs
from tests.specs import T0, Object

SECOND = timedelta(seconds=1)
BENCHMARK_UID = "7b1a0000-0000-4000-8000-00000000000a"


def benchmark(
    name: str = "first", *, uid: str = BENCHMARK_UID, at: str = "2026-01-01T11:00:00Z", **spec: Any
) -> Object:
    """A Benchmark of the service of `specs`, as the API server has it."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.BENCHMARK_KIND,
        "metadata": {
            "name": name,
            "namespace": specs.NAMESPACE,
            "uid": uid,
            "generation": 1,
            "creationTimestamp": at,
        },
        "spec": {"target": {"service": specs.NAME, "allowUserTraffic": True}, **spec},
    }


def serving(wanted: Object | None = None, *, weight: int | None = 100, **fields: Any) -> Observation:
    """A service that serves, as its status says."""
    seen = specs.running(wanted, **fields)
    revision = known_revisions(seen)[-1].hash
    told = {"hash": revision, "phase": "Current", "replicas": 1, "readyReplicas": 1}
    status = {"revisions": [told | ({"weight": weight} if weight is not None else {})]}
    return replace(seen, service={**seen.service, "status": status})


def interval(value: float) -> Interval:
    return Interval(value=value, low=value * 0.9, high=value * 1.1)


def latency(p50: float) -> Latency:
    return Latency(p50=interval(p50), p90=interval(p50 * 2), p99=interval(p50 * 3), mean=p50)


def row(
    workload: str = "chat", load: str = "concurrency 1", *, target: Any = "target", refusal: Refusal | None = None
) -> Row:
    if refusal is not None:
        return Row(target=target, workload=workload, load=load, samples=10, errors=0, refusal=refusal)
    return Row(
        target=target,
        workload=workload,
        load=load,
        samples=120,
        errors=0,
        ttft=latency(101.2345),
        itl=latency(20.04),
        tpot=latency(20.05),
        e2e=latency(3104.56),
        requests_per_second=interval(0.3221),
        output_tokens_per_second=interval(48.3),
        goodput_per_second=interval(0.3),
        holds_objectives=True,
        prompt_tokens=200.5,
        output_tokens=150,
        kv_use_percent=12.5,
    )


def result_of(order: Order, **changes: Any) -> Result:
    """What a Job tells that was asked this."""
    made = Result(
        benchmark=order.benchmark,
        namespace=order.namespace,
        uid=order.uid,
        job=order.job,
        tool="guidellm 0.3.0",
        began="2026-01-01T12:00:05Z",
        ended="2026-01-01T12:10:05Z",
        order=order,
        targets=tuple(MeasuredTarget(label=t.label, url=t.url, model=t.model, facts=t.facts) for t in order.targets),
        rows=tuple(
            row(workload.name, load.label, target=target.label)
            for target in order.targets
            for workload in order.workloads
            for load in order.loads
        ),
    )
    return made.model_copy(update=changes)


def difference(verdict: Any = "Better", load: str = "concurrency 1") -> Difference:
    return Difference(
        workload="chat", load=load, metric="ttft", verdict=verdict, percent=-12.3456, low_percent=-15, high_percent=-9
    )


def winner(who: Any = "compared") -> Winner:
    return Winner(workload="chat", winner=who, message="It is faster.")


@dataclass
class World:
    """One Benchmark, its target, and the time."""

    item: Object = field(default_factory=benchmark)
    target: Observation | None = field(default_factory=serving)
    now: datetime = T0
    children: dict[str, dict[str, Object]] = field(default_factory=dict)
    pods: tuple[Object, ...] = ()
    heard_at: datetime | None = None
    others: tuple[BenchmarkObservation, ...] = ()
    newer_finished: int = 0
    defaults: Defaults = field(default_factory=Defaults)
    is_known: bool = True
    is_deleted: bool = False
    writes: Counter[str] = field(default_factory=Counter)
    #: Reasons of `Complete`, as they came.
    reasons: list[str] = field(default_factory=list)
    last: BenchmarkDecision = field(default_factory=BenchmarkDecision)

    # What is seen

    def observe(self) -> BenchmarkObservation:
        return BenchmarkObservation(
            benchmark=self.item,
            targets={specs.NAME: self.target} if self.is_known else {},
            children={kind: tuple(items.values()) for kind, items in self.children.items()},
            pods=self.pods,
            heard_at=self.heard_at,
            others=self.others,
            newer_finished=self.newer_finished,
            defaults=self.defaults,
        )

    @property
    def status(self) -> Any:
        return self.item.get("status") or {}

    @property
    def phase(self) -> str:
        return str(self.status.get("phase"))

    def condition(self, type_: str) -> Any:
        found = (c for c in self.status.get("conditions") or () if c["type"] == type_)
        return next(found, {"status": "", "reason": "", "message": ""})

    @property
    def reason(self) -> str:
        return str(self.condition("Complete")["reason"])

    def jobs(self) -> list[str]:
        return sorted(self.children.get("Job", {}))

    def live_jobs(self) -> list[str]:
        return [name for name, job in self.children.get("Job", {}).items() if not job["status"].get("conditions")]

    @property
    def job(self) -> str:
        return str(self.status.get("job"))

    def attempt(self, number: int) -> str:
        return job_name(self.observe(), number)

    def order(self, job: str | None = None) -> Order:
        return Order.model_validate_json(self.children["ConfigMap"][job or self.job]["data"][ORDER_FILE])

    # What the operator does

    def reconcile(self, *, dies_after: int | None = None) -> "World":
        """Decide and carry out once.

        Args:
            dies_after: Ends after so many writes.
        """
        left = [10**6 if dies_after is None else dies_after]

        def write(what: str) -> bool:
            if left[0] <= 0:
                return False
            left[0] -= 1
            self.writes[what] += 1
            return True

        seen = self.observe()
        decision = self.last = decide_benchmark(seen, self.now)
        if decision.is_deleted:
            return self
        if decision.is_outdated:
            self.is_deleted = write("delete Benchmark")
            return self
        status = make_benchmark_status(seen, decision, self.now)
        if decision.status_first and not self._tell(status, write):
            return self

        def create(manifest: Any) -> bool:
            known = self.children.setdefault(manifest["kind"], {})
            if manifest["metadata"]["name"] in known:
                return True
            if not write(f"create {manifest['kind']}"):
                return False
            known[manifest["metadata"]["name"]] = specs.stored(manifest)
            return True

        if not all(create(manifest) for manifest in decision.needed):
            return self
        for ref in decision.prune:
            if not write(f"delete {ref.kind}"):
                return self
            del self.children[ref.kind][ref.name]
            self.pods = tuple(p for p in self.pods if p["metadata"]["labels"][names.LABEL_JOB] != ref.name)
        if decision.job is not None and not create(decision.job):
            return self
        if not decision.status_first:
            self._tell(status, write)
        return self

    def _tell(self, status: Object, write: Any) -> bool:
        if status == self.status:
            return True
        if not write("status"):
            return False
        self.item = {**self.item, "status": status}
        if not self.reasons or self.reasons[-1] != self.reason:
            self.reasons.append(self.reason)
        return True

    def settle(self) -> "World":
        """Until nothing is written any more."""
        for _ in range(12):
            before = self.writes.total()
            self.reconcile()
            if self.writes.total() == before:
                return self
        raise AssertionError(f"it goes on writing: {self.writes}")

    # What happens

    def wait(self, **by: float) -> "World":
        self.now += timedelta(**by)
        return self

    def run_pods(self, state: str = "running", **detail: Any) -> "World":
        """The pods of live Jobs are in a state."""
        self.pods = tuple(
            {
                "metadata": {"name": f"{name}-x", "labels": {names.LABEL_JOB: name}},
                "spec": {},
                "status": {"phase": "Running", "containerStatuses": [{"name": CONTAINER, "state": {state: detail}}]},
            }
            for name in self.live_jobs()
        )
        return self

    def tell(self, key: str, text: str) -> "World":
        """Something is written into the ConfigMap."""
        name = names.benchmark_result_name(self.item["metadata"]["name"])
        config_map = self.children["ConfigMap"][name]
        self.children["ConfigMap"][name] = {**config_map, "data": {**config_map.get("data", {}), key: text}}
        self.heard_at = self.now
        return self

    def progress(self, percent: int = 10, *, job: str | None = None, stage: Any = "Measuring") -> "World":
        told = Progress(
            job=job or self.job,
            stage=stage,
            workload="chat",
            load="concurrency 1",
            percent=percent,
            seconds_left=100 - percent,
            at=write_time(self.now),
        )
        return self.tell("progress", told.model_dump_json(by_alias=True))

    def result(self, **changes: Any) -> "World":
        return self.tell("result", result_of(self.order(), **changes).model_dump_json(by_alias=True))

    def end_job(self, how: str = "Complete", reason: str = "") -> "World":
        """The live Jobs end."""
        for name in self.live_jobs():
            ended = {"type": how, "status": "True", "reason": reason, "lastTransitionTime": write_time(self.now)}
            self.children["Job"][name] = {**self.children["Job"][name], "status": {"conditions": [ended]}}
        return self

    def delete_job(self) -> "World":
        self.children["Job"] = {}
        self.pods = ()
        return self

    def lose_status(self) -> "World":
        self.item = {key: value for key, value in self.item.items() if key != "status"}
        return self

    def restart_operator(self) -> "World":
        """What was heard is heard anew."""
        self.heard_at = self.now if self.children.get("ConfigMap") else None
        return self

    def restart_target(self) -> "World":
        """A container of the target is started again."""
        assert self.target is not None
        pod, *rest = self.target.pods
        first, *others = pod["status"]["containerStatuses"]
        again = {**first, "restartCount": first["restartCount"] + 1}
        changed = {**pod, "status": {**pod["status"], "containerStatuses": [again, *others]}}
        self.target = replace(self.target, pods=(changed, *rest))
        return self

    def started(self) -> "World":
        """Its Job measures."""
        self.settle().run_pods()
        return self.settle()
