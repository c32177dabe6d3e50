"""What a task is: samples in three splits, a scorer, and the longest reply.

Changes when a task needs to carry more than that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from corrsteer.notebook import overview
from corrsteer.samples import Sample
from corrsteer.scoring.base import Scorer
from corrsteer.scoring.rated import RATED
from corrsteer.tasks.repeats import Repeats


@dataclass(frozen=True)
class TaskOptions:
    """How a task was asked for: what, beside its name, a run needs to give the same prompts again.

    Attributes:
        few: solved examples in front of every prompt.
        chat: whether prompts are rendered by the model's own chat template.
        select_token: whether a reply is chosen among the options' letters alone.
        data: folder of a local copy of its data set, or None.
        template_options: what the chat template was given beside the messages.
        reply_field, score_field: fields of rows that were named as a rated reply and its score.
        good_above: scores above it are good, others bad; None for the scale of the scores.
    """

    few: int = 0
    chat: bool = False
    select_token: bool = False
    data: str | None = None
    template_options: Mapping[str, Any] = field(default_factory=dict)
    reply_field: str | None = None
    score_field: str | None = None
    good_above: float | None = None


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
        letters: the options' letters that every prompt offers, where one of them, as one token, is
            the reply.
        options: how it was asked for.
        repeats: how many of its samples are not by themselves; None where it was not counted.
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
    letters: str = ""
    options: TaskOptions = field(default_factory=TaskOptions)
    repeats: Repeats | None = None

    @property
    def allowed_replies(self) -> str:
        """The letters that a reply is chosen among; "" for any reply."""
        return self.letters if self.options.select_token else ""

    @property
    def generates(self) -> bool:
        """Whether replies are made and judged where the task is validated.

        Otherwise the rated replies are all there is: their probability speaks.
        """
        return self.scorer is not RATED

    @property
    def fit_scorer(self) -> Scorer:
        """What gives fit samples their outcomes: the scores that replies came with, if they did."""
        rated = any(s.rated is not None and s.rated.outcome is not None for s in self.fit)
        return RATED if rated else self.scorer

    def __repr__(self) -> str:
        return (
            f"Task({self.name!r}, fit={len(self.fit)}, select={len(self.select)}, "
            f"test={len(self.test)}, scorer={self.scorer.name!r}, "
            f"max_new_tokens={self.max_new_tokens})"
        )

    def _repr_html_(self) -> str:
        splits = (self.fit, self.select, self.test)
        facts = {
            "description": self.description or None,
            "fit / select / test": " / ".join(f"{len(split):,}" for split in splits),
            "scorer": self.scorer.name,
            "longest reply": f"{self.max_new_tokens} tokens",
            "guards": ", ".join(self.guards) or "none",
            "first prompt": self.test[0].text if self.test else None,
        }
        return overview(f"Task {self.name}", facts)


def target_reply(sample: Sample) -> str:
    """The first target as it would follow a prompt that ends in `Answer:`."""
    return f" {sample.target[0]}"
