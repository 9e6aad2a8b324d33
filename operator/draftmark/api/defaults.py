"""The administrator's defaults: one ConfigMap, made from the chart's values, read and checked when the operator starts.

They decide what a new revision gets. A revision that exists keeps what it was given.
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Final

from pydantic import ConfigDict, Field

from draftmark.api.base import ApiModel, DnsLabel, LabelValue, Quantity, Rule
from draftmark.api.duration import Duration, seconds_of
from draftmark.api.inference_service import ImagePullSecret, Toleration

#: How long pods may wait for a new node where the administrator does not say. Source: Cluster Autoscaler,
#: --max-node-provision-time, 15 minutes.
DEFAULT_NODE_TIMEOUT_S: Final = 900


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


#: http://, a name or an address, a port, a path below which the API is; no user, no query: the whole is put in front of a path.
_PROMETHEUS: Final = r"^http://([A-Za-z0-9][-A-Za-z0-9.]*|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[-A-Za-z0-9._~]+)*/?$"


def _has_possible_port(url: str) -> bool:
    """Whether the port of a URL can be one, or there is none."""
    _, _, port = url.removeprefix("http://").partition("/")[0].rpartition("]")[2].partition(":")
    return not port or 0 < int(port) <= 65_535


class BenchmarkDefaults(_Strict):
    """How models are measured, and how long what was measured is kept."""

    image: Image | None = None
    """The load generator. Default: Draftmark's, of the operator's version."""
    ttl_after_finished: Duration | None = None
    """After which a finished Benchmark is deleted that says nothing of it itself. Default: it stays."""
    history_limit: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Finished Benchmarks that are kept of one target; the oldest are deleted. Default: all."""
    prometheus: Annotated[str, Field(pattern=_PROMETHEUS, max_length=512)] | None = None
    """URL of a server with Prometheus' API that scrapes NVIDIA's DCGM exporter, such as
    http://prometheus-operated.monitoring.svc:9090: it is asked what the GPUs held. Without credentials. Default: nobody is asked, and
    peak memory is not known."""

    rules: ClassVar = (
        Rule(
            cel="true",  # read by the operator only, as the file is
            holds=lambda b: b.prometheus is None or _has_possible_port(b.prometheus),
            message="benchmarks.prometheus has no port that there is: write 1 to 65535",
        ),
    )


class ObtainableAccelerator(_Strict):
    """Nodes of one kind that the cluster's autoscaler can bring."""

    product: Annotated[LabelValue, Field(min_length=1)]
    """Product as the node label nvidia.com/gpu.product (or amd.com/gpu.product-name) will have it: pods select by it."""
    resource_name: Annotated[str, Field(pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$", max_length=253)] | None = None
    """Extended resource that the device plugin will offer. Default: nvidia.com/gpu."""
    gpus_per_node: Annotated[int, Field(ge=1, le=16)]
    nodes: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Most nodes of the kind. Default: any number."""
    memory: Quantity | None = None
    """Of one GPU, such as 80Gi. Default: what is known of the product."""


class NodeAutoscaling(_Strict):
    """Whether nodes come when pods wait for them, as with Cluster Autoscaler and Karpenter."""

    enabled: bool = False
    timeout: Duration | None = None
    """How long pods may wait for a node; then the service says that none came, and a new revision is withdrawn. Default:
    15m."""
    accelerators: Annotated[tuple[ObtainableAccelerator, ...], Field(max_length=16)] | None = None
    """Nodes with GPUs that can be had, in the order of preference: what services are planned for that the present nodes do
    not suffice for."""

    rules: ClassVar = (
        Rule(
            # Read by the operator only, so there is no API server that would check it.
            cel="true",
            holds=lambda n: n.timeout is None or 60 <= seconds_of(n.timeout) <= 86_400,
            message="nodeAutoscaling.timeout is out of bounds: write a duration between 1m and 24h",
        ),
    )

    @property
    def timeout_s(self) -> int:
        return seconds_of(self.timeout) if self.timeout is not None else DEFAULT_NODE_TIMEOUT_S


class PriceDefaults(_Strict):
    """What accelerators cost. Where there is no price, no cost is told."""

    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
    """By its code of ISO 4217, such as EUR."""
    per_hour: Annotated[
        Mapping[Annotated[str, Field(max_length=63)], Annotated[float, Field(gt=0, le=1_000_000)]],
        Field(min_length=1, max_length=64),
    ]
    """Of one accelerator for one hour, by its product as nodes name it, such as NVIDIA-H100-80GB-HBM3."""


class Defaults(_Strict):
    """The whole file."""

    traffic: TrafficDefaults | None = None
    network: NetworkDefaults | None = None
    hub: HubDefaults | None = None
    benchmarks: BenchmarkDefaults | None = None
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
    node_autoscaling: NodeAutoscaling | None = None
    prices: PriceDefaults | None = None

    @property
    def node_timeout_s(self) -> int | None:
        """Seconds that pods may wait for a node; None: nodes do not come by themselves."""
        scaled = self.node_autoscaling
        return scaled.timeout_s if scaled is not None and scaled.enabled else None

    @property
    def obtainable(self) -> tuple[ObtainableAccelerator, ...]:
        """Nodes that can be had, in the order of preference."""
        scaled = self.node_autoscaling
        return (scaled.accelerators or ()) if scaled is not None and scaled.enabled else ()
