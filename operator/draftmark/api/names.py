"""Every string that names something on the Kubernetes side: group, labels, annotations, object names.

Names are deterministic: the same service and the same revision give the same names, whoever computes them and when.
"""

import re
from hashlib import sha256
from json import dumps
from typing import Final

GROUP: Final = "draftmark.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
KIND: Final = "InferenceService"
PLURAL: Final = "inferenceservices"
MODEL_GATEWAY_KIND: Final = "ModelGateway"
MODEL_GATEWAY_PLURAL: Final = "modelgateways"
BENCHMARK_KIND: Final = "Benchmark"
BENCHMARK_PLURAL: Final = "benchmarks"

#: Longest name of an InferenceService, in characters. Children add a role and a revision (17 characters), and a label
#: value ends at 63. The rest is kept for longer role names.
MAX_NAME_LENGTH: Final = 40

NAME_PATTERN: Final = "[a-z]([-a-z0-9]*[a-z0-9])?"
NAME_TOO_LONG: Final = (
    f"metadata.name is longer than {MAX_NAME_LENGTH} characters: choose a shorter name, because the objects made for "
    "the service add a role and a revision to it"
)
NAME_NOT_A_SERVICE_NAME: Final = (
    "metadata.name becomes the name of a Service: begin with a letter, then letters, digits and '-', and end with a "
    "letter or digit"
)

BENCHMARK_NAME_TOO_LONG: Final = (
    f"metadata.name is longer than {MAX_NAME_LENGTH} characters: choose a shorter name, because the objects made for the "
    "Benchmark add to it what they are for"
)
BENCHMARK_NAME_NOT_A_LABEL: Final = (
    "metadata.name becomes a label of the Benchmark's pod: begin with a letter, then letters, digits and '-', and end with a "
    "letter or digit"
)

#: Fields of children are owned under this name in server-side apply.
FIELD_MANAGER: Final = "draftmark"
#: The status of our own kinds is owned under this one.
STATUS_FIELD_MANAGER: Final = "draftmark-status"

LABEL_SERVICE: Final = f"{GROUP}/service"
LABEL_MODEL_GATEWAY: Final = f"{GROUP}/model-gateway"
LABEL_BENCHMARK: Final = f"{GROUP}/benchmark"
LABEL_ROLE: Final = f"{GROUP}/role"
LABEL_REVISION: Final = f"{GROUP}/revision"
#: Of the pods of a Job of ours: its name.
LABEL_JOB: Final = f"{GROUP}/job"
LABEL_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
MANAGED_BY: Final = "draftmark"

#: Digest of what the operator wrote last to a child.
ANNOTATION_APPLIED: Final = f"{GROUP}/applied"

#: On an InferenceService: the time since which a withdrawn revision may be tried again, and a question about its model
#: that was not answered.
ANNOTATION_RETRY: Final = f"{GROUP}/retry"
#: On a Benchmark's Job: the digest of what it was started to measure.
ANNOTATION_TARGET: Final = f"{GROUP}/target-digest"
#: On the same: what it loads, as the keys by which one target is known from another, with commas between them.
ANNOTATION_LOADS: Final = f"{GROUP}/loads"
#: On a gateway's pod: the configuration that the kubelet shall bring to it now, and not within a minute.
ANNOTATION_CONFIG: Final = f"{GROUP}/config"

ROLE_ENGINE: Final = "engine"
ROLE_GATEWAY: Final = "gateway"
ROLE_ROUTER: Final = "router"
ROLE_BENCHMARK: Final = "benchmark"
ROLE_MODEL_FACTS: Final = "model-facts"

#: Labels that a user's podTemplate may not set: children are found and selected by them.
RESERVED_LABEL_PREFIXES: Final = (f"{GROUP}/", "app.kubernetes.io/", "pod-template-hash", "controller-revision-hash")

#: Port of the Service that users talk to.
SERVICE_PORT: Final = 80

#: Ports of a gateway's pod: clients, the operator (proofs and state; not in any Service), metrics and probes.
GATEWAY_PORT: Final = 8080
GATEWAY_INNER_PORT: Final = 8081
GATEWAY_METRICS_PORT: Final = 8405
#: Ports of a router's pod: requests and probes, metrics.
ROUTER_PORT: Final = 30000
ROUTER_METRICS_PORT: Final = 29000

