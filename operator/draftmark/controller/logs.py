"""Log lines of the operator: text for people, JSON for collectors."""

import json
import logging
import sys
from datetime import UTC, datetime

#: Attributes that every record has; what else is there was given as `extra` and is told.
_STANDARD = frozenset(logging.LogRecord("", 0, "", 0, "", (), None).__dict__) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """One object per line."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        } | {key: value for key, value in record.__dict__.items() if key not in _STANDARD}
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """Time, level, message, and what was given beside it."""

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        extra = " ".join(f"{key}={value}" for key, value in record.__dict__.items() if key not in _STANDARD)
        return f"{line} {extra}".rstrip()


def lower_retries(record: logging.LogRecord) -> bool:
    """Tell what kopf tries again as a warning, and keep every record.

    kopf calls a request's first failure an error, also the 429 of an API server that has just heard of our kinds.
    """
    if record.levelno == logging.ERROR and record.name.startswith("kopf.") and "; will retry: " in record.getMessage():
        record.levelno, record.levelname = logging.WARNING, logging.getLevelName(logging.WARNING)
    return True


def set_up_logging(level: int, *, as_json: bool) -> None:
    """Send all log lines to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter("%(asctime)s %(levelname)-7s %(message)s"))
    handler.addFilter(lower_retries)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # kopf tells every handled event at INFO.
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
