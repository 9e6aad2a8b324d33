"""All benchmarks, one after the other: `make bench`."""

import subprocess
import sys

MODULES = ("bench.decisions", "bench.cluster_memory", "bench.data_path")

if __name__ == "__main__":
    for module in MODULES:
        print(f"== {module}", flush=True)
        subprocess.run([sys.executable, "-m", module], check=True)
