"""Whole runs of the question what a model is."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftmark.facts.model_answer import ModelAnswer, ModelProblem
from draftmark.knowledge import read_state, write_state
from draftmark.machines.model_facts import (
    ANSWER_WITHIN,
    PAUSES,
    Asked,
    Failed,
    Known,
    Lost,
    Seen,
    State,
    Step,
    Unasked,
    step,
)
from tests.facts.model_rows import a_llama
from tests.specs import T0

SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
FACTS = a_llama()
ANSWER = ModelAnswer(facts=FACTS, commit="0123abc")
PROBLEM = ModelProblem(code="NotFound", message="It is not there.")
WAITS = Seen(question="q", generation=1, is_wanted=True, is_new=True, is_awaited=True)
RUNS_ALREADY = replace(WAITS, is_new=False, is_awaited=False)
UNBOUND = replace(WAITS, within=MINUTE, obstacle=PROBLEM)


def told(step: Step) -> str:
    """A step as one line: the state, and the Job that is wanted."""
    job = f", job {step.attempt}" if step.attempt is not None else ""
    match step.state:
        case Unasked():
            return f"unasked{job}"
        case Asked(question=question):
            return f"{question} asked{job}"
        case Known(question=question):
            return f"{question} known{job}"
        case Failed(question=question, problem=problem, failures=failures):
            return f"{question} {problem.code} {failures}{job}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What is seen, one look after the other, each some time after the one before; and what comes of it."""

    name: str
    looks: list[tuple[timedelta, Seen]] = field(default_factory=list)
    story: list[str]


def looks(*seen: tuple[timedelta, Seen]) -> list[tuple[timedelta, Seen]]:
    return list(seen)


