"""A fake API server per test, a client for it, and objects to write."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from draftmark.cluster.client import ApiClient
from draftmark.cluster.credentials import Credentials
from draftmark.cluster.kinds import DEPLOYMENTS, INFERENCE_SERVICES, SERVICES
from draftmark.cluster.outcomes import ObjectRef
from tests.fake_api import FakeApi, fake_api

__all__ = ["OWNER", "client", "deployment", "eventually", "fake_api", "service"]

Json = dict[str, Any]

OWNER = ObjectRef(INFERENCE_SERVICES, "default", "llama", "owner-uid")


@pytest.fixture
async def client(fake_api: FakeApi) -> AsyncIterator[ApiClient]:
    async with ApiClient(Credentials.plain(fake_api.url)) as api:
        yield api


async def eventually(holds: Callable[[], object], within_s: float = 3.0) -> None:
    """Wait until a statement is true; the time-out shows it."""
    async with asyncio.timeout(within_s):
        while not holds():  # noqa: ASYNC110 - a statement has no event
            await asyncio.sleep(0.005)


def reference(uid: str = OWNER.uid, name: str = OWNER.name) -> Json:
    return {
        "apiVersion": "draftmark.dev/v1alpha1",
        "kind": "InferenceService",
        "name": name,
        "uid": uid,
        "controller": True,
    }


def service(name: str = "llama", port: int = 80, owner_uid: str = OWNER.uid, **labels: str) -> Json:
    return {
        "apiVersion": SERVICES.api_version,
        "kind": SERVICES.kind,
        "metadata": {
            "name": name,
            "namespace": "default",
            "labels": {"app.kubernetes.io/managed-by": "draftmark", **labels},
            "ownerReferences": [reference(owner_uid)],
        },
        "spec": {"ports": [{"name": "http", "port": port}], "selector": {"app": name}},
    }


def deployment(name: str = "llama-engine", image: str = "engine:1", env: dict[str, str] | None = None) -> Json:
    container = {
        "name": "engine",
        "image": image,
        "args": ["--ctx-size", "4096"],
        "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}},
        "env": [{"name": key, "value": value} for key, value in (env or {}).items()],
    }
    return {
        "apiVersion": DEPLOYMENTS.api_version,
        "kind": DEPLOYMENTS.kind,
        "metadata": {
            "name": name,
            "namespace": "default",
            "labels": {"app.kubernetes.io/managed-by": "draftmark"},
            "ownerReferences": [reference()],
        },
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}},
        },
    }
