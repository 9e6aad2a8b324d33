"""What a decision costs, as a ratio to reading and writing the same manifests as JSON.

The ratio says how much of a reconcile is ours; the rate, on the machine that ran it, bounds how long a restart with
many services takes. Run: `python -m bench.decisions [--services 500]`.
"""

import argparse
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from draftmark.decide import decide
from draftmark.decision import Decision
from draftmark.observation import Observation
from draftmark.status import make_status

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def service(number: int) -> dict[str, Any]:
    return {
        "metadata": {"name": f"s{number}", "namespace": "default", "uid": f"uid-{number}", "generation": 1},
        "spec": {
            "model": {"uri": f"pvc://models/{number}.gguf"},
            "engine": {"name": "llama-cpp", "resources": {"limits": {"cpu": "2", "memory": "2Gi"}}},
            "replicas": 1,
        },
    }


def served(first: Observation, decision: Decision) -> Observation:
    """The same service once its children exist."""
    children: dict[str, tuple[Any, ...]] = {}
    for manifest in (*decision.pins, *decision.desired):
        live = {**manifest, "metadata": {**manifest["metadata"], "uid": "u", "generation": 1}}
        children[manifest["kind"]] = (*children.get(manifest["kind"], ()), live)
    status = make_status(first, decision, NOW)
    return Observation(service={**first.service, "status": status}, children=children)


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--services", type=int, default=500)
    count = parser.parse_args().services
    new = [Observation(service=service(number)) for number in range(count)]
    decisions: list[Decision] = []
    first_s = seconds(lambda: decisions.extend(decide(seen, NOW) for seen in new))
    running = [served(seen, decision) for seen, decision in zip(new, decisions, strict=True)]
    again_s = seconds(lambda: [make_status(seen, decide(seen, NOW), NOW) for seen in running])
    texts = [json.dumps([*d.pins, *d.desired]) for d in decisions]
    json_s = seconds(lambda: [json.dumps(json.loads(text)) for text in texts])
    print(f"{count} services, {sum(map(len, texts)) / count / 1024:.1f} KiB of manifests each")
    for name, spent in (("first decision", first_s), ("decision and status of a running service", again_s)):
        print(f"  {name}: {spent / count * 1e3:.2f} ms, {spent / json_s:.1f} times JSON in and out of its manifests")
    print(f"  JSON in and out: {json_s / count * 1e3:.3f} ms")


if __name__ == "__main__":
    main()