NOW = timedelta(0)
RUNS = [
    Run(name="answered", looks=looks(
        (NOW, WAITS), (SECOND, WAITS), (SECOND, replace(WAITS, answer=ANSWER)), (SECOND, RUNS_ALREADY), (HOUR, RUNS_ALREADY),
    ), story=["q asked, job 0", "q asked, job 0", "q known, job 0", "q known", "q known"]),
    Run(name="nothing depends on it", looks=looks(
        (NOW, replace(WAITS, is_wanted=False)), (HOUR, replace(WAITS, is_wanted=False)),
    ), story=["unasked", "unasked"]),
    Run(name="what runs is pinned", looks=looks((NOW, RUNS_ALREADY)), story=["unasked"]),
    Run(name="an edit makes it needless", looks=looks(
        (NOW, WAITS), (SECOND, replace(WAITS, is_wanted=False)),
    ), story=["q asked, job 0", "unasked"]),
    Run(name="an edit asks something else", looks=looks(
        (NOW, WAITS), (SECOND, replace(WAITS, question="r", generation=2)),
        (SECOND, replace(WAITS, question="r", generation=2, answer=ANSWER)),
    ), story=["q asked, job 0", "r asked, job 0", "r known, job 0"]),
    Run(name="what was known is not asked again", looks=looks(
        (NOW, replace(WAITS, answer=ANSWER)), (SECOND, replace(WAITS, answer=ANSWER)), (HOUR, replace(WAITS, generation=9)),
    ), story=["q asked, job 0", "q known, job 0", "q known"]),
    Run(name="a problem, and what runs without", looks=looks(
        (NOW, WAITS), (SECOND, replace(WAITS, answer=PROBLEM)), (SECOND, RUNS_ALREADY), (24 * HOUR, RUNS_ALREADY),
    ), story=["q asked, job 0", "q NotFound 1, job 0", "q NotFound 1", "q NotFound 1"]),
    Run(name="a service that cannot go on without is tried again, less and less often", looks=looks(
        (NOW, WAITS), (SECOND, replace(WAITS, answer=PROBLEM)), (59 * SECOND, WAITS), (SECOND, WAITS),
        (SECOND, replace(WAITS, answer=PROBLEM)), (4 * MINUTE, WAITS), (MINUTE, WAITS),
        (SECOND, replace(WAITS, answer=PROBLEM)), (29 * MINUTE, WAITS), (MINUTE, WAITS), (SECOND, replace(WAITS, answer=ANSWER)),
    ), story=[
        "q asked, job 0", "q NotFound 1, job 0", "q NotFound 1", "q asked, job 1",
        "q NotFound 2, job 1", "q NotFound 2", "q asked, job 2",
        "q NotFound 3, job 2", "q NotFound 3", "q asked, job 3", "q known, job 3",
    ]),
    Run(name="an edit tries again at once, and counts anew", looks=looks(
        (NOW, WAITS), (SECOND, replace(WAITS, answer=PROBLEM)), (SECOND, replace(WAITS, generation=2)),
        (SECOND, replace(WAITS, generation=2, answer=PROBLEM)),
    ), story=["q asked, job 0", "q NotFound 1, job 0", "q asked, job 1", "q NotFound 1, job 1"]),
    Run(name="scaling what runs is no edit", looks=looks(
        (NOW, WAITS), (SECOND, replace(WAITS, answer=PROBLEM)), (SECOND, replace(RUNS_ALREADY, generation=2)),
    ), story=["q asked, job 0", "q NotFound 1, job 0", "q NotFound 1"]),
    Run(name="the user tries again, also what runs", looks=looks(
        (NOW, WAITS), (SECOND, replace(WAITS, answer=PROBLEM)), (SECOND, replace(RUNS_ALREADY, retried_at=T0)),
        (SECOND, replace(RUNS_ALREADY, retried_at=T0 + 3 * SECOND)), (SECOND, replace(RUNS_ALREADY, answer=ANSWER)),
    ), story=["q asked, job 0", "q NotFound 1, job 0", "q NotFound 1", "q asked, job 1", "q known, job 1"]),
    Run(name="a lost answer is asked for again under another name", looks=looks(
        (NOW, WAITS), (SECOND, replace(WAITS, answer=Lost())), (SECOND, WAITS), (SECOND, replace(WAITS, answer=ANSWER)),
    ), story=["q asked, job 0", "q asked, job 1", "q asked, job 1", "q known, job 1"]),
    Run(name="answers that are lost again and again end in time", looks=looks(
        (NOW, WAITS), (MINUTE, replace(WAITS, answer=Lost())), (MINUTE, replace(WAITS, answer=Lost())),
        (MINUTE, replace(WAITS, answer=Lost())),
    ), story=["q asked, job 0", "q asked, job 1", "q asked, job 2", "q NoAnswer 1, job 2"]),
    Run(name="no answer", looks=looks(
        (NOW, WAITS), (ANSWER_WITHIN - SECOND, WAITS), (SECOND, replace(WAITS, obstacle=PROBLEM)),
    ), story=["q asked, job 0", "q asked, job 0", "q NotFound 1, job 0"]),
    Run(name="what runs is asked about when the user says so, once", looks=looks(
        (NOW, RUNS_ALREADY), (SECOND, replace(RUNS_ALREADY, retried_at=T0)), (SECOND, replace(RUNS_ALREADY, retried_at=T0, answer=PROBLEM)),
        (SECOND, replace(RUNS_ALREADY, retried_at=T0)), (24 * HOUR, replace(RUNS_ALREADY, retried_at=T0)),
    ), story=["unasked", "q asked, job 0", "q NotFound 1, job 0", "q NotFound 1", "q NotFound 1"]),
    Run(name="a wish to try again asks about nothing that is refused", looks=looks(
        (NOW, replace(WAITS, is_awaited=False, retried_at=T0)),
    ), story=["unasked"]),
    Run(name="a wish for a time to come is met once", looks=looks(
        (NOW, WAITS), (SECOND, replace(WAITS, answer=PROBLEM)), (SECOND, replace(RUNS_ALREADY, retried_at=T0 + HOUR)),
        (SECOND, replace(RUNS_ALREADY, retried_at=T0 + HOUR, answer=PROBLEM)), (SECOND, replace(RUNS_ALREADY, retried_at=T0 + HOUR)),
        (SECOND, replace(RUNS_ALREADY, retried_at=T0 + 5 * SECOND)),
    ), story=["q asked, job 0", "q NotFound 1, job 0", "q asked, job 1", "q NotFound 1, job 1", "q NotFound 1", "q asked, job 2"]),
    Run(name="a claim that is not bound is waited for less long", looks=looks(
        (NOW, UNBOUND), (59 * SECOND, UNBOUND), (SECOND, UNBOUND), (SECOND, RUNS_ALREADY),
    ), story=["q asked, job 0", "q asked, job 0", "q NotFound 1, job 0", "q NotFound 1"]),
    Run(name="a claim that is bound in time leaves the rest of the longer time", looks=looks(
        (NOW, UNBOUND), (59 * SECOND, WAITS), (ANSWER_WITHIN - MINUTE, WAITS), (SECOND, WAITS),
    ), story=["q asked, job 0", "q asked, job 0", "q asked, job 0", "q NoAnswer 1, job 0"]),
    Run(name="the clock is set back", looks=looks(
        (NOW, WAITS), (-HOUR, WAITS), (ANSWER_WITHIN - SECOND, WAITS), (SECOND, WAITS), (-HOUR, WAITS),
    ), story=["q asked, job 0", "q asked, job 0", "q asked, job 0", "q NoAnswer 1, job 0", "q asked, job 1"]),
]  # fmt: skip


