"""What a task is: samples in three splits, a scorer, and the longest reply.

Changes when a task needs to carry more than that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from corrsteer.samples import Sample
from corrsteer.scoring import Scorer


@dataclass(frozen=True)
class Task:
    """A benchmark, cut into the samples that choose features and those that judge them.

    Attributes:
        name: what the command line calls it.
        fit: samples that correlations and coefficients come from.
        select: samples that features, sets and strengths are validated on.
        test: samples that are only ever reported on.
        scorer: gives a reply its outcome in [0, 1].
        max_new_tokens: the longest reply.
        guards: names of tasks that steering for this one should not harm.
        description: one line for `corrsteer tasks`.
        reference: the reply that a sample's row gives as right, as it would follow the prompt;
            None where rows give none.
        shuffled: whether the splits are in the seed's order already, so that a limit on samples
            takes the first ones, as the paper's code does.
    """

    name: str
    fit: tuple[Sample, ...]
    select: tuple[Sample, ...]
    test: tuple[Sample, ...]
    scorer: Scorer
    max_new_tokens: int
    guards: tuple[str, ...] = ()
    description: str = ""
    reference: Callable[[Sample], str] | None = None
    shuffled: bool = False

    def __repr__(self) -> str:
        return (
            f"Task({self.name!r}, fit={len(self.fit)}, select={len(self.select)}, "
            f"test={len(self.test)}, scorer={self.scorer.name!r}, "
            f"max_new_tokens={self.max_new_tokens})"
        )


def target_reply(sample: Sample) -> str:
    """The first target as it would follow a prompt that ends in `Answer:`."""
    return f" {sample.target[0]}"
