"""What runs promtool or Prometheus needs them unpacked, so it is no unit test."""

from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path == Path(__file__).with_name("test_prometheus.py"):
            item.add_marker(pytest.mark.integration)
