"""What is wrong with a pod, read from its status, in the words of somebody who has to mend it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any, Final

from draftmark.api.conditions import shorten
from draftmark.api.times import read_time
from draftmark.facts.gpu_failures import GpuFailure, gpu_failure, unhealthy_device

#: The one container of an engine pod.
ENGINE_CONTAINER: Final = "engine"

#: Lines of a crashed engine's log that are told.
_LOG_LINES: Final = 3

_PULL_REASONS: Final = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"}
)
_CONFIG_REASONS: Final = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})


#: What an engine says when a model does not come, in small letters; the first that is found is told. Sources: llama-server
#: v0.7.0, seen without a network; errors of huggingface_hub (huggingface_hub/errors.py) and of transformers by name.
_DOWNLOAD_SIGNS: Final = (
    "httplib failed",
    "gatedrepoerror",
    "repositorynotfounderror",
    "revisionnotfounderror",
    "couldn't connect to 'https://huggingface.co'",
    "localentrynotfounderror",
    "failed to resolve commit for",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PodProblem:
    """Why a pod does not serve."""

    code: str
    message: str
    #: True: nothing gets better until somebody changes something.
    needs_human: bool
    #: Larger is told first.
    weight: int


def is_ready(pod: Mapping[str, Any]) -> bool:
    """Whether the pod takes requests: ready, and not on its way out."""
    if pod.get("metadata", {}).get("deletionTimestamp"):
        return False
    conditions = pod.get("status", {}).get("conditions") or ()
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


def has_ended(pod: Mapping[str, Any]) -> bool:
    """Whether nothing of a pod runs any more, nor ever will. One that was evicted, or whose node was shut down, stays until it is
    collected as garbage, and its ReplicaSet does not count it."""
    return pod.get("status", {}).get("phase") in ("Failed", "Succeeded")


def worst_problem(pods: Iterable[Mapping[str, Any]]) -> PodProblem | None:
    """The problem to tell when there is room for one; the same for the same pods in any order."""
    problems = [p for pod in pods if (p := pod_problem(pod)) is not None]
    return max(problems, key=lambda p: (p.weight, p.code, p.message), default=None)


def most_crashes(pods: Iterable[Mapping[str, Any]]) -> int:
    """Restarts of the container that restarted most often, among pods that are not ready."""
    return max(
        (
            int(container.get("restartCount", 0))
            for pod in pods
            if not is_ready(pod) and not pod.get("metadata", {}).get("deletionTimestamp")
            for container in pod.get("status", {}).get("containerStatuses") or ()
        ),
        default=0,
    )


def pod_problem(pod: Mapping[str, Any]) -> PodProblem | None:
    """What is wrong with one pod, or None when it is well or still starting."""
    if pod.get("metadata", {}).get("deletionTimestamp"):
        return None
    status = pod.get("status", {})
    node = pod.get("spec", {}).get("nodeName")
    for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        if (problem := _container_problem(container, node)) is not None:
            return problem
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return PodProblem(
                code="Unschedulable",
                message=f"The pod finds no node: {sentence(condition.get('message'))} Add or free nodes, lower "
                "engine.resources or accelerator, or correct podTemplate's nodeSelector and tolerations.",
                needs_human=False,
                weight=1,
            )
    if status.get("phase") == "Failed":
        # Rejected by the kubelet; another pod is made at once, and may come to a node that is well.
        if (failure := gpu_failure(status.get("message"), node=node)) is not None:
            return _gpu_problem(failure, needs_human=False, weight=2)
        return PodProblem(
            code="PodFailed",
            message=f"The pod ended: {status.get('reason', 'no reason given')}. {sentence(status.get('message'))}",
            needs_human=False,
            weight=2,
        )
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unscheduled:
    """A pod that the scheduler finds no node for."""

    pod: str
    since: datetime
    #: The scheduler's words.
    message: str


def unscheduled(pods: Iterable[Mapping[str, Any]]) -> tuple[Unscheduled, ...]:
    """The pods that wait for a node, the longest first. A pod that something else holds back from the scheduler does not
    count, nor one whose times are not told."""
    found = []
    for pod in pods:
        if pod.get("metadata", {}).get("deletionTimestamp"):
            continue
        for condition in pod.get("status", {}).get("conditions") or ():
            is_waiting = condition.get("type") == "PodScheduled" and condition.get("status") == "False"
            since = read_time(condition.get("lastTransitionTime") or pod["metadata"].get("creationTimestamp"))
            if is_waiting and condition.get("reason") != "SchedulingGated" and since is not None:
                text = str(condition.get("message") or "")
                found.append(Unscheduled(pod=str(pod["metadata"]["name"]), since=since, message=text))
    return tuple(sorted(found, key=lambda one: (one.since, one.pod)))


def restarts(pod: Mapping[str, Any]) -> int:
    """How often the containers of a pod were started again."""
    return sum(int(c.get("restartCount", 0)) for c in pod.get("status", {}).get("containerStatuses") or ())


def _container_problem(container: Mapping[str, Any], node: str | None) -> PodProblem | None:
    waiting = container.get("state", {}).get("waiting") or {}
    reason = str(waiting.get("reason", ""))
    if reason in _PULL_REASONS:
        return PodProblem(
            code="ImagePullFailed",
            message=f"Image '{container.get('image', '')}' cannot be pulled: {sentence(waiting.get('message'))} "
            "Check the name and tag (engine.image, engine.version), the registry, and podTemplate.imagePullSecrets.",
            needs_human=True,
            weight=3,
        )
    if reason in _CONFIG_REASONS:
        if (failure := gpu_failure(waiting.get("message"), node=node)) is not None:
            return _gpu_problem(failure, needs_human=True, weight=5)
        return PodProblem(
            code="ContainerConfigFailed",
            message=f"The container cannot be created: {sentence(waiting.get('message'))} Create what is missing, "
            "or correct the service.",
            needs_human=True,
            weight=3,
        )
    ended = container.get("lastState", {}).get("terminated") or container.get("state", {}).get("terminated")
    if ended and not container.get("ready"):
        return _crash(container, ended, node)
    return None


def _gpu_problem(failure: GpuFailure, *, needs_human: bool, weight: int, times: str = "") -> PodProblem:
    return PodProblem(
        code=failure.code,
        message=f"{failure.what}{times}: {sentence(failure.line)} {failure.way_out}",
        needs_human=needs_human,
        weight=weight,
    )


def _crash(container: Mapping[str, Any], ended: Mapping[str, Any], node: str | None) -> PodProblem | None:
    restarts = int(container.get("restartCount", 0))
    exit_code = ended.get("exitCode")
    if exit_code == 0 and restarts == 0:
        return None
    # The kubelet puts the end of the log here (terminationMessagePolicy: FallbackToLogsOnError).
    lines = [line.strip() for line in str(ended.get("message") or "").splitlines() if line.strip()]
    # The very last line often only says that it ends; the cause stands above it.
    last = f" End of its log: {shorten(' | '.join(lines[-_LOG_LINES:]), 500)}" if lines else ""
    if (name := str(container.get("name", ENGINE_CONTAINER))) != ENGINE_CONTAINER:
        how = "was killed for memory" if ended.get("reason") == "OOMKilled" else f"ended with exit code {exit_code}"
        return PodProblem(
            code=f"{name.capitalize()}Crashed",
            message=f"The container {name} {how} (restarted {restarts} times). It is "
            f"Draftmark's own: please report it with its log.{last}",
            needs_human=False,
            weight=4,
        )
    if ended.get("reason") == "OOMKilled":
        return PodProblem(
            code="OutOfMemory",
            message=f"The engine was killed for memory (restarted {restarts} times). Raise "
            "engine.resources.limits.memory, or lower model.maxContextLength or workload.concurrency." + last,
            needs_human=True,
            weight=5,
        )
    # What the kubelet was told of the device counts before what the log makes of it.
    failure = unhealthy_device(container, node=node) or gpu_failure(ended.get("message"), node=node)
    if failure is not None:
        return _gpu_problem(failure, needs_human=True, weight=5, times=f" (restarted {restarts} times)")
    if (line := _first_sign(lines)) is not None:
        return PodProblem(
            code="ModelDownloadFailed",
            message=f"The model was not downloaded (restarted {restarts} times): {sentence(line)} Let the pods reach the hub, "
            "correct model.uri or model.revision, set model.authSecretRef where a token is asked for, or bring the model "
            "with pvc:// or oci://.",
            needs_human=True,
            weight=4,
        )
    return PodProblem(
        code="EngineCrashed",
        message=f"The engine ended with exit code {exit_code} (restarted {restarts} times). Correct what its log names: "
        f"the model, engine.args or engine.resources (kubectl logs --previous has all of it).{last}",
        needs_human=True,
        weight=4,
    )


def _first_sign(lines: Sequence[str]) -> str | None:
    return next((line for sign in _DOWNLOAD_SIGNS for line in lines if sign in line.lower()), None)


def sentence(text: object) -> str:
    """What somebody else said, at most 500 bytes, with a mark at its end."""
    clean = shorten(str(text or "no message").strip(), 500)
    return clean if clean.endswith((".", "!", "?")) else f"{clean}."


@dataclass(frozen=True, slots=True, kw_only=True)
class StartupStages:
    """How long a pod took to start, in whole seconds: the API tells times so."""

    schedule_s: int
    image_s: int
    load_s: int
    ready_at: datetime

    @property
    def total_s(self) -> int:
        return self.schedule_s + self.image_s + self.load_s


def startup_stages(pod: Mapping[str, Any]) -> StartupStages | None:
    """The stages of a ready pod's start, or None where they cannot be told: a container that was restarted has lost its
    first start."""
    status = pod.get("status", {})
    engine: Mapping[str, Any] = next(iter(status.get("containerStatuses") or ()), {})
    if int(engine.get("restartCount", 0)) > 0:
        return None
    at = {str(c.get("type")): c.get("lastTransitionTime") for c in status.get("conditions") or ()}
    times = [
        read_time(text)
        for text in (
            pod.get("metadata", {}).get("creationTimestamp"),
            at.get("PodScheduled"),
            (engine.get("state", {}).get("running") or {}).get("startedAt"),
            at.get("Ready"),
        )
    ]
    created, scheduled, started, ready = times
    if created is None or scheduled is None or started is None or ready is None:
        return None
    seconds = [max(0, int((b - a).total_seconds())) for a, b in pairwise((created, scheduled, started, ready))]
    return StartupStages(schedule_s=seconds[0], image_s=seconds[1], load_s=seconds[2], ready_at=ready)
