"""The status of a service, from what was decided and what became of it.

The whole status is written each time, so that it says nothing that is no longer true; it is sent only when it differs.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from draftmark.api import names
from draftmark.api.conditions import (
    ACCEPTED,
    ARGS_UNCHECKED,
    AVAILABLE,
    COMPLETE,
    CONTENDED,
    FAILED,
    MODEL_FACTS_UNKNOWN,
    NAMES_UNIQUE,
    PROGRESSING,
    READY,
    STALLED,
    Condition,
    Obstacle,
    kstatus,
    shorten,
    write_conditions,
)
from draftmark.api.times import write_time
from draftmark.awaiting import tell_awaited
from draftmark.data_path import cut_off, is_moved, not_heard, unproven
from draftmark.decision import Decision, RevisionReport
from draftmark.facts.pods import PodProblem, has_ended, is_ready, startup_stages, worst_problem
from draftmark.headroom import benchmarks_of, contradiction, cost, headroom
from draftmark.observation import Json, Observation
from draftmark.plan import Memory, Plan
from draftmark.running import pods_of

#: Longest status, in bytes of JSON.
MOST_BYTES: Final = 24 * 1024
#: Bounds of the lists, as in the schema.
MAX_REASONS: Final = 16
MAX_REVISIONS: Final = 5
#: Longest message of one of the reasons, in bytes; all of them leave room for the conditions in 24 KiB.
REASON_LENGTH: Final = 512
#: The same of why an older revision failed: what was withdrawn last is told at length.
OLDER_LENGTH: Final = 144
#: The same of each choice of the plan.
PLANNED_LENGTH: Final = 224
#: Rejected options that are told, and bytes of each; `draftmark explain` tells them in full.
MAX_REJECTED: Final = 8
OPTION_LENGTH: Final = 80
REJECTED_LENGTH: Final = 128
#: Reason of a service whose plan waits for what is known of its model.
READING_FACTS: Final = "ReadingModelFacts"
#: Reason of a plan whose memory sum a Benchmark has contradicted.
MEASURED_OTHERWISE: Final = "MeasuredOtherwise"


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """Something that happened, for an Event: told once, when it becomes true."""

    type: str
    reason: str
    message: str
    #: What makes it another one than an earlier one of that reason. The message does not: it counts replicas, and whoever
    #: tells the same again after a restart counts others.
    subject: str = ""


def make_status(
    seen: Observation,
    decision: Decision,
    now: datetime,
    *,
    obstacles: Sequence[Obstacle] = (),
    contended: Sequence[Obstacle] = (),
) -> dict[str, Any]:
    """The complete status.

    Args:
        seen: What the decision was made from.
        decision: What was decided.
        now: Aware, UTC.
        obstacles: Objects that could not be written, most important first.
        contended: Objects that somebody else keeps changing back.
    """
    ready_pods = [pod for pod in seen.pods if is_ready(pod)]
    conditions = _conditions(seen, decision, obstacles=obstacles, contended=contended)
    status: dict[str, Any] = {
        "observedGeneration": seen.generation,
        "conditions": write_conditions(
            conditions, before=seen.status.get("conditions") or (), generation=seen.generation, now=now
        ),
        "url": names.service_url(seen.name, seen.namespace),
        "replicas": sum(not (pod["metadata"].get("deletionTimestamp") or has_ended(pod)) for pod in seen.pods),
        "readyReplicas": len(ready_pods),
        "selector": ",".join(f"{key}={value}" for key, value in names.selector_labels(seen.name).items()),
    }
    if decision.plan is not None:
        status["model"] = decision.plan.served_name
        status["plan"] = _plan(decision.plan, decision)
        _contradict(status["plan"], seen, decision)
    elif decision.refused is not None and decision.refused.plan is not None:
        # Nothing runs: what would, if it could be deployed.
        status["plan"] = _plan(decision.refused.plan, decision)
    if (startup := _startup(seen, decision)) is not None:
        status["startup"] = startup
    if decision.model_memory is not None:
        status["modelFacts"] = dict(decision.model_memory)
    status |= _measured(seen, decision)
    if decision.revisions:
        first, *older = decision.revisions[:MAX_REVISIONS]
        status["revisions"] = [_revision(first, REASON_LENGTH), *(_revision(r, OLDER_LENGTH) for r in older)]
    return _fit(status)


def _fit(status: dict[str, Any]) -> dict[str, Any]:
    """A status that is not too long: where every list is full, the last rejected options are left to `draftmark explain`."""
    rejected = list(status.get("plan", {}).get("rejected") or ())
    excess = _size(status) - MOST_BYTES
    if not rejected or excess <= 0:
        return status
    while rejected and excess > 0:
        excess -= _size(rejected.pop()) + 2
    plan = {key: value for key, value in status["plan"].items() if key != "rejected"}
    return {**status, "plan": {**plan, **({"rejected": rejected} if rejected else {})}}


def _size(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False).encode())


def _measured(seen: Observation, decision: Decision) -> dict[str, Any]:
    asked = next((r.hash for r in decision.revisions if r.is_current), None)
    # While a rollout is under way, and after one was withdrawn, another one serves.
    serving = next((r.hash for r in decision.revisions if r.phase == "Current"), asked)
    benchmarks = benchmarks_of(seen.service, seen.benchmarks)
    found = headroom(seen.name, serving, benchmarks, seen.status.get("headroom"))
    # The plan is of the revision that the spec asks for.
    layout = decision.plan.layout if decision.plan is not None and serving == asked else None
    price = cost(found, layout.product, layout.gpus, seen.defaults.prices) if layout is not None else None
    return {"headroom": found, **({"cost": price} if price is not None else {})}


def _contradict(plan: dict[str, Any], seen: Observation, decision: Decision) -> None:
    """Add to the reasons what a measurement says against the memory sum."""
    current = next((r.hash for r in decision.revisions if r.is_current), None)
    benchmarks = benchmarks_of(seen.service, seen.benchmarks)
    if benchmarks is None:
        told = (seen.status.get("plan") or {}).get("reasons") or ()
        found = [dict(reason) for reason in told if reason.get("code") == MEASURED_OTHERWISE]
    else:
        words = contradiction(seen.name, current, plan.get("memory", {}).get("kvTokens"), benchmarks)
        found = [{"code": MEASURED_OTHERWISE, "message": shorten(words, PLANNED_LENGTH)}] if words is not None else []
    if found:
        plan["reasons"] = [*plan["reasons"][: MAX_REASONS - 1], *found[:1]]


def _plan(plan: Plan, decision: Decision) -> dict[str, Any]:
    written: dict[str, Any] = {
        "engine": plan.engine,
        "version": plan.version,
        "image": plan.image,
        "layout": str(plan.layout),
        "parallelism": plan.layout.degrees,
        "maxContextLength": plan.max_context_length,
        "concurrency": plan.concurrency,
        "reasons": [
            {"code": r.code, "message": shorten(r.message, PLANNED_LENGTH)} for r in plan.reasons[:MAX_REASONS]
        ],
    }
    if plan.parameters is not None:
        written["parameters"] = plan.parameters
    if plan.memory is not None:
        written["memory"] = _memory(plan.memory)
    if plan.rejected:
        written["rejected"] = [
            {
                "option": shorten(r.option, OPTION_LENGTH),
                "code": r.code,
                "message": shorten(r.message, REJECTED_LENGTH),
            }
            for r in plan.rejected[:MAX_REJECTED]
        ]
    if decision.suggestion is not None:
        written["suggestion"] = {
            "id": decision.suggestion.id,
            "message": shorten(decision.suggestion.message, REASON_LENGTH),
        }
    return written


def _memory(memory: Memory) -> dict[str, int]:
    written = {
        "gpuBytes": memory.gpu_bytes,
        "perGpuBytes": memory.needed_bytes,
        "weightBytes": memory.weight_bytes,
        "kvBytesPerToken": memory.kv_bytes_per_token,
        "kvTokens": memory.kv_tokens,
    }
    return {key: value for key, value in written.items() if value is not None}


def _revision(report: RevisionReport, longest: int) -> dict[str, Any]:
    reason, message = report.failure or (None, None)
    written = {
        "hash": report.hash,
        "phase": report.phase,
        "weight": report.weight,
        "replicas": report.replicas,
        "readyReplicas": report.ready,
        "provenAt": report.proven_at,
        "progressedAt": _time(report.progressed_at),
        "progress": report.progress or None,
        "drainedSince": _time(report.drained_since),
        "failedAt": _time(report.failed_at),
        "reason": reason,
        "message": shorten(message, longest) if message is not None else None,
    }
    return {key: value for key, value in written.items() if value is not None}


def _time(at: datetime | None) -> str | None:
    return write_time(at) if at is not None else None


def _startup(seen: Observation, decision: Decision) -> dict[str, Any] | None:
    """Measured once for each revision, with its first pod that is ready; a restarted container says nothing of it."""
    current = next((r.hash for r in decision.revisions if r.is_current), None)
    before: dict[str, Any] | None = seen.status.get("startup")
    if before is not None and before.get("revision") == current:
        return before
    pods = pods_of(seen.pods, current) if current is not None else []
    measured = [stages for pod in pods if is_ready(pod) and (stages := startup_stages(pod)) is not None]
    if not measured:
        return None
    first = min(measured, key=lambda stages: stages.ready_at)
    return {
        "revision": current,
        "scheduleSeconds": first.schedule_s,
        "imageSeconds": first.image_s,
        "loadSeconds": first.load_s,
        "totalSeconds": first.total_s,
    }


def _conditions(
    seen: Observation, decision: Decision, *, obstacles: Sequence[Obstacle], contended: Sequence[Obstacle]
) -> list[Condition]:
    problem = _problem(seen, decision)
    accepted = _accepted(decision)
    available = _available(seen, decision)
    progressing = _progressing(seen, decision, obstacles, problem)
    ready = _ready(seen, decision, accepted, progressing, obstacles, problem)
    conditions = [
        accepted,
        available,
        progressing,
        ready,
        *kstatus(_stalled(seen, decision, obstacles, contended, problem, ready), _busy(decision, progressing, ready)),
    ]
    if decision.plan is not None and decision.plan.args_unchecked is not None and decision.refused is None:
        conditions.append(
            Condition(type=ARGS_UNCHECKED, status="True", reason="NoFlagTable", message=decision.plan.args_unchecked)
        )
    if (unknown := decision.model_unknown) is not None:
        conditions.append(
            Condition(type=MODEL_FACTS_UNKNOWN, status="True", reason=unknown.code, message=unknown.message)
        )
    if contended:
        conditions.append(
            Condition(
                type=CONTENDED,
                status="True",
                reason=contended[0].code,
                message=" ".join(o.message for o in contended),
            )
        )
    return conditions


def _problem(seen: Observation, decision: Decision) -> PodProblem | None:
    """What keeps the current revision's pods from serving."""
    current = next((r.hash for r in decision.revisions if r.is_current), None)
    pods = [p for p in seen.pods if p["metadata"].get("labels", {}).get(names.LABEL_REVISION) == current]
    found = worst_problem(pods)
    if found is not None and found.code != "Unschedulable":
        return found
    if found is not None and decision.awaited is not None:
        found = tell_awaited(decision.awaited)
    return _missing_claim(seen, pods) or found or _refused_pods(seen, current)


