"""What is kept of the objects that are watched is enough for what is told of them."""

import pytest

from draftmark.controller.observe import slim_pod
from draftmark.facts.pods import pod_problem, startup_stages
from tests.facts.test_gpu_failures import LOGS, REJECTED, device
from tests.facts.test_pods import PROBLEMS
from tests.specs import Object, crashed_pod, pod


def on_a_node(item: Object) -> Object:
    return {**item, "spec": {**item["spec"], "nodeName": "gpu-7"}}


UNHEALTHY = crashed_pod("r")
UNHEALTHY["status"]["containerStatuses"][0] |= device("Unhealthy")
PODS = [
    *(on_a_node(item) for item, _, _ in PROBLEMS),
    *(on_a_node(crashed_pod("r", log=line)) for line, _, _ in LOGS),
    on_a_node(UNHEALTHY),
    on_a_node(pod("r", phase="Failed", reason="UnexpectedAdmissionError", message=REJECTED)),
]


@pytest.mark.parametrize("item", PODS, ids=lambda item: str(getattr(pod_problem(item), "code", None)))
def test_what_is_kept_of_a_pod_tells_the_same(item: Object) -> None:
    assert pod_problem(slim_pod(item)) == pod_problem(item)
    assert startup_stages(slim_pod(item)) == startup_stages(item)
