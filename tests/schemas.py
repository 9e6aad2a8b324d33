"""Walks over the schemas that are generated from the API types."""

from collections.abc import Iterator, Mapping
from typing import Any

from draftmark.api.base import ApiModel
from draftmark.api.crd import inference_service_crd, structural
from draftmark.api.inference_service import InferenceServiceSpec

Schema = Mapping[str, Any]


def crd_schema() -> dict[str, Any]:
    schema: dict[str, Any] = inference_service_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def walk(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Every schema inside a schema, with its path: list items as `[]`, map values as `{}`."""
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from walk(child, f"{path}.{name}" if path else name)
    if "items" in schema:
        yield from walk(schema["items"], f"{path}[]")
    if "additionalProperties" in schema:
        yield from walk(schema["additionalProperties"], f"{path}{{}}")


def leaves(schema: Schema) -> set[str]:
    """Paths of the fields that hold a value of their own."""
    return {path for path, node in walk(schema) if not node.keys() & {"properties", "items", "additionalProperties"}}


def spec_leaves() -> set[str]:
    return leaves(structural(InferenceServiceSpec))


def models(root: type[ApiModel]) -> list[type[ApiModel]]:
    """The API types that a type is made of, itself included."""
    found: dict[str, type[ApiModel]] = {}

    def visit(annotation: Any) -> None:
        if isinstance(annotation, type) and issubclass(annotation, ApiModel):
            if annotation.__name__ not in found:
                found[annotation.__name__] = annotation
                for field in annotation.model_fields.values():
                    visit(field.annotation)
            return
        for inner in getattr(annotation, "__args__", ()):
            visit(inner)

    visit(root)
    return list(found.values())
