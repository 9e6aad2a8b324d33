"""Rules and dashboard by what they name: nothing that is told by nobody, nothing that nobody looks at."""

import json
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from draftmark.controller.telemetry import Telemetry
from tests.controller.test_telemetry import in_situation
from tests.monitoring.files import dashboard, dashboard_queries, metrics_in, rules
from tests.monitoring.recorded import cell, rows_of

HERE = Path(__file__).parent


def operator_metrics() -> set[str]:
    """The operator's own, from the operator."""
    telemetry = Telemetry()
    telemetry.follow_services(lambda: [in_situation("proven")])
    telemetry.follow_queue(lambda: 0, lambda: 0.0)
    telemetry.reconciles.labels("ok").observe(1)
    telemetry.observe_call("get", "Pod", 200, 1)
    text = generate_latest(telemetry.registry).decode()
    found = {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}
    return found | {family.name for family in text_string_to_metric_families(text)}


def known() -> set[str]:
    """What engines, gateways, routers and exporters tell, and the operator."""
    told = json.loads((HERE / "metrics.json").read_text("utf-8"))
    return {name for names in told.values() for name in names} | operator_metrics()


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ('sum by (a, b) (rate(x:y_total{c="d{e"}[2m])) / on (a) group_left (b) z', {"x:y_total", "z"}),
        ('label_replace(m, "pod", "$1", "other", "(.+)") or absent(n == 1)', {"m", "n"}),
        ("histogram_quantile(0.99, sum by (le) (b)) * 1024 ^ 2", {"b"}),
    ],
)
def test_the_names_in_a_query_are_found(expression: str, expected: set[str]) -> None:
    assert metrics_in(expression) == expected


def test_rules_name_only_what_exists() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    named = {name for rule in rules() for name in metrics_in(rule["expr"])}
    assert named - recorded - known() == set()


def test_dashboard_names_only_what_exists() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    named = {name for _, query in dashboard_queries() for name in metrics_in(query)}
    assert named - recorded - known() == set()


def test_what_is_recorded_is_used() -> None:
    used = {name for rule in rules() for name in metrics_in(rule["expr"])}
    used |= {name for _, query in dashboard_queries() for name in metrics_in(query)}
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    # For those who want to know whether a pod of theirs is in rotation.
    assert recorded - used == {"draftmark:router_workers_healthy"}


def test_every_alert_says_what_is_and_the_way_out() -> None:
    alerts = [rule for rule in rules() if "alert" in rule]
    assert alerts
    for alert in alerts:
        assert alert["labels"]["severity"] in {"info", "warning", "critical"}
        assert set(alert["annotations"]) == {"summary", "description"}
        assert alert["annotations"]["summary"].endswith(".")


def test_dashboard_is_whole() -> None:
    board = dashboard()
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    shown = " ".join(panel["title"] for panel in board["panels"]).lower()
    for wanted in ("first token", "tokens per second", "queue depth", "kv cache", "gpu utilization", "gpu memory",
                   "replicas", "revision", "start-up"):  # fmt: skip
        assert wanted in shown
    places = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in board["panels"]]
    assert len(places) == len(set(places))
    assert {variable["name"] for variable in board["templating"]["list"]} == {
        "datasource",
        "namespace",
        "inference_service",
    }


def test_what_a_cluster_told_is_documented_for_each_query() -> None:
    """A query that was changed is to be asked again: DRAFTMARK_RECORD=dashboard, tests/e2e/test_monitoring.py."""
    beginnings = [f"| {title} | {cell(query)} | " for title, query in dashboard_queries(namespace="e2e")]
    rows = rows_of("llama.cpp")
    assert [row[: len(start)] for row, start in zip(rows, beginnings, strict=True)] == beginnings
    other = rows_of("vLLM")
    assert other
    assert [row for row in other if not row.startswith(tuple(beginnings))] == []
