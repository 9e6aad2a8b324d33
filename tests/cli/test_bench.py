"""`bench` and `compare` against the fake API server: what they apply, print, and how they end."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from draftmark.cli.benchmark_view import benchmark_tree
from draftmark.cli.tree import plain_text
from draftmark.cluster.kinds import BENCHMARKS
from draftmark.render.yaml_io import dump_manifests
from tests.cli import benchmarks
from tests.cli.benchmarks import COMPARING, NAME, SPEC, manifest
from tests.cli.conftest import GOLDEN, Commands
from tests.cli.world import NAMESPACE, Json

Looks = list[Callable[[], Any]]


@pytest.fixture
def cluster(commands: Commands) -> Commands:
    commands.api.storage.serve(BENCHMARKS)
    return commands


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., str]:
    def write(*items: Json, name: str = "bench.yaml") -> str:
        (tmp_path / name).write_text(dump_manifests(items), "utf-8")
        return str(tmp_path / name)

    return write


def becomes(cluster: Commands, item: Json) -> Callable[[], object]:
    """What the operator would write; the fake's own loop is the only one that may touch its storage."""

    async def change() -> None:
        key = (NAMESPACE, item["metadata"]["name"])
        now = cluster.api.storage.get(BENCHMARKS, key).obj
        cluster.api.storage.update(BENCHMARKS, key, {**now, "status": item["status"]}, "draftmark-status", "status")

    return lambda: asyncio.run_coroutine_threadsafe(change(), cluster.loop).result(10)


def spec_in(cluster: Commands, name: str = NAME) -> Json:
    found = cluster.api.see(BENCHMARKS, name, NAMESPACE)
    assert found is not None
    return dict(found["spec"])


@pytest.mark.parametrize(
    ("item", "code"),
    [
        (benchmarks.succeeded(), 0),
        (benchmarks.inconclusive(), 1),
        (benchmarks.benchmark("Failed"), 1),
        (benchmarks.running(), 3),
        (benchmarks.benchmark("Pending"), 3),
        (benchmarks.benchmark(None), 3),
        # What is told of an earlier object of this name.
        ({**benchmarks.succeeded(), "status": {**benchmarks.succeeded()["status"], "observedGeneration": 0}}, 3),
    ],
    ids=["succeeded", "inconclusive", "failed", "running", "pending", "not seen", "stale"],
)
async def test_the_exit_status_says_how_it_ended(cluster: Commands, item: Json, code: int) -> None:
    cluster.api.add(BENCHMARKS, item)
    assert (await cluster.run("bench", NAME)).exit_code == code


@pytest.mark.parametrize("name", ["succeeded", "inconclusive", "running", "compared"])
async def test_what_is_shown_is_as_reviewed(cluster: Commands, name: str) -> None:
    """To accept a change: write what is told to the file."""
    cluster.api.add(BENCHMARKS, getattr(benchmarks, name)())
    result = await cluster.run("bench", NAME)
    assert result.stderr == ""
    assert result.stdout == (GOLDEN / f"bench-{name}.txt").read_text("utf-8")


async def test_what_was_not_measured_reads_tbd(cluster: Commands) -> None:
    cluster.api.add(BENCHMARKS, benchmarks.inconclusive())
    text = (await cluster.run("bench", NAME)).stdout
    (line,) = [line for line in text.splitlines() if line.startswith("chat   ") and "concurrency 16" in line]
    assert line.split()[4:] == ["TBD"] * 9 + ["REFUSED:", "ClientSaturated"]
    assert "REFUSED  chat, concurrency 16: ClientSaturated: The load generator used 99 %" in text


async def test_the_whole_result_is_looked_for_where_it_is(cluster: Commands) -> None:
    report = {"configMap": "test-run-result", "sha256": "0" * 64}
    cluster.api.add(BENCHMARKS, benchmarks.succeeded(report=report))
    text = (await cluster.run("bench", NAME)).stdout
    assert text.endswith("The whole result: kubectl draftmark report test-run -n models\n")


