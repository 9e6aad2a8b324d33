"""Result documents of Benchmarks: from files, and from the cluster."""

import json
import math
import sys
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from draftmark.api import names
from draftmark.cli.endings import fail
from draftmark.measure.report import plain
from draftmark.measure.result import Result

if TYPE_CHECKING:
    from draftmark.cli.connection import Cluster

__all__ = ["from_cluster", "from_file", "reason_of"]

_SCHEMA_VERSION = 1


def from_file(name: str) -> Result:
    """The result in a file, or on stdin when the name is `-`."""
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        fail(f"{name}: {error}")
    return _read(text, name)


def from_cluster(cluster: "Cluster", name: str) -> Result:
    """The result of a Benchmark of the chosen namespace.

    The name of a ConfigMap says little: one of an earlier Benchmark of the same name may still be there, and anybody may
    write into it. So it counts only with the digest that the status has, and when it bears the Benchmark's uid.
    """
    from draftmark.cluster.kinds import CONFIG_MAPS

    benchmark = cluster.benchmark(name)
    where = f"{cluster.namespace}/{name}"
    status: Mapping[str, Any] = benchmark.get("status") or {}
    phase, report = status.get("phase"), status.get("report") or {}
    if phase not in ("Succeeded", "Inconclusive", "Failed"):
        fail(
            f"{where} has no result yet (phase {phase or 'not set'}). Wait for it with kubectl draftmark bench {name} -n "
            f"{cluster.namespace} --watch."
        )
    if not (config_map := report.get("configMap")):
        reason, message = reason_of(status)
        fail(f"{where} ended without a result: {phase}, {reason}: {message}")
    text = (cluster.get(CONFIG_MAPS, config_map).get("data") or {}).get("result")
    if not isinstance(text, str):
        fail(f"ConfigMap '{config_map}' of {where} has no key 'result'. The result is lost: run the Benchmark again.")
    if sha256(text.encode()).hexdigest() != report.get("sha256"):
        fail(
            f"ConfigMap '{config_map}' holds another result than the one that {where} ended with: its digest differs from "
            "status.report.sha256. Somebody has changed it; run the Benchmark again."
        )
    result = _read(text, f"ConfigMap '{config_map}'")
    if result.uid != benchmark["metadata"].get("uid"):
        fail(f"ConfigMap '{config_map}' holds the result of an earlier Benchmark '{name}'. Run this one again.")
    return result


def reason_of(status: Mapping[str, Any]) -> tuple[str, str]:
    """Why a Benchmark is where it is: reason and message of its condition Complete."""
    for condition in status.get("conditions") or ():
        if condition.get("type") == "Complete":
            return plain(str(condition.get("reason"))), plain(str(condition.get("message")))
    return "Unknown", "the operator has not said why"


def _finite(text: str) -> float:
    """A number of JSON; Python would take NaN, Infinity and 1e999 as well, and nothing measures those."""
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text} is no number")
    return value


def _read(text: str, where: str) -> Result:
    try:
        data = json.loads(text, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        fail(
            f"{where} is no JSON ({error}). A result is what kubectl get configmap {names.benchmark_result_name('NAME')} "
            "-o jsonpath={.data.result} prints."
        )
    if (
        isinstance(data, dict)
        and isinstance(version := data.get("schemaVersion", 1), int)
        and version > _SCHEMA_VERSION
    ):
        fail(
            f"{where} has schemaVersion {version}; this version of Draftmark reads {_SCHEMA_VERSION}. Use a newer one."
        )
    try:
        return Result.model_validate(data)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        told = [f"{'.'.join(map(str, e['loc'])) or 'document'}: {e['msg']}" for e in found[:3]]
        more = f" (and {len(found) - 3} more)" if len(found) > 3 else ""
        fail(f"{where} is no result of a Benchmark: {plain('; '.join(told))}{more}.")
