"""The gateway's metrics mean what the recording rules take them for."""

import asyncio
from pathlib import Path

from draftmark.render.gateway_config import Backend, GatewayConfig
from tests.gateway.conftest import Gateway, until
from tests.gateway.stand_in import StandIn, send

PATH = "/v1/chat/completions"
SCRAPED = Path(__file__).parents[1] / "monitoring" / "scraped" / "gateway.txt"


async def metrics(gateway: Gateway) -> dict[str, float]:
    """Values by name and labels, as HAProxy writes them."""
    answer = await send(gateway.place.metrics_port, "/metrics")
    lines = [line for line in answer.body.decode().splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


async def test_what_waits_and_what_runs_can_be_told_apart(gateway: Gateway, stand_in: StandIn) -> None:
    backend = Backend(revision="a0b1c2d3", address="127.0.0.1", port=stand_in.port, limit=2, queue=8, weight=100)
    gateway.mount(GatewayConfig(backends=(backend,), queue_timeout_s=30, request_timeout_s=30))
    await gateway.start()
    asked = [asyncio.create_task(send(gateway.place.port, PATH, {"model": "m", "id": i})) for i in range(5)]

    async def has_all() -> bool:
        return (await metrics(gateway))['haproxy_backend_current_sessions{proxy="rev_a0b1c2d3"}'] == 5

    await until(has_all)
    told = await metrics(gateway)
    assert told['haproxy_backend_current_queue{proxy="rev_a0b1c2d3"}'] == 3
    # What the tests of the dashboard work with is what it tells.
    recorded = [line for line in SCRAPED.read_text().splitlines() if not line.startswith("#")]
    assert {line.rpartition(" ")[0] for line in recorded} <= told.keys()
    stand_in.release.set()
    assert [answer.status for answer in await asyncio.gather(*asked)] == [200] * 5
    answered = (await metrics(gateway))['haproxy_frontend_http_responses_total{proxy="public",code="2xx"}']
    assert answered == 5
