"""A real Prometheus that scrapes the cluster as docs/monitoring.md says: what the dashboard would show, and the alerts.

With DRAFTMARK_RECORD=dashboard what each query told is written to docs/dashboard.md.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import pytest

from draftmark.cluster.kinds import INFERENCE_SERVICES
from tests.e2e.api import Namespace, eventually
from tests.e2e.flow import current_revision, standin_service
from tests.e2e.installed import HOME, Client, Installed, inference_service
from tests.e2e.load import Load, sending
from tests.e2e.scraping import scraping
from tests.monitoring.files import dashboard_queries
from tests.monitoring.recorded import write
from tests.monitoring.server import ask, failed_rules

RECORD: Final = "DRAFTMARK_RECORD"
#: Panels that show nothing here: llama.cpp tells neither histograms nor its KV cache, and there is no GPU.
UNTOLD: Final = (
    "draftmark:time_to_first_token_seconds:",
    "draftmark:inter_token_latency_seconds:",
    "draftmark:kv_cache_usage_ratio",
    "draftmark:gpu_",
)
QUERIES: Final = list(dashboard_queries(namespace=HOME))
BUSY, REFUSED = "watched", "watched-refused"
#: Requests at once that the busy service's one pod takes, and clients that want to.
PLACES, CLIENTS = 2, 6


@dataclass(frozen=True, slots=True)
class Watched:
    """What Prometheus told while the services were busy."""

    url: str
    #: Samples by query.
    told: Mapping[str, list[Any]]


@pytest.fixture(scope="module")
def watched(
    home: Namespace, installed: Installed, client: Client, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Watched]:
    home.apply(
        standin_service(
            installed, BUSY, behaviour={"TOKEN_MS": 50}, workload={"concurrency": PLACES}, traffic={"queueTimeout": "60s"}
        ),
        inference_service(REFUSED, engine={"args": ["--flash-atn", "on"]}),
    )  # fmt: skip
    home.wait_until_settled("good")
    url = home.wait_until_settled(BUSY)["status"]["url"]
    real = home.service("good")["status"]["url"]
    busy = Load(url=url, model=BUSY, ids="watched", count=0, workers=CLIENTS, tokens=20)
    noise = Load(url=real, model="good", ids="good", count=0, workers=1, tokens=16, is_noise=True)
    with (
        sending(installed.tools, busy),
        sending(installed.tools, noise),
        scraping(installed, tmp_path_factory.mktemp("prometheus")) as prometheus,
    ):
        for name in (BUSY, "good"):
            query = f'draftmark:generation_tokens:rate2m{{inference_service="{name}"}} > 0'
            eventually(f"tokens of {name} are counted", lambda q=query: ask(prometheus, q), within_s=40)  # type: ignore[misc]
        # An operator at rest reconciles nothing, and then has no duration of it.
        home.edit(REFUSED, workload={"concurrency": 3})
        p99 = "histogram_quantile(0.99, sum by (le) (rate(draftmark_reconcile_seconds_bucket[5m]))) > 0"
        eventually("a reconcile is counted", lambda: ask(prometheus, p99), within_s=40)
        told = {query: ask(prometheus, query) for _, query in QUERIES}
        if os.environ.get(RECORD) == "dashboard":
            write("llama.cpp", [(title, query, told[query]) for title, query in QUERIES])
        yield Watched(prometheus, told)
    for name in (BUSY, REFUSED):
        home.api.delete(INFERENCE_SERVICES, HOME, name)


def _value(url: str, query: str) -> float | None:
    found = ask(url, query)
    assert len(found) <= 1, found
    return float(found[0]["value"][1]) if found else None


def is_untold(query: str) -> bool:
    return any(name in query for name in UNTOLD)


def test_every_target_of_the_documented_configuration_is_up(watched: Watched, home: Namespace) -> None:
    # Pods of earlier tests may be on their way out, and no answer of theirs is expected.
    eventually("every target is up", lambda: not ask(watched.url, "up == 0"), within_s=45)
    roles = {sample["metric"]["role"] for sample in ask(watched.url, f'up{{inference_service="{BUSY}"}}')}
    assert roles == {"engine", "gateway", "router"}
    assert len(ask(watched.url, 'up{job="draftmark-operator"}')) == 2


def test_no_rule_fails_in_the_cluster(watched: Watched) -> None:
    assert failed_rules(watched.url) == []


@pytest.mark.parametrize(("title", "query"), QUERIES)
def test_a_panel_shows_what_the_cluster_tells(watched: Watched, title: str, query: str) -> None:
    assert bool(watched.told[query]) is not is_untold(query), f"{title}: {query}: {watched.told[query]}"


def test_what_is_shown_is_what_is(watched: Watched, home: Namespace) -> None:
    def value(query: str) -> float | None:
        return _value(watched.url, query.replace("@", f'namespace="{HOME}", inference_service="{BUSY}"'))

    status = home.service(BUSY)["status"]
    revision = current_revision(home, BUSY)
    assert value("draftmark_service_replicas{@}") == 1
    assert value("draftmark_service_ready_replicas{@}") == 1
    assert value(f'draftmark_revision_weight{{@, revision="{revision}"}}') == 100
    assert value('draftmark_service_condition{@, condition="Ready"}') == 1
    assert value('draftmark_service_startup_seconds{@, stage="total"}') == status["startup"]["totalSeconds"]
    assert value("draftmark_service_engine_restarts{@}") == 0
    assert value("max(draftmark_leader)") == 1
    # As many as find a place are in flight, and the rest waits at the gateway; a client may be between two requests.
    most = CLIENTS - PLACES
    assert most - 2 <= (value("avg_over_time(draftmark:queue_depth{@}[20s])") or 0) <= most
    assert PLACES - 1 < (value("avg_over_time(draftmark:gateway_requests_in_flight{@}[20s])") or 0) <= PLACES
    # Two places with a token each 50 ms: 40 a second at most, less what lies between two requests. What a busy engine tells late is
    # counted at the time at which it was asked: a second of twenty is 5 %.
    rate = value("sum(rate(llamacpp:tokens_predicted_total{@}[20s]))") or 0
    assert 10 < rate <= 44
    # Good answers and no others.
    codes = ask(watched.url, f'draftmark:gateway_responses:rate2m{{inference_service="{BUSY}"}} > 0')
    assert {sample["metric"]["code"] for sample in codes} == {"2xx"}


def test_a_refused_service_raises_its_alert_and_a_good_one_none(watched: Watched) -> None:
    def alerts() -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for sample in ask(watched.url, f'ALERTS{{namespace="{HOME}"}}'):
            found.setdefault(sample["metric"]["inference_service"], set()).add(sample["metric"]["alertname"])
        return found

    eventually("its alerts are pending", lambda: len(alerts().get(REFUSED, ())) >= 2, within_s=20)
    assert alerts()[REFUSED] == {"DraftmarkServiceStalled", "DraftmarkServiceNotReady", "DraftmarkServiceUnavailable"}
    assert "good" not in alerts()
    assert ask(watched.url, 'ALERTS{alertname="DraftmarkNoLeader"}') == []
