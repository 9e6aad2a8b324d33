"""From a spec and what is known of the cluster to a plan, or the first reason why there is none.

Pure: the same inputs give the same plan. Every choice that the user left open leaves a reason.
"""

from math import ceil
from typing import Final

from draftmark.api.defaults import Defaults
from draftmark.api.images import mirrored
from draftmark.api.inference_service import InferenceServiceSpec, PodTemplate
from draftmark.api.model_uri import ImageModel, ModelSource, UnreadableUri, parse_model_uri
from draftmark.api.names import RESERVED_LABEL_PREFIXES
from draftmark.engines.engine import Engine, Wanted
from draftmark.engines.registry import ENGINES
from draftmark.facts.accelerators import DEFAULT_RESOURCE, PRODUCT_LABELS, product_label
from draftmark.facts.nodes import ClusterFacts, mounts_images
from draftmark.facts.quantity import parse_quantity
from draftmark.plan import Layout, ModelKind, Plan, Reason, Unplannable

#: Context of a service that names none, in tokens, until a planner knows what fits.
DEFAULT_CONTEXT_LENGTH: Final = 4096

ALLOWED_POD_FIELDS: Final = tuple(
    str(field.alias or name) for name, field in sorted(PodTemplate.model_fields.items(), key=lambda item: item[0])
)


def make_plan(
    spec: InferenceServiceSpec, *, name: str, cluster: ClusterFacts, defaults: Defaults, keep: Plan | None
) -> Plan | Unplannable:
    """Choose what the user left open.

    Args:
        spec: What the user asked for.
        name: Name of the InferenceService.
        cluster: What is known of the nodes and the API server.
        defaults: The administrator's file.
        keep: The plan of the revision before, when the edit leaves engine, model and hardware alone: what it chose for
            fields that are not written stays, so that an edit of one thing changes one thing.
    """
    engine = ENGINES.get(spec.engine.name)
    if engine is None:
        return Unplannable(
            code="UnknownEngine",
            message=f"engine.name '{spec.engine.name}' is no engine of this version of Draftmark. "
            f"Use one of: {', '.join(sorted(ENGINES))}.",
        )
    try:
        source = parse_model_uri(spec.model.uri)
    except UnreadableUri as error:
        return Unplannable(code="UnreadableModelUri", message=str(error))
    layout = _choose_layout(spec, defaults)
    if isinstance(layout, Unplannable):
        return layout
    reasons: list[Reason] = []
    chosen = _choose_image(spec, engine, layout, defaults, keep, reasons)
    if isinstance(chosen, Unplannable):
        return chosen
    version, image, version_is_known = chosen
    table = engine.flag_table(version) if version_is_known else None
    served_name = spec.model.name or name
    refused = (
        _refuse_pod_template(spec.pod_template)
        or _refuse_image_volume(source, cluster)
        or _refuse_resources(spec)
        or _refuse_further_uris(spec, cluster)
        or engine.refuse(Wanted(spec=spec, source=source, layout=layout, served_name=served_name, table=table))
    )
    if refused is not None:
        return refused
    kind = engine.model_kind(spec.engine.args or ())
    adapters = tuple(adapter.name for adapter in spec.model.adapters or ()) or None
    context = _choose_context(spec, keep, reasons)
    concurrency = _choose_concurrency(spec, engine, layout, keep, reasons)
    batched_tokens = _choose_batched_tokens(spec, engine, layout, keep, context, concurrency, reasons)
    return Plan(
        engine=engine.name,
        version=version,
        image=image,
        layout=layout,
        served_name=served_name,
        max_context_length=context,
        concurrency=concurrency,
        max_batched_tokens=batched_tokens,
        kind=kind,
        adapters=adapters,
        reasons=(*reasons, *_image_volume_reason(source, cluster), *_unrouted_reason(kind, adapters)),
        args_unchecked=None if table is not None else _unchecked(spec, engine, version, version_is_known),
    )


def _choose_layout(spec: InferenceServiceSpec, defaults: Defaults) -> Layout | Unplannable:
    accelerator = spec.accelerator
    if accelerator is None and defaults.namespaced:
        # What is left open is chosen by the nodes, and CPU chosen for want of rights would be no choice.
        return Unplannable(
            code="AcceleratorRequired",
            message="accelerator is not set, and this operator works in some namespaces only: it may not list the nodes "
            "to choose by. Set accelerator.product, or accelerator.count: 0 for CPU.",
        )
    if accelerator is None or accelerator.count == 0:
        return Layout(gpus=0)
    resource = accelerator.resource_name or DEFAULT_RESOURCE
    if product_label(resource) is None:
        return Unplannable(
            code="UnknownAccelerator",
            message=f"accelerator.resourceName '{resource}' belongs to no device plugin whose product label is known "
            f"({', '.join(sorted(PRODUCT_LABELS))}). Use one of theirs, or select nodes with podTemplate.nodeSelector "
            "and accelerator.count: 0.",
        )
    tensor = spec.parallelism.tensor if spec.parallelism is not None else None
    return Layout(gpus=accelerator.count or tensor or 1, resource_name=resource, product=accelerator.product)


