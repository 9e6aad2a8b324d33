"""The way to the API server, as kubectl's users expect it, through the official client.

Answers stay the plain JSON that they are: everything that is said about them is said by functions over plain data.
Whatever goes wrong becomes one `ClusterError` whose text a user can act on.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import yaml
from kubernetes import client as official
from kubernetes import config as official_config
from kubernetes.config import kube_config
from urllib3.exceptions import HTTPError

from draftmark.api.conditions import shorten
from draftmark.cli.endings import ClusterError
from draftmark.cluster.kinds import BENCHMARKS, INFERENCE_SERVICES, PODS, Kind

__all__ = ["Cluster", "ClusterError"]

#: An object as the API server sends it.
Json = Mapping[str, Any]

#: Seconds to connect, and between two pieces of an answer. Guesses: slower is broken, for somebody who waits.
CONNECT_TIMEOUT_S: Final = 5.0
READ_TIMEOUT_S: Final = 30.0
#: The same for a pod that is asked through the API server; many are asked at once, and one may hang.
POD_TIMEOUT_S: Final = 5.0
#: Objects of one page of a list; the API server's own tools use the same.
PAGE: Final = 500
#: Requests at once, log streams included. urllib3 drops the connections beyond it after use.
CONNECTIONS: Final = 64
#: Who writes, as managedFields shows it.
FIELD_MANAGER: Final = "kubectl-draftmark"

_JSON_PATCH: Final = "application/json-patch+json"
_SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class Cluster:
    """One API server, seen through one context.

    Attributes:
        namespace: The one that the user chose, by option or by the context.
    """

    def __init__(self, configuration: Any, *, namespace: str, context: str) -> None:
        # A request that failed is told at once; who watches asks again anyway.
        configuration.retries = False
        configuration.connection_pool_maxsize = CONNECTIONS
        self._api = official.ApiClient(configuration)
        self._server = str(configuration.host)
        self._context = context
        self.namespace = namespace

    @classmethod
    def open(
        cls, *, kubeconfig: str | None = None, context: str | None = None, namespace: str | None = None
    ) -> "Cluster":
        """An explicit kubeconfig, else `KUBECONFIG` (which may name several), else `~/.kube/config`, else the pod's
        service account. Sends nothing.

        Raises:
            ClusterError: There is no such file or context, or it cannot be read.
        """
        configuration: Any = official.Configuration()
        paths = kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"
        try:
            if kubeconfig and not Path(kubeconfig).expanduser().is_file():
                raise ClusterError(f"kubeconfig {kubeconfig} is no file. Correct --kubeconfig.")
            merged = kube_config.KubeConfigMerger(paths).config
            if merged is None:
                if "KUBERNETES_SERVICE_HOST" in os.environ and not context:
                    official_config.load_incluster_config(client_configuration=configuration)
                    return cls(configuration, namespace=namespace or _pod_namespace(), context="(this pod)")
                raise ClusterError(f"there is no kubeconfig at {paths}. Give --kubeconfig, or set KUBECONFIG.")
            known = sorted(str(item["name"]) for item in merged.value["contexts"] or ())
            chosen = context or merged.value.get("current-context")
            if not chosen:
                raise ClusterError(f"{paths} has no current context. Give --context: {_listed(known)}.")
            if chosen not in known:
                raise ClusterError(f"{paths} has no context '{chosen}'. It has: {_listed(known)}. Give --context.")
            loader = kube_config.KubeConfigLoader(config_dict=merged, config_base_path=None, active_context=chosen)
            loader.load_and_set(configuration)
            in_context = loader.current_context["context"].get("namespace")
            return cls(configuration, namespace=namespace or in_context or "default", context=str(chosen))
        except (official_config.ConfigException, yaml.YAMLError, OSError, KeyError, TypeError, AttributeError) as error:
            raise ClusterError(
                f"{paths} cannot be used: {shorten(str(error), 300)} Correct it, or name another."
            ) from None

    # Objects

    def service(self, name: str) -> Json:
        """An InferenceService of the chosen namespace.

        Raises:
            ClusterError: It does not exist (the message names those that do), or cannot be read.
        """
        return self._one_of_ours(INFERENCE_SERVICES, name)

    def benchmark(self, name: str) -> Json:
        """A Benchmark of the chosen namespace.

        Raises:
            ClusterError: As of a service.
        """
        return self._one_of_ours(BENCHMARKS, name)

    def _one_of_ours(self, kind: Kind, name: str) -> Json:
        try:
            return self.get(kind, name)
        except ClusterError as error:
            if error.status != 404:
                raise
        there = [str(item["metadata"]["name"]) for item in self.list_all(kind, self.namespace)]
        near = get_close_matches(name, there, n=3) or sorted(there)
        raise ClusterError(
            f"there is no {kind.kind} '{name}' in namespace '{self.namespace}'; it has: {_listed(near)}. "
            "Correct the name, or give --namespace.",
            404,
        )

    def get(self, kind: Kind, name: str) -> Json:
        """One object of the chosen namespace."""
        return self._json("GET", self._path(kind, name), kind=kind, name=name)

    def list_all(self, kind: Kind, namespace: str | None, selector: str = "") -> list[Json]:
        """All objects of a kind; None as namespace means all of them."""
        found: list[Json] = []
        query = {"limit": str(PAGE)} | ({"labelSelector": selector} if selector else {})
        while True:
            page = self._json("GET", kind.path(namespace), kind=kind, query=query)
            found += page.get("items") or ()
            token = (page.get("metadata") or {}).get("continue")
            if not token:
                return found
            query["continue"] = token

    def patch(self, kind: Kind, name: str, operations: Sequence[Json], *, is_trial: bool = False) -> Json:
        """Apply a JSON patch.

        Args:
            is_trial: The API server checks it as a real one, and stores nothing.
        """
        query = {"fieldManager": FIELD_MANAGER} | ({"dryRun": "All"} if is_trial else {})
        path = self._path(kind, name)
        return self._json("PATCH", path, kind=kind, name=name, query=query, body=list(operations))

    def apply(self, kind: Kind, manifest: Json) -> Json:
        """Server-side apply into the chosen namespace. Not forced: what somebody else has set to another value is a
        conflict (409). Unknown fields are refused."""
        name = str(manifest["metadata"]["name"])
        query = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
        path = self._path(kind, name)
        return self._json(
            "PATCH", path, kind=kind, name=name, query=query, body=manifest, content_type="application/apply-patch+yaml"
        )

    def _path(self, kind: Kind, name: str) -> str:
        """Of one object of the chosen namespace.

        Raises:
            ClusterError: With this name the path would be another one, such as that of all objects.
        """
        if name in ("", ".", ".."):
            raise ClusterError(
                f"{name!r} is no name of a {kind.kind}. Give one (is a variable of the shell empty?): kubectl get {kind.resource} -n "
                f"{self.namespace} lists them.",
                400,
            )
        return kind.path(self.namespace, quote(name, safe=""))

    # Pods

    def log(self, pod: str, query: Mapping[str, str], *, is_followed: bool) -> Iterator[str]:
        """Lines of a container's log, as they come. The namespace is the chosen one.

        Raises:
            ClusterError: There is no log, or the connection broke.
        """
        path = f"{PODS.path(self.namespace, quote(pod, safe=''))}/log"
        read = None if is_followed else READ_TIMEOUT_S
        answer = self._send("GET", path, query=query, timeout=(CONNECT_TIMEOUT_S, read))
        rest = b""
        with self._translated():
            for piece in answer.response.stream(2**16, decode_content=True):
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    yield line.decode("utf-8", "replace")
        if rest:
            yield rest.decode("utf-8", "replace")

    def ask_pod(self, namespace: str, pod: str, port: int, path: str) -> str:
        """GET from a pod's port, through the API server: no route to the pod's network is needed."""
        whole = f"{PODS.path(namespace, quote(pod, safe=''))}:{port}/proxy{path}"
        answer = self._send("GET", whole, timeout=(CONNECT_TIMEOUT_S, POD_TIMEOUT_S))
        with self._translated():
            return str(answer.response.data.decode("utf-8", "replace"))

    # HTTP

    def _json(
        self,
        method: str,
        path: str,
        *,
        kind: Kind,
        name: str = "",
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = _JSON_PATCH,
    ) -> Json:
        timeout = (CONNECT_TIMEOUT_S, READ_TIMEOUT_S)
        answer = self._send(
            method, path, query=query, timeout=timeout, body=body, content_type=content_type, kind=kind, name=name
        )
        with self._translated():
            data = answer.response.data
        try:
            read: Json = json.loads(data)
        except ValueError:
            raise ClusterError(
                f"{self._server} answers, but not as an API server. Check the kubeconfig.", 200
            ) from None
        if not isinstance(read, dict):
            raise ClusterError(f"{self._server} answers, but not as an API server. Check the kubeconfig.", 200)
        return read

    def _send(
        self,
        method: str,
        path: str,
        *,
        timeout: tuple[float, float | None],
        kind: Kind | None = None,
        name: str = "",
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = _JSON_PATCH,
    ) -> Any:
        headers = {"Accept": "application/json, */*"}
        if body is not None:
            headers["Content-Type"] = content_type
        request = self._api.param_serialize(
            method, path, query_params=list((query or {}).items()), header_params=headers, body=body,
            auth_settings=["BearerToken"],
        )  # fmt: skip
        with self._translated():
            answer = self._api.call_api(*request, _request_timeout=timeout)
            if not 200 <= answer.status <= 299:
                raise self._refusal(answer.status, answer.response.data, kind=kind, name=name)
        return answer

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (HTTPError, official.ApiException, OSError) as error:
            said = shorten(" ".join(str(getattr(error, "reason", None) or error).split()), 300)
            raise ClusterError(
                f"the API server of context '{self._context}' ({self._server}) cannot be reached: {said}. Check the network "
                "and the kubeconfig, or give another --context."
            ) from None

    def _refusal(self, status: int, data: bytes, *, kind: Kind | None, name: str) -> ClusterError:
        try:
            body = json.loads(data)
        except ValueError:
            body = None
        answer: Json = body if isinstance(body, dict) else {}
        # A proxy, or a pod behind the API server's own, answers in its own words.
        said = shorten(" ".join(str(answer.get("message") or data.decode("utf-8", "replace")).split()), 600)
        said = said.rstrip(".") or f"HTTP status {status}"
        match status:
            case 401:
                text = f"the API server of context '{self._context}' refuses the credentials. Log in again, or give another --context"
            case 403:
                text = f"{said}. Ask for this permission, or give another --context or --namespace"
            case 404 if kind is not None and (
                "could not find the requested resource" in said or "page not found" in said
            ):
                text = f"the cluster of context '{self._context}' has no {kind.resource}. Install the chart draftmark, or give another --context"
            case _ if kind is not None:
                text = f"{kind.resource}{f' {name!r}' if name else ''}: {said}"
            case _:
                text = said
        return ClusterError(f"{text}.", status)


def _listed(found: list[str]) -> str:
    return ", ".join(found[:5]) + (" …" if len(found) > 5 else "") if found else "none"


def _pod_namespace() -> str:
    try:
        return (_SERVICE_ACCOUNT / "namespace").read_text("utf-8").strip()
    except OSError:
        return "default"
