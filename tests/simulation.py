"""A cluster in memory, as small as can be: it carries out decisions, makes pods ready in time, and forgets nothing.

    simulate(world, Edit(spec()), Rest(), …) -> the world afterwards

The operator in it has no memory but the world, so every reconcile is also a restart. Its gateways work with their
ConfigMap after a minute, and what a proving request finds is what is there.
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final, assert_never

from draftmark.api import names
from draftmark.api.defaults import Defaults
from draftmark.decide import OWNED_KINDS, decide
from draftmark.decision import Decision, Manifest, ObjectRef
from draftmark.observation import GatewayState, Observation, Proof
from draftmark.status import differs, make_status
from tests.specs import (
    MINUTE,
    T0,
    Object,
    crashed_pod,
    gateway_state,
    of_role,
    pod,
    ready_pod,
    revision_of,
    role_of,
    service,
    stored,
)

Key = tuple[str, str]

#: Reconciles in which every run must come to rest.
PATIENCE = 60

#: What the operator waits for at most without anything else happening.
LOOKS_AGAIN = timedelta(seconds=1)

#: Models whose pods never become ready, and whose engine ends as soon as it starts.
HANGS: Final = "hangs"
CRASHES: Final = "crashes"


@dataclass(slots=True, kw_only=True)
class World:
    """What an API server and its controllers know."""

    item: Object
    children: dict[Key, Object] = field(default_factory=dict)
    defaults: Defaults = field(default_factory=Defaults)
    proof: Proof | None = None
    now: datetime = T0
    #: What each gateway pod works with, and what it told the operator when that asked last.
    loaded: dict[str, GatewayState] = field(default_factory=dict)
    known: dict[str, GatewayState] = field(default_factory=dict)
    #: Restarts of each pod whose engine ends.
    restarts: dict[str, int] = field(default_factory=dict)
    #: After each step: replicas that are wanted, and those that are ready.
    wanted: list[int] = field(default_factory=list)
    served: list[int] = field(default_factory=list)
    #: After each step: ready replicas of that revision, among those that a gateway sends requests to, which has fewest.
    reached: list[int] = field(default_factory=list)

    @property
    def deployments(self) -> dict[str, Object]:
        """The engines' Deployments by their revision."""
        return {r: dict(d) for r, d in sorted(of_role(self.children.values(), names.ROLE_ENGINE).items())}

    @property
    def ready(self) -> dict[str, int]:
        """Ready replicas of each revision."""
        return {r: d["status"].get("readyReplicas", 0) for r, d in self.deployments.items()}

    def weights(self) -> dict[str, int]:
        """What one of the gateways draws from, by revision."""
        state = next(iter(self.loaded.values()), None)
        return {r: t.weight for r, t in state.revisions.items()} if state is not None else {}

    def observe(self) -> Observation:
        kinds = sorted({*OWNED_KINDS, *(kind for kind, _ in self.children)})
        pods = [p for (kind, _), d in self.children.items() if kind == "Deployment" for p in self._pods_of(d)]
        by_role = {role: tuple(p for p in pods if role_of(p) == role) for role in ("engine", "router", "gateway")}
        return Observation(
            service=deepcopy(self.item),
            children={k: tuple(deepcopy(c) for (kind, _), c in self.children.items() if kind == k) for k in kinds},
            pods=by_role["engine"],
            router_pods=by_role["router"],
            gateway_pods=by_role["gateway"],
            gateways=dict(self.known),
            defaults=self.defaults,
            proof=self.proof,
        )

    def _pods_of(self, deployment: Object) -> list[Object]:
        role = role_of(deployment)
        revision = "" if role == names.ROLE_GATEWAY else revision_of(deployment)
        status = deployment["status"]
        pods = []
        for i in range(status.get("replicas", 0)):
            name = f"{deployment['metadata']['name']}-{i}"
            if i < status["readyReplicas"]:
                pods.append(ready_pod(revision, name, role=role))
            elif name in self.restarts:
                pods.append(crashed_pod(revision, name=name, restarts=self.restarts[name]))
            else:
                pods.append(pod(revision, name=name, role=role))
        return pods

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
class Annotate:
    """The user sets an annotation of the service to the present time."""

    key: str


