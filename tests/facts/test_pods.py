"""What is wrong with pods."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftmark.facts.pods import is_ready, most_crashes, pod_problem, worst_problem
from tests.specs import Object, crashed_pod, pod, ready_pod, unschedulable_pod, waiting_pod

R = "00000000"

PROBLEMS = [
    (waiting_pod(R, "ErrImagePull", "not found"), "ImagePullFailed", True),
    (waiting_pod(R, "InvalidImageName"), "ImagePullFailed", True),
    (waiting_pod(R, "CreateContainerError", "no such device"), "ContainerConfigFailed", True),
    (crashed_pod(R), "EngineCrashed", True),
    (crashed_pod(R, exit_code=0), "EngineCrashed", True),
    (crashed_pod(R, reason="OOMKilled", exit_code=137), "OutOfMemory", True),
    (unschedulable_pod(R, "0/1 nodes"), "Unschedulable", False),
    (pod(R, phase="Failed", reason="Evicted", message="low on memory"), "PodFailed", False),
]


@pytest.mark.parametrize(("item", "code", "needs_human"), PROBLEMS)
def test_a_problem_has_a_code_and_says_who_can_solve_it(item: Object, code: str, needs_human: bool) -> None:
    problem = pod_problem(item)
    assert problem is not None
    assert (problem.code, problem.needs_human) == (code, needs_human)


@pytest.mark.parametrize(
    "item", [pod(R), ready_pod(R), waiting_pod(R, "ContainerCreating"), waiting_pod(R, "PodInitializing")]
)
def test_a_pod_that_is_well_or_starting_has_no_problem(item: Object) -> None:
    assert pod_problem(item) is None


def test_a_crashed_pod_that_is_ready_again_has_no_problem() -> None:
    item = crashed_pod(R)
    item["status"]["containerStatuses"][0] |= {"ready": True, "state": {"running": {}}}
    assert pod_problem(item) is None


def test_a_pod_on_its_way_out_counts_for_nothing() -> None:
    for item in (crashed_pod(R), ready_pod(R)):
        item["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        assert pod_problem(item) is None
        assert not is_ready(item)


def test_the_last_line_of_the_log_is_told_whole_unless_it_is_long() -> None:
    short, long = (
        pod_problem(crashed_pod(R, log="a\n\x1b[31mno such file\n\n ")),
        pod_problem(crashed_pod(R, log="x" * 4000)),
    )
    assert short is not None
    assert long is not None
    assert "no such file" in short.message
    assert "\x1b" not in short.message
    assert len(long.message) < 1000


@given(order=st.permutations([item for item, _, _ in PROBLEMS]))
def test_the_worst_problem_is_the_same_in_any_order(order: list[Object]) -> None:
    worst = worst_problem(order)
    assert worst is not None
    assert worst.code == "OutOfMemory"


def test_crashes_are_counted_where_they_keep_a_pod_from_serving() -> None:
    def restarted(pod: Object, restarts: int) -> Object:
        pod["status"]["containerStatuses"][0]["restartCount"] = restarts
        return pod

    going = crashed_pod("r", restarts=9)
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert most_crashes([]) == 0
    assert most_crashes([pod("r"), crashed_pod("r", restarts=1), crashed_pod("r", restarts=2)]) == 2
    assert most_crashes([restarted(ready_pod("r"), 7), going]) == 0


def test_a_container_of_our_own_that_ends_is_no_fault_of_the_users() -> None:
    crashed = crashed_pod("r", log="bad config")
    crashed["status"]["containerStatuses"][0]["name"] = "haproxy"
    problem = pod_problem(crashed)
    assert problem is not None
    assert (problem.code, problem.needs_human) == ("HaproxyCrashed", False)
    assert "bad config" in problem.message


#: What llama-server v0.7.0 wrote in a cluster without a way out.
WITHOUT_A_HUB = """0.00.001.079 I srv  llama_server: initializing ...
0.00.061.409 E get_repo_commit: error: HTTPLIB failed: Could not establish connection
0.00.061.921 W get_repo_files: failed to resolve commit for Qwen/Qwen2.5-0.5B-Instruct-GGUF
0.00.067.623 E cmn  common_init_: failed to load model ''
0.00.067.640 I srv    operator(): operator(): cleaning up before exit...
0.00.069.847 E srv  llama_server: exiting due to model loading error
"""


@pytest.mark.parametrize(
    ("log", "line"),
    [
        (WITHOUT_A_HUB, "HTTPLIB failed: Could not establish connection"),
        ("huggingface_hub.errors.GatedRepoError: 401 Client Error.\nEngine core failed.", "GatedRepoError"),
        ("OSError: We couldn't connect to 'https://huggingface.co' to load the files", "couldn't connect"),
    ],
)
def test_a_model_that_does_not_come_is_told_with_the_ways_to_have_it(log: str, line: str) -> None:
    problem = pod_problem(crashed_pod(R, log=log))
    assert problem is not None
    assert (problem.code, problem.needs_human) == ("ModelDownloadFailed", True)
    assert line in problem.message
    assert "oci://" in problem.message
