"""What the API server, or the way to it, can answer, as one small family of exceptions.

The client translates here and nowhere else. Callers match on classes; the messages are made for people and go into
conditions as they are. Which class means "try again" is a matter of the caller, who knows what it was doing.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from draftmark.cluster.kinds import Kind

__all__ = [
    "AdmissionRefused",
    "AlreadyExists",
    "ApiError",
    "Cause",
    "Conflict",
    "FieldConflict",
    "Forbidden",
    "Gone",
    "Invalid",
    "NamespaceTerminating",
    "NotFound",
    "QuotaExceeded",
    "TooManyRequests",
    "Unauthorized",
    "Unavailable",
    "translate",
]

#: Longest part of a server's message that is kept, in characters. A guess: several causes fit, a whole HTML page not.
_MAX_MESSAGE_LENGTH = 1000


@dataclass(frozen=True, slots=True)
class Cause:
    """One detail of a refusal: which field, and what is wrong with it."""

    reason: str
    message: str
    field: str


class ApiError(Exception):
    """A request that was not done, or of which nobody knows whether it was done.

    Attributes:
        status: HTTP status; 0 when there was no answer.
        reason: The API server's word, as in `AlreadyExists`; empty when it gave none.
        retry_after_s: Seconds that the server asks to wait, if it did.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        reason: str = "",
        causes: tuple[Cause, ...] = (),
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.reason = reason
        self.causes = causes
        self.retry_after_s = retry_after_s


class NotFound(ApiError):
    """The object, or its kind, does not exist."""


class AlreadyExists(ApiError):
    """A create met an object of that name."""


class Conflict(ApiError):
    """The write was based on an older version of the object, or on an object that has been replaced."""


class FieldConflict(ApiError):
    """Another field manager owns fields that this apply would change."""

    def __init__(self, message: str, *, fields: tuple[str, ...], managers: tuple[str, ...], **rest: Any) -> None:
        super().__init__(message, **rest)
        self.fields = fields
        self.managers = managers


class Unauthorized(ApiError):
    """The credentials were not accepted."""


class Forbidden(ApiError):
    """A permission is missing. The message names it."""

    def __init__(self, message: str, *, verb: str, resource: str, **rest: Any) -> None:
        super().__init__(message, **rest)
        self.verb = verb
        self.resource = resource


class QuotaExceeded(ApiError):
    """A ResourceQuota has no room for the object."""


class NamespaceTerminating(ApiError):
    """The namespace is being deleted: nothing can be created in it any more."""


class AdmissionRefused(ApiError):
    """The cluster's policy refuses the object, although we have the permission."""


class Invalid(ApiError):
    """The API server cannot accept this object as it is. Sending it again does not help."""


class TooManyRequests(ApiError):
    """The API server is overloaded and asks to wait."""


class Gone(ApiError):
    """A resourceVersion or a continue token is too old: list again."""


class Unavailable(ApiError):
    """No answer, or an answer that says nothing about the request: 5xx, time-out, broken connection.

    A write may have been done all the same.
    """


_MANAGER = re.compile(r'conflict with "([^"]+)"')
_USER = re.compile(r'User "([^"]+)"')
_PERMISSION = re.compile(r'cannot (\S+) resource "([^"]+)" in API group "([^"]*)"')


def translate(
    status: int,
    answer: Mapping[str, Any] | None,
    *,
    verb: str,
    kind: Kind | None,
    namespace: str | None = None,
    name: str | None = None,
    text: str = "",
    retry_after_s: float | None = None,
) -> ApiError:
    """Turn an answer that is not a success into the exception for it.

    Args:
        answer: The Status object, if the body was one.
        text: The body otherwise; proxies answer in their own words.
        retry_after_s: From the header; the Status object's own value is the fallback.
    """
    answer = answer or {}
    details = answer.get("details") or {}
    reason = str(answer.get("reason") or "")
    causes = tuple(
        Cause(reason=str(c.get("reason") or ""), message=str(c.get("message") or ""), field=str(c.get("field") or ""))
        for c in details.get("causes") or ()
    )
    said = " ".join(str(answer.get("message") or text).split())[:_MAX_MESSAGE_LENGTH]
    if retry_after_s is None and isinstance(details.get("retryAfterSeconds"), int) and details["retryAfterSeconds"] > 0:
        retry_after_s = float(details["retryAfterSeconds"])

    resource = kind.resource if kind else "the API server"
    where = " ".join(
        part
        for part in (resource, f'"{name}"' if name else "", f'in namespace "{namespace}"' if namespace else "")
        if part
    )
    message = f"{verb} {where}: {said or f'HTTP status {status}'}"
    rest: dict[str, Any] = {"status": status, "reason": reason, "causes": causes, "retry_after_s": retry_after_s}

    match status:
        case 401:
            return Unauthorized(
                f"{message}. The credentials were refused: renew the token or certificate of the operator.", **rest
            )
        case 403:
            return _refused(message, said, where, verb, resource, rest)
        case 404:
            return NotFound(message, **rest)
        case 409 if reason == "AlreadyExists":
            return AlreadyExists(message, **rest)
        case 409 if any(cause.reason == "FieldManagerConflict" for cause in causes):
            managers = (m for cause in causes for m in _MANAGER.findall(cause.message))
            return FieldConflict(
                message,
                fields=tuple(cause.field for cause in causes if cause.reason == "FieldManagerConflict"),
                managers=tuple(dict.fromkeys(managers)),
                **rest,
            )
        case 409:
            return Conflict(message, **rest)
        case 410:
            return Gone(message, **rest)
        case 422 if any(cause.field == "metadata.uid" for cause in causes):
            # An apply that named a uid met a successor of that object. For an absent object it is a 409.
            return Conflict(message, **rest)
        case 400 | 413 | 415 | 422:
            return Invalid(message, **rest)
        case 429:
            return TooManyRequests(message, **rest)
        case 408:
            return Unavailable(message, **rest)
        case _ if status >= 500:
            return Unavailable(message, **rest)
        case _:
            return ApiError(message, **rest)


def _refused(message: str, said: str, where: str, verb: str, resource: str, rest: dict[str, Any]) -> ApiError:
    """A 403 has four meanings; only the first is about permissions."""
    permission = _PERMISSION.search(said)
    causes: tuple[Cause, ...] = rest["causes"]
    if any(cause.reason == "NamespaceTerminating" for cause in causes):
        return NamespaceTerminating(message, **rest)
    if permission is None and "exceeded quota" in said:
        return QuotaExceeded(f"{message}. Raise the quota, or free what it counts.", **rest)
    if permission is None and "is forbidden" in said:
        return AdmissionRefused(message, **rest)
    needed = permission.group(1) if permission else verb
    if permission:
        # The server's own words are more exact than ours: they name the subresource.
        resource = f"{permission.group(2)}.{permission.group(3)}" if permission.group(3) else permission.group(2)
    user = _USER.search(said)
    return Forbidden(
        f"{verb} {where}: the permission is missing. "
        f'Grant the verb "{needed}" on {resource} to {user.group(1) if user else "the operator"}; '
        "the chart's roles contain it.",
        verb=needed,
        resource=resource,
        **rest,
    )
