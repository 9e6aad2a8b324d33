"""The operator against a real API server: what it stores, what it changes, what it refuses."""

from typing import Any

import pytest

from draftmark.cluster import kinds
from draftmark.cluster.errors import Invalid
from tests.integration.conftest import Rig, service
from tests.specs import LASTING_KINDS


async def serve(rig: Rig, **spec: Any) -> None:
    await rig.apply(service(**spec))
    await rig.start()
    await rig.until(rig.is_ready)
    await rig.quiet()


FULL: dict[str, Any] = {
    "model": {"uri": "hf://org/repo:Q4_K_M", "name": "my-model", "authSecretRef": {"name": "hf", "key": "token"}},
    "engine": {
        "name": "llama-cpp",
        "args": ["--seed", "7", "--override-kv", "text=str:grüße 😀 中"],
        "env": [
            {"name": "EMOJI", "value": "😀 \u2028 line"},
            {"name": "FROM", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}},
        ],
        "resources": {"requests": {"cpu": "0.5", "memory": "1024Mi"}, "limits": {"cpu": 1, "memory": "1Gi"}},
        "options": {"prefixCaching": True, "kvCacheDType": "q8_0"},
    },
    "accelerator": {"product": "NVIDIA-L4"},
    "podTemplate": {
        "metadata": {"labels": {"team": "a"}, "annotations": {"note": "x: {y}\n- z"}},
        "nodeSelector": {"pool": "gpu"},
        "tolerations": [{"key": "k", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}]
                }
            }
        },
        "topologySpread": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}],
        "imagePullSecrets": [{"name": "pull"}],
        "securityContext": {"runAsUser": 1000, "fsGroup": 1000, "supplementalGroups": [2000]},
        "volumes": [
            {"name": "scratch", "mountPath": "/scratch", "emptyDir": {"medium": "Memory", "sizeLimit": "1024Mi"}},
            {"name": "conf", "mountPath": "/conf", "configMap": {"name": "c"}},
            {"name": "data", "mountPath": "/data", "persistentVolumeClaim": {"claimName": "d", "readOnly": True}},
        ],
    },
}


@pytest.mark.parametrize("spec", [{}, FULL], ids=["minimal", "full"])
async def test_a_restart_writes_nothing_whatever_the_api_server_made_of_the_fields(
    rig: Rig, spec: dict[str, Any]
) -> None:
    await serve(rig, **spec)
    before = rig.writes()
    await rig.stop()
    await rig.start()
    await rig.quiet()
    assert rig.writes()[len(before) :] == []


async def test_characters_of_every_plane_arrive(rig: Rig) -> None:
    await serve(rig, **FULL)
    (deployment,) = await rig.deployments()
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    assert "text=str:grüße 😀 中" in container["args"]
    assert {"name": "EMOJI", "value": "😀 \u2028 line"} in container["env"]
    assert deployment["spec"]["template"]["metadata"]["annotations"]["note"] == "x: {y}\n- z"


async def test_scale_subresource_scales(rig: Rig) -> None:
    await serve(rig)
    scale = await rig.api.get(kinds.INFERENCE_SERVICES, rig.namespace, "llama/scale")
    assert scale is not None
    assert scale["spec"]["replicas"] == 1
    assert scale["status"]["selector"] == "draftmark.dev/service=llama,draftmark.dev/role=engine"
    scale["spec"]["replicas"] = 2
    await rig.api.replace(
        kinds.INFERENCE_SERVICES, rig.namespace, "llama/scale", dict(scale), field_manager="kubectl-scale"
    )

    async def both_ready() -> bool:
        found = await rig.get(kinds.INFERENCE_SERVICES, "llama")
        return bool(found["status"].get("readyReplicas") == 2 and found["status"]["replicas"] == 2)

    await rig.until(both_ready)
    assert len(await rig.all(kinds.CONTROLLER_REVISIONS)) == 1


async def test_owned_fields_come_back_and_foreign_ones_stay(rig: Rig) -> None:
    await serve(rig)
    (deployment,) = await rig.deployments()
    name = deployment["metadata"]["name"]
    deployment["spec"]["replicas"] = 5
    deployment["spec"]["template"]["spec"]["containers"][0]["args"] = ["--evil"]
    deployment["metadata"]["annotations"]["team"] = "blue"
    await rig.api.replace(kinds.DEPLOYMENTS, rig.namespace, name, deployment, field_manager="kubectl-edit")

    async def is_back() -> bool:
        live = await rig.get(kinds.DEPLOYMENTS, name)
        container = live["spec"]["template"]["spec"]["containers"][0]
        return bool(live["spec"]["replicas"] == 1 and "--evil" not in container["args"])

    await rig.until(is_back)
    assert (await rig.get(kinds.DEPLOYMENTS, name))["metadata"]["annotations"]["team"] == "blue"


