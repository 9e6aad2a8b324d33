"""What a facts Job answers, as its termination message: the facts of a model, or why they could not be read.

The program in the pod writes it and the operator reads it. Both ends are bounded: the kubelet keeps 4 KiB, and whoever
may write pods in the namespace may write any message.
"""

import json
import re
from dataclasses import dataclass
from typing import Final

from draftmark.api.conditions import shorten
from draftmark.facts.model_json import MAX_JSON_BYTES, facts_from_json, facts_to_json
from draftmark.facts.models import ModelFacts, UnreadableConfig

__all__ = ["MAX_FACTS_BYTES", "MAX_MESSAGE_BYTES", "ModelAnswer", "ModelProblem", "read_answer", "write_answer"]

#: Longest message of a problem, in bytes.
MAX_MESSAGE_BYTES: Final = 512
#: Longest facts, as JSON. A termination message holds twice as much; it is the status that they stay in. The largest model
#: of the catalogue takes less than half.
MAX_FACTS_BYTES: Final = 2048

_CODE: Final = re.compile(r"[A-Z][A-Za-z]{0,63}")
_COMMIT: Final = re.compile(r"[0-9a-f]{7,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelAnswer:
    """The facts, as they were read."""

    facts: ModelFacts
    #: Of the repository, where there is one.
    commit: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelProblem:
    """Why there are no facts: CamelCase, and in words with the way out."""

    code: str
    message: str


def write_answer(answer: ModelAnswer | ModelProblem) -> str:
    """The termination message, at most 4 KiB."""
    if isinstance(answer, ModelProblem):
        return json.dumps({"problem": {"code": answer.code, "message": shorten(answer.message, MAX_MESSAGE_BYTES)}})
    commit = f'"commit":"{answer.commit}",' if answer.commit is not None else ""
    facts = facts_to_json(answer.facts)
    return write_answer(_too_long(facts)) if len(facts) > MAX_FACTS_BYTES else f'{{{commit}"facts":{facts}}}'


def read_answer(text: str) -> ModelAnswer | ModelProblem:
    """Read a termination message; never raises. One that `write_answer` did not write is a problem, too."""
    try:
        value = json.loads(text) if len(text) <= MAX_JSON_BYTES else None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        # Without an answer the message is the end of the log: the program did not come to its end.
        end = text.strip().splitlines()[-1] if text.strip() else "it wrote nothing"
        return ModelProblem(
            code="NoAnswer", message=f"The program that reads the facts broke off: {shorten(end, 300)}."
        )
    problem = value.get("problem")
    if isinstance(problem, dict):
        code, message = problem.get("code"), problem.get("message")
        if isinstance(code, str) and _CODE.fullmatch(code) and isinstance(message, str):
            return ModelProblem(code=code, message=shorten(message, MAX_MESSAGE_BYTES))
    facts = facts_from_json(json.dumps(value.get("facts")))
    commit = value.get("commit")
    if isinstance(facts, UnreadableConfig):
        return ModelProblem(code="UnreadableAnswer", message=f"The answer holds no facts: {shorten(facts.reason, 400)}")
    if len(facts_to_json(facts)) > MAX_FACTS_BYTES:
        return _too_long(facts_to_json(facts))
    is_commit = isinstance(commit, str) and _COMMIT.fullmatch(commit)
    return ModelAnswer(facts=facts, commit=commit if is_commit else None)


def _too_long(facts: str) -> ModelProblem:
    message = f"The facts take {len(facts)} bytes, and at most {MAX_FACTS_BYTES} are kept."
    return ModelProblem(code="FactsTooLong", message=message)