async def test_what_the_status_had_no_room_for_is_pointed_at(cluster: Commands) -> None:
    whole = "kubectl draftmark report test-run -n models"
    cluster.api.add(BENCHMARKS, benchmarks.cut(benchmarks.inconclusive(), rows=2))
    text = (await cluster.run("bench", NAME)).stdout
    assert f"REFUSED  chat, concurrency 16: ClientSaturated: see {whole}\n" in text
    assert text.endswith(f"Not all is shown here: {whole} has the whole.\n")
    assert "The whole result" not in text


def test_texts_from_elsewhere_cannot_draw_on_the_terminal() -> None:
    item = benchmarks.benchmark("Failed", conditions=[benchmarks.complete("Failed", "X", "a\x1b[2Jb\nc")])
    assert "a [2Jb c" in plain_text(benchmark_tree(item))


async def test_watch_ends_when_it_has_ended(cluster: Commands, each_look: Looks) -> None:
    cluster.api.add(BENCHMARKS, benchmarks.benchmark("Pending", progress=benchmarks.progress("Waiting", 0)))
    later = benchmarks.running()
    later["status"]["progress"]["secondsLeft"] = 100
    each_look += [
        becomes(cluster, benchmarks.running()),
        becomes(cluster, later),  # the same but for the time left: no line of its own
        becomes(cluster, benchmarks.succeeded()),
    ]
    result = await cluster.run("bench", NAME, "--watch")
    assert result.exit_code == 0
    changed = [line.partition("  ")[2] for line in result.stdout.splitlines() if line.startswith("+")]
    assert changed[0] == "models/test-run  Running"
    assert [line for line in changed if "measures" in line] == ["measures  chat  concurrency 4  42 %  3 min 20 s left"]
    assert "models/test-run  Succeeded" in changed
    assert "concurrency 4" in result.stdout.partition("SAMPLES")[2]


def stalled(phase: str = "Pending") -> Json:
    reason = {"reason": "ServesUsers", "message": "Revision aaaaaaaa takes users' requests. Measure another one."}
    told = {**benchmarks.complete(phase, **reason), "type": "Stalled", "status": "True"}
    return benchmarks.benchmark(phase, conditions=[benchmarks.complete(phase, **reason), told])


@pytest.mark.parametrize("command", ["bench", "compare"])
async def test_what_somebody_has_to_mend_is_not_waited_for(
    cluster: Commands, each_look: Looks, written: Callable[..., str], command: str
) -> None:
    each_look += [becomes(cluster, stalled()), *[lambda: None] * 40]
    watch = ["--watch"] if command == "bench" else []
    result = await cluster.run(command, "-f", written(manifest(COMPARING)), *watch)
    assert result.exit_code == 1
    assert "does not go on until somebody acts: ServesUsers: Revision aaaaaaaa takes" in result.stderr
    assert "It waits for that" in result.stderr
    assert each_look  # looked at less often than it could have been
    assert cluster.api.see(BENCHMARKS, NAME, NAMESPACE) is not None


@pytest.mark.parametrize("command", ["bench", "compare"])
async def test_a_service_that_is_not_there_is_not_waited_for(
    cluster: Commands, each_look: Looks, written: Callable[..., str], command: str
) -> None:
    """The operator waits for it, and tells of no fault: somebody may be about to make it."""
    told = benchmarks.complete(
        "Pending", "TargetNotFound", "There is no InferenceService 'test-a' in namespace 'models'."
    )
    each_look += [becomes(cluster, benchmarks.benchmark("Pending", conditions=[told])), *[lambda: None] * 40]
    watch = ["--watch"] if command == "bench" else []
    result = await cluster.run(command, "-f", written(manifest(COMPARING)), *watch)
    assert result.exit_code == 1
    assert "does not go on until somebody acts: TargetNotFound: There is no InferenceService 'test-a'" in result.stderr
    assert each_look  # looked at less often than it could have been


