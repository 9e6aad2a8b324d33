"""What runs Helm against an API server needs one, so it is no unit test."""

from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path == Path(__file__).with_name("test_release.py"):
            item.add_marker(pytest.mark.integration)