def _missing_claim(seen: Observation, pods: Iterable[Json]) -> PodProblem | None:
    if seen.claims is None or any(is_ready(pod) for pod in pods):
        return None
    # Also before there is a pod: a user who mistyped the claim reads it at once.
    templates = [d["spec"]["template"]["spec"] for d in seen.owned("Deployment")]
    wanted = {
        volume["persistentVolumeClaim"]["claimName"]
        for template in (*templates, *(pod.get("spec", {}) for pod in pods))
        for volume in template.get("volumes") or ()
        if "persistentVolumeClaim" in volume
    }
    for claim in sorted(wanted):
        if claim not in seen.claims:
            there_are = ", ".join(sorted(seen.claims)[:5]) or "none"
            return PodProblem(
                code="ClaimNotFound",
                message=f"PersistentVolumeClaim '{claim}' does not exist in namespace '{seen.namespace}' (it has: "
                f"{there_are}). Create it, or correct model.uri or podTemplate.volumes.",
                needs_human=True,
                weight=3,
            )
        if seen.claims[claim] == "Lost":
            return PodProblem(
                code="ClaimLost",
                message=f"PersistentVolumeClaim '{claim}' has lost its volume. Restore the volume or the claim.",
                needs_human=True,
                weight=3,
            )
    return None