@pytest.mark.parametrize("command", ["bench", "compare"])
async def test_an_operator_that_is_not_there_is_not_waited_for(
    cluster: Commands, each_look: Looks, written: Callable[..., str], command: str
) -> None:
    each_look += [lambda: None] * 40
    watch = ["--watch"] if command == "bench" else []
    result = await cluster.run(command, "-f", written(manifest(COMPARING)), *watch)
    assert result.exit_code == 1
    assert "models/test-run: no operator has looked at it. Is one running (kubectl get pods" in result.stderr
    assert "does it watch this namespace (watchNamespaces of the chart)?" in result.stderr
    assert "kubectl draftmark bench test-run -n models --watch" in result.stderr
    assert len(each_look) == 10  # a minute, two seconds each


async def test_an_api_server_that_does_not_answer_says_nothing_of_the_operator(
    cluster: Commands, each_look: Looks
) -> None:
    cluster.api.add(BENCHMARKS, benchmarks.benchmark(None))

    def break_off() -> None:
        cluster.api.fault(
            kind=BENCHMARKS, verb="get", status=503, reason="ServiceUnavailable", message="busy", times=35
        )

    each_look += [break_off, *[lambda: None] * 35, becomes(cluster, benchmarks.succeeded())]
    result = await cluster.run("bench", NAME, "--watch")
    assert (result.exit_code, "busy" in result.stderr) == (0, True), result.stderr


async def test_what_mends_itself_in_time_is_followed_to_the_end(cluster: Commands, each_look: Looks) -> None:
    cluster.api.add(BENCHMARKS, stalled())
    for _ in range(2):
        each_look += [becomes(cluster, stalled()), *[lambda: None] * 28, becomes(cluster, benchmarks.running())]
    each_look += [becomes(cluster, benchmarks.succeeded())]
    assert (await cluster.run("bench", NAME, "--watch")).exit_code == 0


async def test_ctrl_c_leaves_it_running_and_says_so(cluster: Commands, each_look: Looks) -> None:
    cluster.api.add(BENCHMARKS, benchmarks.running())
    each_look += [lambda: None]
    result = await cluster.run("bench", NAME, "-w")
    assert result.exit_code == 130
    assert "models/test-run goes on" in result.stderr
    assert "kubectl delete benchmarks.draftmark.dev test-run -n models" in result.stderr
    assert cluster.api.writes == []


async def test_watch_does_not_follow_another_of_the_same_name(cluster: Commands, each_look: Looks) -> None:
    cluster.api.add(BENCHMARKS, benchmarks.running())

    async def replace() -> None:
        cluster.api.remove(BENCHMARKS, NAME, NAMESPACE)
        cluster.api.add(BENCHMARKS, benchmarks.succeeded())

    each_look += [lambda: asyncio.run_coroutine_threadsafe(replace(), cluster.loop).result(10)]
    result = await cluster.run("bench", NAME, "-w")
    assert (result.exit_code, "has been deleted" in result.stderr) == (1, True)


async def test_one_that_does_not_exist_is_told(cluster: Commands) -> None:
    cluster.api.add(BENCHMARKS, benchmarks.running())
    result = await cluster.run("bench", "test-rum")
    assert (result.exit_code, "there is no Benchmark 'test-rum'" in result.stderr) == (1, True)
    assert "test-run" in result.stderr


@pytest.mark.parametrize("words", [[], ["x", "-f", "y"], ["x", "--name", "y"]], ids=str)
async def test_what_cannot_be_meant_is_wrong_usage(cluster: Commands, words: list[str]) -> None:
    assert (await cluster.run("bench", *words)).exit_code == 2


# -f


async def test_a_manifest_is_applied_and_followed(
    cluster: Commands, each_look: Looks, written: Callable[..., str]
) -> None:
    each_look += [becomes(cluster, benchmarks.succeeded())]
    result = await cluster.run("bench", "-f", written(manifest()), "--watch")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("models/test-run applied.\n")
    assert spec_in(cluster) == SPEC
    (write,) = cluster.api.writes
    assert (write.content_type, write.query["fieldManager"]) == ("application/apply-patch+yaml", "kubectl-draftmark")


async def test_without_watch_it_is_only_applied(cluster: Commands, written: Callable[..., str]) -> None:
    result = await cluster.run("bench", "-f", written(manifest()), "--name", "again")
    assert result.exit_code == 0
    assert "kubectl draftmark bench again -n models --watch" in result.stdout
    assert spec_in(cluster, "again") == SPEC