async def test_a_port_edited_by_hand_comes_back(rig: Rig) -> None:
    # The port number is the key of the list: a plain apply would add ours beside the edited one.
    await serve(rig)
    live = await rig.get(kinds.SERVICES, "llama")
    live["spec"]["ports"][0]["port"] = 81
    await rig.api.replace(kinds.SERVICES, rig.namespace, "llama", live, field_manager="kubectl-edit")

    async def is_back() -> bool:
        return [p["port"] for p in (await rig.get(kinds.SERVICES, "llama"))["spec"]["ports"]] == [80]

    await rig.until(is_back)


@pytest.mark.parametrize("kind", LASTING_KINDS, ids=lambda kind: kind.kind)
async def test_a_child_that_somebody_deletes_comes_back(rig: Rig, kind: kinds.Kind) -> None:
    await serve(rig)
    before = {child["metadata"]["name"]: child["metadata"]["uid"] for child in await rig.all(kind)}
    for name, uid in before.items():
        await rig.api.delete(kind, rig.namespace, name, uid=uid)

    async def are_back() -> bool:
        now = {child["metadata"]["name"]: child["metadata"]["uid"] for child in await rig.all(kind)}
        return now.keys() == before.keys() and not set(now.values()) & set(before.values())

    await rig.until(are_back)
    await rig.until(rig.is_ready)


async def test_a_foreign_service_is_left_alone_and_named(rig: Rig) -> None:
    foreign = await rig.apply(
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "llama"}, "spec": {"ports": [{"port": 1}]}},
        manager="somebody",
    )
    await rig.apply(service())
    await rig.start()

    async def is_stalled() -> bool:
        return bool((await rig.condition("Stalled"))["reason"] == "NameConflict")

    await rig.until(is_stalled)
    assert (await rig.get(kinds.SERVICES, "llama"))["metadata"]["resourceVersion"] == (
        foreign["metadata"]["resourceVersion"]
    )


async def test_deletion_is_left_to_the_garbage_collector(rig: Rig) -> None:
    await serve(rig)
    item = await rig.get(kinds.INFERENCE_SERVICES, "llama")
    assert "finalizers" not in item["metadata"]
    await rig.api.delete(kinds.INFERENCE_SERVICES, rig.namespace, "llama", uid=item["metadata"]["uid"])

    async def is_empty() -> bool:
        return not [child for kind in kinds.child_kinds() for child in await rig.all(kind)]

    await rig.until(is_empty)


async def test_pinned_revisions_cannot_be_changed(rig: Rig) -> None:
    await serve(rig)
    (revision,) = await rig.all(kinds.CONTROLLER_REVISIONS)
    revision["data"]["plan"]["image"] = "other"
    with pytest.raises(Invalid, match="is invalid: data"):
        await rig.api.replace(
            kinds.CONTROLLER_REVISIONS, rig.namespace, revision["metadata"]["name"], revision, field_manager="test"
        )


async def test_an_earlier_spec_comes_back_with_the_pods_that_it_had(rig: Rig) -> None:
    """The stored revision is the newest again: its number changes, and what it pins does not."""
    await serve(rig, workload={"concurrency": 2})
    [first] = await rig.deployments()

    async def runs(other_than: str | None, like: str | None = None) -> bool:
        names = [d["metadata"]["name"] for d in await rig.deployments()]
        return await rig.is_ready() and len(names) == 1 and names[0] != other_than and like in (None, names[0])

    await rig.apply(service(workload={"concurrency": 4}))
    await rig.until(lambda: runs(other_than=first["metadata"]["name"]))
    [second] = await rig.deployments()
    await rig.apply(service(workload={"concurrency": 2}))
    await rig.until(lambda: runs(other_than=second["metadata"]["name"], like=first["metadata"]["name"]))
    await rig.quiet()

    [back] = await rig.deployments()
    assert back["spec"]["template"] == first["spec"]["template"]
    numbers = {r["metadata"]["name"]: r["revision"] for r in await rig.all(kinds.CONTROLLER_REVISIONS)}
    assert sorted(numbers.values()) == [2, 3]
    assert max(numbers, key=lambda name: numbers[name]).endswith(first["metadata"]["name"].rpartition("-")[2])
    condition = await rig.condition("Progressing")
    assert (condition["status"], condition["reason"]) == ("False", "Complete")
