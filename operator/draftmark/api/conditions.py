"""Condition types and reasons, and how a list of conditions is written.

True is good for every type of ours; `Reconciling` and `Stalled` are kstatus' words and the other way round, and so are
`ArgsUnchecked`, `Contended`, `ModelFactsUnknown` and `Failed`, which are there only while they are true.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from draftmark.api.times import write_time

Status = Literal["True", "False", "Unknown"]

ACCEPTED: Final = "Accepted"
AVAILABLE: Final = "Available"
PROGRESSING: Final = "Progressing"
READY: Final = "Ready"
RECONCILING: Final = "Reconciling"
STALLED: Final = "Stalled"
ARGS_UNCHECKED: Final = "ArgsUnchecked"
CONTENDED: Final = "Contended"
#: There only while a plan could be a better one, if more was known of the model.
MODEL_FACTS_UNKNOWN: Final = "ModelFactsUnknown"
#: Of a ModelGateway: whether every service behind it has a name of its own.
NAMES_UNIQUE: Final = "NamesUnique"

#: Of a Benchmark, as Jobs have them: it has its numbers; it ended without them (there only then).
COMPLETE: Final = "Complete"
FAILED: Final = "Failed"

#: Longest message that the API conventions allow in a condition, in characters. Source: metav1.Condition.
MAX_MESSAGE_LENGTH: Final = 32768
#: Longest message that we write, in bytes: a status must stay readable, and small.
OUR_MESSAGE_LENGTH: Final = 1024
_CUT: Final = " … "


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One observed fact about an object, and why it is so."""

    type: str
    status: Status
    #: CamelCase, for machines.
    reason: str
    #: What is, what is needed, the way out.
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """What stands in the way of an object, in the words of a condition."""

    code: str
    message: str
    #: True: nothing gets better until somebody changes something.
    needs_human: bool


def kstatus(stalled: tuple[str, str] | None, busy: tuple[str, str] | None) -> list[Condition]:
    """`Reconciling` and `Stalled`, of which at most one is true: kstatus reads them before anything else.

    Args:
        stalled: Reason and message of what waits for somebody; None: nothing does.
        busy: Reason and message of what is under way; None: nothing is.
    """
    if stalled is not None:
        busy = None
    working = busy or ("Settled", "")
    waiting = stalled or ("NotStalled", "")
    return [
        Condition(type=RECONCILING, status="True" if busy else "False", reason=working[0], message=working[1]),
        Condition(type=STALLED, status="True" if stalled else "False", reason=waiting[0], message=waiting[1]),
    ]


def write_conditions(
    conditions: Iterable[Condition], *, before: Iterable[Mapping[str, Any]], generation: int, now: datetime
) -> list[dict[str, Any]]:
    """Conditions as the API conventions want them, in a stable order.

    Args:
        conditions: What holds now.
        before: The list that the object carries; a type keeps its `lastTransitionTime` while its status is the same.
        generation: The generation that was acted on.
        now: Aware, UTC.
    """
    old = {c.get("type"): c for c in before}
    stamp = write_time(now)
    written = []
    for c in conditions:
        was = old.get(c.type, {})
        unchanged = was.get("status") == c.status and was.get("lastTransitionTime")
        written.append(
            {
                "type": c.type,
                "status": c.status,
                "reason": c.reason,
                "message": shorten(c.message),
                "observedGeneration": generation,
                "lastTransitionTime": was["lastTransitionTime"] if unchanged else stamp,
            }
        )
    return written


def shorten(message: str, limit: int = OUR_MESSAGE_LENGTH) -> str:
    """A message of at most `limit` bytes without control characters (logs have them), cut in the middle: its beginning
    says what, its end the way out."""
    clean = "".join(c if c.isprintable() else " " for c in message)
    encoded = clean.encode("utf-8", "replace")
    if len(encoded) <= limit:
        return encoded.decode()
    half = (limit - len(_CUT.encode())) // 2
    return f"{encoded[:half].decode(errors='ignore')}{_CUT}{encoded[-half:].decode(errors='ignore')}"
