"""The GPUs that a service may run on: what it names, what the nodes offer, what the catalogue knows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from draftmark.api.inference_service import AcceleratorSpec, PodTemplate, Toleration
from draftmark.facts.accelerators import DEFAULT_RESOURCE, accelerator
from draftmark.facts.nodes import ClusterFacts, NodeFacts
from draftmark.facts.placement import Eligible, NodePool, eligible, node_pools
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


def find_hardware(
    asked: AcceleratorSpec | None,
    cluster: ClusterFacts,
    template: PodTemplate | None,
    tolerations: Sequence[Toleration],
    resources: Sequence[str],
) -> Found:
    """The kinds of GPU nodes that a service may run on.

    Args:
        asked: What the service says; a count of 0 is the caller's business.
        template: What its pods select and tolerate.
        tolerations: More of them, from the administrator.
        resources: What the engine has an image for, in the order of preference; looked at where the service names none.
    """
    if asked is not None and asked.product is not None:
        return _of_product(asked, cluster, template, tolerations)
    kinds: list[Hardware] = []
    told: list[str] = []
    for resource in resources:
        seen = eligible(cluster.nodes or (), template, resource, tolerations=tolerations)
        kinds += [_of_pool(pool, resource, None) for pool in node_pools(seen.nodes, resource)]
        told += _left_out(seen, resource)
    return Found(hardware=tuple(kinds[:MAX_KINDS]), left_out="; ".join(told))


def _of_product(
    asked: AcceleratorSpec, cluster: ClusterFacts, template: PodTemplate | None, tolerations: Sequence[Toleration]
) -> Found:
    resource = asked.resource_name or DEFAULT_RESOURCE
    product = asked.product
    if cluster.nodes is not None:
        seen = eligible(cluster.nodes, template, resource, product=product, tolerations=tolerations)
        if pools := node_pools(seen.nodes, resource):
            hardware = tuple(_of_pool(pool, resource, product) for pool in pools[:MAX_KINDS])
            return Found(hardware=hardware, left_out=seen.explain())
        left_out = seen.explain()
    else:
        left_out = ""
    known = accelerator(product)
    one = Hardware(
        resource_name=resource,
        product=product,
        gpu_bytes=known.memory_bytes if known is not None else None,
        link_domain=known.link_domain if known is not None else None,
    )
    return Found(hardware=(one,), left_out=left_out, is_awaited=cluster.nodes is not None)


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
