"""The operator as one pure function: what was seen of a service, and what is to be done about it.

Stopped after `decide`, the same code is `draftmark render` and `draftmark explain`.

    read the spec → find or make its revision → which revisions run → manifests, prune, proof
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from pydantic import ValidationError

from draftmark.api import names
from draftmark.api.inference_service import InferenceServiceSpec
from draftmark.decision import Decision, Manifest, ObjectRef, ProveRevision, RevisionReport, Suggestion
from draftmark.machines import revisions as pinned
from draftmark.machines.revisions import Revision
from draftmark.observation import Json, Observation
from draftmark.plan import Plan, Unplannable
from draftmark.planner.planner import make_plan
from draftmark.render.metadata import Place
from draftmark.render.pod import render_pod_template
from draftmark.render.traffic import render_service
from draftmark.render.workload import (
    render_controller_revision,
    render_deployment,
    render_service_account,
)

#: Seconds between two requests that shall prove a revision, by how many have failed so far.
PROOF_BACKOFF_S: Final = (1, 2, 5, 10, 30, 60)

#: Kinds that a service owns, and that are pruned when they are no longer wanted.
OWNED_KINDS: Final = ("Deployment", "Service", "ServiceAccount", "ControllerRevision")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chosen:
    """The revision that the spec asks for, and what else came out of choosing it."""

    current: Revision | None
    known: tuple[Revision, ...]
    refused: Unplannable | None = None
    suggestion: Suggestion | None = None
    held: str | None = None


def decide(seen: Observation, now: datetime) -> Decision:
    """Decide about one service.

    Pure. A spec that cannot be read or planned changes nothing of what runs: the revision that was asked for before
    goes on.

    Args:
        seen: The service and what there is around it.
        now: Aware, UTC.
    """
    if seen.service["metadata"].get("deletionTimestamp"):
        # Owner references collect the children, also while the operator is down.
        return Decision(is_deleted=True)
    spec = read_spec(seen.service)
    if isinstance(spec, Unplannable):
        known = _known_revisions(seen)
        stay = _Chosen(current=pinned.newest(known), known=known, refused=spec, held=_unread_pins(seen))
        return _carry_out(seen, now, stay, replicas=None)
    chosen = _choose_revision(seen, spec)
    chosen = replace(chosen, held=_unread_pins(seen) or chosen.held)
    decision = _carry_out(seen, now, chosen, replicas=spec.replicas)
    return replace(_without_actions(decision), is_paused=True, held=None) if spec.paused else decision


def _without_actions(decision: Decision) -> Decision:
    return replace(decision, pins=(), desired=(), prune=(), prove=None, requeue_after=None)


def _unread_pins(seen: Observation) -> str | None:
    """Why it is not known what runs; without that, today's choice would replace it."""
    for kind in ("ControllerRevision", "Deployment"):
        if kind in seen.unread:
            return (
                f"The service's {kind}s cannot be read ({seen.unread[kind]}), so nothing is changed. Give the operator "
                "the right to list them, or wait until the API server answers."
            )
    return None


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


def _known_revisions(seen: Observation) -> tuple[Revision, ...]:
    read = (pinned.read_revision(item) for item in seen.owned("ControllerRevision"))
    return tuple(sorted((r for r in read if r is not None), key=lambda r: (r.number, r.hash)))


def _choose_revision(seen: Observation, spec: InferenceServiceSpec) -> _Chosen:
    wanted = spec.pod_affecting()
    revision = names.short_hash(wanted)
    known = _known_revisions(seen)
    before = pinned.newest(known)
    found = next((r for r in known if r.hash == revision), None)
    fresh = _make_revision(seen, spec, wanted, revision, keep=None)
    if found is not None:
        return _Chosen(current=pinned.bump(found, known), known=known, suggestion=_suggest(found, fresh))

    if _is_listed(seen, names.revision_name(seen.name, revision)):
        return _Chosen(current=before, known=known, held=_unreadable_pin(names.revision_name(seen.name, revision)))

    running = _deployments_by_revision(seen).get(revision)
    if running is not None and isinstance(fresh, Revision):
        adopted = pinned.adopt(fresh, running)
        return _Chosen(current=pinned.bump(adopted, known), known=known, suggestion=_suggest(adopted, fresh))

    accept = wanted.get("accept")
    accepts = accept is not None and before is not None and accept != before.spec.get("accept")
    if accepts and before is not None:
        # The id names what the user saw; if today's choice is another one, nothing that they agreed to is there.
        offer = _suggest(before, fresh)
        if offer is None or offer.id != accept:
            refused = _unknown_suggestion(str(accept), offer)
            return _Chosen(current=before, known=known, refused=refused, suggestion=offer)
        made = fresh
    else:
        keep = pinned.plan_to_keep(wanted, before)
        made = fresh if keep is None else _make_revision(seen, spec, wanted, revision, keep=keep)
    if isinstance(made, Unplannable):
        return _Chosen(current=before, known=known, refused=made)
    return _Chosen(current=pinned.bump(made, known), known=known, suggestion=_suggest(made, fresh))


