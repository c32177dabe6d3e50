"""Text as a report shows it: cut to size, compared word by word; and its numbers.

Changes when untrusted text or a number is to be shown in another way. What a model or a data set
wrote is never taken for markup here: it stays text, and the template escapes it.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from markupsafe import Markup

from corrsteer.json_text import visible

EXCERPT = 600
"""Characters of a reply or prompt that are shown."""

CONTEXT = 120
"""Characters shown ahead of the first difference where two replies begin alike for long."""

_WORD = re.compile(r"\w+(?:['\u2019]\w+)*\s*|[^\w\s]\s*|\s+")
"""A word or a mark with the space behind it, or space that nothing stands before."""


@dataclass(frozen=True)
class Segment:
    """A stretch of a shown text.

    Attributes:
        kind: `same` or `changed` beside the other reply, or `omitted`.
        text: the stretch itself, or how much is omitted.
    """

    kind: Literal["same", "changed", "omitted"]
    text: str


Segments = tuple[Segment, ...]


def cut(text: str, most: int = EXCERPT) -> Segments:
    """The text, without its middle where it is longer than `most` characters."""
    if len(text) <= most:
        return _some(Segment("same", text))
    head, tail = 2 * most // 3, most // 3
    return (Segment("same", text[:head]), _omitted(len(text) - head - tail), _same(text[-tail:]))


def short(text: str, most: int = 80) -> str:
    """The text, cut at its end where it is longer than `most` characters."""
    return text if len(text) <= most else text[: most - 1] + "…"


def side_by_side(baseline: str, steered: str) -> tuple[Segments, Segments]:
    """Both replies with the words marked that the other does not have.

    Long replies are cut to the same window, which begins shortly before their first difference.
    """
    pairs = enumerate(zip(baseline, steered, strict=False))
    alike = next((at for at, (a, b) in pairs if a != b), min(len(baseline), len(steered)))
    start = 0 if alike <= EXCERPT // 2 else alike - CONTEXT
    window = slice(start, start + EXCERPT)
    ours, theirs = marked(baseline[window], steered[window])
    return _framed(ours, baseline, start), _framed(theirs, steered, start)


def marked(baseline: str, steered: str) -> tuple[Segments, Segments]:
    """Both whole replies with the words marked that the other does not have."""
    words = [_WORD.findall(text) for text in (baseline, steered)]
    keys = [[word.strip() for word in each] for each in words]
    ours: list[Segment] = []
    theirs: list[Segment] = []
    matcher = difflib.SequenceMatcher(None, keys[0], keys[1], autojunk=False)
    for tag, i, j, k, m in matcher.get_opcodes():
        for segments, text in ((ours, words[0][i:j]), (theirs, words[1][k:m])):
            segments.extend(_stretch("".join(text), changed=tag != "equal"))
    return tuple(ours), tuple(theirs)


def _stretch(text: str, changed: bool) -> Segments:
    """The text as one segment; the space behind changed words is not marked."""
    if not changed:
        return _some(Segment("same", text))
    words = text.rstrip()
    return (*_some(Segment("changed", words)), *_some(Segment("same", text[len(words) :])))


def _framed(segments: Sequence[Segment], text: str, start: int) -> Segments:
    """Segments of a window into `text`, between notes of what is left out on either side."""
    rest = len(text) - start - EXCERPT
    before = (_omitted(start),) if start > 0 else ()
    after = (_omitted(rest),) if rest > 0 else ()
    return (*before, *segments, *after)


def _some(segment: Segment) -> Segments:
    return (segment,) if segment.text else ()


def _same(text: str) -> Segment:
    return Segment("same", text)


def _omitted(characters: int) -> Segment:
    return Segment("omitted", f"{characters:,} characters left out")


def web_url(url: object) -> str | None:
    """The address itself if it is one of the web; None for anything else."""
    if not isinstance(url, str) or visible(url) != url or re.search(r"\s", url):
        return None
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    return url if parts.scheme in ("http", "https") and parts.netloc else None


def number(value: float | None, digits: int = 3) -> str:
    """A number with a true minus sign; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "–"  # noqa: RUF001
    rounded = round(value, digits) + 0.0  # adding 0.0 turns -0.0 into 0.0
    return f"{rounded:.{digits}f}".replace("-", "−")  # noqa: RUF001


def percent(value: float | None, digits: int = 1) -> str:
    """A share as a percentage."""
    return number(value) if value is None else f"{number(100 * value, digits)}\u00a0%"


def points(value: float) -> str:
    """A difference of two shares in percentage points, with its sign."""
    return ("+" if round(100 * value, 1) > 0 else "") + number(100 * value, 1)


def interval(bounds: tuple[float, float], show: Callable[[float], str] = number) -> str:
    """An interval in square brackets, its bounds shown by `show` without a unit."""
    low, high = (show(bound).removesuffix("\u00a0%") for bound in bounds)
    return f"[{low}, {high}]"


def p_value(p: float | None) -> Markup:
    """A p-value with three decimals, or by powers of ten where it is small."""
    if p is None or not math.isfinite(p) or round(p, 4) >= 0.001:
        return Markup(number(p))
    if p <= 0:
        return Markup("&lt; 10<sup>−300</sup>")  # noqa: RUF001 - less than a float can hold
    mantissa, exponent = f"{p:.1e}".split("e")
    return Markup("{} × 10<sup>{}</sup>").format(mantissa, number(int(exponent), 0))  # noqa: RUF001
