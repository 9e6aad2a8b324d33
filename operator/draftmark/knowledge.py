"""What is known of a service's model, and what is done to learn it.

    spec.model.architecture → what a Job told, now or before → the catalogue of well-known models

A Job is asked for only where a revision is about to be made whose plan depends on the answer (`planner.needs_facts`); the
revision waits for it, and no longer than `machines.model_facts` says. Missing facts never stop a service: the planner is
then asked without them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from draftmark.api import names
from draftmark.api.conditions import shorten
from draftmark.api.inference_service import InferenceServiceSpec
from draftmark.api.model_uri import ClaimModel
from draftmark.api.times import read_time, write_time
from draftmark.choice import Novelty, novelty
from draftmark.decision import Manifest
from draftmark.facts.model_answer import MAX_MESSAGE_BYTES, ModelAnswer, ModelProblem, read_answer
from draftmark.facts.model_architecture import SOURCE, facts_from_architecture
from draftmark.facts.model_catalogue import catalogue_facts
from draftmark.facts.model_json import facts_from_json, facts_to_json
from draftmark.facts.model_question import ModelQuestion, ask_about
from draftmark.facts.models import ModelFacts, UnreadableConfig
from draftmark.facts.pods import pod_problem
from draftmark.machines import model_facts as machine
from draftmark.machines.model_facts import Asked, Failed, Known, Lost, Seen, State, Unasked
from draftmark.observation import Json, Observation
from draftmark.plan import Unplannable
from draftmark.planner.needs_facts import UNKNOWN, needs_facts
from draftmark.planner.planner import make_plan
from draftmark.render.metadata import Place
from draftmark.render.model_facts import CONTAINER, render_model_facts_job

#: From the end of a Job until its pod's answer is given up: the two are told by different watches.
ANSWER_LAG: Final = timedelta(seconds=15)
#: Longest time for a claim to be there and bound, from the wish for an answer: a claim that is applied beside its service is
#: provisioned first. A guess.
BOUND_WITHIN: Final = timedelta(minutes=1)

_NO_FACTS: Final = "Write model.architecture, or say accelerator, parallelism and model.maxContextLength yourself."
_RETRY: Final = " `kubectl draftmark retry` asks again."


@dataclass(frozen=True, slots=True, kw_only=True)
class Knowledge:
    """What is known, and what follows from that."""

    facts: ModelFacts | None = None
    #: spec.model.architecture cannot be read.
    refused: Unplannable | None = None
    #: What the status has to remember; None: nothing.
    memory: Mapping[str, Any] | None = None
    #: Whether that is an answer which only this process knows yet.
    is_news: bool = False
    job: Manifest | None = None
    #: Why no revision is made yet; None: one may be.
    waiting: str | None = None
    #: Why a plan that depends on them has to be made without facts.
    unknown: ModelProblem | None = None
    after: timedelta | None = None


def remembered(seen: Observation) -> Mapping[str, Any] | None:
    """What the status holds already, for a spec that cannot be read: it stays."""
    memory = seen.status.get("modelFacts")
    return memory if isinstance(memory, Mapping) else None


def unasked(seen: Observation, spec: InferenceServiceSpec) -> ModelProblem | None:
    """What a plan that is made without a cluster does not know of the model, and a Job in a cluster would read."""
    question = ask_about(spec.model)
    if seen.can_ask or isinstance(question, ModelProblem) or not needs_facts(spec, seen.cluster, seen.defaults):
        return None
    if catalogue_facts(spec.model.uri) is not None:
        return None
    return ModelProblem(
        code="NobodyAsked",
        message=f"Not known of the model: its shape, for what the spec leaves open. In a cluster a Job reads it from "
        f"{shorten(question.uri, 200)} first, and the plan there may be another one. Write model.architecture to see that here.",
    )


def know_model(seen: Observation, spec: InferenceServiceSpec, now: datetime, *, is_frozen: bool) -> Knowledge:
    """What is known of the model, and the next step to know more.

    Args:
        now: Aware, UTC.
        is_frozen: Nothing may be begun: the service is paused, or it is not known what runs.
    """
    memory = remembered(seen)
    if spec.model.architecture is not None:
        written = facts_from_architecture(spec.model.architecture)
        if isinstance(written, UnreadableConfig):
            message = f"{SOURCE}: {written.reason} Correct it, or remove it to have the model's files asked."
            return Knowledge(refused=Unplannable(code="InvalidArchitecture", message=message), memory=memory)
        return Knowledge(facts=written, memory=memory)
    question = ask_about(spec.model)
    is_wanted = needs_facts(spec, seen.cluster, seen.defaults)
    if isinstance(question, ModelProblem):
        facts = catalogue_facts(spec.model.uri)
        return Knowledge(facts=facts, unknown=_without(question, "") if is_wanted and facts is None else None)
    state = read_state(memory)
    if is_frozen or not seen.can_ask:
        mine = state if isinstance(state, Known) and state.question == question.key else None
        return Knowledge(facts=mine.facts if mine else catalogue_facts(spec.model.uri), memory=memory)
    return _learn(seen, spec, question, state, now, is_wanted=is_wanted)


def _learn(
    seen: Observation,
    spec: InferenceServiceSpec,
    question: ModelQuestion,
    state: State,
    now: datetime,
    *,
    is_wanted: bool,
) -> Knowledge:
    place = Place(service=seen.name, namespace=seen.namespace, uid=seen.uid)

    def job_of(attempt: int) -> Manifest:
        return render_model_facts_job(place, spec, question, attempt=attempt, defaults=seen.defaults)

    unbound = _unbound(seen, question)
    new = novelty(seen, spec) if is_wanted else Novelty()
    looked = Seen(
        question=question.key,
        generation=seen.generation,
        is_wanted=is_wanted,
        is_new=new.is_new,
        is_awaited=new.has_choices and _can_be_planned(seen, spec),
        retried_at=_retried_at(seen),
        obstacle=unbound,
        within=BOUND_WITHIN if unbound is not None else machine.ANSWER_WITHIN,
    )

    def heard(state: State) -> Seen:
        if not isinstance(state, Asked) or state.question != question.key:
            return looked
        job = job_of(state.attempt)
        return replace(looked, answer=_answer(seen, job, now), obstacle=unbound or _obstacle(seen, job))

    step = machine.step(state, heard(state), now)
    if isinstance(step.state, Asked) and step.state != state and heard(step.state).answer is not None:
        # The Job is there already, with its answer, when what was asked had not been written down: the process was killed,
        # or the status was lost. Nothing else would happen that brings us back.
        step = machine.step(step.state, heard(step.state), now)
    job = job_of(step.attempt) if step.attempt is not None and unbound is None else None
    found = step.state.facts if isinstance(step.state, Known) else catalogue_facts(spec.model.uri)
    is_waiting = isinstance(step.state, Asked) and new.has_choices
    failed = step.state.problem if isinstance(step.state, Failed) else None
    return Knowledge(
        facts=found,
        memory=write_state(step.state),
        is_news=isinstance(step.state, Known | Failed) and step.state != state,
        job=job,
        waiting=_waiting(seen, question, job, looked) if is_waiting else None,
        unknown=_without(failed, _RETRY) if failed is not None and is_wanted and found is None else None,
        after=_sooner(step.after, seen, job if isinstance(step.state, Asked) else None),
    )


def _sooner(after: timedelta | None, seen: Observation, job: Manifest | None) -> timedelta | None:
    """A Job that has ended is looked at again soon: if its answer is lost, nothing else will happen."""
    is_ended = job is not None and _ended(_live(seen, job), "Complete") is not None
    return min(after, ANSWER_LAG) if after is not None and is_ended else after


def _can_be_planned(seen: Observation, spec: InferenceServiceSpec) -> bool:
    """Whether facts are all that may be missing: nobody is asked about a spec that is refused in any case."""
    plan = make_plan(spec, name=seen.name, cluster=seen.cluster, defaults=seen.defaults, keep=None)
    return not isinstance(plan, Unplannable) or plan.code == UNKNOWN


def _unbound(seen: Observation, question: ModelQuestion) -> ModelProblem | None:
    """What is wrong with the claim that the model is on.

    No pod mounts it until it is bound: one that is provisioned for its first pod would come to be where a pod without a GPU
    was scheduled, in a zone perhaps that has none.
    """
    if not isinstance(question.source, ClaimModel) or seen.claims is None:
        return None
    claim, phase = question.source.claim, seen.claims.get(question.source.claim)
    if phase == "Bound":
        return None
    what, code = ("does not exist", "ClaimNotFound") if phase is None else (f"is not bound ({phase})", "ClaimNotBound")
    return ModelProblem(code=code, message=f"PersistentVolumeClaim '{claim}' {what}, so nothing is read there.")


def _retried_at(seen: Observation) -> datetime | None:
    annotations = seen.service["metadata"].get("annotations") or {}
    at = read_time(annotations.get(names.ANNOTATION_RETRY))
    try:
        # As the status can hold it.
        return at.astimezone(UTC).replace(microsecond=0) if at is not None else None
    except OverflowError:
        return None


def _pods_of(seen: Observation, job: Manifest) -> list[Json]:
    name = job["metadata"]["name"]
    return [p for p in seen.model_facts_pods if p["metadata"].get("labels", {}).get(names.LABEL_JOB) == name]


def _live(seen: Observation, job: Manifest) -> Json:
    """The Job as it is in the cluster; empty where it is not there, or not known."""
    name = job["metadata"]["name"]
    return next((j for j in seen.owned("Job") if j["metadata"]["name"] == name), {})


def _ended(job: Json, how: str) -> Json | None:
    conditions = job.get("status", {}).get("conditions") or ()
    return next((c for c in conditions if c.get("type") == how and c.get("status") == "True"), None)


def _answer(seen: Observation, job: Manifest, now: datetime) -> ModelAnswer | ModelProblem | Lost | None:
    """What the pods of a Job told."""
    broken: ModelProblem | None = None
    for pod in _pods_of(seen, job):
        for container in pod.get("status", {}).get("containerStatuses") or ():
            ended = container.get("state", {}).get("terminated")
            # A service mesh puts containers of its own beside it, which may run on for ever.
            if ended is None or container.get("name") != CONTAINER:
                continue
            if ended.get("exitCode") == 0 and ended.get("message"):
                return read_answer(str(ended["message"]))
            broken = (
                ModelProblem(code="OutOfMemory", message="The program that reads the facts was killed for memory.")
                if ended.get("reason") == "OOMKilled"
                else read_answer_of_log(str(ended.get("message") or ""))
            )
    live = _live(seen, job)
    if (failed := _ended(live, "Failed")) is not None:
        said = shorten(str(failed.get("message") or failed.get("reason") or "no reason given"), 300)
        return broken or _obstacle(seen, job) or ModelProblem(code="NoAnswer", message=f"The Job failed: {said}.")
    if (complete := _ended(live, "Complete")) is not None:
        at = read_time(complete.get("lastTransitionTime"))
        return Lost() if at is None or now > at + ANSWER_LAG else None
    return None


def read_answer_of_log(text: str) -> ModelProblem:
    """The problem of a program that broke off: its message is the end of its log, and never an answer."""
    read = read_answer(text)
    return read if isinstance(read, ModelProblem) else ModelProblem(code="NoAnswer", message="The program broke off.")


def _obstacle(seen: Observation, job: Manifest) -> ModelProblem | None:
    """What keeps a Job from answering."""
    for pod in _pods_of(seen, job):
        if (problem := pod_problem(pod)) is not None:
            return ModelProblem(code=problem.code, message=shorten(problem.message, 360))
    if not _live(seen, job):
        return ModelProblem(
            code="NoJob",
            message=f"Job '{job['metadata']['name']}' is not there: the API server refuses it, or its name is taken; the "
            "Events of the service say which.",
        )
    return None


def _waiting(seen: Observation, question: ModelQuestion, job: Manifest | None, looked: Seen) -> str:
    obstacle = looked.obstacle if job is None else _obstacle(seen, job)
    hindered = f" {obstacle.message}" if obstacle is not None and obstacle.code != "NoJob" else ""
    reads = f"which Job '{job['metadata']['name']}' reads" if job is not None else "which a Job is to read"
    return (
        f"The plan waits for the facts of {shorten(question.uri, 200)}, {reads}; without an answer within "
        f"{looked.within.total_seconds():.0f} s it is made without them.{hindered}"
    )


def _without(problem: ModelProblem, more: str) -> ModelProblem:
    """The way out for whoever has no facts."""
    return ModelProblem(
        code=problem.code,
        message=f"Not known of the model: its shape, for what the spec leaves open. {problem.message} {_NO_FACTS}{more}",
    )


def write_state(state: State) -> dict[str, Any] | None:
    """A state as the status holds it."""
    match state:
        case Asked():
            written: dict[str, Any] = {"state": "Asked", "at": write_time(state.since)}
            counts = {"attempt": state.attempt, "failures": state.failures}
        case Known():
            written = {"state": "Known", "at": write_time(state.at), "facts": json.loads(facts_to_json(state.facts))}
            written |= {"commit": state.commit} if state.commit is not None else {}
            counts = {}
        case Failed():
            message = shorten(state.problem.message, MAX_MESSAGE_BYTES)
            written = {"state": "Failed", "at": write_time(state.at), "code": state.problem.code, "message": message}
            written |= {"retriedAt": write_time(state.retried_at)} if state.retried_at is not None else {}
            counts = {"attempt": state.attempt, "failures": state.failures, "generation": state.generation}
        case _:
            return None
    return {**written, "question": state.question, **{key: count for key, count in counts.items() if count}}


def read_state(memory: Mapping[str, Any] | None) -> State:
    """A state from the status. What cannot be read is asked anew."""
    try:
        return _read_state(memory or {})
    except (KeyError, TypeError, ValueError):
        return Unasked()


def _read_state(memory: Mapping[str, Any]) -> State:
    at = read_time(memory.get("at"))
    if at is None:
        return Unasked()
    question = str(memory["question"])
    attempt, failures = int(memory.get("attempt", 0)), int(memory.get("failures", 0))
    match memory.get("state"):
        case "Asked":
            return Asked(question=question, since=at, attempt=attempt, failures=failures)
        case "Known":
            facts = facts_from_json(json.dumps(memory["facts"]))
            if isinstance(facts, UnreadableConfig):
                return Unasked()
            commit = memory.get("commit")
            return Known(question=question, at=at, facts=facts, commit=str(commit) if commit is not None else None)
        case "Failed":
            problem = ModelProblem(code=str(memory["code"]), message=str(memory["message"]))
            generation = int(memory.get("generation", 0))
            return Failed(
                question=question,
                at=at,
                problem=problem,
                attempt=attempt,
                failures=failures,
                generation=generation,
                retried_at=read_time(memory.get("retriedAt")),
            )
        case _:
            return Unasked()
