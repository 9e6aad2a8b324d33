"""A fake API server that speaks the real one's protocol, for tests of everything that talks to one.

`FakeApi` is the server; the fixture `fake_api` (import it in a conftest) gives one per test.
"""

from tests.fake_api.fixtures import fake_api
from tests.fake_api.pods import PodLog
from tests.fake_api.records import Done, Request
from tests.fake_api.server import FakeApi

__all__ = ["Done", "FakeApi", "PodLog", "Request", "fake_api"]
