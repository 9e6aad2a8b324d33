"""Facts of a model on a mounted volume: a GGUF file, or a folder with config.json and safetensors."""

import os
import stat
from pathlib import Path
from typing import Final

from draftmark.facts.gguf_header import MAX_HEADER_BYTES, GgufHeader, facts_from_gguf, read_gguf_header
from draftmark.facts.hf_config import facts_from_config
from draftmark.facts.model_answer import ModelAnswer
from draftmark.facts.models import ModelFacts, ShortHeader, UnreadableConfig, UnreadableHeader, weighed
from draftmark.facts.safetensors_header import SafetensorsTotals, index_total_bytes, read_safetensors_header
from draftmark.model_facts_reader.problem import (
    MAX_CONFIG_BYTES,
    MAX_INDEX_BYTES,
    MAX_SAFETENSORS_HEADER_BYTES,
    ReadingEnds,
    json_object,
)

#: Safetensors files of a folder whose headers are read; the largest models have 163 (2026). A bound of ours.
MAX_FILES: Final = 512
#: What llama-cpp takes from an image whose URI names no file.
GGUF_OF_IMAGE: Final = "model.gguf"
#: First piece of a GGUF file.
FIRST_BYTES: Final = 2**20


def read_mounted(root: Path, path: str, *, source: str) -> ModelAnswer:
    """The facts of the model at a path below a mount.

    Args:
        root: Where the volume is mounted. Links may not lead out of it.
        path: A file or a folder in it; empty: the mount itself.
        source: Where this is, for people, such as pvc://claim/folder.

    Raises:
        ReadingEnds: There are none.
    """
    mount = Mount(root)
    if mount.is_folder(path):
        return ModelAnswer(facts=_of_folder(mount, path, source))
    if not path.endswith(".gguf"):
        raise ReadingEnds(
            "NotAModel", f"{path} is neither a folder with config.json nor a GGUF file. Correct the path in model.uri."
        )
    return ModelAnswer(facts=_of_gguf(mount, path, source))


