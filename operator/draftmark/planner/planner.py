"""From a spec and what is known of the cluster to a plan, or the first reason why there is none.

Pure: the same inputs give the same plan. Every choice that the user left open leaves a reason.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Final

from draftmark.api.defaults import Defaults
from draftmark.api.images import mirrored
from draftmark.api.inference_service import InferenceServiceSpec, Toleration
from draftmark.api.model_uri import ImageModel, ModelSource, UnreadableUri, parse_model_uri
from draftmark.engines.engine import Asked, Engine, Suit, Wanted
from draftmark.engines.registry import ENGINES
from draftmark.facts.accelerators import DEFAULT_RESOURCE, PRODUCT_LABELS, product_label
from draftmark.facts.models import ModelFacts
from draftmark.facts.nodes import ClusterFacts, mounts_images
from draftmark.facts.quantity import parse_quantity
from draftmark.plan import Layout, ModelKind, Plan, Reason, Unplannable
from draftmark.planner.autoscaling import AUTOSCALED, fit_now_or_later
from draftmark.planner.cpu import CpuSum, sum_on_cpu
from draftmark.planner.fit import MEMORY_UNKNOWN, Fitted, Sizes, fit
from draftmark.planner.hardware import Found, can_get, find_hardware, has_gpus, only_by_claim
from draftmark.planner.lacking import refuse_lacking
from draftmark.planner.refusals import refuse, refuse_experts, refuse_lone_experts
from draftmark.planner.selection import AUTO, MAX_REJECTED, select_engine

#: What GPUs are asked for by, in the order in which they are looked for where a service names none.
GPU_RESOURCES: Final = ("nvidia.com/gpu", "amd.com/gpu")
#: Context of a service that names none, in tokens, where the model's own is not known.
DEFAULT_CONTEXT_LENGTH: Final = 4096


def make_plan(
    spec: InferenceServiceSpec,
    *,
    name: str,
    cluster: ClusterFacts,
    defaults: Defaults,
    keep: Plan | None,
    model: ModelFacts | None = None,
) -> Plan | Unplannable:
    """Choose what the user left open.

    Args:
        spec: What the user asked for.
        name: Name of the InferenceService.
        cluster: What is known of the nodes and the API server.
        defaults: The administrator's file.
        keep: The plan of the revision before, when the edit leaves engine, model and hardware alone: what it chose for
            fields that are not written stays, so that an edit of one thing changes one thing.
        model: What is known of the model; None: nothing, and the service is deployed as it is written.
    """
    plan = _make_plan(spec, name=name, cluster=cluster, defaults=defaults, keep=keep, model=model)
    is_on_cpu = spec.accelerator is not None and spec.accelerator.count == 0
    return plan if is_on_cpu else _with_claimed(plan, spec, only_by_claim(cluster.nodes or ()))


#: Refusals for want of GPUs.
_NO_GPUS: Final = frozenset({"DoesNotFit", "MultiNodeUnsupported", "NoEligibleNode", "NoEngine", "NoLayout"})
#: Reasons that tell of GPUs that are not there yet.
_LATER: Final = frozenset({AUTOSCALED, "NoNodeYet"})


def _with_claimed(plan: Plan | Unplannable, spec: InferenceServiceSpec, told: str) -> Plan | Unplannable:
    """With what is to be said of GPUs that are there and cannot be asked for, where the service is short of GPUs."""
    if not told:
        return plan
    if isinstance(plan, Unplannable):
        message = f"{plan.message} {told[0].upper()}{told[1:]}."
        return replace(plan, message=message) if plan.code in _NO_GPUS else plan
    is_short = spec.accelerator is None if not plan.layout.gpus else any(r.code in _LATER for r in plan.reasons)
    reason = Reason(code="OnlyByClaim", message=told)
    return replace(plan, reasons=(*plan.reasons, reason)) if is_short else plan


def _make_plan(
    spec: InferenceServiceSpec,
    *,
    name: str,
    cluster: ClusterFacts,
    defaults: Defaults,
    keep: Plan | None,
    model: ModelFacts | None,
) -> Plan | Unplannable:
    try:
        source = parse_model_uri(spec.model.uri)
    except UnreadableUri as error:
        return Unplannable(code="UnreadableModelUri", message=str(error))
    if (refused := refuse(spec, source, cluster) or refuse_experts(spec, model)) is not None:
        return refused
    given = _Given(spec=spec, name=name, source=source, cluster=cluster, defaults=defaults, keep=keep, model=model)
    if spec.engine.name != AUTO:
        engine = ENGINES.get(spec.engine.name)
        if engine is None:
            return Unplannable(
                code="UnknownEngine",
                message=f"engine.name '{spec.engine.name}' is no engine of this version of Draftmark. "
                f"Use one of: {', '.join(sorted(ENGINES))}, or {AUTO}.",
            )
        return _plan_with(given, engine)
    if keep is not None and keep.engine in ENGINES:
        plan = _plan_with(given, ENGINES[keep.engine])
        return plan if isinstance(plan, Unplannable) else _with_kept_choice(plan, keep)
    if defaults.obtainable:
        # Nodes that are there come before those that can be had, also with an engine that suits less.
        present = _with_best_engine(replace(given, defaults=defaults.model_copy(update={"node_autoscaling": None})))
        if isinstance(present, Plan) and not any(reason.code in _LATER for reason in present.reasons):
            return present
    return _with_best_engine(given)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Given:
    """What a plan is made from."""

    spec: InferenceServiceSpec
    name: str
    source: ModelSource
    cluster: ClusterFacts
    defaults: Defaults
    keep: Plan | None
    model: ModelFacts | None


def _with_best_engine(given: _Given) -> Plan | Unplannable:
    """With the engine that suits best of those that can."""
    spec, defaults = given.spec, given.defaults
    asked = Asked(spec=spec, source=given.source, gpu_resources=_gpu_resources(spec, given.cluster, defaults))
    plans: dict[str, Plan | Unplannable] = {}

    def refuses(engine: Engine) -> Unplannable | None:
        plan = plans[engine.name] = _plan_with(given, engine)
        return plan if isinstance(plan, Unplannable) else None

    def lacks(engine: Engine) -> Unplannable | None:
        version, is_known = _choose_version(spec, engine, defaults, keep=None, reasons=[])
        return refuse_lacking(engine.name, version if is_known else None, spec, given.model)

    selected = select_engine(asked, ENGINES, refuses, lacks)
    if isinstance(selected, Unplannable):
        return selected
    plan = plans[selected.engine.name]
    assert isinstance(plan, Plan), "what is selected was planned"
    return replace(
        plan,
        reasons=(selected.reason, *plan.reasons),
        rejected=(*selected.rejected, *plan.rejected)[:MAX_REJECTED],
    )


def _with_kept_choice(plan: Plan, keep: Plan) -> Plan:
    """The engine that was chosen before, and why."""
    return replace(plan, reasons=(*_reasons_of(keep, "Engine"), *plan.reasons))


def _gpu_resources(spec: InferenceServiceSpec, cluster: ClusterFacts, defaults: Defaults) -> tuple[str, ...]:
    """Resources of the GPUs that a service may use, whatever the engine; empty: CPU."""
    accelerator = spec.accelerator
    if accelerator is not None:
        return () if accelerator.count == 0 else (accelerator.resource_name or DEFAULT_RESOURCE,)
    return tuple(r for r in GPU_RESOURCES if has_gpus(cluster.nodes or (), (r,)) or can_get(defaults, (r,)))


def _plan_with(given: _Given, engine: Engine) -> Plan | Unplannable:
    spec, keep, defaults = given.spec, given.keep, given.defaults
    reasons: list[Reason] = []
    version, version_is_known = _choose_version(spec, engine, defaults, keep, reasons)
    # First: what the engine does not have, no hardware brings.
    if (refused := refuse_lacking(engine.name, version if version_is_known else None, spec, given.model)) is not None:
        return refused
    found = _find_hardware(given, engine)
    if isinstance(found, Unplannable):
        return found
    is_gpu = found is not None
    kind_of_node = Layout(gpus=1, resource_name=found.first.resource_name) if found else Layout(gpus=0)
    chosen_for: list[Reason] = []
    concurrency = _choose_concurrency(spec, engine, kind_of_node, keep, chosen_for)
    fitted: Fitted | None = None
    unknown = _NOTHING_KNOWN
    sizes = Sizes(
        requests=concurrency,
        step_tokens=lambda context: _choose_batched_tokens(spec, engine, kind_of_node, keep, context, concurrency, []),
    )
    if found is not None and given.model is not None:
        model = given.model
        fit_or_not = fit_now_or_later(
            found,
            lambda kinds: fit(spec, engine, model, kinds, sizes, keep),
            keep.layout if keep is not None else None,
            defaults.node_timeout_s or 0,
        )
        if isinstance(fit_or_not, Fitted):
            fitted = fit_or_not
        elif fit_or_not.code == MEMORY_UNKNOWN and spec.accelerator is not None:
            # A sum that cannot be made stands in nobody's way who says what to deploy on.
            unknown = Reason(code=MEMORY_UNKNOWN, message=fit_or_not.message)
        else:
            return fit_or_not
    layout = fitted.layout if fitted is not None else _layout_as_written(spec) if is_gpu else Layout(gpus=0)
    image = _choose_image(spec, engine, version, layout, defaults, keep)
    if isinstance(image, Unplannable):
        return image
    table = engine.flag_table(version) if version_is_known else None
    served_name = spec.model.name or given.name
    wanted = Wanted(spec=spec, source=given.source, layout=layout, served_name=served_name, table=table)
    if (refused := engine.refuse(wanted) or refuse_lone_experts(spec, layout)) is not None:
        return refused
    kind = engine.model_kind(spec.engine.args or ())
    adapters = tuple(adapter.name for adapter in spec.model.adapters or ()) or None
    if fitted is not None:
        context = fitted.context
        reasons += fitted.reasons
    else:
        context = _choose_context(spec, keep, None if is_gpu else given.model, reasons)
        if is_gpu:
            reasons.append(unknown)
    on_cpu: CpuSum | None = None
    if not is_gpu and given.model is not None:
        sum_or_not = sum_on_cpu(spec, engine, given.model, sizes, context, max_model_bytes(spec))
        if isinstance(sum_or_not, Unplannable):
            return sum_or_not
        on_cpu = sum_or_not
        reasons += on_cpu.reasons
    summed = fitted or on_cpu
    reasons += chosen_for
    batched_tokens = _choose_batched_tokens(spec, engine, layout, keep, context, concurrency, reasons)
    plan = Plan(
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
        reasons=(*reasons, *_image_volume_reason(given.source, given.cluster), *_unrouted_reason(kind, adapters)),
        parameters=summed.parameters if summed is not None else None,
        memory=summed.memory if summed is not None else None,
        rejected=fitted.rejected if fitted is not None else (),
        args_unchecked=None if table is not None else _unchecked(spec, engine, version, version_is_known),
    )
    if fitted is not None and fitted.undeployable is not None:
        return replace(fitted.undeployable, rejected=plan.rejected, plan=plan)
    return plan


_NOTHING_KNOWN: Final = Reason(
    code=MEMORY_UNKNOWN,
    message="nothing is known of the model's size, so that the GPUs are those that the service names, and no memory was "
    "summed up",
)


def _find_hardware(given: _Given, engine: Engine) -> Found | Unplannable | None:
    """The GPU nodes that a service may run on; None: it runs on CPU."""
    spec, cluster, defaults = given.spec, given.cluster, given.defaults
    accelerator = spec.accelerator
    if accelerator is None and defaults.namespaced:
        # What is left open is chosen by the nodes, and CPU chosen for want of rights would be no choice.
        return Unplannable(
            code="AcceleratorRequired",
            message="accelerator is not set, and this operator works in some namespaces only: it may not list the nodes "
            "to choose by. Set accelerator.product, or accelerator.count: 0 for CPU.",
        )
    if accelerator is not None and accelerator.count == 0:
        return None
    if accelerator is not None:
        resource = accelerator.resource_name or DEFAULT_RESOURCE
        if product_label(resource) is None:
            return Unplannable(
                code="UnknownAccelerator",
                message=f"accelerator.resourceName '{resource}' belongs to no device plugin whose product label is known "
                f"({', '.join(sorted(PRODUCT_LABELS))}). Use one of theirs, or select nodes with podTemplate.nodeSelector "
                "and accelerator.count: 0.",
            )
    resources = [r for r in GPU_RESOURCES if engine.default_image(engine.default_version, r) is not None]
    if accelerator is None and not (has_gpus(cluster.nodes or (), resources) or can_get(defaults, resources)):
        return None
    found = find_hardware(
        accelerator, cluster, spec.pod_template, _tolerations(defaults), resources, defaults.obtainable
    )
    if accelerator is not None or (found.hardware and given.model is not None):
        return found
    on_cpu = Asked(spec=spec, source=given.source, gpu_resources=())
    if isinstance(engine.suits(on_cpu), Suit):
        # No node is ordered for what runs on those that are there.
        return None
    if found.obtainable and given.model is not None:
        return found
    # The service would run on CPU in a cluster with GPUs, and nobody asked for that.
    if found.hardware or found.obtainable:
        return Unplannable(
            code="ModelUnknown",
            message=f"accelerator is not set, and nothing is known of '{spec.model.uri[:120]}' to choose GPUs by. Set "
            "accelerator.product, with parallelism.tensor where one GPU is not enough; or accelerator.count: 0 for CPU.",
        )
    return Unplannable(
        code="NoEligibleNode",
        message=f"accelerator is not set, and no node with GPUs may have the pods: {found.left_out}. Tolerate the taint or "
        "change the selection in podTemplate, uncordon a node, or set accelerator.count: 0 for CPU.",
    )


def _tolerations(defaults: Defaults) -> Sequence[Toleration]:
    return defaults.tolerations or ()


def _layout_as_written(spec: InferenceServiceSpec) -> Layout:
    """The GPUs that the service names; one where it names none."""
    accelerator, given = spec.accelerator, spec.parallelism
    assert accelerator is not None, "without one nothing is planned unless the model is known"
    tensor = given.tensor if given is not None else None
    pipeline = (given.pipeline if given is not None else None) or 1
    return Layout(
        gpus=accelerator.count or (tensor or 1) * pipeline,
        resource_name=accelerator.resource_name or DEFAULT_RESOURCE,
        product=accelerator.product,
        tensor=tensor if pipeline > 1 else None,
        pipeline=pipeline,
        expert=given is not None and bool(given.expert),
    )


def _choose_version(
    spec: InferenceServiceSpec, engine: Engine, defaults: Defaults, keep: Plan | None, reasons: list[Reason]
) -> tuple[str, bool]:
    """The version, and whether it is known to be the image's."""
    configured = (defaults.engines or {}).get(engine.name)
    if keep is not None and spec.engine.image is None:
        reasons += _reasons_of(keep, "EngineVersion")
        return keep.version, True
    if spec.engine.version is not None:
        return spec.engine.version, True
    if spec.engine.image is not None:
        return "unknown", False
    if configured is not None and configured.version is not None:
        version, whose = configured.version, "the administrator's default"
    else:
        version, whose = engine.default_version, "the default of this release"
    reasons.append(Reason(code="EngineVersion", message=f"{engine.name} {version}: {whose}"))
    return version, True


