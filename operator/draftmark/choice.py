"""Which revision a spec asks for: one that is pinned already, one that runs without its pin, or a new one."""

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from draftmark.api import names
from draftmark.api.inference_service import InferenceServiceSpec
from draftmark.decision import Suggestion
from draftmark.facts.models import ModelFacts
from draftmark.machines import revisions as pinned
from draftmark.machines.revisions import Revision
from draftmark.observation import Json, Observation
from draftmark.plan import Plan, Unplannable
from draftmark.planner.gain import compare_plans
from draftmark.planner.planner import make_plan
from draftmark.render.pod import render_pod_template
from draftmark.running import deployments_by_revision, is_listed


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The revision that the spec asks for, and what else came out of choosing it."""

    current: Revision | None
    known: tuple[Revision, ...]
    refused: Unplannable | None = None
    suggestion: Suggestion | None = None
    held: str | None = None


def read_spec(service: Json) -> InferenceServiceSpec | Unplannable:
    """The spec of an object, or what is wrong with it: an older schema may have let it in."""
    try:
        return InferenceServiceSpec.model_validate(service.get("spec") or {})
    except ValidationError as error:
        return Unplannable(code="InvalidSpec", message=describe_errors(error))


def describe_errors(error: ValidationError) -> str:
    """The first few of pydantic's findings, as one line: field, what is wrong."""
    found = error.errors(include_url=False, include_context=False)
    told = [f"{'.'.join(['spec', *(str(part) for part in e['loc'])])}: {e['msg']}" for e in found[:3]]
    more = f" (and {len(found) - 3} more)" if len(found) > 3 else ""
    return f"The spec does not fit the schema of this version. {'; '.join(told)}{more}. Correct these fields."


def known_revisions(seen: Observation) -> tuple[Revision, ...]:
    """The pinned revisions that this version can read, oldest first."""
    read = (pinned.read_revision(item) for item in seen.owned("ControllerRevision"))
    return tuple(sorted((r for r in read if r is not None), key=lambda r: (r.number, r.hash)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Novelty:
    """What is new about a revision."""

    #: It runs nowhere, and nothing pins it.
    is_new: bool = False
    #: It is planned, and does not take a suggestion as that was seen.
    has_choices: bool = False


def novelty(seen: Observation, spec: InferenceServiceSpec) -> Novelty:
    """Whether the revision that a spec asks for is still to be made, and planned."""
    wanted = spec.pod_affecting()
    revision = names.short_hash(wanted)
    known = known_revisions(seen)
    is_there = any(r.hash == revision for r in known) or revision in deployments_by_revision(seen)
    if is_there or is_listed(seen, names.revision_name(seen.name, revision)):
        return Novelty()
    # What is accepted was seen: nothing of it may change.
    return Novelty(is_new=True, has_choices=not _accepts(wanted, pinned.newest(known)))


def _accepts(wanted: Json, before: Revision | None) -> bool:
    """Whether a spec takes a suggestion that it did not have before."""
    accept = wanted.get("accept")
    return accept is not None and before is not None and accept != before.spec.get("accept")


def choose_revision(seen: Observation, spec: InferenceServiceSpec, model: ModelFacts | None) -> Chosen:
    """The revision that a readable spec asks for.

    Args:
        model: What is known of the service's model; None: nothing.
    """
    wanted = spec.pod_affecting()
    revision = names.short_hash(wanted)
    known = known_revisions(seen)
    before = pinned.newest(known)
    found = next((r for r in known if r.hash == revision), None)
    fresh = _make_revision(seen, spec, wanted, revision, model, keep=None)
    if found is not None:
        return Chosen(current=pinned.bump(found, known), known=known, suggestion=_suggest(found, fresh, model))

    if is_listed(seen, names.revision_name(seen.name, revision)):
        return Chosen(current=before, known=known, held=_unreadable_pin(names.revision_name(seen.name, revision)))

    running = deployments_by_revision(seen).get(revision)
    if running is not None and isinstance(fresh, Revision):
        adopted = pinned.adopt(fresh, running)
        return Chosen(current=pinned.bump(adopted, known), known=known, suggestion=_suggest(adopted, fresh, model))

    accept = wanted.get("accept")
    if _accepts(wanted, before) and before is not None:
        # The id names what the user saw; if today's choice is another one, nothing that they agreed to is there.
        offer = _suggest(before, fresh, model)
        if offer is None or offer.id != accept:
            refused = _unknown_suggestion(str(accept), offer)
            return Chosen(current=before, known=known, refused=refused, suggestion=offer)
        made = fresh
    else:
        keep = pinned.plan_to_keep(wanted, before)
        made = fresh if keep is None else _make_revision(seen, spec, wanted, revision, model, keep=keep)
    if isinstance(made, Unplannable):
        return Chosen(current=before, known=known, refused=made)
    return Chosen(current=pinned.bump(made, known), known=known, suggestion=_suggest(made, fresh, model))


def _unreadable_pin(name: str) -> str:
    return (
        f"ControllerRevision '{name}' pins what runs, in a form that this version of Draftmark cannot read, so nothing is "
        "changed. Install the version that wrote it, or delete it to have it made anew (the pods restart)."
    )


def _make_revision(
    seen: Observation,
    spec: InferenceServiceSpec,
    wanted: dict[str, Any],
    revision: str,
    model: ModelFacts | None,
    *,
    keep: Plan | None,
) -> Revision | Unplannable:
    plan = make_plan(spec, name=seen.name, cluster=seen.cluster, defaults=seen.defaults, keep=keep, model=model)
    if isinstance(plan, Unplannable):
        return plan
    template = render_pod_template(seen.name, spec, plan, seen.defaults)
    return Revision(hash=revision, number=1, spec=wanted, plan=plan, pod_template=template)


def _suggest(running: Revision, fresh: Revision | Unplannable, model: ModelFacts | None) -> Suggestion | None:
    if isinstance(fresh, Unplannable):
        return None
    if model is None and running.plan.memory is not None:
        # What runs was planned when more was known.
        return None
    changes = pinned.differences(running, fresh.plan, fresh.pod_template)
    gain = compare_plans(running.plan, fresh.plan)
    if not changes or gain.is_only_loss:
        return None
    identity = pinned.suggestion_id(fresh.plan, fresh.pod_template)
    return Suggestion(
        id=identity,
        message=f"A revision made today would differ: {'; '.join(changes)}.{f' {gain}' if str(gain) else ''} Nothing changes by "
        f"itself; set spec.rollout.accept: {identity} to take it.",
    )


def _unknown_suggestion(accept: str, offer: Suggestion | None) -> Unplannable:
    there_is = f"the current suggestion is {offer.id}" if offer is not None else "there is no suggestion"
    return Unplannable(
        code="UnknownSuggestion",
        message=f"rollout.accept names suggestion {accept}, but {there_is}. Write the id from status.plan.suggestion, "
        "or remove rollout.accept. What runs goes on.",
    )
