"""What the operator's process is told when it starts: the administrator's file and its own flags."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from draftmark.api.defaults import Defaults
from draftmark.facts.accelerators import (
    DEFAULT_RESOURCE,
    PRODUCT_LABELS,
    Product,
    accelerator,
    parse_product,
    product_label,
)
from draftmark.facts.quantity import parse_quantity
from draftmark.render.yaml_io import load_documents


class UnreadableDefaults(ValueError):
    """The administrator's file is no valid set of defaults; the message names field and problem."""


def load_defaults(path: Path | None) -> Defaults:
    """Read and check the administrator's defaults.

    Raises:
        UnreadableDefaults: The file cannot be read, is no YAML, or says something unknown. A typo is an error: a
            setting that is silently ignored would be found out on the day it was needed.
    """
    if path is None:
        return Defaults()
    try:
        documents = load_documents(path.read_text("utf-8"))
        if len(documents) > 1:
            raise UnreadableDefaults(f"The defaults in {path} are {len(documents)} YAML documents. Write one.")
        defaults = Defaults.model_validate(documents[0] if documents else {})
    except ValidationError as error:
        found = "; ".join(
            f"{'.'.join(str(part) for part in e['loc']) or 'the file'}: {e['msg']}"
            for e in error.errors(include_url=False, include_context=False)
        )
        raise UnreadableDefaults(f"The defaults in {path} are not valid: {found}") from error
    except UnreadableDefaults:
        raise
    except (OSError, ValueError) as error:
        raise UnreadableDefaults(f"The defaults in {path} cannot be read: {error}") from error
    if (problem := _problem_of_nodes(defaults)) is not None:
        raise UnreadableDefaults(f"The defaults in {path} are not valid: {problem}")
    return defaults


def _problem_of_nodes(defaults: Defaults) -> str | None:
    """What is wrong with the nodes that can be had: a plan for one of them must select it and know its memory."""
    scaled = defaults.node_autoscaling
    for i, one in enumerate((scaled.accelerators or ()) if scaled is not None else ()):
        field = f"nodeAutoscaling.accelerators.{i}"
        resource = one.resource_name or DEFAULT_RESOURCE
        if product_label(resource) is None:
            return (
                f"{field}.resourceName: '{resource}' belongs to no device plugin whose product label is known "
                f"({', '.join(sorted(PRODUCT_LABELS))})"
            )
        memory = parse_quantity(one.memory) if one.memory is not None else None
        if one.memory is not None and (memory is None or memory <= 0):
            return f"{field}.memory: '{one.memory}' is no amount of memory. Write one such as 80Gi"
        whole = resource.endswith("/gpu") and parse_product(one.product) == Product(name=one.product)
        known = accelerator(one.product) if whole else None  # of a part of a GPU the catalogue says nothing
        if memory is None and (known is None or known.memory_bytes is None):
            return f"{field}.memory: the memory of '{one.product}' is not known. Write that of one GPU, such as 80Gi"
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How one operator process runs."""

    defaults: Defaults
    #: Namespace of the operator itself, where its Lease lives.
    namespace: str
    #: Name by which this process holds the Lease, such as its pod's name.
    identity: str
    #: Namespaces whose objects are looked after, each by its whole name; none: all.
    watch_namespaces: tuple[str, ...] = ()
    http_port: int = 8080
    #: Services that are worked on at the same time.
    workers: int = 16
    #: Objects of our kind are listed again and compared this often: a watch is allowed to lose an event.
    resync_s: float = 600.0
    kubeconfig: str | None = None
    context: str | None = None
