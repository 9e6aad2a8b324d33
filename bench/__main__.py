"""All benchmarks, one after the other: `make bench`. Most take a minute or two; the last two a quarter of an hour each.

`bench.noise` is not among them: it is of use only on a machine that does nothing else.
"""

import subprocess
import sys

MODULES = (
    "bench.decisions",
    "bench.planning",
    "bench.comparisons",
    "bench.cluster_memory",
    "bench.data_path",
    "bench.scale",
    "bench.scale_kwok",
)

if __name__ == "__main__":
    for module in MODULES:
        print(f"== {module}", flush=True)
        subprocess.run([sys.executable, "-m", module], check=True)
