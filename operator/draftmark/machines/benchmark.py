"""One measurement, from the wish for it to its one result.

    Pending → Running → Finished (Succeeded, Inconclusive or Failed)

The state is in the status, and a Job that runs outlives the status: its name says whose it is and which try. A Job that is
lost with its result is started again under another name, as long as the target is the one that it began with. What has
ended once never changes.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal, assert_never

from draftmark.measure.result import Refusal, Result

__all__ = [
    "MOST_ATTEMPTS",
    "RESULT_LAG",
    "SILENT_AFTER",
    "START_WITHIN",
    "Ended",
    "Finished",
    "Found",
    "Obstacle",
    "Pending",
    "Phase",
    "Running",
    "Seen",
    "State",
    "Step",
    "step",
]

#: Jobs of one Benchmark.
MOST_ATTEMPTS: Final = 3
#: Longest time without a word of a Job whose program runs. It speaks with every percent, and at least every minute. A guess.
SILENT_AFTER: Final = timedelta(minutes=10)
#: Longest time from a Job to its program: a node to come, an image to pull, a claim to mount. A guess.
START_WITHIN: Final = timedelta(minutes=30)
#: From the end of a Job until its result is given up: the two are told by different watches.
RESULT_LAG: Final = timedelta(seconds=15)

Phase = Literal["Succeeded", "Inconclusive", "Failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """Nothing was measured yet."""

    since: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A Job is to measure."""

    attempt: int
    #: Of the targets when it began; None: not known.
    digest: str | None
    #: Since when the Job is seen; None: it was only asked for.
    since: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The end."""

    phase: Phase
    code: str
    message: str
    #: What the numbers are taken from; None: there are none.
    result: Result | None = None


State = Pending | Running | Finished


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """What stands in the way, and the way out."""

    code: str
    message: str
    #: Nothing gets better until somebody changes something.
    needs_human: bool = False
    #: It stays for as long as there is this Benchmark: its spec cannot be changed, and nothing else would help.
    is_final: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A Job came to its end."""

    at: datetime | None
    #: Why the Job failed, in Kubernetes' word; empty: it did not.
    reason: str = ""
    #: What its pod said last.
    words: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The latest Job that is there."""

    attempt: int
    digest: str | None
    #: Whether its program has begun.
    is_started: bool = False
    #: When it began, by its node's clock; None: it has not, or nothing was told of it.
    started_at: datetime | None = None
    ended: Ended | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What is seen of a Benchmark."""

    #: Why nothing can be measured, or go on; None: nothing is in the way.
    obstacle: Obstacle | None = None
    #: Whether the target is there no more.
    is_gone: bool = False
    #: Why the target is not what was to be measured, though it is there; None: nothing speaks against it.
    changed: Obstacle | None = None
    #: Of the targets now; None: not known.
    digest: str | None = None
    #: Whether a digest can be had of them at all: of a server behind a URL nothing is known.
    has_digest: bool = True
    found: Found | None = None
    #: Whether Jobs are known: what is not seen may be there otherwise.
    is_listed: bool = True
    #: The latest try of which something was told; None: none.
    told_attempt: int | None = None
    #: The result that there is, and of which try it is.
    result: Result | None = None
    result_attempt: int | None = None
    #: There is a result that this version cannot read.
    is_unreadable: bool = False
    #: When its Job last told something new; None: it was not heard by this process.
    heard_at: datetime | None = None
    #: What keeps the Job's pod from starting.
    hindered: Obstacle | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The next state, and what follows from it."""

    state: State
    #: The Job that should be there, by its try; None: no new one.
    attempt: int | None = None
    #: Whether Jobs that are there are ended.
    is_dropped: bool = False
    #: Look again after this time, though nothing may have happened.
    after: timedelta | None = None


def step(state: State, seen: Seen, now: datetime) -> Step:
    """The next step towards the end.

    Args:
        now: Aware, UTC.
    """
    match state:
        case Finished():
            return Step(state=state)
        case _ if not seen.is_listed:
            return Step(state=state)
        case Pending():
            return _begin(state, seen, now)
        case Running():
            return _watch(state, seen, now)
        case _:
            assert_never(state)


def _begin(state: Pending, seen: Seen, now: datetime) -> Step:
    if (found := seen.found) is not None:
        # Made by a process that ended before it could say so, or the status was lost.
        return _watch(Running(attempt=found.attempt, digest=found.digest, since=now), seen, now)
    if seen.obstacle is not None:
        return Step(state=_given_up(seen.obstacle) or Pending(since=state.since or now))
    if seen.told_attempt is not None:
        # What an earlier Job has told must not be taken for the words of a new one.
        return _again(seen.told_attempt, seen, "Its status was lost, and its Job is gone.")
    return _ask(0, seen)


def _given_up(obstacle: Obstacle) -> Finished | None:
    """The end of what nothing can help."""
    return Finished(phase="Failed", code=obstacle.code, message=obstacle.message) if obstacle.is_final else None


def _ask(attempt: int, seen: Seen) -> Step:
    return Step(state=Running(attempt=attempt, digest=seen.digest), attempt=attempt)


def _ask_again(state: Running, seen: Seen) -> Step:
    """A Job that was asked for and is not there."""
    if seen.obstacle is None:
        return _ask(state.attempt, seen)
    # A try that came to nothing counts, also while the next one waits.
    return Step(state=_given_up(seen.obstacle) or (state if state.attempt else Pending()))


def _watch(state: Running, seen: Seen, now: datetime) -> Step:
    found = seen.found
    if found is not None and found.attempt > state.attempt:
        state = Running(attempt=found.attempt, digest=found.digest, since=now)
    is_here = found is not None and found.attempt == state.attempt
    if is_here and found is not None:
        # The Job bears what it was made for.
        state = Running(attempt=state.attempt, digest=found.digest, since=state.since or now)
    if (failed := _changed(state, seen)) is not None:
        if state.since is None:
            return _ask_again(state, seen)  # nothing was measured: it begins with what is there now
        return Step(state=failed, is_dropped=True)
    if seen.result is not None and seen.result_attempt == state.attempt:
        if state.digest is not None and seen.digest is None:
            # Whether it is still what was measured will be known when it can be read again.
            return Step(state=state)
        return Step(state=_conclude(seen.result))
    if not is_here or found is None:
        if state.since is not None:
            return _again(state.attempt, seen, "Its Job was deleted before there was a result.")
        return _ask_again(state, seen)
    if (ended := found.ended) is not None:
        return _ended(state, seen, ended, now)
    return _listen(state, seen, found, now)


def _changed(state: Running, seen: Seen) -> Finished | None:
    """Why what is measured is not what was to be measured."""
    if seen.is_gone:
        message = "The target was deleted before there was a result. Measure what there is now with another Benchmark."
        return Finished(phase="Failed", code="TargetGone", message=message)
    if seen.changed is not None:
        return Finished(phase="Failed", code=seen.changed.code, message=seen.changed.message)
    if seen.has_digest and state.digest is not None and seen.digest is not None and seen.digest != state.digest:
        message = (
            "The target is not what it was at the start: a pod of it was replaced, restarted or scaled, so that nothing "
            "that was measured can be told of one state of it. See why (kubectl get pods, kubectl describe), and measure it "
            "at rest with another Benchmark."
        )
        return Finished(phase="Failed", code="TargetChanged", message=message)
    return None


def _ended(state: Running, seen: Seen, ended: Ended, now: datetime) -> Step:
    if ended.reason == "DeadlineExceeded":
        message = (
            "The Job took longer than its whole plan, with every time-out in it, and was ended. Look at the log of its pod; "
            "measure less (workloads, concurrency, duration, repetitions), or make another Benchmark."
        )
        return Step(state=Finished(phase="Failed", code="DeadlineExceeded", message=message))
    if ended.at is not None and ended.at <= now < ended.at + RESULT_LAG:
        return Step(state=state, after=ended.at + RESULT_LAG - now)
    if seen.is_unreadable:
        message = (
            "There is a result, in a form that this version of Draftmark does not read: another program wrote it, or the load "
            "generator is of another version (benchmarks.image). Use the operator's own version, and make another Benchmark."
        )
        return Step(state=Finished(phase="Failed", code="UnreadableResult", message=message))
    return _again(state.attempt, seen, f"Its Job ended without a result. {ended.words}".strip())


def _listen(state: Running, seen: Seen, found: Found, now: datetime) -> Step:
    since = max(state.since or now, seen.heard_at or state.since or now)
    within = SILENT_AFTER if found.is_started else START_WITHIN
    if since > now:
        # The clock was set back: the time begins anew.
        return Step(state=Running(attempt=state.attempt, digest=state.digest, since=now), after=within)
    if found.started_at is not None:
        # The way to its node and its image may have taken longer than a program is silent. A node's clock may be ahead.
        since = max(since, min(found.started_at, now))
    if now < since + within:
        return Step(state=state, after=since + within - now)
    minutes = int(within.total_seconds() // 60)
    if found.is_started:
        return _again(state.attempt, seen, f"Its Job told nothing for {minutes} minutes, and was ended.", drop=True)
    hindered = seen.hindered or Obstacle(
        code="NotStarted", message="Look at its pod (kubectl describe pod) and at the Events of the Job."
    )
    message = f"The load generator did not start within {minutes} minutes. {hindered.message}"
    return Step(state=Finished(phase="Failed", code=hindered.code, message=message), is_dropped=True)


def _again(attempt: int, seen: Seen, why: str, *, drop: bool = False) -> Step:
    """The next try, or the end."""
    if attempt + 1 >= MOST_ATTEMPTS:
        message = (
            f"{MOST_ATTEMPTS} Jobs left no result. {why} Look at the log of its pod and at the Events of the namespace, and "
            "make another Benchmark when the cause is mended."
        )
        return Step(state=Finished(phase="Failed", code="NoResult", message=message), is_dropped=drop)
    return Step(
        state=Running(attempt=attempt + 1, digest=seen.digest),
        attempt=attempt + 1 if seen.obstacle is None else None,
        is_dropped=drop,
    )


def _conclude(result: Result) -> Finished:
    """What a result says as a whole."""
    if (refusal := result.refusal) is not None:
        return _refused(refusal, result, "")
    # Of numbers that stand.
    not_checked = "".join(f" {sentence}" for sentence in result.unchecked)
    refused = [row for row in result.rows if row.refusal is not None]
    worst = next((r.refusal for r in refused if r.refusal is not None and r.refusal.is_failure), None)
    first = worst or (refused[0].refusal if refused else None)
    if first is not None:
        told = f"{len(refused)} of {len(result.rows)} rows have no numbers. "
        # Some numbers stand: it ran.
        is_failure = first.is_failure and len(refused) == len(result.rows)
        words = first.message
        if not_checked and len(refused) < len(result.rows):
            words = f"{words.removesuffix('.')}.{not_checked}"
        return _refused(first.model_copy(update={"is_failure": is_failure, "message": words}), result, told)
    if not result.rows:
        return _refused(Refusal(code="NoRows", message="There is not one row.", is_failure=True), result, "")
    if len(result.targets) > 1 and all(d.verdict == "Inconclusive" for d in result.differences):
        message = (
            "The noise is larger than any difference that was looked for, so nothing is shown. Compare longer "
            "(duration, compare.rounds), with less else on the nodes, or ask for less (compare.equalWithinPercent)."
        )
        return Finished(
            phase="Inconclusive", code="NoDifferenceShown", message=f"{message}{not_checked}", result=result
        )
    rows = f"{len(result.rows)} row{'' if len(result.rows) == 1 else 's'}"
    return Finished(phase="Succeeded", code="Succeeded", message=f"{rows} measured.{not_checked}", result=result)


def _refused(refusal: Refusal, result: Result, told: str) -> Finished:
    phase: Phase = "Failed" if refusal.is_failure else "Inconclusive"
    return Finished(phase=phase, code=refusal.code, message=f"{told}{refusal.message}", result=result)
