"""From a plan to the pod template of one revision, in the form that a ControllerRevision pins.

The revision's own label is not in it: it is added when the Deployment is rendered. So two revisions that run the same
pods have the same template, and a fresh rendering can be compared with a pinned one.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from draftmark.api import names
from draftmark.api.defaults import Defaults
from draftmark.api.inference_service import EnvVar, InferenceServiceSpec, PodTemplate, Toleration, Volume
from draftmark.api.model_uri import parse_model_uri
from draftmark.engines.engine import NO_OPTIONS, Launch, LaunchRequest
from draftmark.engines.registry import ENGINES
from draftmark.facts.accelerators import product_label
from draftmark.facts.pods import ENGINE_CONTAINER
from draftmark.plan import Layout, Plan
from draftmark.planner.planner import cpu_cores, max_model_bytes
from draftmark.render.templates import render
from draftmark.traffic import read_traffic

#: User and group of the engine's process when the service names none: numeric, because "non-root" cannot be checked
#: for a name, and without a meaning on any node.
DEFAULT_USER: Final = 65532


def render_pod_template(service: str, spec: InferenceServiceSpec, plan: Plan, defaults: Defaults) -> dict[str, Any]:
    """The pod template (metadata and spec) of a revision.

    Args:
        service: Name of the InferenceService.
        spec: Accepted by the planner; its URI is readable.
        plan: The planner's answer for it.
        defaults: The administrator's file.
    """
    template = spec.pod_template or PodTemplate()
    launch = _with_users_scratch(_with_tmp(_launch(spec, plan)), template)
    metadata = template.metadata
    return render(
        "common/pod.yaml.j2",
        labels={**((metadata and metadata.labels) or {}), **names.object_labels(service)},
        annotations={
            "prometheus.io/scrape": "true",
            "prometheus.io/port": str(launch.port),
            "prometheus.io/path": launch.metrics_path,
            "kubectl.kubernetes.io/default-container": ENGINE_CONTAINER,
            **((metadata and metadata.annotations) or {}),
        },
        service_account=names.service_account_name(service),
        grace_s=launch.grace_s,
        pod_security=pod_security(template),
        node_selector={**_product_selector(plan.layout), **(template.node_selector or {})},
        tolerations=_tolerations(plan.layout, template, defaults),
        affinity=dict(template.affinity or {}),
        topology_spread=[
            {
                "maxSkew": spread.max_skew,
                "topologyKey": spread.topology_key,
                "whenUnsatisfiable": spread.when_unsatisfiable,
                "labelSelector": {"matchLabels": names.selector_labels(service)},
            }
            for spread in template.topology_spread or ()
        ],
        priority_class=template.priority_class_name,
        runtime_class=template.runtime_class_name,
        image_pull_secrets=[
            {"name": name}
            for name in sorted(
                {s.name for s in (*(defaults.image_pull_secrets or ()), *(template.image_pull_secrets or ()))}
            )
        ],
        container=ENGINE_CONTAINER,
        image=plan.image,
        command=list(launch.command),
        args=list(launch.args),
        env=_env(launch, spec.engine.env or ()),
        port=launch.port,
        resources=_resources(spec, plan.layout),
        startup=launch.startup.to_json(),
        readiness=launch.readiness.to_json(),
        liveness=launch.liveness.to_json(),
        pre_stop={**launch.pre_stop},
        mounts=[
            *({**mount} for mount in launch.mounts),
            *({"name": volume.name, "mountPath": volume.mount_path} for volume in template.volumes or ()),
        ],
        volumes=[
            *({**volume} for volume in launch.volumes),
            *(_volume(volume) for volume in template.volumes or ()),
        ],
    )


def _with_tmp(launch: Launch) -> Launch:
    """The root file system is read-only, so /tmp is a volume of the pod's own."""
    return replace(
        launch,
        volumes=(*launch.volumes, {"name": "draftmark-tmp", "emptyDir": {}}),
        mounts=(*launch.mounts, {"name": "draftmark-tmp", "mountPath": "/tmp"}),
    )


