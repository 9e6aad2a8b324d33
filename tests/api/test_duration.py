"""Durations, times and images, as users and the API write them."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftmark.api.defaults import Defaults
from draftmark.api.duration import seconds_of
from draftmark.api.images import mirrored
from draftmark.api.times import read_time, write_time


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("5m", 300), ("1h", 3600), ("1h30m", 5400), ("1h1s", 3601), ("0s", 0), ("9999h", 35_996_400), ("010m", 600)],
)  # fmt: skip
def test_a_duration_has_hours_minutes_and_seconds(text: str, seconds: int) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "90", "s", "1.5s", "1m1h", "1s ", " 1s", "-1s", "1d", "1h1h", "10000h", "١s", "1s\n"]
)
def test_anything_else_is_none_and_is_told_how_to_write_one(text: str) -> None:
    with pytest.raises(ValueError, match="write hours, minutes and seconds"):
        seconds_of(text)


@given(at=st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)), hours=st.integers(-12, 14))  # noqa: DTZ001 - the zone follows
def test_a_time_is_read_back_to_the_second_whatever_its_zone(at: datetime, hours: int) -> None:
    aware = at.replace(tzinfo=timezone(timedelta(hours=hours)))
    assert read_time(write_time(aware)) == aware.replace(microsecond=0)
    assert write_time(aware).endswith("Z")


@pytest.mark.parametrize("text", [None, "", "now", "2026-01-01T12:00:00", "2026-13-01T00:00:00Z", 5, {}])
def test_what_is_no_time_or_has_no_zone_is_none(text: object) -> None:
    assert read_time(text) is None


def test_other_clocks_write_times_differently() -> None:
    assert read_time("2026-01-01T13:00:00.5+01:00") == datetime(2026, 1, 1, 12, 0, 0, 500_000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("docker.io/library/haproxy:3", "mirror.example/cache/library/haproxy:3"),
        ("ghcr.io/a/b:1@sha256:0", "mirror.example/cache/a/b:1@sha256:0"),
        ("localhost/a:1", "mirror.example/cache/a:1"),
        ("host:5000/a:1", "mirror.example/cache/a:1"),
        ("library/haproxy:3", "mirror.example/cache/library/haproxy:3"),
        ("haproxy:3", "mirror.example/cache/haproxy:3"),
    ],
)
def test_a_mirror_takes_the_place_of_the_registry(image: str, expected: str) -> None:
    for mirror in ("mirror.example/cache", "mirror.example/cache/"):
        assert mirrored(image, Defaults.model_validate({"registryMirror": mirror})) == expected
    assert mirrored(image, Defaults()) == image
