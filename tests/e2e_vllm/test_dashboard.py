"""The panels of the dashboard that vLLM alone fills, by a real Prometheus that scrapes the cluster.

With DRAFTMARK_RECORD=dashboard what each query told is written to docs/dashboard.md.
"""

import os
from pathlib import Path
from typing import Final

from tests.e2e.api import Namespace, eventually
from tests.e2e.installed import HOME, Installed
from tests.e2e.load import Load, sending
from tests.e2e.scraping import scraping
from tests.e2e.test_monitoring import RECORD
from tests.e2e_vllm.conftest import PLAIN
from tests.monitoring.files import dashboard_queries
from tests.monitoring.recorded import write
from tests.monitoring.server import ask, failed_rules

#: What its histograms and gauges become.
OF_VLLM: Final = (
    "draftmark:time_to_first_token_seconds:", "draftmark:inter_token_latency_seconds:", "draftmark:kv_cache_usage_ratio",
    "draftmark:generation_tokens:", "draftmark:prompt_tokens:", "draftmark:requests_running",
)  # fmt: skip


def test_the_panels_of_vllm_show_what_it_tells(plain: Namespace, installed: Installed, tmp_path: Path) -> None:
    url = plain.service(PLAIN)["status"]["url"]
    queries = [(t, q) for t, q in dashboard_queries(namespace=HOME) if any(name in q for name in OF_VLLM)]
    load = Load(url=url, model=PLAIN, ids="dashboard", count=0, workers=3, tokens=64, is_noise=True)
    with sending(installed.tools, load), scraping(installed, tmp_path, every="5s", patience_s=180) as prometheus:
        # NaN, as long as nothing was counted between two scrapes, is not more than 0.
        for name in ("time_to_first_token_seconds:p99", "inter_token_latency_seconds:p99", "kv_cache_usage_ratio"):
            eventually(f"{name} is told", lambda q=f"draftmark:{name} > 0": ask(prometheus, q), within_s=120)  # type: ignore[misc]
        told = {query: ask(prometheus, query) for _, query in queries}
        if os.environ.get(RECORD) == "dashboard":
            write("vLLM", [(title, query, told[query]) for title, query in queries])
        assert failed_rules(prometheus) == []
        values = {query: float(samples[0]["value"][1]) for query, samples in told.items() if len(samples) == 1}

    def value(part: str) -> float:
        [found] = [value for query, value in values.items() if part in query]
        return found

    assert set(values) == {query for _, query in queries}, "one service, and one pod of it"
    assert 0 < value("first_token_seconds:p50") <= value("first_token_seconds:p99")
    assert 0 < value("token_latency_seconds:p50") <= value("token_latency_seconds:p99")
    assert 0 < value("kv_cache_usage_ratio") < 1
    assert value("generation_tokens") > 0
    assert value("prompt_tokens") > 0
    assert 0 < value("requests_running") <= 3
