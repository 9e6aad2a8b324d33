"""vLLM and llama.cpp with the same model on the same node, compared by a Benchmark, with its report.

That the tool works is shown here, and nothing about the engines: a small model of random weights on one shared core each says
nothing of what either does with a real model on real hardware.
"""

import asyncio
import csv
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from draftmark.api import names
from draftmark.cluster.kinds import BENCHMARKS, CONFIG_MAPS, INFERENCE_SERVICES, PODS
from draftmark.measure.report import CSV_COLUMNS
from draftmark.measure.result import Result, Row
from e2e.browser import browser
from e2e.cluster.progress import step
from tests.e2e import run
from tests.e2e.api import Json, Namespace, eventually
from tests.e2e.installed import HOME, Client, Installed, inference_service
from tests.e2e_vllm.conftest import SMALL, SMALL_GGUF, START_S, VERSION, vllm_service

LLAMA: Final = "by-llama-cpp"
VLLM: Final = "by-vllm"
ENGINES: Final = {"target": "llama-cpp", "compared": "vllm"}
#: One request at a time, and few tokens: with more, load generator and engines would fight for two cores. A block ends when
#: it has so many answers, however slow the machine is.
ROUNDS, ANSWERS, PROMPT, OUTPUT = 6, 8, 32, 32
#: A row may be refused because others used the cores as well. It shows no number then, and is measured again.
TRIES: Final = 2
COMPARE_S: Final = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A comparison that came to its end."""

    name: str
    folder: Path
    """Of what is kept."""
    printed: str
    benchmark: Json
    result: Result

    @property
    def rows(self) -> dict[str, Row]:
        """By target."""
        return {row.target: row for row in self.result.rows}


@pytest.fixture(scope="module")
def both(
    home: Namespace, installed: Installed, vllm: str, measured: list[str], request: pytest.FixtureRequest
) -> Iterator[Namespace]:
    """The namespace with a service of each engine."""
    image = installed.image_uri.partition("#")[0]
    # No limit, so that no quota stops them in the middle; each computes with one thread.
    resources = {"requests": {"cpu": "50m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}}
    home.apply(
        vllm_service(
            installed,
            vllm,
            VLLM,
            model={"uri": f"{image}#{SMALL}", "maxContextLength": 1024},
            workload={"concurrency": 2},
        ),
        inference_service(
            LLAMA,
            model={"uri": f"{image}#{SMALL_GGUF}", "maxContextLength": 1024},
            engine={"resources": resources},
        ),
    )
    began = time.monotonic()
    with run.speaking(request), step("starting vLLM and llama-server", slow=True):
        for name in (LLAMA, VLLM):
            home.wait_until_settled(name, within_s=START_S)
    measured.append(
        f"vLLM and llama-server with the small model, from apply to Ready: {time.monotonic() - began:.0f} s"
    )
    yield home
    for name in (LLAMA, VLLM):
        installed.api.delete(INFERENCE_SERVICES, HOME, name)
    # Other tests measure how long something takes.
    eventually(
        "the engines are gone",
        lambda: not [pod for name in (LLAMA, VLLM) for pod in home.api.list(PODS, HOME, **{names.LABEL_SERVICE: name})],
        within_s=300,
    )


@pytest.fixture(scope="module")
def compared(both: Namespace, tmp_path_factory: pytest.TempPathFactory, measured: list[str]) -> Compared:
    """What `draftmark compare` made of the two."""
    folder = tmp_path_factory.mktemp("compare")
    for number in range(TRIES):
        found = _compare(both, f"engines-{number}", folder)
        refusals = [row.refusal for row in found.result.rows if row.refusal is not None]
        if not refusals or any(refusal.is_failure for refusal in refusals):
            break
        measured.append(f"refused: {'; '.join(f'{refusal.code}: {refusal.message}' for refusal in refusals)}")
    measured.append(f"vLLM against llama.cpp: the result and its reports are in {folder}")
    return found


def _compare(namespace: Namespace, name: str, folder: Path) -> Compared:
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(_benchmark(name)), "utf-8")
    printed = draftmark(namespace, "compare", f"--filename={file}", status=None)
    benchmark = namespace.api.get(BENCHMARKS, namespace.name, name)
    assert benchmark is not None, printed
    kept = namespace.api.get(CONFIG_MAPS, namespace.name, names.benchmark_result_name(name))
    assert kept is not None, printed
    assert "result" in kept["data"], printed
    text = kept["data"]["result"]
    (folder / "result.json").write_text(text, "utf-8")
    result = Result.model_validate_json(text)
    return Compared(name=name, folder=folder, printed=printed, benchmark=benchmark, result=result)


def _benchmark(name: str) -> Json:
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.BENCHMARK_KIND,
        "metadata": {"name": name},
        "spec": {
            "target": {"service": LLAMA, "allowUserTraffic": True},
            "compare": {"target": {"service": VLLM, "allowUserTraffic": True}, "rounds": ROUNDS},
            "workloads": [{"name": "short", "promptTokens": PROMPT, "outputTokens": OUTPUT}],
            "concurrency": [1],
            "warmUp": "5s",
            "requests": ANSWERS,
            # Not above what is free beside the engines; when there is too little, it says so.
            "resources": {"requests": {"cpu": "200m", "memory": "256Mi"}},
            "notes": "A model of random weights, one thread for each engine, on two shared cores: a test of the tool.",
        },
    }


def draftmark(namespace: Namespace, *words: str, status: int | None = 0) -> str:
    """Run the command line, and return what it prints.

    Args:
        status: That it must end with; None: any.
    """
    command = [sys.executable, "-m", "draftmark.cli", *words, f"--namespace={namespace.name}"]
    command += [f"--kubeconfig={namespace.tools.kubeconfig}"]
    done = subprocess.run(command, text=True, capture_output=True, timeout=COMPARE_S)
    assert status in (None, done.returncode), done.stdout + done.stderr
    return done.stdout + (done.stderr if status is None else "")


def test_both_engines_answer_a_prompt_alike(both: Namespace, client: Client) -> None:
    """They have the same weights and the same tokenizer: with others the first token already differs.

    For each of these tokens the best logit leads by 0.9 or more, and for the next one by 0.3 only: bfloat16 may decide there.
    """
    said = {}
    for name in (LLAMA, VLLM):
        asked = {"model": name, "prompt": "the hello is what you are", "max_tokens": 6, "temperature": 0}
        [(status, _, text)] = client.ask(both.service(name)["status"]["url"], ("/v1/completions", asked))
        assert status == 200, text
        answer = json.loads(text)
        said[name] = (answer["usage"]["prompt_tokens"], answer["choices"][0]["text"])
    assert said[LLAMA] == said[VLLM]


def test_both_are_measured_and_compared(compared: Compared, measured: list[str]) -> None:
    assert {label: row.refusal for label, row in compared.rows.items()} == dict.fromkeys(ENGINES), compared.printed
    assert compared.result.refusal is None
    for label, row in compared.rows.items():
        assert row.errors == 0
        assert row.samples >= ROUNDS * ANSWERS
        assert (row.prompt_tokens, row.output_tokens) == (PROMPT, OUTPUT)
        measured.append(_line(ENGINES[label], row))
    assert [d.metric for d in compared.result.differences] == ["ttft", "itl", "e2e", "output_tokens_per_second"]
    for difference in compared.result.differences:
        assert difference.low_percent <= difference.percent <= difference.high_percent
        measured.append(
            f"  vllm against llama-cpp, {difference.metric}: {difference.verdict}, {difference.percent:+.1f} % "
            f"({difference.low_percent:+.1f} to {difference.high_percent:+.1f})"
        )
    (winner,) = compared.result.winners
    measured.append(f"  {winner.message}")
    is_open = all(difference.verdict == "Inconclusive" for difference in compared.result.differences)
    assert compared.benchmark["status"]["phase"] == ("Inconclusive" if is_open else "Succeeded")


def _line(engine: str, row: Row) -> str:
    def of(value: Any) -> str:
        return f"{value.value:.3g}" if value is not None else "TBD"

    assert row.ttft is not None
    assert row.itl is not None
    assert row.e2e is not None
    return (
        f"{engine}, small model, concurrency 1, {row.samples} answers: TTFT p50 {of(row.ttft.p50)} ms, ITL p50 "
        f"{of(row.itl.p50)} ms, E2E p50 {of(row.e2e.p50)} ms, {of(row.output_tokens_per_second)} tokens/s, load generator's "
        f"CPU {row.client_cpu_percent or 0:.0f} %"
    )


def test_the_report_names_both_with_their_versions(both: Namespace, compared: Compared) -> None:
    facts = {target.label: target.facts for target in compared.result.targets}
    assert {label: fact.engine for label, fact in facts.items()} == ENGINES
    assert facts["compared"].version == VERSION

    text = draftmark(both, "report", compared.name)
    (compared.folder / "report.md").write_text(text, "utf-8")
    for fact in facts.values():
        assert f"{fact.engine}" in text
        assert f"{fact.version}" in text

    table = draftmark(both, "report", compared.name, "--csv")
    (compared.folder / "report.csv").write_text(table, "utf-8")
    lines = list(csv.DictReader(StringIO(table)))
    assert list(lines[0]) == list(CSV_COLUMNS)
    assert [(line["engine"], line["version"]) for line in lines] == [(f.engine, f.version) for f in facts.values()]
    assert all(float(line["ttft_ms"]) > 0 and float(line["tok_per_s"]) > 0 for line in lines)

    page = compared.folder / "report.html"
    draftmark(both, "report", compared.name, f"--html={page}")
    seen, shown = asyncio.run(_opened(page))
    assert (seen.requests, seen.complaints) == ((page.as_uri(),), ())
    for fact in facts.values():
        assert f"{fact.engine}" in shown
        assert f"{fact.version}" in shown


async def _opened(page: Path) -> tuple[Any, str]:
    async with browser() as tab:
        seen = await tab.open(page)
        assert await tab.evaluate("document.querySelectorAll('figure svg').length") > 0
        return seen, str(await tab.evaluate("document.body.textContent"))
