"""The Service that clients talk to."""

from typing import Any

from draftmark.api import names
from draftmark.render.metadata import Place
from draftmark.render.templates import render


def render_service(place: Place) -> dict[str, Any]:
    """The Service of an InferenceService: it selects the engine pods of every revision that is ready."""
    return render(
        "common/service.yaml.j2",
        **place.fields(place.service, "service"),
        selector=names.selector_labels(place.service),
        port=names.SERVICE_PORT,
    )
