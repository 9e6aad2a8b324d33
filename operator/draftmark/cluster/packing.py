"""Thousands of objects of one kind, in little memory.

They differ in names, hashes and addresses, and are alike in everything else. So each is compressed against a dictionary of
objects of its kind that came before (zlib's preset dictionary), and what is kept of it is what is new in it
(`bench/cluster_memory.py`).
"""

import zlib
from typing import Any, Final

from draftmark.cluster.wire import decode, dump

__all__ = ["Packer"]

#: Bytes of text that zlib looks back on. Source: its manual, deflateSetDictionary and windowBits.
_WINDOW: Final = 32_768
#: What is kept of an object at most, as a share of its text, until its text becomes a part of the dictionary. A guess:
#: the first of each shape keeps a third, those after it less than a twentieth.
_UNKNOWN: Final = 1 / 6
#: Dictionaries of one packer. The number of an object's own is kept in one byte of it.
_MOST: Final = 255
_LEVEL: Final = 1


class Packer:
    """Packs JSON data of one kind. What it packs, only it unpacks."""

    def __init__(self) -> None:
        self._dictionaries = [b""]

    def pack(self, body: Any) -> bytes:
        """Its JSON, compressed."""
        text = dump(body)
        number = len(self._dictionaries) - 1
        known = self._dictionaries[number]
        work = zlib.compressobj(
            _LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_DEFAULT_STRATEGY, known
        )
        packed = b"".join((bytes((number,)), work.compress(text), work.flush()))
        is_new = len(packed) > len(text) * _UNKNOWN
        if is_new and len(known) + len(text) <= _WINDOW and len(self._dictionaries) < _MOST:
            self._dictionaries.append(known + text)
        return packed

    def unpack(self, packed: bytes) -> Any:
        """What was packed, made anew."""
        known = self._dictionaries[packed[0]]
        return decode(zlib.decompressobj(-zlib.MAX_WBITS, known).decompress(packed[1:]))
