"""Benchmarks on the node: applied, followed, and run anew where the machine was too busy to measure."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Set
from typing import Any, Final

from draftmark.api import names
from draftmark.cluster.kinds import BENCHMARKS, CONFIG_MAPS
from draftmark.measure.result import Result
from tests.busy import BUSY, TRIES
from tests.e2e.api import Json, Namespace, eventually

ENDED: Final = ("Succeeded", "Inconclusive", "Failed")
#: Of the load generator: the node has two CPUs, which others have asked for as well.
SMALL: Final = {"requests": {"cpu": "300m", "memory": "256Mi"}}
#: Seconds that a command may take.
_COMMAND_S: Final = 280


def benchmark(name: str, target: Mapping[str, Any], **spec: Any) -> Json:
    """A short one of prompts that fit into the context of the tests' services."""
    workloads = [{"name": "short", "promptTokens": 40, "outputTokens": 20}]
    common = {"workloads": workloads, "warmUp": "2s", "duration": "5s", "resources": SMALL}
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.BENCHMARK_KIND,
        "metadata": {"name": name},
        "spec": {"target": dict(target), **common, **spec},
    }


def draftmark(namespace: Namespace, *words: str, stdin: Json | None = None) -> subprocess.CompletedProcess[str]:
    """The command line as a user runs it."""
    command = [sys.executable, "-m", "draftmark.cli", *words]
    command += [f"--namespace={namespace.name}", f"--kubeconfig={namespace.tools.kubeconfig}"]
    given = json.dumps(stdin) if stdin is not None else None
    return subprocess.run(command, text=True, capture_output=True, input=given, timeout=_COMMAND_S)


def status_of(namespace: Namespace, name: str) -> Json:
    """The status; empty before there is one."""
    found = namespace.api.get(BENCHMARKS, namespace.name, name)
    assert found is not None, f"there is no Benchmark {name}"
    status: Json = found.get("status") or {}
    return status


def wait_for_stage(namespace: Namespace, name: str, stage: str) -> Json:
    """Wait until the Job tells that it has come so far, and return the status."""

    def reached() -> Json | None:
        status = status_of(namespace, name)
        assert status.get("phase") not in ENDED, told(status)
        return status if (status.get("progress") or {}).get("stage") == stage else None

    found = eventually(f"{name} is at {stage}", reached, within_s=60)
    assert found is not None
    return found


def wait_until_ended(namespace: Namespace, name: str, within_s: float = 120.0) -> Json:
    """Wait for the end, and return the status."""
    eventually(
        f"{name} has ended", lambda: status_of(namespace, name).get("phase") in ENDED, within_s=within_s, every_s=1
    )
    return status_of(namespace, name)


def with_cpu(run: Callable[[int], Json], *, meant: Set[str] = frozenset()) -> Json:
    """Run it anew, some times, where the machine was too busy to measure: the node has its two cores for all that is on it.

    Args:
        run: Takes the number of the try and gives the status at the end.
        meant: Reasons that are what is to be seen.
    """
    for number in range(TRIES):
        status = run(number)
        if not refusals(status) & (BUSY - meant):
            break
    return status


def refusals(status: Json) -> set[str]:
    """Reasons why something has no numbers."""
    failed = {c["reason"] for c in status.get("conditions") or () if c["type"] == "Failed" and c["status"] == "True"}
    return failed | {row["reason"] for row in status.get("results") or () if row.get("reason")}


def whole_result(namespace: Namespace, name: str) -> Result:
    """The document in the ConfigMap."""
    found = namespace.api.get(CONFIG_MAPS, namespace.name, names.benchmark_result_name(name))
    assert found is not None
    return Result.model_validate_json(found["data"]["result"])


def told(status: Json) -> str:
    """The status, for the message of a failed assertion."""
    return json.dumps(status, indent=1)[:6000]
