"""Progress and one result, into a ConfigMap, against a server that answers as it is told."""

import asyncio
import json
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from draftmark.benchmark_runner.publish import MAX_RESULT_BYTES, Api, NotPublished, Publisher, result_text
from draftmark.measure.result import Progress, Result, Row
from tests.benchmark_runner.config_map import Server
from tests.benchmark_runner.orders import an_order


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with Server().serving() as served:
        yield served


@pytest.fixture
def token(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text("first\n")
    return file


def publisher(server: Server, token: Path, *, try_s: float = 5.0, **order: Any) -> Publisher:
    api = Api(server=server.url, token_file=token, ca_file=None)
    return Publisher(an_order(**order), api, progress_every_s=0.2, try_s=try_s, first_pause_s=0.01)


def a_result(*, rows: int = 1, **order: Any) -> Result:
    asked = an_order(**order)
    row = Row(target="target", workload="short", load="concurrency 1", samples=7, errors=0)
    return Result(
        benchmark=asked.benchmark, namespace=asked.namespace, uid=asked.uid, job=asked.job, tool="guidellm 0.8.1",
        began="2026-01-01T00:00:00Z", ended="2026-01-01T00:01:00Z", order=asked, targets=(), rows=(row,) * rows,
        notes="東京 😀",
    )  # fmt: skip


def at(percent: int, **more: Any) -> Progress:
    said = {"job": "bench-job", "stage": "Measuring", "percent": percent, "at": "2026-01-01T00:00:00Z", **more}
    return Progress(**said)


async def test_a_result_is_written_once_with_its_digest(server: Server, token: Path) -> None:
    async with publisher(server, token) as to:
        await to.result(a_result())
    assert server.requests == [("PATCH", "Bearer first", "application/merge-patch+json")]
    assert Result.model_validate_json(server.data["result"]) == a_result()
    assert server.data["sha256"] == sha256(server.data["result"].encode()).hexdigest()


async def test_a_result_can_be_read_that_has_no_duration(server: Server, token: Path) -> None:
    result = a_result(duration_s=None, requests=5)
    async with publisher(server, token) as to:
        await to.result(result)
    assert Result.model_validate_json(server.data["result"]) == result


async def test_failures_that_may_pass_are_tried_again_with_the_token_of_now(server: Server, token: Path) -> None:
    server.faults = [0, 500, 403]
    async with publisher(server, token) as to:
        await asyncio.to_thread(token.write_text, "second")
        await to.result(a_result())
    assert len(server.requests) == 4
    assert server.requests[-1][1] == "Bearer second"
    assert "result" in server.data


@pytest.mark.parametrize("status", [404, 413, 422])
async def test_what_stays_refused_ends_at_once(server: Server, token: Path, status: int) -> None:
    server.faults = [status]
    async with publisher(server, token) as to:
        with pytest.raises(NotPublished, match=rf"bench-result: .*{status}.*told to"):
            await to.result(a_result())
    assert len(server.requests) == 1


async def test_patience_ends(server: Server, token: Path) -> None:
    server.faults = [503] * 100
    async with publisher(server, token, try_s=0.2) as to:
        with pytest.raises(NotPublished, match="503"):
            await to.result(a_result())


async def test_progress_is_told_from_time_to_time_and_when_the_stage_changes(server: Server, token: Path) -> None:
    async with publisher(server, token) as to:
        for percent in range(1, 5):
            to.progress(at(percent))
            await asyncio.sleep(0.03)
        assert json.loads(server.data["progress"])["percent"] == 1
        to.progress(at(5, workload="long"))
        await asyncio.sleep(0.1)
        assert json.loads(server.data["progress"])["workload"] == "long"
        await asyncio.sleep(0.2)
        to.progress(at(6, workload="long"))
        await asyncio.sleep(0.1)
        assert json.loads(server.data["progress"])["percent"] == 6
    assert len(server.requests) == 3


async def test_progress_that_fails_ends_nothing(server: Server, token: Path) -> None:
    server.faults = [0, 500]
    async with publisher(server, token) as to:
        to.progress(at(1))
        await asyncio.sleep(0.05)
        to.progress(at(2, workload="long"))
        await asyncio.sleep(0.05)
        await to.result(a_result())
    assert "progress" not in server.data
    assert "result" in server.data


async def test_a_pod_that_is_started_anew_finds_its_result(server: Server, token: Path) -> None:
    async with publisher(server, token) as to:
        assert not await to.published()
        await to.result(a_result())
        assert await to.published()
    async with publisher(server, token, job="another") as to:
        assert not await to.published()
    async with publisher(server, token, uid="uid-2") as to:
        assert not await to.published()
    server.data["result"] = "{"
    async with publisher(server, token) as to:
        assert not await to.published()


async def test_a_result_on_a_claim_is_whole_or_not_there(server: Server, token: Path, tmp_path: Path) -> None:
    file = tmp_path / "claim" / "runs" / "result.json"
    async with publisher(server, token, result_path=str(file)) as to:
        await to.result(a_result(result_path=str(file)))
    assert file.read_text() == server.data["result"]
    assert sha256(file.read_bytes()).hexdigest() == server.data["sha256"]
    assert [each.name for each in file.parent.iterdir()] == ["result.json"]
    # The copy was lost: it comes from the file.
    server.data.clear()
    async with publisher(server, token, result_path=str(file)) as to:
        assert await to.published()
    assert server.data["result"] == file.read_text()


async def test_a_claim_that_cannot_be_written_is_no_half_result(server: Server, token: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    path = str(tmp_path / "file" / "result.json")
    async with publisher(server, token, result_path=path) as to:
        with pytest.raises(NotPublished, match="cannot be written to the claim"):
            await to.result(a_result(result_path=path))
    assert server.data == {}


async def test_a_result_that_a_config_map_cannot_hold_is_refused_whole(server: Server, token: Path) -> None:
    large = a_result(rows=3000)
    assert len(result_text(large)) > MAX_RESULT_BYTES
    async with publisher(server, token) as to:
        await to.result(large)
    written = Result.model_validate_json(server.data["result"])
    assert written.rows == ()
    assert written.refusal is not None
    assert (written.refusal.code, written.refusal.is_failure) == ("ResultTooLarge", True)


def test_where_the_api_server_is(tmp_path: Path) -> None:
    in_pod = Api.from_environment({})
    assert in_pod.server == "https://kubernetes.default.svc"
    assert in_pod.ca_file is not None
    told = Api.from_environment({"DRAFTMARK_API_SERVER": "http://127.0.0.1:1/", "DRAFTMARK_API_TOKEN_FILE": "/t"})
    assert (told.server, told.token_file, told.ca_file) == ("http://127.0.0.1:1", Path("/t"), None)
