"""Two arms on the same samples: their replies, outcomes, and what steering changed.

Changes when a comparison says more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from corrsteer.runs.receipts import Receipts
from corrsteer.scoring.base import Score
from corrsteer.stats import metrics
from corrsteer.stats.metrics import Accuracy, Delta, Labels, Outcomes, SideEffects

SampleRows = NDArray[np.bool_]
"""Which of some samples are meant."""


@dataclass(frozen=True)
class Responses:
    """What one arm replied, in the order of the samples.

    Attributes:
        texts: the replies.
        scores: their judgements.
        likelihoods: mean log-probability per token of each, where nothing was generated and they
            are replies that came with the samples; NaN for one without tokens.
    """

    texts: tuple[str, ...]
    scores: tuple[Score, ...]
    likelihoods: NDArray[np.float64] | None = None

    @cached_property
    def outcomes(self) -> Outcomes:
        """One outcome a sample; NaN where the reply could not be judged."""
        return np.array([np.nan if s.outcome is None else s.outcome for s in self.scores])

    @cached_property
    def unread(self) -> NDArray[np.bool_]:
        """Whether nothing could be read out of the reply, so that it counts as wrong."""
        return np.array([score.unread for score in self.scores], dtype=bool)


@dataclass(frozen=True)
class Comparison:
    """A steered arm beside the baseline, over the samples that both could be judged on.

    Attributes:
        baseline: accuracy without steering; `steered`: with it.
        delta: steered minus baseline.
        side_effects: SER with its counts.
        unscored: samples left out because a reply could not be judged.
        unread: replies of the baseline, and of the steered arm, that nothing could be read out of,
            so that they count as wrong; None where it is not known.
        receipts: what the steering costs; None where it was not measured.
    """

    baseline: Accuracy
    steered: Accuracy
    delta: Delta
    side_effects: SideEffects
    unscored: int
    unread: tuple[int, int] | None = None
    receipts: Receipts | None = None


@dataclass(frozen=True)
class PairedOutcomes:
    """Two arms' outcomes on the same samples; NaN where a reply could not be judged.

    Attributes:
        before: outcomes without steering; `after`: with it.
        same: whether both arms gave the same text.
        groups: a label a sample, the same for samples that belong together; None where none do.
        unread: whether nothing could be read out of a reply, a row an arm; None where not known.
    """

    before: Outcomes
    after: Outcomes
    same: NDArray[np.bool_]
    groups: Labels | None = None
    unread: NDArray[np.bool_] | None = None

    def part(self, rows: SampleRows) -> PairedOutcomes:
        """Those of some samples."""
        return PairedOutcomes(
            self.before[rows],
            self.after[rows],
            self.same[rows],
            None if self.groups is None else self.groups[rows],
            None if self.unread is None else self.unread[:, rows],
        )

    def with_more(self, other: PairedOutcomes) -> PairedOutcomes:
        """These, and the same arms' outcomes on other samples."""
        groups = unread = None
        if self.groups is not None and other.groups is not None:
            groups = np.concatenate([self.groups, other.groups])
        if self.unread is not None and other.unread is not None:
            unread = np.concatenate([self.unread, other.unread], axis=1)
        return PairedOutcomes(
            np.concatenate([self.before, other.before]),
            np.concatenate([self.after, other.after]),
            np.concatenate([self.same, other.same]),
            groups,
            unread,
        )

    def comparison(self, rows: SampleRows | None = None) -> Comparison:
        """The comparison over some samples, or all.

        Raises:
            InsufficientDataError: no sample could be judged in both arms.
        """
        own = self if rows is None else self.part(rows)
        found = paired(own.before, own.after, own.same, own.groups)
        if own.unread is None:
            return found
        before, after = own.unread.sum(axis=1)
        return replace(found, unread=(int(before), int(after)))


def outcomes_of(
    baseline: Responses, steered: Responses, groups: Labels | None = None
) -> PairedOutcomes:
    """The outcomes of two arms on the same samples in the same order."""
    same = [a == b for a, b in zip(baseline.texts, steered.texts, strict=True)]
    unread = np.stack([baseline.unread, steered.unread])
    outcomes = baseline.outcomes, steered.outcomes
    return PairedOutcomes(*outcomes, np.array(same, dtype=bool), groups, unread)


def compare(baseline: Responses, steered: Responses, groups: Labels | None = None) -> Comparison:
    """The comparison of two arms on the same samples in the same order.

    Args:
        baseline: the arm without steering.
        steered: the arm with it.
        groups: a label a sample, the same for samples that belong together; None where none do.

    Raises:
        InsufficientDataError: no sample could be judged in both.
    """
    return outcomes_of(baseline, steered, groups).comparison()


def paired(
    before: Outcomes, after: Outcomes, same: NDArray[np.bool_], groups: Labels | None = None
) -> Comparison:
    """The comparison of two arms' outcomes; NaN where a reply could not be judged.

    Args:
        before: outcomes without steering.
        after: the same samples' outcomes with it.
        same: whether both arms gave the same text.
        groups: see `compare`.

    Raises:
        InsufficientDataError: no sample could be judged in both.
    """
    judged = ~(np.isnan(before) | np.isnan(after))
    before, after = before[judged], after[judged]
    groups = None if groups is None else groups[judged]
    return Comparison(
        baseline=metrics.accuracy(before, groups),
        steered=metrics.accuracy(after, groups),
        delta=metrics.delta(before, after, groups),
        side_effects=metrics.side_effects(before, after, same[judged], groups),
        unscored=int((~judged).sum()),
    )
