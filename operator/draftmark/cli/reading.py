"""What the commands that watch read from the cluster: services with what belongs to them, and what pods say."""

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, TypeVar

from draftmark.api import names
from draftmark.cli.connection import Cluster, ClusterError, Json
from draftmark.cli.load_table import Answers, EnginePage, GatewayState, read_engine_page, read_state
from draftmark.cli.overview import Seen, label, role_of
from draftmark.cluster.kinds import DEPLOYMENTS, INFERENCE_SERVICES, PODS

__all__ = ["ask_pods", "see", "see_all"]

_T = TypeVar("_T")

#: Pods that are asked at once.
_AT_ONCE: Final = 16
#: Silent pods that are told one by one; one cause often silences all.
_MAX_NOTES: Final = 5


def see(cluster: Cluster, name: str) -> Seen:
    """One service, and what carries its label.

    Raises:
        ClusterError: It does not exist, or something cannot be read.
    """
    service = cluster.service(name)
    selector = f"{names.LABEL_SERVICE}={name}"
    return Seen(
        service=service,
        deployments=cluster.list_all(DEPLOYMENTS, cluster.namespace, selector),
        pods=cluster.list_all(PODS, cluster.namespace, selector),
    )


def see_all(cluster: Cluster, namespace: str | None) -> list[Seen]:
    """All services of a namespace, or of all namespaces."""
    services = cluster.list_all(INFERENCE_SERVICES, namespace)
    deployments = _by_service(cluster.list_all(DEPLOYMENTS, namespace, names.LABEL_SERVICE))
    pods = _by_service(cluster.list_all(PODS, namespace, names.LABEL_SERVICE))
    found = []
    for service in sorted(services, key=lambda s: (s["metadata"]["namespace"], s["metadata"]["name"])):
        key = (service["metadata"]["namespace"], service["metadata"]["name"])
        found.append(Seen(service=service, deployments=deployments.get(key, ()), pods=pods.get(key, ())))
    return found


def _by_service(items: Iterable[Json]) -> dict[tuple[str, str | None], list[Json]]:
    found: dict[tuple[str, str | None], list[Json]] = {}
    for item in items:
        found.setdefault((item["metadata"]["namespace"], label(item, names.LABEL_SERVICE)), []).append(item)
    return found


def ask_pods(
    cluster: Cluster, services: Iterable[Seen], before: Mapping[tuple[str, str], Answers] | None = None
) -> tuple[dict[tuple[str, str], Answers], list[str]]:
    """What the running gateways and engines of services say of themselves, and who did not answer and why.

    Args:
        before: The answers of the reading before, for rates.
    """
    answers: dict[tuple[str, str], Answers] = {}
    notes: list[str] = []
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        asked = []
        for seen in services:
            namespace, name = seen.service["metadata"]["namespace"], seen.service["metadata"]["name"]
            running = [p for p in seen.pods if (p.get("status") or {}).get("phase") == "Running"]
            gateways = {
                str(p["metadata"]["name"]): pool.submit(_ask, partial(_ask_gateway, cluster, p))
                for p in running
                if role_of(p) == names.ROLE_GATEWAY
            }
            engines = {
                str(p["metadata"]["name"]): pool.submit(_ask, partial(_ask_engine, cluster, p))
                for p in running
                if role_of(p) == names.ROLE_ENGINE and _metrics_of(p) is not None
            }
            asked.append(((namespace, name), gateways, engines))
        for key, gateways, engines in asked:
            said: list[tuple[str, object]] = [(pod, gateway.result()) for pod, gateway in gateways.items()]
            said += [(pod, engine.result()) for pod, engine in engines.items()]
            notes += [f"{key[0]}/{pod} does not answer: {answer}" for pod, answer in said if isinstance(answer, str)]
            last = (before or {}).get(key)
            answers[key] = Answers(
                gateways={pod: _or_none(f.result()) for pod, f in gateways.items()},
                engines={pod: _or_none(f.result()) for pod, f in engines.items()},
                engines_before=last.engines if last is not None else {},
            )
    return answers, notes if len(notes) <= _MAX_NOTES else [
        *notes[:_MAX_NOTES],
        f"and {len(notes) - _MAX_NOTES} more pods do not answer.",
    ]


def _or_none(answer: _T | str) -> _T | None:
    return None if isinstance(answer, str) else answer


def _ask(question: Callable[[], _T]) -> _T | str:
    """The answer, or why there is none."""
    try:
        return question()
    except (ClusterError, ValueError) as error:
        return str(error)


def _ask_gateway(cluster: Cluster, pod: Json) -> GatewayState:
    metadata = pod["metadata"]
    return read_state(
        cluster.ask_pod(metadata["namespace"], metadata["name"], names.GATEWAY_INNER_PORT, names.GATEWAY_STATE_PATH)
    )


def _ask_engine(cluster: Cluster, pod: Json) -> EnginePage:
    metadata, at = pod["metadata"], _metrics_of(pod)
    assert at is not None
    return read_engine_page(cluster.ask_pod(metadata["namespace"], metadata["name"], *at), time.monotonic())


def _metrics_of(pod: Json) -> tuple[int, str] | None:
    """Port and path of the metrics, as the pod's annotations say."""
    annotations = pod["metadata"].get("annotations") or {}
    port = str(annotations.get("prometheus.io/port", ""))
    return (int(port), str(annotations.get("prometheus.io/path") or "/metrics")) if port.isdigit() else None
