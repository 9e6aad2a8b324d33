"""A Benchmark as one pure function: what was seen of it and of its targets, and what is to be done about it."""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Final

from pydantic import ValidationError

from draftmark.api import names
from draftmark.api.benchmark import BenchmarkSpec
from draftmark.api.conditions import STALLED, shorten
from draftmark.api.defaults import BenchmarkDefaults
from draftmark.api.duration import seconds_of
from draftmark.api.times import read_time, write_time
from draftmark.benchmark.observation import BenchmarkDecision, BenchmarkObservation
from draftmark.benchmark.results import tell_result
from draftmark.benchmark.targets import REFUSALS, Measured, digest_of, find_targets, keys_of
from draftmark.choice import describe_errors
from draftmark.decision import ObjectRef
from draftmark.facts.pods import sentence, unscheduled
from draftmark.machines import benchmark as machine
from draftmark.machines.benchmark import MOST_ATTEMPTS, Ended, Finished, Found, Obstacle, Pending, Running, Seen, State
from draftmark.measure.order import Order, TargetFacts
from draftmark.measure.result import Progress, Result
from draftmark.observation import Json
from draftmark.render.benchmark import (
    CONTAINER,
    ORDER_FILE,
    render_benchmark,
    render_benchmark_keeping,
    result_location,
)
from draftmark.render.metadata import Place

PHASES_AT_THE_END: Final = frozenset({"Succeeded", "Inconclusive", "Failed"})

#: Keys of the ConfigMap that the Job writes.
PROGRESS: Final = "progress"
RESULT: Final = "result"

#: Kinds that a Benchmark owns while it runs. The ConfigMap with the result stays, and the Job until Kubernetes removes it.
_FOR_THE_RUN: Final = ("ServiceAccount", "Role", "RoleBinding", "ConfigMap")
_HINTS: Final[Mapping[str, str]] = {
    "ImagePullFailed": "Check benchmarks.image of the administrator's defaults, the registry, and the pull secrets.",
    "ContainerConfigFailed": "Create the Secret, ConfigMap or claim that is missing, or name another one in another Benchmark.",
    "Unschedulable": "Add or free nodes, ask for less (resources), or correct nodeSelector and tolerations in another Benchmark.",
}
_PULL: Final = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
#: How the scheduler says that a claim is not there. Source: kubernetes/pkg/scheduler/framework/plugins/volumebinding, whose
#: words for it are those of the API server's NotFound.
_NO_CLAIM: Final = re.compile(r'persistentvolumeclaim "([^"]+)" not found')
_CONFIG: Final = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})


def decide_benchmark(seen: BenchmarkObservation, now: datetime) -> BenchmarkDecision:
    """Decide about one Benchmark.

    Pure. What is not known changes nothing.

    Args:
        now: Aware, UTC.
    """
    if seen.benchmark["metadata"].get("deletionTimestamp"):
        return BenchmarkDecision(is_deleted=True)
    spec = read_spec(seen)
    if seen.status.get("phase") in PHASES_AT_THE_END:
        return _keep(seen, spec, now)
    if isinstance(spec, Obstacle):
        told = {key: value for key, value in seen.status.items() if key not in ("conditions", "observedGeneration")}
        return BenchmarkDecision(
            told={"phase": "Pending", **told}, refused=(spec.code, spec.message), reason=(spec.code, spec.message),
            needs_human=True,
        )  # fmt: skip
    return _go_on(seen, spec, now)


def read_spec(seen: BenchmarkObservation) -> BenchmarkSpec | Obstacle:
    """The spec, or what is wrong with it: another version may have let it in."""
    try:
        return BenchmarkSpec.model_validate(seen.benchmark.get("spec") or {})
    except ValidationError as error:
        message = f"{describe_errors(error)} A Benchmark cannot be edited: make another one."
        return Obstacle(code="InvalidSpec", message=message, needs_human=True)


def is_finished(benchmark: Json) -> bool:
    """Whether a Benchmark has come to its end."""
    return (benchmark.get("status") or {}).get("phase") in PHASES_AT_THE_END


