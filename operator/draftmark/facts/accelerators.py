"""Device plugins' resources, and the node label that tells the product behind one."""

from typing import Final

#: Resource that a GPU is asked for by when a service names none.
DEFAULT_RESOURCE: Final = "nvidia.com/gpu"

#: Node label with the product, by the domain of the resource. Sources: NVIDIA GPU Feature Discovery README; AMD
#: node labeller README (`amd.com/gpu.product-name`).
PRODUCT_LABELS: Final = {"nvidia.com": "nvidia.com/gpu.product", "amd.com": "amd.com/gpu.product-name"}


def product_label(resource_name: str) -> str | None:
    """The node label that holds the product of this resource, or None when it is not known."""
    return PRODUCT_LABELS.get(resource_name.partition("/")[0])
