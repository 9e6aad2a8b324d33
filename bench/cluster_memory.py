"""What the cache of many services costs: memory, processor time per event and per read.

The Deployments are those that the operator writes. No network: objects go straight into the informer.
Run: `python -m bench.cluster_memory [--services 2000]`.
"""

import argparse
import gc
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from bench.decisions import NOW, served, service
from draftmark.cluster.client import ApiClient
from draftmark.cluster.informer import Informer
from draftmark.cluster.kinds import DEPLOYMENTS
from draftmark.cluster.wire import decode, dump
from draftmark.decide import decide
from draftmark.observation import Observation

Json = dict[str, Any]


def deployments(number: int) -> list[Json]:
    """Engine, router and gateway of a service, as the operator writes them."""
    new = Observation(service=service(number))
    seen = served(new, decide(new, NOW)).owned("Deployment")
    return [
        {
            **one,
            "metadata": {
                **one["metadata"],
                "resourceVersion": str(1000 + number),
                # The record of field owners, which the API server adds and nobody keeps.
                "managedFields": [{"manager": "draftmark", "fieldsV1": {f"f:{i}": {"f:x": {}} for i in range(60)}}],
            },
        }
        for one in seen
    ]


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
    for number in range(reads):
        informer.owned_by(f"uid-{number % (len(lines) // 3)}")
    read = time.process_time() - started
    print(
        f"  {stored / len(lines) * 1e6:.0f} us per event (parsing included), "
        f"{read / reads * 1e6:.0f} us to read the three Deployments of a service"
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
    parser.add_argument("--services", type=int, default=2000)
    services = parser.parse_args().services
    lines = [dump(one) for number in range(services) for one in deployments(number)]
    print(f"{len(lines)} Deployments of {sum(map(len, lines)) / len(lines):.0f} bytes of JSON")
    packed = informer_mib(lines)
    compressed = list_mib(lines, lambda obj: zlib.compress(dump(obj), 1))
    dicts = list_mib(lines, lambda obj: obj)
    print(
        f"  {packed:.0f} MiB in the informer, {compressed:.0f} MiB ({compressed / packed:.1f} times that) in a list of "
        f"compressed JSON, {dicts:.0f} MiB ({dicts / packed:.1f} times that) as dicts"
    )


if __name__ == "__main__":
    main()
