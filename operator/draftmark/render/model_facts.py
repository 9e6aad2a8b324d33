"""The Job that reads the facts of a service's model, in the service's namespace.

It may do what the engine's pod may, and less: the same claim or image, read-only, or the same token; the same user; no
account's token, no port. No NetworkPolicy is made for it: it listens to nobody, and whom it may ask is a cluster's own
matter, as it is for engines that download their model.
"""

from collections.abc import Sequence
from typing import Any, Final

from draftmark.api import names
from draftmark.api.defaults import Defaults, HubDefaults
from draftmark.api.images import mirrored
from draftmark.api.inference_service import InferenceServiceSpec, PodTemplate, Toleration
from draftmark.api.model_uri import ClaimModel, HubModel, ImageModel
from draftmark.facts.accelerators import DEFAULT_RESOURCE
from draftmark.facts.model_question import ModelQuestion
from draftmark.render.gateway import DEFAULT_RELOADER_IMAGE
from draftmark.render.metadata import Place
from draftmark.render.pod import pod_security
from draftmark.render.templates import render

COMMAND: Final = ("python3", "-m", "draftmark.model_facts_reader")
CONTAINER: Final = "reader"
MOUNT: Final = "/model"

DEFAULT_ENDPOINT: Final = "https://huggingface.co"
#: Where the hub sends whoever asks for large files. Source: https://huggingface.co/.well-known/meta.json, lfsDomains and
#: cdnDomains, November 2026: all of them are below hf.co.
DEFAULT_REDIRECT_HOSTS: Final = ("*.hf.co",)

#: Pods that may break off, such as by eviction, before the Job has failed.
BACKOFF_LIMIT: Final = 3
#: Seconds after which Kubernetes ends it, twice what the operator waits, and those after which it is removed.
DEADLINE_S: Final = 360
TTL_S: Final = 600
#: Memory: 29 MiB at rest, and 95 MiB were seen with an index of 12.6 MiB. The limit is for the largest header of a GGUF file.
RESOURCES: Final = {
    "requests": {"cpu": "20m", "memory": "64Mi"},
    "limits": {"cpu": "1", "memory": "384Mi"},
}


def render_model_facts_job(
    place: Place, spec: InferenceServiceSpec, question: ModelQuestion, *, attempt: int, defaults: Defaults
) -> dict[str, Any]:
    """The Job that answers a question.

    Its name follows from the question, the attempt and all that its pod is made of: a Job cannot be changed, and what
    changes it, such as an upgrade of the operator, makes another one.

    Args:
        spec: Of the service; its podTemplate says as which user, and where a claim can be mounted.
        attempt: Jobs of this question before this one.
        defaults: The administrator's file.
    """
    pod = _pod(spec, question, defaults)
    name = names.model_facts_job_name(place.service, names.short_hash([question.key, attempt, pod]))
    fields = place.fields(name, names.ROLE_MODEL_FACTS)
    return render(
        "jobs/model-facts.yaml.j2",
        **fields,
        backoff_limit=BACKOFF_LIMIT,
        deadline_s=DEADLINE_S,
        ttl_s=TTL_S,
        pod_labels={**fields["labels"], names.LABEL_JOB: name},
        pod=pod,
    )


def _pod(spec: InferenceServiceSpec, question: ModelQuestion, defaults: Defaults) -> dict[str, Any]:
    template = spec.pod_template or PodTemplate()
    images = defaults.traffic
    volume: dict[str, Any] | None = None
    env: list[dict[str, Any]] = []
    match question.source:
        case ClaimModel(claim=claim, path=path):
            volume = {"name": "draftmark-model", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
            args = _mounted(path, question.uri)
        case ImageModel(reference=reference, path=in_image):
            volume = {"name": "draftmark-model", "image": {"reference": reference, "pullPolicy": "IfNotPresent"}}
            args = _mounted(in_image or "", question.uri)
        case HubModel() as model:
            args = _asked(model, question.revision, defaults.hub or HubDefaults())
            if (secret := spec.model.auth_secret_ref) is not None:
                env = [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": secret.name, "key": secret.key}}}]
    return render(
        "jobs/model-facts-pod.yaml.j2",
        grace_s=1,
        pod_security=pod_security(template),
        # A claim may be reached from some nodes only, and the user has said which.
        node_selector=dict(template.node_selector or {}) if volume is not None else {},
        tolerations=_tolerations(spec, template, defaults),
        image_pull_secrets=[
            {"name": name}
            for name in sorted(
                {s.name for s in (*(defaults.image_pull_secrets or ()), *(template.image_pull_secrets or ()))}
            )
        ],
        container=CONTAINER,
        image=(images and images.reloader_image) or mirrored(DEFAULT_RELOADER_IMAGE, defaults),
        command=list(COMMAND),
        args=args,
        env=env,
        resources=RESOURCES,
        mounts=[{"name": volume["name"], "mountPath": MOUNT, "readOnly": True}] if volume is not None else [],
        volumes=[volume] if volume is not None else [],
    )


# Every value is one word with its flag: one that begins with a dash is a value, too.


def _mounted(path: str, uri: str) -> list[str]:
    # Of a long URI the beginning is enough to be told.
    return ["mounted", f"--root={MOUNT}", f"--path={path}", f"--source={uri[:160]}"]


def _asked(model: HubModel, revision: str | None, hub: HubDefaults) -> list[str]:
    endpoint = hub.endpoint or DEFAULT_ENDPOINT
    hosts: Sequence[str] = hub.redirect_hosts or (DEFAULT_REDIRECT_HOSTS if endpoint == DEFAULT_ENDPOINT else ())
    args = ["hub", f"--endpoint={endpoint}", *(f"--redirect-host={host}" for host in hosts)]
    args += ["--allow-http"] if hub.allow_http else []
    args += [f"--repository={model.repository}"]
    args += [f"--revision={revision}"] if revision is not None else []
    args += [f"--file={model.file}"] if model.file is not None else []
    args += [f"--quantization={model.quantization}"] if model.quantization is not None else []
    return args


def _tolerations(spec: InferenceServiceSpec, template: PodTemplate, defaults: Defaults) -> list[dict[str, Any]]:
    """Those of the engine's pod: a claim may be on a node that is kept for GPUs."""
    given = [*(defaults.tolerations or ()), *(template.tolerations or ())]
    accelerator = spec.accelerator
    if accelerator is not None and accelerator.count != 0:
        resource = accelerator.resource_name or DEFAULT_RESOURCE
        given.insert(0, Toleration(key=resource, operator="Exists", effect="NoSchedule"))
    written = [t.written() for t in given]
    return [t for i, t in enumerate(written) if t not in written[:i]]
