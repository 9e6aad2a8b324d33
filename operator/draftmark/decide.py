"""The operator as one pure function: what was seen of a service, and what is to be done about it.

Stopped after `decide`, the same code is `draftmark render` and `draftmark explain`.

    read the spec → what is known of its model (knowledge) → choose the revision (choice)
    → next step of the rollout (machines.rollout) → manifests, prune, proof
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from pydantic import ValidationError

from draftmark.api import names
from draftmark.api.defaults import Defaults
from draftmark.api.duration import seconds_of
from draftmark.api.inference_service import MAX_REPLICAS, InferenceServiceSpec, RolloutSpec, TrafficSpec
from draftmark.api.times import write_time
from draftmark.awaiting import awaited_nodes
from draftmark.choice import Chosen, choose_revision, known_revisions, read_spec
from draftmark.decision import AwaitedNodes, Decision, GatewayTarget, Manifest, ObjectRef, ProveRevision, RevisionReport
from draftmark.knowledge import Knowledge, know_model, remembered
from draftmark.machines import revisions as pinned
from draftmark.machines import rollout
from draftmark.machines.revisions import Revision
from draftmark.machines.rollout import RevisionStep
from draftmark.observation import Json, Observation
from draftmark.plan import Unplannable
from draftmark.render.gateway import gateway_replicas, render_gateway
from draftmark.render.gateway_config import Backend, GatewayConfig, GatewayFiles, hard_stop_s, render_gateway_config
from draftmark.render.metadata import Place
from draftmark.render.network import render_network_policies
from draftmark.render.router import (
    account_of,
    asked,
    pinned_template,
    render_router,
    render_router_access,
    render_router_service,
    render_router_template,
)
from draftmark.render.traffic import render_service
from draftmark.render.workload import (
    PROGRESS_MARGIN_S,
    render_controller_revision,
    render_deployment,
    render_service_account,
)
from draftmark.running import (
    deployments_by_revision,
    engine_port,
    has_ready,
    is_listed,
    is_proven,
    live_gateways,
    pods_of,
    ready_replicas,
    router_account,
    router_address,
    routers_by_revision,
    see_gateways,
    see_revision,
    told,
    wanted_replicas,
)
from draftmark.traffic import Traffic, read_traffic

#: Seconds between two requests that shall prove a revision, by how many have failed so far.
PROOF_BACKOFF_S: Final = (1, 2, 5, 10, 30, 60)

#: Kinds that a service owns, and that are pruned when they are no longer wanted.
OWNED_KINDS: Final = (
    "Deployment",
    "Job",
    "Service",
    "ServiceAccount",
    "ConfigMap",
    "RoleBinding",
    "NetworkPolicy",
    "ControllerRevision",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Settings:
    """What the spec says beside the revision, or what was known before where it cannot be read."""

    replicas: int | None
    traffic: Traffic
    rollout: RolloutSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """One revision on its way: what pins it, its step, and its Deployment."""

    #: None: its pin cannot be read, and its Deployment is left as it is.
    revision: Revision | None
    step: RevisionStep
    deployment: Json | None
    #: Whether it counts as proven from now on.
    is_proven: bool = False

    @property
    def is_routed(self) -> bool:
        return self.revision is None or self.revision.plan.is_routed

    @property
    def port(self) -> int:
        if self.revision is not None:
            return engine_port(self.revision.pod_template)
        assert self.deployment is not None, "what has no pin was found by its Deployment"
        return engine_port(self.deployment["spec"]["template"])


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
        known = known_revisions(seen)
        stay = Chosen(current=pinned.newest(known), known=known, refused=spec, held=_unread_pins(seen))
        unread = Knowledge(memory=remembered(seen))
        return _carry_out(seen, now, stay, _readable_settings(seen.service.get("spec") or {}), unread)
    held = _unread_pins(seen)
    model = know_model(seen, spec, now, is_frozen=bool(spec.paused) or held is not None)
    if model.waiting is not None or model.refused is not None:
        # What runs goes on meanwhile.
        known = known_revisions(seen)
        chosen = Chosen(current=pinned.newest(known), known=known, refused=model.refused)
    else:
        chosen = choose_revision(seen, spec, model.facts)
    chosen = replace(chosen, held=held or chosen.held)
    decision = _carry_out(seen, now, chosen, _settings(spec), model)
    return replace(_without_actions(decision), is_paused=True, held=None) if spec.paused else decision


def _readable_settings(spec: Json) -> _Settings:
    """What can be read of a spec that cannot be read as a whole: what runs keeps its settings."""
    try:
        traffic = TrafficSpec.model_validate(spec.get("traffic") or {})
    except ValidationError:
        traffic = TrafficSpec()
    try:
        given = RolloutSpec.model_validate(spec.get("rollout") or {})
    except ValidationError:
        given = RolloutSpec()
    return _Settings(replicas=None, traffic=read_traffic(traffic), rollout=given)


def _settings(spec: InferenceServiceSpec) -> _Settings:
    return _Settings(replicas=spec.replicas, traffic=read_traffic(spec.traffic), rollout=spec.rollout or RolloutSpec())


def _without_actions(decision: Decision) -> Decision:
    return replace(decision, pins=(), desired=(), prune=(), prove=None, gateway=None, requeue_after=None)


def _unread_pins(seen: Observation) -> str | None:
    """Why it is not known what runs; without that, today's choice would replace it."""
    for kind in ("ControllerRevision", "Deployment"):
        if kind in seen.unread:
            return (
                f"The service's {kind}s cannot be read ({seen.unread[kind]}), so nothing is changed. Give the operator "
                "the right to list them, or wait until the API server answers."
            )
    return None


