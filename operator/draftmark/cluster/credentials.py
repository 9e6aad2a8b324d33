"""Where the API server is and how we prove who we are, as the official client's configuration says.

The `kubernetes` package reads kubeconfigs, in-cluster files and exec plugins. We ask it again every five minutes and
after each 401, because service-account tokens are rotated in place and exec plugins hand out short-lived ones. It is
synchronous and may start a process, so it runs in a thread.
"""

import asyncio
import logging
import os
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from kubernetes import client as official
from kubernetes import config as official_config

__all__ = ["Access", "Credentials"]

_log = logging.getLogger(__name__)

#: Seconds after which the token file is read again. The kubelet replaces a token after 80 % of its life, which is an
#: hour by default and ten minutes at least. Source: Kubernetes documentation, "Projected Volumes", serviceAccountToken.
_RELOAD_AFTER_S: Final = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """All that a request needs besides its path."""

    server: str
    authorization: str | None = None
    tls: ssl.SSLContext | None = None
    #: The name to expect in the server's certificate, when it is not the host of `server`.
    server_hostname: str | None = None
    proxy: str | None = None
    #: Tells whether `tls` can be kept: a new context would close every pooled connection.
    tls_digest: str = ""


class Credentials:
    """Access that renews itself. Shared by all clients of the process."""

    def __init__(self, load: Callable[[Access | None], Access], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._load = load
        self._clock = clock
        self._access: Access | None = None
        self._loaded_at = 0.0
        self._lock = asyncio.Lock()

    @classmethod
    def from_environment(cls, kubeconfig: str | None = None, context: str | None = None) -> "Credentials":
        """An explicit kubeconfig, else `KUBECONFIG`, else the pod's service account, else `~/.kube/config`."""
        return cls(lambda before: _load_official(kubeconfig, context, before))

    @classmethod
    def plain(cls, server: str) -> "Credentials":
        """No TLS and no token: `kubectl proxy`, and the fake API server of the tests."""
        return cls(lambda _: Access(server=server.rstrip("/")))

    async def access(self) -> Access:
        """What is in force now.

        Raises:
            Exception: The first load failed; a later failure keeps what was there and is logged.
        """
        if self._access is not None and self._clock() - self._loaded_at < _RELOAD_AFTER_S:
            return self._access
        return await self.renew(self._access)

    async def renew(self, stale: Access | None) -> Access:
        """Load again, unless somebody else has done so since `stale` was handed out."""
        async with self._lock:
            if self._access is not None and self._access is not stale:
                return self._access
            try:
                fresh = await asyncio.to_thread(self._load, self._access)
            except Exception:
                if self._access is None:
                    raise
                _log.warning("The credentials could not be read again; the old ones stay in use.", exc_info=True)
                fresh = self._access
            self._access = fresh
            self._loaded_at = self._clock()
            return fresh


def official_configuration(kubeconfig: str | None = None, context: str | None = None) -> Any:
    """What the official package reads: an explicit kubeconfig, else `KUBECONFIG`, else the pod's service account, else
    `~/.kube/config`."""
    configuration: Any = official.Configuration()
    explicit = kubeconfig or os.environ.get("KUBECONFIG")
    if explicit or "KUBERNETES_SERVICE_HOST" not in os.environ:
        official_config.load_kube_config(
            config_file=explicit or "~/.kube/config",
            context=context,
            client_configuration=configuration,
            persist_config=False,
        )
    else:
        official_config.load_incluster_config(client_configuration=configuration, try_refresh_token=False)
    return configuration


def _load_official(kubeconfig: str | None, context: str | None, before: Access | None) -> Access:
    configuration = official_configuration(kubeconfig, context)
    token = configuration.api_key.get("BearerToken")
    digest = _digest_of_files(configuration)
    keep = before is not None and before.tls_digest == digest
    return Access(
        server=configuration.host.rstrip("/"),
        # A token file may end with a newline, which a header must not.
        authorization=token.strip() if token else None,
        tls=before.tls if keep and before else _tls(configuration),
        server_hostname=configuration.tls_server_name or None,
        proxy=configuration.proxy or None,
        tls_digest=digest,
    )


def _digest_of_files(configuration: Any) -> str:
    digest = sha256(f"{configuration.host} {configuration.verify_ssl}".encode())
    for path in (configuration.ssl_ca_cert, configuration.cert_file, configuration.key_file):
        digest.update(Path(path).read_bytes() if path else b"-")
    return digest.hexdigest()


def _tls(configuration: Any) -> ssl.SSLContext | None:
    if not configuration.host.startswith("https"):
        return None
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    # Python 3.13 turned this on. Certificate authorities of older clusters lack the key identifier that it demands.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, configuration.key_file)
    return context
