"""Changes of a service's spec, as data: which revision to go back to, the spec for it, the patch, and what it changes."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from pydantic import ValidationError

from draftmark.api import names
from draftmark.api.inference_service import InferenceServiceSpec
from draftmark.api.times import read_time

__all__ = [
    "KeptRevision",
    "NoWayBack",
    "accept",
    "annotate",
    "choose_target",
    "go_back",
    "kept_revisions",
    "operations",
    "resume",
    "retry_time",
    "revision_of",
    "spec_diff",
    "who_else_writes",
]

Json = Mapping[str, Any]

#: What a revision decides of a spec, besides `rollout.accept`.
POD_KEYS: Final = ("model", "engine", "accelerator", "parallelism", "workload", "podTemplate")


class NoWayBack(Exception):
    """There is no such revision; the text says which there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptRevision:
    """One revision that can be gone back to."""

    hash: str
    #: The largest is the one that was asked for last.
    number: int
    #: The pod-affecting part of the spec, with `accept` at its top.
    spec: Json
    created: str = ""


def kept_revisions(controller_revisions: Iterable[Json]) -> list[KeptRevision]:
    """The revisions of a service, newest first; what is damaged is left out."""
    found = []
    for item in controller_revisions:
        try:
            revision = KeptRevision(
                hash=str(item["metadata"]["labels"][names.LABEL_REVISION]),
                number=int(item["revision"]),
                spec=item["data"]["spec"],
                created=str(item["metadata"].get("creationTimestamp", "")),
            )
            # The hash is over the content: an edited pin would lead to another revision than it says.
            if names.short_hash(revision.spec) == revision.hash and isinstance(revision.spec, Mapping):
                found.append(revision)
        except (KeyError, TypeError, ValueError, AttributeError):
            continue
    return sorted(found, key=lambda r: (r.number, r.hash), reverse=True)


def revision_of(spec: Json) -> str | None:
    """The revision that a spec asks for, or None when this version cannot read the spec."""
    try:
        return names.short_hash(InferenceServiceSpec.model_validate(spec).pod_affecting())
    except ValidationError:
        return None


def choose_target(service: Json, kept: Sequence[KeptRevision], wanted: str | None) -> KeptRevision:
    """The revision to go back to: the one that is named, else the newest before the present one that was serving.

    Args:
        kept: Newest first.
        wanted: The beginning of a hash, as a user types it.

    Raises:
        NoWayBack: There is none, or the name fits none or several.
    """
    present = revision_of(service.get("spec") or {})
    there_are = ", ".join(r.hash for r in kept) or "none"
    if wanted is not None:
        fitting = [r for r in kept if r.hash.startswith(wanted)]
        if len(fitting) != 1:
            raise NoWayBack(
                f"{'no' if not fitting else 'more than one'} kept revision begins with '{wanted}'; kept are: {there_are}. "
                "Name one of them with --to."
            )
        if fitting[0].hash == present:
            raise NoWayBack(
                f"revision {present} is what the spec asks for already. Name another with --to: {there_are}."
            )
        return fitting[0]
    top = next((r.number for r in kept if r.hash == present), None)
    never_served = _never_served(service)
    for revision in kept:
        is_before = revision.hash != present and (top is None or revision.number < top)
        if is_before and revision.hash not in never_served:
            return revision
    raise NoWayBack(
        f"there is no revision before {present or 'the present one'} that was serving; kept are: {there_are}. "
        "Name one with --to, or raise rollout.revisionHistoryLimit before the next change."
    )


def _never_served(service: Json) -> set[str]:
    """Revisions of which the status says that they never answered a request. One that it does not list has no pods any
    more, and was kept."""
    listed = (service.get("status") or {}).get("revisions") or ()
    unproven = {str(r.get("hash")) for r in listed if r.get("phase") != "Retiring" and not r.get("provenAt")}
    return unproven | {str(r.get("hash")) for r in listed if r.get("phase") == "Failed"}


def go_back(spec: Json, revision: Json) -> dict[str, Any]:
    """The spec with which the service runs a revision again; whatever no pod depends on stays as it is.

    Args:
        spec: As it stands in the cluster.
        revision: The pod-affecting part that the revision had.
    """
    new = {key: deepcopy(value) for key, value in spec.items() if key not in POD_KEYS}
    new |= {key: deepcopy(revision[key]) for key in POD_KEYS if key in revision}
    return _with_accept(new, revision.get("accept"))


