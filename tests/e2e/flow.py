"""Services with the stand-in engine: slow where a stream must be long, and counting what reaches it."""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from e2e import standin
from e2e.tools import RESOURCE
from tests.e2e.api import Json, Namespace
from tests.e2e.installed import Installed, inference_service

#: Version whose command line the stand-in speaks.
VERSION: Final = "v0.7.0"


def standin_service(
    installed: Installed, name: str, *, behaviour: Mapping[str, object] | None = None, **spec: Any
) -> Json:
    """A service of the stand-in.

    Args:
        behaviour: Its environment variables, without `STANDIN_`.
        spec: Parts of the spec.
    """
    env = [{"name": f"STANDIN_{key}", "value": str(value)} for key, value in (behaviour or {}).items()]
    resources = {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "128Mi"}}
    engine = {"image": installed.standin, "version": VERSION, "env": env, "resources": resources}
    traffic = {"requestTimeout": "20s", "queueTimeout": "5s", **spec.pop("traffic", {})}
    return inference_service(name, engine={**engine, **spec.pop("engine", {})}, traffic=traffic, **spec)


def revisions(namespace: Namespace, name: str) -> dict[str, Json]:
    """What the status says of each revision."""
    return {r["hash"]: r for r in namespace.service(name)["status"].get("revisions") or ()}


def current_revision(namespace: Namespace, name: str) -> str:
    """The revision of which the status speaks first: the one that is asked for."""
    return str(namespace.service(name)["status"]["revisions"][0]["hash"])


def times_seen(namespace: Namespace, name: str) -> Counter[str]:
    """How often each request reached an engine, over the logs of all pods that are there, those that go included."""
    log = namespace.tools.kubectl(
        *("logs", f"--namespace={namespace.name}", "--tail=-1", "--prefix=false", "--max-log-requests=50"),
        f"--selector=draftmark.dev/service={name},draftmark.dev/role=engine",
    )
    return Counter({request: counted["seen"] for request, counted in standin.events(log).items()})


def status_text(namespace: Namespace, name: str) -> str:
    """The status, for the message of a failed assertion."""
    return json.dumps(namespace.service(name).get("status"), indent=1)[:4000] + f"\n(kubectl get {RESOURCE} {name})"
