"""Pages of metrics to readings."""

import asyncio

import pytest
from aiohttp import web

from draftmark.benchmark_runner import engine_metrics
from draftmark.benchmark_runner.engine_metrics import EngineMetrics, reading_of, values_of
from draftmark.measure.order import Counters
from tests.model_facts_reader.hub import FakeHub, endless

NAMES = {"running": "vllm:num_requests_running", "output_tokens": "vllm:generation_tokens_total", "kv_use": "vllm:kv"}
PAGE = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a} 7"} 2.0
vllm:num_requests_running{engine="1",model_name="a"} 3.0
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0"} 1.5e+06
vllm:generation_tokens_total_created{engine="0"} 1.7e+09
vllm:kv{engine="0"} 0.25
vllm:kv{engine="1"} 0.5
vllm:other_bucket{le="0.1"} 9
"""


def test_labels_are_summed_and_use_is_the_highest() -> None:
    assert values_of(PAGE, NAMES) == {"running": 5.0, "output_tokens": 1.5e6, "kv_use": 0.5}


@pytest.mark.parametrize("page", ["", "<html>no metrics</html>", 'vllm:num_requests_running{a="} 1', "vllm:kv"])
def test_what_is_no_metric_is_not_told(page: str) -> None:
    assert values_of(page, NAMES) == {}


def test_a_sum_with_a_pod_missing_is_no_sum() -> None:
    pods = [{"running": 1.0, "kv_use": 0.2, "started": 5.0}, {"running": 2.0, "kv_use": 0.1}]
    reading = reading_of(pods, at=7.0)
    assert (reading.at, reading.running, reading.kv_use, reading.started) == (7.0, 3.0, 0.2, None)
    assert reading_of([], at=1.0).running is None


@pytest.mark.parametrize("restarted", [0, 1])
def test_a_restart_of_either_pod_is_a_change(restarted: int) -> None:
    """Of the newer one: the first start of all stays. Of the older one where the clocks of two nodes do not agree: so does the
    last."""
    started = [1795765286.74, 1795769000.5]
    before = reading_of([{"started": at} for at in started], at=1.0).started
    started[restarted] += 3000.0
    after = reading_of([{"started": at} for at in started], at=2.0).started
    assert before is not None
    assert after is not None
    assert after - before == pytest.approx(3000.0)


async def test_pods_are_asked_and_silence_is_no_error() -> None:
    async def metrics(request: web.Request) -> web.Response:
        if request.match_info["pod"] == "moved":
            raise web.HTTPFound("/one/metrics")
        return web.Response(text=PAGE)

    app = web.Application()
    app.router.add_get("/{pod}/metrics", metrics)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        base = f"http://127.0.0.1:{runner.addresses[0][1]}"
        counters = Counters(**NAMES)
        async with EngineMetrics([f"{base}/one/metrics", f"{base}/two/metrics"], counters) as both:
            before = asyncio.get_running_loop().time()
            reading = await both.read()
            assert (reading.running, reading.kv_use) == (10.0, 0.5)
            assert before <= reading.at <= asyncio.get_running_loop().time()
        for silent in ("http://127.0.0.1:1/metrics", f"{base}/moved/metrics", "http://[x/metrics"):
            async with EngineMetrics([f"{base}/one/metrics", silent], counters) as one:
                assert (await one.read()).running is None
    finally:
        await runner.cleanup()


@pytest.mark.timeout(20)
async def test_a_page_that_comes_byte_by_byte_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_metrics, "ANSWER_S", 0.3)
    async with (
        FakeHub(instead={"": endless(b" ", pause_s=0.05)}).serving() as server,
        EngineMetrics([f"{server.url}/metrics"], Counters(**NAMES)) as one,
    ):
        assert (await one.read()).running is None
