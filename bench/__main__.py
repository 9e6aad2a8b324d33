"""All benchmarks that take minutes at most, one after the other: `make bench`.

Many services on one operator take longer, and say so: `bench.scale` (an API server of its own) and `bench.scale_kwok`
(a real one).
"""

import subprocess
import sys

MODULES = ("bench.decisions", "bench.cluster_memory", "bench.data_path")

if __name__ == "__main__":
    for module in MODULES:
        print(f"== {module}", flush=True)
        subprocess.run([sys.executable, "-m", module], check=True)
