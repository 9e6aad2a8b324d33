"""A Prometheus that scrapes the cluster of the tests, as docs/monitoring.md says."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from e2e.cluster.choose import Own
from e2e.cluster.images import REPOSITORY
from tests.e2e.installed import Installed
from tests.monitoring.server import running


@contextmanager
def scraping(installed: Installed, folder: Path, *, every: str = "2s", patience_s: float = 60.0) -> Iterator[str]:
    """A Prometheus that has scraped for a while; its URL."""
    if not isinstance(installed.target, Own):
        pytest.skip("the pods' addresses are only in reach on a node that we made")
    cluster = installed.target.cluster
    node = urlsplit(yaml.safe_load(cluster.kubeconfig.read_text())["clusters"][0]["cluster"]["server"]).hostname
    assert node is not None
    jobs = _scrape_configs(cluster.kubeconfig)
    netns = cluster.network_namespace
    with running(jobs, folder, every=every, address=node, netns=netns, patience_s=patience_s) as url:
        yield url


def _scrape_configs(kubeconfig: Path) -> list[dict[str, Any]]:
    """Those of the documentation; only the way to the API server is put in, for this Prometheus is in no pod."""
    text = (REPOSITORY / "docs" / "monitoring.md").read_text("utf-8")
    [block] = re.findall(r"```yaml\n(scrape_configs:.*?)```", text, re.DOTALL)
    found: list[dict[str, Any]] = yaml.safe_load(block)["scrape_configs"]
    for job in found:
        for discovery in job["kubernetes_sd_configs"]:
            discovery["kubeconfig_file"] = str(kubeconfig)
    return found
