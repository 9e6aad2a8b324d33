"""docs/benchmarks.md names every reason that the code can give, with its way out; docs/statistics.md those of the measurement."""

import re
from pathlib import Path

import yaml

from draftmark.api.benchmark import BenchmarkSpec

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "benchmarks.md").read_text("utf-8")
RUNNER = ROOT / "operator" / "draftmark" / "benchmark_runner"
SOURCES = [
    *(ROOT / "operator" / "draftmark" / "benchmark").glob("*.py"),
    ROOT / "operator" / "draftmark" / "machines" / "benchmark.py",
]


def codes() -> set[str]:
    text = "\n".join(file.read_text("utf-8") for file in SOURCES)
    named = re.findall(r'code="([A-Z][A-Za-z]+)"', text)
    return {*named, *re.findall(r'code, what = "([A-Z][A-Za-z]+)"', text)}


def refusals() -> set[str]:
    """What the load generator refuses a run with."""
    text = "\n".join(file.read_text("utf-8") for file in RUNNER.glob("*.py"))
    ways = (r'RunRefused\(\s*"(\w+)"', r'Refusal\(\s*code="(\w+)"', r'^CODE: Final = "(\w+)"')
    # Any other way to name one is to be added here.
    assert set(re.findall(r"(?:RunRefused|ReadingEnds|Refusal)\(\s*([^\s\"=)][^,=)]*)[,)]", text)) <= {
        "CODE",
        "Exception",
    }
    return {code for way in ways for code in re.findall(way, text, re.MULTILINE)}


def rows(page: str) -> set[str]:
    return {name for row in re.findall(r"^\| (`.*?) \|", page, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}


def test_every_reason_is_in_the_page() -> None:
    assert len(codes()) >= 25
    assert codes() - rows(PAGE) == set()


def test_every_refusal_of_the_load_generator_is_with_the_others() -> None:
    assert refusals() >= {"ModelMissing", "ResultTooLarge", "TokenizerUnavailable"}
    assert refusals() - rows((ROOT / "docs" / "statistics.md").read_text("utf-8")) == set()


def test_examples_of_the_page_are_valid() -> None:
    first, dataset = (yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
    assert BenchmarkSpec.model_validate(first["spec"], extra="forbid").target.service == "llama"
    BenchmarkSpec.model_validate({"target": {"service": "llama"}, **dataset}, extra="forbid")