def play(run: list[tuple[timedelta, Seen]], between: Callable[[State], State] = lambda state: state) -> list[Step]:
    state: State = Unasked()
    now, steps = T0, []
    for passes, seen in run:
        now += passes
        steps.append(step(state, seen, now))
        state = between(steps[-1].state)
    return steps


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_runs(run: Run) -> None:
    assert [told(each) for each in play(run.looks)] == run.story


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_a_restart_between_any_two_looks_changes_nothing(run: Run) -> None:
    """What the status holds is all that is remembered."""
    assert [told(each) for each in play(run.looks, lambda state: read_state(write_state(state)))] == run.story


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_a_look_that_is_repeated_changes_nothing(run: Run) -> None:
    twice = [look for passes, seen in run.looks for look in ((passes, seen), (NOW, seen))]
    lost = any(isinstance(seen.answer, Lost) for _, seen in run.looks)
    states = [each.state for each in play(twice)]
    # Whoever looks again after a lost answer sees the next Job, which has none yet.
    assert lost or all(a == b or isinstance(a, Asked) for a, b in zip(states[::2], states[1::2], strict=True))


def test_a_status_that_is_lost_asks_for_the_same_job_again() -> None:
    first, again = step(Unasked(), WAITS, T0), step(read_state(None), WAITS, T0 + HOUR)
    assert first.attempt == again.attempt == 0


@pytest.mark.parametrize(
    "memory",
    [
        {}, {"state": "Known"}, {"state": "Asked", "question": "q"}, {"state": "Other", "at": "2026-01-01T12:00:00Z", "question": "q"},
        {"state": "Known", "at": "2026-01-01T12:00:00Z", "question": "q", "facts": {"hiddenSize": 1}},
        {"state": "Known", "at": "2026-01-01T12:00:00Z", "question": "q"},
        {"state": "Failed", "at": "2026-01-01T12:00:00Z", "question": "q"},
        {"state": "Asked", "at": "2026-01-01T12:00:00Z", "question": "q", "attempt": "many"},
    ],
)  # fmt: skip
def test_what_cannot_be_read_of_the_status_is_asked_anew(memory: dict[str, object]) -> None:
    assert read_state(memory) == Unasked()


ANSWERS = st.sampled_from([None, None, ANSWER, PROBLEM, Lost()])
SEEN = st.builds(
    Seen,
    question=st.sampled_from("qr"),
    generation=st.integers(1, 3),
    is_wanted=st.booleans(),
    is_new=st.booleans(),
    is_awaited=st.booleans(),
    retried_at=st.none() | st.integers(0, 600).map(lambda s: T0 + s * SECOND),
    answer=ANSWERS,
    obstacle=st.none() | st.just(PROBLEM),
    within=st.sampled_from([MINUTE, ANSWER_WITHIN]),
)


@given(st.lists(st.tuples(st.integers(-30, 4000).map(lambda s: s * SECOND), SEEN), max_size=30))
def test_whatever_happens_a_job_is_there_only_while_somebody_waits_for_it(run: list[tuple[timedelta, Seen]]) -> None:
    before: State = Unasked()
    for each, (_, seen) in zip(play(run), run, strict=True):
        is_asked = isinstance(each.state, Asked)
        # While it is asked, and for the look in which its answer is written down.
        assert (each.attempt is not None) == (
            is_asked or (isinstance(before, Asked) and each.state != before and not isinstance(each.state, Unasked))
        )
        assert not is_asked or (each.after is not None and timedelta(0) < each.after <= ANSWER_WITHIN)
        assert seen.is_wanted or not is_asked
        before = each.state


def test_pauses_grow() -> None:
    assert list(PAUSES) == sorted(set(PAUSES))


def test_the_longest_pause_is_the_last() -> None:
    failed = Failed(question="q", at=T0, problem=PROBLEM, attempt=40, failures=40, generation=1)

    def is_asked_at(at: datetime) -> bool:
        return isinstance(step(failed, WAITS, at).state, Asked)

    assert not is_asked_at(T0 + PAUSES[-1] - SECOND)
    assert is_asked_at(T0 + PAUSES[-1])
