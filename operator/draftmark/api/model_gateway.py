"""ModelGateway: one URL over all models of a namespace.

It names no services: every InferenceService of its namespace that has an address is behind it.
"""

import re
from typing import Annotated, ClassVar, Final

from pydantic import BeforeValidator, Field

from draftmark.api.base import ApiModel, Rule, number_to_text
from draftmark.api.inference_service_status import ConditionStatus, Name

#: Bounds of the body limit. Above, looking for the model in a body that was made to be slow takes so long (0.25 s per
#: 8 MiB, measured) that HAProxy takes itself for stuck on a slower core, and ends; it allows two seconds.
LEAST_BODY_BYTES: Final = 64 * 1024
MOST_BODY_BYTES: Final = 16 * 1024**2
#: Enough for a prompt of two million tokens, or several pictures.
DEFAULT_BODY_BYTES: Final = 8 * 1024**2

DEFAULT_REPLICAS: Final = 2

_UNITS: Final = {"": 1, "k": 1000, "Ki": 1024, "M": 1000**2, "Mi": 1024**2}
_BYTES: Final = re.compile(r"([0-9]{1,9})(k|Ki|M|Mi)?")


def bytes_of(text: str) -> int:
    """Bytes of a size such as 8Mi.

    Raises:
        ValueError: The text is none.
    """
    found = _BYTES.fullmatch(text)
    if found is None:
        raise ValueError(f"'{text}' is no size: write a whole number, and k, Ki, M or Mi if need be, as in 8Mi")
    return int(found[1]) * _UNITS[found[2] or ""]


#: A whole number of bytes; those quantities of Kubernetes that make sense here.
Bytes = Annotated[
    str,
    Field(pattern=rf"^{_BYTES.pattern}$", max_length=16, json_schema_extra={"x-kubernetes-int-or-string": True}),
    BeforeValidator(number_to_text),
]


class ModelGatewaySpec(ApiModel):
    """How the gateway is run."""

    replicas: Annotated[int, Field(ge=1, le=10)] | None = None
    """Gateway pods. Default: 2."""

    max_body_bytes: Bytes | None = None
    """Longest body of a request, as in 8Mi; a longer one is refused with 413, for a body is read whole before it is
    known which model it is for. Default: 8Mi."""

    rules: ClassVar = (
        Rule(
            cel="!has(self.maxBodyBytes) || (quantity(string(self.maxBodyBytes)).compareTo(quantity('64Ki')) >= 0 && quantity(string(self.maxBodyBytes)).compareTo(quantity('16Mi')) <= 0)",
            holds=lambda s: (
                s.max_body_bytes is None or LEAST_BODY_BYTES <= bytes_of(s.max_body_bytes) <= MOST_BODY_BYTES
            ),
            message="maxBodyBytes must be between 64Ki and 16Mi: send larger bodies to the URL of the InferenceService itself",
        ),
    )


class RoutedModel(ApiModel):
    """One model, and where requests for it go."""

    name: Name
    """Name under which requests ask for it."""
    service: Name
    """The InferenceService that serves it."""


class ModelGatewayStatus(ApiModel):
    """What the operator decided and saw."""

    observed_generation: Annotated[int, Field(json_schema_extra={"default": -1})]
    """Generation of the spec that this status speaks of; -1: the operator has not seen the object yet."""
    conditions: (
        Annotated[
            tuple[ConditionStatus, ...],
            Field(
                max_length=16,
                json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
            ),
        ]
        | None
    ) = None
    url: Name | None = None
    """Where clients inside the cluster send requests."""
    ready_replicas: Annotated[int, Field(ge=0)] | None = None
    """Gateway pods that take requests."""
    model_count: Annotated[int, Field(ge=0)] | None = None
    """Models behind the gateway."""
    models: (
        Annotated[
            tuple[RoutedModel, ...],
            Field(
                max_length=200,
                json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
            ),
        ]
        | None
    ) = None
    """The first 200 of them by name; the gateway knows all, and lists them at /v1/models."""

    rules: ClassVar = ()