async def test_the_same_once_more_changes_nothing_and_shows_its_result(
    cluster: Commands, written: Callable[..., str]
) -> None:
    cluster.api.add(BENCHMARKS, benchmarks.succeeded())
    result = await cluster.run("bench", "-f", written(manifest({**SPEC, "notes": None})), "-w")
    assert result.exit_code == 0, result.stderr
    assert cluster.api.writes == []
    assert "SAMPLES" in result.stdout
    first, second, *_ = result.stdout.splitlines()
    assert (
        "is there already, and asks for the same: measured at 2026-01-01T12:00:00Z; nothing is measured anew" in first
    )
    assert "--name" in first
    assert "kubectl delete benchmarks.draftmark.dev test-run -n models" in first
    assert second == "models/test-run  Succeeded"


@pytest.mark.parametrize(
    ("item", "told"),
    [
        (benchmarks.benchmark("Failed"), "asks for the same: ended at 2026-01-01T12:00:00Z; nothing is measured anew"),
        (benchmarks.running(), "asks for the same.\n"),
    ],
    ids=["failed", "running"],
)
async def test_what_has_measured_nothing_is_not_said_to_have(
    cluster: Commands, written: Callable[..., str], item: Json, told: str
) -> None:
    cluster.api.add(BENCHMARKS, item)
    result = await cluster.run("bench", "-f", written(manifest()))
    assert (result.exit_code, told in result.stdout) == (0, True), result.stdout


async def test_another_spec_under_a_name_that_is_taken_is_explained(
    cluster: Commands, written: Callable[..., str]
) -> None:
    cluster.api.add(BENCHMARKS, benchmarks.succeeded())
    result = await cluster.run("bench", "-f", written(manifest({**SPEC, "notes": "x"})))
    assert result.exit_code == 1
    assert "cannot be changed" in result.stderr
    assert "+ notes: x" in result.stderr
    assert "--name" in result.stderr
    assert cluster.api.writes == []
    assert "notes" not in spec_in(cluster)


async def test_one_that_is_made_by_somebody_else_meanwhile_is_explained(
    cluster: Commands, written: Callable[..., str]
) -> None:
    """Nothing is there at the first look; the API server refuses the change with its own words."""
    file = written(manifest({**SPEC, "notes": "x"}))
    cluster.api.add(BENCHMARKS, benchmarks.running())
    cluster.api.fault(kind=BENCHMARKS, verb="get", status=404, reason="NotFound", message="not found", times=1)
    cluster.api.fault(kind=BENCHMARKS, verb="patch", status=422, reason="Invalid", message="the spec cannot be changed")
    result = await cluster.run("bench", "-f", file)
    assert (result.exit_code, "+ notes: x" in result.stderr) == (1, True)


async def test_what_the_api_server_refuses_is_told_in_its_words(cluster: Commands, written: Callable[..., str]) -> None:
    cluster.api.fault(kind=BENCHMARKS, verb="patch", status=422, reason="Invalid", message="spec.x: Invalid value")
    result = await cluster.run("bench", "-f", written(manifest()))
    assert (result.exit_code, "spec.x: Invalid value" in result.stderr) == (1, True)


async def test_one_that_is_being_deleted_is_waited_for_by_the_user(
    cluster: Commands, written: Callable[..., str]
) -> None:
    item = benchmarks.succeeded()
    item["metadata"]["deletionTimestamp"] = "2026-01-01T12:00:00Z"
    cluster.api.add(BENCHMARKS, item)
    result = await cluster.run("bench", "-f", written(manifest()))
    assert (result.exit_code, "is being deleted" in result.stderr) == (1, True)


