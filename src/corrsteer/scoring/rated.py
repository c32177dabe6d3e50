"""Scores that came with the replies.

Changes when a rated reply carries more than one outcome.
"""

from __future__ import annotations

from dataclasses import dataclass

from corrsteer.errors import ScorerError
from corrsteer.samples import Sample
from corrsteer.scoring.base import Score


@dataclass(frozen=True)
class RatedScorer:
    """Gives each sample's own rated reply the score that it came with; it reads no reply.

    A task of this scorer generates nothing: where it is validated, the probability of the rated
    replies speaks.
    """

    name: str = "rated"
    needs_target: bool = False

    def __call__(self, reply: str, sample: Sample) -> Score:
        """The score that the sample's rated reply came with."""
        if sample.rated is None:
            raise ScorerError(
                f"sample {sample.id!r} has no reply that was rated; --scorer rated is for rows "
                "with `reply` and `score`"
            )
        return Score(sample.rated.outcome)


RATED = RatedScorer()

NOT_SHOWN = (
    "no reply was generated: this shows how the likelihood of held-out replies moves, and not what "
    "the steered model says; rows with targets and a --scorer, or reading some replies, would"
)
"""What is said wherever rated replies alone judge a steering."""


def measured(scorer: str) -> str:
    """What the mean outcome by a scorer is called."""
    return "preference" if scorer == RATED.name else "accuracy"
