"""A status that cannot be written now is not one that nobody wants any more."""

import pytest

from draftmark.cluster.client import ApiClient
from draftmark.cluster.credentials import Credentials
from draftmark.cluster.errors import Conflict
from draftmark.cluster.kinds import EVENTS, INFERENCE_SERVICES
from draftmark.controller.writing import StatusWriter, write_status
from tests.controller.conftest import Json, service
from tests.fake_api import FakeApi, fake_api
from tests.specs import T0

__all__ = ["fake_api"]

STATUS: Json = {"observedGeneration": 1, "conditions": []}


def serving(message: str) -> Json:
    ready = {"type": "Ready", "status": "True", "reason": "Serving", "message": message}
    return {"observedGeneration": 1, "conditions": [ready]}


async def write(api: FakeApi, item: Json, status: Json = STATUS) -> Json | None:
    async with ApiClient(Credentials.plain(api.url)) as client:
        found = await write_status(client, INFERENCE_SERVICES, item, status, T0)
        return dict(found) if found is not None else None


async def test_it_is_written_once(fake_api: FakeApi) -> None:
    item = fake_api.add(INFERENCE_SERVICES, service())
    written = await write(fake_api, item)
    assert written is not None
    assert written["status"] == STATUS
    assert await write(fake_api, written) == written
    assert fake_api.count("patch", INFERENCE_SERVICES) == 1


async def test_a_conflict_of_an_object_that_is_there_is_tried_again(fake_api: FakeApi) -> None:
    item = fake_api.add(INFERENCE_SERVICES, service())
    fake_api.fault(verb="patch", kind=INFERENCE_SERVICES, times=1, status=409, reason="Conflict", message="busy")
    with pytest.raises(Conflict):
        await write(fake_api, item)


async def test_an_object_that_is_gone_or_another_one_wants_no_status(fake_api: FakeApi) -> None:
    item = fake_api.add(INFERENCE_SERVICES, service())
    fake_api.remove(INFERENCE_SERVICES, "llama")
    assert await write(fake_api, item) is None
    fake_api.add(INFERENCE_SERVICES, service())
    fake_api.fault(verb="patch", kind=INFERENCE_SERVICES, times=1, status=409, reason="Conflict", message="uid")
    assert await write(fake_api, item) is None


async def test_a_status_that_is_changed_back_all_the_time_is_written_less_and_less(fake_api: FakeApi) -> None:
    """By an operator that was installed twice; a write that has failed is no such change."""
    item, seconds, waits = fake_api.add(INFERENCE_SERVICES, service()), [0.0], list[float]()
    other = {**item, "status": {"by": "the other one"}}

    def mine() -> Json:
        [ready] = serving("1 of 1 replicas serve.")["conditions"]
        return {**STATUS, "conditions": [{**ready, "lastTransitionTime": str(seconds[0])}]}

    async with ApiClient(Credentials.plain(fake_api.url)) as client:
        writer = StatusWriter[str](
            client, INFERENCE_SERVICES, lambda _, wait_s: waits.append(wait_s), clock=lambda: seconds[0]
        )
        fake_api.fault(verb="patch", kind=INFERENCE_SERVICES, times=5, status=409, reason="Conflict")
        for _ in range(5):
            with pytest.raises(Conflict):
                await writer.write("llama", other, mine(), T0)
        for second in range(150):
            seconds[0] = float(second)
            await writer.write("llama", other, mine(), T0)
    assert fake_api.count("patch", INFERENCE_SERVICES) - 5 == 4 + 3, (
        "three are repaired at once, then after 10, 20 and 40 s"
    )
    assert waits[0] == 10.0


async def test_a_transition_is_told_once_although_its_words_have_changed(fake_api: FakeApi) -> None:
    """A process died between the Event and the status, and until the next one looks another replica is ready."""
    item = fake_api.add(INFERENCE_SERVICES, service())
    fake_api.fault(verb="patch", kind=INFERENCE_SERVICES, status=409, reason="Conflict")
    with pytest.raises(Conflict):
        await write(fake_api, item, serving("1 of 3 replicas serve."))
    written = await write(fake_api, item, serving("2 of 3 replicas serve."))
    assert len(fake_api.storage.objects[EVENTS]) == 1
    # Another reason, and another generation, are told.
    assert written is not None
    stalled = {"type": "Stalled", "status": "True", "reason": "NameConflict", "message": "No."}
    await write(fake_api, written, {"observedGeneration": 1, "conditions": [stalled]})
    assert len(fake_api.storage.objects[EVENTS]) == 2
    later = {**item, "metadata": {**item["metadata"], "generation": 2}}
    await write(fake_api, later, serving("2 of 3 replicas serve."))
    assert len(fake_api.storage.objects[EVENTS]) == 3
