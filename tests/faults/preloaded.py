"""What the server that forks operators has read and rendered before, so that none of dozens does it again.

Imported there alone. A first reconcile reads and compiles all templates, a first request imports what it is sent with.
"""

import gc

import anyio._backends._asyncio
import httpcore

from tests.faults import operator_process
from tests.simulation import Edit, Rest, empty_world, simulate
from tests.specs import spec

__all__ = ["anyio", "httpcore", "operator_process"]

simulate(empty_world(spec()), Rest(), Edit(spec(workload={"concurrency": 8})), Rest())
# A collection in a child would copy every page of what is read here.
gc.collect()
gc.freeze()
