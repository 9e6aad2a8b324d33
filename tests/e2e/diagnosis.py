"""What the cluster knows, for the output of a test that failed: what is not as it should be first, and little of the
rest."""

import json
from typing import Any, Final

from draftmark.api import names
from e2e.tools import RESOURCE, SYSTEM_NAMESPACE, Tools

#: Characters that are shown of one answer.
_SHOWN: Final = 3000
#: Lines of a log, and pods whose logs are shown.
_LOG_LINES: Final = 25
_PODS: Final = 8


def diagnose(tools: Tools) -> str:
    """Services that are not Ready, pods that are not, warnings, and the logs of those pods and of the operator."""
    pods = _items(tools, "pods")
    broken = [pod for pod in pods if _is_broken(pod)]
    operators = [pod for pod in pods if pod["metadata"]["namespace"] == SYSTEM_NAMESPACE and pod not in broken]
    parts = [
        _titled("services that are not Ready", _services(_items(tools, RESOURCE))),
        _titled("pods that are not ready", [_pod_line(pod) for pod in broken]),
        _titled("the latest warnings", _warnings(_items(tools, "events"))),
    ]
    parts += [_log(tools, pod) for pod in [*broken, *operators][:_PODS]]
    return "\n".join(parts)


def _items(tools: Tools, kind: str) -> list[dict[str, Any]]:
    try:
        found: list[dict[str, Any]] = json.loads(_ask(tools, "get", kind, "--all-namespaces", "-o", "json"))["items"]
    except (ValueError, KeyError):
        return []
    return found


def _services(services: list[dict[str, Any]]) -> list[str]:
    lines = []
    for service in services:
        metadata, status = service["metadata"], service.get("status", {})
        conditions = {c["type"]: c for c in status.get("conditions") or ()}
        if conditions.get("Ready", {}).get("status") == "True":
            continue
        seen = f"generation {metadata.get('generation')}, observed {status.get('observedGeneration')}"
        lines.append(f"{metadata['namespace']}/{metadata['name']} ({seen})")
        lines += [f"  {c['type']}={c['status']} {c['reason']}: {c['message'][:200]}" for c in conditions.values()]
    return lines


def _is_broken(pod: dict[str, Any]) -> bool:
    conditions = {c["type"]: c["status"] for c in pod.get("status", {}).get("conditions") or ()}
    return conditions.get("Ready") != "True" and pod.get("status", {}).get("phase") != "Succeeded"


def _pod_line(pod: dict[str, Any]) -> str:
    metadata, status = pod["metadata"], pod.get("status", {})
    states = [
        f"{c['name']}: {'ready' if c['ready'] else 'not ready'}, {c['restartCount']} restarts, "
        f"{json.dumps(c.get('state', {}))[:200]}"
        for c in status.get("containerStatuses") or ()
    ]
    going = ", being deleted" if metadata.get("deletionTimestamp") else ""
    since = metadata.get("creationTimestamp")
    return f"{metadata['namespace']}/{metadata['name']} {status.get('phase')} since {since}{going}: {'; '.join(states)}"


def _warnings(events: list[dict[str, Any]]) -> list[str]:
    found = sorted(
        (e for e in events if e.get("type") == "Warning"), key=lambda e: str(e["metadata"].get("creationTimestamp"))
    )
    return [
        f"{e['metadata'].get('creationTimestamp')} {e['involvedObject'].get('name')} {e.get('reason')}: "
        f"{str(e.get('message'))[:200]}"
        for e in found[-15:]
    ]


def _log(tools: Tools, pod: dict[str, Any]) -> str:
    metadata = pod["metadata"]
    role = metadata.get("labels", {}).get(names.LABEL_ROLE, "operator")
    said = _ask(
        tools,
        "logs",
        metadata["name"],
        f"--namespace={metadata['namespace']}",
        f"--tail={_LOG_LINES}",
        "--all-containers",
    )
    return f"--- log of {metadata['name']} ({role})\n{said[-_SHOWN:]}"


def _titled(title: str, lines: list[str]) -> str:
    text = "\n".join(lines)
    return f"--- {title}\n{text[:_SHOWN] or 'none'}"


def _ask(tools: Tools, *arguments: str) -> str:
    try:
        return tools.kubectl(*arguments, "--request-timeout=10s")
    except RuntimeError as error:
        return str(error)