def is_stuck(benchmark: Json) -> bool:
    """Whether a Benchmark has begun, and waits for somebody: as long as it has no Job, others need not wait for it."""
    status = benchmark.get("status") or {}
    stalled = any(c.get("type") == STALLED and c.get("status") == "True" for c in status.get("conditions") or ())
    return stalled and status.get("phase") == "Running"


def job_name(seen: BenchmarkObservation, attempt: int) -> str:
    """The Job of one try: the same for whoever computes it, and never that of a Benchmark of the same name before."""
    return names.benchmark_job_name(seen.name, names.short_hash([seen.uid, attempt]))


# At the end


def _keep(seen: BenchmarkObservation, spec: BenchmarkSpec | Obstacle, now: datetime) -> BenchmarkDecision:
    """A finished Benchmark: nothing of it changes, and some day it goes."""
    configured = seen.defaults.benchmarks or BenchmarkDefaults()
    given = spec.ttl_after_finished if isinstance(spec, BenchmarkSpec) else None
    ttl = given or configured.ttl_after_finished
    limit = configured.history_limit
    has_report = "report" in seen.status
    is_outdated, after = limit is not None and seen.newer_finished >= limit, None
    if ttl is not None and (at := read_time(seen.status.get("finishedAt"))) is not None:
        left = at + timedelta(seconds=seconds_of(ttl)) - now
        is_outdated, after = is_outdated or left <= timedelta(0), left
    return BenchmarkDecision(
        # Who has told a result ends by itself. Another one would load the target for nothing.
        prune=_leftovers(seen, with_jobs=not has_report, with_result=not has_report),
        requeue_after=None if is_outdated else after,
        is_settled=True,
        is_outdated=is_outdated,
    )


def _leftovers(
    seen: BenchmarkObservation, *, with_jobs: bool = False, with_result: bool = False
) -> tuple[ObjectRef, ...]:
    """What a Benchmark has no more use for.

    Args:
        with_result: Also what its Job has told: a number that does not count is not there to be read.
    """
    kept = names.benchmark_result_name(seen.name)
    return tuple(
        _ref(seen, kind, item)
        for kind in (*_FOR_THE_RUN, *(("Job",) if with_jobs else ()))
        if kind not in seen.unread
        for item in seen.owned(kind)
        if not (kind == "ConfigMap" and item["metadata"]["name"] == kept and not with_result)
        and not (kind == "Job" and _ended(item) is not None)
        and not item["metadata"].get("deletionTimestamp")
    )


def _ref(seen: BenchmarkObservation, kind: str, item: Json) -> ObjectRef:
    return ObjectRef(
        api_version=str(item.get("apiVersion", "")),
        kind=kind,
        namespace=seen.namespace,
        name=str(item["metadata"]["name"]),
        uid=str(item["metadata"].get("uid", "")),
    )


# On the way


def _go_on(seen: BenchmarkObservation, spec: BenchmarkSpec, now: datetime) -> BenchmarkDecision:
    state = _read_state(seen.status)
    found = _found(seen)
    # A Job that is there measures what it was made for, whatever the current revision is by now.
    attempt = max(state.attempt if isinstance(state, Running) else 0, found.attempt if found is not None else 0)
    order = _order(seen, job_name(seen, attempt))
    is_measuring = found is not None and found.attempt == attempt
    targets = find_targets(seen, spec, _measured_revisions(seen, order) if is_measuring else {})
    obstacle = targets if isinstance(targets, Obstacle) else None
    if obstacle is None and not is_measuring:
        obstacle = _busy(seen, spec)
    looked = _look(seen, found, targets, obstacle, now)
    step = machine.step(state, looked, now)
    place = Place(service=seen.name, namespace=seen.namespace, uid=seen.uid, kind=names.BENCHMARK_KIND)
    if isinstance(step.state, Finished):
        return _finish(seen, spec, place, step, attempt, looked, now)
    needed: list[dict[str, Any]] = []
    job: dict[str, Any] | None = None
    if step.attempt is not None and not isinstance(targets, Obstacle):
        measured = [one.target for one in targets]
        name = job_name(seen, step.attempt)
        needed, job = render_benchmark(
            place,
            spec,
            measured,
            job=name,
            digest=digest_of(targets),
            keys=keys_of(seen.benchmark),
            defaults=seen.defaults,
        )
    elif isinstance(step.state, Running) and is_measuring:
        needed = render_benchmark_keeping(place)
    if isinstance(step.state, Pending):
        reason = obstacle or Obstacle(code="Held", message="It is not known what there is of it.")
        since = step.state.since or read_time(seen.status.get("waitingSince")) or now
        return BenchmarkDecision(
            told={"phase": "Pending", "waitingSince": write_time(since)},
            refused=_refused(obstacle),
            reason=(reason.code, reason.message),
            needs_human=reason.needs_human,
        )
    assert isinstance(step.state, Running), "neither waiting nor at the end"
    reason = _reason(step.state, looked, step.attempt is not None or not is_measuring, obstacle)
    told = _tell_running(seen, step.state, order, targets)
    return BenchmarkDecision(
        needed=tuple(needed),
        job=job,
        prune=_other_jobs(seen, job_name(seen, step.state.attempt)),
        requeue_after=step.after,
        told=told,
        reason=(reason.code, reason.message),
        needs_human=reason.needs_human,
    )


