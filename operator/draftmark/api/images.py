"""Where images come from, as the administrator wants it."""

from draftmark.api.defaults import Defaults


def mirrored(image: str, defaults: Defaults) -> str:
    """A default image, from the administrator's mirror where there is one."""
    if not defaults.registry_mirror:
        return image
    first, separator, rest = image.partition("/")
    is_registry = bool(separator) and ("." in first or ":" in first or first == "localhost")
    return f"{defaults.registry_mirror.rstrip('/')}/{rest if is_registry else image}"