def _carry_out(seen: Observation, now: datetime, chosen: Chosen, settings: _Settings, model: Knowledge) -> Decision:
    """Manifests and the rest, for the revision that was chosen."""
    current = chosen.current
    common: dict[str, Any] = {
        "refused": chosen.refused,
        "suggestion": chosen.suggestion,
        "held": chosen.held,
        "replicas": settings.replicas,
        "model": model.facts,
        "model_memory": model.memory,
        "reading": model.waiting,
        "model_unknown": model.unknown,
    }
    jobs = [model.job] if model.job is not None else []
    if current is None:
        # Nothing ran before and nothing can run now. Without a readable spec nothing is torn down either, but a Job whose
        # answer nobody waits for.
        over = _prune(seen, jobs, kinds=("Job",))
        decision = Decision(
            desired=tuple(jobs), prune=over, requeue_after=model.after, status_first=model.is_news, **common
        )
        return _without_actions(decision) if chosen.held is not None else decision
    parts, after = _next_parts(seen, now, current, chosen.known, settings)
    serving = max(parts, key=lambda p: p.step.weight)
    place = Place(service=seen.name, namespace=seen.namespace, uid=seen.uid)
    has_moved = _has_moved(seen, serving)
    pins = _pins(seen, place, chosen, current, parts, settings)
    routed = [p for p in parts if p.step.replicas is not None or pods_of(seen.pods, p.step.hash)]
    gateways = gateway_replicas(_wanted(seen, settings))
    config = _gateway_config(seen, current, routed, settings.traffic, gateways)
    files = render_gateway_config(config)
    desired = [
        *jobs,
        render_service_account(place),
        *_engines(place, parts),
        *render_router_access(place, seen.defaults),
        *_routers(seen, place, routed, settings.traffic),
        *render_gateway(place, replicas=gateways, files=files, hard_stop_s=hard_stop_s(config), defaults=seen.defaults),
        render_service(place, role=names.ROLE_GATEWAY if has_moved else names.ROLE_ENGINE),
    ]
    if has_moved:
        # Before, clients talk to the engines themselves.
        port = engine_port(current.pod_template)
        is_routed = all(p.is_routed for p in routed)
        desired += render_network_policies(place, engine_port=port, is_routed=is_routed, defaults=seen.defaults)
    reports = tuple(_report(seen, now, p, current, parts, has_moved=has_moved) for p in parts)
    prove, again = _prove(seen, now, current, serving if not has_moved else None)
    awaited = _awaited(seen, now, current, parts[0].step, settings)
    bound = max(awaited.until - now, timedelta(seconds=1)) if awaited is not None and not awaited.is_over else None
    waits = [wait for wait in (after, again, model.after, bound) if wait is not None]
    told_reports = tuple(r for p, r in zip(parts, reports, strict=True) if _is_worth_telling(p, r))
    decision = Decision(
        pins=tuple(pins),
        desired=tuple(desired),
        prune=_prune(seen, [*pins, *desired], spare=_spared(seen, parts), kinds=OWNED_KINDS),
        prove=prove,
        gateway=_gateway_target(seen, files, parts, is_at_rest=is_proven(seen, current.hash) and has_moved),
        requeue_after=min(waits, default=None),
        status_first=model.is_news or any(_is_news(seen, r) for r in told_reports),
        plan=current.plan,
        revisions=told_reports,
        awaited=awaited,
        **common,
    )
    return _without_actions(decision) if chosen.held is not None else decision