def _refused_pods(seen: Observation, current: str | None) -> PodProblem | None:
    """Pods that the API server does not let in: a quota, a limit range, pod security, an admission webhook."""
    for deployment in seen.owned("Deployment"):
        if deployment["metadata"].get("labels", {}).get(names.LABEL_REVISION) != current:
            continue
        for condition in deployment.get("status", {}).get("conditions") or ():
            if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
                text = shorten(str(condition.get("message", "")), 500)
                is_quota = "exceeded quota" in text
                return PodProblem(
                    code="QuotaExceeded" if is_quota else "PodsRefused",
                    message=f"The API server refuses the pods: {text}. "
                    + (
                        "Raise the quota, or lower engine.resources, accelerator.count or replicas."
                        if is_quota
                        else "Correct what it names, or ask the administrator of the namespace."
                    ),
                    needs_human=True,
                    weight=3,
                )
    return None


def _accepted(decision: Decision) -> Condition:
    if decision.refused is not None:
        return Condition(type=ACCEPTED, status="False", reason=decision.refused.code, message=decision.refused.message)
    return Condition(type=ACCEPTED, status="True", reason="Accepted", message="The spec can be deployed.")


def _available(seen: Observation, decision: Decision) -> Condition:
    ready = sum(is_ready(pod) for pod in seen.pods)
    if not ready:
        return Condition(type=AVAILABLE, status="False", reason="NoPodReady", message="No engine pod is ready.")
    if (blocked := _cut_off(seen, decision)) is not None:
        return Condition(type=AVAILABLE, status="False", reason=blocked.code, message=blocked.message)
    return Condition(type=AVAILABLE, status="True", reason="PodsReady", message=f"{_pods(ready)} ready.")


