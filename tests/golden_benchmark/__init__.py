"""Benchmarks and what follows from them, as a reviewer reads it. `python -m tests.update_golden` writes it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from draftmark.api.defaults import BenchmarkDefaults, Defaults, HubDefaults
from draftmark.benchmark.decide import decide_benchmark
from draftmark.benchmark.observation import BenchmarkObservation
from draftmark.observation import Observation
from draftmark.render.benchmark import ORDER_FILE
from draftmark.render.yaml_io import dump_manifests
from tests import specs
from tests.benchmark.world import benchmark, serving
from tests.specs import T0

FOLDER = Path(__file__).parent

_HUB = {"uri": "hf://org/repo", "revision": "main", "authSecretRef": {"name": "hub", "key": "token"}}
_GPU = {
    "model": _HUB | {"maxContextLength": 8192},
    "engine": {"name": "vllm"},
    "accelerator": {"product": "NVIDIA-L4", "count": 1},
}


def _on_node(target: Observation) -> Observation:
    """Its pods are on a node, which has told the digest of their image."""
    pods: list[Any] = []
    for pod in target.pods:
        (container,) = pod["status"]["containerStatuses"]
        told = {**container, "imageID": f"docker.io/example/engine@sha256:{'0' * 64}"}
        status = {**pod["status"], "containerStatuses": [told]}
        pods.append({**pod, "metadata": {**pod["metadata"], "uid": "uid-pod"}, "status": status})
    return replace(target, pods=tuple(pods))


CASES = {
    # Nothing is said but the target: a service on CPU with its model on a claim.
    "smallest": BenchmarkObservation(benchmark=benchmark(), targets={specs.NAME: _on_node(serving())}),
    # A model of the hub behind a token, on a GPU; the administrator has a mirror, pull secrets, a hub of
    # their own, and a Prometheus that knows what GPUs hold.
    "administrator": BenchmarkObservation(
        benchmark=benchmark(concurrency=[1, 32], warmUp="30s", requests=500, notes="after the upgrade"),
        targets={specs.NAME: serving(specs.spec(**_GPU))},
        defaults=Defaults.model_validate(
            {
                "registryMirror": "mirror.example",
                "imagePullSecrets": [{"name": "registry"}],
                "tolerations": [{"key": "inference", "operator": "Exists"}],
                "hub": HubDefaults(endpoint="https://hub.example/api").written(),
                "benchmarks": BenchmarkDefaults(
                    image="registry.example/benchmark:1", prometheus="http://prometheus-operated.monitoring.svc:9090/"
                ).written(),
            }
        ),
    ),
    # A comparison with a server of somebody else, with data of one's own and everything said.
    "everything": BenchmarkObservation(
        benchmark=benchmark(
            compare={
                "target": {"url": "http://other:8000/", "model": "org/other", "tokenizer": "hf://org/other"},
                "rounds": 8,
                "equalWithinPercent": 2.5,
            },
            workloads=[
                {"name": "long-context"},
                {"name": "two", "preset": "shared-prefix"},
                {
                    "name": "own", "promptTokens": 64, "outputTokens": 32, "sharedPrefixTokens": 16,
                    "promptSpread": {"standardDeviation": 8, "min": 16, "max": 96},
                },
                {"name": "asked", "outputTokens": 64, "dataset": {"configMap": {"name": "prompts", "key": "all.jsonl"}}},
                {"name": "filed", "outputTokens": 64, "dataset": {"claim": {"name": "data", "path": "a/prompts.jsonl"}}},
            ],
            requestRate=[0.5, 2],
            duration="2m",
            objectives={"ttft": {"p90": "800ms", "p99": "1.5s"}, "itl": {"p50": "40ms"}, "e2e": {"p99": "20s"}},
            allowedErrorPercent=1,
            allowedScatterPercent=10,
            requestTimeout="5m",
            result={"claim": {"name": "results", "path": "team/benchmarks"}},
            resources={"limits": {"cpu": "4", "memory": "2Gi"}},
            nodeSelector={"pool": "load"},
            tolerations=[{"key": "load", "operator": "Exists", "effect": "NoSchedule"}],
        ),
        targets={
            specs.NAME: serving(
                specs.spec(
                    model={"uri": "oci://registry.example/models:1", "maxContextLength": 8192},
                    podTemplate={
                        "nodeSelector": {"disk": "fast"},
                        "imagePullSecrets": [{"name": "models"}],
                        "securityContext": {"runAsUser": 1234, "runAsGroup": 1234},
                    },
                )
            )
        },
    ),
}  # fmt: skip


def outputs(case: str) -> dict[Path, str]:
    """What follows now, by the file that holds what is expected: manifests, and the order by itself."""
    decision = decide_benchmark(CASES[case], T0)
    assert decision.job is not None, decision.reason
    order = next(m for m in decision.needed if ORDER_FILE in m.get("data", {}))
    others = [m for m in (*decision.needed, decision.job) if m is not order]
    text = json.dumps(json.loads(order["data"][ORDER_FILE]), indent=2) + "\n"
    shell = {**order, "data": {ORDER_FILE: "(beside)"}}
    return {FOLDER / case / "manifests.yaml": dump_manifests([*others, shell]), FOLDER / case / "order.json": text}