def _unreadable_pin(name: str) -> str:
    return (
        f"ControllerRevision '{name}' pins what runs, in a form that this version of Draftmark cannot read, so nothing is "
        "changed. Install the version that wrote it, or delete it to have it made anew (the pods restart)."
    )


def _make_revision(
    seen: Observation, spec: InferenceServiceSpec, wanted: dict[str, Any], revision: str, *, keep: Plan | None
) -> Revision | Unplannable:
    plan = make_plan(spec, name=seen.name, cluster=seen.cluster, defaults=seen.defaults, keep=keep)
    if isinstance(plan, Unplannable):
        return plan
    template = render_pod_template(seen.name, spec, plan, seen.defaults)
    return Revision(hash=revision, number=1, spec=wanted, plan=plan, pod_template=template)


def _suggest(running: Revision, fresh: Revision | Unplannable) -> Suggestion | None:
    if isinstance(fresh, Unplannable):
        return None
    changes = pinned.differences(running, fresh.plan, fresh.pod_template)
    if not changes:
        return None
    identity = pinned.suggestion_id(fresh.plan, fresh.pod_template)
    return Suggestion(
        id=identity,
        message=f"A revision made today would differ: {'; '.join(changes)}. Nothing changes by itself; set "
        f"spec.rollout.accept: {identity} to take it.",
    )


def _unknown_suggestion(accept: str, offer: Suggestion | None) -> Unplannable:
    there_is = f"the current suggestion is {offer.id}" if offer is not None else "there is no suggestion"
    return Unplannable(
        code="UnknownSuggestion",
        message=f"rollout.accept names suggestion {accept}, but {there_is}. Write the id from status.plan.suggestion, "
        "or remove rollout.accept. What runs goes on.",
    )


def _carry_out(seen: Observation, now: datetime, chosen: _Chosen, *, replicas: int | None) -> Decision:
    """Manifests and the rest, for the revision that was chosen."""
    current = chosen.current
    common: dict[str, Any] = {
        "refused": chosen.refused,
        "suggestion": chosen.suggestion,
        "held": chosen.held,
        "replicas": replicas,
    }
    if current is None:
        # Nothing ran before and nothing can run now. Without a readable spec nothing is torn down either.
        return Decision(**common)
    deployments = _deployments_by_revision(seen)
    wanted = replicas if replicas is not None else _live_replicas(deployments.get(current.hash))
    kept = _revisions_to_run(current, chosen.known, deployments, wanted)
    history = _history(current, kept, chosen.known)
    place = Place(service=seen.name, namespace=seen.namespace, uid=seen.uid)
    pins = [
        render_controller_revision(place, revision=r.hash, number=r.number, data=r.to_data())
        for r in sorted(history, key=lambda r: (r.number, r.hash))
        if r.hash == current.hash or _is_listed(seen, names.revision_name(seen.name, r.hash))
    ]
    desired = [
        render_service_account(place),
        render_service(place),
        *(render_deployment(place, revision=r.hash, replicas=wanted, pod_template=r.pod_template) for r in kept),
    ]
    reports = tuple(_report(r, current, deployments.get(r.hash), seen, wanted) for r in kept)
    prove, requeue = _prove(seen, now, current, reports)
    decision = Decision(
        pins=tuple(pins),
        desired=tuple(desired),
        prune=_prune(seen, [*pins, *desired], spare=_unreadable_but_serving(seen, chosen, deployments, wanted)),
        prove=prove,
        requeue_after=requeue,
        plan=current.plan,
        revisions=reports,
        **common,
    )
    return _without_actions(decision) if chosen.held is not None else decision


def _deployments_by_revision(seen: Observation) -> dict[str, Json]:
    return {
        str(d["metadata"].get("labels", {}).get(names.LABEL_REVISION, "")): d
        for d in seen.owned("Deployment")
        if not d["metadata"].get("deletionTimestamp")
    }


def _live_replicas(deployment: Json | None) -> int:
    return int(deployment["spec"].get("replicas", 1)) if deployment is not None else 1


def _ready(deployment: Json | None) -> int:
    return int((deployment or {}).get("status", {}).get("readyReplicas") or 0)


def _is_complete(deployment: Json | None, wanted: int) -> bool:
    """Whether all wanted pods of a Deployment are ready, as its controller says of this very generation."""
    if deployment is None:
        return False
    status = deployment.get("status", {})
    is_current = int(status.get("observedGeneration", -1)) >= int(deployment["metadata"].get("generation", 0))
    return is_current and _ready(deployment) >= wanted and int(deployment["spec"].get("replicas", 1)) == wanted