def _choose_image(
    spec: InferenceServiceSpec, engine: Engine, version: str, layout: Layout, defaults: Defaults, keep: Plan | None
) -> str | Unplannable:
    if spec.engine.image is not None:
        return spec.engine.image
    if keep is not None:
        return keep.image
    configured = (defaults.engines or {}).get(engine.name)
    hardware = layout.resource_name or "cpu"
    pattern = (configured.images or {}).get(hardware) if configured is not None else None
    image = pattern.replace("{version}", version) if pattern else engine.default_image(version, layout.resource_name)
    if image is None:
        return Unplannable(
            code="NoImage",
            message=f"There is no image of {engine.name} for {hardware}. Set engine.image, or ask the administrator "
            f"for defaults.engines.{engine.name}.images['{hardware}'].",
        )
    return mirrored(image, defaults)


def _reasons_of(keep: Plan, code: str) -> list[Reason]:
    """Why the plan before chose a value; empty when the user had written it, and there is no choice to keep."""
    return [reason for reason in keep.reasons if reason.code == code]


def _choose_context(
    spec: InferenceServiceSpec, keep: Plan | None, on_cpu: ModelFacts | None, reasons: list[Reason]
) -> int:
    if spec.model.max_context_length is not None:
        return spec.model.max_context_length
    if keep is not None and (chosen := _reasons_of(keep, "MaxContextLength")):
        reasons += chosen
        return keep.max_context_length
    if on_cpu is not None:
        # Memory of the node is everybody's: a context that nobody asked for must not fill it.
        chosen_length = min(DEFAULT_CONTEXT_LENGTH, on_cpu.max_position_embeddings)
        why = f"because model.maxContextLength is not set; the model has {on_cpu.max_position_embeddings}"
    else:
        chosen_length = DEFAULT_CONTEXT_LENGTH
        why = "because model.maxContextLength is not set and nothing is known of the model"
    reasons.append(Reason(code="MaxContextLength", message=f"{chosen_length} tokens, {why}"))
    return chosen_length


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
