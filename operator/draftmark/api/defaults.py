"""The administrator's defaults: one ConfigMap, made from the chart's values, read and checked when the operator starts.

They decide what a new revision gets. A revision that exists keeps what it was given.
"""

from collections.abc import Mapping
from typing import Annotated

from pydantic import ConfigDict, Field

from draftmark.api.base import ApiModel, DnsLabel
from draftmark.api.inference_service import ImagePullSecret, Toleration


class _Strict(ApiModel):
    # A typo in the administrator's file must not silently become the built-in default.
    model_config = ConfigDict(extra="forbid")


class EngineDefaults(_Strict):
    """Which version of an engine a service gets when it names none, and its images."""

    version: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$", max_length=64)] | None = None
    images: Annotated[Mapping[str, Annotated[str, Field(max_length=512)]], Field(max_length=16)] | None = None
    """Image by hardware: `cpu`, or the name of the accelerator's resource, such as nvidia.com/gpu. `{version}` stands
    for the version."""


Image = Annotated[str, Field(min_length=1, max_length=512)]


class TrafficDefaults(_Strict):
    """Images of what stands between clients and engines."""

    gateway_image: Image | None = None
    """HAProxy."""
    reloader_image: Image | None = None
    """The image with Draftmark itself; beside HAProxy it takes over changed configurations."""
    router_image: Image | None = None
    """smg."""


class NetworkDefaults(_Strict):
    """Who may talk to the pods of a service, beside its own."""

    operator_namespace: DnsLabel | None = None
    """Namespace of the operator's pods. Default: draftmark-system."""
    monitoring_namespaces: Annotated[tuple[DnsLabel, ...], Field(max_length=16)] | None = None
    """Namespaces whose pods may scrape metrics."""


#: A name in DNS, or all names below one: `*.example.com`.
HostPattern = Annotated[str, Field(pattern=r"^(\*\.)?[a-z0-9]([-.a-z0-9]*[a-z0-9])?$", max_length=253)]


class HubDefaults(_Strict):
    """Where the facts of hf:// models are read."""

    endpoint: Annotated[str, Field(pattern=r"^https?://[A-Za-z0-9][-A-Za-z0-9._:/]*$", max_length=512)] | None = None
    """The hub, or a mirror that speaks as it does. Default: https://huggingface.co."""
    redirect_hosts: Annotated[tuple[HostPattern, ...], Field(max_length=32)] | None = None
    """Hosts that the hub may send a reader to, without its token. Default: *.hf.co for the default endpoint, and none for
    another."""
    allow_http: bool | None = None
    """True: an endpoint of http:// is asked as well. Default: false."""


class Defaults(_Strict):
    """The whole file."""

    traffic: TrafficDefaults | None = None
    network: NetworkDefaults | None = None
    hub: HubDefaults | None = None
    namespaced: bool | None = None
    """True: the operator has rights in single namespaces only, so routers get a Role of their own instead of a binding
    to the chart's ClusterRole, and services must say their accelerator, because nodes cannot be listed."""

    engines: Annotated[Mapping[str, EngineDefaults], Field(max_length=16)] | None = None
    registry_mirror: Annotated[str, Field(max_length=253)] | None = None
    """Host (and path) that replaces the registry of the default images; images that users name stay as they are."""
    image_pull_secrets: Annotated[tuple[ImagePullSecret, ...], Field(max_length=8)] | None = None
    """Secrets that engine pods pull with; they must exist in the service's namespace."""
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=16)] | None = None
    """Tolerations that every engine pod gets."""
