"""Why clients do not reach engines that are ready: the gateway, the router, and what the operator hears of them."""

from draftmark.api import names
from draftmark.api.conditions import Obstacle
from draftmark.decision import Decision, RevisionReport
from draftmark.facts.pods import is_ready, worst_problem
from draftmark.observation import Observation
from draftmark.running import has_ready, pods_of, routers_by_revision


def is_moved(decision: Decision) -> bool:
    """Whether clients come through the gateway; those of a service that 0.1.0 made do not until it has answered."""
    return any(r.weight is not None for r in decision.revisions)


def no_gateway(seen: Observation) -> Obstacle | None:
    """Why nobody gets through the gateway; None: a pod of it takes requests."""
    if has_ready(seen.gateway_pods):
        return None
    problem = worst_problem(seen.gateway_pods)
    why = f" {problem.message}" if problem is not None else ""
    return Obstacle(
        code="GatewayNotReady",
        message=f"No pod of the gateway '{names.gateway_name(seen.name)}' is ready.{why}",
        needs_human=problem is not None and problem.needs_human,
    )


def no_router(seen: Observation, decision: Decision, revision: str) -> Obstacle | None:
    """Why the current revision's engines are not reached although they are ready."""
    if decision.plan is not None and not decision.plan.is_routed:
        return None
    return no_ready_router(seen, revision)


def no_ready_router(seen: Observation, revision: str) -> Obstacle | None:
    """Why a revision's router takes no requests; None: it does."""
    routers = pods_of(seen.router_pods, revision)
    if has_ready(routers):
        return None
    problem = worst_problem(routers)
    why = f" {problem.message}" if problem is not None else ""
    return Obstacle(
        code="RouterNotReady",
        message=f"The router '{names.router_name(seen.name, revision)}' is not ready.{why}",
        needs_human=problem is not None and problem.needs_human,
    )


def cut_off(seen: Observation, decision: Decision) -> Obstacle | None:
    """Why clients reach no engine although some are ready; None: there is a way."""
    if (gateway := no_gateway(seen)) is not None:
        return gateway
    routers = routers_by_revision(seen)
    serving = [r.hash for r in decision.revisions if r.weight]
    # A revision without a router's Deployment is reached without one, or gets it now.
    ways = [no_ready_router(seen, revision) if revision in routers else None for revision in serving]
    return next(iter(ways), None) if all(ways) else None


def not_heard(seen: Observation) -> Obstacle | None:
    """That gateway pods do not tell what they work with: no change of them is known to be in effect, and no revision is
    proven or stopped through them."""
    live = [str(pod["metadata"]["name"]) for pod in seen.gateway_pods if is_ready(pod)]
    return gateways_not_heard(live, seen.silent_gateways)


def gateways_not_heard(live: list[str], silent: frozenset[str]) -> Obstacle | None:
    """The same for any gateway.

    Args:
        live: Names of its pods that take requests.
        silent: Names of pods that were asked and have not answered for a while.
    """
    count = len(silent.intersection(live))
    if count == 0:
        return None
    return Obstacle(
        code="GatewayUnreachable",
        message=f"{count} of {len(live)} gateway pods do not tell the operator what they work with. They are asked on port "
        f"{names.GATEWAY_INNER_PORT}: let pods of the operator's namespace reach it (network policies of this namespace, a "
        "service mesh), and look at the log of the container 'reloader'.",
        needs_human=False,
    )


def unproven(seen: Observation, decision: Decision, current: RevisionReport) -> Obstacle | None:
    """What keeps a revision whose pods are ready from its first answer; None: nothing that is known."""
    proof = seen.proof
    # A pod is ready a moment before every node's proxy knows of it, so a single failure says nothing.
    if proof is not None and proof.revision == current.hash and proof.failures > 1 and proof.problem is not None:
        return Obstacle(code="RequestFailed", message=proof.problem, needs_human=False)
    return no_gateway(seen) or no_router(seen, decision, current.hash) or not_heard(seen)