def _with_users_scratch(launch: Launch, template: PodTemplate) -> Launch:
    """Without the scratch space that a volume of the user's replaces, such as a claim that keeps caches: a path can be
    mounted once."""
    scratch = {volume["name"] for volume in launch.volumes if "emptyDir" in volume}
    taken = {volume.mount_path.rstrip("/") for volume in template.volumes or ()}
    dropped = {m["name"] for m in launch.mounts if m["name"] in scratch and m["mountPath"] in taken}
    return replace(
        launch,
        volumes=tuple(volume for volume in launch.volumes if volume["name"] not in dropped),
        mounts=tuple(mount for mount in launch.mounts if mount["name"] not in dropped),
    )


def _launch(spec: InferenceServiceSpec, plan: Plan) -> Launch:
    secret = spec.model.auth_secret_ref
    return ENGINES[plan.engine].launch(
        LaunchRequest(
            plan=plan,
            source=parse_model_uri(spec.model.uri),
            options=spec.engine.options or NO_OPTIONS,
            cpu_cores=cpu_cores(spec),
            max_model_bytes=max_model_bytes(spec),
            request_timeout_s=read_traffic(spec.traffic).request_timeout_s,
            is_own_image=spec.engine.image is not None,
            auth_secret=(secret.name, secret.key) if secret is not None else None,
            revision=spec.model.revision,
            quantization=spec.model.quantization,
            adapters=spec.model.adapters or (),
            workload_kind=spec.workload.kind if spec.workload is not None else None,
            args=spec.engine.args or (),
        )
    )


def pod_security(template: PodTemplate) -> dict[str, Any]:
    """User, groups and profile of a pod that reads or serves the service's model."""
    user = template.security_context
    context: dict[str, Any] = {
        "runAsNonRoot": True,
        "runAsUser": (user and user.run_as_user) or DEFAULT_USER,
        "runAsGroup": (user and user.run_as_group) or DEFAULT_USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    if user is not None and user.fs_group is not None:
        context |= {"fsGroup": user.fs_group, "fsGroupChangePolicy": "OnRootMismatch"}
    if user is not None and user.supplemental_groups:
        context["supplementalGroups"] = list(user.supplemental_groups)
    return context


def _product_selector(layout: Layout) -> dict[str, str]:
    if layout.product is None or layout.resource_name is None:
        return {}
    label = product_label(layout.resource_name)
    return {label: layout.product} if label is not None else {}


def _tolerations(layout: Layout, template: PodTemplate, defaults: Defaults) -> list[dict[str, Any]]:
    given = [*(defaults.tolerations or ()), *(template.tolerations or ())]
    if layout.resource_name is not None:
        # The taint that GPU node pools carry on every provider; without this no GPU pod would ever be placed there.
        given.insert(0, Toleration(key=layout.resource_name, operator="Exists", effect="NoSchedule"))
    written = [t.written() for t in given]
    return [t for i, t in enumerate(written) if t not in written[:i]]


def _env(launch: Launch, user: tuple[EnvVar, ...]) -> list[dict[str, Any]]:
    """The engine's variables, then the user's, who may replace one of the engine's."""
    replaced = {variable.name for variable in user}
    mine = [{**variable} for variable in launch.env if variable["name"] not in replaced]
    return [*mine, *(variable.written() for variable in user)]


def _resources(spec: InferenceServiceSpec, layout: Layout) -> dict[str, Any]:
    resources = spec.engine.resources
    requests = dict((resources and resources.requests) or {})
    limits = dict((resources and resources.limits) or {})
    if layout.gpus and layout.resource_name is not None:
        requests[layout.resource_name] = limits[layout.resource_name] = str(layout.gpus)
    sections: Mapping[str, dict[str, str]] = {"requests": requests, "limits": limits}
    return {name: values for name, values in sections.items() if values}


def _volume(volume: Volume) -> dict[str, Any]:
    if volume.persistent_volume_claim is not None:
        return {"name": volume.name, "persistentVolumeClaim": volume.persistent_volume_claim.written()}
    if volume.config_map is not None:
        return {"name": volume.name, "configMap": {"name": volume.config_map.name}}
    return {"name": volume.name, "emptyDir": (volume.empty_dir.written() if volume.empty_dir is not None else {})}