@pytest.mark.parametrize(
    ("items", "told"),
    [
        ([manifest(), manifest(name="b")], "has 2 Benchmarks"),
        ([{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}}], "has no Benchmarks"),
        ([{**manifest(), "spec": {}}], "spec.target"),
        ([{**manifest(), "spec": {**SPEC, "requestRate": [1]}}], "two kinds of load"),
        ([{**manifest(), "spec": {**SPEC, "target": {"service": "a", "url": "http://b"}}}], "exactly one of both"),
        ([{**manifest(), "spec": {**SPEC, "loads": 1}}], "unknown fields: spec.loads"),
        ([manifest(name="a.b")], "begin with a letter"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_manifest_that_is_wrong_is_never_sent(
    cluster: Commands, written: Callable[..., str], items: list[Json], told: str
) -> None:
    result = await cluster.run("bench", "-f", written(*items))
    assert (result.exit_code, told in result.stderr) == (1, True), result.stderr
    assert cluster.api.requests == []


async def test_what_else_is_in_the_file_is_left_alone_and_named(cluster: Commands, written: Callable[..., str]) -> None:
    other = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "prompts"}}
    result = await cluster.run("bench", "-f", written(other, manifest()))
    assert (result.exit_code, "and not: ConfigMap" in result.stderr) == (0, True)
    assert len(cluster.api.writes) == 1


async def test_the_namespace_is_the_manifests(cluster: Commands, written: Callable[..., str]) -> None:
    file = written(manifest(namespace="elsewhere"))
    assert (await cluster.run("bench", "-f", file)).exit_code == 0
    assert cluster.api.see(BENCHMARKS, NAME, "elsewhere") is not None
    result = await cluster.run("bench", "-f", file, "-n", "models")
    assert (result.exit_code, "Remove one of both" in result.stderr) == (1, True)


# compare


@pytest.mark.parametrize(
    ("item", "code", "told"),
    [
        (benchmarks.compared(), 0, "chat: test-a wins: compared is worse in TTFT at concurrency 1"),
        (benchmarks.compared(winner="compared"), 0, "chat: test-b wins: "),
        (benchmarks.compared(winner="none"), 0, "chat: no difference shown: all are equal within 5 %"),
        (benchmarks.not_shown(), 0, "chat: no difference shown"),
        (benchmarks.compared_and_refused(), 1, "chat: no winner: concurrency 16 has no numbers"),
        (
            benchmarks.cut(benchmarks.compared_and_refused(), rows=1),
            1,
            "chat: no winner: concurrency 16 has no numbers",
        ),
        (benchmarks.inconclusive(), 1, "ClientSaturated"),
        (benchmarks.benchmark("Failed"), 1, "Failed"),
    ],
    ids=["target", "compared", "none", "not shown", "partly refused", "refused row cut", "refused", "failed"],
)
async def test_compare_waits_for_a_verdict(
    cluster: Commands, each_look: Looks, written: Callable[..., str], item: Json, code: int, told: str
) -> None:
    each_look += [becomes(cluster, benchmarks.running()), becomes(cluster, item)]
    result = await cluster.run("compare", "-f", written(manifest(COMPARING)))
    assert (result.exit_code, told in result.stdout) == (code, True), result.stdout
    assert "measures  chat  concurrency 4  42 %" in result.stdout
    if code == 0:
        assert "chat       concurrency 1   TTFT     +20.0 %      +15.0 to +25.0 %   Worse" in result.stdout


async def test_compare_needs_something_to_compare_with(cluster: Commands, written: Callable[..., str]) -> None:
    result = await cluster.run("compare", "-f", written(manifest()))
    assert (result.exit_code, "has no spec.compare" in result.stderr) == (1, True)
    assert cluster.api.requests == []


@pytest.mark.parametrize(
    ("against", "target"),
    [("test-b", {"service": "test-b"}), ("test-a:1f2e3d4c", {"service": "test-a", "revision": "1f2e3d4c"})],
)
async def test_compare_against_a_service(
    cluster: Commands, each_look: Looks, written: Callable[..., str], against: str, target: Json
) -> None:
    each_look += [becomes(cluster, benchmarks.compared())]
    result = await cluster.run("compare", "-f", written(manifest()), "--against", against)
    assert result.exit_code == 0, result.stderr
    assert spec_in(cluster) == {**SPEC, "compare": {"target": target}}


