"""What is read of the devices of a node."""

import pytest

from draftmark.facts.nodes import read_node
from tests.facts.label_sets import LABEL_SETS, LabelSet, gpu_node


@pytest.mark.parametrize("case", LABEL_SETS, ids=lambda case: case.name)
def test_labels_as_they_were_seen(case: LabelSet) -> None:
    devices = read_node(case.node).devices_of(case.resource)
    assert devices is not None
    assert {name: getattr(devices, name) for name in case.expected} == case.expected


def test_only_devices_are_devices_and_only_those_that_there_are() -> None:
    node = gpu_node(
        "a",
        allocatable={"cpu": "8", "pods": "110", "hugepages-1Gi": "4", "nvidia.com/gpu": "0", "amd.com/gpu": "1", "x.kubernetes.io/y": "3"},
    )  # fmt: skip
    assert [devices.resource for devices in read_node(node).devices] == ["amd.com/gpu"]


def test_a_partly_cut_gpu_node_has_both() -> None:
    [mixed] = [case for case in LABEL_SETS if case.name == "mig, mixed strategy"]
    facts = read_node(mixed.node)
    assert [(d.resource, d.gpus, d.is_slice) for d in facts.devices] == [
        ("nvidia.com/gpu", 1, False),
        ("nvidia.com/mig-1g.5gb", 4, True),
        ("nvidia.com/mig-2g.10gb", 2, True),
    ]
    whole = facts.devices_of("nvidia.com/gpu")
    assert whole is not None
    assert whole.memory_bytes == 40536 * 1024**2