#: Names the revision that answered; on the gateway's inner port it chooses the revision, whatever its weight.
HEADER_REVISION: Final = "x-draftmark-revision"
#: Names the InferenceService to which a ModelGateway gave the request.
HEADER_SERVICE: Final = "x-draftmark-service"
#: Path of the gateway's inner port that tells what it works with.
GATEWAY_STATE_PATH: Final = "/draftmark/state"


def name_rules(kind: str) -> tuple[str, str]:
    """What is said of a name that is too long, and of one that has a wrong form."""
    if kind == BENCHMARK_KIND:
        return BENCHMARK_NAME_TOO_LONG, BENCHMARK_NAME_NOT_A_LABEL
    return NAME_TOO_LONG, NAME_NOT_A_SERVICE_NAME


def name_problem(name: str, kind: str = KIND) -> str | None:
    """What is wrong with the name of an object of ours, or None. The API server says the same by CEL."""
    too_long, wrong_form = name_rules(kind)
    if len(name) > MAX_NAME_LENGTH:
        return too_long
    return None if re.fullmatch(NAME_PATTERN, name) else wrong_form


def service_url(name: str, namespace: str) -> str:
    """The address of a service inside the cluster. It never changes in a service's life."""
    return f"http://{name}.{namespace}.svc"


def short_hash(value: object) -> str:
    """Eight hexadecimal characters over JSON data, the same for equal data in any key order."""
    text = dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return sha256(text.encode("utf-8", "replace")).hexdigest()[:8]


def revision_name(service: str, revision: str) -> str:
    """Name of the ControllerRevision that pins one revision."""
    return f"{service}-{revision}"


def engine_name(service: str, revision: str) -> str:
    """Name of the Deployment that runs the engine pods of one revision."""
    return f"{service}-{ROLE_ENGINE}-{revision}"


def gateway_name(service: str) -> str:
    """Name of a service's gateway: its Deployment, ConfigMap and ServiceAccount."""
    return f"{service}-{ROLE_GATEWAY}"


def router_name(service: str, revision: str) -> str:
    """Name of the router of one revision: its Deployment and its Service."""
    return f"{service}-{ROLE_ROUTER}-{revision}"


def router_account_name(service: str) -> str:
    """Name of the ServiceAccount under which a service's routers look for engine pods, and of its binding."""
    return f"{service}-{ROLE_ROUTER}"


def model_facts_job_name(service: str, question: str) -> str:
    """Name of the Job that reads the facts of a service's model."""
    return f"{service}-facts-{question}"


def benchmark_job_name(benchmark: str, attempt: str) -> str:
    """Name of a Job that measures, and of the ConfigMap with its order."""
    return f"{benchmark}-bench-{attempt}"


def benchmark_result_name(benchmark: str) -> str:
    """Name of the ConfigMap into which a Benchmark's Job writes its progress and its result."""
    return f"{benchmark}-result"


def benchmark_account_name(benchmark: str) -> str:
    """Name of the ServiceAccount under which a Benchmark's Job runs, of its Role and of its binding."""
    return f"{benchmark}-{ROLE_BENCHMARK}"


def service_account_name(service: str) -> str:
    """Name of the ServiceAccount under which the engine pods of a service run. It has no rights."""
    return f"{service}-{ROLE_ENGINE}"


def selector_labels(service: str, role: str = ROLE_ENGINE, *, kind: str = KIND) -> dict[str, str]:
    """Labels that all pods of one role of a service (or of another kind of ours) share, whatever their revision."""
    return {_OWNER_LABELS[kind]: service, LABEL_ROLE: role}


#: By which label the children of a kind of ours say whose they are, and what they are a part of.
_OWNER_LABELS: Final = {KIND: LABEL_SERVICE, MODEL_GATEWAY_KIND: LABEL_MODEL_GATEWAY, BENCHMARK_KIND: LABEL_BENCHMARK}
_APPLICATIONS: Final = {
    KIND: "draftmark-inference",
    MODEL_GATEWAY_KIND: "draftmark-model-gateway",
    BENCHMARK_KIND: "draftmark-benchmark",
}


def object_labels(service: str, role: str = ROLE_ENGINE, *, kind: str = KIND) -> dict[str, str]:
    """Labels of every child of a service, or of another kind of ours."""
    return {
        "app.kubernetes.io/name": _APPLICATIONS[kind],
        "app.kubernetes.io/instance": service,
        "app.kubernetes.io/component": role,
        "app.kubernetes.io/part-of": service,
        LABEL_MANAGED_BY: MANAGED_BY,
        **selector_labels(service, role, kind=kind),
    }