@dataclass(frozen=True, slots=True)
class Delete:
    """Somebody deletes children by hand: all of a kind."""

    kind: str


@dataclass(frozen=True, slots=True)
class LoseStatus:
    """The service was restored from a backup, which has no status."""


@dataclass(frozen=True, slots=True)
class Restart:
    """The operator starts anew: it remembers no proof, and hears of every gateway for the first time."""


@dataclass(frozen=True, slots=True)
class Reconcile:
    """The operator looks, and is stopped after some of its actions; None: it is not stopped."""

    actions: int | None = None


@dataclass(frozen=True, slots=True)
class Rest:
    """Reconciles and the world's own controllers alternate until nothing moves any more."""


@dataclass(frozen=True, slots=True)
class Time:
    """The Deployment controller makes one more replica of every revision ready, the gateways take over what was
    configured; a minute passes."""


Event = Edit | Annotate | Delete | LoseStatus | Restart | Reconcile | Rest | Time


def minutes(count: int) -> list[Event]:
    """The operator looks, and a minute passes; so many times."""
    return [event for _ in range(count) for event in (Reconcile(), Time())]


def empty_world(wanted: Object) -> World:
    return World(item=service(wanted))


def world_of(seen: Observation) -> World:
    """A world that goes on from what was seen."""
    children = {(kind, c["metadata"]["name"]): dict(c) for kind, items in seen.children.items() for c in items}
    return World(
        item=deepcopy(dict(seen.service)),
        children=children,
        defaults=seen.defaults,
        proof=seen.proof,
        loaded=dict(seen.gateways),
        known=dict(seen.gateways),
    )


def simulate(world: World, *events: Event) -> World:
    """Let things happen; the world is changed and returned."""
    for event in events:
        match event:
            case Edit(spec):
                world.item["spec"] = deepcopy(spec)
                world.item["metadata"]["generation"] += 1
            case Annotate(key):
                world.item["metadata"].setdefault("annotations", {})[key] = world.now.isoformat()
            case Delete(kind):
                for found in [found for found in world.children if found[0] == kind]:
                    del world.children[found]
            case LoseStatus():
                world.item.pop("status", None)
            case Restart():
                world.proof, world.known = None, {}
            case Reconcile(actions):
                reconcile(world, actions)
            case Time():
                _pass_time(world)
            case Rest():
                _rest(world)
            case _:
                assert_never(event)
        _count(world)
    return world


def _count(world: World) -> None:
    world.wanted.append(sum(d["spec"]["replicas"] for d in world.deployments.values()))
    world.served.append(sum(world.ready.values()))
    drawn = [
        revision
        for state in world.loaded.values()
        # While no revision has a weight the first one takes what comes.
        for revision in [r for r, t in state.revisions.items() if t.weight] or [*state.revisions][:1]
    ]
    world.reached.append(min((world.ready.get(r, 0) for r in drawn), default=0))


def reconcile(world: World, actions: int | None = None) -> bool:
    """The operator looks, and looks again as long as it is woken by what it did; says whether anything changed.

    Args:
        actions: It is stopped after the first so many of its actions.
    """
    any_changed = has_waited = False
    for _ in range(PATIENCE):
        seen = world.observe()
        decision = decide(seen, world.now)
        if decision.status_first:
            any_changed |= _write_status(world, seen, decision)
        todo: list[Manifest | ObjectRef] = [*decision.pins, *decision.desired, *decision.prune]
        changed = [_carry_out(world, action) for action in todo[:actions]]
        if actions is not None and actions < len(todo):
            return True
        woken = [_ask(world, decision), _prove(world, decision)]
        any_changed = any([any_changed, *changed, *woken, _write_status(world, seen, decision)])
        if any(woken):
            continue
        if decision.requeue_after is None:
            return any_changed
        if decision.requeue_after > LOOKS_AGAIN or has_waited:
            return True
        has_waited = True
        world.now += decision.requeue_after
    raise AssertionError(f"the operator wakes itself for ever: {decision}")


