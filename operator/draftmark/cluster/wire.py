"""Bodies as bytes that the API server reads as they were meant.

An apply body is read by a YAML 1.1 reader, even when it is JSON. That reader refuses two things that JSON allows:
a character above U+FFFF written as a pair of escapes (so such characters go out as they are), and a few characters
written as they are (so these go out as escapes). Both were seen to end in status 400, or in a silently folded line.
"""

import json
import re
from typing import Any, Final

__all__ = ["Json", "encode"]

Json = dict[str, Any]

#: Not printable for YAML 1.1 (DEL, C1, U+FFFE, U+FFFF), a line break for it (U+0085, U+2028, U+2029), or a byte order
#: mark. Source: YAML 1.1, chapter 5.1 and 5.4. JSON escapes everything below U+0020 already.
_ESCAPED: Final = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


def encode(body: object) -> bytes:
    """JSON in UTF-8. Half a surrogate pair, as broken logs contain it, becomes a question mark.

    Keys are sorted, as an apply stores them: a ControllerRevision's data is compared byte by byte, and another order would
    be a change of what cannot be changed.
    """
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return _ESCAPED.sub(lambda match: f"\\u{ord(match.group()):04x}", text).encode("utf-8", "replace")
