"""The rules by promtool, and the dashboard's queries by a Prometheus that scrapes what the parts of a service tell."""

import subprocess
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from prometheus_client import generate_latest

from draftmark.controller.telemetry import ServiceSeen, Telemetry
from e2e.cluster import prometheus
from tests.controller.test_telemetry import in_situation
from tests.monitoring.files import RULES, dashboard_queries
from tests.monitoring.server import ask, failed_rules, running

HERE = Path(__file__).parent


def promtool(*arguments: str) -> None:
    done = subprocess.run([str(prometheus.promtool()), *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_rules_are_rules() -> None:
    promtool("check", "rules", str(RULES))


def test_rules_make_and_tell_what_they_should() -> None:
    promtool("test", "rules", str(HERE / "rules_test.yaml"))


@cache  # made for each scrape it took longer than a scrape may, on a busy machine
def operator_text() -> bytes:
    """What the operator tells of a service in a rollout that measured its start."""
    seen = in_situation("proven, and one old pod may go")
    startup = {
        "revision": "a0b1c2d3",
        "scheduleSeconds": 1,
        "imageSeconds": 40,
        "loadSeconds": 300,
        "totalSeconds": 341,
    }
    stalled = in_situation("crash loop")
    other = {**stalled.service, "metadata": {**stalled.service["metadata"], "name": "broken"}}
    services = [ServiceSeen({**seen.service, "status": {**seen.service["status"], "startup": startup}}, seen.restarts),
                ServiceSeen(other, stalled.restarts)]  # fmt: skip
    telemetry = Telemetry()
    telemetry.leader.set(1)
    telemetry.follow_queue(lambda: 1, lambda: 0.5)
    telemetry.reconciles.labels("ok").observe(0.01)
    telemetry.follow_services(lambda: services)
    return generate_latest(telemetry.registry)


class _Texts(BaseHTTPRequestHandler):
    """One path for each text."""

    def do_GET(self) -> None:
        name = self.path.strip("/")
        body = operator_text() if name == "operator" else (HERE / "scraped" / f"{name}.txt").read_bytes()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


#: The labels that the chart's monitors set, by the text.
TARGETS = {
    "operator": {},
    "vllm": {"role": "engine", "inference_service": "tiny", "revision": "a0b1c2d3", "pod": "tiny-engine-1"},
    "sglang": {"role": "engine", "inference_service": "third", "revision": "0000cafe", "pod": "third-engine-1"},
    "llama-cpp": {"role": "engine", "inference_service": "small", "revision": "0000beef", "pod": "small-engine-1"},
    "gateway": {"role": "gateway", "inference_service": "tiny", "pod": "tiny-gateway-1"},
    "router": {"role": "router", "inference_service": "tiny", "revision": "a0b1c2d3", "pod": "tiny-router-1"},
    "dcgm": {"pod": "dcgm-1"},
}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus that has scraped and recorded for a while."""
    folder = tmp_path_factory.mktemp("prometheus")
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Texts)
    Thread(target=server.serve_forever, daemon=True).start()
    scrape = [
        {
            "job_name": name,
            "metrics_path": f"/{name}",
            "honor_labels": name == "operator",
            "static_configs": [
                {"targets": [f"127.0.0.1:{server.server_address[1]}"], "labels": {"namespace": "models", **labels}}
            ],
        }
        for name, labels in TARGETS.items()
    ]
    with closing(server.socket), running(scrape, folder) as found:
        yield found
        server.shutdown()


def test_no_rule_fails(url: str) -> None:
    assert failed_rules(url) == []


@pytest.mark.parametrize(("title", "query"), list(dashboard_queries()))
def test_every_panel_shows_something(url: str, title: str, query: str) -> None:
    assert ask(url, query), f"{title}: {query}"


def test_values_are_those_that_were_scraped(url: str) -> None:
    def value(query: str) -> float:
        [sample] = ask(url, query)
        return float(sample["value"][1])

    # Two wait in the engine and three at the gateway.
    assert value('draftmark:queue_depth{inference_service="tiny"}') == 5
    # Three wait in SGLang, and one for its grammar.
    assert value('draftmark:requests_waiting{inference_service="third"}') == 4
    assert value('draftmark:kv_cache_usage_ratio{inference_service="third"}') == 0.75
    assert value('draftmark:gpu_utilization_ratio{inference_service="tiny"}') == 0.8
    assert value('draftmark:gateway_requests_in_flight{inference_service="tiny"}') == 2
    assert value('draftmark_service_condition{inference_service="broken", condition="Stalled"}') == 1
