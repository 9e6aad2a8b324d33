"""The Service that clients talk to."""

from typing import Any

from draftmark.api import names
from draftmark.render.metadata import Place
from draftmark.render.templates import render


def render_service(place: Place, *, role: str = names.ROLE_GATEWAY) -> dict[str, Any]:
    """The Service of an InferenceService.

    Args:
        role: The pods behind it: the gateway's; the engines' only as long as a service that an older version made waits
            for its gateway.
    """
    return render(
        "common/service.yaml.j2",
        **place.fields(place.service, "service"),
        selector=names.selector_labels(place.service, role),
        port=names.SERVICE_PORT,
    )