def _refused(obstacle: Obstacle | None) -> tuple[str, str] | None:
    """What is wrong with the spec, as things are."""
    return (obstacle.code, obstacle.message) if obstacle is not None and obstacle.code in REFUSALS else None


def _finish(
    seen: BenchmarkObservation,
    spec: BenchmarkSpec,
    place: Place,
    step: machine.Step,
    attempt: int,
    looked: Seen,
    now: datetime,
) -> BenchmarkDecision:
    end, found = step.state, looked.found
    assert isinstance(end, Finished)
    # What was refused at the start never had a Job.
    was_begun = found is not None or seen.status.get("phase") == "Running"
    started = seen.status.get("startedAt")
    # A process that began it may have ended before it could say so.
    digest = found.digest if found is not None else seen.status.get("targetDigest")
    order = _order(seen, job_name(seen, attempt))
    told: dict[str, Any] = {
        "phase": end.phase,
        **({"job": job_name(seen, attempt)} if was_begun else {}),
        **({"attempts": attempt} if attempt else {}),
        **_remembered(seen, "waitingSince"),
        **({"targetDigest": digest} if digest is not None else {}),
        **({"startedAt": started} if started else {}),
        "finishedAt": write_time(now),
        **_tell_targets(seen, order, None),
    }
    result = end.result
    if result is not None:
        text = str(_told(seen).get(RESULT) or "")
        claim = result_location(place, spec)
        told |= {
            "startedAt": started or write_time(read_time(result.began) or now),
            "progress": {"stage": "Evaluating", "percent": 100},
            "report": {
                "configMap": names.benchmark_result_name(seen.name),
                **({"claim": claim} if claim is not None else {}),
                "sha256": sha256(text.encode()).hexdigest(),
            },
            **tell_result(result),
            **_tell_engines(told, result),
        }
    elif (progress := seen.status.get("progress")) is not None:
        told["progress"] = progress
    return BenchmarkDecision(
        prune=_leftovers(seen, with_jobs=step.is_dropped, with_result=end.result is None),
        told=told,
        refused=_refused(looked.obstacle) if not was_begun else None,
        reason=(end.code, end.message),
        needs_human=end.phase != "Succeeded",
        status_first=True,
    )


def _read_state(status: Json) -> State:
    if status.get("phase") != "Running":
        return Pending(since=read_time(status.get("waitingSince")))
    digest = status.get("targetDigest")
    return Running(
        attempt=int(status.get("attempts") or 0),
        digest=str(digest) if digest else None,
        since=read_time(status.get("startedAt")),
    )


