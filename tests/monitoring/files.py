"""The rules and the dashboard of the chart, and which metrics their queries name."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

CHART: Final = Path(__file__).parents[2] / "charts" / "draftmark"
RULES: Final = CHART / "files" / "monitoring" / "rules.yaml"
DASHBOARD: Final = CHART / "files" / "monitoring" / "dashboard.json"

_WORDS: Final = {
    "by",
    "on",
    "or",
    "and",
    "unless",
    "ignoring",
    "without",
    "group_left",
    "group_right",
    "bool",
    "offset",
}


def rules() -> list[dict[str, Any]]:
    """All rules of all groups."""
    groups = yaml.safe_load(RULES.read_text("utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    """Grafana's file."""
    loaded: dict[str, Any] = json.loads(DASHBOARD.read_text("utf-8"))
    return loaded


def dashboard_queries(*, namespace: str = ".*", inference_service: str = ".*") -> Iterator[tuple[str, str]]:
    """Title of the panel and query, with what is chosen as a regular expression."""
    chosen = {"namespace": namespace, "inference_service": inference_service}
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], re.sub(r"\$(\w+)\b", lambda found: chosen[found[1]], target["expr"])


def metrics_in(expression: str) -> set[str]:
    """The metrics that a query names: what is left without strings, selectors, groupings, ranges and functions."""
    text = re.sub(r'"[^"]*"', '""', expression)
    text = re.sub(r"\{[^}]*\}", " ", text)
    text = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", text)
    text = re.sub(r"\[[^\]]*\]", " ", text)
    names = set(re.findall(r"(?<![\w:.])([A-Za-z_:][\w:]*)(?!\s*\()(?![\w:])", text))
    return names - _WORDS
