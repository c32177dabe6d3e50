"""Scores of any range as outcomes in [0, 1].

Changes when people mark replies on another scale. A scale is taken where the marks can be of no
other; what they were taken for is always said.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from corrsteer.errors import DataError
from corrsteer.json_text import excerpt

GOOD = [
    "true",
    "yes",
    "good",
    "correct",
    "positive",
    "pass",
    "passed",
    "accept",
    "accepted",
    "chosen",
    "like",
    "liked",
    "up",
    "thumbsup",
    "thumbs-up",
    "👍",
]
BAD = [
    "false",
    "no",
    "bad",
    "incorrect",
    "wrong",
    "negative",
    "fail",
    "failed",
    "reject",
    "rejected",
    "dislike",
    "disliked",
    "down",
    "thumbsdown",
    "thumbs-down",
    "👎",
]
WORDS: Mapping[str, float] = {**dict.fromkeys(GOOD, 1.0), **dict.fromkeys(BAD, 0.0)}
"""What marks in words are worth."""

STARS = 5.0
"""The most on a scale from 1, as of stars."""


@dataclass(frozen=True)
class Marked:
    """Marks as outcomes.

    Attributes:
        outcomes: one a mark, in [0, 1]; None where there was no mark.
        scale: what the marks were taken for, in a few words.
    """

    outcomes: tuple[float | None, ...]
    scale: str


def outcomes_of(placed: Sequence[tuple[str, Any]], good_above: float | None, field: str) -> Marked:
    """Marks on the scale that they are of, which all share.

    Args:
        placed: marks, each with where it was read; None for none.
        good_above: marks above it are outcomes of 1, others of 0; None to tell the scale by the
            marks.
        field: that held them.

    Raises:
        DataError: a mark is neither a number nor a word for good or bad, or they are of a scale
            that cannot be told.
    """
    numbers = [None if mark is None else _number(mark, where, field) for where, mark in placed]
    given = sorted({number for number in numbers if number is not None})
    if good_above is not None:
        return Marked(
            tuple(None if each is None else float(each > good_above) for each in numbers),
            f"above {good_above:g} is good, all else is bad",
        )
    low, high, scale = _scale(given, field, placed[0][0].rpartition(", ")[0])
    outcomes = (None if each is None else (each - low) / (high - low) for each in numbers)
    return Marked(tuple(outcomes), scale)


def _scale(given: Sequence[float], field: str, path: str) -> tuple[float, float, str]:
    """The mark of outcome 0, that of outcome 1, and what the scale is."""
    whole = all(mark.is_integer() for mark in given)
    if not given or (given[0] >= 0 and given[-1] <= 1):
        binary = "0 is bad and 1 is good" if whole else "0 is worst and 1 is best"
        return 0.0, 1.0, binary
    if whole and given[0] == -1 and given[-1] <= 1:
        return -1.0, 1.0, "-1 is bad and 1 is good"
    if given[0] >= 1 and given[-1] == STARS:
        return 1.0, STARS, "1 is worst and 5 is best, evenly between"
    shown = ", ".join(f"{mark:g}" for mark in given[:3])
    middle = given[(len(given) - 1) // 2] if len(given) > 1 else given[0] - 1
    raise DataError(
        f"{path}: `{field}` runs from {given[0]:g} to {given[-1]:g} ({shown}, ...), which may be "
        f"several scales; say which marks are good, as --good-above {middle:g}"
    )


def _number(mark: Any, where: str, field: str) -> float:
    if isinstance(mark, bool):
        return float(mark)
    if isinstance(mark, str):
        word = mark.strip().lower().replace(" ", "-").replace("_", "-")
        if word in WORDS:
            return WORDS[word]
    try:
        number = float(mark) if isinstance(mark, str | int | float) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError(
            f"{where}: `{field}` is {excerpt(mark)}; expected a number, true or false, or a word "
            "as good, bad, thumbs up, thumbs down"
        )
    return number
