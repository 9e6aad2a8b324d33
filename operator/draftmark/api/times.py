"""Times as the Kubernetes API writes them: UTC, whole seconds."""

from datetime import UTC, datetime


def read_time(text: object) -> datetime | None:
    """A time of the API (aware), or None where there is none that can be read."""
    try:
        at = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return at if at.tzinfo is not None else None


def write_time(at: datetime) -> str:
    """A time for the API, from an aware one."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
