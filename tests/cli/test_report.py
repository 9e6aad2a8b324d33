"""`report`: from files and from the cluster, and what it does not take for a result."""

import re
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest
from click.testing import CliRunner
from click.testing import Result as Ran

from draftmark.cli import main
from draftmark.cluster.kinds import BENCHMARKS, CONFIG_MAPS
from draftmark.measure.report import csv_text, markdown
from draftmark.measure.result import Result
from tests.cli import benchmarks
from tests.cli.conftest import Commands
from tests.cli.world import NAMESPACE, Json
from tests.measure.results import failed, one_run, other_run, result


def run(*words: str, stdin: str = "") -> Ran:
    ran = CliRunner().invoke(main, ["report", *words], input=stdin, env={"KUBECONFIG": "/nowhere"})
    assert ran.exception is None or isinstance(ran.exception, SystemExit), ran.exception
    return ran


def text_of(document: Result) -> str:
    return document.model_dump_json(by_alias=True, exclude_none=True)


def test_results_in_files_need_no_cluster(tmp_path: Path) -> None:
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    for file, each in zip(files, (one_run(), other_run()), strict=True):
        file.write_text(text_of(each), "utf-8")
    words = [word for file in files for word in ("-f", str(file))]
    assert run(*words).stdout == markdown([one_run(), other_run()])
    assert run(*words, "--csv").stdout == csv_text([one_run(), other_run()])


def test_a_result_on_stdin() -> None:
    assert run("-f", "-", stdin=text_of(one_run())).stdout == markdown([one_run()])


def test_a_page_is_written_and_said_to_be(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    ran = run("-f", "-", "--html", str(file), stdin=text_of(one_run()))
    assert (ran.exit_code, ran.stdout, ran.stderr) == (0, "", f"wrote {file}\n")
    assert file.read_text("utf-8").startswith("<!DOCTYPE html>")
    ran = run("-f", "-", "--html", str(tmp_path / "no" / "x"), stdin=text_of(one_run()))
    assert (ran.exit_code, "No such file" in ran.stderr) == (1, True)


def test_markdown_is_written_with_its_plots_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "my report (1).md"
    ran = run("-f", "-", "--markdown", str(file), stdin=text_of(one_run()))
    written = [tmp_path / f"my report (1)-{i}.svg" for i in (1, 2, 3)] + [file]
    assert (ran.exit_code, ran.stdout) == (0, "")
    assert ran.stderr.splitlines() == [f"wrote {each}" for each in written]
    assert sorted(tmp_path.iterdir()) == sorted(written)
    text = file.read_text("utf-8")
    shown = re.findall(r"^!\[([^]]+)\]\(([^)]+)\)\n\n(.+)$", text, re.MULTILINE)
    assert [unquote(address) for _, address, _ in shown] == [each.name for each in written[:3]]
    assert all(caption.startswith(title) for title, _, caption in shown)
    # Without them it is what stdout gets.
    before, plots, results = text.partition("## Plots\n\n")[0], *text.partition("## Plots\n\n")[2].split("## Results")
    assert plots.count("![") == 3
    assert before + "## Results" + results == markdown([one_run()])


def test_a_refused_run_has_markdown_and_no_plots(tmp_path: Path) -> None:
    file = tmp_path / "report.md"
    assert run("-f", "-", "--markdown", str(file), stdin=text_of(failed())).exit_code == 0
    assert list(tmp_path.iterdir()) == [file]
    assert file.read_text("utf-8") == markdown([failed()])


def test_markdown_and_a_page_and_csv_of_one_report(tmp_path: Path) -> None:
    words = ("--markdown", str(tmp_path / "x.md"), "--html", str(tmp_path / "x.html"), "--csv")
    assert run("-f", "-", *words, stdin=text_of(one_run())).stdout == csv_text([one_run()])
    assert {each.name for each in tmp_path.iterdir()} == {"x.md", "x-1.svg", "x-2.svg", "x-3.svg", "x.html"}


@pytest.mark.parametrize(
    ("name", "told"), [("no/x.md", "No such file"), ("x" * 300, "File name too long")], ids=["no folder", "long"]
)
def test_a_file_that_cannot_be_written_is_told(tmp_path: Path, name: str, told: str) -> None:
    ran = run("-f", "-", "--markdown", str(tmp_path / name), stdin=text_of(one_run()))
    assert (ran.exit_code, "--markdown " in ran.stderr) == (1, True)
    assert told in ran.stderr


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["-f", "x", "--csv", "--html", "-"],
        ["-f", "x", "--markdown", "-"],
        *(["-f", "x", "--markdown", name] for name in ("", ".", "/", "..", "x/..", "new/")),
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_wrong_usage(words: list[str]) -> None:
    assert run(*words).exit_code == 2


@pytest.mark.parametrize("end", ["", "/"])
def test_markdown_into_a_folder_is_refused_before_plots_are_written(tmp_path: Path, end: str) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    ran = run("-f", "-", "--markdown", f"{folder}{end}", stdin=text_of(one_run()))
    assert (ran.exit_code, "names no file: write one, such as report.md" in ran.stderr) == (2, True)
    assert [*tmp_path.iterdir(), *folder.iterdir()] == [folder]


def test_without_the_plotting_library_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("draftmark.cli.report_page", "draftmark.cli.report_plots"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for words in (("--html", "-"), ("--markdown", "x.md")):
        ran = run("-f", "-", *words, stdin=text_of(one_run()))
        assert (ran.exit_code, 'from a checkout: pip install ".[report]", or make setup' in ran.stderr) == (1, True)
    assert run("-f", "-", stdin=text_of(one_run())).exit_code == 0


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        (text_of(one_run()).replace('"value":100.0', '"value":NaN', 1), "NaN is no number"),
        (text_of(one_run()).replace('"value":100.0', '"value":1e999', 1), "1e999 is no number"),
        ("[]", "is no result of a Benchmark"),
        ("{}", "benchmark: Field required"),
        ('{"schemaVersion": 2}', "has schemaVersion 2; this version of Draftmark reads 1"),
        (text_of(one_run())[:-1] + ', "surprise": 1}', "surprise: Extra inputs are not permitted"),
    ],
    ids=["nothing", "deep", "not a number", "infinite", "list", "empty", "newer", "unknown field"],
)
def test_what_is_no_result_is_told(text: str, told: str) -> None:
    ran = run("-f", "-", stdin=text)
    assert (ran.exit_code, told in ran.stderr) == (1, True), ran.stderr
    assert len(ran.stderr.splitlines()) == 1


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\xff\xfe")
    for name in ("x", "y"):
        ran = run("-f", str(tmp_path / name))
        assert (ran.exit_code, len(ran.stderr.splitlines())) == (1, 1)