def _look(
    seen: BenchmarkObservation,
    found: Found | None,
    targets: list[Measured] | Obstacle,
    obstacle: Obstacle | None,
    now: datetime,
) -> Seen:
    data = _told(seen)
    attempts = {job_name(seen, n): n for n in range(MOST_ATTEMPTS)}
    result, text = _read_result(seen, data), data.get(RESULT)
    progress = read_progress(data)
    told = [attempts[job] for job in (result and result.job, progress and progress.job) if job in attempts]
    is_ours = result is not None and result.job in attempts
    gone = isinstance(targets, Obstacle) and targets.code in ("TargetNotFound", "RevisionNotFound")
    return Seen(
        obstacle=obstacle,
        is_gone=gone,
        changed=targets if isinstance(targets, Obstacle) and targets.code == "TargetChanged" else None,
        digest=digest_of(targets) if not isinstance(targets, Obstacle) else None,
        has_digest=not isinstance(targets, Obstacle) and any(one.state is not None for one in targets),
        found=found,
        is_listed="Job" not in seen.unread and "ConfigMap" not in seen.unread,
        told_attempt=max(told, default=None),
        result=result if is_ours else None,
        result_attempt=attempts[result.job] if result is not None and is_ours else None,
        is_unreadable=bool(text) and result is None,
        heard_at=seen.heard_at,
        hindered=_hindered(_pods_of(seen, job_name(seen, found.attempt))) if found is not None else None,
    )


def _found(seen: BenchmarkObservation) -> Found | None:
    jobs = {
        str(job["metadata"]["name"]): job for job in seen.owned("Job") if not job["metadata"].get("deletionTimestamp")
    }
    for attempt in reversed(range(MOST_ATTEMPTS)):
        name = job_name(seen, attempt)
        if (job := jobs.get(name)) is None:
            continue
        pods = _pods_of(seen, name)
        digest = (job["metadata"].get("annotations") or {}).get(names.ANNOTATION_TARGET)
        ended = _ended(job)
        return Found(
            attempt=attempt,
            digest=str(digest) if digest else None,
            is_started=any(_begun(pod) is not None for pod in pods),
            started_at=max((at for pod in pods if (at := _begun_at(pod)) is not None), default=None),
            ended=Ended(at=ended[0], reason=ended[1], words=_words(pods)) if ended is not None else None,
        )
    return None


def _ended(job: Json) -> tuple[datetime | None, str] | None:
    """When a Job ended, and why it failed; None: it has not ended."""
    for condition in job.get("status", {}).get("conditions") or ():
        if condition.get("type") in ("Complete", "Failed") and condition.get("status") == "True":
            is_failed = condition["type"] == "Failed"
            reason = str(condition.get("reason") or "Failed") if is_failed else ""
            return read_time(condition.get("lastTransitionTime")), reason
    return None


def loads_of(job: Json) -> frozenset[str]:
    """Keys of the targets that a Job loads; none when it has ended."""
    told = str((job["metadata"].get("annotations") or {}).get(names.ANNOTATION_LOADS) or "")
    return frozenset(told.split(",")) - {""} if _ended(job) is None else frozenset()


def has_job(seen: BenchmarkObservation) -> bool:
    """Whether a Job of a Benchmark may load its target now."""
    return any(_ended(job) is None for job in seen.owned("Job"))


def _busy(seen: BenchmarkObservation, spec: BenchmarkSpec) -> Obstacle | None:
    """Who measures the same target before."""
    for other in sorted(seen.others, key=lambda one: one.age):
        # The phase alone says nothing: of one that runs, no Job may be there yet, or between two tries, for as long as it
        # cannot be written. Jobs are made one after the other, and each is seen before the next one is decided on.
        is_running = has_job(other)
        if is_running or (other.age < seen.age and _could_begin(other)):
            return Obstacle(
                code="TargetBusy",
                message=f"Benchmark '{other.name}' {'measures' if is_running else 'is about to measure'} the same target, and one "
                "is measured at a time, the oldest first. Nothing to do; delete the other to go first.",
            )
    if seen.leftover is not None:
        return Obstacle(
            code="TargetBusy",
            message=f"Job '{seen.leftover}' of a Benchmark that was deleted, or has just ended, still loads the same target. It goes by "
            f"itself in a moment; if it stays, delete it (kubectl delete job {seen.leftover}).",
        )
    return None


def _could_begin(other: BenchmarkObservation) -> bool:
    spec = read_spec(other)
    if isinstance(spec, Obstacle) or other.benchmark["metadata"].get("deletionTimestamp"):
        return False
    if is_stuck(other.benchmark):
        return False
    return not isinstance(find_targets(other, spec, {}), Obstacle)


# What the Job tells


def _told(seen: BenchmarkObservation) -> Mapping[str, Any]:
    """The data of the ConfigMap that the Job writes."""
    name = names.benchmark_result_name(seen.name)
    found = next((item for item in seen.owned("ConfigMap") if item["metadata"]["name"] == name), None)
    return (found or {}).get("data") or {}


