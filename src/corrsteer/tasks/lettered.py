"""Multiple-choice samples with lettered options.

Changes when the wording that the multiple-choice benchmarks share changes.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import Any

from corrsteer.samples import Sample
from corrsteer.tasks.hub import Row

LETTERS = string.ascii_uppercase


def lettered_sample(
    row: Row,
    question: str,
    options: tuple[str, ...],
    answer: str,
    letters: str,
    metadata: Mapping[str, Any],
) -> Sample:
    """A row as a question whose right reply is the letter of one of its options.

    Args:
        row: what the other arguments are read from.
        question: with its context, if it has one.
        options: the options' texts.
        answer: the column of the right option's letter, or of its index from 0.
        letters: those that the prompt offers; the same for all rows of a benchmark.
        metadata: the row's other columns.

    Raises:
        DataError: the row's answer names none of its options.
    """
    return Sample(
        id=row.id,
        prompt=_prompt(question, options, letters),
        target=(_letter(row, answer, options),),
        choices=options,
        metadata=metadata,
    )


def _prompt(question: str, options: Sequence[str], letters: str) -> str:
    """The question, its options on lines `A. ...`, and what is asked for.

    The wording of https://github.com/seonglae/CorrSteer, corrsteer/utils.py at 1ebf252,
    `build_prompt`.
    """
    lines = [f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False)]
    offer = f"{', '.join(letters[:-1])}, or {letters[-1]}"
    return "\n".join(
        [question, *lines, f"Choose one of the following options only: {offer}", "Answer:"]
    )


def _letter(row: Row, column: str, options: Sequence[str]) -> str:
    """The right option's letter, which the row gives as a letter or as an index from 0.

    Raises:
        DataError: it names none of the options.
    """
    letters = LETTERS[: len(options)]
    value = row.values.get(column)
    if isinstance(value, int) and 0 <= value < len(letters):
        return letters[value]
    name = value.strip().upper() if isinstance(value, str) else ""
    if len(name) == 1 and name in letters:
        return name
    raise row.refused(column, f"a letter of {letters} or its index from 0")
