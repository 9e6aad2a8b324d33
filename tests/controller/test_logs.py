"""What the operator's log tells, and how loudly."""

import inspect
import json
import logging

import pytest
from kopf._cogs.clients import api as kopf_api

from draftmark.controller.logs import set_up_logging

RETRY = "Request attempt #1/9 failed; will retry: GET /apis -> APIError(429)"


@pytest.mark.parametrize(
    ("logger", "message", "level"),
    [
        ("kopf._cogs.clients.watching", RETRY, "warning"),
        ("kopf._cogs.clients.watching", RETRY.replace("will retry", "escalating"), "error"),
        ("draftmark.cluster.client", RETRY, "error"),
    ],
)
def test_what_is_tried_again_is_no_error(
    capsys: pytest.CaptureFixture[str], logger: str, message: str, level: str
) -> None:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        set_up_logging(logging.INFO, as_json=True)
        logging.getLogger(logger).error(message)
    finally:
        root.handlers[:], level_before = before
        root.setLevel(level_before)
    line = json.loads(capsys.readouterr().err)
    assert (line["level"], line["message"]) == (level, message)


def test_kopf_still_words_it_so() -> None:
    assert "failed; will retry: " in inspect.getsource(kopf_api)