def _awaited(
    seen: Observation, now: datetime, current: Revision, step: RevisionStep, settings: _Settings
) -> AwaitedNodes | None:
    """What pods of the current revision wait for; one that is withdrawn waits for nothing."""
    if step.failure is not None:
        return None
    policy = _policy(settings, current, _wanted(seen, settings), seen.defaults)
    return awaited_nodes(
        pods_of(seen.pods, current.hash),
        layout=current.plan.layout,
        timeout=policy.node_timeout,
        ends_at=step.progressed_at + policy.deadline if step.progressed_at is not None else None,
        now=now,
    )


def _wanted(seen: Observation, settings: _Settings) -> int:
    """Replicas that the service should have; as many as it has where the spec cannot be read."""
    if settings.replicas is not None:
        return settings.replicas
    live = [wanted_replicas(d) for d in deployments_by_revision(seen).values()]
    # In the middle of a rollout the live numbers move, and the revision that is asked for may have no pod yet.
    written = (seen.service.get("spec") or {}).get("replicas")
    if len(live) > 1 and isinstance(written, int) and 0 <= written <= MAX_REPLICAS:
        return written
    return max(live, default=1)


def _next_parts(
    seen: Observation, now: datetime, current: Revision, known: Sequence[Revision], settings: _Settings
) -> tuple[list[_Part], timedelta | None]:
    """Every revision that runs or should, with its next step; the one that the spec asks for first."""
    deployments = deployments_by_revision(seen)
    policy = _policy(settings, current, _wanted(seen, settings), seen.defaults)
    others = [r for r in known if r.hash != current.hash and (r.hash in deployments or pods_of(seen.pods, r.hash))]
    gateways = see_gateways(seen, sorted({current.hash, *deployments}), policy.queue_timeout, now)
    mine = see_revision(seen, current, deployments.get(current.hash), is_current=True)
    theirs = [see_revision(seen, r, deployments.get(r.hash), is_current=False) for r in others]
    step = rollout.step(policy, mine, theirs, gateways, now)
    by_hash = {r.hash: r for r in (*others, current)}
    proven = {r.hash for r in (mine, *theirs) if r.is_proven}
    parts = [
        _Part(revision=by_hash[s.hash], step=s, deployment=deployments.get(s.hash), is_proven=s.hash in proven)
        for s in step.revisions
    ]
    readable = {*by_hash, *(r.hash for r in known)}
    unreadable = {h: d for h, d in deployments.items() if h not in readable}
    return [*parts, *_unreadable(unreadable, parts, gateways, policy.replicas)], step.after


def _unreadable(
    deployments: Mapping[str, Json], parts: Sequence[_Part], gateways: rollout.GatewaysSeen, wanted: int
) -> list[_Part]:
    """What serves although its pin cannot be read: it stays as it is until the current revision serves fully, and no
    gateway sends it anything."""
    is_carried = parts[0].step.weight >= wanted
    return [
        _Part(
            revision=None,
            step=RevisionStep(
                hash=h, phase="Retiring", replicas=wanted_replicas(d), weight=0 if is_carried else ready_replicas(d)
            ),
            deployment=d,
        )
        for h, d in deployments.items()
        if wanted > 0 and ready_replicas(d) > 0 and not (is_carried and h in gateways.closed)
    ]


def _policy(settings: _Settings, current: Revision, replicas: int, defaults: Defaults) -> rollout.Policy:
    given, node_timeout_s = settings.rollout, defaults.node_timeout_s
    startup = current.pod_template["spec"]["containers"][0]["startupProbe"]
    # A node that is still to come takes its time before an image is pulled.
    budget = startup["periodSeconds"] * startup["failureThreshold"] + PROGRESS_MARGIN_S + (node_timeout_s or 0)
    surge = rollout.pods_of(given.max_surge, replicas, 1, round_up=True)
    unavailable = rollout.pods_of(given.max_unavailable, replicas, 0, round_up=False)
    return rollout.Policy(
        replicas=replicas,
        strategy=given.strategy or "rolling",
        surge=surge,
        # A share of few replicas is none, and then no pod could ever be replaced. Deployments do the same.
        unavailable=unavailable if surge or unavailable else 1,
        in_place=given.when_no_capacity == "inPlace",
        deadline=timedelta(seconds=seconds_of(given.progress_deadline) if given.progress_deadline else budget),
        queue_timeout=timedelta(seconds=settings.traffic.queue_timeout_s),
        node_timeout=timedelta(seconds=node_timeout_s) if node_timeout_s is not None else None,
    )


