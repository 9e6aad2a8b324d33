"""Where a model comes from, read from its URI.

hf://org/repo                   a repository on the hub
hf://org/repo:Q4_K_M            one quantization of it
hf://org/repo/dir/file.gguf     one file of it
https://host/path/file.gguf     one file behind a URL
pvc://claim/path                a file or a folder on a PersistentVolumeClaim of the same namespace
oci://registry/image:tag#path   a file or a folder in an OCI image, mounted as an image volume
oci://registry/image:tag        what the engine takes from an image that says no more
"""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

SCHEMES: Final = ("hf", "https", "pvc", "oci")

_HUB_PART: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_QUANTIZATION: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_PATH: Final = re.compile(r"[A-Za-z0-9._+=@-]+(/[A-Za-z0-9._+=@-]+)*")
_CLAIM: Final = re.compile(r"[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?")
_IMAGE: Final = re.compile(r"[a-z0-9][A-Za-z0-9._:/@-]{0,510}")


@dataclass(frozen=True, slots=True, kw_only=True)
class HubModel:
    """A repository on the Hugging Face hub; the engine downloads it."""

    repository: str
    quantization: str | None = None
    file: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UrlModel:
    """One file behind an https URL; the engine downloads it."""

    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimModel:
    """A path on a PersistentVolumeClaim in the service's namespace."""

    claim: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageModel:
    """A path in an OCI image, which the kubelet pulls and mounts read-only."""

    reference: str
    #: None: the URI names none, and the engine says where it looks.
    path: str | None = None


ModelSource = HubModel | UrlModel | ClaimModel | ImageModel


class UnreadableUri(ValueError):
    """The text names no model; the message says what a URI of that scheme looks like."""


def parse_model_uri(uri: str) -> ModelSource:
    """Read a model URI.

    Raises:
        UnreadableUri: With what is wrong and an example of the right form.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme not in SCHEMES:
        known = ", ".join(f"{s}://" for s in SCHEMES)
        raise UnreadableUri(f"model.uri {_quoted(uri)} has no known scheme. Use one of {known}.")
    match scheme:
        case "hf":
            return _hub(uri, rest)
        case "https":
            return _url(uri)
        case "pvc":
            return _claim(uri, rest)
        case _:
            return _image(uri, rest)


def _hub(uri: str, rest: str) -> HubModel:
    parts = rest.split("/")
    wanted = "Write hf://ORG/REPO, hf://ORG/REPO:QUANTIZATION or hf://ORG/REPO/FILE.gguf."
    if len(parts) < 2 or not _HUB_PART.fullmatch(parts[0]):
        raise UnreadableUri(f"model.uri {_quoted(uri)} names no repository of the hub. {wanted}")
    name, _, quantization = parts[1].partition(":")
    if not _HUB_PART.fullmatch(name) or (quantization and not _QUANTIZATION.fullmatch(quantization)):
        raise UnreadableUri(f"model.uri {_quoted(uri)} names no repository of the hub. {wanted}")
    file = "/".join(parts[2:])
    if file and (quantization or not _safe_path(file)):
        raise UnreadableUri(f"model.uri {_quoted(uri)} has a file path that cannot be read. {wanted}")
    return HubModel(repository=f"{parts[0]}/{name}", quantization=quantization or None, file=file or None)


def _url(uri: str) -> UrlModel:
    wanted = "Write https://HOST/PATH/FILE.gguf, with neither credentials nor blanks."
    try:
        parts = urlsplit(uri)
        port_is_readable = parts.port is None or parts.port > 0
    except ValueError:
        raise UnreadableUri(f"model.uri {_quoted(uri)} is no URL. {wanted}") from None
    readable = re.fullmatch(r"[\x21-\x7e]+", uri) and parts.hostname and port_is_readable and parts.username is None
    if not readable or not parts.path.endswith(".gguf"):
        raise UnreadableUri(f"model.uri {_quoted(uri)} is no URL of a GGUF file. {wanted}")
    return UrlModel(url=uri)


def _claim(uri: str, rest: str) -> ClaimModel:
    claim, _, path = rest.partition("/")
    if not _CLAIM.fullmatch(claim) or not _safe_path(path):
        raise UnreadableUri(
            f"model.uri {_quoted(uri)} names no file on a claim. Write pvc://CLAIM/PATH/FILE.gguf, or pvc://CLAIM/PATH for a folder."
        )
    return ClaimModel(claim=claim, path=path)


def _image(uri: str, rest: str) -> ImageModel:
    reference, _, path = rest.partition("#")
    if not _IMAGE.fullmatch(reference) or (path and not _safe_path(path)):
        raise UnreadableUri(
            f"model.uri {_quoted(uri)} names no image. Write oci://REGISTRY/IMAGE:TAG#PATH/FILE.gguf "
            "(without #PATH: model.gguf for llama-cpp, the whole image for vllm and sglang)."
        )
    return ImageModel(reference=reference, path=path or None)


def _safe_path(path: str) -> bool:
    return bool(_PATH.fullmatch(path)) and not any(part in {".", ".."} for part in path.split("/"))


def _quoted(text: str) -> str:
    return f"'{text[:120]}…'" if len(text) > 120 else f"'{text}'"
