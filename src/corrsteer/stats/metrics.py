"""Accuracy, its change, and side effects, from the outcomes of two arms on the same samples.

Changes when a run is judged by another number.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from corrsteer.errors import InsufficientDataError
from corrsteer.stats.groups import Groups
from corrsteer.stats.means import mean_interval, sign_flip_p_value
from corrsteer.stats.significance import LEVEL

Outcomes = NDArray[np.float64]
"""One outcome a sample, in [0, 1]; NaN where the reply could not be judged."""
Labels = NDArray[np.int64]
"""One label a sample; samples of one label belong together."""


@dataclass(frozen=True)
class Accuracy:
    """The mean outcome of one arm.

    Attributes:
        accuracy: in [0, 1].
        ci: 95 % interval: Wilson's for outcomes of 0 and 1 of samples that are by themselves,
            `mean_interval` otherwise.
        n: samples it is over.
    """

    accuracy: float
    ci: tuple[float, float]
    n: int


@dataclass(frozen=True)
class Delta:
    """Steered minus baseline accuracy, paired by sample.

    Attributes:
        value: the mean difference.
        ci: its 95 % interval, `mean_interval` of the differences. It leaves out 0 only where
            `p_value` is at most 0.05.
        p_value: two-sided, by flips of the signs of the groups' changes; for outcomes of 0 and 1
            of samples that are by themselves that is McNemar's exact test. 1 where no outcome
            changed.
    """

    value: float
    ci: tuple[float, float]
    p_value: float

    @property
    def most_lost(self) -> float:
        """Upper confidence limit of the loss of accuracy, as a fraction; below 0 for a sure gain.

        The low end of the interval, its sign turned. The true loss is above it in at most 5 % of
        experiments (where no sample can improve; in 2.5 % where as many improve as worsen), so
        that a loss of `tolerance` or more is ruled out where this is below it. How many samples
        that takes: `sample_size.samples_without_loss`.
        """
        return -self.ci[0]


@dataclass(frozen=True)
class SideEffects:
    """What became of each sample.

    Attributes:
        ser: Side Effect Ratio, worsened / (worsened + improved); None where no outcome changed.
        ci: its 95 % interval, as of an accuracy over the samples that changed, or None.
        improved: samples whose outcome rose; `worsened`: fell.
        changed_equal: another reply, the same outcome; `unchanged`: the same reply.
    """

    ser: float | None
    ci: tuple[float, float] | None
    improved: int
    worsened: int
    changed_equal: int
    unchanged: int


def accuracy(outcomes: Outcomes, groups: Labels | None = None) -> Accuracy:
    """Mean outcome with its interval.

    Args:
        outcomes: no NaN among them.
        groups: a label a sample, the same for samples that belong together; None where none do.

    Raises:
        InsufficientDataError: there is no outcome.
    """
    n = len(outcomes)
    if n == 0:
        raise InsufficientDataError(
            "no sample could be judged by the scorer, so there is no accuracy; check --scorer"
        )
    return Accuracy(float(np.mean(outcomes)), _share_interval(outcomes, Groups.of(groups, n)), n)


def delta(baseline: Outcomes, steered: Outcomes, groups: Labels | None = None) -> Delta:
    """Change of accuracy between two arms on the same samples in the same order.

    Args:
        baseline: outcomes without steering, at least one.
        steered: with it.
        groups: see `accuracy`.
    """
    difference, grouped = steered - baseline, Groups.of(groups, len(baseline))
    low, high = mean_interval(difference, grouped, -1.0, 1.0)
    p_value = sign_flip_p_value(grouped.sums(difference))
    if p_value > 1 - LEVEL:  # the test decides, so that interval and p say the same of 0
        low, high = min(low, 0.0), max(high, 0.0)
    return Delta(float(np.mean(difference)), (low, high), p_value)


def side_effects(
    baseline: Outcomes,
    steered: Outcomes,
    same_reply: NDArray[np.bool_],
    groups: Labels | None = None,
) -> SideEffects:
    """SER with its four counts.

    Args:
        baseline: outcomes without steering.
        steered: the same samples' outcomes with it, in the same order.
        same_reply: whether both arms gave the same text.
        groups: see `accuracy`.
    """
    fell, equal = steered < baseline, steered == baseline
    changed = int(np.count_nonzero(~equal))
    worsened = int(np.count_nonzero(fell))
    of_changed = None if groups is None else np.asarray(groups)[~equal]
    return SideEffects(
        ser=worsened / changed if changed else None,
        ci=_share_interval(1.0 * fell[~equal], Groups.of(of_changed, changed)) if changed else None,
        improved=changed - worsened,
        worsened=worsened,
        changed_equal=int(np.count_nonzero(equal & ~same_reply)),
        unchanged=int(np.count_nonzero(equal & same_reply)),
    )


def _share_interval(outcomes: Outcomes, groups: Groups) -> tuple[float, float]:
    """95 % interval of a mean of outcomes in [0, 1]."""
    if groups.single and np.isin(outcomes, (0.0, 1.0)).all():
        return _wilson(int(outcomes.sum()), len(outcomes))
    return mean_interval(outcomes, groups, 0.0, 1.0)


def _wilson(successes: int, n: int) -> tuple[float, float]:
    interval = stats.binomtest(successes, n).proportion_ci(LEVEL, method="wilson")
    return float(interval.low), float(interval.high)
