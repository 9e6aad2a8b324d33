"""Deployment, ServiceAccount and ControllerRevision of one revision, from what the revision pins."""

from collections.abc import Mapping
from typing import Any, Final

from draftmark.api import names
from draftmark.render.metadata import Place
from draftmark.render.templates import render

#: Seconds after the start-up budget until a Deployment that makes no progress says so: scheduling and pulling.
PROGRESS_MARGIN_S: Final = 600


def render_deployment(place: Place, *, revision: str, replicas: int, pod_template: Mapping[str, Any]) -> dict[str, Any]:
    """The Deployment of one revision's engine pods; `pod_template` as the ControllerRevision has it."""
    label = {names.LABEL_REVISION: revision}
    metadata = pod_template["metadata"]
    startup = pod_template["spec"]["containers"][0]["startupProbe"]
    return render(
        "common/deployment.yaml.j2",
        **place.fields(names.engine_name(place.service, revision), names.ROLE_ENGINE, **label),
        replicas=replicas,
        progress_deadline_s=startup["periodSeconds"] * startup["failureThreshold"] + PROGRESS_MARGIN_S,
        selector={**names.selector_labels(place.service), **label},
        pod_template={**pod_template, "metadata": {**metadata, "labels": {**metadata["labels"], **label}}},
    )


def render_service_account(place: Place) -> dict[str, Any]:
    """The ServiceAccount of the engine pods: no token, no rights."""
    return render(
        "common/service_account.yaml.j2",
        **place.fields(names.service_account_name(place.service), names.ROLE_ENGINE),
    )


def render_controller_revision(place: Place, *, revision: str, number: int, data: Mapping[str, Any]) -> dict[str, Any]:
    """The ControllerRevision that pins what a revision runs."""
    return render(
        "common/controller_revision.yaml.j2",
        **place.fields(
            names.revision_name(place.service, revision), names.ROLE_ENGINE, **{names.LABEL_REVISION: revision}
        ),
        number=number,
        data=dict(data),
    )