def _choose_image(
    spec: InferenceServiceSpec,
    engine: Engine,
    layout: Layout,
    defaults: Defaults,
    keep: Plan | None,
    reasons: list[Reason],
) -> tuple[str, str, bool] | Unplannable:
    """Version, image, and whether the version is known to be the image's."""
    configured = (defaults.engines or {}).get(engine.name)
    if keep is not None and spec.engine.image is None:
        reasons += _reasons_of(keep, "EngineVersion")
        return keep.version, keep.image, True
    if spec.engine.version is not None:
        version = spec.engine.version
    elif spec.engine.image is not None:
        version = "unknown"
    elif configured is not None and configured.version is not None:
        version = configured.version
        reasons.append(Reason(code="EngineVersion", message=f"{engine.name} {version}: the administrator's default"))
    else:
        version = engine.default_version
        reasons.append(Reason(code="EngineVersion", message=f"{engine.name} {version}: the default of this release"))
    if spec.engine.image is not None:
        return version, spec.engine.image, spec.engine.version is not None
    hardware = layout.resource_name or "cpu"
    pattern = (configured.images or {}).get(hardware) if configured is not None else None
    image = pattern.replace("{version}", version) if pattern else engine.default_image(version, layout.resource_name)
    if image is None:
        return Unplannable(
            code="NoImage",
            message=f"There is no image of {engine.name} for {hardware}. Set engine.image, or ask the administrator "
            f"for defaults.engines.{engine.name}.images['{hardware}'].",
        )
    return version, mirrored(image, defaults), True


def _reasons_of(keep: Plan, code: str) -> list[Reason]:
    """Why the plan before chose a value; empty when the user had written it, and there is no choice to keep."""
    return [reason for reason in keep.reasons if reason.code == code]


def _choose_context(spec: InferenceServiceSpec, keep: Plan | None, reasons: list[Reason]) -> int:
    if spec.model.max_context_length is not None:
        return spec.model.max_context_length
    if keep is not None and (chosen := _reasons_of(keep, "MaxContextLength")):
        reasons += chosen
        return keep.max_context_length
    reasons.append(
        Reason(
            code="MaxContextLength",
            message=f"{DEFAULT_CONTEXT_LENGTH} tokens, because model.maxContextLength is not set and memory is not "
            "planned yet",
        )
    )
    return DEFAULT_CONTEXT_LENGTH


def _choose_concurrency(
    spec: InferenceServiceSpec, engine: Engine, layout: Layout, keep: Plan | None, reasons: list[Reason]
) -> int:
    if spec.workload is not None and spec.workload.concurrency is not None:
        return spec.workload.concurrency
    if keep is not None and (chosen := _reasons_of(keep, "Concurrency")):
        reasons += chosen
        return keep.concurrency
    choice = engine.choose_concurrency(spec, layout)
    reasons.append(Reason(code="Concurrency", message=choice.why))
    return choice.value


def _choose_batched_tokens(
    spec: InferenceServiceSpec,
    engine: Engine,
    layout: Layout,
    keep: Plan | None,
    context: int,
    concurrency: int,
    reasons: list[Reason],
) -> int | None:
    """Tokens of one step: one for every request at least, and a whole prompt where it may not be read in parts, as with
    many models that embed or rerank."""
    options = spec.engine.options
    is_generating = engine.model_kind(spec.engine.args or ()) == "generate"
    reads_whole = (options is not None and options.chunked_prefill is False) or not is_generating
    least = max(concurrency, context if reads_whole else 0)
    choice = engine.choose_batched_tokens(spec, layout, least=least)
    if choice is None:
        return None
    if keep is not None and (chosen := _reasons_of(keep, "BatchedTokens")):
        kept = keep.max_batched_tokens
        if kept is not None and kept >= least:
            reasons += chosen
            return kept
    reasons.append(Reason(code="BatchedTokens", message=choice.why))
    return choice.value


def _unchecked(spec: InferenceServiceSpec, engine: Engine, version: str, version_is_known: bool) -> str:
    count = len(spec.engine.args or ())
    ours = "the command line was not checked" + (f", {count} arguments of engine.args included" if count else "")
    if not version_is_known:
        return (
            f"The version in image '{spec.engine.image}' is not known, so {ours}. Set engine.version (a flag table exists "
            f"for {engine.name} {engine.default_version})."
        )
    return (
        f"There is no flag table for {engine.name} {version}, so {ours}. A table exists for {engine.default_version}."
    )


