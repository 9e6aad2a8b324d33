"""Somebody else deletes, edits, takes and holds what the operator has made (cases 26 to 31)."""

from collections.abc import Callable
from typing import Any

from draftmark.api import names
from draftmark.cluster.kinds import (
    CONFIG_MAPS,
    CONTROLLER_REVISIONS,
    DEPLOYMENTS,
    NETWORK_POLICIES,
    ROLE_BINDINGS,
    SERVICE_ACCOUNTS,
    SERVICES,
    Kind,
)
from tests.faults.cluster import Cluster, Json
from tests.faults.scenarios import CREATE, DELETE, Run, Scenarios, each
from tests.specs import LASTING_KINDS

#: Statuses and Events that tell of what happened, and what the gateways are told.
_TOLD = 12


async def _serving(scenarios: Scenarios, cluster: Cluster) -> None:
    snapshot = await scenarios.at_rest(DELETE)
    assert snapshot is not None
    cluster.restore(snapshot)
    cluster.start()
    await cluster.settled()


async def test_children_are_deleted(scenarios: Scenarios) -> None:
    """Case 26: all of a kind, while the operator runs and while it does not."""
    usual = await scenarios.usual(CREATE)

    async def deleted(point: tuple[Kind, bool]) -> list[str]:
        kind, is_running = point
        async with scenarios.cluster(f"deleted-{kind.plural}-{is_running}") as cluster:
            await _serving(scenarios, cluster)
            begun = len(cluster.api.done)
            before = {obj["metadata"]["uid"] for obj in cluster.all(kind)}
            if not is_running:
                cluster.kill()
            for name in [obj["metadata"]["name"] for obj in cluster.all(kind)]:
                cluster.api.remove(kind, name)
            await cluster.until(lambda: len(cluster.all(kind)) == len(before))
            await cluster.settled(holds=cluster.is_ready)
            run = Run.of(cluster, begun)
            again = sum(run.created.values()) - len(before)
            return [*run.is_alike(usual), *([f"{again} made beside: {run.created}"] if again else [])]

    problems = await each([(kind, is_running) for kind in LASTING_KINDS for is_running in (True, False)], deleted)
    assert not problems, "\n".join(problems)


def _of_its_owner(obj: Json) -> Json:
    """What is not the API server's or a controller's."""
    metadata = {k: v for k, v in obj["metadata"].items() if k not in ("managedFields", "resourceVersion")}
    return {**obj, "metadata": metadata, "status": None}


def _set(path: str, value: Any) -> Callable[[Json], None]:
    *parents, last = path.split(".")

    def change(obj: Json) -> None:
        node = obj
        for step in parents:
            node = node[step]
        node[last] = value

    return change


#: An owned field of each kind, edited by hand. The data of a ControllerRevision cannot be edited, and its number counts.
_EDITS: dict[Kind, Callable[[Json], None]] = {
    DEPLOYMENTS: _set("spec.replicas", 7),
    SERVICES: _set("spec.selector", {"app": "other"}),
    CONFIG_MAPS: lambda obj: obj["data"].clear(),
    NETWORK_POLICIES: _set("spec.podSelector", {"matchLabels": {"app": "other"}}),
    ROLE_BINDINGS: _set("subjects", []),
    SERVICE_ACCOUNTS: _set("automountServiceAccountToken", True),
    CONTROLLER_REVISIONS: lambda obj: obj["metadata"]["labels"].update({names.LABEL_SERVICE: "other"}),
}


async def test_children_are_edited(scenarios: Scenarios) -> None:
    """Case 27: an owned field comes back, replicas that an autoscaler has set included; a foreign field stays."""
    usual = await scenarios.usual(CREATE)

    async def edited(kind: Kind) -> list[str]:
        async with scenarios.cluster(f"edited-{kind.plural}") as cluster:
            await _serving(scenarios, cluster)
            begun = len(cluster.api.done)

            def edit(obj: Json) -> None:
                _EDITS[kind](obj)
                obj["metadata"].setdefault("annotations", {})["team"] = "blue"

            objects = [obj["metadata"]["name"] for obj in cluster.all(kind)]
            for name in objects:
                cluster.api.edit(kind, name, edit)
            await cluster.until(lambda: len({w.name for w in cluster.writes(begun) if w.kind == kind}) == len(objects))
            await cluster.settled(holds=cluster.is_ready)
            stays = [o["metadata"]["annotations"].get("team") for o in cluster.all(kind)]
            for name in objects:
                cluster.api.edit(kind, name, lambda obj: obj["metadata"]["annotations"].pop("team"))
            run = Run.of(cluster, begun)
            lost = [] if stays == ["blue"] * len(objects) else [f"the foreign field is {stays}"]
            return [*lost, *run.is_alike(usual), *run.costs_more_than(2 * len(objects) + _TOLD)]

    problems = await each(LASTING_KINDS, edited)
    assert not problems, "\n".join(problems)


