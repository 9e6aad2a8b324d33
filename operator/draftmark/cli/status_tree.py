"""The tree of `kubectl draftmark status`, from the overview."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from draftmark.api.conditions import ACCEPTED, ARGS_UNCHECKED, AVAILABLE, CONTENDED, PROGRESSING, READY, STALLED
from draftmark.cli.spans import ago, span
from draftmark.cli.tree import Branch, Tone, Word

__all__ = ["status_tree"]

Json = Mapping[str, Any]

#: kstatus' words repeat ours.
_HIDDEN: Final = frozenset({"Reconciling", STALLED})
_ORDER: Final = (READY, ACCEPTED, AVAILABLE, PROGRESSING, CONTENDED, ARGS_UNCHECKED)
_PHASE_TONES: Final[Mapping[str, Tone]] = {"Current": "good", "Candidate": "busy", "Retiring": "faint", "Failed": "bad"}


def status_tree(told: Json, now: datetime) -> Branch:
    """What is there, from the service down to its pods; what is wrong stands where it is wrong.

    Args:
        told: As `overview` makes it.
        now: Aware, UTC.
    """
    branches = [_plan(told["plan"])] if told["plan"] else []
    branches.append(_conditions(told["conditions"], told["observed"]))
    if told["gateway"] is not None:
        branches.append(_workload("gateway", told["gateway"]))
    branches += [_revision(revision, now) for revision in told["revisions"]]
    if told["suggestion"]:
        branches.append(_suggestion(told))
    return Branch(_head(told), tuple(branches))


def _head(told: Json) -> tuple[Word, ...]:
    ready: Json = next((c for c in told["conditions"] if c["type"] == READY), {})
    state: Word
    if told["ready"]:
        state = Word("Ready", "good")
    else:
        stalled = any(c["type"] == STALLED and c["status"] == "True" for c in told["conditions"])
        state = Word(f"not ready ({ready.get('reason') or 'not seen yet'})", "bad" if stalled else "busy")
    words = [Word(f"{told['namespace']}/{told['name']}", "strong"), state]
    if told["paused"]:
        words.append(Word("paused", "busy"))
    if told["url"]:
        words.append(Word(str(told["url"]), "faint"))
    return tuple(words)


def _plan(plan: Json) -> Branch:
    parts = [
        f"{plan['engine']} {plan['version']}",
        str(plan["layout"]),
        f"{plan['maxContextLength']} tokens per request",
        f"{plan['concurrency']} {'request' if plan['concurrency'] == 1 else 'requests'} at once",
        str(plan["image"]),
    ]
    return Branch((Word("plan"), Word(", ".join(parts), "faint")))


def _conditions(conditions: Iterable[Json], is_observed: bool) -> Branch:
    shown = [c for c in conditions if c["type"] not in _HIDDEN]
    shown.sort(key=lambda c: (_ORDER.index(c["type"]) if c["type"] in _ORDER else len(_ORDER), c["type"]))
    branches, told = [], set()
    for c in shown:
        message = str(c["message"] or "")
        # One cause often speaks through several conditions.
        words = _words("(as above)" if message and message in told else message)
        told.add(message)
        branches.append(
            Branch((Word(f"{c['type']}={c['status']}", _condition_tone(c)), Word(str(c["reason"])), *words))
        )
    head = [Word("conditions")]
    if not is_observed:
        head.append(Word("the operator has not seen this version of the spec yet", "busy"))
    return Branch(tuple(head), tuple(branches))


def _condition_tone(condition: Json) -> Tone:
    if condition["type"] in (ARGS_UNCHECKED, CONTENDED):
        return "bad" if condition["status"] == "True" else "plain"
    if condition["type"] == PROGRESSING:
        return "busy" if condition["status"] == "True" else "plain"
    return "good" if condition["status"] == "True" else "bad"


def _workload(label: str, workload: Json) -> Branch:
    ready, wanted = workload["readyReplicas"], workload["replicas"]
    words = [Word(label), *([Word(str(workload["name"]))] if workload["name"] else []), _counted(ready, wanted)]
    return Branch(tuple(words), tuple(_pod(pod) for pod in workload["pods"]))


def _counted(ready: int | None, wanted: int | None) -> Word:
    if ready is None or wanted is None:
        return Word("replicas not known", "faint")
    return Word(f"{ready}/{wanted} ready", "good" if ready >= wanted else "busy")


def _revision(revision: Json, now: datetime) -> Branch:
    phase = revision["phase"]
    words = [Word(f"revision {revision['hash']}", "strong")]
    words.append(Word(phase, _PHASE_TONES.get(phase, "plain")) if phase else Word("not in the status", "faint"))
    if revision["weight"] is not None:
        words.append(Word(f"{revision['weight']} %"))
    words.append(_counted(revision["readyReplicas"], revision["replicas"]))
    if proven := ago(revision["provenAt"], now):
        words.append(Word(f"proven {proven}", "faint"))
    branches = []
    if revision["reason"] or revision["message"]:
        branches.append(
            Branch(
                (
                    Word(str(revision["reason"] or "why"), "bad" if phase == "Failed" else "busy"),
                    *_words(revision["message"]),
                )
            )
        )
    if revision["startup"] and (stages := _stages(revision["startup"])):
        branches.append(Branch((Word("start-up"), Word(stages, "faint"))))
    if revision["router"] is not None:
        branches.append(_workload("router", revision["router"]))
    branches += [_pod(pod) for pod in revision["pods"]]
    return Branch(tuple(words), tuple(branches))


def _stages(startup: Json) -> str:
    names = {"schedule": "scheduleSeconds", "image": "imageSeconds", "load": "loadSeconds", "total": "totalSeconds"}
    return ", ".join(f"{word} {span(float(startup[key]))}" for word, key in names.items() if startup[key] is not None)


def _pod(pod: Json) -> Branch:
    words = [Word(f"pod {pod['name']}")]
    if pod["ready"]:
        words.append(Word("ready", "good"))
    else:
        words.append(Word(str(pod["reason"]), "bad" if pod["problem"] else "busy"))
    words.append(Word(f"on {pod['node']}" if pod["node"] else "on no node yet", "faint"))
    if pod["restarts"]:
        words.append(Word(f"{pod['restarts']} restart{'' if pod['restarts'] == 1 else 's'}", "busy"))
    return Branch((*words, *_words(pod["message"])))


def _suggestion(told: Json) -> Branch:
    suggestion = told["suggestion"]
    how = Branch(
        (Word("take it with"), Word(f"kubectl draftmark accept {told['name']} -n {told['namespace']}", "strong"))
    )
    return Branch((Word("suggestion"), Word(suggestion["id"], "strong"), *_words(suggestion["message"])), (how,))


def _words(message: object) -> tuple[Word, ...]:
    text = " ".join(str(message or "").split())
    return (Word("".join(c if c.isprintable() else " " for c in text)),) if text else ()
