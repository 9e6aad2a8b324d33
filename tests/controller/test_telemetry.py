"""What /metrics tells of the services."""

from copy import deepcopy
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from draftmark.api import names
from draftmark.api.defaults import Defaults
from draftmark.controller.health import Health
from draftmark.controller.observe import World
from draftmark.controller.telemetry import ServiceSeen, Telemetry
from draftmark.facts.pods import restarts
from tests.specs import Object, crashed_pod
from tests.test_status import SITUATIONS, Situation, status_of

Sample = tuple[str, tuple[tuple[str, str], ...]]


def seen_in(situation: Situation) -> ServiceSeen:
    service: Object = {**deepcopy(dict(situation.seen.service)), "status": status_of(situation)}
    return ServiceSeen(service, sum(map(restarts, situation.seen.pods)))


def in_situation(name: str) -> ServiceSeen:
    return seen_in(next(s for s in SITUATIONS if s.name == name))


def scrape(*services: ServiceSeen) -> dict[Sample, float]:
    """Samples by name and labels, as Prometheus reads them."""
    telemetry = Telemetry()
    telemetry.follow_services(lambda: services)
    return read(telemetry)


def read(telemetry: Telemetry) -> dict[Sample, float]:
    families = text_string_to_metric_families(generate_latest(telemetry.registry).decode())
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
        if "inference_service" in sample.labels
    }


def of(samples: dict[Sample, float], name: str, **labels: str) -> float:
    wanted = {"namespace": "models", "inference_service": "tiny", **labels}
    [value] = [v for (n, found), v in samples.items() if n == name and wanted.items() <= dict(found).items()]
    return value


def test_a_service_that_serves() -> None:
    samples = scrape(in_situation("proven"))
    assert of(samples, "draftmark_service_replicas") == 1
    assert of(samples, "draftmark_service_ready_replicas") == 1
    assert of(samples, "draftmark_service_engine_restarts") == 0
    assert of(samples, "draftmark_service_condition", condition="Ready", reason="Serving") == 1
    assert of(samples, "draftmark_service_condition", condition="Stalled") == 0
    revision = {"revision": "ea525689", "phase": "Current"}
    assert of(samples, "draftmark_revision_weight", **revision) == 100
    assert of(samples, "draftmark_revision_replicas", **revision) == 1
    assert of(samples, "draftmark_revision_ready_replicas", **revision) == 1


def test_a_rollout_has_both_revisions() -> None:
    samples = scrape(in_situation("proven, and one old pod may go"))
    weights = {dict(labels)["phase"]: v for (n, labels), v in samples.items() if n == "draftmark_revision_weight"}
    assert len(weights) == 2
    assert sum(weights.values()) == 100
    assert of(samples, "draftmark_service_replicas") == 2


def test_restarts_are_those_of_the_engine_pods_that_there_are() -> None:
    client: Any = None
    world = World(client=client, defaults=Defaults(), wake=lambda key: None)
    for name, count, role in (("a", 3, "engine"), ("b", 1, "engine"), ("c", 7, "router")):
        pod = crashed_pod(name, restarts=count)
        pod["metadata"] |= {"namespace": "models", "name": name, "uid": name, "resourceVersion": "1"}
        pod["metadata"]["labels"] |= {names.LABEL_SERVICE: "tiny", names.LABEL_ROLE: role}
        world.pods.absorb(pod)
    service = {"metadata": {"name": "tiny", "namespace": "models"}, "spec": {}}
    samples = scrape(ServiceSeen(service, world.engine_restarts(("models", "tiny"))))
    assert of(samples, "draftmark_service_engine_restarts") == 4
    assert world.engine_restarts(("models", "other")) == 0


def test_start_up_is_told_by_stage() -> None:
    seen = in_situation("proven")
    startup = {"revision": "r", "scheduleSeconds": 1, "imageSeconds": 40, "loadSeconds": 300, "totalSeconds": 341}
    samples = scrape(ServiceSeen({**seen.service, "status": {**seen.service["status"], "startup": startup}}))
    stages = {
        dict(labels)["stage"]: value
        for (name, labels), value in samples.items()
        if name == "draftmark_service_startup_seconds"
    }
    assert stages == {"schedule": 1, "image": 40, "load": 300, "total": 341}


def test_a_service_without_a_status_has_no_conditions_and_is_wanted() -> None:
    samples = scrape(ServiceSeen({"metadata": {"name": "tiny", "namespace": "models"}, "spec": {}}))
    assert of(samples, "draftmark_service_replicas") == 1
    assert of(samples, "draftmark_service_ready_replicas") == 0
    assert not [name for name, _ in samples if "condition" in name or "revision" in name]


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.name)
def test_a_service_has_few_series_in_every_situation(situation: Situation) -> None:
    """Three of its own, at most six conditions, four stages, three for each of five revisions."""
    assert len(scrape(seen_in(situation))) <= 3 + 6 + 4 + 3 * 5


def test_what_is_deleted_is_gone_from_the_next_answer() -> None:
    telemetry, services = Telemetry(), [in_situation("proven")]
    telemetry.follow_services(lambda: services)
    assert read(telemetry)
    services.clear()
    assert read(telemetry) == {}


def test_a_condition_that_no_service_has_any_more_counts_zero() -> None:
    telemetry = Telemetry()
    for counts in ({("Ready", "False"): 2}, {("Ready", "True"): 2}):
        telemetry.set_objects(counts)
    assert telemetry.registry.get_sample_value("draftmark_objects", {"condition": "Ready", "status": "False"}) == 0
    assert telemetry.registry.get_sample_value("draftmark_objects", {"condition": "Ready", "status": "True"}) == 2


async def test_a_scrape_may_ask_for_some_metrics_only() -> None:
    telemetry = Telemetry()
    telemetry.leader.set(1)
    telemetry.follow_services(lambda: [in_situation("proven")])
    health = Health(telemetry=telemetry, queue_age_s=lambda: 0.0)

    async def told(query: str) -> str:
        answer = await health.metrics(make_mocked_request("GET", f"/metrics{query}"))
        assert isinstance(answer.body, bytes)
        return answer.body.decode()

    assert "draftmark_service_replicas{" in await told("")
    some = await told("?name[]=draftmark_leader")
    assert "draftmark_leader 1.0" in some
    assert "draftmark_service_replicas{" not in some