def _pins(
    seen: Observation,
    place: Place,
    chosen: Chosen,
    current: Revision,
    parts: Sequence[_Part],
    settings: _Settings,
) -> list[Manifest]:
    running = {p.step.hash for p in parts if p.step.replicas is not None} | {current.hash}
    limit = settings.rollout.revision_history_limit
    others = sorted((r for r in chosen.known if r.hash not in running), key=lambda r: (-r.number, r.hash))
    kept = [
        current,
        *(r for r in chosen.known if r.hash in running and r.hash != current.hash),
        *others[: pinned.HISTORY_LIMIT if limit is None else limit],
    ]
    return [
        render_controller_revision(place, revision=r.hash, number=r.number, data=r.to_data())
        for r in sorted(kept, key=lambda r: (r.number, r.hash))
        if r.hash == current.hash or is_listed(seen, names.revision_name(seen.name, r.hash))
    ]


def _engines(place: Place, parts: Sequence[_Part]) -> list[Manifest]:
    return [
        render_deployment(place, revision=p.step.hash, replicas=p.step.replicas, pod_template=p.revision.pod_template)
        for p in parts
        if p.revision is not None and p.step.replicas is not None
    ]


def _routers(seen: Observation, place: Place, parts: Sequence[_Part], traffic: Traffic) -> list[Manifest]:
    manifests: list[Manifest] = []
    for p in parts:
        router = _router(seen, place, p, traffic) if p.is_routed else None
        service = render_router_service(place, revision=p.step.hash, is_routed=p.is_routed)
        manifests += [service] if router is None else [router, service]
    return manifests


def _router(seen: Observation, place: Place, part: _Part, traffic: Traffic) -> Manifest | None:
    """Deployment of a revision's router, or None while it must not start yet."""
    running = routers_by_revision(seen).get(part.step.hash)
    account = router_account(seen)
    is_account_due = "ServiceAccount" in seen.children and "ServiceAccount" not in seen.unread
    if running is None and account is None and is_account_due:
        # A pod keeps the token of the account that it started with, so it starts when that account is there.
        return None
    wanted = asked(part.step.hash, traffic)
    template = pinned_template(running, wanted) or render_router_template(
        place, revision=part.step.hash, traffic=traffic, engine_port=part.port, defaults=seen.defaults
    )
    return render_router(
        place,
        revision=part.step.hash,
        wanted=wanted,
        pod_template=template,
        account=account or account_of(running),
    )


