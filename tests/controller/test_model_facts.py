"""The whole operator and the Job that reads the facts of a model: end states, writes, and what goes wrong."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from draftmark.api import names
from draftmark.cluster.kinds import DEPLOYMENTS, INFERENCE_SERVICES, JOBS, PERSISTENT_VOLUME_CLAIMS, PODS
from draftmark.controller import main
from draftmark.facts.model_answer import ModelAnswer, ModelProblem, write_answer
from tests.controller.conftest import Json, Rig, service
from tests.facts.model_rows import a_llama

#: Its degree is left open.
OPEN: Json = {"accelerator": {"product": "NVIDIA-L4"}}
ANSWER = write_answer(ModelAnswer(facts=a_llama(), commit="0123abc"))
PROBLEM = write_answer(ModelProblem(code="NotFound", message="It is not there."))


def answer(rig: Rig, text: str = ANSWER) -> None:
    """The pod of the Job that is there, if there is one, has ended with a message."""
    for job in rig.all(JOBS):
        name = f"{job['metadata']['name']}-x"
        ended = {"terminated": {"exitCode": 0, "message": text}}
        if rig.api.see(PODS, name) is None:
            rig.api.add(
                PODS,
                {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "metadata": {
                        "name": name,
                        "namespace": "default",
                        "labels": job["spec"]["template"]["metadata"]["labels"],
                    },
                    "spec": {},
                    "status": {"phase": "Succeeded", "containerStatuses": [{"name": "reader", "state": ended}]},
                },
            )


async def answered(rig: Rig, holds: Callable[[], object], text: str = ANSWER) -> None:
    """Wait, while pods of Jobs answer."""

    def both() -> object:
        answer(rig, text)
        return holds()

    await rig.until(both)


def state(rig: Rig) -> str:
    return str(rig.see().get("status", {}).get("modelFacts", {}).get("state", ""))


def a_claim(rig: Rig, phase: str = "Bound") -> None:
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "status": {"phase": phase}}
    rig.api.add(PERSISTENT_VOLUME_CLAIMS, {**claim, "metadata": {"name": "models", "namespace": "default"}})


async def ask(rig: Rig, **spec: Any) -> None:
    a_claim(rig)
    rig.api.add(INFERENCE_SERVICES, service("llama", **{**OPEN, **spec}))
    await rig.start()
    await rig.until(lambda: rig.all(JOBS))


async def test_a_service_is_made_with_what_a_job_tells_and_the_job_costs_two_writes(rig: Rig) -> None:
    await ask(rig)
    await rig.until(lambda: rig.condition("Progressing")["reason"] == "ReadingModelFacts")
    await rig.quiet()
    assert Counter(rig.writes()) == {"create Job": 1, "patch InferenceService/status": 1, "create Event": 1}
    [job] = rig.all(JOBS)
    [owner] = job["metadata"]["ownerReferences"]
    assert owner["uid"] == rig.see()["metadata"]["uid"]

    await answered(rig, lambda: state(rig) == "Known")
    await rig.until(lambda: rig.is_ready() and not rig.all(JOBS))
    await rig.quiet()
    jobs = [write for write in rig.writes() if write.endswith(" Job")]
    assert jobs == ["create Job", "delete Job"]
    assert rig.see()["status"]["modelFacts"]["commit"] == "0123abc"

    before = len(rig.writes())
    await rig.restart()
    await rig.quiet()
    assert rig.writes()[before:] == []


async def test_a_problem_is_told_and_the_service_is_made_without_facts(rig: Rig) -> None:
    await ask(rig)
    await answered(rig, lambda: rig.condition("ModelFactsUnknown")["status"] == "True", PROBLEM)
    await rig.until(rig.is_ready)
    await rig.quiet()
    assert rig.condition("ModelFactsUnknown")["reason"] == "NotFound"
    assert rig.all(JOBS) == []

    stamp = "2099-01-01T00:00:00Z"
    rig.api.edit(
        INFERENCE_SERVICES, "llama", lambda s: s["metadata"].update(annotations={names.ANNOTATION_RETRY: stamp})
    )
    await rig.until(lambda: rig.all(JOBS))
    running = [d["metadata"]["uid"] for d in rig.all(DEPLOYMENTS)]
    await answered(rig, lambda: rig.condition("ModelFactsUnknown")["status"] == "")
    await rig.quiet()
    assert [d["metadata"]["uid"] for d in rig.all(DEPLOYMENTS)] == running
    assert state(rig) == "Known"


async def test_an_operator_that_is_started_again_waits_for_the_same_job(rig: Rig) -> None:
    await ask(rig)
    [job] = rig.all(JOBS)
    await rig.restart()
    await rig.quiet()
    assert [each["metadata"]["uid"] for each in rig.all(JOBS)] == [job["metadata"]["uid"]]
    await answered(rig, lambda: rig.is_ready())
    await rig.quiet()
    assert rig.writes().count("create Job") == 1


async def test_an_answer_that_comes_while_nobody_leads_is_read_afterwards(rig: Rig) -> None:
    await ask(rig)
    await rig.stop()
    answer(rig)
    await rig.start()
    await rig.until(rig.is_ready)
    assert state(rig) == "Known"
    assert rig.writes().count("create Job") == 1


async def test_a_job_that_is_deleted_by_hand_is_made_again(rig: Rig) -> None:
    await ask(rig)
    [job] = rig.all(JOBS)
    rig.api.remove(JOBS, job["metadata"]["name"])
    await rig.until(lambda: [j for j in rig.all(JOBS) if j["metadata"]["uid"] != job["metadata"]["uid"]])
    await answered(rig, lambda: rig.is_ready())
    assert state(rig) == "Known"


async def test_a_job_that_a_quota_refuses_is_told_and_made_when_there_is_room(rig: Rig) -> None:
    message = 'jobs.batch "x" is forbidden: exceeded quota: jobs, requested: count/jobs.batch=1, used: 1, limited: 1'
    rig.api.fault(verb="create", kind=JOBS, status=403, reason="Forbidden", message=message, times=None)
    a_claim(rig)
    rig.api.add(INFERENCE_SERVICES, service("llama", **OPEN))
    await rig.start()
    await rig.until(lambda: rig.condition("Stalled")["reason"] == "QuotaExceeded")
    assert "exceeded quota" in rig.condition("Progressing")["message"]
    rig.api.faults.clear()
    await answered(rig, lambda: rig.is_ready())
    assert state(rig) == "Known"


async def test_a_strangers_job_of_that_name_is_left_alone_and_named(rig: Rig) -> None:
    await ask(rig)
    [job] = rig.all(JOBS)
    await rig.stop()
    name = job["metadata"]["name"]
    rig.api.remove(JOBS, name)
    rig.api.add(JOBS, {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "namespace": "default"}})
    await rig.start()
    await rig.until(lambda: rig.condition("Stalled")["reason"] == "NameConflict")
    assert f'Job "{name}"' in rig.condition("Stalled")["message"]
    [strange] = rig.all(JOBS)
    assert "ownerReferences" not in strange["metadata"]
    rig.api.remove(JOBS, name)
    await answered(rig, lambda: rig.is_ready())


async def test_without_the_right_to_see_jobs_the_pods_tell_the_answer(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "_FIRST_LISTS_S", 1.0)
    for verb in ("list", "watch"):
        rig.api.fault(verb=verb, kind=JOBS, status=403, reason="Forbidden", message="forbidden", times=None)
    await ask(rig)
    await answered(rig, lambda: rig.is_ready())
    assert state(rig) == "Known"


async def test_a_claim_is_mounted_by_no_job_before_it_is_bound(rig: Rig) -> None:
    a_claim(rig, "Pending")
    rig.api.add(INFERENCE_SERVICES, service("llama", **OPEN))
    await rig.start()
    await rig.until(lambda: "is not bound (Pending)" in rig.condition("Progressing")["message"])
    await rig.quiet()
    assert rig.all(JOBS) == []
    [claim] = rig.all(PERSISTENT_VOLUME_CLAIMS)
    bound = {**claim, "status": {"phase": "Bound"}}
    rig.api.storage.update(PERSISTENT_VOLUME_CLAIMS, ("default", "models"), bound, "pv-controller", "status")
    await answered(rig, lambda: rig.is_ready())
    assert state(rig) == "Known"
    assert rig.writes().count("create Job") == 1


async def test_with_the_service_the_job_goes(rig: Rig) -> None:
    await ask(rig)
    rig.api.remove(INFERENCE_SERVICES, "llama")
    await rig.until(lambda: not rig.all(JOBS))
    await rig.quiet()
    assert rig.writes().count("create Job") == 1