def _revisions_to_run(
    current: Revision, known: Sequence[Revision], deployments: Mapping[str, Json], wanted: int
) -> list[Revision]:
    """The current revision, and the one before it as long as it serves and the current one does not do so fully."""
    if wanted == 0 or _is_complete(deployments.get(current.hash), wanted):
        return [current]
    serving = [r for r in known if r.hash != current.hash and _ready(deployments.get(r.hash)) > 0]
    before = pinned.newest(serving)
    return [current, before] if before is not None else [current]


def _unreadable_but_serving(
    seen: Observation, chosen: _Chosen, deployments: Mapping[str, Json], wanted: int
) -> frozenset[str]:
    """Names of what serves although its pin cannot be read: it stays as it is until the current revision serves."""
    if chosen.current is None or wanted == 0 or _is_complete(deployments.get(chosen.current.hash), wanted):
        return frozenset()
    readable = {r.hash for r in (*chosen.known, chosen.current)}
    serving = [h for h, d in deployments.items() if h not in readable and _ready(d) > 0]
    return frozenset(
        name for h in serving for name in (names.engine_name(seen.name, h), names.revision_name(seen.name, h))
    )


def _history(current: Revision, kept: Sequence[Revision], known: Sequence[Revision]) -> list[Revision]:
    names_kept = {r.hash for r in kept}
    others = sorted((r for r in known if r.hash not in names_kept), key=lambda r: (-r.number, r.hash))
    return [*kept, *others[: pinned.HISTORY_LIMIT]]


def _is_listed(seen: Observation, name: str) -> bool:
    return any(item["metadata"]["name"] == name for item in seen.owned("ControllerRevision"))


def _report(
    revision: Revision, current: Revision, deployment: Json | None, seen: Observation, wanted: int
) -> RevisionReport:
    status = (deployment or {}).get("status", {})
    old: Json = next((r for r in seen.status.get("revisions") or () if r.get("hash") == revision.hash), {})
    proven_at = old.get("provenAt")
    proof = seen.proof
    if proven_at is None and proof is not None and proof.revision == revision.hash and proof.problem is None:
        proven_at = proof.at.strftime("%Y-%m-%dT%H:%M:%SZ")
    return RevisionReport(
        hash=revision.hash,
        is_current=revision.hash == current.hash,
        wanted=wanted,
        replicas=int(status.get("replicas") or 0),
        ready=_ready(deployment),
        proven_at=proven_at,
    )


def _prove(
    seen: Observation, now: datetime, current: Revision, reports: Sequence[RevisionReport]
) -> tuple[ProveRevision | None, timedelta | None]:
    """Whether to send the request that proves the current revision now, or when to look again.

    It goes through the Service, which selects every revision that is ready; so it waits until the current one is
    alone there, and the answer is certainly its own.
    """
    mine = next(r for r in reports if r.is_current)
    others_run = len(reports) > 1 or any(
        d["metadata"].get("labels", {}).get(names.LABEL_REVISION) != current.hash for d in seen.owned("Deployment")
    )
    if mine.proven_at is not None or mine.ready == 0 or mine.wanted == 0 or others_run:
        return None, None
    proof = seen.proof
    if proof is not None and proof.revision == current.hash and proof.problem is not None:
        pause = timedelta(seconds=PROOF_BACKOFF_S[min(proof.failures, len(PROOF_BACKOFF_S)) - 1])
        if now < proof.at + pause:
            return None, proof.at + pause - now
    request = ProveRevision(
        revision=current.hash, service=seen.name, port=names.SERVICE_PORT, model=current.plan.served_name
    )
    return request, None


def _prune(seen: Observation, wanted: Sequence[Manifest], *, spare: frozenset[str]) -> tuple[ObjectRef, ...]:
    """Owned objects that are no longer wanted. A kind that could not be listed completely is left alone."""
    keep = {(m["kind"], m["metadata"]["name"]) for m in wanted}
    refs = []
    for kind in OWNED_KINDS:
        if kind in seen.unread:
            continue
        for item in seen.owned(kind):
            metadata = item["metadata"]
            is_wanted = (kind, metadata["name"]) in keep or metadata["name"] in spare
            if not is_wanted and not metadata.get("deletionTimestamp"):
                refs.append(
                    ObjectRef(
                        api_version=str(item.get("apiVersion", "")),
                        kind=kind,
                        namespace=seen.namespace,
                        name=str(metadata["name"]),
                        uid=str(metadata.get("uid", "")),
                    )
                )
    return tuple(refs)
