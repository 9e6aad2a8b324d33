"""What the kernel tells of our use of the machine."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from draftmark.benchmark_runner.client_cpu import ClientCpu, Seen, allowed_cpus, share_between, throttled_s

CORES = len(os.sched_getaffinity(0))


def tree(root: Path, files: Mapping[str, str]) -> Path:
    for name, content in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return root


@pytest.fixture
def in_version_2(tmp_path: Path) -> tuple[Path, Path]:
    proc = tree(tmp_path / "proc", {"self/cgroup": "0::/\n"})
    stat = "usage_usec 5\nnr_throttled 3\nthrottled_usec 2500000\n"
    return tree(tmp_path / "cgroup", {"cpu.max": "50000 100000\n", "cpu.stat": stat}), proc


def test_a_limit_and_throttling_of_version_2(in_version_2: tuple[Path, Path]) -> None:
    assert allowed_cpus(*in_version_2) == 0.5
    assert throttled_s(*in_version_2) == 2.5


def test_without_a_limit_it_is_the_cores(in_version_2: tuple[Path, Path]) -> None:
    (in_version_2[0] / "cpu.max").write_text("max 100000\n")
    assert allowed_cpus(*in_version_2) == CORES


@pytest.mark.parametrize("path", ["", "kubepods/pod1"])
def test_version_1_in_a_container_and_outside(tmp_path: Path, path: str) -> None:
    proc = tree(tmp_path / "proc", {"self/cgroup": "4:memory:/x\n3:cpu,cpuacct:/kubepods/pod1\n"})
    files = {
        "cpu.cfs_quota_us": "25000",
        "cpu.cfs_period_us": "100000",
        "cpu.stat": "nr_throttled 1\nthrottled_time 7000000000\n",
    }
    cgroup = tree(tmp_path / "cgroup" / "cpu,cpuacct" / path, files)
    assert cgroup.is_dir()
    assert allowed_cpus(tmp_path / "cgroup", proc) == 0.25
    assert throttled_s(tmp_path / "cgroup", proc) == 7.0


def test_what_is_not_told_is_not_known(tmp_path: Path) -> None:
    assert throttled_s(tmp_path, tmp_path) is None
    assert allowed_cpus(tmp_path, tmp_path) == CORES


def test_one_worker_on_a_whole_core_is_saturated_although_the_pod_is_not() -> None:
    before, after = Seen(at=0, processes={1: 5.0, 2: 1.0}), Seen(at=2, processes={1: 5.2, 2: 2.9, 3: 0.1})
    assert share_between(before, after, allowed=4) == pytest.approx(0.95)
    assert share_between(before, after, allowed=1.5) == pytest.approx(2.2 / 1.5 / 2, abs=0.3)


def test_a_pod_that_has_little_is_saturated_by_little() -> None:
    before, after = Seen(at=0, processes={1: 0.0}), Seen(at=1, processes={1: 0.25})
    assert share_between(before, after, allowed=0.25) == 1.0


def stat(process: int, parent: int, user: int, system: int) -> str:
    return f"{process} (py (x) thon) S {parent} {process} 0 0 -1 4194304 0 0 0 0 {user} {system} 900 900 20 0 1 0 5\n"


def test_children_count_and_others_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    me, ticks = os.getpid(), os.sysconf("SC_CLK_TCK")
    child, grandchild, other = me + 1, me + 2, me + 3
    times = {"now": 100.0}
    monkeypatch.setattr("time.monotonic", lambda: times["now"])

    def write(mine: float, below: float, theirs: float) -> None:
        for process, parent, used in ((me, 1, mine), (child, me, 0.0), (grandchild, child, below), (other, 1, theirs)):
            tree(tmp_path / "proc", {f"{process}/stat": stat(process, parent, int(used * ticks), 0)})

    tree(tmp_path / "proc", {"self/cgroup": "0::/\n"})
    tree(tmp_path / "cgroup", {"cpu.max": "200000 100000", "cpu.stat": "throttled_usec 1000000\n"})
    cpu = ClientCpu(proc=tmp_path / "proc", cgroups=tmp_path / "cgroup")
    allowed = min(2.0, CORES)
    write(1.0, 1.0, 1.0)
    cpu.begin()
    for mine, below in ((1.1, 1.2), (1.5, 1.8), (1.6, 1.9)):
        times["now"] += 1
        write(mine, below, 50.0)
        cpu.look()
    tree(tmp_path / "cgroup", {"cpu.stat": "throttled_usec 1250000\n"})
    seen = cpu.end()
    # The busiest second, of one process over its core or of both over what is allowed.
    assert seen.cpu_share == pytest.approx(max(0.6, 1.0 / allowed), abs=0.05)
    assert seen.throttled_s == pytest.approx(0.25)