def _cut_off(seen: Observation, decision: Decision) -> Obstacle | None:
    """Why clients reach nothing although engines are ready."""
    return cut_off(seen, decision) if is_moved(decision) and not decision.is_paused else None


def _pods(count: int) -> str:
    return "1 engine pod is" if count == 1 else f"{count} engine pods are"


def _wanted(decision: Decision, current: RevisionReport) -> int:
    return decision.replicas if decision.replicas is not None else current.wanted


def _withdrawn(seen: Observation, decision: Decision, current: RevisionReport) -> str:
    goes_on = next((r for r in decision.revisions if not r.is_current and r.phase == "Current"), None)
    instead = f"Revision {goes_on.hash} goes on. " if goes_on is not None else ""
    why = current.failure[1] if current.failure is not None else ""
    return (
        f"Revision {current.hash} was withdrawn. {why} {instead}Change the spec, or try it again with "
        f"`kubectl draftmark retry {seen.name}`."
    )


def _progressing(
    seen: Observation, decision: Decision, obstacles: Sequence[Obstacle], problem: PodProblem | None
) -> Condition:
    def of(status: Any, reason: str, message: str) -> Condition:
        return Condition(type=PROGRESSING, status=status, reason=reason, message=message)

    if decision.is_paused:
        return of("False", "Paused", "spec.paused is true: nothing is changed. Set it to false to go on.")
    if decision.held is not None:
        return of("False", "Held", decision.held)
    if obstacles:
        return of("False", obstacles[0].code, " ".join(o.message for o in obstacles))
    if decision.reading is not None:
        return of("True", READING_FACTS, decision.reading)
    current = next((r for r in decision.revisions if r.is_current), None)
    if current is None:
        return of("False", "NothingRuns", "There is no revision to run yet.")
    if current.failure is not None:
        return of("False", current.failure[0], _withdrawn(seen, decision, current))
    wanted = _wanted(decision, current)
    counted = f"revision {current.hash}: {current.ready} of {wanted} replicas are ready"
    if problem is not None and current.ready < wanted:
        return of("False" if problem.needs_human else "True", problem.code, f"{counted}. {problem.message}")
    unheard = not_heard(seen)
    if unheard is not None and current.ready > 0:
        return of("True", unheard.code, f"{counted}. {unheard.message}")
    is_rolling = len(decision.revisions) > 1
    if current.ready < wanted:
        return of("True", "RollingOut" if is_rolling else "Starting", f"{counted}.")
    if not is_moved(decision) and wanted > 0:
        return of("True", "MovingToGateway", f"{counted}. {_moving(seen, decision, current)}")
    if is_rolling:
        return of("True", "RollingOut", f"{counted}; the revision before is being stopped.")
    return of("False", "Complete", f"{counted}.")


