"""The status of a ModelGateway, from what was decided and what became of it. Written whole, and only when it differs."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from draftmark.api import names
from draftmark.api.conditions import (
    ACCEPTED,
    CONTENDED,
    NAMES_UNIQUE,
    READY,
    Condition,
    Obstacle,
    Status,
    kstatus,
    write_conditions,
)
from draftmark.data_path import gateways_not_heard
from draftmark.facts.pods import PodProblem, is_ready, worst_problem
from draftmark.model_gateway.observation import ModelGatewayDecision, ModelGatewayObservation

#: Bound of the list, as in the schema.
MAX_MODELS: Final = 200


def make_model_gateway_status(
    seen: ModelGatewayObservation,
    decision: ModelGatewayDecision,
    now: datetime,
    *,
    obstacles: Sequence[Obstacle] = (),
    contended: Sequence[Obstacle] = (),
) -> dict[str, Any]:
    """The complete status.

    Args:
        seen: What the decision was made from.
        decision: What was decided.
        now: Aware, UTC.
        obstacles: Objects that could not be written, most important first.
        contended: Objects that somebody else keeps changing back.
    """
    conditions = _conditions(seen, decision, obstacles, contended)
    if decision.held is not None or decision.refused is not None:
        # What runs goes on, and so does the list.
        models = {key: seen.status[key] for key in ("modelCount", "models") if key in seen.status}
    else:
        models = {
            "modelCount": len(decision.routes),
            "models": [{"name": r.model, "service": r.service} for r in decision.routes[:MAX_MODELS]],
        }
    return {
        "observedGeneration": seen.generation,
        "conditions": write_conditions(
            conditions, before=seen.status.get("conditions") or (), generation=seen.generation, now=now
        ),
        "url": names.service_url(seen.name, seen.namespace),
        "readyReplicas": sum(is_ready(pod) for pod in seen.pods),
        **models,
    }


def _conditions(
    seen: ModelGatewayObservation,
    decision: ModelGatewayDecision,
    obstacles: Sequence[Obstacle],
    contended: Sequence[Obstacle],
) -> list[Condition]:
    problem = worst_problem(seen.pods)
    accepted = (
        Condition(type=ACCEPTED, status="True", reason="Accepted", message="The spec can be deployed.")
        if decision.refused is None
        else Condition(type=ACCEPTED, status="False", reason="InvalidSpec", message=decision.refused)
    )
    ready = _ready(seen, decision, obstacles, problem)
    conditions = [
        accepted,
        ready,
        *kstatus(_stalled(decision, obstacles, contended, problem), _busy(seen, decision, obstacles, ready)),
    ]
    if decision.held is None and decision.refused is None:
        conditions.append(_names_unique(decision))
    if contended:
        message = " ".join(o.message for o in contended)
        conditions.append(Condition(type=CONTENDED, status="True", reason=contended[0].code, message=message))
    return conditions


def _names_unique(decision: ModelGatewayDecision) -> Condition:
    if not decision.unrouted:
        return Condition(
            type=NAMES_UNIQUE, status="True", reason="Unique", message="Every service has a name of its own."
        )
    return Condition(
        type=NAMES_UNIQUE,
        status="False",
        reason="NameTaken",
        message=" ".join(one.message for one in decision.unrouted),
    )


def _ready(
    seen: ModelGatewayObservation,
    decision: ModelGatewayDecision,
    obstacles: Sequence[Obstacle],
    problem: PodProblem | None,
) -> Condition:
    def of(status: Status, reason: str, message: str) -> Condition:
        return Condition(type=READY, status=status, reason=reason, message=message)

    if decision.refused is not None:
        return of("False", "InvalidSpec", decision.refused)
    ready = sum(is_ready(pod) for pod in seen.pods)
    if ready == 0:
        if obstacles:
            return of("False", obstacles[0].code, obstacles[0].message)
        if problem is not None:
            return of("False", problem.code, problem.message)
        if decision.held is not None:
            return of("False", "Held", decision.held)
        return of("False", "Starting", f"No pod of '{names.gateway_name(seen.name)}' is ready yet.")
    if decision.held is not None:
        return of("True", "Serving", "The gateway goes on with the models that it has.")
    if not decision.routes:
        return of(
            "False",
            "NoModels",
            f"No InferenceService in namespace '{seen.namespace}' has an address yet. Create one, or look at the status of "
            "those that are there.",
        )
    count = len(decision.routes)
    return of("True", "Serving", f"{count} model{'' if count == 1 else 's'} behind {seen.name}.")


def _stalled(
    decision: ModelGatewayDecision,
    obstacles: Sequence[Obstacle],
    contended: Sequence[Obstacle],
    problem: PodProblem | None,
) -> tuple[str, str] | None:
    """What waits for somebody."""
    if decision.refused is not None:
        return "InvalidSpec", decision.refused
    if decision.held is not None:
        return "Held", decision.held
    known: list[Obstacle | PodProblem] = [*obstacles, *contended, *([problem] if problem is not None else [])]
    for found in known:
        if found.needs_human:
            return found.code, found.message
    return None


def _busy(
    seen: ModelGatewayObservation, decision: ModelGatewayDecision, obstacles: Sequence[Obstacle], ready: Condition
) -> tuple[str, str] | None:
    """What is still under way."""
    if obstacles:
        return obstacles[0].code, obstacles[0].message
    if ready.status != "True":
        return ready.reason, ready.message
    live = [pod for pod in seen.pods if is_ready(pod)]
    if len(live) < decision.replicas:
        return "Starting", f"{len(live)} of {decision.replicas} pods are ready."
    if (unheard := gateways_not_heard([str(pod["metadata"]["name"]) for pod in live], seen.silent)) is not None:
        return unheard.code, unheard.message
    target = decision.target
    # Of a pod that has not been asked yet nothing is said: after a restart of the operator that is every pod.
    told = [state for pod in live if (state := seen.states.get(str(pod["metadata"]["name"]))) is not None]
    behind = sum(target is not None and state.config != target.config for state in told)
    if behind:
        return "Updating", f"{behind} of {len(live)} pods do not work with the newest list of models yet."
    return None