def _gateway_config(
    seen: Observation, current: Revision, parts: Sequence[_Part], traffic: Traffic, gateways: int
) -> GatewayConfig:
    """What the gateways should work with. The first backend takes what comes while nothing serves."""

    def limit(p: _Part) -> int:
        if traffic.max_concurrent is not None:
            return max(1, traffic.max_concurrent // gateways)
        # Not the user's limit, so it need not be exact: a gateway that is chosen more often must not make them wait.
        plan = (p.revision or current).plan
        return plan.concurrency * max(1, min(ready_replicas(p.deployment), p.step.replicas or 1))

    order = {"Current": 0, "Candidate": 1, "Retiring": 2, "Failed": 3}
    return GatewayConfig(
        backends=tuple(
            Backend(
                revision=p.step.hash,
                address=router_address(seen, p.step.hash),
                limit=limit(p),
                queue=traffic.max_queue // gateways,
                weight=p.step.weight,
            )
            for p in sorted(parts, key=lambda p: order[p.step.phase])
        ),
        queue_timeout_s=traffic.queue_timeout_s,
        request_timeout_s=traffic.request_timeout_s,
    )


def _gateway_target(
    seen: Observation, files: GatewayFiles, parts: Sequence[_Part], *, is_at_rest: bool
) -> GatewayTarget:
    states = [state for _, state in live_gateways(seen)]
    is_behind = any(s is None or (s.config, s.runtime) != (files.config_version, files.runtime_version) for s in states)
    # What a gateway told a while ago stops no pod, so whoever is to go needs its word anew.
    is_draining = any(p.step.replicas and p.step.phase in ("Retiring", "Failed") for p in parts)
    return GatewayTarget(
        config=files.config_version,
        runtime=files.runtime_version,
        is_awaited=bool(states) and (is_behind or is_draining),
        is_decisive=len(parts) > 1 or not is_at_rest,
    )


def _has_moved(seen: Observation, serving: _Part) -> bool:
    """Whether clients come through the gateway. A service that an older version made moves once its gateway has
    answered for what serves."""
    live = next((s for s in seen.owned("Service") if s["metadata"]["name"] == seen.name), None)
    role = (live or {}).get("spec", {}).get("selector", {}).get(names.LABEL_ROLE)
    if role != names.ROLE_ENGINE or "Service" in seen.unread:
        return True
    proof = seen.proof
    return proof is not None and proof.revision == serving.step.hash and proof.problem is None


def _report(
    seen: Observation, now: datetime, part: _Part, current: Revision, parts: Sequence[_Part], *, has_moved: bool
) -> RevisionReport:
    step = part.step
    status = (part.deployment or {}).get("status", {})
    total = sum(p.step.weight for p in parts)
    proven_at = told(seen, step.hash).get("provenAt")
    if proven_at is None and part.is_proven:
        # Without a proof it was taken over after the status was lost, and the next look must not doubt it.
        proven_at = write_time(seen.proof.at if is_proven(seen, step.hash) and seen.proof is not None else now)
    return RevisionReport(
        hash=step.hash,
        is_current=step.hash == current.hash,
        phase=step.phase,
        wanted=step.replicas or 0,
        replicas=int(status.get("replicas") or 0),
        ready=ready_replicas(part.deployment),
        weight=(round(100 * step.weight / total) if total else 0) if has_moved else None,
        proven_at=proven_at,
        progressed_at=step.progressed_at,
        progress=step.progress,
        drained_since=step.drained_since,
        failed_at=step.failed_at,
        failure=step.failure,
    )


def _is_worth_telling(part: _Part, report: RevisionReport) -> bool:
    # A Deployment of none is there to go back to, and the status is what remembers that it was proven.
    return report.is_current or part.step.replicas is not None or report.replicas > 0


def _is_news(seen: Observation, report: RevisionReport) -> bool:
    """Whether the status does not know yet that a revision was proven or has failed."""
    memory = told(seen, report.hash)
    has_failed = report.failed_at is not None and write_time(report.failed_at) != memory.get("failedAt")
    return has_failed or (report.proven_at is not None and "provenAt" not in memory)


def _prove(
    seen: Observation, now: datetime, current: Revision, unmoved: _Part | None
) -> tuple[ProveRevision | None, timedelta | None]:
    """Whether to send a request that proves a revision now, or when to look again.

    Args:
        unmoved: What serves a service whose clients do not come through its gateway yet; None once they do.
    """
    if not is_proven(seen, current.hash):
        target = current
    elif unmoved is not None and unmoved.revision is not None:
        target = unmoved.revision
    else:
        return None, None
    gateway = next(
        (p for p, state in live_gateways(seen) if state is not None and target.hash in state.revisions), None
    )
    address = (gateway or {}).get("status", {}).get("podIP")
    is_reached = not target.plan.is_routed or has_ready(pods_of(seen.router_pods, target.hash))
    if gateway is None or not address or not is_reached or not has_ready(pods_of(seen.pods, target.hash)):
        return None, None
    proof = seen.proof
    if proof is not None and proof.revision == target.hash and proof.problem is not None:
        pause = timedelta(seconds=PROOF_BACKOFF_S[min(proof.failures, len(PROOF_BACKOFF_S)) - 1])
        if now < proof.at + pause:
            return None, proof.at + pause - now
    request = ProveRevision(
        revision=target.hash,
        pod=str(gateway["metadata"]["name"]),
        address=str(address),
        model=target.plan.served_name,
        kind=target.plan.kind,
    )
    return request, None


def _spared(seen: Observation, parts: Sequence[_Part]) -> frozenset[str]:
    """Names of objects that are not ours to write, and stay."""
    return frozenset(
        name
        for p in parts
        if p.revision is None
        for name in (names.engine_name(seen.name, p.step.hash), names.revision_name(seen.name, p.step.hash))
    )


def _prune(
    seen: Observation,
    wanted: Sequence[Manifest],
    *,
    spare: frozenset[str] = frozenset(),
    kinds: Sequence[str],
) -> tuple[ObjectRef, ...]:
    """Owned objects that are no longer wanted. A kind that could not be listed completely is left alone."""
    keep = {(m["kind"], m["metadata"]["name"]) for m in wanted}
    refs = []
    for kind in kinds:
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
