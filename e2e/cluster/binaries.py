"""Programs compiled from Go: those of a cluster, from the Go module proxy, and the stand-in engine.

Each folder under `go/` is a Go module that pins its programs with go.mod and
go.sum. Kubernetes, containerd and Helm have separate modules because one
module could not hold the versions that all of them want.
"""

import os
import platform
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster import cache
from e2e.cluster.progress import say, step

KUBERNETES_VERSION = "1.35.4"
_GO = Path(__file__).parent / "go"
_VERSION_VARIABLES = {
    "gitVersion": f"v{KUBERNETES_VERSION}",
    "gitMajor": KUBERNETES_VERSION.split(".")[0],
    "gitMinor": KUBERNETES_VERSION.split(".")[1],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """A folder of Go and the programs to build from it."""

    name: str
    #: The folder, where it is not called like the module, and where that lies.
    source: str = ""
    root: Path = _GO
    #: Program name to Go package.
    programs: dict[str, str]
    ldflags: str = "-s -w"
    tags: str = ""

    @property
    def folder(self) -> Path:
        """Where the programs are, once built. The sources, and what else decides about the result, name it."""
        sources = [path for path in self._source.iterdir() if path.suffix in (".go", ".mod", ".sum")]
        options = (repr(sorted(self.programs.items())), self.ldflags, self.tags, platform.machine())
        return cache.folder() / "bin" / f"{self.name}-{cache.key(cache.files_key(self.root, sources), *options)}"

    @property
    def _source(self) -> Path:
        return self.root / (self.source or self.name)

    def build(self) -> Path:
        """Return the folder of the programs, built before if need be."""
        return cache.build_once(self.folder, self._build)

    def _build(self, target: Path) -> None:
        if not shutil.which("go"):
            raise RuntimeError(
                f"{self.name} is built from source and needs Go 1.21 or newer: https://go.dev/doc/install"
            )
        target.mkdir()
        for program, package in self.programs.items():
            with step(f"building {program}", slow=True):
                self._build_program(package, target / program)

    def _build_program(self, package: str, output: Path) -> None:
        # -v names each package when it has been compiled: a cold build is minutes, and silence looks like a hang.
        options = [
            "-v",
            "-trimpath",
            "-buildvcs=false",
            "-mod=readonly",
            f"-tags={self.tags}",
            f"-ldflags={self.ldflags}",
        ]
        process = subprocess.Popen(
            ["go", "build", *options, "-o", str(output), package],
            cwd=self._source,
            # Static, so that the programs also run in images that hold nothing else.
            env={**os.environ, "CGO_ENABLED": "0"},
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        lines: list[str] = []
        spoke = time.monotonic()
        for line in process.stderr:
            lines.append(line)
            if time.monotonic() - spoke > 15:
                spoke = time.monotonic()
                say(f"    {len(lines)} packages compiled or fetched")
        if process.wait() != 0:
            raise RuntimeError(f"go build {package} failed in {self._source}:\n{''.join(lines[-30:])}")


#: The module's version is not known to a dependent's build: without these variables the server says v0.0.0.
_KUBERNETES_LDFLAGS = "-s -w " + " ".join(
    f"-X k8s.io/component-base/version.{name}={value}" for name, value in _VERSION_VARIABLES.items()
)
_KUBERNETES_PROGRAMS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")
KUBERNETES = Module(
    name="kubernetes",
    programs={name: f"k8s.io/kubernetes/cmd/{name}" for name in _KUBERNETES_PROGRAMS}
    | {"etcd": "go.etcd.io/etcd/server/v3"},
    ldflags=_KUBERNETES_LDFLAGS,
)
#: Apart from the others: who has a cluster needs only this, and it also compiles where there are no Linux nodes.
KUBECTL = Module(
    name="kubectl",
    source="kubernetes",
    programs={"kubectl": "k8s.io/kubernetes/cmd/kubectl"},
    ldflags=_KUBERNETES_LDFLAGS,
)
CONTAINERD = Module(
    name="containerd",
    programs={
        name: f"github.com/containerd/containerd/v2/cmd/{name}"
        for name in ("containerd", "containerd-shim-runc-v2", "ctr")
    },
    ldflags="-s -w -X github.com/containerd/containerd/v2/version.Version=v2.4.2",
    tags="no_btrfs no_devmapper no_zfs",
)
HELM = Module(
    name="helm",
    programs={"helm": "helm.sh/helm/v4/cmd/helm"},
    ldflags="-s -w -X helm.sh/helm/v4/internal/version.version=v4.3.1",
)
COREDNS = Module(name="coredns", programs={"coredns": "."})
PAUSE = Module(name="pause", programs={"pause": "."})
#: Called like what it stands in for.
STANDIN = Module(name="standin", root=_GO.parents[1], programs={"llama-server": "."})
KIND = Module(name="kind", programs={"kind": "sigs.k8s.io/kind"})
KWOK = Module(name="kwok", programs={"kwok": "sigs.k8s.io/kwok/cmd/kwok"})

#: What the own cluster needs; kind is built only where a Docker engine answers, KWOK only for a benchmark.
ALL = (KUBERNETES, KUBECTL, CONTAINERD, HELM, COREDNS, PAUSE)
