"""Which nodes a service's pods may run on, and what those nodes offer together.

What the scheduler does with one pod, as far as it is a matter of the node and the pod's template: taints, nodeSelector,
required node affinity. What depends on other pods (free capacity, pod affinity, topology spread) is not here. Source:
Kubernetes, "Assigning Pods to Nodes" and "Taints and Tolerations"; component-helpers, scheduling/corev1.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from draftmark.api.inference_service import PodTemplate, Toleration
from draftmark.facts.accelerators import product_label
from draftmark.facts.devices import DeviceFacts
from draftmark.facts.nodes import NodeFacts, Taint

__all__ = ["Eligible", "LeftOut", "NodePool", "Reason", "eligible", "node_pools"]

#: Why a node is left out; the first that applies, in this order.
Reason = Literal["NoDevice", "Cordoned", "NotReady", "NodeSelector", "NodeAffinity", "OtherProduct", "Tainted"]

_ORDER: Final[tuple[Reason, ...]] = (
    "NoDevice", "Cordoned", "NotReady", "NodeSelector", "NodeAffinity", "OtherProduct", "Tainted",
)  # fmt: skip
#: Taints with these keep pods away; PreferNoSchedule only asks.
_FORBIDDING: Final = ("NoSchedule", "NoExecute")
#: Reasons that a message names. More would be a list that nobody reads.
_NAMED: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """Nodes that are left out for one reason."""

    reason: Reason
    count: int
    #: The taint, for `Tainted`.
    what: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Eligible:
    """The nodes that a service's pods may run on, and how many others there are."""

    nodes: tuple[NodeFacts, ...]
    #: By reason, in the order in which they are checked; of taints the most frequent first.
    left_out: tuple[LeftOut, ...] = ()
    #: What the pods ask for; None: no device.
    resource: str | None = None

    @property
    def total(self) -> int:
        """Nodes that were looked at."""
        return len(self.nodes) + sum(part.count for part in self.left_out)

    def explain(self) -> str:
        """Why nodes are left out, for a message: `3 of 5 nodes with nvidia.com/gpu are cordoned`; empty: none is, but for
        those without the device where others have it."""
        lacking = sum(part.count for part in self.left_out if part.reason == "NoDevice")
        candidates = self.total - lacking
        if not candidates:
            return f"none of the {self.total} nodes offers {self.resource}" if lacking else "there are no nodes"
        named = [part for part in self.left_out if part.reason != "NoDevice"]
        whose = f"nodes with {self.resource}" if self.resource else "nodes"
        parts = [f"{part.count} of {candidates} {_MESSAGES[part.reason](part)}" for part in named[:_NAMED]]
        if parts:
            parts[0] = parts[0].replace(f" of {candidates} ", f" of {candidates} {whose} ", 1)
        if more := sum(part.count for part in named[_NAMED:]):
            parts.append(f"{more} are left out for other reasons")
        return ", ".join(parts)


def _are(part: LeftOut) -> str:
    return "is" if part.count == 1 else "are"


_MESSAGES: Final[dict[Reason, Callable[[LeftOut], str]]] = {
    "Cordoned": lambda part: f"{_are(part)} cordoned",
    "NotReady": lambda part: f"{_are(part)} not ready",
    "NodeSelector": lambda part: "lack labels of podTemplate.nodeSelector",
    "NodeAffinity": lambda part: "do not match podTemplate.affinity",
    "OtherProduct": lambda part: "have another product",
    "Tainted": lambda part: f"have the taint {part.what}, which podTemplate.tolerations does not tolerate",
}


def eligible(
    nodes: Iterable[NodeFacts],
    template: PodTemplate | None,
    resource: str | None,
    *,
    product: str | None = None,
    tolerations: Sequence[Toleration] = (),
) -> Eligible:
    """The nodes that pods of a service may run on.

    Args:
        template: The pods' nodeSelector, affinity and tolerations.
        resource: The device that the pods ask for; None: they run on CPU. The taint `<resource>:NoSchedule`, which GPU
            node pools carry on every provider, is always tolerated, because our pods say so.
        product: The product that the pods select by label, in the label's own words.
        tolerations: More of them, which the administrator gives to all pods.
    """
    given = [*tolerations, *((template and template.tolerations) or ())]
    if resource is not None:
        given.append(Toleration(key=resource, operator="Exists", effect="NoSchedule"))
    selector = dict((template and template.node_selector) or {})
    matches = _affinity((template and template.affinity) or {})
    label = product_label(resource) if resource is not None and product is not None else None

    def why_not(node: NodeFacts) -> tuple[Reason, str] | None:
        if resource is not None and node.devices_of(resource) is None:
            return "NoDevice", ""
        if node.is_cordoned:
            return "Cordoned", ""
        if not node.is_ready:
            return "NotReady", ""
        if any(node.labels.get(key) != value for key, value in selector.items()):
            return "NodeSelector", ""
        if matches is not None and not matches(node):
            return "NodeAffinity", ""
        if label is not None and node.labels.get(label) != product:
            return "OtherProduct", ""
        taint = next((t for t in node.taints if t.effect in _FORBIDDING and not _is_tolerated(t, given)), None)
        return ("Tainted", str(taint)) if taint is not None else None

    may: list[NodeFacts] = []
    counts: Counter[tuple[Reason, str]] = Counter()
    for node in nodes:
        reason = why_not(node)
        if reason is None:
            may.append(node)
        else:
            counts[reason] += 1
    ordered = sorted(counts.items(), key=lambda item: (_ORDER.index(item[0][0]), -item[1], item[0][1]))
    return Eligible(
        nodes=tuple(may),
        left_out=tuple(LeftOut(reason=reason, what=what, count=count) for (reason, what), count in ordered),
        resource=resource,
    )


