"""The scorer `choice`: which of the lettered options a reply names.

Changes when there is another way of naming one.
"""

from __future__ import annotations

import re
import string

from corrsteer.errors import ScorerError
from corrsteer.samples import Sample
from corrsteer.scoring.base import Score


def choice(reply: str, sample: Sample) -> Score:
    """1 iff the option that the reply names is the target, given as a letter or as its text."""
    answer = read_option(reply, sample.choices)
    return Score(float(answer in target_letters(sample)), answer)


_OPENING = re.compile(r"[\s(\[*\"'<:]*")
_STATED = re.compile(r"\b(?i:answer|option|choice)(?:\s+is)?\s*:?\s*[(\[*\"']*([A-Z])\b(?!['’])")  # noqa: RUF001


def read_option(reply: str, choices: tuple[str, ...] | None) -> str | None:
    """The letter of the option that a reply names.

    In this order: a letter that opens the reply (` B`, `(B)`, `B.`), an option's text that opens
    it (the longest), a letter after the words answer, option or choice. None if there is none.
    """
    letters = string.ascii_uppercase[: len(choices) if choices else 26]
    text = reply[_OPENING.match(reply).end() :]  # type: ignore[union-attr]
    if text and text[0] in letters and not re.match(r"[\w'’-]", text[1:2]):  # noqa: RUF001
        after = text[1:].lstrip()
        # "A man ..." opens with an article, not with option A
        if text[0] not in "AI" or not after[:1].islower() or text[1:2] in ".):]":
            return text[0]
    folded = text.casefold()
    opening = [
        (len(option), letter)
        for letter, option in zip(letters, choices or (), strict=False)
        if option.strip() and re.match(re.escape(option.strip().casefold()) + r"(?!\w)", folded)
    ]
    if opening:
        return max(opening)[1]
    stated = _STATED.search(reply)
    return stated[1] if stated and stated[1] in letters else None


def target_letters(sample: Sample) -> frozenset[str]:
    """The right options' letters, each given in the row as its letter or as its text.

    Raises:
        ScorerError: a target is neither.
    """
    choices = sample.choices or ()
    letters = string.ascii_uppercase[: len(choices) or 26]
    found = set()
    for target in sample.target:
        name = target.strip()
        if len(name) == 1 and name in letters:
            found.add(name)  # first: options' texts may be letters too, as blood groups
        elif target in choices:
            found.add(letters[choices.index(target)])
        elif len(name) == 1 and name.upper() in letters:
            found.add(name.upper())
        else:
            raise ScorerError(
                f"sample {sample.id!r}: target {target!r} is neither a letter of "
                f"{letters[0]}-{letters[-1]} nor one of the choices; correct the row"
            )
    return frozenset(found)
