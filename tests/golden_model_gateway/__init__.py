"""ModelGateways and what follows from them, as a reviewer reads it. `python -m tests.golden_model_gateway` writes it."""

from pathlib import Path
from typing import Any

from draftmark.api import names
from draftmark.api.defaults import Defaults, NetworkDefaults, TrafficDefaults
from draftmark.model_gateway.decide import decide_model_gateway
from draftmark.model_gateway.observation import ModelGatewayObservation
from draftmark.render.yaml_io import dump_manifests

FOLDER = Path(__file__).parent


def gateway(name: str = "all", *, status: Any = None, **spec: Any) -> dict[str, Any]:
    """A ModelGateway as the API server has it."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.MODEL_GATEWAY_KIND,
        "metadata": {"name": name, "namespace": "team", "uid": "uid-1", "generation": 1},
        "spec": spec,
        **({"status": status} if status else {}),
    }


def service(name: str, *, model: str | None = None, served: str | None = None, at: str = "", **traffic: Any) -> Any:
    """An InferenceService, as far as a gateway looks at it."""
    return {
        "metadata": {"name": name, "namespace": "team", "creationTimestamp": at or "2026-01-01T00:00:00Z"},
        "spec": {"model": {"uri": "pvc://c/m.gguf", "name": model}, "traffic": traffic or None},
        "status": {"model": served},
    }


CASES = {
    # Two services, one of which has a name of its own and longer time-outs; a third has no address yet.
    "two": ModelGatewayObservation(
        gateway=gateway(),
        services=(
            service("qwen", model="Qwen/Qwen2.5-0.5B:Q4_K_M", requestTimeout="1h", queueTimeout="2m"),
            service("tiny"),
            service("coming"),
        ),
        addresses={"qwen": "10.96.0.20", "tiny": "10.96.0.21"},
    ),
    # The cluster's Services have IPv6 addresses; the administrator has images and a monitoring namespace.
    "ipv6": ModelGatewayObservation(
        gateway=gateway(replicas=3, maxBodyBytes="1Mi"),
        services=(service("tiny"),),
        addresses={"tiny": "fd00:10:96::20"},
        defaults=Defaults(
            traffic=TrafficDefaults(
                gateway_image="registry.example/haproxy:3.0", reloader_image="registry.example/draftmark:1"
            ),
            network=NetworkDefaults(operator_namespace="ops", monitoring_namespaces=("monitoring",)),
        ),
    ),
    # A namespace without services.
    "empty": ModelGatewayObservation(gateway=gateway(), services=()),
}


def outputs(case: str) -> dict[Path, str]:
    """What follows now, by the file that holds what is expected: manifests, and the configuration as files."""
    desired = decide_model_gateway(CASES[case]).desired
    (config,) = (m for m in desired if m["kind"] == "ConfigMap")
    others = [m for m in desired if m["kind"] != "ConfigMap"]
    # The script is the same everywhere, and the commands are none.
    files = {name: text for name, text in config["data"].items() if name not in ("model.lua", "commands")}
    return {FOLDER / case / name: text for name, text in {"manifests.yaml": dump_manifests(others), **files}.items()}
