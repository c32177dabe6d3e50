"""Scorers of texts: a reply that is, or contains, a target.

Changes when texts are compared in another way.
"""

from __future__ import annotations

import re
import unicodedata

from corrsteer.errors import ScorerError
from corrsteer.samples import Sample
from corrsteer.scoring.base import Score, unread
from corrsteer.scoring.replies import without_thinking


def exact(reply: str, sample: Sample) -> Score:
    """1 iff the reply, stripped of surrounding white space, is one of the targets.

    Both are compared as `plain` makes them; upper and lower case differ.
    """
    answer = plain(without_thinking(reply)).strip()
    right = answer in {plain(target).strip() for target in sample.target}
    return Score(float(right), answer) if answer or right else unread("empty reply")


def contains(reply: str, sample: Sample) -> Score:
    """1 iff a target occurs in the reply as whole words, upper and lower case alike.

    Where a script has no spaces between words (Chinese, Japanese, Thai and others; Korean too,
    whose particles follow at once), a target may stand anywhere. White space of any kind and
    length is alike, and a point that ends a target is left out.
    """
    text = _folded(without_thinking(reply))
    if not text.strip():
        return unread("empty reply")
    for target in sample.target:
        sought = _folded(target).strip()
        if _occurs(sought.rstrip(".") or sought, text):
            return Score(1.0, target)
    return Score(0.0)


def check_texts(sample: Sample) -> None:
    r"""Refuse targets that are empty, which mostly are answers that got lost.

    Raises:
        ScorerError: one is.
    """
    if not all(plain(target).strip() for target in sample.target):
        raise ScorerError(
            f"sample {sample.id!r}: a target is empty; write the right answer, or ask for empty "
            r"replies by --scorer 'regex:^\s*$'"
        )


_RAISED = re.compile(r"[\u00b2\u00b3\u00b9\u2070-\u209c]+")
_SAME = str.maketrans(
    {
        **dict.fromkeys("\u2018\u2019\u201b\u02bc\u2032", "'"),
        **dict.fromkeys("\u201c\u201d\u201e\u201f\u2033", '"'),
        **dict.fromkeys("\u2010\u2011\u2212", "-"),
        **dict.fromkeys("\u00ad\u200b\u200e\u200f\u2060\ufeff"),
    }
)
"""Quotation marks, hyphens and the minus sign as on a keyboard; what is not seen is left out."""


def plain(text: str) -> str:
    """The text with each character in one way of writing: NFKC, straight quotes, plain hyphens.

    Raised and lowered digits stay: 10\u2075 is not 105.
    """
    parts = _RAISED.split(text)
    raised = [*_RAISED.findall(text), ""]
    normal = (unicodedata.normalize("NFKC", part.translate(_SAME)) for part in parts)
    return "".join(part + digits for part, digits in zip(normal, raised, strict=True))


def _folded(text: str) -> str:
    return re.sub(r"\s+", " ", unicodedata.normalize("NFC", plain(text).casefold()))


def _occurs(target: str, text: str) -> bool:
    """Whether a target stands in a text by itself."""
    start = text.find(target) if target else -1
    while start >= 0:
        end = start + len(target)
        before, after = text[:start], text[end:]
        joined = (
            _joins(before[-1:], target[0])
            or _joins(target[-1], after[:1])
            or (target[0].isdigit() and re.search(r"\d[.,]$", before))
            or (target[-1].isdigit() and re.match(r"[.,]\d", after))
        )
        if not joined:
            return True
        start = text.find(target, start + 1)
    return False


_UNSPACED = (
    "CJK", "HIRAGANA", "KATAKANA", "BOPOMOFO", "HANGUL", "THAI", "LAO", "KHMER", "MYANMAR",
    "TIBETAN", "JAVANESE", "BALINESE", "TAI ", "YI ",
)  # fmt: skip
"""How the Unicode names of scripts without word boundaries begin."""


def _joins(left: str, right: str) -> bool:
    """Whether two neighbouring characters belong to one word, so that none ends between them."""
    if not left or not right:
        return False
    if unicodedata.category(right).startswith("M"):
        return True
    return _in_word(left) and _in_word(right)


def _in_word(character: str) -> bool:
    is_word = character.isalnum() or character == "_" or unicodedata.category(character)[0] == "M"
    return is_word and not unicodedata.name(character, "").startswith(_UNSPACED)
