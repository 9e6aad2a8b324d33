"""Which cluster is used: what the user has comes before what we make.

For the demo a cluster that the user names wins, then kind where a Docker engine
answers, then a node of our own. Tests only ever use a cluster that they made.
Each choice says why it was made.
"""

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from e2e.cluster import cache, images
from e2e.cluster.cluster import Cluster
from e2e.cluster.images import REPOSITORY, Image
from e2e.cluster.kind import Kind, docker_answers, docker_build
from e2e.cluster.progress import say

#: Our images by the name of their folder under images/.
IMAGES = {
    "operator": images.operator,
    "gateway": images.gateway,
    "router": images.router,
    "benchmark": images.benchmark,
    "llama-cpp-cpu": images.llama_cpp,
    "vllm-cpu": images.vllm_cpu,
}


class Target(Protocol):
    """A cluster, whoever made it."""

    @property
    def kubeconfig(self) -> Path: ...

    def up(self) -> None: ...

    def deliver(self, name: str) -> str:
        """Build one of `IMAGES`, bring it to where the nodes find it, and return its reference."""

    def bring(self, image: Image) -> str:
        """Bring an image that is in the cache to where the nodes find it, and return its reference."""

    def place(self, file: Path) -> str | None:
        """Put a file, or a folder of files, on the node and return its folder there, or None where nodes are out of
        reach."""

    def down(self) -> bool:
        """Remove the cluster; False if it is not ours to remove."""


@dataclass(frozen=True, slots=True)
class Own:
    cluster: Cluster

    @property
    def kubeconfig(self) -> Path:
        return self.cluster.kubeconfig

    def up(self) -> None:
        self.cluster.up()

    def deliver(self, name: str) -> str:
        return self.bring(IMAGES[name]())

    def bring(self, image: Image) -> str:
        self.cluster.load([image])
        return image.reference

    def place(self, file: Path) -> str:
        folder = self.cluster.state / "models"
        folder.mkdir(exist_ok=True)
        if file.is_dir():
            shutil.copytree(file, folder / file.name, dirs_exist_ok=True)
        else:
            shutil.copy(file, folder)
        return str(folder)

    def down(self) -> bool:
        self.cluster.down()
        return True


@dataclass(frozen=True, slots=True)
class InKind:
    kind: Kind

    @property
    def kubeconfig(self) -> Path:
        return self.kind.kubeconfig

    def up(self) -> None:
        self.kind.up()

    def deliver(self, name: str) -> str:
        reference = docker_build(name, "localhost/draftmark")
        self.kind.load(reference)
        return reference

    def bring(self, image: Image) -> str:
        self.kind.load_archive(image)
        return image.reference

    def place(self, file: Path) -> str:
        self.kind.copy_to_node(file, "/models")
        return "/models"

    def down(self) -> bool:
        self.kind.down()
        return True


@dataclass(frozen=True, slots=True)
class Given:
    """The user's cluster, which takes its images from a registry."""

    kubeconfig: Path
    registry: str

    def up(self) -> None:
        """It is up, or not ours to bring up."""

    def deliver(self, name: str) -> str:
        if not docker_answers():
            return images.push(IMAGES[name](), self.registry)
        reference = docker_build(name, self.registry)
        subprocess.run(["docker", "push", reference], check=True)
        return reference

    def bring(self, image: Image) -> str:
        return images.push(image, self.registry)

    def place(self, file: Path) -> None:
        return None

    def down(self) -> bool:
        return False


def users_kubeconfig() -> str | None:
    """KUBECONFIG, unless it names a cluster that was made here: who looks at that one with kubectl has it in the environment."""
    given = os.environ.get("KUBECONFIG")
    if not given or Path(given).resolve().is_relative_to((cache.folder() / "clusters").resolve()):
        return None
    return given


def choose(name: str, *, egress: bool) -> Target:
    """Choose a cluster and say why.

    Raises:
        RuntimeError: There is none and none can be made here, or a setting is missing.
    """
    if given := users_kubeconfig():
        registry = os.environ.get("REGISTRY", "").rstrip("/")
        say(f"  cluster: the one of KUBECONFIG={given}, context {_context(given)}, because KUBECONFIG is set")
        if not registry:
            raise RuntimeError(
                "KUBECONFIG is set, and that cluster's nodes can only pull images from a registry. "
                "Set REGISTRY to one that you may push to and they may pull from, such as "
                "REGISTRY=registry.example.com/me, or unset KUBECONFIG to have a cluster made here."
            )
        return Given(Path(given), registry)
    return _make(
        name,
        egress=egress,
        because="KUBECONFIG names no cluster of yours and ",
        others="set KUBECONFIG and REGISTRY, or ",
    )


def choose_for_tests() -> Target:
    """Choose a cluster that is made for the tests of this checkout, and say why.

    Raises:
        RuntimeError: None can be made here.
    """
    if given := os.environ.get("KUBECONFIG"):
        say(f"  KUBECONFIG={given} is ignored: tests only use a cluster that they made")
    # Named after the checkout: a second checkout and a demo may be up at the same time.
    return _make(f"t{cache.key(str(REPOSITORY))[:6]}", egress=False, because="", others="")


def _make(name: str, *, egress: bool, because: str, others: str) -> Target:
    if docker_answers():
        say(f"  cluster: kind, called {name}, because {because}a Docker engine answers")
        return InKind(Kind(name))
    if platform.system() == "Linux" and os.geteuid() == 0:
        say(f"  cluster: one node made here, called {name}, because {because}no Docker engine answers")
        return Own(Cluster(name, egress=egress))
    raise RuntimeError(
        "No Docker engine answers, and only root on Linux can make a node. "
        f"Start Docker, or {others}run this as root on Debian."
    )


def _context(kubeconfig: str) -> str:
    """The current context; only asked of a kubectl that is there, since ours may first have to be built."""
    if kubectl := shutil.which("kubectl"):
        command = [kubectl, "config", "current-context"]
        answer = subprocess.run(command, text=True, capture_output=True, env={**os.environ, "KUBECONFIG": kubeconfig})
        return answer.stdout.strip() or "(none)"
    return "(unknown: no kubectl on PATH)"
