"""The Debian packages that a node and the image builds need."""

import os
import shutil
import subprocess

from e2e.cluster.progress import say, step

NODE = ("runc", "iptables", "iproute2", "util-linux", "containernetworking-plugins", "conntrack", "openssl")
IMAGES = ("buildah", "mmdebstrap", "debian-archive-keyring")


def ensure(*names: str) -> None:
    """Install what is missing.

    Raises:
        RuntimeError: Packages are missing and cannot be installed here.
    """
    missing = [name for name in names if not _is_installed(name)]
    if not missing:
        return
    command = f"apt-get install {' '.join(missing)}"
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise RuntimeError(
            f"This needs the Debian packages {', '.join(missing)}, and only root on Debian can install them here. "
            f"Run '{command}' as root, or use a machine with Docker, or set KUBECONFIG."
        )
    say(f"  missing Debian packages: {', '.join(missing)}")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with step("apt-get update", slow=True):
        subprocess.run(["apt-get", "update", "-qq"], check=True, env=quiet)
    with step(command, slow=True):
        subprocess.run(
            ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing],
            check=True,
            env=quiet,
            stdout=subprocess.DEVNULL,
        )


def _is_installed(name: str) -> bool:
    if not shutil.which("dpkg-query"):
        return False
    answer = subprocess.run(["dpkg-query", "-W", "-f=${db:Status-Status}", name], capture_output=True, text=True)
    return answer.stdout == "installed"
