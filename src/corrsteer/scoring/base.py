"""What a judgement is, and how scorers are run and checked.

Changes when there is another kind of scorer. A reply that a scorer cannot judge gets the outcome
None: it stays in the records, leaves the averages and is counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
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
    """

    outcome: float | None
    answer: str | None = None
    explanation: str = ""


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
    outcome = value if isinstance(value, int | float) else float("nan")
    if not 0.0 <= outcome <= 1.0:
        raise ScorerError(
            f"scorer {scorer} gave {shown(value)} on sample {sample.id!r}; expected a number "
            "from 0 to 1, or None where it cannot judge"
        )
    return float(outcome)


def shown(value: object) -> str:
    """What foreign code raised or returned, in one short line; its type if it cannot be shown."""
    try:
        text = str(value) if isinstance(value, BaseException) else repr(value)
    except Exception:  # its own `__str__` or `__repr__` may fail too
        return type(value).__name__
    return " ".join(text[:300].split())
