"""`python -m e2e.prepare`: make what the tests run on, before they run.

Debian packages, the programs of the control plane and the node, and the images.
All of it is kept in the cache and found there the next time; the tests would
make what is missing too, but a test that compiles Kubernetes looks like one
that hangs.
"""

import sys
import tempfile
import time
from pathlib import Path

from e2e import benchmark_packages, browser, tiny_gguf
from e2e.cluster import binaries, images, packages, prometheus
from e2e.cluster.choose import Own, choose_for_tests
from e2e.cluster.progress import say, step
from e2e.models import FILE


def prepare() -> None:
    """Make everything, and say what and how long it took."""
    began = time.monotonic()
    say("1. choose a cluster")
    is_own = isinstance(choose_for_tests(), Own)
    say("2. Debian packages")
    if is_own:
        with step("present"):
            packages.ensure(*packages.NODE, *packages.IMAGES)
    else:
        say("  none: the cluster's node and its images come from Docker")
    say("3. programs, from the Go module proxy")
    for module in (
        *(binaries.ALL if is_own else (binaries.KUBERNETES, binaries.KUBECTL, binaries.HELM, binaries.KIND)),
        binaries.STANDIN,
    ):
        with step(f"{', '.join(module.programs)}"):
            module.build()
    say("4. images")
    if is_own:
        for make in images.ALL:
            with step(make.__name__):
                make()
        with step("promtool, for the tests of rules"):
            prometheus.promtool()
    say("5. a browser")
    with step("Chromium, for the tests of reports"):
        browser.program()
    for each in (images.standin, tiny_model_image):
        with step(each.__name__.replace("_", " ")):
            each()
    with step("packages of the benchmark's program"):
        benchmark_packages.folder()
    say(f"prepared in {time.monotonic() - began:.0f} s")


def tiny_model_image() -> images.Image:
    """The tiny model as an image."""
    with tempfile.TemporaryDirectory() as folder:
        return images.model(tiny_gguf.write(Path(folder) / FILE))


if __name__ == "__main__":
    try:
        prepare()
    except (RuntimeError, TimeoutError) as error:
        sys.exit(f"error: {error}")