def _read_result(seen: BenchmarkObservation, data: Mapping[str, Any]) -> Result | None:
    """The result, if it is this Benchmark's own."""
    try:
        result = Result.model_validate_json(str(data.get(RESULT) or ""))
    except ValidationError:
        return None
    is_ours = (result.uid, result.benchmark, result.namespace) == (seen.uid, seen.name, seen.namespace)
    return result if is_ours else None


def read_progress(data: Mapping[str, Any]) -> Progress | None:
    """What was told last; None: nothing that can be read."""
    try:
        return Progress.model_validate_json(str(data.get(PROGRESS) or ""))
    except ValidationError:
        return None


def _order(seen: BenchmarkObservation, job: str) -> Order | None:
    found = next((item for item in seen.owned("ConfigMap") if item["metadata"]["name"] == job), None)
    try:
        return Order.model_validate_json(str(((found or {}).get("data") or {}).get(ORDER_FILE) or ""))
    except ValidationError:
        return None


def _measured_revisions(seen: BenchmarkObservation, order: Order | None) -> dict[str, str]:
    """Revisions that the present Job measures, by the target's label."""
    if order is not None:
        return {t.label: t.facts.revision for t in order.targets if t.facts.revision is not None}
    told = {label: (seen.status.get(label) or {}).get("revision") for label in ("target", "compared")}
    return {label: str(revision) for label, revision in told.items() if revision}


# What the status says


def _tell_running(
    seen: BenchmarkObservation, state: Running, order: Order | None, targets: list[Measured] | Obstacle
) -> dict[str, Any]:
    name = job_name(seen, state.attempt)
    return {
        "phase": "Running",
        "job": name,
        **({"attempts": state.attempt} if state.attempt else {}),
        **({"targetDigest": state.digest} if state.digest is not None else {}),
        **_remembered(seen, "waitingSince"),
        **({"startedAt": write_time(state.since)} if state.since is not None else {}),
        "progress": _tell_progress(seen, name),
        **_tell_targets(seen, order, targets),
    }


def _remembered(seen: BenchmarkObservation, *keys: str) -> dict[str, Any]:
    return {key: seen.status[key] for key in keys if key in seen.status}


def _tell_progress(seen: BenchmarkObservation, job: str) -> dict[str, Any]:
    """How far the Job is. The time that is left changes always, and is told with what else changes."""
    told = read_progress(_told(seen))
    if told is None or told.job != job:
        return {"stage": "Waiting", "percent": 0}
    now: dict[str, Any] = {
        "stage": told.stage,
        **({"workload": shorten(told.workload, 64)} if told.workload is not None else {}),
        **({"load": shorten(told.load, 64)} if told.load is not None else {}),
        "percent": max(0, min(100, told.percent)),
    }
    before = seen.status.get("progress") or {}
    if {key: value for key, value in before.items() if key != "secondsLeft"} == now:
        return dict(before)
    return now | ({"secondsLeft": max(0, told.seconds_left)} if told.seconds_left is not None else {})


def _tell_targets(
    seen: BenchmarkObservation, order: Order | None, targets: list[Measured] | Obstacle | None
) -> dict[str, Any]:
    """What is measured: as the Job was told, as it is seen, or as it was seen before."""
    if order is not None:
        return {t.label: tell_target(t.url, t.model, t.facts) for t in order.targets}
    if targets is not None and not isinstance(targets, Obstacle):
        found = [one.target for one in targets]
        return {t.label: tell_target(t.url, t.model, t.facts) for t in found}
    return _remembered(seen, "target", "compared")


def _tell_engines(told: dict[str, Any], result: Result) -> dict[str, Any]:
    """Targets of which nobody knew the engine: a server by url says of itself what it is, and to the Job alone."""
    said = {
        t.label: {"engine": shorten(t.facts.engine, 64), "version": shorten(t.facts.version or "", 64)}
        for t in result.targets
        if t.facts.engine is not None
    }
    return {
        label: {**target, **{key: value for key, value in said[label].items() if value}}
        for label, target in told.items()
        if label in said and "engine" not in target
    }


