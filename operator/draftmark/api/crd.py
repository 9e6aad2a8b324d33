"""CustomResourceDefinitions, generated from the API types.

pydantic writes JSON Schema; the API server wants a structural OpenAPI schema. What differs is rewritten here:
references are inlined, `null` alternatives become optional fields, and what pruning does anyway is left out.
Anything that has no structural form is an error at generation, never a silently weaker schema.
"""

from collections.abc import Mapping
from typing import Any, Final

from draftmark.api import names
from draftmark.api.base import ApiModel
from draftmark.api.benchmark import BenchmarkSpec, BenchmarkStatus
from draftmark.api.inference_service import InferenceServiceSpec
from draftmark.api.inference_service_status import InferenceServiceStatus
from draftmark.api.model_gateway import ModelGatewaySpec, ModelGatewayStatus

#: Keywords that a structural schema may carry, as far as our types use them.
_KEPT: Final = frozenset(
    {
        "type", "description", "enum", "format", "pattern", "minimum", "maximum", "minLength", "maxLength", "minItems",
        "maxItems", "maxProperties", "required", "default", "x-kubernetes-validations", "x-kubernetes-list-type",
        "x-kubernetes-list-map-keys", "x-kubernetes-preserve-unknown-fields", "x-kubernetes-int-or-string",
    }
)  # fmt: skip
_DROPPED: Final = frozenset({"title", "$defs", "propertyNames"})
_HANDLED: Final = frozenset({"properties", "items", "additionalProperties", "anyOf", "$ref", "const"})

_READY_COLUMNS: Final = (
    {"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type=='Ready')].status"},
    {"name": "Reason", "type": "string", "jsonPath": ".status.conditions[?(@.type=='Ready')].reason"},
)


def _name_rules(kind: str) -> list[dict[str, str]]:
    too_long, wrong_form = names.name_rules(kind)
    return [
        {"rule": f"self.metadata.name.size() <= {names.MAX_NAME_LENGTH}", "message": too_long},
        {"rule": f"self.metadata.name.matches('^{names.NAME_PATTERN}$')", "message": wrong_form},
    ]


class NotStructural(ValueError):
    """A type of ours has no structural schema; says which keyword."""


def structural(model: type[ApiModel]) -> dict[str, Any]:
    """The structural schema of one of our types.

    Raises:
        NotStructural: The type uses something that the API server does not accept.
    """
    schema = model.model_json_schema(by_alias=True, mode="validation")
    return _rewrite(schema, schema.get("$defs", {}))


