"""Bodies as bytes that the API server reads, and stores, as they were meant.

An apply body is read by a YAML 1.1 reader, even when it is JSON. That reader refuses two things that JSON allows:
a character above U+FFFF written as a pair of escapes (so such characters go out as they are), and a few characters
written as they are (so these go out as escapes). Both were seen to end in status 400, or in a silently folded line.

What a POST carries as the data of a ControllerRevision is stored byte by byte, and any other bytes are a change of what
cannot be changed. Every later write but a PUT has it written anew by the API server, so a POST writes what that would.
"""

import json
import re
from typing import Any, Final

__all__ = ["Json", "encode", "encode_as_0_1_0", "encode_for_yaml"]

Json = dict[str, Any]

#: Not printable for YAML 1.1 (DEL, C1, U+FFFE, U+FFFF), a line break for it (U+0085, U+2028, U+2029), or a byte order
#: mark. Source: YAML 1.1, chapter 5.1 and 5.4. JSON escapes everything below U+0020 already.
_ESCAPED: Final = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


#: What Go's encoding/json escapes in strings although JSON does not ask for it. Source: its documentation of Marshal.
_ESCAPED_BY_GO: Final = re.compile("[<>&\u2028\u2029]")


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


def _dump(body: object, *, sort_keys: bool) -> str:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"), sort_keys=sort_keys)


def _escape(characters: re.Pattern[str], text: str) -> bytes:
    return characters.sub(lambda match: f"\\u{ord(match.group()):04x}", text).encode("utf-8", "replace")