def _moving(seen: Observation, decision: Decision, current: RevisionReport) -> str:
    waits_for = unproven(seen, decision, current)
    why = f" {waits_for.message}" if waits_for is not None else ""
    return (
        f"Clients reach the engine pods directly, as before the upgrade, until the gateway "
        f"'{names.gateway_name(seen.name)}' has answered once.{why}"
    )


def _ready(
    seen: Observation,
    decision: Decision,
    accepted: Condition,
    progressing: Condition,
    obstacles: Sequence[Obstacle],
    problem: PodProblem | None,
) -> Condition:
    def of(status: Any, reason: str, message: str) -> Condition:
        return Condition(type=READY, status=status, reason=reason, message=message)

    if accepted.status == "False":
        return of("False", accepted.reason, accepted.message)
    if decision.reading is not None:
        # What runs is not what the spec asks for.
        return of("False", progressing.reason, progressing.message)
    current = next((r for r in decision.revisions if r.is_current), None)
    if current is None:
        return of("False", progressing.reason, progressing.message)
    wanted = _wanted(decision, current)
    if wanted == 0:
        return of(
            "False",
            "ScaledToZero",
            f"spec.replicas is 0, so nothing serves. kubectl scale inferenceservices.{names.GROUP}/{seen.name} "
            "--replicas=1 starts it.",
        )
    if current.failure is not None:
        return of("False", current.failure[0], _withdrawn(seen, decision, current))
    if current.ready == 0:
        reason = problem.code if problem is not None else progressing.reason
        return of("False", reason, problem.message if problem is not None else progressing.message)
    if current.proven_at is None:
        return _unproven(seen, decision, current, progressing, obstacles)
    if (blocked := _cut_off(seen, decision)) is not None:
        return of("False", blocked.code, blocked.message)
    return of("True", "Serving", f"{current.ready} of {wanted} replicas serve revision {current.hash}.")


def _unproven(
    seen: Observation,
    decision: Decision,
    current: RevisionReport,
    progressing: Condition,
    obstacles: Sequence[Obstacle],
) -> Condition:
    """What is missing until a revision whose pods are ready has answered once."""

    def of(reason: str, message: str) -> Condition:
        return Condition(type=READY, status="False", reason=reason, message=message)

    if obstacles:
        # Without its objects no answer will ever come, and waiting for one would be all that the user reads.
        return of(progressing.reason, progressing.message)
    if (blocked := unproven(seen, decision, current)) is not None:
        return of(blocked.code, blocked.message)
    if progressing.reason == "RollingOut":
        return of("RollingOut", progressing.message)
    return of("AwaitingFirstAnswer", "The pods are ready; the first request through the gateway is due.")


