"""The server as a pytest fixture."""

from collections.abc import AsyncIterator

import pytest

from tests.fake_api.server import FakeApi


@pytest.fixture
async def fake_api() -> AsyncIterator[FakeApi]:
    async with FakeApi() as server:
        yield server
