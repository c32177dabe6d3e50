"""The scorer `numeric`: the number that a reply ends in.

Changes when there is another way of writing numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation

from corrsteer.samples import Sample
from corrsteer.scoring.base import Score


def numeric(reply: str, sample: Sample) -> Score:
    """1 iff the reply's final number equals a target; `72`, `72.0` and `$72` are equal."""
    answer = read_number(reply)
    if answer is None:
        return Score(0.0, explanation="no number in the reply")
    right = any(read_number(target) == answer for target in sample.target)
    return Score(float(right), f"{answer:f}")


_NUMBER = re.compile(r"[-\u2212]?\$?(?:\d[\d,]*(?:\.\d+)?|\.\d+)")  # \u2212: minus sign


def read_number(text: str) -> Decimal | None:
    """The first number after the first `####`, or the last one of all if there is no `####`.

    As GSM8K's authors read it: a base model goes on to questions and answers of its own. None if
    there is no number.
    """
    for part in text.split("####")[1:]:
        for number in _numbers(part):
            return number
    return next(reversed(list(_numbers(text))), None)


def _numbers(text: str) -> Iterator[Decimal]:
    """The numbers in a text, in order.

    Thousands commas and a currency sign are dropped. A hyphen counts as a minus unless it stands
    between digits or letters (`3-5` ends in 5).
    """
    for match in _NUMBER.finditer(text):
        digits = match[0].replace(",", "").replace("$", "").replace("\u2212", "-")
        if digits.startswith("-") and match.start() > 0 and text[match.start() - 1].isalnum():
            digits = digits[1:]
        try:
            yield Decimal(digits)
        except InvalidOperation:  # more digits than Decimal takes
            continue