def _rewrite(node: Mapping[str, Any], defs: Mapping[str, Any]) -> dict[str, Any]:
    node = _without_null(_resolve(node, defs), defs)
    unknown = node.keys() - _KEPT - _DROPPED - _HANDLED
    if unknown:
        raise NotStructural(f"keywords {sorted(unknown)} have no structural form: {dict(node)}")
    out = {key: node[key] for key in node if key in _KEPT}
    if out.get("default", 0) is None:
        del out["default"]
    if out.get("x-kubernetes-int-or-string"):
        out.pop("type", None)
        out["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if "const" in node:
        out["enum"] = [node["const"]]
    if "properties" in node:
        out["properties"] = {name: _rewrite(child, defs) for name, child in node["properties"].items()}
    if "items" in node:
        out["items"] = _rewrite(node["items"], defs)
    extra = node.get("additionalProperties")
    if isinstance(extra, Mapping) and extra:
        out["additionalProperties"] = _rewrite(extra, defs)
    return out


def _resolve(node: Mapping[str, Any], defs: Mapping[str, Any]) -> dict[str, Any]:
    if "$ref" not in node:
        return dict(node)
    target = defs[node["$ref"].rpartition("/")[2]]
    # The field's own description says more than its type's.
    return _resolve(target, defs) | {key: value for key, value in node.items() if key != "$ref"}


def _without_null(node: dict[str, Any], defs: Mapping[str, Any]) -> dict[str, Any]:
    if "anyOf" not in node:
        return node
    real = [option for option in node["anyOf"] if option.get("type") != "null"]
    if len(real) != 1:
        raise NotStructural(f"a choice of {len(real)} types has no structural form: {node['anyOf']}")
    rest = {key: value for key, value in node.items() if key != "anyOf"}
    return _resolve(real[0], defs) | rest


def inference_service_crd() -> dict[str, Any]:
    """The CustomResourceDefinition of InferenceService."""
    return _definition(
        kind=names.KIND,
        plural=names.PLURAL,
        short_name="infs",
        # In `kubectl get all` as well.
        categories=["all", "draftmark"],
        description="One model, served on Kubernetes.",
        spec=InferenceServiceSpec,
        status=InferenceServiceStatus,
        subresources={
            "status": {},
            "scale": {
                "specReplicasPath": ".spec.replicas",
                "statusReplicasPath": ".status.replicas",
                "labelSelectorPath": ".status.selector",
            },
        },
        columns=[
            {"name": "Model", "type": "string", "jsonPath": ".status.model"},
            {"name": "Engine", "type": "string", "jsonPath": ".status.plan.engine"},
            {"name": "Layout", "type": "string", "jsonPath": ".status.plan.layout"},
            *_READY_COLUMNS,
            {"name": "Replicas", "type": "integer", "jsonPath": ".status.readyReplicas"},
            {"name": "Rollout", "type": "string", "jsonPath": ".status.conditions[?(@.type=='Progressing')].reason"},
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
            {"name": "URL", "type": "string", "jsonPath": ".status.url", "priority": 1},
            {"name": "Version", "type": "string", "jsonPath": ".status.plan.version", "priority": 1},
        ],
    )


def model_gateway_crd() -> dict[str, Any]:
    """The CustomResourceDefinition of ModelGateway."""
    return _definition(
        kind=names.MODEL_GATEWAY_KIND,
        plural=names.MODEL_GATEWAY_PLURAL,
        short_name="mgw",
        categories=["draftmark"],
        description="One URL over all models of a namespace.",
        spec=ModelGatewaySpec,
        status=ModelGatewayStatus,
        subresources={"status": {}},
        columns=[
            {"name": "Models", "type": "integer", "jsonPath": ".status.modelCount"},
            *_READY_COLUMNS,
            {"name": "URL", "type": "string", "jsonPath": ".status.url"},
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        ],
    )


def benchmark_crd() -> dict[str, Any]:
    """The CustomResourceDefinition of Benchmark."""
    return _definition(
        kind=names.BENCHMARK_KIND,
        plural=names.BENCHMARK_PLURAL,
        short_name="bench",
        categories=["draftmark"],
        description="One measurement of a model server.",
        spec=BenchmarkSpec,
        status=BenchmarkStatus,
        subresources={"status": {}},
        columns=[
            {"name": "Target", "type": "string", "jsonPath": ".spec.target['service','url']"},
            {"name": "Phase", "type": "string", "jsonPath": ".status.phase"},
            # Of every phase: it is false until there are numbers.
            {"name": "Reason", "type": "string", "jsonPath": ".status.conditions[?(@.type=='Complete')].reason"},
            {"name": "Progress", "type": "integer", "jsonPath": ".status.progress.percent"},
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
            {"name": "Started", "type": "date", "jsonPath": ".status.startedAt", "priority": 1},
            {"name": "Finished", "type": "date", "jsonPath": ".status.finishedAt", "priority": 1},
        ],
    )


def _definition(
    *,
    kind: str,
    plural: str,
    short_name: str,
    categories: list[str],
    description: str,
    spec: type[ApiModel],
    status: type[ApiModel],
    subresources: dict[str, Any],
    columns: list[dict[str, Any]],
) -> dict[str, Any]:
    spec_schema = structural(spec)
    schema = {
        "type": "object",
        "description": description,
        # Where nothing of it must be written, all of it may be left out.
        **({"required": ["spec"]} if "required" in spec_schema else {}),
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec_schema,
            "status": structural(status) | {"default": {"observedGeneration": -1}},
        },
        "x-kubernetes-validations": _name_rules(kind),
    }
    version = {
        "name": names.VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": subresources,
        "additionalPrinterColumns": columns,
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{names.GROUP}", "labels": {"app.kubernetes.io/part-of": "draftmark"}},
        "spec": {
            "group": names.GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
                "shortNames": [short_name],
                "categories": categories,
            },
            "versions": [version],
        },
    }
