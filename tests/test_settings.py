"""The administrator's file is checked when the operator starts."""

from pathlib import Path
from typing import Any

import pytest

from draftmark.render.yaml_io import dump_manifest
from draftmark.settings import UnreadableDefaults, load_defaults

H100 = {"product": "NVIDIA-H100-80GB-HBM3", "gpusPerNode": 8}


def write(folder: Path, **autoscaling: Any) -> Path:
    file = folder / "defaults.yaml"
    file.write_text(dump_manifest({"nodeAutoscaling": autoscaling}), "utf-8")
    return file


def test_nodes_that_can_be_had_are_read(tmp_path: Path) -> None:
    more = {"resourceName": "nvidia.com/gpu", "nodes": 4, "memory": "80Gi"}
    defaults = load_defaults(write(tmp_path, enabled=True, timeout="1h30m", accelerators=[H100 | more, H100]))
    assert defaults.node_timeout_s == 5400
    assert [(one.gpus_per_node, one.nodes) for one in defaults.obtainable] == [(8, 4), (8, None)]


def test_pods_wait_as_long_as_cluster_autoscaler_does_unless_the_administrator_says(tmp_path: Path) -> None:
    assert load_defaults(write(tmp_path, enabled=True)).node_timeout_s == 900
    off = load_defaults(write(tmp_path, timeout="5m", accelerators=[H100]))
    assert (off.node_timeout_s, off.obtainable) == (None, ())
    assert load_defaults(None).node_timeout_s is None


MIG = {"product": "NVIDIA-A100-SXM4-80GB-MIG-1g.10gb", "gpusPerNode": 7}
WRONG = [
    ({"enabld": True}, "nodeAutoscaling.enabld"),
    ({"timeout": "10s"}, "between 1m and 24h"),
    ({"timeout": "soon"}, "nodeAutoscaling.timeout"),
    ({"accelerators": [{"product": "NVIDIA-L4"}]}, "nodeAutoscaling.accelerators.0.gpusPerNode"),
    ({"accelerators": [H100, H100 | {"resourceName": "intel.com/gpu"}]}, "accelerators.1.resourceName"),
    ({"accelerators": [H100 | {"product": "NVIDIA-Unheard-Of"}]}, "such as 80Gi"),
    ({"accelerators": [H100 | {"memory": "80 GB"}]}, "accelerators.0.memory"),
    ({"accelerators": [H100 | {"memory": "0"}]}, "is no amount of memory"),
    ({"accelerators": [MIG]}, "memory of 'NVIDIA-A100-SXM4-80GB-MIG-1g.10gb' is not known"),
]


PROMETHEUS = (
    "http://prometheus-operated.monitoring.svc:9090",
    "http://thanos",
    "http://10.0.0.1:9090/",
    "http://[fd00::7]:9090/prometheus",
    "http://vm.monitoring.svc:8481/select/0/prometheus/",
)
NO_PROMETHEUS = (
    "https://prometheus:9090",
    "prometheus:9090",
    "http://",
    "http://:9090",
    "http://user:word@prometheus",
    "http://prometheus:9090?tenant=a",
    "http://prometheus:9090/#x",
    "http://prometheus:port",
    "http://prometheus:0",
    "http://prometheus:65536",
    "http://[fd00::7]:70000/x",
    "http://a b",
    "http://prometheus//x",
    "http://prometheus\n",
    "",
    f"http://{'a' * 512}",
)


def asking(folder: Path, prometheus: str) -> Path:
    file = folder / "defaults.yaml"
    file.write_text(dump_manifest({"benchmarks": {"prometheus": prometheus}}), "utf-8")
    return file


@pytest.mark.parametrize("url", PROMETHEUS)
def test_a_prometheus_is_a_url(tmp_path: Path, url: str) -> None:
    defaults = load_defaults(asking(tmp_path, url))
    assert defaults.benchmarks is not None
    assert defaults.benchmarks.prometheus == url


@pytest.mark.parametrize("url", NO_PROMETHEUS)
def test_another_url_is_no_prometheus(tmp_path: Path, url: str) -> None:
    with pytest.raises(UnreadableDefaults, match=r"benchmarks(\.prometheus)?"):
        load_defaults(asking(tmp_path, url))


@pytest.mark.parametrize(("autoscaling", "told"), WRONG, ids=lambda value: str(value))
def test_what_cannot_be_is_refused_with_its_place(tmp_path: Path, autoscaling: dict[str, Any], told: str) -> None:
    with pytest.raises(UnreadableDefaults) as refused:
        load_defaults(write(tmp_path, **autoscaling))
    assert told in str(refused.value)
