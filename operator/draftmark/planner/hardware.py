"""The GPUs that a service may run on: what it names, what the nodes offer, what the catalogue knows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from draftmark.api.defaults import Defaults, ObtainableAccelerator
from draftmark.api.inference_service import AcceleratorSpec, PodTemplate, Toleration
from draftmark.facts.accelerators import DEFAULT_RESOURCE, accelerator
from draftmark.facts.nodes import ClusterFacts, NodeFacts
from draftmark.facts.placement import Eligible, NodePool, eligible, node_pools
from draftmark.facts.quantity import parse_quantity
from draftmark.facts.resource_slices import DRIVERS
from draftmark.planner.layout import Hardware

#: Kinds of nodes that are looked at, those with the most memory per GPU first. More would be a plan that takes its time.
MAX_KINDS: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Kinds of nodes, or none; and how that came."""

    hardware: tuple[Hardware, ...]
    #: Nodes that could have been and are not, and why; empty: there is nothing to say.
    left_out: str = ""
    #: The product is asked for, and no node has it now: pods will wait for one.
    is_awaited: bool = False
    #: Kinds of nodes that an autoscaler can bring, in the administrator's order of preference. `hardware` may be empty then.
    obtainable: tuple[Hardware, ...] = ()

    @property
    def first(self) -> Hardware:
        """What is looked at first."""
        return (*self.hardware, *self.obtainable)[0]


def find_hardware(
    asked: AcceleratorSpec | None,
    cluster: ClusterFacts,
    template: PodTemplate | None,
    tolerations: Sequence[Toleration],
    resources: Sequence[str],
    obtainable: Sequence[ObtainableAccelerator] = (),
) -> Found:
    """The kinds of GPU nodes that a service may run on.

    Args:
        asked: What the service says; a count of 0 is the caller's business.
        template: What its pods select and tolerate.
        tolerations: More of them, from the administrator.
        resources: What the engine has an image for, in the order of preference; looked at where the service names none.
        obtainable: Nodes that an autoscaler can bring. Their labels and taints are not known before they are there.
    """
    if asked is not None and asked.product is not None:
        return _of_product(asked, cluster, template, tolerations, obtainable)
    kinds: list[Hardware] = []
    told: list[str] = []
    for resource in resources:
        seen = eligible(cluster.nodes or (), template, resource, tolerations=tolerations)
        kinds += [_of_pool(pool, resource, None) for pool in node_pools(seen.nodes, resource)]
        told += _left_out(seen, resource)
    more = tuple(_of_obtainable(one) for one in obtainable if (one.resource_name or DEFAULT_RESOURCE) in resources)
    return Found(hardware=tuple(kinds[:MAX_KINDS]), left_out="; ".join(told), obtainable=more)


def _of_product(
    asked: AcceleratorSpec,
    cluster: ClusterFacts,
    template: PodTemplate | None,
    tolerations: Sequence[Toleration],
    obtainable: Sequence[ObtainableAccelerator],
) -> Found:
    resource = asked.resource_name or DEFAULT_RESOURCE
    product = asked.product
    kinds = (_of_obtainable(one) for one in obtainable)
    more = tuple(one for one in kinds if (one.resource_name, one.product) == (resource, product))
    if cluster.nodes is not None:
        seen = eligible(cluster.nodes, template, resource, product=product, tolerations=tolerations)
        if pools := node_pools(seen.nodes, resource):
            hardware = tuple(_of_pool(pool, resource, product) for pool in pools[:MAX_KINDS])
            return Found(hardware=hardware, left_out=seen.explain(), obtainable=more)
        left_out = seen.explain()
    else:
        left_out = ""
    if more:
        return Found(hardware=(), left_out=left_out, obtainable=more)
    known = accelerator(product)
    one = Hardware(
        resource_name=resource,
        product=product,
        gpu_bytes=known.memory_bytes if known is not None else None,
        link_domain=known.link_domain if known is not None else None,
    )
    return Found(hardware=(one,), left_out=left_out, is_awaited=cluster.nodes is not None)


def _of_obtainable(one: ObtainableAccelerator) -> Hardware:
    known = accelerator(one.product)
    memory = parse_quantity(one.memory) if one.memory is not None else None
    return Hardware(
        resource_name=one.resource_name or DEFAULT_RESOURCE,
        product=one.product,
        gpu_bytes=int(memory) if memory is not None else known.memory_bytes if known is not None else None,
        gpus_per_node=one.gpus_per_node,
        link_domain=known.link_domain if known is not None else None,
        nodes=one.nodes,
    )


def _of_pool(pool: NodePool, resource: str, product: str | None) -> Hardware:
    devices = pool.devices
    assert devices is not None, "a pool of a resource has it"
    return Hardware(
        resource_name=resource,
        product=product or devices.product,
        # What pods have together with others is nobody's to fill.
        gpu_bytes=devices.memory_bytes if not devices.is_shared else None,
        gpus_per_node=pool.gpus_per_node,
        link_domain=pool.link_domain,
        nodes=pool.nodes,
    )


def _left_out(seen: Eligible, resource: str) -> list[str]:
    has_it = any(part.reason != "NoDevice" for part in seen.left_out) or seen.nodes
    return [text] if has_it and (text := seen.explain()) else []


def has_gpus(nodes: Sequence[NodeFacts], resources: Sequence[str]) -> bool:
    """Whether any node offers one of these."""
    return any(node.devices_of(resource) is not None for node in nodes for resource in resources)


def can_get(defaults: Defaults, resources: Sequence[str]) -> bool:
    """Whether an autoscaler can bring nodes that offer any of these."""
    return any((one.resource_name or DEFAULT_RESOURCE) in resources for one in defaults.obtainable)


def only_by_claim(nodes: Sequence[NodeFacts]) -> str:
    """What is to be said of GPUs that pods get by ResourceClaim only; empty: there are none."""
    found = [(node, devices) for node in nodes for devices in node.devices if devices.is_claimed]
    if not found:
        return ""
    node, devices = max(found, key=lambda item: item[1].gpus)
    others = len({other.name for other, _ in found} - {node.name})
    more = f", and {others} other node{'s do' if others > 1 else ' does'} so" if others else ""
    return (
        f"node {node.name} offers {devices.gpus} {devices.product or 'GPUs'} by DRA (ResourceSlices of driver "
        f"{devices.resource}), which this release cannot request{more}; install the vendor's device plugin on such nodes to "
        f"have them as {DRIVERS[devices.resource]}/gpu"
    )
