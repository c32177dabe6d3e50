"""Intervals of correlations that take no distribution, or no independence, for granted.

Changes when r has another kind of interval.
"""

from __future__ import annotations

import numpy as np
from scipy import stats

from corrsteer.stats.groups import Floats, Groups
from corrsteer.stats.significance import LEVEL

CARRIERS = 30
"""How many must carry a latent's variance for its bootstrap interval to be offered."""


def carriers(activations: Floats, groups: Groups) -> Floats:
    """How many samples, or groups of them, carry the variance of each latent; [latents].

    (sum q)^2 / sum q^2 with a group's sum q of squared deviations from the mean. That is the number
    of active samples for a rare latent that is either on or off, and less where few of them are
    far larger than the rest. With fewer than `CARRIERS` the bootstrap's intervals are too narrow
    (`benchmarks/correlation_intervals.py`).
    """
    squares = groups.sums(np.square(activations - activations.mean(axis=1, keepdims=True)).T)
    with np.errstate(invalid="ignore"):
        shares: Floats = squares.sum(axis=0) ** 2 / np.square(squares).sum(axis=0)
    return np.nan_to_num(shares)


def effective_samples(activations: Floats, outcomes: Floats, groups: Groups) -> Floats:
    """How many independent samples would know r as well, for Fisher's interval; [latents].

    3 + (n - 3) / d with the design effect d: the variance of r by the groups' sums of its influence
    function, u v - r (u^2 + v^2) / 2 of standardised activation u and outcome v (Devlin et al.
    1975), over that by single samples; at least 1, times the squared ratio of Student's
    to the normal quantile for so many groups. n where no samples belong together.
    """
    n = len(outcomes)
    if groups.single:
        return np.full(len(activations), float(n))
    u, v = _standardised(activations), _standardised(outcomes[None])
    r = (u * v).mean(axis=1, keepdims=True)
    influence = (u * v - r * (u**2 + v**2) / 2).T
    together = np.square(groups.sums(influence)).sum(axis=0)
    effect = np.fmax(together / np.square(influence).sum(axis=0), 1.0)
    freedom = max(groups.effective - 1, 1.0)
    wider = stats.t.ppf((1 + LEVEL) / 2, freedom) / stats.norm.ppf((1 + LEVEL) / 2)
    found: Floats = 3 + (n - 3) / (effect * wider**2)
    return found


def bootstrap_intervals(
    activations: Floats,
    outcomes: Floats,
    resamples: int = 2000,
    seed: int = 0,
    groups: Groups | None = None,
) -> Floats:
    """Bias-corrected and accelerated (BCa) 95 % intervals of r, Efron (1987).

    Samples are drawn with replacement, activation and outcome together, and whole groups of them.
    All latents share the draws, whose sums are matrix products of how often each was drawn. The
    acceleration is that of the jackknife, which leaves out a group at a time. Where samples are by
    themselves it equals `scipy.stats.bootstrap(..., paired=True)` with the same draws.

    Args:
        activations: [latents, samples].
        outcomes: [samples].
        resamples: draws of as many groups as there are.
        seed: of the draws.
        groups: of the samples; None where each is by itself.

    Returns:
        [latents, 2], low and high; NaN where r is undefined, or is in some draw.
    """
    n = len(outcomes)
    z, y = _standardised(activations), _standardised(outcomes[None])[0]
    r = z @ y / n
    groups = groups or Groups.of(None, n)
    columns = groups.sums(np.concatenate([z, z**2, z * y, [y, y**2, np.ones(n)]]).T)
    draws = np.empty((resamples, len(z)))
    for start, drawn in groups.drawn(resamples, seed):
        draws[start : start + len(drawn)] = _correlations_of_sums(drawn @ columns)
    jackknife = _correlations_of_sums(columns.sum(axis=0) - columns)
    with np.errstate(invalid="ignore", divide="ignore"):
        below = (draws < r).mean(axis=0) + (draws <= r).mean(axis=0)
        bias = stats.norm.ppf(below / 2)
        skew = jackknife.mean(axis=0) - jackknife
        acceleration = (skew**3).sum(axis=0) / (6 * (skew**2).sum(axis=0) ** 1.5)
        tail = stats.norm.ppf((1 - LEVEL) / 2)
        ends = []
        for quantile in (tail, -tail):
            shifted = bias + quantile
            level = stats.norm.cdf(bias + shifted / (1 - acceleration * shifted))
            ends.append([_quantile(draws[:, i], level[i]) for i in range(len(z))])
    return np.asarray(ends, dtype=np.float64).T.reshape(-1, 2)


def _standardised(values: Floats) -> Floats:
    """Rows of mean 0 and variance 1, for the sake of rounding; NaN where a row is constant."""
    centred = values - values.mean(axis=1, keepdims=True)
    spread = np.sqrt(np.square(centred).mean(axis=1, keepdims=True))
    spread[np.ptp(values, axis=1) == 0] = np.nan
    standardised: Floats = centred / spread
    return standardised


def _correlations_of_sums(sums: Floats) -> Floats:
    """Correlation of each latent from sums of z, z^2, zy, then y, y^2 and 1, in the last axis."""
    latents = (sums.shape[1] - 3) // 3
    z, zz, zy = (sums[:, i * latents : (i + 1) * latents] for i in range(3))
    y, yy, n = (sums[:, [column]] for column in (-3, -2, -1))
    spread_z, spread_y = zz - z**2 / n, yy - y**2 / n
    defined = (spread_z > 1e-9 * zz) & (spread_y > 1e-9 * yy)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(defined, (zy - z * y / n) / np.sqrt(spread_z * spread_y), np.nan)


def _quantile(draws: Floats, level: float) -> float:
    return float(np.quantile(draws, level)) if np.isfinite(level) else float("nan")
