"""The mean of a bounded value over samples that may belong together: its interval, and its test.

Changes when means are inferred in another way.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from corrsteer.stats.groups import Floats, Groups
from corrsteer.stats.significance import LEVEL

ADDED = 3
"""Groups that an interval adds. No change in n samples then leaves 3.4 / n open; the rule of three
(Hanley & Lippman-Hand 1983) needs 3 / n."""
SIGN_FLIPS = 19_999
"""Drawn where they cannot be counted, so that no p-value is below 1 / 20,000."""
_BLOCK = 2**22
"""Signs in memory at once."""


def mean_interval(values: Floats, groups: Groups, least: float, most: float) -> tuple[float, float]:
    """95 % interval of the mean of a value in [least, most].

    Student's interval after `ADDED` more groups of typical size, half of them all `least` and half
    all `most`: with n samples, the size k of a typical group, sums Y_g of groups of n_g samples
    and the mean m of all, added ones too, its half width is

        t sqrt(sum_g (Y_g - n_g m)^2 + sum of the same over those added) / (n + 3 k)

    with n / k - 1 degrees of freedom. The idea is Agresti & Min's (2005), who add 1 changed sample
    where here are 3. Theirs covers 0.87 where two changes are expected, this at least 0.944 for any
    number of changes (`benchmarks/coverage.py`). Sums over groups make it hold for whatever
    dependence there is within them (Liang & Zeger 1986).

    Args:
        values: [samples], at least one.
        groups: theirs.
        least: the lowest value possible.
        most: the highest.

    Returns:
        (low, high), within [least, most]; all of that for a single group.
    """
    n, k, freedom = len(values), groups.typical, groups.effective - 1
    if freedom <= 0:
        return least, most
    total = n + ADDED * k
    mean = (values.sum() + ADDED * k * (least + most) / 2) / total
    squares = np.square(groups.sums(values - mean)).sum()
    squares += ADDED / 2 * k * k * ((least - mean) ** 2 + (most - mean) ** 2)
    half = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * math.sqrt(squares) / total
    return max(least, float(mean) - half), min(most, float(mean) + half)


def unchanged_limit(samples: int) -> float:
    """How far from 0 the mean change may be where none of two or more samples changed."""
    none = np.zeros(samples)
    return mean_interval(none, Groups.of(None, samples), -1.0, 1.0)[1]


def sign_flip_p_value(sums: Floats, seed: int = 0) -> float:
    """Two-sided p-value of a mean change of 0: how often random signs give a sum as large.

    Under the null hypothesis a group's sum of changes is as likely as its opposite (Fisher 1935).
    Whole sums, as those of outcomes of 0 and 1, are counted exactly; for groups of one sample that
    is McNemar's exact test. Others are compared with `SIGN_FLIPS` draws, (1 + draws that reach the
    sum) / (1 + draws).

    Args:
        sums: of the changes of each group.
        seed: of the draws.

    Returns:
        1 where nothing changed.
    """
    sizes = np.abs(sums[sums != 0])
    if not len(sizes):
        return 1.0
    observed = abs(float(sums.sum()))
    if (sizes == np.rint(sizes)).all():
        return _counted(sizes, observed)
    return _drawn(sizes, observed, seed)


def _counted(sizes: Floats, observed: float) -> float:
    """The share of all sign patterns, by adding the groups of one size after the other.

    Those of size a with c groups sum to a (2 Binomial(c, 1 / 2) - c).
    """
    chances = np.ones(1)
    for size, count in zip(*np.unique(sizes.astype(np.int64), return_counts=True), strict=True):
        steps = np.zeros(2 * size * count + 1)
        steps[:: 2 * size] = stats.binom.pmf(np.arange(count + 1), count, 0.5)
        chances = np.convolve(chances, steps)
    reach = round(observed)
    beyond = float(chances[len(chances) // 2 + reach :].sum())
    return min(1.0, 2 * beyond) if reach else 1.0


def _drawn(sizes: Floats, observed: float, seed: int) -> float:
    rng, reaching = np.random.default_rng(seed), 0
    rows = max(1, _BLOCK // len(sizes))
    for start in range(0, SIGN_FLIPS, rows):
        count = min(rows, SIGN_FLIPS - start)
        up = rng.integers(0, 2, (count, len(sizes)), dtype=np.int8)
        flipped = np.abs(2 * (up @ sizes) - sizes.sum())
        reaching += int((flipped >= observed - 1e-9 * sizes.sum()).sum())  # ties, but for rounding
    return (1 + reaching) / (1 + SIGN_FLIPS)