# From the cluster


@pytest.fixture
def cluster(commands: Commands) -> Commands:
    commands.api.storage.serve(BENCHMARKS)
    return commands


def put(cluster: Commands, name: str, *, digest: str | None = None, uid: str | None = None) -> Result:
    """A Benchmark that has succeeded, and its result."""
    seen = cluster.api.add(BENCHMARKS, benchmarks.benchmark(None, name=name))
    document = result(name, uid=uid or seen["metadata"]["uid"])
    config_map, found = benchmarks.stored(document)
    cluster.api.add(CONFIG_MAPS, config_map)
    report = {"configMap": config_map["metadata"]["name"], "sha256": digest or found}
    status = benchmarks.benchmark("Succeeded", name=name, report=report)["status"]
    key = (NAMESPACE, name)
    now = cluster.api.storage.get(BENCHMARKS, key).obj
    cluster.api.storage.update(BENCHMARKS, key, {**now, "status": status}, "draftmark-status", "status")
    return document


async def test_results_of_the_cluster_and_of_files_side_by_side(cluster: Commands, tmp_path: Path) -> None:
    first, second = put(cluster, "test-one"), put(cluster, "test-two")
    (tmp_path / "x.json").write_text(text_of(other_run()), "utf-8")
    ran = await cluster.run("report", "test-one", "test-two", "-f", str(tmp_path / "x.json"))
    assert ran.stdout == markdown([first, second, other_run()])
    assert cluster.api.writes == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [({"digest": "0" * 64}, "Somebody has changed it"), ({"uid": "another"}, "of an earlier Benchmark 'test-one'")],
    ids=["changed", "of an earlier one"],
)
async def test_a_result_that_is_not_the_benchmarks_is_refused(
    cluster: Commands, changes: dict[str, str], told: str
) -> None:
    put(cluster, "test-one", **changes)
    ran = await cluster.run("report", "test-one")
    assert (ran.exit_code, ran.stdout, told in ran.stderr) == (1, "", True), ran.stderr


@pytest.mark.parametrize(
    ("item", "told"),
    [
        (
            benchmarks.running(),
            "has no result yet (phase Running). Wait for it with kubectl draftmark bench test-run -n models --watch.",
        ),
        (benchmarks.benchmark(None), "phase not set"),
        (
            benchmarks.benchmark(
                "Failed", conditions=[benchmarks.complete("Failed", "TokenizerNotFound", "No such file.")]
            ),
            "ended without a result: Failed, TokenizerNotFound: No such file.",
        ),
        (benchmarks.succeeded(report={"configMap": "gone", "sha256": "0"}), '"gone" not found'),
    ],
    ids=["running", "not seen", "failed", "config map gone"],
)
async def test_a_benchmark_without_a_result_says_why(cluster: Commands, item: Json, told: str) -> None:
    cluster.api.add(BENCHMARKS, item)
    ran = await cluster.run("report", "test-run")
    assert (ran.exit_code, ran.stdout, told in ran.stderr) == (1, "", True), ran.stderr
