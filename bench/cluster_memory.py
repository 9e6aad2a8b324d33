"""What the cache of 5,000 services costs: memory, CPU per event, CPU per read.

Four children per service, shaped as the operator writes them. No network: objects go straight into the informer.
Run: `.venv/bin/python bench/cluster_memory.py [--services 5000]`.
"""

import argparse
import gc
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from draftmark.cluster.client import ApiClient
from draftmark.cluster.informer import Informer
from draftmark.cluster.kinds import DEPLOYMENTS
from draftmark.cluster.wire import decode, dump

Json = dict[str, Any]


def child(service: int, role: int) -> Json:
    """About 3 KB of JSON, with the record of field owners that the API server adds."""
    name = f"service-{service}-{role}"
    metadata = {
        "name": name,
        "namespace": f"team-{service % 50}",
        "uid": f"{service:08d}-{role:04d}-4000-8000-000000000000",
        "resourceVersion": str(1000 + service * 4 + role),
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "labels": {f"draftmark.dev/{key}": name for key in ("service", "role", "revision")},
        "annotations": {"draftmark.dev/applied": f"{service:016x}"},
        "ownerReferences": [
            {"kind": "InferenceService", "name": name, "uid": f"owner-{service}", "controller": True},
        ],
        "managedFields": [{"manager": "draftmark", "fieldsV1": {f"f:{i}": {"f:x": {}} for i in range(60)}}],
    }
    container = {
        "name": "engine",
        "image": "registry.example.com/llama-cpp-cpu:b9999",
        "args": [f"--flag-{i}=value-{service}" for i in range(20)],
        "env": [{"name": f"NAME_{i}", "value": f"value {i}"} for i in range(8)],
        "resources": {"limits": {"cpu": "4", "memory": "16Gi"}, "requests": {"cpu": "4", "memory": "16Gi"}},
        "startupProbe": {"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": 5, "failureThreshold": 120},
        "livenessProbe": {"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": 10},
        "volumeMounts": [{"name": f"volume-{i}", "mountPath": f"/mnt/{i}", "readOnly": True} for i in range(4)],
    }
    conditions = [
        {
            "type": kind,
            "status": "True",
            "lastUpdateTime": "2026-01-01T00:00:00Z",
            "reason": "Because",
            "message": "x" * 60,
        }
        for kind in ("Available", "Progressing")
    ]
    spec = {
        "replicas": 1,
        "selector": {"matchLabels": metadata["labels"]},
        "template": {"spec": {"containers": [container]}},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": spec,
        "status": {"conditions": conditions, "replicas": 1, "readyReplicas": 1},
    }


def without_managed_fields(obj: Json) -> Json:
    return {**obj, "metadata": {key: value for key, value in obj["metadata"].items() if key != "managedFields"}}


def resident_mib() -> float:
    gc.collect()
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("/proc/self/status has no VmRSS")


def informer_mib(lines: list[bytes]) -> float:
    """What the informer keeps: packed objects, their names, and which belong together."""
    informer: Informer[Json] = Informer(cast(ApiClient, None), DEPLOYMENTS)
    before, started = resident_mib(), time.process_time()
    for line in lines:
        informer.absorb(decode(line))
    stored = time.process_time() - started
    kept = resident_mib() - before
    started = time.process_time()
    reads = 5000
    for service in range(reads):
        informer.owned_by(f"owner-{service % (len(lines) // 4)}")
    read = time.process_time() - started
    print(
        f"  {stored / len(lines) * 1e6:.0f} us per event (parsing included), "
        f"{read / reads * 1e6:.0f} us to read the four children of a service"
    )
    return kept


def list_mib(lines: list[bytes], keep: Callable[[Json], object]) -> float:
    """What a list of the same objects takes."""
    before = resident_mib()
    kept = [keep(without_managed_fields(decode(line))) for line in lines]
    taken = resident_mib() - before
    assert len(kept) == len(lines)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--services", type=int, default=5000)
    services = parser.parse_args().services
    lines = [dump(child(service, role)) for service in range(services) for role in range(4)]
    print(f"{len(lines)} objects of {len(lines[0])} bytes of JSON")
    packed = informer_mib(lines)
    compressed = list_mib(lines, lambda obj: zlib.compress(dump(obj), 1))
    dicts = list_mib(lines, lambda obj: obj)
    print(
        f"  {packed:.0f} MiB in the informer, {compressed:.0f} MiB ({compressed / packed:.1f} times that) in a list of "
        f"compressed JSON, {dicts:.0f} MiB ({dicts / packed:.1f} times that) as dicts"
    )


if __name__ == "__main__":
    main()
