"""What is known of a service's model: asked once, remembered, and asked again only where that may help.

    Unasked → Asked → Known
                   ↘ Failed → Asked, after a pause that grows, an edit, or when the user says so

The state is in the status. A Job that was lost with its answer is started again under another name, as often as the time
for an answer allows. Nothing is asked when nothing would be decided by it.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, assert_never

from draftmark.facts.model_answer import ModelAnswer, ModelProblem
from draftmark.facts.models import ModelFacts

__all__ = [
    "ANSWER_WITHIN",
    "PAUSES",
    "Asked",
    "Failed",
    "Known",
    "Lost",
    "Seen",
    "State",
    "Step",
    "Unasked",
    "step",
]

#: Longest time for an answer, from the wish for it: an image to pull, a claim to mount, a hub to ask (60 s at most). A guess.
ANSWER_WITHIN: Final = timedelta(minutes=3)
#: Until the next try after so many failures.
PAUSES: Final = tuple(timedelta(minutes=m) for m in (1, 5, 30, 120, 720))


@dataclass(frozen=True, slots=True, kw_only=True)
class Unasked:
    """Nothing is known, and nobody was asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A Job is to answer."""

    question: str
    since: datetime
    #: Jobs before this one; a part of its name.
    attempt: int = 0
    #: Failures before this question.
    failures: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """The answer."""

    question: str
    at: datetime
    facts: ModelFacts
    commit: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """No facts, and why."""

    question: str
    at: datetime
    problem: ModelProblem
    attempt: int
    failures: int
    #: Of the spec that was asked for.
    generation: int
    #: What the user's wish to try again said, where that is a time to come: it is met once.
    retried_at: datetime | None = None


State = Unasked | Asked | Known | Failed


@dataclass(frozen=True, slots=True)
class Lost:
    """The Job ended, and its answer is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What is seen of a question."""

    question: str
    #: Of the spec.
    generation: int
    #: Whether a plan for the spec depends on the facts.
    is_wanted: bool
    #: Whether a revision is about to be made, and whether its choices wait for the facts.
    is_new: bool
    is_awaited: bool
    #: When the user asked to try again; None: never.
    retried_at: datetime | None = None
    #: What the present Job tells; None: nothing yet.
    answer: ModelAnswer | ModelProblem | Lost | None = None
    #: What keeps the Job from answering, in words.
    obstacle: ModelProblem | None = None
    #: How long an answer is waited for, from the wish for it.
    within: timedelta = ANSWER_WITHIN


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The next state, and what follows from it."""

    state: State
    #: The Job that should be there, by its attempt; None: none.
    attempt: int | None = None
    #: Look again after this time, though nothing may have happened.
    after: timedelta | None = None


def step(state: State, seen: Seen, now: datetime) -> Step:
    """The next step towards the facts.

    Args:
        now: Aware, UTC.
    """
    match state:
        case Unasked():
            # What runs is asked about when the user says so: it was made by a version that did not ask, or the status was lost.
            is_asked_for = seen.retried_at is not None and not seen.is_new
            return _ask(seen, now) if seen.is_wanted and (seen.is_awaited or is_asked_for) else Step(state=state)
        case Asked() | Known() | Failed() if state.question != seen.question:
            return step(Unasked(), seen, now)
        case Asked():
            return _wait(state, seen, now)
        case Known():
            return Step(state=state)
        case Failed():
            return _try_again(state, seen, now)
        case _:
            assert_never(state)


def _ask(seen: Seen, now: datetime, *, attempt: int = 0, failures: int = 0) -> Step:
    asked = Asked(question=seen.question, since=now, attempt=attempt, failures=failures)
    return Step(state=asked, attempt=attempt, after=seen.within)


def _wait(state: Asked, seen: Seen, now: datetime) -> Step:
    if not seen.is_wanted:
        return Step(state=Unasked())
    if state.since > now:
        # The clock was set back: the time begins anew.
        return _ask(seen, now, attempt=state.attempt, failures=state.failures)
    left = state.since + seen.within - now
    match seen.answer:
        case ModelAnswer(facts=facts, commit=commit):
            known = Known(question=state.question, at=now, facts=facts, commit=commit)
            # The Job stays until the answer is written down.
            return Step(state=known, attempt=state.attempt)
        case ModelProblem():
            return _fail(state, seen, seen.answer, now)
        case Lost() if left > timedelta(0):
            again = Asked(
                question=state.question, since=state.since, attempt=state.attempt + 1, failures=state.failures
            )
            return Step(state=again, attempt=again.attempt, after=left)
        case _ if left > timedelta(0):
            return Step(state=state, attempt=state.attempt, after=left)
        case _:
            late = f"There was no answer within {seen.within.total_seconds():.0f} s."
            problem = seen.obstacle or ModelProblem(code="NoAnswer", message="The Job left none.")
            return _fail(state, seen, ModelProblem(code=problem.code, message=f"{late} {problem.message}"), now)


def _fail(state: Asked, seen: Seen, problem: ModelProblem, now: datetime) -> Step:
    failed = Failed(
        question=state.question,
        at=now,
        problem=problem,
        attempt=state.attempt,
        failures=state.failures + 1,
        generation=seen.generation,
        retried_at=seen.retried_at if seen.retried_at is not None and seen.retried_at > now else None,
    )
    return Step(state=failed, attempt=state.attempt, after=PAUSES[0] if seen.is_awaited else None)


def _try_again(state: Failed, seen: Seen, now: datetime) -> Step:
    if not seen.is_wanted:
        return Step(state=state)
    due = state.at + PAUSES[min(state.failures, len(PAUSES)) - 1]
    is_asked_for = seen.retried_at is not None and seen.retried_at > state.at and seen.retried_at != state.retried_at
    is_edited = seen.is_new and seen.generation != state.generation
    if is_asked_for or is_edited:
        return _ask(seen, now, attempt=state.attempt + 1)
    if not seen.is_awaited:
        # What runs is pinned: an answer would decide nothing.
        return Step(state=state)
    if now >= due or now < state.at:
        return _ask(seen, now, attempt=state.attempt + 1, failures=state.failures)
    return Step(state=state, after=due - now)
