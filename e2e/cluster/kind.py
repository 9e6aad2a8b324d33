"""A cluster in Docker, for machines that have Docker: kind, pinned as a Go module.

Not yet tried: no machine of ours has a Docker engine.
"""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster import binaries, cache
from e2e.cluster.images import REPOSITORY, Image, build_files, containerfile
from e2e.cluster.progress import say, step


def docker_answers() -> bool:
    """Whether a Docker engine is there; the client alone is no use."""
    if not shutil.which("docker"):
        return False
    return subprocess.run(["docker", "info"], capture_output=True, timeout=20).returncode == 0


def docker_build(name: str, repository: str) -> str:
    """Build one of our images from its public base image, and return its reference."""
    reference = f"{repository}/{name}:{cache.files_key(REPOSITORY, build_files(name))}"
    with step(f"building {reference}", slow=True):
        _run("docker", "build", f"--file={containerfile(name)}", f"--tag={reference}", str(REPOSITORY))
    return reference


@dataclass(frozen=True, slots=True)
class Kind:
    """A one-node cluster of kind."""

    name: str

    @property
    def kubeconfig(self) -> Path:
        return cache.folder() / "clusters" / f"kind-{self.name}" / "kubeconfig"

    def up(self) -> None:
        if self._id in self._kind("get", "clusters").split():
            say(f"  kind cluster {self._id} is up already: KUBECONFIG={self.kubeconfig}")
            self._kind("export", "kubeconfig", f"--name={self._id}", f"--kubeconfig={self.kubeconfig}")
            return
        with step(f"kind create cluster --name {self._id}", slow=True):
            self._kind("create", "cluster", f"--name={self._id}", f"--kubeconfig={self.kubeconfig}", "--wait=180s")

    def down(self) -> None:
        with step(f"kind delete cluster --name {self._id}"):
            self._kind("delete", "cluster", f"--name={self._id}", f"--kubeconfig={self.kubeconfig}")
        shutil.rmtree(self.kubeconfig.parent, ignore_errors=True)

    def load(self, reference: str) -> None:
        with step(f"loading {reference}", slow=True):
            self._kind("load", "docker-image", f"--name={self._id}", reference)

    def load_archive(self, image: Image) -> None:
        with step(f"loading {image.reference}"):
            self._kind("load", "image-archive", f"--name={self._id}", str(image.archive))

    def copy_to_node(self, file: Path, folder: str) -> None:
        node = f"{self._id}-control-plane"
        _run("docker", "exec", node, "mkdir", "-p", folder)
        _run("docker", "cp", str(file), f"{node}:{folder}/{file.name}")

    @property
    def _id(self) -> str:
        return f"draftmark-{self.name}"

    def _kind(self, *arguments: str) -> str:
        self.kubeconfig.parent.mkdir(parents=True, exist_ok=True)
        return _run(str(binaries.KIND.build() / "kind"), *arguments)


def _run(*command: str) -> str:
    done = subprocess.run(command, text=True, capture_output=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return done.stdout
