"""A cluster in memory, as small as can be: it carries out decisions, makes pods ready in time, and forgets nothing.

    simulate(world, Edit(spec()), Steps(3), …) -> the world afterwards

The operator in it has no memory but the world, so every reconcile is also a restart.
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, assert_never

from draftmark.decide import decide
from draftmark.decision import Decision, Manifest, ObjectRef
from draftmark.observation import Observation, Proof
from draftmark.status import differs, make_status
from tests.specs import MINUTE, T0, Object, ready_pod, revision_of, service, stored

Key = tuple[str, str]

#: Reconciles in which every run must come to rest.
PATIENCE = 30


@dataclass(slots=True, kw_only=True)
class World:
    """What an API server and its controllers know."""

    item: Object
    children: dict[Key, Object] = field(default_factory=dict)
    proof: Proof | None = None
    now: datetime = T0
    #: Replicas that were ready after each step.
    served: list[int] = field(default_factory=list)

    @property
    def deployments(self) -> dict[str, Object]:
        return {revision_of(c): c for (kind, _), c in sorted(self.children.items()) if kind == "Deployment"}

    @property
    def ready(self) -> dict[str, int]:
        """Ready replicas of each revision."""
        return {r: d["status"].get("readyReplicas", 0) for r, d in self.deployments.items()}

    def observe(self) -> Observation:
        kinds = sorted({kind for kind, _ in self.children})
        return Observation(
            service=deepcopy(self.item),
            children={k: tuple(deepcopy(c) for (kind, _), c in self.children.items() if kind == k) for k in kinds},
            pods=tuple(ready_pod(r, f"{r}-{i}") for r, count in self.ready.items() for i in range(count)),
            proof=self.proof,
        )

    def end_state(self) -> dict[Key, Any]:
        """The children without what the API server counts and dates."""
        volatile = {"uid", "generation", "resourceVersion"}
        return {
            key: {
                **child,
                "metadata": {k: v for k, v in child["metadata"].items() if k not in volatile},
                "status": None,
            }
            for key, child in self.children.items()
        }


@dataclass(frozen=True, slots=True)
class Edit:
    """The user applies another spec."""

    spec: Object


@dataclass(frozen=True, slots=True)
class Delete:
    """Somebody deletes a child by hand."""

    kind: str


@dataclass(frozen=True, slots=True)
class Reconcile:
    """The operator looks once, and is stopped after some of its actions; None: after all."""

    actions: int | None = None


@dataclass(frozen=True, slots=True)
class Rest:
    """Reconciles and the world's own controllers alternate until nothing moves any more."""


@dataclass(frozen=True, slots=True)
class Time:
    """The Deployment controller makes one more replica of every revision ready; a minute passes."""


Event = Edit | Delete | Reconcile | Rest | Time


def empty_world(wanted: Object) -> World:
    return World(item=service(wanted))


def simulate(world: World, *events: Event) -> World:
    """Let things happen; the world is changed and returned."""
    for event in events:
        match event:
            case Edit(spec):
                world.item["spec"] = deepcopy(spec)
                world.item["metadata"]["generation"] += 1
            case Delete(kind):
                for key in [key for key in world.children if key[0] == kind]:
                    del world.children[key]
            case Reconcile(actions):
                reconcile(world, actions)
            case Time():
                _pass_time(world)
            case Rest():
                _rest(world)
            case _:
                assert_never(event)
        world.served.append(sum(world.ready.values()))
    return world


def reconcile(world: World, actions: int | None = None) -> bool:
    """Decide, and carry out the first so many actions; says whether anything changed."""
    seen = world.observe()
    decision = decide(seen, world.now)
    todo: list[Manifest | ObjectRef] = [*decision.pins, *decision.desired, *decision.prune]
    changed = [_carry_out(world, action) for action in todo[:actions]]
    if actions is not None and actions < len(todo):
        return True
    return any([*changed, _prove(world, decision), _write_status(world, seen, decision)])


def _carry_out(world: World, action: Manifest | ObjectRef) -> bool:
    if isinstance(action, ObjectRef):
        return world.children.pop((action.kind, action.name), None) is not None
    key = (action["kind"], action["metadata"]["name"])
    live = world.children.get(key)
    if live is not None and _wanted_of(live) == _wanted_of(action):
        return False
    if live is not None and key[0] == "ControllerRevision":
        assert live["data"] == action["data"], "the API server refuses to change the data of a ControllerRevision"
    world.children[key] = stored(action, live)
    return True


def _wanted_of(item: Mapping[str, Any]) -> Object:
    metadata = {k: item["metadata"].get(k) for k in ("name", "labels", "ownerReferences")}
    return {k: v for k, v in item.items() if k != "status"} | {"metadata": metadata}


def _prove(world: World, decision: Decision) -> bool:
    if decision.prove is None:
        return False
    world.proof = Proof(revision=decision.prove.revision, problem=None, at=world.now)
    return True


def _write_status(world: World, seen: Observation, decision: Decision) -> bool:
    status = make_status(seen, decision, world.now)
    if decision.is_deleted or not differs(seen.status, status):
        return False
    world.item["status"] = status
    return True


def _pass_time(world: World) -> bool:
    world.now += MINUTE
    moved = False
    for key, deployment in world.children.items():
        if key[0] != "Deployment":
            continue
        wanted, ready = deployment["spec"]["replicas"], deployment["status"].get("readyReplicas", 0)
        ready = min(ready + 1, wanted)
        status = {
            "observedGeneration": deployment["metadata"]["generation"],
            "replicas": wanted,
            "readyReplicas": ready,
        }
        moved = moved or deployment["status"] != status
        deployment["status"] = status
    return moved


def _rest(world: World) -> None:
    for _ in range(PATIENCE):
        changed = reconcile(world)
        world.served.append(sum(world.ready.values()))
        moved = _pass_time(world)
        world.served.append(sum(world.ready.values()))
        if not changed and not moved:
            return
    raise AssertionError(f"nothing came to rest in {PATIENCE} reconciles")