def _ask(world: World, decision: Decision) -> bool:
    """Ask the gateways, if that is worth it; says whether one of them told something new."""
    before = dict(world.known)
    world.known = {name: before[name] for name in world.loaded if name in before}
    if decision.gateway is None or not decision.gateway.is_awaited:
        return False
    for name, state in world.loaded.items():
        heard = before.get(name)
        since = heard.config_since if heard is not None and heard.config == state.config else world.now
        world.known[name] = replace(state, at=world.now, config_since=since)
    return {n: replace(s, at=T0) for n, s in before.items()} != {n: replace(s, at=T0) for n, s in world.known.items()}


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
    metadata = {k: item["metadata"].get(k) for k in ("name", "labels", "annotations", "ownerReferences")}
    wanted = {k: v for k, v in item.items() if k != "status"} | {"metadata": metadata}
    if item["kind"] == "Service":
        wanted["spec"] = {k: v for k, v in item["spec"].items() if k != "clusterIP"}
    return wanted


def _prove(world: World, decision: Decision) -> bool:
    request = decision.prove
    if request is None:
        return False
    state = world.loaded.get(request.pod)
    routers = of_role(world.children.values(), names.ROLE_ROUTER)
    knows = state is not None and request.revision in state.revisions
    is_direct = request.kind == "rerank"
    routed = is_direct or routers.get(request.revision, {}).get("status", {}).get("readyReplicas", 0) > 0
    is_answered = knows and routed and world.ready.get(request.revision, 0) > 0
    failures = world.proof.failures if world.proof is not None and world.proof.revision == request.revision else 0
    world.proof = Proof(
        revision=request.revision,
        problem=None if is_answered else "503",
        at=world.now,
        failures=0 if is_answered else failures + 1,
    )
    return True


def _write_status(world: World, seen: Observation, decision: Decision) -> bool:
    status = make_status(seen, decision, world.now)
    if decision.is_deleted or not differs(seen.status, status):
        return False
    world.item["status"] = status
    return True


def _pass_time(world: World) -> bool:
    world.now += MINUTE
    moved = [_run(world, child) for (kind, _), child in world.children.items() if kind == "Deployment"]
    return any([*moved, _load(world)])


def _run(world: World, deployment: Object) -> bool:
    wanted, before = deployment["spec"]["replicas"], deployment["status"]
    if role_of(deployment) != names.ROLE_ENGINE:
        ready = wanted
    elif (model := served_name(deployment)) in (HANGS, CRASHES):
        ready = 0
        if model == CRASHES:
            for i in range(wanted):
                name = f"{deployment['metadata']['name']}-{i}"
                world.restarts[name] = world.restarts.get(name, 0) + 1
    else:
        ready = min(before.get("readyReplicas", 0) + 1, wanted)
    generation = deployment["metadata"]["generation"]
    deployment["status"] = {"observedGeneration": generation, "replicas": wanted, "readyReplicas": ready}
    return bool(deployment["status"] != before)


def served_name(deployment: Mapping[str, Any]) -> str:
    """The name that an engine's pods serve under."""
    argv = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    return str(argv[argv.index("--alias") + 1])


def _load(world: World) -> bool:
    before = world.loaded
    config = world.children.get(("ConfigMap", names.gateway_name(world.item["metadata"]["name"])))
    gateways = of_role(world.children.values(), names.ROLE_GATEWAY).values()
    pods = [f"{d['metadata']['name']}-{i}" for d in gateways for i in range(d["status"]["readyReplicas"])]
    world.loaded = {name: gateway_state(config, at=T0, since=T0) for name in pods} if config is not None else {}
    return world.loaded != before


def _rest(world: World) -> None:
    for _ in range(PATIENCE):
        changed = reconcile(world)
        _count(world)
        moved = _pass_time(world)
        _count(world)
        if not changed and not moved:
            return
    raise AssertionError(f"nothing came to rest in {PATIENCE} reconciles")
