"""A real Prometheus with the chart's rules, and what it answers."""

import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import yaml

from e2e.cluster import prometheus
from e2e.ports import free_ports
from tests.monitoring.files import RULES

#: Recorded from samples that another rule recorded, and from two scrapes of each target.
_SLOWEST: Final = "draftmark:gateway_responses:rate2m"


@contextmanager
def running(
    scrape: Sequence[Mapping[str, Any]],
    folder: Path,
    *,
    every: str = "1s",
    address: str = "127.0.0.1",
    netns: Path | None = None,
    patience_s: float = 60.0,
    until: str = f"count_over_time({_SLOWEST}[1m]) > 2",
) -> Iterator[str]:
    """A Prometheus that has scraped and recorded for a while; its URL.

    Args:
        scrape: Its `scrape_configs`.
        folder: For its configuration, data and log.
        every: Between two scrapes, and two evaluations.
        address: Where it listens.
        netns: Network namespace that it runs in. Default: the machine's.
        until: Query that has samples when everything was scraped and recorded several times.
        patience_s: Seconds until then. A guess, with room.
    """
    (port,) = free_ports(1)
    timing = {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every}
    config, log_file = folder / "prometheus.yml", folder / "log"
    config.write_text(yaml.safe_dump({"global": timing, "rule_files": [str(RULES)], "scrape_configs": [*scrape]}))
    command = [*(("nsenter", f"--net={netns}") if netns else ()), str(prometheus.server()), f"--config.file={config}"]
    command += [f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address={address}:{port}"]
    with log_file.open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            url = f"http://{address}:{port}"
            _wait(url, log_file, patience_s, until)
            yield url
        finally:
            process.terminate()
            process.wait(10)


def _wait(url: str, log: Path, patience_s: float, until: str) -> None:
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        try:
            if ask(url, until):
                return
        except httpx.HTTPError:
            pass  # it is starting
        time.sleep(0.5)
    pytest.fail(f"Prometheus has recorded nothing in {patience_s:g} s: {log.read_text()[-2000:]}")


def ask(url: str, query: str) -> list[Any]:
    """The samples that a query has now."""
    answer = httpx.get(f"{url}/api/v1/query", params={"query": query}, timeout=10, trust_env=False)
    answer.raise_for_status()
    return list(answer.json()["data"]["result"])


def failed_rules(url: str) -> list[tuple[str, str]]:
    """Name and error of each rule that could not be evaluated."""
    groups = httpx.get(f"{url}/api/v1/rules", timeout=10, trust_env=False).json()["data"]["groups"]
    assert groups
    return [(rule["name"], rule["lastError"]) for g in groups for rule in g["rules"] if rule["health"] == "err"]