async def test_a_name_is_taken(scenarios: Scenarios) -> None:
    """Case 28: a stranger's object of a child's name is never touched; when it has gone ours is made."""
    usual = await scenarios.usual(CREATE)
    kinds = {kind.kind: kind for kind in LASTING_KINDS}

    async def taken(child: str) -> list[str]:
        _, kind_name, name = child.split(" ")
        kind = kinds[kind_name]
        async with scenarios.cluster(f"taken-{kind.plural}-{name}") as cluster:
            own = usual.end_state[f"{kind_name} {name}"]
            parts = {key: value for key, value in own.items() if key not in ("metadata", "status")}
            stranger = cluster.api.add(kind, {**parts, "metadata": {"name": name, "namespace": "default"}})

            async def give_back() -> None:
                await cluster.until(lambda: cluster.condition("Stalled")["reason"] == "NameConflict")
                assert f'{kind_name} "{name}"' in cluster.condition("Stalled")["message"]
                await cluster.until(lambda: cluster.api.count("create", kind))
                found = cluster.api.see(kind, name)
                assert found is not None
                assert _of_its_owner(found) == _of_its_owner(stranger)
                cluster.api.remove(kind, name)

            return (await scenarios.run(cluster, CREATE, give_back, at_rest=False)).is_alike(usual)

    problems = await each([child for child in usual.created if child.startswith("create")], taken)
    assert not problems, "\n".join(problems)


async def test_owners_and_labels_are_removed(scenarios: Scenarios) -> None:
    """Cases 29 and 30: of every child of a kind; it is found again, not made again."""
    usual = await scenarios.usual(CREATE)

    async def removed(point: tuple[Kind, str]) -> list[str]:
        kind, field = point
        async with scenarios.cluster(f"removed-{kind.plural}-{field}") as cluster:
            await _serving(scenarios, cluster)
            begun = len(cluster.api.done)
            objects = [obj["metadata"]["name"] for obj in cluster.all(kind)]
            for name in objects:
                cluster.api.edit(kind, name, lambda obj: obj["metadata"].pop(field))
            await cluster.until(lambda: all(o["metadata"].get(field) for o in cluster.all(kind)))
            await cluster.settled(holds=cluster.is_ready)
            run = Run.of(cluster, begun)
            again = [f"made again: {run.created}"] if run.created else []
            return [*again, *run.is_alike(usual), *run.costs_more_than(2 * len(objects) + _TOLD)]

    points = [(kind, field) for kind in LASTING_KINDS for field in ("ownerReferences", "labels")]
    problems = await each(points, removed)
    assert not problems, "\n".join(problems)


async def test_a_child_does_not_go(scenarios: Scenarios) -> None:
    """Case 31: held by a stranger's finalizer; it is told, nothing is tried in vain, and it is made again when it has
    gone."""
    usual = await scenarios.usual(CREATE)

    async def held(kind: Kind) -> list[str]:
        async with scenarios.cluster(f"held-{kind.plural}") as cluster:
            await _serving(scenarios, cluster)
            begun = len(cluster.api.done)
            name = min(obj["metadata"]["name"] for obj in cluster.all(kind))
            cluster.api.edit(kind, name, lambda obj: obj["metadata"].update(finalizers=["example.com/hold"]))
            cluster.api.remove(kind, name)
            await cluster.until(lambda: cluster.condition("Progressing")["reason"] == "Terminating")
            assert "example.com/hold" in cluster.condition("Progressing")["message"]
            told = [f"{w.verb} {w.name}" for w in cluster.writes(begun) if w.kind == kind and w.name == name]
            cluster.api.edit(kind, name, lambda obj: obj["metadata"].pop("finalizers"))
            await cluster.settled(holds=cluster.is_ready)
            run = Run.of(cluster, begun)
            return [*([f"written meanwhile: {told}"] if told else []), *run.is_alike(usual)]

    problems = await each(LASTING_KINDS, held)
    assert not problems, "\n".join(problems)