def accept(spec: Json, suggestion: str) -> dict[str, Any]:
    """The spec that takes a suggestion."""
    return _with_accept(deepcopy(dict(spec)), suggestion)


def resume(spec: Json) -> dict[str, Any]:
    """The spec without the pause."""
    return {key: deepcopy(value) for key, value in spec.items() if key != "paused"}


def _with_accept(spec: dict[str, Any], suggestion: str | None) -> dict[str, Any]:
    rollout = {key: value for key, value in (spec.pop("rollout", None) or {}).items() if key != "accept"}
    if suggestion:
        rollout["accept"] = suggestion
    return spec | ({"rollout": rollout} if rollout else {})


def operations(service: Json, spec: Json) -> list[dict[str, Any]]:
    """The JSON patch that gives a service another spec, and only if nobody has changed the service since it was read."""
    old = service.get("spec") or {}
    found: list[dict[str, Any]] = [
        {"op": "test", "path": "/metadata/resourceVersion", "value": service["metadata"]["resourceVersion"]}
    ]
    found += [{"op": "remove", "path": f"/spec/{_pointer(key)}"} for key in old if key not in spec]
    # `add` replaces what is there.
    found += [
        {"op": "add", "path": f"/spec/{_pointer(key)}", "value": value}
        for key, value in spec.items()
        if key not in old or old[key] != value
    ]
    return found


def annotate(service: Json, key: str, value: str) -> list[dict[str, Any]]:
    """The JSON patch that sets an annotation."""
    test = {"op": "test", "path": "/metadata/resourceVersion", "value": service["metadata"]["resourceVersion"]}
    if service["metadata"].get("annotations") is None:
        return [test, {"op": "add", "path": "/metadata/annotations", "value": {key: value}}]
    return [test, {"op": "add", "path": f"/metadata/annotations/{_pointer(key)}", "value": value}]


def retry_time(failed: Iterable[object], now: datetime) -> datetime:
    """The time to ask for a retry with: now, and after every failure, for the operator's clock may be ahead of ours."""
    times = [at for text in failed if (at := read_time(text)) is not None]
    return max([now, *(at + timedelta(seconds=1) for at in times)])


def _pointer(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def spec_diff(old: Json, new: Json) -> list[str]:
    """What changes from one spec to another, a line per field: `- ` goes, `+ ` comes, `~ ` changes."""
    return list(_changes(old, new, ""))


def _changes(old: Any, new: Any, path: str) -> Iterator[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}):
            inner = f"{path}.{key}" if path else str(key)
            if key not in new:
                yield from _leaves("-", old[key], inner)
            elif key not in old:
                yield from _leaves("+", new[key], inner)
            else:
                yield from _changes(old[key], new[key], inner)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for i, (was, now) in enumerate(zip(old, new, strict=True)):
            yield from _changes(was, now, f"{path}[{i}]")
    elif old != new:
        yield f"~ {path}: {_value(old)} → {_value(new)}"


def _leaves(sign: str, value: Any, path: str) -> Iterator[str]:
    if isinstance(value, Mapping) and value:
        for key in sorted(value):
            yield from _leaves(sign, value[key], f"{path}.{key}")
    else:
        yield f"{sign} {path}: {_value(value)}"


def _value(value: Any) -> str:
    is_plain = isinstance(value, str) and value.isprintable() and value == value.strip() and value
    # A string that reads as a number keeps its quotes: "2" → 2 would be no change otherwise.
    if is_plain and not value.replace(".", "").isdigit() and value not in ("true", "false", "null"):
        return str(value)
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def who_else_writes(service: Json) -> str | None:
    """The tool that keeps this object as a file elsewhere, as its marks say, or None when none is to be seen."""
    metadata = service["metadata"]
    marks = {**(metadata.get("labels") or {}), **(metadata.get("annotations") or {})}
    for key, tool in (
        ("argocd.argoproj.io/tracking-id", "Argo CD"),
        ("argocd.argoproj.io/instance", "Argo CD"),
        ("kustomize.toolkit.fluxcd.io/name", "Flux"),
        ("helm.toolkit.fluxcd.io/name", "Flux"),
        ("fleet.cattle.io/bundle-id", "Fleet"),
        ("configmanagement.gke.io/managed", "Config Sync"),
        ("meta.helm.sh/release-name", "Helm"),
    ):
        if marks.get(key):
            return f"{tool} ({str(marks[key])[:60]})"
    return None
