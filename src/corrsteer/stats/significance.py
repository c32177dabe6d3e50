"""Intervals and p-values for correlations.

Changes when another kind of inference about r is added.
"""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import stats

LEVEL = 0.95
"""Confidence level of every interval."""


def correlation_interval(r: float, n: float, level: float = LEVEL) -> tuple[float, float]:
    """Fisher's interval for a Pearson correlation.

    tanh(artanh(r) -+ z / sqrt(n - 3)), Fisher (1915). It assumes joint normality, which pooled
    SAE activations only approach; read it as approximate.

    Args:
        r: the sample correlation, in [-1, 1].
        n: number of independent samples.
        level: of confidence.

    Returns:
        (low, high); (-1, 1) where n < 4, and (r, r) where |r| is 1.
    """
    if n < 4:
        return -1.0, 1.0
    if abs(r) >= 1.0:
        return r, r
    half = float(stats.norm.ppf((1 + level) / 2)) / math.sqrt(n - 3)
    return math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)


def correlation_standard_error(r: float, n: int) -> float:
    """Large-sample standard error of r under normality, (1 - r^2) / sqrt(n - 3)."""
    return (1 - r * r) / math.sqrt(max(n - 3, 1))


def correlation_p_value(r: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """Two-sided p-value of r = 0 by Student's t with n - 2 degrees of freedom.

    Args:
        r: correlations of any shape; NaN gives NaN.
        n: number of samples, at least 3.
    """
    with np.errstate(divide="ignore"):
        t = np.abs(r) * np.sqrt((n - 2) / (1 - np.square(r)))
    return np.asarray(2 * stats.t.sf(t, n - 2), dtype=np.float64)


P = TypeVar("P", float, NDArray[np.float64])


def bonferroni(p: P, comparisons: int) -> P:
    """The p-value that holds for the best of `comparisons` ones, whatever their dependence."""
    adjusted: P = np.minimum(1.0, p * max(comparisons, 1))
    return adjusted


def false_discovery_rate(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Adjusted p-values of Benjamini & Hochberg (1995), often called q-values.

    The false discovery rate if a p-value and all lower ones are called discoveries, where they
    are independent or positively dependent.

    Args:
        p: p-values of one family; NaN gives NaN and does not count.
    """
    q, defined = np.full(p.shape, np.nan), np.isfinite(p)
    if defined.any():
        q[defined] = stats.false_discovery_control(p[defined], method="bh")
    return q
