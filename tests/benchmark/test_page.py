"""docs/benchmarks.md names every reason that the code can give, with its way out."""

import re
from pathlib import Path

import yaml

from draftmark.api.benchmark import BenchmarkSpec

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "benchmarks.md").read_text("utf-8")
SOURCES = [
    *(ROOT / "operator" / "draftmark" / "benchmark").glob("*.py"),
    ROOT / "operator" / "draftmark" / "machines" / "benchmark.py",
]


def codes() -> set[str]:
    text = "\n".join(file.read_text("utf-8") for file in SOURCES)
    named = re.findall(r'code="([A-Z][A-Za-z]+)"', text)
    return {*named, *re.findall(r'code, what = "([A-Z][A-Za-z]+)"', text)}


def test_every_reason_is_in_the_page() -> None:
    rows = {name for row in re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert len(codes()) >= 25
    assert codes() - rows == set()


def test_examples_of_the_page_are_valid() -> None:
    first, dataset = (yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
    assert BenchmarkSpec.model_validate(first["spec"], extra="forbid").target.service == "llama"
    BenchmarkSpec.model_validate({"target": {"service": "llama"}, **dataset}, extra="forbid")
