"""Spans of time for people."""

import pytest

from draftmark.cli.spans import ago, seconds_between, span
from tests.specs import T0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"), (0.4, "0.4 s"), (9.96, "10.0 s"), (12.4, "12 s"), (59.6, "1 min"), (60, "1 min"), (200, "3 min 20 s"),
        (3600, "1 h"), (3700, "1 h 1 min"), (86400 * 2 + 3600 * 4, "2 d 4 h"),
    ],
)  # fmt: skip
def test_spans_have_two_units_at_most(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_a_clock_that_is_behind_gives_no_negative_span() -> None:
    assert seconds_between("2026-01-01T12:00:09Z", T0) == 0
    assert ago("2026-01-01T11:59:30Z", T0) == "30 s ago"
    assert ago(None, T0) == ago("yesterday", T0) == ""
