"""What `draftmark render` prints, and how it compares with what is in the cluster."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from e2e.cluster.images import REPOSITORY
from e2e.tools import read_defaults
from tests.e2e.api import Json
from tests.e2e.installed import Installed


def render(service: Json, installed: Installed, folder: Path) -> dict[tuple[str, str], Json]:
    """The children that `draftmark render` makes of a service, by kind and name, with the cluster's nodes and defaults."""
    files = {"service.yaml": yaml.safe_dump(service), "defaults.yaml": read_defaults(installed.tools)}
    files["nodes.yaml"] = installed.tools.kubectl("get", "nodes", "-o", "yaml")
    for name, text in files.items():
        (folder / name).write_text(text)
    command = [sys.executable, "-m", "draftmark.cli", "render", f"--filename={folder}/service.yaml"]
    command += [f"--defaults={folder}/defaults.yaml", f"--nodes={folder}/nodes.yaml"]
    environment = {"PYTHONPATH": str(REPOSITORY / "operator"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return {(each["kind"], each["metadata"]["name"]): each for each in yaml.safe_load_all(done.stdout)}


def missing(wanted: Any, live: Any, path: str) -> list[str]:
    """Where the live object lacks something of the rendered one; what others added to it is theirs."""
    if isinstance(wanted, dict) and isinstance(live, dict):
        return [p for key, value in wanted.items() for p in missing(value, live.get(key), f"{path}.{key}")]
    if isinstance(wanted, list) and isinstance(live, list) and len(wanted) == len(live):
        pairs = zip(wanted, live, strict=True)
        return [p for i, (one, other) in enumerate(pairs) for p in missing(one, other, f"{path}[{i}]")]
    return [] if wanted == live else [f"{path}: {wanted!r} is {live!r}"]