def _stalled(
    seen: Observation,
    decision: Decision,
    obstacles: Sequence[Obstacle],
    contended: Sequence[Obstacle],
    problem: PodProblem | None,
    ready: Condition,
) -> tuple[str, str] | None:
    """What waits for somebody."""
    if decision.refused is not None:
        return decision.refused.code, decision.refused.message
    if decision.held is not None:
        return "Held", decision.held
    is_withdrawn = _is_withdrawn(decision)
    # A pod of a withdrawn revision may still be there for a moment; why it was withdrawn is told with the revision.
    of_pods = [problem] if problem is not None and not is_withdrawn else []
    known: list[Obstacle | PodProblem] = [*obstacles, *contended, *of_pods]
    for found in known:
        if found.needs_human:
            return found.code, found.message
    if is_withdrawn or _is_cut_off(seen, decision, ready):
        return ready.reason, ready.message
    return None


def _busy(decision: Decision, progressing: Condition, ready: Condition) -> tuple[str, str] | None:
    """What is under way."""
    if decision.is_paused:
        return None
    if ready.status != "True" and ready.reason != "ScaledToZero":
        return ready.reason, ready.message
    current = next((r for r in decision.revisions if r.is_current), None)
    is_short = current is not None and current.ready != _wanted(decision, current)
    if progressing.status == "True" or len(decision.revisions) > 1 or is_short:
        return progressing.reason, progressing.message
    return None


def _is_cut_off(seen: Observation, decision: Decision, ready: Condition) -> bool:
    """Whether what stands before the engines is not ready, and stays so until somebody acts."""
    current = next((r.hash for r in decision.revisions if r.is_current), "")
    before = {"GatewayNotReady": seen.gateway_pods, "RouterNotReady": pods_of(seen.router_pods, current)}
    problem = worst_problem(before.get(ready.reason, ()))
    return problem is not None and problem.needs_human


def _is_withdrawn(decision: Decision) -> bool:
    return any(r.is_current and r.failure is not None for r in decision.revisions)


def differs(before: Json, after: Json) -> bool:
    """Whether a status is worth a write; `lastTransitionTime` moves only with a condition's status."""
    return before != after


def transitions(before: Json, after: Json) -> tuple[Transition, ...]:
    """What became true between two statuses and is worth an Event."""
    was = {c.get("type"): c for c in before.get("conditions") or ()}
    found = []
    for condition in after.get("conditions") or ():
        old: Mapping[str, Any] = was.get(condition["type"], {})
        same = (old.get("status"), old.get("reason")) == (condition["status"], condition["reason"])
        told = _TOLD.get(condition["type"])
        if same or told is None or condition["status"] not in told:
            continue
        found.append(
            Transition(type=told[condition["status"]], reason=condition["reason"], message=condition["message"])
        )
    suggested = after.get("plan", {}).get("suggestion")
    if suggested and suggested != before.get("plan", {}).get("suggestion"):
        message = str(suggested["message"])
        found.append(Transition(type="Normal", reason="Suggestion", message=message, subject=str(suggested["id"])))
    # Stalled repeats another condition's reason; one Event is enough, and the warning says more.
    loudest = {t.reason: t for t in sorted(found, key=lambda t: t.type == "Warning")}
    return tuple(t for t in found if loudest[t.reason] is t)


#: Conditions whose change is told, and as which type of Event for each status.
_TOLD: Final[Mapping[str, Mapping[str, str]]] = {
    ACCEPTED: {"False": "Warning"},
    READY: {"True": "Normal"},
    PROGRESSING: {"True": "Normal", "False": "Normal"},
    STALLED: {"True": "Warning"},
    CONTENDED: {"True": "Warning"},
    NAMES_UNIQUE: {"False": "Warning"},
    ARGS_UNCHECKED: {"True": "Warning"},
    COMPLETE: {"True": "Normal", "False": "Normal"},
    FAILED: {"True": "Warning"},
    MODEL_FACTS_UNKNOWN: {"True": "Warning"},
}