@pytest.mark.parametrize("allowed", [True, False])
async def test_compare_against_a_service_that_serves_users_as_the_first_one_does(
    cluster: Commands, each_look: Looks, written: Callable[..., str], allowed: bool
) -> None:
    each_look += [becomes(cluster, benchmarks.compared())]
    spec = {**SPEC, "target": {"service": "test-a", "allowUserTraffic": allowed}}
    result = await cluster.run("compare", "-f", written(manifest(spec)), "--against", "test-b")
    assert result.exit_code == 0, result.stderr
    assert spec_in(cluster)["compare"] == {"target": {"service": "test-b", "allowUserTraffic": allowed}}


async def test_compare_the_targets_of_two_files(
    cluster: Commands, each_look: Looks, written: Callable[..., str]
) -> None:
    url = {"url": "http://other:8000", "model": "m", "tokenizer": "hf://org/repo"}
    second = manifest({**SPEC, "target": url, "notes": "another"}, name="b")
    each_look += [becomes(cluster, benchmarks.compared())]
    files = ("-f", written(manifest()), "-f", written(second, name="b.yaml"))
    result = await cluster.run("compare", *files)
    assert result.exit_code == 0, result.stderr
    assert spec_in(cluster) == {**SPEC, "compare": {"target": url}}
    different = written(manifest({**SPEC, "concurrency": [1]}, name="b"), name="b.yaml")
    result = await cluster.run("compare", *files[:3], different)
    assert (result.exit_code, "would not be measured alike: ~ concurrency" in result.stderr) == (1, True)


@pytest.mark.parametrize(
    ("first", "words", "second", "code"),
    [
        ({}, (), {"namespace": "elsewhere"}, 1),
        ({"namespace": "elsewhere"}, (), {"namespace": NAMESPACE}, 1),
        ({}, ("-n", "elsewhere"), {"namespace": NAMESPACE}, 1),
        ({}, (), {"namespace": NAMESPACE}, 0),
        ({"namespace": "elsewhere"}, (), {"namespace": "elsewhere"}, 0),
        ({}, ("-n", "elsewhere"), {"namespace": "elsewhere"}, 0),
        ({"namespace": "elsewhere"}, (), {}, 0),
    ],
    ids=str,
)
async def test_compare_takes_no_target_of_another_namespace(
    cluster: Commands,
    each_look: Looks,
    written: Callable[..., str],
    first: Json,
    words: tuple[str, ...],
    second: Json,
    code: int,
) -> None:
    assert each_look == []  # Ctrl-C at the first
    files = ("-f", written(manifest(**first)), "-f", written(manifest(**second), name="b.yaml"))
    result = await cluster.run("compare", *files, *words)
    if code:
        assert (result.exit_code, "the second --filename says namespace" in result.stderr) == (1, True), result.stderr
        assert cluster.api.requests == []
    else:
        assert (result.exit_code, "goes on" in result.stderr) == (130, True), result.stderr


async def test_compare_refuses_two_answers_to_one_question(cluster: Commands, written: Callable[..., str]) -> None:
    file = written(manifest(COMPARING))
    result = await cluster.run("compare", "-f", file, "--against", "test-c")
    assert (result.exit_code, "has spec.compare already" in result.stderr) == (1, True)
    assert (await cluster.run("compare", "-f", file, "-f", file, "--against", "x")).exit_code == 2
    result = await cluster.run("compare", "-f", written(manifest({**SPEC, "repetitions": 3})), "--against", "test-c")
    assert (result.exit_code, "remove repetitions" in result.stderr) == (1, True)
    result = await cluster.run("compare", "-f", written(manifest()), "--against", "Not A Name")
    assert (result.exit_code, "spec.compare.target.service" in result.stderr) == (1, True)
    assert cluster.api.requests == []


async def test_ctrl_c_of_compare(cluster: Commands, each_look: Looks, written: Callable[..., str]) -> None:
    result = await cluster.run("compare", "-f", written(manifest(COMPARING)))
    assert (result.exit_code, "goes on" in result.stderr) == (130, True)
    assert spec_in(cluster) == COMPARING
