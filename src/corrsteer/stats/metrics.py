"""Accuracy, its change, and side effects, from the outcomes of two arms on the same samples.

Changes when a run is judged by another number.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from corrsteer.errors import InsufficientDataError
from corrsteer.stats.significance import LEVEL

Outcomes = NDArray[np.float64]
"""One outcome a sample, in [0, 1]; NaN where the reply could not be judged."""


@dataclass(frozen=True)
class Accuracy:
    """The mean outcome of one arm.

    Attributes:
        accuracy: in [0, 1].
        ci: 95 % interval: Wilson's for outcomes of 0 and 1, Student's t otherwise.
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
        ci: its 95 % interval, Student's t over the paired differences.
        p_value: two-sided; McNemar's exact test for outcomes of 0 and 1, Wilcoxon's signed-rank
            test otherwise; 1 where no outcome changed.
    """

    value: float
    ci: tuple[float, float]
    p_value: float


@dataclass(frozen=True)
class SideEffects:
    """What became of each sample.

    Attributes:
        ser: Side Effect Ratio, worsened / (worsened + improved); None where no outcome changed.
        ci: Wilson's 95 % interval of it, or None.
        improved: samples whose outcome rose; `worsened`: fell.
        changed_equal: another reply, the same outcome; `unchanged`: the same reply.
    """

    ser: float | None
    ci: tuple[float, float] | None
    improved: int
    worsened: int
    changed_equal: int
    unchanged: int


def accuracy(outcomes: Outcomes) -> Accuracy:
    """Mean outcome with its interval.

    Args:
        outcomes: no NaN among them.

    Raises:
        InsufficientDataError: there is no outcome.
    """
    n = len(outcomes)
    if n == 0:
        raise InsufficientDataError(
            "no sample could be judged by the scorer, so there is no accuracy; check --scorer"
        )
    mean = float(np.mean(outcomes))
    if _binary(outcomes):
        return Accuracy(mean, _wilson(int(outcomes.sum()), n), n)
    low, high = _t_interval(outcomes)
    return Accuracy(mean, (max(low, 0.0), min(high, 1.0)), n)


def delta(baseline: Outcomes, steered: Outcomes) -> Delta:
    """Change of accuracy between two arms on the same samples in the same order."""
    difference = steered - baseline
    changed = int(np.count_nonzero(difference))
    if changed == 0:
        return Delta(0.0, (0.0, 0.0), 1.0)
    if _binary(baseline) and _binary(steered):
        improved = int(np.count_nonzero(difference > 0))
        p_value = float(stats.binomtest(improved, changed).pvalue)
    else:
        p_value = float(stats.wilcoxon(difference).pvalue)
    return Delta(float(np.mean(difference)), _t_interval(difference), p_value)


def side_effects(
    baseline: Outcomes, steered: Outcomes, same_reply: NDArray[np.bool_]
) -> SideEffects:
    """SER with its four counts.

    Args:
        baseline: outcomes without steering.
        steered: the same samples' outcomes with it, in the same order.
        same_reply: whether both arms gave the same text.
    """
    improved = int(np.count_nonzero(steered > baseline))
    worsened = int(np.count_nonzero(steered < baseline))
    equal = steered == baseline
    changed = improved + worsened
    return SideEffects(
        ser=worsened / changed if changed else None,
        ci=_wilson(worsened, changed) if changed else None,
        improved=improved,
        worsened=worsened,
        changed_equal=int(np.count_nonzero(equal & ~same_reply)),
        unchanged=int(np.count_nonzero(equal & same_reply)),
    )


def _binary(outcomes: Outcomes) -> bool:
    return bool(np.isin(outcomes, (0.0, 1.0)).all())


def _wilson(successes: int, n: int) -> tuple[float, float]:
    interval = stats.binomtest(successes, n).proportion_ci(LEVEL, method="wilson")
    return float(interval.low), float(interval.high)


def _t_interval(values: Outcomes) -> tuple[float, float]:
    """Student's interval of a mean; the mean itself where the values do not vary."""
    mean, n = float(np.mean(values)), len(values)
    if n < 2 or np.ptp(values) == 0:
        return mean, mean
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1) * stats.sem(values))
    return mean - half, mean + half
