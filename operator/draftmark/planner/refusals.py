"""What no engine could serve: fields of the pod that are not the user's, sources that cannot be mounted, quantities that are none."""

from typing import Final

from draftmark.api.inference_service import InferenceServiceSpec, PodTemplate
from draftmark.api.model_uri import ImageModel, ModelSource, UnreadableUri, parse_model_uri
from draftmark.api.names import RESERVED_LABEL_PREFIXES
from draftmark.facts.models import ModelFacts
from draftmark.facts.nodes import ClusterFacts
from draftmark.facts.quantity import parse_quantity
from draftmark.plan import Layout, Unplannable

ALLOWED_POD_FIELDS: Final = tuple(
    str(field.alias or name) for name, field in sorted(PodTemplate.model_fields.items(), key=lambda item: item[0])
)


def refuse(spec: InferenceServiceSpec, source: ModelSource, cluster: ClusterFacts) -> Unplannable | None:
    """The first thing that stands in the way of any engine, or None."""
    return (
        _refuse_pod_template(spec.pod_template)
        or _refuse_copies(spec)
        or _refuse_image_volume(source, cluster)
        or _refuse_resources(spec)
        or _refuse_further_uris(spec, cluster)
    )


def refuse_experts(spec: InferenceServiceSpec, model: ModelFacts | None) -> Unplannable | None:
    """Experts to spread, of a model that is known to have none."""
    given = spec.parallelism
    if given is None or not given.expert or model is None or model.num_moe_layers:
        return None
    return Unplannable(
        code="NoLayout",
        message=f"parallelism.expert is true, and the model ({model.architecture}) has no experts: each of its weights is used "
        "for every token. Remove parallelism.expert; parallelism.tensor divides the weights among GPUs.",
    )


def refuse_lone_experts(spec: InferenceServiceSpec, layout: Layout) -> Unplannable | None:
    """Experts to spread, and no two GPUs that share a layer."""
    given = spec.parallelism
    if given is None or not given.expert or (layout.gpus and layout.tensor_degree > 1):
        return None
    there = "parallelism.tensor is 1" if layout.gpus else "the service has no GPUs"
    return Unplannable(
        code="NoLayout",
        message=f"parallelism.expert is true, and {there}: experts are spread over the GPUs of parallelism.tensor. Set "
        "accelerator.product and parallelism.tensor, or remove parallelism.expert.",
    )


def _refuse_copies(spec: InferenceServiceSpec) -> Unplannable | None:
    copies = spec.parallelism.data if spec.parallelism is not None else None
    if copies is None or copies == 1:
        return None
    return Unplannable(
        code="UnsupportedOption",
        message=f"parallelism.data is {copies}, and each copy of the model is a replica here: a pod of its own, and the "
        f"router spreads requests over all of them. Remove parallelism.data, and set replicas: {max(1, spec.replicas) * copies}.",
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
