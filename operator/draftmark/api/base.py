"""What all API types share: camelCase names, frozen values, and rules that the API server and we both check.

A rule stands twice on one line: as CEL, for the API server, and as a Python predicate, for `draftmark validate` and
for objects that were stored under an older schema. The integration tests put the same objects through both.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One statement that must hold for an object, and what to say when it does not."""

    cel: str
    holds: Callable[[Any], bool]
    #: What is, what is needed, and the way out.
    message: str


class ApiModel(BaseModel):
    """A part of one of our kinds. Unknown fields are dropped, as the API server drops them."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        frozen=True,
        extra="ignore",
        use_attribute_docstrings=True,
    )

    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _check_rules(self) -> Self:
        for rule in self.rules:
            if not rule.holds(self):
                # The braces of a message are text here, never a format.
                raise PydanticCustomError("rule", "{message}", {"message": rule.message})
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler.resolve_ref_schema(handler(core_schema))
        if cls.rules:
            schema["x-kubernetes-validations"] = [{"rule": r.cel, "message": r.message} for r in cls.rules]
        return schema

    def written(self) -> dict[str, Any]:
        """The fields that the user wrote, as JSON data. Absent fields leave no trace, so a revision's hash over this
        does not change when the schema gains a field."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)


def number_to_text(value: object) -> object:
    """YAML authors leave the quotes away: 2 is "2" where the API server takes both."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


@dataclass(frozen=True, slots=True)
class ListMap:
    """A list whose items are told apart by one field; the API server merges by it and refuses duplicates."""

    key: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._without_duplicates, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        marks = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [self.key]}
        return handler(schema) | marks

    def _without_duplicates(self, items: tuple[Any, ...]) -> tuple[Any, ...]:
        keys = [getattr(item, self.key) for item in items]
        if twice := sorted({key for key in keys if keys.count(key) > 1}):
            raise PydanticCustomError(
                "duplicate", "Duplicate value: {key} {values} stands twice", {"key": self.key, "values": twice[:3]}
            )
        return items


#: A Kubernetes quantity. YAML authors write `cpu: 2`; the API server accepts both forms, and so do we. It takes no
#: fraction without quotes: an int-or-string is not a number.
Quantity = Annotated[
    str,
    # Before the validator: pydantic leaves a pattern that comes after one out of the schema.
    Field(
        pattern=r"^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$",
        max_length=32,
        json_schema_extra={"x-kubernetes-int-or-string": True},
    ),
    BeforeValidator(number_to_text),
]

#: A name in the sense of RFC 1123 (one label).
DnsLabel = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
#: A name in the sense of RFC 1123 (dots allowed), as most Kubernetes objects have.
DnsName = Annotated[str, Field(pattern=r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$", max_length=253)]

#: Length bounds of label keys (prefix, slash, name) and values. Source: Kubernetes documentation, "Labels and
#: Selectors", syntax and character set.
LabelKey = Annotated[str, Field(max_length=317)]
LabelValue = Annotated[str, Field(max_length=63, pattern=r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$")]
Labels = Annotated[Mapping[LabelKey, LabelValue], Field(max_length=64)]
Annotations = Annotated[Mapping[LabelKey, Annotated[str, Field(max_length=4096)]], Field(max_length=64)]
