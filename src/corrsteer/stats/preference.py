"""Whether steering moves a model towards replies that were rated good, as one outcome a reply.

Changes when the movement of probabilities is judged otherwise.

A reply's likelihood is the geometric mean of its tokens' probabilities: q without steering, q'
with it. With e = q' / q - 1, its relative change, at most 1, less the mean change of all replies,
and w its mark less the mean mark, in units of the largest such difference,

    outcome = 1/2 + w e / 2,

which is 1/2 without steering. The weights add up to nothing, so whatever moves all replies alike
changes no mean outcome. Nor does steering that breaks a model, by which every reply loses all of
its likelihood: e is then -1 of all, where log-probabilities would still tell the lost from the
utterly lost. What sharpens or flattens moves likely replies otherwise than unlikely ones, so it
changes the mean where good replies are likelier, or less likely, than bad ones: random controls do
the same then, and show it.

Replies of one group that were marked differently are compared with each other, all others among
themselves.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from corrsteer.stats.metrics import Labels, Outcomes

Floats: TypeAlias = NDArray[np.float64]

UNMOVED = 0.5
"""The outcome of a reply that steering makes neither likelier nor less likely than others."""


def preference_outcomes(before: Floats, after: Floats, marks: Outcomes, groups: Labels) -> Outcomes:
    """The outcome of each reply under a steering, in [0, 1]; NaN where it has no mark.

    Args:
        before: mean log-probability per token without steering; NaN for a reply without tokens.
        after: the same with it.
        marks: what replies were rated, in [0, 1]; NaN for no mark.
        groups: a label a reply, the same for those that belong together.
    """
    rated = ~(np.isnan(marks) | np.isnan(before) | np.isnan(after))
    found = np.full(len(marks), np.nan)
    if not rated.any():
        return found
    strata = _strata(marks[rated], groups[rated])
    change = np.expm1((after - before)[rated].clip(max=np.log(2)))
    weights, gains = _centred(marks[rated], strata), _centred(change, strata)
    largest = float(np.abs(weights).max())
    weights = weights / largest if largest else weights
    found[rated] = UNMOVED + weights * gains.clip(-1, 1) / 2
    return found


def _strata(marks: Floats, groups: Labels) -> Labels:
    """What replies are compared within: their group, where it has several marks, or all others."""
    found = np.full(len(marks), -1, dtype=np.int64)
    for number, group in enumerate(np.unique(groups)):
        own = groups == group
        if np.ptp(marks[own]) > 0:
            found[own] = number
    return found


def _centred(values: Floats, strata: Labels) -> Floats:
    """Values less their mean within each stratum."""
    _, index, counts = np.unique(strata, return_inverse=True, return_counts=True)
    means = np.bincount(index, values) / counts
    return np.asarray(values - means[index])