def _refuse_pod_template(template: PodTemplate | None) -> Unplannable | None:
    if template is None:
        return None
    if template.refused_fields:
        return Unplannable(
            code="PodTemplateForbidden",
            message=f"podTemplate may not set {', '.join(template.refused_fields[:8])}. Allowed: "
            f"{', '.join(ALLOWED_POD_FIELDS)}. Remove the field; what a pod of restricted security needs is set by "
            "the operator.",
        )
    labels = (template.metadata.labels or {}) if template.metadata is not None else {}
    taken = sorted(key for key in labels if key.startswith(RESERVED_LABEL_PREFIXES))
    if taken:
        return Unplannable(
            code="PodTemplateForbidden",
            message=f"podTemplate.metadata.labels may not set {', '.join(taken[:8])}: the operator finds and selects "
            "pods by these. Use a prefix of your own.",
        )
    return None


def _refuse_image_volume(source: ModelSource, cluster: ClusterFacts) -> Unplannable | None:
    if not isinstance(source, ImageModel):
        return None
    support = cluster.image_volumes()
    if support.supported is not False:
        return None
    return Unplannable(
        code="ImageVolumesUnsupported",
        message=f"model.uri is oci://, which needs image volumes, and this cluster has none: {support.why}. Upgrade "
        "the nodes, or serve the model from pvc://, hf:// or https://.",
    )


def _refuse_further_uris(spec: InferenceServiceSpec, cluster: ClusterFacts) -> Unplannable | None:
    """Models beside the main one: adapters, and the one that guesses."""
    options = spec.engine.options
    speculative = options.speculative if options is not None else None
    further = [(f"model.adapters['{adapter.name}'].uri", adapter.uri) for adapter in spec.model.adapters or ()]
    if speculative is not None and speculative.uri is not None:
        further.append(("engine.options.speculative.uri", speculative.uri))
    for field, uri in further:
        try:
            source = parse_model_uri(uri)
        except UnreadableUri as error:
            return Unplannable(code="UnreadableModelUri", message=str(error).replace("model.uri", field, 1))
        if refused := _refuse_image_volume(source, cluster):
            return Unplannable(code=refused.code, message=refused.message.replace("model.uri", field, 1))
    return None


def _image_volume_reason(source: ModelSource, cluster: ClusterFacts) -> tuple[Reason, ...]:
    """Some nodes mount images and others do not: the scheduler does not know the difference."""
    nodes = cluster.open_nodes
    if not isinstance(source, ImageModel) or nodes is None:
        return ()
    unable = [node.name for node in nodes if not mounts_images(node.container_runtime)]
    if not unable or len(unable) == len(nodes):
        return ()
    return (
        Reason(
            code="ImageVolumes",
            message=f"{len(unable)} of {len(nodes)} nodes cannot mount image volumes ({', '.join(unable[:3])}); "
            "keep the pods off them with podTemplate.nodeSelector",
        ),
    )


def _unrouted_reason(kind: ModelKind, adapters: tuple[str, ...] | None) -> tuple[Reason, ...]:
    if kind == "rerank":
        why = "which cannot read this engine's answers to /v1/rerank"
    elif adapters:
        why = "which knows one model per pod, and not the names of adapters"
    else:
        return ()
    return (
        Reason(
            code="NoRouter",
            message=f"requests go from the gateway to any engine pod that is ready, without a router, {why}; traffic.policy "
            "has no effect",
        ),
    )


def _refuse_resources(spec: InferenceServiceSpec) -> Unplannable | None:
    resources = spec.engine.resources
    if resources is None:
        return None
    for section, values in (("requests", resources.requests), ("limits", resources.limits)):
        for resource, quantity in (values or {}).items():
            amount = parse_quantity(quantity)
            if amount is None or amount < 0:
                return Unplannable(
                    code="InvalidResources",
                    message=f"engine.resources.{section}.{resource} '{quantity}' is no quantity. Write a number with a "
                    "suffix such as 500m, 2, 16Gi.",
                )
            if "/" in resource:
                return Unplannable(
                    code="InvalidResources",
                    message=f"engine.resources.{section} names the device '{resource}'. Devices are asked for with "
                    "accelerator.product, resourceName and count.",
                )
            limit = parse_quantity((resources.limits or {}).get(resource, ""))
            if section == "requests" and limit is not None and amount > limit:
                return Unplannable(
                    code="InvalidResources",
                    message=f"engine.resources.requests.{resource} {quantity} is above the limit "
                    f"{(resources.limits or {})[resource]}. Raise the limit or lower the request.",
                )
    return None


def cpu_cores(spec: InferenceServiceSpec) -> int | None:
    """Cores that one engine container may use, rounded up; None when the user set neither limit nor request."""
    resources = spec.engine.resources
    for values in (resources.limits, resources.requests) if resources is not None else ():
        amount = parse_quantity((values or {}).get("cpu", ""))
        if amount is not None and amount > 0:
            return ceil(amount)
    return None


def max_model_bytes(spec: InferenceServiceSpec) -> int | None:
    """Bytes that the model cannot exceed: the container's memory limit. None without one, and for GPUs, whose memory
    holds the model."""
    if spec.accelerator is not None and spec.accelerator.count != 0:
        return None
    limits = spec.engine.resources.limits if spec.engine.resources is not None else None
    amount = parse_quantity((limits or {}).get("memory", ""))
    return int(amount) if amount is not None and amount > 0 else None