class Mount:
    """Files below one folder, and none other."""

    def __init__(self, root: Path) -> None:
        self.root = os.path.realpath(root)

    def is_folder(self, path: str) -> bool:
        """Whether there is a folder of that name.

        Raises:
            ReadingEnds: There is nothing of that name, or it lies outside.
        """
        descriptor = self._open(path, missing=True)
        assert descriptor is not None, "what is missing was said"
        try:
            return stat.S_ISDIR(os.fstat(descriptor).st_mode)
        finally:
            os.close(descriptor)

    def read(self, path: str, most: int, *, start: int = 0) -> bytes | None:
        """The first bytes of a file from some place on; None when there is no such file.

        Raises:
            ReadingEnds: It is no file, lies outside, or cannot be read.
        """
        descriptor = self._open(path, missing=False)
        if descriptor is None:
            return None
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ReadingEnds("NotAModel", f"{path} is no file. Correct the path in model.uri.")
            pieces, left = [], most
            os.lseek(descriptor, start, os.SEEK_SET)
            while left > 0 and (piece := os.read(descriptor, min(left, 2**20))):
                pieces.append(piece)
                left -= len(piece)
            return b"".join(pieces)
        except OSError as error:
            raise ReadingEnds("UnreadableFile", f"{path} cannot be read: {error.strerror}.") from None
        finally:
            os.close(descriptor)

    def names(self, path: str) -> list[str]:
        """Names of the safetensors files in a folder, sorted."""
        folder = os.path.join(self.root, path)
        try:
            with os.scandir(folder) as entries:
                return sorted(entry.name for entry in entries if entry.name.endswith(".safetensors"))
        except OSError as error:
            raise ReadingEnds("UnreadableFile", f"{path} cannot be listed: {error.strerror}.") from None

    def _open(self, path: str, *, missing: bool) -> int | None:
        try:
            # Without waiting: a pipe has no end.
            descriptor = os.open(os.path.join(self.root, path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            if not missing:
                return None
            raise ReadingEnds(
                "NotFound", f"There is no {path or 'mount'} on the volume. Correct the path in model.uri."
            ) from None
        except OSError as error:
            raise ReadingEnds(
                "UnreadableFile",
                f"{path} cannot be opened: {error.strerror}. Let the user of podTemplate.securityContext read it.",
            ) from None
        # Of what is open, not of the name: a link can be changed between two looks.
        real = os.readlink(f"/proc/self/fd/{descriptor}")
        if real != self.root and not real.startswith(f"{self.root.rstrip('/')}/"):
            os.close(descriptor)
            raise ReadingEnds(
                "OutsideOfTheVolume", f"{path} is a link that leads out of the volume. Put the file there."
            )
        return descriptor


def _of_gguf(mount: Mount, path: str, source: str) -> ModelFacts:
    data = mount.read(path, FIRST_BYTES)
    while data is not None:
        header = read_gguf_header(data)
        if isinstance(header, ShortHeader):
            more = mount.read(path, min(MAX_HEADER_BYTES, max(header.needed_bytes, 2 * len(data))))
            if more is None or len(more) <= len(data):
                header = UnreadableHeader(reason="it ends inside its header; is it complete?")
            else:
                data = more
                continue
        return gguf_facts(path, header, source)
    raise ReadingEnds("NotFound", f"There is no {path} on the volume. Correct the path in model.uri.")


def gguf_facts(name: str, header: GgufHeader | UnreadableHeader, source: str) -> ModelFacts:
    """The facts in a header that was read.

    Raises:
        ReadingEnds: There are none.
    """
    if isinstance(header, UnreadableHeader):
        raise ReadingEnds("NotAModel", f"{name} is no GGUF file that can be read: {header.reason}")
    return checked(name, facts_from_gguf(header, source=source))


def checked(name: str, facts: ModelFacts | UnreadableConfig) -> ModelFacts:
    """Facts, where they are.

    Raises:
        ReadingEnds: They are not.
    """
    if isinstance(facts, UnreadableConfig):
        raise ReadingEnds("UnreadableConfig", f"{name} describes no model that can be reckoned with: {facts.reason}")
    return facts


def _of_folder(mount: Mount, path: str, source: str) -> ModelFacts:
    def named(name: str) -> str:
        return os.path.join(path, name)

    text = mount.read(named("config.json"), MAX_CONFIG_BYTES + 1)
    if text is None and mount.read(named(GGUF_OF_IMAGE), 1) is not None:
        return _of_gguf(mount, named(GGUF_OF_IMAGE), source)
    if text is None:
        raise ReadingEnds(
            "NotAModel",
            f"Folder {path or 'of the volume'} has no config.json. Name the folder of the model, or its GGUF file, in model.uri.",
        )
    if len(text) > MAX_CONFIG_BYTES:
        raise ReadingEnds("TooLarge", f"config.json has more than {MAX_CONFIG_BYTES} bytes.")
    beside = mount.read(named("hf_quant_config.json"), MAX_CONFIG_BYTES)
    facts = checked(
        "config.json",
        facts_from_config(
            json_object("config.json", text),
            quantization=json_object("hf_quant_config.json", beside) if beside is not None else None,
            source=source[:200],
        ),
    )
    totals = [_totals(mount, named(name)) for name in mount.names(path)[: MAX_FILES + 1]]
    whole = [found for found in totals if found is not None]
    if 0 < len(whole) == len(totals) <= MAX_FILES:
        return with_totals(facts, *whole)
    return with_index(facts, mount.read(named("model.safetensors.index.json"), MAX_INDEX_BYTES))


def _totals(mount: Mount, path: str) -> SafetensorsTotals | None:
    data = mount.read(path, 8)
    while data is not None:
        header = read_safetensors_header(data)
        if not isinstance(header, ShortHeader):
            return header if isinstance(header, SafetensorsTotals) else None
        if header.needed_bytes > MAX_SAFETENSORS_HEADER_BYTES:
            return None
        data = mount.read(path, header.needed_bytes)
        if data is not None and len(data) < header.needed_bytes:
            return None
    return None


def with_totals(facts: ModelFacts, *totals: SafetensorsTotals) -> ModelFacts:
    """Facts with the sums over all files of the model."""
    weight_bytes = sum(total.weight_bytes for total in totals)
    if weight_bytes == 0:
        return facts
    counted = [total.parameters for total in totals]
    known = [count for count in counted if count is not None]
    return weighed(
        facts,
        weight_bytes=weight_bytes,
        expert_weight_bytes=sum(total.expert_weight_bytes for total in totals) or None,
        parameters=sum(known) if len(known) == len(counted) else None,
    )


def with_index(facts: ModelFacts, index: bytes | None) -> ModelFacts:
    """Facts with the sum that an index tells; without one that can be read, as they are."""
    if index is None or len(index) > MAX_INDEX_BYTES:
        return facts
    try:
        total = index_total_bytes(json_object("model.safetensors.index.json", index))
    except ReadingEnds:
        return facts
    return facts if isinstance(total, UnreadableHeader) else weighed(facts, weight_bytes=total)