def tell_target(url: str, model: str, facts: TargetFacts) -> dict[str, Any]:
    """A target as the status holds it."""
    told = {
        "service": facts.service,
        "revision": facts.revision,
        "url": shorten(url, 512),
        "engine": facts.engine,
        "version": facts.version,
        "model": shorten(model, 512),
        "quantization": facts.quantization,
        "layout": facts.layout,
        "hardware": facts.hardware,
        "replicas": facts.replicas,
        "images": list(facts.images) or None,
    }
    return {key: value for key, value in told.items() if value is not None}


def _reason(state: Running, looked: Seen, is_asked: bool, obstacle: Obstacle | None) -> Obstacle:
    """Why it is where it is."""
    nth = f" This is try {state.attempt + 1} of {MOST_ATTEMPTS}." if state.attempt else ""
    if is_asked:
        return obstacle or Obstacle(code="Starting", message=f"The load generator is started.{nth}")
    if obstacle is not None and looked.result_attempt == state.attempt:
        return obstacle  # there is a result, and it cannot be said yet what it is of
    if looked.hindered is not None:
        return looked.hindered
    if looked.found is not None and not looked.found.is_started:
        return Obstacle(code="Starting", message=f"The load generator is started.{nth}")
    return Obstacle(code="Measuring", message=f"The target is measured; status.progress says how far it is.{nth}")


# The pods of a Job


def _other_jobs(seen: BenchmarkObservation, wanted: str) -> tuple[ObjectRef, ...]:
    """Jobs of earlier tries that still run."""
    return tuple(
        _ref(seen, "Job", job)
        for job in seen.owned("Job")
        if job["metadata"]["name"] != wanted and _ended(job) is None and not job["metadata"].get("deletionTimestamp")
    )


def _pods_of(seen: BenchmarkObservation, job: str) -> list[Json]:
    return [p for p in seen.pods if (p["metadata"].get("labels") or {}).get(names.LABEL_JOB) == job]


def _container(pod: Json) -> Json:
    # A service mesh puts containers of its own beside it.
    statuses = pod.get("status", {}).get("containerStatuses") or ()
    return next((c for c in statuses if c.get("name") == CONTAINER), {})


def _begun(pod: Json) -> Json | None:
    """What is told of a program that runs or has ended; None: it has not begun."""
    state = _container(pod).get("state", {})
    return next((state[key] for key in ("running", "terminated") if key in state), None)


def _begun_at(pod: Json) -> datetime | None:
    return read_time((_begun(pod) or {}).get("startedAt"))


def _words(pods: list[Json]) -> str:
    """What a pod that ended said last."""
    for pod in pods:
        ended = _container(pod).get("state", {}).get("terminated")
        if not ended:
            continue
        if ended.get("reason") == "OOMKilled":
            return "It was killed for memory: raise resources.limits.memory."
        lines = [line.strip() for line in str(ended.get("message") or "").splitlines() if line.strip()]
        tail = f" End of its log: {shorten(' | '.join(lines[-3:]), 400)}" if lines else ""
        return f"Its program ended with exit code {ended.get('exitCode')}.{tail}"
    return next((sentence(p["status"].get("message")) for p in pods if p.get("status", {}).get("message")), "")


def _hindered(pods: list[Json]) -> Obstacle | None:
    """What keeps the program from starting."""
    for pod in pods:
        waiting = _container(pod).get("state", {}).get("waiting") or {}
        reason, said = str(waiting.get("reason") or ""), sentence(waiting.get("message"))
        if reason in _PULL:
            code, what = "ImagePullFailed", f"The load generator's image cannot be pulled: {said}"
        elif reason in _CONFIG:
            code, what = "ContainerConfigFailed", f"The load generator's container cannot be created: {said}"
        elif (lonely := unscheduled([pod])) and (missing := _NO_CLAIM.search(lonely[0].message)) is not None:
            code = "ContainerConfigFailed"
            what = f"The load generator waits for PersistentVolumeClaim '{missing[1]}', which is not there."
        elif lonely:
            code, what = "Unschedulable", f"The load generator finds no node: {sentence(lonely[0].message)}"
        else:
            continue
        return Obstacle(code=code, message=f"{what} {_HINTS[code]}", needs_human=code != "Unschedulable")
    return None
