"""What the cluster knows, for the output of a test that failed."""

import json
from typing import Final

from e2e.tools import RESOURCE, SYSTEM_NAMESPACE, Tools

#: Characters of one answer that are shown, and lines of a log.
_SHOWN: Final = 6000
_LOG_LINES: Final = 40
#: Pods whose logs are shown.
_PODS: Final = 8


def diagnose(tools: Tools) -> str:
    """Conditions, pods, events and logs, bounded."""
    parts = [
        _conditions(tools),
        _said(tools, "get", "pods", "--all-namespaces", "-o", "wide"),
        _said(tools, "get", "events", "--all-namespaces", "--sort-by=.metadata.creationTimestamp", tail=True),
    ]
    wanted = ("-o", r"jsonpath={range .items[*]}{.metadata.namespace} {.metadata.name}{'\n'}{end}")
    operators = _ask(tools, "get", "pods", f"--namespace={SYSTEM_NAMESPACE}", *wanted)
    unready = [
        line for line in _ask(tools, "get", "pods", "--all-namespaces", *wanted).splitlines() if "-engine-" in line
    ]
    for line in [*operators.splitlines(), *unready[: _PODS - 2]]:
        namespace, _, pod = line.partition(" ")
        parts.append(_said(tools, "logs", pod, f"--namespace={namespace}", f"--tail={_LOG_LINES}", tail=True))
    return "\n".join(parts)


def _conditions(tools: Tools) -> str:
    try:
        services = json.loads(_ask(tools, "get", RESOURCE, "--all-namespaces", "-o", "json"))["items"]
    except (ValueError, KeyError):
        return f"no {RESOURCE} can be read"
    lines = []
    for service in services:
        metadata, status = service["metadata"], service.get("status", {})
        seen = f"generation {metadata.get('generation')}, observed {status.get('observedGeneration')}"
        lines.append(f"{metadata['namespace']}/{metadata['name']} ({seen})")
        lines += [
            f"  {c['type']}={c['status']} {c['reason']}: {c['message'][:300]}" for c in status.get("conditions") or ()
        ]
    return "\n".join(lines)[: 2 * _SHOWN]


def _said(tools: Tools, *arguments: str, tail: bool = False) -> str:
    text = _ask(tools, *arguments)
    shown = text[-_SHOWN:] if tail else text[:_SHOWN]
    return f"$ kubectl {' '.join(arguments)}\n{shown}"


def _ask(tools: Tools, *arguments: str) -> str:
    try:
        return tools.kubectl(*arguments, "--request-timeout=10s")
    except RuntimeError as error:
        return str(error)