def _is_tolerated(taint: Taint, tolerations: Sequence[Toleration]) -> bool:
    """A toleration without an effect is for all effects, one without a key for all keys. tolerationSeconds of a NoExecute
    taint does not count: such a pod is placed, and evicted later."""
    return any(
        t.effect in (None, taint.effect)
        and t.key in (None, taint.key)
        and (t.operator == "Exists" or (t.value or "") == taint.value)
        for t in tolerations
    )


_Match = Callable[[NodeFacts], bool]


def _affinity(affinity: Mapping[str, Any]) -> _Match | None:
    """Whether a node matches the required node affinity; None: there is none. One of its terms has to match. The user
    wrote it, and the API server has not checked it yet: what it would refuse matches nothing."""
    node_affinity = affinity.get("nodeAffinity")
    required = (
        node_affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
        if isinstance(node_affinity, Mapping)
        else None
    )
    if required is None:
        return None
    listed = required.get("nodeSelectorTerms") if isinstance(required, Mapping) else None
    terms = [term for item in _items(listed) if (term := _term(item)) is not None]
    return lambda node: any(term(node) for term in terms)


def _term(term: Mapping[str, Any]) -> _Match | None:
    """Whether a node meets all requirements of a term; None: nothing does, as with a term that has none."""
    expressions, fields = _items(term.get("matchExpressions")), _items(term.get("matchFields"))
    tests = [_requirement(item, lambda node, key: node.labels.get(key)) for item in expressions]
    tests += [_requirement(item, lambda node, key: node.name) if _is_name(item) else None for item in fields]
    known = [test for test in tests if test is not None]
    if not known or len(known) < len(tests):
        return None
    return lambda node: all(test(node) for test in known)


def _is_name(item: Mapping[str, Any]) -> bool:
    """Whether a requirement is one on a field that the scheduler knows: the name, in one of two ways, and one value.
    Source: component-helpers, nodeaffinity, nodeSelectorRequirementsAsFieldSelector."""
    values = item.get("values")
    return (
        item.get("key") == "metadata.name"
        and item.get("operator") in ("In", "NotIn")
        and isinstance(values, list | tuple)
        and len(values) == 1
    )


def _requirement(item: Mapping[str, Any], look: Callable[[NodeFacts, str], str | None]) -> _Match | None:
    key, operator = item.get("key"), item.get("operator")
    values = item.get("values") or ()
    if not isinstance(key, str) or not isinstance(values, list | tuple) or not all(isinstance(v, str) for v in values):
        return None
    wanted = frozenset(values)
    match operator, len(values):
        case "In", n if n:
            return lambda node: look(node, key) in wanted
        case "NotIn", n if n:
            return lambda node: look(node, key) not in wanted
        case "Exists", 0:
            return lambda node: look(node, key) is not None
        case "DoesNotExist", 0:
            return lambda node: look(node, key) is None
        case (("Gt" | "Lt"), 1) if (bound := _integer(values[0])) is not None:
            sign = 1 if operator == "Gt" else -1

            def compare(node: NodeFacts) -> bool:
                number = _integer(look(node, key))
                return number is not None and sign * number > sign * bound

            return compare
        case _:
            return None


def _items(value: Any) -> list[Mapping[str, Any]]:
    return [item if isinstance(item, Mapping) else {} for item in value] if isinstance(value, list | tuple) else []


def _integer(text: str | None) -> int | None:
    """As the scheduler reads it: 64 bits, with a sign or without. Source: Go, strconv.ParseInt."""
    if text is None or not re.fullmatch(r"[+-]?[0-9]{1,19}", text):
        return None
    number = int(text)
    return number if -(2**63) <= number < 2**63 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePool:
    """Nodes that a plan cannot tell apart: the same devices, as many of them. A thousand nodes are a handful of these."""

    nodes: int
    #: Devices of one node; None: the service runs on CPU.
    devices: DeviceFacts | None = None
    host_architecture: str = ""
    #: The least of its nodes, allocatable; None: not known of one of them.
    cpu_millicores: int | None = None
    memory_bytes: int | None = None

    @property
    def gpus_per_node(self) -> int:
        """GPUs (or slices) of one node."""
        return self.devices.gpus if self.devices is not None else 0

    @property
    def link_domain(self) -> int | None:
        """Devices of one node that a fast link connects; None: not known."""
        domain = self.devices.link_domain if self.devices is not None else None
        return None if domain is None else max(min(domain, self.gpus_per_node), 1)


def node_pools(nodes: Iterable[NodeFacts], resource: str | None) -> tuple[NodePool, ...]:
    """The nodes, by what they offer of a resource; those that offer none of it are left out. Most memory per GPU first,
    then most GPUs per node."""
    groups: dict[tuple[DeviceFacts | None, str], list[NodeFacts]] = {}
    for node in nodes:
        devices = node.devices_of(resource) if resource is not None else None
        if devices is not None or resource is None:
            groups.setdefault((devices, node.host_architecture), []).append(node)
    pools = [
        NodePool(
            nodes=len(members),
            devices=devices,
            host_architecture=host,
            cpu_millicores=_least(member.cpu_millicores for member in members),
            memory_bytes=_least(member.memory_bytes for member in members),
        )
        for (devices, host), members in groups.items()
    ]
    return tuple(sorted(pools, key=_by_size))


def _by_size(pool: NodePool) -> tuple[int, int, str, str]:
    devices = pool.devices
    return (
        -((devices.memory_bytes if devices is not None else None) or 0),
        -pool.gpus_per_node,
        (devices.product if devices is not None else None) or "",
        pool.host_architecture,
    )


def _least(values: Iterable[int | None]) -> int | None:
    known = list(values)
    return None if None in known else min((v for v in known if v is not None), default=None)
