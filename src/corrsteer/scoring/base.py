"""What a judgement is, and how scorers are run and checked.

Changes when there is another kind of scorer. A reply that a scorer cannot judge gets the outcome
None: it stays in the records, leaves the averages and is counted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from numbers import Real
from typing import Protocol, runtime_checkable

from corrsteer.errors import ScorerError
from corrsteer.samples import Sample

REFUSE, ANSWER = "refuse", "answer"
"""Targets of samples that should be refused, and of those that should be answered."""


@dataclass(frozen=True)
class Score:
    """The judgement of one reply.

    Attributes:
        outcome: in [0, 1], or None where the reply cannot be judged.
        answer: what was read out of the reply, or None where nothing was found.
        explanation: why, in a few words, where outcome and answer do not say it.
        unread: whether nothing could be read out of the reply, so that its outcome is 0.
    """

    outcome: float | None
    answer: str | None = None
    explanation: str = ""
    unread: bool = False


def unread(why: str) -> Score:
    """The score of a reply that nothing can be read out of: 0, and counted as such."""
    return Score(0.0, explanation=why, unread=True)


@runtime_checkable
class Scorer(Protocol):
    """Anything that judges replies."""

    @property
    def name(self) -> str:
        """What `--scorer` calls it."""
        ...

    @property
    def needs_target(self) -> bool:
        """Whether a sample without a target cannot be judged at all."""
        ...

    def __call__(self, reply: str, sample: Sample) -> Score:
        """The score of `reply` to `sample`."""
        ...


@runtime_checkable
class TargetReader(Scorer, Protocol):
    """A scorer that understands targets in ways of its own, and so may not understand one."""

    def check_target(self, sample: Sample) -> None:
        """Refuse a sample's targets with a `ScorerError` if replies cannot be judged by them."""
        ...


@runtime_checkable
class Judge(Scorer, Protocol):
    """A scorer that runs a model, and so judges many replies at once."""

    def prepare(self) -> None:
        """Load what it needs; a `ScorerError` where that cannot be had."""
        ...

    def score_batch(self, replies: Sequence[str], samples: Sequence[Sample]) -> list[Score]:
        """The score of each reply to its sample."""
        ...


def score(scorer: Scorer, reply: str, sample: Sample) -> Score:
    """What `scorer` makes of `reply`, checked; see `score_batch`."""
    return score_batch(scorer, [reply], [sample])[0]


def score_batch(scorer: Scorer, replies: Sequence[str], samples: Sequence[Sample]) -> list[Score]:
    """What `scorer` makes of each reply, checked; all at once where the scorer can.

    Raises:
        ScorerError: the scorer raises, or its outcome is neither None nor a number in [0, 1].
    """
    if isinstance(scorer, Judge):
        results = scorer.score_batch(replies, samples)
    else:
        results = [scorer(*pair) for pair in zip(replies, samples, strict=True)]
    return [
        replace(result, outcome=checked_outcome(result.outcome, scorer.name, sample))
        for result, sample in zip(results, samples, strict=True)
    ]


def prepare(scorer: Scorer) -> None:
    """Load what a scorer needs, so that one that cannot be had stops a run before it starts.

    Raises:
        ScorerError: a judge's weights or library cannot be had.
    """
    if isinstance(scorer, Judge):
        scorer.prepare()


def checked_outcome(value: object, scorer: str, sample: Sample) -> float | None:
    """An outcome that a scorer gave, refused unless it is None or a number in [0, 1]."""
    if value is None:
        return None
    outcome = _number(value)
    if not 0.0 <= outcome <= 1.0:
        raise ScorerError(
            f"scorer {scorer} gave {shown(value)} on sample {sample.id!r}; expected a number "
            "from 0 to 1, or None where it cannot judge"
        )
    return float(outcome)


def _number(value: object) -> float:
    """A number of any library, also in an array or tensor of one; NaN for anything else."""
    if not isinstance(value, int | float | Real | Decimal):
        try:
            value = value.item()  # type: ignore[attr-defined]
        except (AttributeError, TypeError, ValueError, RuntimeError):  # foreign code's own
            return math.nan
    try:
        return float(value) if isinstance(value, int | float | Real | Decimal) else math.nan
    except OverflowError:
        return math.inf


def shown(value: object) -> str:
    """What foreign code raised or returned, in one short line; its type if it cannot be shown."""
    try:
        text = str(value) if isinstance(value, BaseException) else repr(value)
    except Exception:  # its own `__str__` or `__repr__` may fail too
        return type(value).__name__
    return " ".join(text[:300].split())
