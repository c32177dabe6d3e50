"""JSON and foreign text as they are written and printed here.

Changes when JSON is to look different, or untrusted text is to be made visible in another way.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

_ACTING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters, but for tab and new line
    "\u00ad\u061c\u180e\u200b\u200e\u200f"  # soft hyphen, zero width space, direction marks
    "\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # separators, overrides, isolates
    "\ud800-\udfff\ufffe\uffff\U000e0000-\U000e0fff]"  # no characters at all; tags
)


def to_json(document: Mapping[str, Any] | Sequence[Any]) -> str:
    """Indented JSON; numbers that are not finite become null, as JSON has none.

    Characters that would act on a terminal are escaped, as JSON allows for all of them.
    """
    text = json.dumps(finite(document), indent=2, ensure_ascii=False, allow_nan=False)
    return _ACTING.sub(_escape, text) + "\n"


def finite(value: Any) -> Any:
    """The value as JSON can hold it: numbers that are not finite become None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def is_whole(value: Any) -> bool:
    """Whether a value of JSON holds whole characters only: half a surrogate pair fits no file."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def excerpt(value: Any, most: int = 60) -> str:
    """A value as JSON on one line, cut at its end where it is longer than `most` characters."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def visible(text: str) -> str:
    """The text with a sign in place of each character that would act instead of being seen.

    Control characters, direction overrides, other invisible format characters and halves of
    surrogate pairs, which no file in UTF-8 can hold. Tab and new line stay.
    """
    return _ACTING.sub(_sign, text.replace("\r\n", "\n"))


def _escape(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def _sign(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)  # Unicode's pictures of control characters
    if 0xD800 <= code <= 0xDFFF:
        return "\ufffd"
    return f"‹U+{code:04X}›"  # noqa: RUF001
