"""Bodies as bytes that the API server reads, and stores, as they were meant.

An apply body is read by a YAML 1.1 reader, even when it is JSON. That reader refuses two things that JSON allows:
a character above U+FFFF written as a pair of escapes (so such characters go out as they are), and a few characters
written as they are (so these go out as escapes). Both were seen to end in status 400, or in a silently folded line.

What a POST carries as the data of a ControllerRevision is stored byte by byte, and any other bytes are a change of what
cannot be changed. Every later write but a PUT has it written anew by the API server, so a POST writes what that would.

orjson does the work; what it refuses (half a surrogate pair, whole numbers beyond 64 bits) the standard library does.
"""

import json
import re
from hashlib import sha256
from typing import Any, Final

import orjson

__all__ = ["Json", "decode", "digest_of", "dump", "encode", "encode_as_0_1_0", "encode_for_yaml"]

Json = dict[str, Any]

#: Not printable for YAML 1.1 (DEL, C1, U+FFFE, U+FFFF), a line break for it (U+0085, U+2028, U+2029), or a byte order
#: mark. Source: YAML 1.1, chapter 5.1 and 5.4. JSON escapes everything below U+0020 already.
_ESCAPED: Final = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


#: What Go's encoding/json escapes in strings although JSON does not ask for it. Source: its documentation of Marshal.
_ESCAPED_BY_GO: Final = re.compile("[<>&\u2028\u2029]")


#: The standard library would refuse these, and so do we.
_STRICT: Final = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS


def decode(text: bytes) -> Any:
    """JSON that was sent to us. Whole numbers beyond 64 bits, which the API server does not keep either, become fractions.

    Raises:
        ValueError: It is none.
    """
    try:
        return orjson.loads(text)
    except ValueError:
        return json.loads(text)


def encode(body: object) -> bytes:
    """JSON in UTF-8 as Go writes it: sorted keys, its escapes. Half a surrogate pair, as broken logs contain it, becomes a
    question mark."""
    return _escape(_ESCAPED_BY_GO, _dump(body, sort_keys=True))


def encode_for_yaml(body: object) -> bytes:
    """The same for the reader of apply bodies."""
    return _escape(_ESCAPED, _dump(body, sort_keys=True))


def encode_as_0_1_0(body: object) -> bytes:
    """The bytes that version 0.1.0 sent, for a body whose keys are in the order in which they were read."""
    return _escape(_ESCAPED, _dump(body, sort_keys=False))


def digest_of(body: object) -> str:
    """16 hexadecimal digits that stand for JSON data, whatever the order of its keys.

    They are stored on children and compared for as long as these live, so the text below them must stay what it is:
    sorted keys, no white space, everything beyond ASCII escaped.
    """
    text = _dump(body, sort_keys=True)
    if not text.isascii():
        text = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    return sha256(text).hexdigest()[:16]


def dump(body: object) -> bytes:
    """JSON for ourselves; `decode` reads it."""
    return _dump(body, sort_keys=False)


def _dump(body: object, *, sort_keys: bool) -> bytes:
    try:
        return orjson.dumps(body, option=_STRICT | (orjson.OPT_SORT_KEYS if sort_keys else 0))
    except TypeError:
        text = json.dumps(body, ensure_ascii=False, separators=(",", ":"), sort_keys=sort_keys)
        return text.encode("utf-8", "surrogatepass")


def _escape(characters: re.Pattern[str], dumped: bytes) -> bytes:
    text = dumped.decode("utf-8", "surrogatepass")
    if characters.search(text) is None and dumped.isascii():
        return dumped
    return characters.sub(lambda match: f"\\u{ord(match.group()):04x}", text).encode("utf-8", "replace")
