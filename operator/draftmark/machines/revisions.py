"""Revisions: what runs is pinned, and stays until somebody asks for something else.

A revision is named by the hash of the pod-affecting fields that the user wrote. Its ControllerRevision holds the plan
and the rendered pod template, and pods are made from there: never planned again, never rendered again. What today's
code, defaults and facts would choose instead is only a suggestion, which `spec.rollout.accept` takes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final, get_args

from draftmark.api import names
from draftmark.plan import Layout, Memory, ModelKind, Plan, Reason, Rejected

#: ControllerRevisions kept beside the current one, newest first.
HISTORY_LIMIT: Final = 5

_KIND: Final = ("workload", "kind")
#: Fields that a choice is made for, by the code of its reason: an edit of one makes the choice again.
CHOSEN_FOR: Final[Mapping[str, tuple[tuple[str, ...], ...]]] = {
    "Concurrency": (_KIND,),
    "BatchedTokens": (_KIND, ("engine", "options", "chunkedPrefill")),
}

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """One pinned revision."""

    hash: str
    #: Counts up; the largest is the one that was asked for last.
    number: int
    #: The pod-affecting part of the spec, as written.
    spec: Json
    plan: Plan
    #: Without the revision's label.
    pod_template: Json
    #: The `data` as it is stored; None before it is.
    stored: Json | None = None

    def to_data(self) -> Json:
        """The `data` of the ControllerRevision. It cannot be changed once stored, so what an older version stored is
        given back as it is, also where this version would write it differently."""
        if self.stored is not None:
            return self.stored
        return {"spec": self.spec, "plan": plan_data(self.plan), "podTemplate": self.pod_template}


def read_revision(controller_revision: Json) -> Revision | None:
    """A revision from its ControllerRevision, or None when the object is none of ours or damaged."""
    try:
        data = controller_revision["data"]
        return Revision(
            hash=str(controller_revision["metadata"]["labels"][names.LABEL_REVISION]),
            number=int(controller_revision["revision"]),
            spec=_with_maps(data["spec"], "engine", "model"),
            plan=read_plan(data["plan"]),
            pod_template=_checked_template(data["podTemplate"]),
            stored=data,
        )
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        return None


def _with_maps(data: Json, *keys: str) -> Json:
    if not all(isinstance(data[key], Mapping) for key in keys):
        raise TypeError("not what this version writes")
    return data


def _checked_template(template: Json) -> Json:
    """The parts that a Deployment is made with must be there."""
    _with_maps(template, "metadata", "spec")
    _with_maps(template["metadata"], "labels")
    probe = template["spec"]["containers"][0]["startupProbe"]
    if not all(isinstance(probe[key], int) for key in ("periodSeconds", "failureThreshold")):
        raise TypeError("not what this version writes")
    return template


def read_plan(data: Json) -> Plan:
    """A plan from its JSON form. Unknown fields, from a newer version, are left out.

    Raises:
        KeyError, TypeError, ValueError: The data is no plan.
    """
    layout = data["layout"]
    return Plan(
        engine=str(data["engine"]),
        version=str(data["version"]),
        image=str(data["image"]),
        layout=Layout(
            gpus=int(layout["gpus"]),
            resource_name=layout.get("resource_name"),
            product=layout.get("product"),
            tensor=_whole(layout.get("tensor")),
            pipeline=_whole(layout.get("pipeline")) or 1,
            nodes=_whole(layout.get("nodes")) or 1,
            expert=layout.get("expert") is True,
        ),
        served_name=str(data["served_name"]),
        max_context_length=int(data["max_context_length"]),
        concurrency=int(data["concurrency"]),
        max_batched_tokens=_whole(data.get("max_batched_tokens")),
        kind=_kind(data.get("kind", "generate")),
        adapters=tuple(str(name) for name in data.get("adapters") or ()) or None,
        reasons=tuple(Reason(code=str(r["code"]), message=str(r["message"])) for r in data.get("reasons", ())),
        parameters=_whole(data.get("parameters")),
        memory=_memory(data.get("memory")),
        rejected=tuple(
            Rejected(option=str(r["option"]), code=str(r["code"]), message=str(r["message"]))
            for r in data.get("rejected", ())
        ),
        args_unchecked=data.get("args_unchecked"),
    )


def plan_data(plan: Plan) -> dict[str, Any]:
    """A plan in its JSON form. What it has nothing to say about leaves no trace: the data of a revision is never written
    again, and the id of a suggestion must not change with a field that it does not use."""
    data = asdict(plan)
    for later in ("max_batched_tokens", "adapters", "parameters", "memory", "rejected"):
        if data[later] is None or data[later] == ():
            del data[later]
    for later, nothing in (("tensor", None), ("pipeline", 1), ("nodes", 1), ("expert", False)):
        if data["layout"][later] == nothing:
            del data["layout"][later]
    return data


def _memory(data: object) -> Memory | None:
    if not isinstance(data, Mapping):
        return None
    return Memory(**{field.name: data[field.name] for field in fields(Memory)})


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _kind(value: object) -> ModelKind:
    kinds: tuple[ModelKind, ...] = get_args(ModelKind)
    return next((kind for kind in kinds if kind == value), "generate")


def newest(revisions: Sequence[Revision]) -> Revision | None:
    """The revision that was asked for last."""
    return max(revisions, key=lambda r: (r.number, r.hash), default=None)


def plan_to_keep(wanted: Json, before: Revision | None) -> Plan | None:
    """The plan whose choices a new revision keeps, or None when it chooses afresh.

    An edit that leaves the engine's identity, the model and the hardware alone keeps engine version and image: whoever
    raises the context length does not ask for another engine.

    Args:
        wanted: The pod-affecting part of the new spec.
        before: The revision that was asked for last.
    """
    if before is None or _identity(wanted) != _identity(before.spec):
        return None
    # Without its reason a choice counts as the user's own, and is made afresh.
    afresh = {code for code, paths in CHOSEN_FOR.items() if any(_at(wanted, p) != _at(before.spec, p) for p in paths)}
    return replace(before.plan, reasons=tuple(r for r in before.plan.reasons if r.code not in afresh))


def _at(spec: Json, path: Sequence[str]) -> object:
    value: object = spec
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _identity(spec: Json) -> object:
    engine = spec.get("engine", {})
    return (
        [engine.get(key) for key in ("name", "version", "image")],
        spec.get("model", {}).get("uri"),
        spec.get("accelerator"),
        spec.get("parallelism"),
    )


def bump(revision: Revision, revisions: Sequence[Revision]) -> Revision:
    """The revision with the largest number: going back to an old one makes it the newest again."""
    top = newest(revisions)
    if top is None or top.hash == revision.hash:
        return revision
    return replace(revision, number=top.number + 1)


def adopt(fresh: Revision, deployment: Json) -> Revision:
    """The revision of a Deployment whose pin is lost: what runs goes on, and is pinned again as it is.

    Args:
        fresh: What would be made today.
        deployment: As it runs.
    """
    template = deployment["spec"]["template"]
    metadata = template["metadata"]
    labels = {key: value for key, value in metadata["labels"].items() if key != names.LABEL_REVISION}
    live = {
        "metadata": {"labels": labels, "annotations": metadata.get("annotations") or {}},
        "spec": template["spec"],
    }
    if _holds(live, fresh.pod_template):
        return fresh
    image = str(template["spec"]["containers"][0]["image"])
    version = fresh.plan.version if image == fresh.plan.image else "unknown"
    return replace(fresh, plan=replace(fresh.plan, image=image, version=version), pod_template=live)


def _holds(live: Any, wanted: Any) -> bool:
    """Whether everything that is wanted is there; the API server adds defaults."""
    if isinstance(wanted, Mapping) and isinstance(live, Mapping):
        return all(key in live and _holds(live[key], value) for key, value in wanted.items())
    if isinstance(wanted, list) and isinstance(live, list):
        return len(wanted) == len(live) and all(map(_holds, live, wanted))
    return bool(live == wanted)


def suggestion_id(plan: Plan, pod_template: Json) -> str:
    """Names what would run, so that a user can say which suggestion they accept."""
    return names.short_hash({"plan": {**plan_data(plan), "reasons": []}, "podTemplate": pod_template})


def differences(pinned: Revision, plan: Plan, pod_template: Json) -> tuple[str, ...]:
    """What would change if the revision were made today, in a user's words; empty when nothing would."""
    is_other_pod = pod_template != pinned.pod_template
    found = []
    if is_other_pod and plan.engine != pinned.plan.engine:
        found.append(f"engine {pinned.plan.engine} → {plan.engine}")
    # Older versions pinned less of a layout that is the same.
    if is_other_pod and (was := _layout(pinned.plan.layout)) != (now := _layout(plan.layout)):
        found.append(f"layout {was} → {now}")
    for field, label in (
        ("version", "engine version"),
        ("image", "image"),
        ("max_context_length", "context length"),
        ("concurrency", "concurrency"),
        ("max_batched_tokens", "tokens per step"),
    ):
        before, today = getattr(pinned.plan, field), getattr(plan, field)
        if before != today:
            found.append(f"{label} {before} → {today}")
    if is_other_pod:
        paths = sorted(set(_changed_paths(pinned.pod_template, pod_template, "")))
        found.append(f"pod template: {', '.join(paths[:6])}{' …' if len(paths) > 6 else ''}")
    return tuple(found)


def _layout(layout: Layout) -> str:
    return f"{layout} ({', '.join(layout.parts)})" if layout.parts else str(layout)


def _changed_paths(was: Any, now: Any, path: str) -> list[str]:
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        keys = sorted({*was, *now})
        return [p for k in keys for p in _changed_paths(was.get(k), now.get(k), f"{path}.{k}" if path else str(k))]
    if isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        return [p for i, (a, b) in enumerate(zip(was, now, strict=True)) for p in _changed_paths(a, b, f"{path}[{i}]")]
    return [] if was == now else [path]
